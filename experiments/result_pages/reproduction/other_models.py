"""Figures 7b and 12: the same four traces on larger and on other models."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bssim.experiments.plots import conditions_of, fastest_message, grouped_bars, ratio_range
from bssim.experiments.result_pages.reproduction import published
from bssim.experiments.result_pages.reproduction.main_results import (
    BALANCE,
    BLENDSERVE,
    COLOURS,
    COST_MODELS,
    DFS,
    DFS_MEMORY,
    SGLANG,
    VLLM,
)
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import (
    by_workload,
    frame_table,
    percent,
    span,
    times,
    tokens,
    within,
)
from bssim.experiments.sweeps import Results

FIG7B = "paper/fig7b.yaml"
FIG7B_SEQUENTIAL = "paper/fig7b-sequential.yaml"
FIG7B_DENSITY = "paper/fig7b-density.yaml"
FIG12 = {
    "qwen-2.5-7b": "paper/fig12.yaml",
    "llama-2-7b": "paper/fig12.yaml",
    "qwen-2.5-72b": "paper/fig12-tp8.yaml",
    "deepseek-67b": "paper/fig12-tp8.yaml",
}
"""Model -> the sweep that has it."""
DENSITY_NOTE = (
    "The density of a pool also depends on the model. A model computes 2P FLOP per token and "
    "reads 4 Hkv L bytes per token of context, so the same requests are denser on a model with "
    "more parameters per byte of KV."
)


class Figure7b:
    """Llama-3-70B with tensor parallelism: the four traces, and pools of the paper's densities."""

    name = "fig7b"
    title = "Figure 7b: Llama-3-70B on eight A100, four traces"

    def sweeps(self, full: bool) -> Sequence[str]:
        """See `Study.sweeps`."""
        return (FIG7B, FIG7B_SEQUENTIAL, FIG7B_DENSITY)

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        rate = _rates_7b(results)
        optimum = {
            cost: by_workload(results[FIG7B], "optimum_tok_s", cost_model=cost)["dfs"]
            for cost in COST_MODELS
        }
        share = by_workload(results[FIG7B], "share_of_optimum", cost_model="paper").rename(
            columns=_SYSTEMS
        )
        density = by_workload(results[FIG7B], "density", cost_model="paper")["dfs"]
        matched = by_workload(results[FIG7B_DENSITY])
        matched_density = by_workload(results[FIG7B_DENSITY], "density")["dfs"]
        matched_gain = matched["blendserve"] / matched["dfs"]
        matched_share = by_workload(results[FIG7B_DENSITY], "share_of_optimum")["blendserve"]
        gain = rate["paper"][BLENDSERVE] / rate["paper"][DFS]
        claims = [
            Claim(
                "fig7b.blendserve_over_dfs.mean",
                "BlendServe over NanoFlow-DFS, 70B, mean of the traces",
                published.OVER_DFS_70B,
                gain.mean(skipna=False),
                f"by trace {span(gain)}; the traces' densities on 70B are "
                f"{span(density, '{:.2f}'.format)}, so that little is left to blend",
            ),
            Claim(
                "fig7b.blendserve_over_dfs.matched_density",
                "the same on pools of density 1.4 and 0.9 on 70B itself, mean",
                published.OVER_DFS_70B,
                matched_gain.mean(skipna=False),
                f"by pool {span(matched_gain)}",
            ),
            Claim(
                "fig7b.blendserve_over_dfs.roofline",
                "BlendServe over NanoFlow-DFS, 70B, mean of the traces, roofline cost model",
                published.OVER_DFS_70B,
                (rate["roofline"][BLENDSERVE] / rate["roofline"][DFS]).mean(skipna=False),
            ),
            Claim(
                "fig7b.share_of_optimum.blendserve",
                "BlendServe, share of the practical optimum, 70B, mean of the traces",
                published.BLENDSERVE_SHARE_70B,
                share[BLENDSERVE].mean(skipna=False),
                f"on the pools of matched density {matched_share.mean(skipna=False):.3f}",
            ),
            *_never_below(self.name, "llama-3-70b", gain),
        ]
        text = "\n\n".join(
            [
                "Tokens/s with the `paper` cost model. All-reduce is overlapped on NanoFlow and "
                "exposed on vLLM and SGLang.",
                frame_table(rate["paper"].assign(optimum=optimum["paper"]).T, tokens, "system"),
                "With `roofline`, on NanoFlow:",
                frame_table(
                    rate["roofline"].assign(optimum=optimum["roofline"]).T, tokens, "system"
                ),
                "Share of the practical optimum, `paper` cost model:",
                frame_table(share, percent, "trace", means=True),
                _of_bound_7b(results),
                f"{DENSITY_NOTE} The paper does not say whether it drew new traces for 70B. These "
                "are mixes whose densities on 70B itself are those of the four traces on 8B:",
                frame_table(
                    pd.DataFrame(
                        {
                            "density on 70B": _texts(matched_density, "{:.2f}".format),
                            "BlendServe over DFS": _texts(matched_gain, times),
                            "share of the optimum": _texts(matched_share, percent),
                        }
                    ),
                    str,
                    "mix (density and sharing on 8B)",
                ),
            ]
        )
        figure = _figure_7b(rate, optimum, conditions_of(results[FIG7B].read_runs()))
        caption = (
            "Throughput on Llama-3-70B with eight A100; the sequential engines were priced with "
            "the paper cost model only."
        )
        return Chapter(claims, text, {self.name: figure}, {self.name: caption})


