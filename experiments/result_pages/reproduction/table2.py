"""Table 2: the composition of the four traces, and the targets that they reach."""

from collections.abc import Mapping, Sequence

import numpy as np

from bssim.cost_models.density import token_sums
from bssim.experiments.markdown import markdown_table
from bssim.experiments.result_pages.reproduction.source_draws import NAMES
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.sweeps import Results, WorkloadRef, build_workload
from bssim.sim.workload import DEFAULT_NUM_REQUESTS, TRACES, pool_density

SOURCES = ("burstgpt", "openvid", "mmlu")
"""Of every trace, in the order of the recipe."""
SAMPLED = 0.01
"""The paper's share of requests that are run first to learn output lengths."""

TEXT = """
We do not know the content of the paper's Table 2, so this table has no reference. It shows the
four traces of section 6.2, made from our fits with the paper's recipe (BurstGPT and OpenVid for
the density, then MMLU for the sharing), {requests:,} requests each.

{table}

OpenVid makes up at most {share:.2%} of the requests and {memory} of the memory seconds. The
placement of its {fewest} to {most} long outputs decides the makespan. A uniform sample of
{sampled:.0%} would hold only {least_sampled} to {most_sampled} of them.
"""


class Table2:
    """Composition, density and sharing of the four traces."""

    name = "table2"
    title = "Table 2: the four traces (the paper's own table is not in our notes)"

    def __init__(self, num_requests: int = DEFAULT_NUM_REQUESTS) -> None:
        """``num_requests``: requests of each trace."""
        self.num_requests = num_requests

    def sweeps(self, full: bool) -> Sequence[str]:
        """Read no sweep."""
        return ()

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        columns = ["trace", *(NAMES[s] for s in SOURCES), "prompt tokens", "output tokens"]
        columns.append("memory seconds of OpenVid")
        rows = []
        claims, long_outputs, memory_shares = [], [], []
        for trace, spec in TRACES.items():
            pool = build_workload(WorkloadRef(trace, self.num_requests, seed=0))
            of = {name: pool.source == i for i, name in enumerate(pool.source_names)}
            counts = {name: int(np.count_nonzero(of[name])) for name in SOURCES}
            _, reads = token_sums(pool.prompt_tokens, pool.output_tokens)
            memory = float(reads[of["openvid"]].sum() / reads.sum())
            long_outputs.append(counts["openvid"])
            memory_shares.append(memory)
            cells = [f"{counts[name]:,}" for name in SOURCES]
            cells += [f"{pool.prompt_tokens.sum():,}", f"{pool.output_tokens.sum():,}"]
            rows.append([trace, *cells, f"{memory:.1%}"])
            for key, target, reached in (
                ("density", spec.density, pool_density(pool)),
                ("sharing", spec.sharing, pool.sharing_max),
            ):
                claims.append(
                    Claim(
                        f"table2.{trace}.{key}",
                        f"{trace}: {key}",
                        target,
                        reached,
                        "the paper's column is the target of the mix",
                    )
                )
        text = TEXT.format(
            requests=self.num_requests,
            sampled=SAMPLED,
            table="\n".join(markdown_table(columns, rows)),
            memory=f"{min(memory_shares):.0%} to {max(memory_shares):.0%}",
            share=max(long_outputs) / self.num_requests,
            fewest=min(long_outputs),
            most=max(long_outputs),
            least_sampled=round(min(long_outputs) * SAMPLED),
            most_sampled=round(max(long_outputs) * SAMPLED),
        )
        return Chapter(claims, text)


TABLE2 = Table2()
