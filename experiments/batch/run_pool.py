"""The requests of a run as a `Workload`, after vLLM has turned them into token ids."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from bssim.backends.vllm import Answer, OpenAISession, Prompt
from bssim.experiments.batch.run_lengths import Observed
from bssim.experiments.batch.run_lines import Line
from bssim.experiments.batch.run_results import FinishedRows
from bssim.sim.workload import Workload, flatten, from_token_ids, make_workload

RENDERED_AT_ONCE = 256
"""Lines that vLLM renders together."""


@dataclass(frozen=True, eq=False)
class Pool:
    """The requests that the engine accepts, finished ones included: they show output lengths."""

    workload: Workload
    """Output lengths are the caps."""
    indices: list[int]
    """Index in the file, by row."""
    left: list[int]
    """Rows that have not finished."""

    @cached_property
    def row_of(self) -> dict[int, int]:
        """Row in the workload, by index in the file."""
        return {index: row for row, index in enumerate(self.indices)}

    def observed(self, finished: FinishedRows) -> Observed:
        """Return the output lengths of the finished requests of this pool."""
        seen = [
            (self.row_of[index], tokens, ended)
            for index, tokens, ended in finished.observed()
            if index in self.row_of and tokens > 0
        ]
        table = np.array(seen, dtype=np.int64).reshape(-1, 3)
        return Observed(table[:, 0], table[:, 1], table[:, 2].astype(np.bool_))


def rendered(
    session: OpenAISession, lines: Iterable[Line]
) -> Iterator[tuple[int, Prompt | Answer]]:
    """Let vLLM turn lines into token ids. Yields each line's index with its prompt, or with the
    answer of a line that vLLM refuses."""
    rest = iter(lines)
    while part := list(islice(rest, RENDERED_AT_ONCE)):
        rows = [(line.index, line.custom_id, line.url, line.body) for line in part]
        yield from session.prepare(rows).items()


def pool_of(name: str, prompts: Mapping[int, Prompt], finished: FinishedRows) -> Pool | None:
    """Return the pool of prompts, by index in the file; None if there are none."""
    if not prompts:
        return None
    flat, offsets = flatten([prompt.token_ids for prompt in prompts.values()])
    tree, node = from_token_ids(flat, offsets)
    caps = [max(prompt.max_tokens, 1) for prompt in prompts.values()]
    workload = make_workload(name, np.diff(offsets), caps, tree=tree, node=node, max_tokens=caps)
    indices = list(prompts)
    left = [row for row, index in enumerate(indices) if index not in finished.rows]
    return Pool(workload, indices, left)