class Figure12:
    """Four more models: DFS, BlendServe and the practical optimum."""

    name = "fig12"
    title = "Figure 12: four more models"

    def sweeps(self, full: bool) -> Sequence[str]:
        """See `Study.sweeps`."""
        return tuple(dict.fromkeys(FIG12.values()))

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""

        def of_each(column: str) -> dict[str, pd.DataFrame]:
            return {
                model: by_workload(results[sweep], column, model=model).rename(columns=_SYSTEMS)
                for model, sweep in FIG12.items()
            }

        rate, optimum = of_each("throughput_tok_s"), of_each("optimum_tok_s")
        share, density = of_each("share_of_optimum"), of_each("density")
        gain = pd.DataFrame({m: table[BLENDSERVE] / table[DFS] for m, table in rate.items()}).T
        reached = pd.DataFrame({m: table[BLENDSERVE] for m, table in share.items()}).T
        bounded = pd.DataFrame({m: t[BLENDSERVE] for m, t in of_each("share_of_bound").items()}).T
        pools = pd.DataFrame({m: table[DFS] for m, table in density.items()}).T
        sizes = pd.DataFrame({m: t[DFS] for m, t in of_each("num_requests").items()}).T
        gpus = of_each("tp")
        mean, most = published.OVER_DFS_OTHERS
        claims = [
            Claim(
                "fig12.blendserve_over_dfs.mean",
                "BlendServe over NanoFlow-DFS, mean of four models and four traces",
                mean,
                float(np.mean(gain.to_numpy())),
                f"densities on these models are {span(pools.to_numpy().ravel(), '{:.2f}'.format)}",
            ),
            Claim(
                "fig12.blendserve_over_dfs.max",
                "BlendServe over NanoFlow-DFS, largest of four models and four traces",
                most,
                float(np.max(gain.to_numpy())),
            ),
            Claim(
                "fig12.share_of_optimum.blendserve",
                "BlendServe, share of the practical optimum, mean of four models and four traces",
                published.BLENDSERVE_SHARE_OTHERS,
                float(np.mean(reached.to_numpy())),
            ),
        ]
        for model in FIG12:
            claims += _never_below(self.name, model, gain.T[model])
        text = "\n\n".join(
            [
                f"{DENSITY_NOTE} Densities of the four traces on each model ({_left_out(sizes)}):",
                frame_table(pools, "{:.2f}".format, "model"),
                "BlendServe over NanoFlow-DFS (`paper` cost model; 7B on one A100, the others "
                "tensor parallel over eight):",
                frame_table(gain, times, "model", means=True),
                "Share of the practical optimum that BlendServe reaches (`paper` cost model):",
                frame_table(reached, percent, "model", means=True),
                "Share of the tightest lower bound that BlendServe reaches:",
                frame_table(bounded, percent, "model", means=True),
            ]
        )
        per_gpu = {m: rate[m] / gpus[m] / 1e3 for m in FIG12}
        limits = {m: optimum[m][DFS] / gpus[m][DFS] / 1e3 for m in FIG12}
        figure = grouped_bars(
            {m: table.rename(index=_short) for m, table in per_gpu.items()},
            COLOURS,
            "1000 tokens/s a GPU",
            {m: series.rename(index=_short) for m, series in limits.items()},
            one_scale=False,
            message=f"{BLENDSERVE} is {ratio_range(gain.to_numpy().ravel())} as fast as {DFS}",
            conditions=conditions_of(_fig12_runs(results)),
        )
        caption = (
            "Throughput a GPU of DFS and BlendServe on traces 1 to 4, by model, each on a scale of "
            "its own."
        )
        return Chapter(claims, text, {self.name: figure}, {self.name: caption})


