"""The report of a validation: tables, a figure and a page."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from bssim.experiments.markdown import markdown_table
from bssim.experiments.validation.comparison import TIE, Comparison, ranked_alike
from bssim.experiments.validation.validate import Validation


def write_report(validation: Validation, out: Path) -> None:
    """Write ``runs.csv``, ``calibration.csv``, ``report.md`` and ``figure.png`` under ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    table = validation.table
    table.to_csv(out / "runs.csv", index=False)
    if validation.pools:
        by_pool = {name: pool_table(found) for name, found in validation.pools.items()}
        pools = pd.concat(by_pool, names=["pool"]).reset_index(level="pool")
        pools.to_csv(out / "pools.csv", index=False)
    held_out = pd.DataFrame([asdict(error) for error in validation.calibration])
    held_out.to_csv(out / "calibration.csv", index=False)
    (out / "report.md").write_text(_report(validation, table), encoding="utf-8")
    _figure(validation, table, out / "figure.png")


def _report(validation: Validation, table: pd.DataFrame) -> str:
    where = validation.comparisons[0].measured.environment
    knobs = asdict(validation.comparisons[0].measured.engine)
    exact = (table["first_differing_step"] == -1).sum()
    alike, pairs = ranked_alike(validation.comparisons)
    lines = [
        f"# Validation: {validation.name}",
        "",
        f"{where.get('engine')} {where.get('engine_version')} on {where.get('device')}, "
        f"{where.get('dtype')}, {where.get('date')}; "
        f"seconds are {where.get('clock')} time. The step costs were fitted to other pools "
        "than the one below, so every error is held out.",
        "",
        f"- Steps composed exactly as simulated: {exact} of {len(table)} schedules.",
        f"- Largest throughput error: {table['throughput_error'].abs().max():.1%}; "
        f"largest speed-up error: {table['speedup_error'].abs().max():.1%}.",
        f"- Pairs of schedulers ranked alike: {alike} of {pairs} that differ by over {TIE:.0%}.",
        "- Operators run one after another in this engine: overlap gains are simulated-only.",
        "",
    ]
    columns = ["scheduler", "simulated tok/s", "measured tok/s", "error", *_SPEEDUPS, "steps"]
    columns += [*_COUNTS, "step error median, p90"]
    rows = [
        (
            r["scheduler"],
            f"{r['simulated_tok_s']:,.0f}",
            f"{r['measured_tok_s']:,.0f}",
            f"{r['throughput_error']:+.1%}",
            *_speedups(r),
            _pair(r, "steps"),
            *_counts(r),
            f"{r['step_error_median']:.1%}, {r['step_error_p90']:.1%}",
        )
        for r in table.to_dict("records")
    ]
    lines += markdown_table(columns, rows, "l" * len(columns))
    if validation.pools:
        lines += _pool_lines(validation)
    lines += ["", "Cross-validated error of the cost model on the calibration replays:", ""]
    errors = [
        (e.part, e.steps, f"{e.total:+.1%}", f"{e.median:.1%}", f"{e.p90:.1%}")
        for e in validation.calibration
    ]
    columns = ["replay held out", "steps", "total", "median step", "p90 step"]
    lines += markdown_table(columns, errors, "lllll")
    lines += ["", "Engine knobs, as the engine reports them:", ""]
    lines += [f"- {name}: {value}" for name, value in knobs.items() if name != "name"]
    return "\n".join(lines) + "\n"


def _pool_lines(validation: Validation) -> list[str]:
    """Return the table of pools on which only fixed orders are compared."""
    tables = [(name, pool_table(found)) for name, found in validation.pools.items()]
    errors = pd.concat([table["speedup_error"] for _, table in tables])
    alike = [ranked_alike(found) for found in validation.pools.values()]
    lines = [
        "",
        "Pools whose order matters, and one whose order does not. Each order was replayed several "
        "times, in turns; the seconds of a step are the least of them:",
        "",
        f"- Largest speed-up error: {errors.abs().max():.1%}.",
        f"- Pairs of orders ranked alike: {sum(a for a, _ in alike)} of "
        f"{sum(b for _, b in alike)} that differ by over {TIE:.0%}.",
        "",
    ]
    columns = ["pool", "order", "simulated s", "measured s", "error", *_SPEEDUPS, *_COUNTS]
    rows = [
        (
            name,
            r["scheduler"],
            f"{r['simulated_s']:.2f}",
            f"{r['measured_s']:.2f}",
            f"{-r['throughput_error'] / (1 + r['throughput_error']):+.1%}",
            *_speedups(r),
            *_counts(r),
        )
        for name, table in tables
        for r in table.to_dict("records")
    ]
    return lines + markdown_table(columns, rows, "l" * len(columns))


_SPEEDUPS = ("speed-up sim.", "speed-up meas.", "error")
_COUNTS = ("cached tokens", "preemptions", "exact")


def _speedups(r: dict[Any, Any]) -> tuple[str, ...]:
    """Return the cells of `_SPEEDUPS`."""
    return (
        f"{r['simulated_speedup']:.3f}",
        f"{r['measured_speedup']:.3f}",
        f"{r['speedup_error']:+.1%}",
    )


def _counts(r: dict[Any, Any]) -> tuple[str, ...]:
    """Return the cells of `_COUNTS`."""
    first = r["first_differing_step"]
    exact = "yes" if first == -1 else f"from step {first}"
    return (_pair(r, "cached_tokens"), _pair(r, "preemptions"), exact)


def pool_table(comparisons: list[Comparison]) -> pd.DataFrame:
    """Return one row per order of a pool; speed-ups are over the first."""
    rows = [
        {
            **c.row(comparisons[0]),
            "simulated_s": c.simulated.makespan_s,
            "measured_s": c.measured.wall_s,
        }
        for c in comparisons
    ]
    return pd.DataFrame(rows)


def _pair(row: dict[Any, Any], name: str) -> str:
    """Return one number if simulation and engine agree, otherwise both."""
    a, b = row[f"simulated_{name}"], row[f"measured_{name}"]
    return f"{a:,}" if a == b else f"{a:,} / {b:,}"


def _figure(validation: Validation, table: pd.DataFrame, path: Path) -> None:
    """Draw throughput side by side, and every step's predicted against its measured time."""
    from matplotlib.figure import Figure

    from bssim.experiments.plots import draw_groups

    figure = Figure(figsize=(7.0, 2.8), layout="constrained")
    bars, steps = figure.subplots(1, 2)
    colours = {"simulated_tok_s": "#4878a8", "measured_tok_s": "#e08a3c"}
    drawn = [bar for _, _, bar in draw_groups(bars, table, colours)]
    bars.set_xticks(range(len(table)), table["scheduler"].tolist(), rotation=20)
    bars.set_ylabel("tokens/s")
    bars.legend(drawn, ["simulated", "measured"], frameon=False)
    for comparison in validation.comparisons:
        measured = comparison.measured.step_s * 1e3
        steps.plot(measured, comparison.predicted_s * 1e3, ".", ms=2, label=comparison.scheduler)
    limits = [*steps.get_xlim(), *steps.get_ylim()]
    low, high = max(min(limits), 1e-2), max(limits)
    steps.plot([low, high], [low, high], color="black", lw=0.6)
    steps.set_xscale("log")
    steps.set_yscale("log")
    steps.set_xlabel("measured ms of a step")
    steps.set_ylabel("predicted ms")
    steps.legend(frameon=False, markerscale=4, fontsize="small")
    figure.savefig(path, dpi=150)