_SYSTEMS = {
    "random": BALANCE,
    "dfs": DFS,
    "dfs_memory_first": DFS_MEMORY,
    "blendserve": BLENDSERVE,
}


def _rates_7b(results: Mapping[str, Results]) -> dict[str, pd.DataFrame]:
    """Return tokens/s by cost model: a row per trace, a column per system."""
    nanoflow = {
        cost: by_workload(results[FIG7B], cost_model=cost).rename(columns=_SYSTEMS)
        for cost in COST_MODELS
    }
    sequential = by_workload(results[FIG7B_SEQUENTIAL], across="engine").rename(
        columns={"vllm": VLLM, "sglang": SGLANG}
    )
    return {"paper": sequential.join(nanoflow["paper"]), "roofline": nanoflow["roofline"]}


def _of_bound_7b(results: Mapping[str, Results]) -> str:
    """Return the shares of the tightest bound with ``roofline`` as a table with its title."""
    share = by_workload(results[FIG7B], "share_of_bound", cost_model="roofline")
    table = frame_table(share.rename(columns=_SYSTEMS), percent, "trace", means=True)
    return f"Share of the tightest lower bound, `roofline`:\n\n{table}"


def _figure_7b(
    rate: Mapping[str, pd.DataFrame],
    optimum: Mapping[str, "pd.Series[float]"],
    conditions: str,
) -> Figure:
    """Return bars of tokens/s by system, one panel per cost model."""
    titles = {cost: f"{cost} cost model" for cost in COST_MODELS}
    return grouped_bars(
        {titles[cost]: rate[cost] / 1e3 for cost in COST_MODELS},
        COLOURS,
        "throughput (1000 tokens/s)",
        {titles[cost]: optimum[cost] / 1e3 for cost in COST_MODELS},
        message="; ".join(
            f"{cost}: {fastest_message(rate[cost], DFS, 'traces')}" for cost in COST_MODELS
        ),
        conditions=conditions,
    )


def _texts(values: "pd.Series[float]", text: Callable[[float], str]) -> "pd.Series[str]":
    """Return formatted values; a missing value stays missing."""
    return values.map(text, na_action="ignore")


def _left_out(sizes: pd.DataFrame) -> str:
    """Report the requests that do not fit the KV cache, one row per model."""
    fewer = sizes.max() - sizes
    found = [
        f"{n:.0f} of {trace} on {model}"
        for model, row in fewer.iterrows()
        for trace, n in row.items()
        if n > 0
    ]
    return f"requests that do not fit the KV cache are left out: {', '.join(found) or 'none'}"


def _fig12_runs(results: Mapping[str, Results]) -> pd.DataFrame:
    """Return the rows of the figure without what its panels name."""
    names = dict.fromkeys(FIG12.values())
    return pd.concat([results[name].read_runs() for name in names]).drop(columns=["model", "tp"])


def _short(trace: str) -> str:
    return trace.removeprefix("trace")


def _never_below(study: str, model: str, gain: "pd.Series[float]") -> Iterator[Claim]:
    low = gain.min(skipna=False)
    yield Claim(
        f"{study}.{model}.blendserve_over_dfs.min",
        f"BlendServe over NanoFlow-DFS on {model}, smallest of the traces",
        "above 1",
        low,
        holds=within(low, 1.0),
    )


FIGURE_7B = Figure7b()
FIGURE_12 = Figure12()
