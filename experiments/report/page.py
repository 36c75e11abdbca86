"""The report: everything that a results folder says, as one HTML file that works offline.

The charts are drawn by Vega-Lite, which vl-convert-python ships as one bundle; Jinja2 fills the
page. Both come with the extra ``report``.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from bssim import __version__
from bssim.errors import InputError
from bssim.experiments.plots import COMPUTE_COLOUR, SCHEDULER_COLOURS, SPARE_COLOUR, scheduler_order
from bssim.experiments.report.columns import MISSING, Column, shown_columns
from bssim.experiments.report.timelines import timeline_groups
from bssim.experiments.sweeps import (
    BASELINES,
    OVERLAP_NOTE,
    Results,
    common_and_own,
    conclusion,
    records,
    tail_sentence,
    winners,
    with_common_seeds,
)
from bssim.wording import counted

HERE = Path(__file__).parent
MOST_CHOICES = 30
"""An input with more values gets no list to filter by; the text filter still finds them."""


def write_report(results: Results, path: Path) -> None:
    """Write the report of a results folder; equal results give equal bytes.

    Raises InputError if the folder has no runs.csv or an extra package is missing.
    """
    from bssim.whole_file import replacing

    text = report_html(results)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def report_html(results: Results) -> str:
    """Return the page; raises InputError if there is no runs.csv or a package is missing."""
    template, charts = _template(), _chart_library()
    runs = results.read_runs()
    inputs = results.inputs(runs)
    common, settings = _settings(results, runs)
    runs = runs.assign(setting=runs["config_hash"].map(settings))
    ok = runs[runs["status"] == "ok"]
    table, fixed = shown_columns(runs.drop(columns="setting"))
    groups, timeline_note = timeline_groups(results, ok)
    best = winners(with_common_seeds(ok))
    rows = records(runs)
    schedulers = scheduler_order(runs["scheduler"])
    data = {
        "rows": rows,
        "columns": [
            {"name": c.name, "heading": c.heading, "numeric": c.numeric, "input": c.is_input}
            for c in table
        ],
        "colours": {name: SCHEDULER_COLOURS.get(name, SPARE_COLOUR) for name in schedulers},
        "compute": COMPUTE_COLOUR,
        "timelines": groups,
    }
    page: str = template.render(
        name=runs["config"].iloc[0] if len(runs) else "empty sweep",
        verdict=_code(f"{conclusion(best)} {tail_sentence(best)}".strip()),
        counts=_counts(runs),
        common=common,
        winners=best.to_dict("records"),
        several_settings=len(best) > 0 and best["setting"].nunique() > 1,
        baselines=[name for name in BASELINES if f"over_{name}" in best],
        table=table,
        rows=rows,
        filters=list(_filters(rows, table)),
        fixed=[(c, text) for c in fixed if rows and (text := c.text(rows[0][c.name])) != MISSING],
        notes=[_code(note) for note in _notes(results, runs)],
        timeline_note=timeline_note,
        groups=groups,
        seeds=sorted(ok["seed"].unique().tolist()),
        shared=_shared_inputs(inputs),
        provenance=list(_provenance(results, inputs)),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        css=(HERE / "report.css").read_text(encoding="utf-8"),
        scripts=[charts, *(_script(name) for name in ("table.js", "charts.js", "timeline.js"))],
    )
    return page


def require_packages() -> None:
    """Raise InputError if a package that a report needs is missing."""
    _template()
    _chart_library()


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise _missing("jinja2") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.jinja")


@lru_cache(maxsize=1)
def _chart_library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script."""
    bundle: str = _vl_convert().javascript_bundle()
    return bundle.replace("</script", "<\\/script")


def _vl_convert() -> Any:
    try:
        import vl_convert
    except ImportError as error:
        raise _missing("vl-convert-python") from error
    return vl_convert


def _missing(package: str) -> InputError:
    return InputError(f"a report needs the package {package}; install bssim[report]")


def _script(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _code(markdown: str) -> str:
    """Return a line of our Markdown as HTML: code, bold and emphasis only."""
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(markdown))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", html)


def _settings(results: Results, runs: pd.DataFrame) -> tuple[str, dict[str, str]]:
    """Return what all cells have in common, and by config_hash how a cell's setting differs."""
    labels = results.setting_labels(runs)
    distinct = tuple(dict.fromkeys(labels.values()))
    if len(distinct) < 2:
        return "".join(distinct), labels
    common, own = common_and_own(distinct)
    short = {label: mine or label for label, mine in zip(distinct, own, strict=True)}
    return common, {key: short[label] for key, label in labels.items()}


def _counts(runs: pd.DataFrame) -> str:
    counts = runs["status"].value_counts()
    total = ", ".join(f"{counts[s]} {s}" for s in ("ok", "failed", "skipped") if s in counts)
    return f"{counted(len(runs), 'cell')}: {total}."


def _filters(
    rows: Sequence[Mapping[str, Any]], table: Iterable[Column]
) -> Iterator[tuple[Column, list[str]]]:
    """Yield the inputs to filter by, each with its values as the table shows them."""
    for column in table:
        if column.is_input or column.name == "status":
            values = list(dict.fromkeys(column.text(row[column.name]) for row in rows))
            if 1 < len(values) <= MOST_CHOICES:
                yield column, values


def _notes(results: Results, runs: pd.DataFrame) -> Iterator[str]:
    if (runs["overlap"] != "sequential").any():
        yield OVERLAP_NOTE
    places: dict[str, dict[str, None]] = {}
    failed = []
    cells = set()
    for row in runs.itertuples():
        record = results.record(str(row.config_hash)) or {}
        workload = f"`{row.workload}`"
        cell = f"{workload} / `{row.scheduler}`"
        cells.add(cell)
        for place, kind in ((workload, "workload_notes"), (cell, "planner_notes")):
            for note in record.get(kind, ()):
                places.setdefault(note, {})[place] = None
        if row.status != "ok":
            failed.append(f"{cell} ({row.status}, `{row.config_hash}`): {row.error}")
    for note, found in places.items():
        yield f"{'All cells' if set(found) == cells else ', '.join(found)}: {note}"
    yield from failed


def _shared_inputs(inputs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the resolved inputs that all cells have in common, one line per field."""
    flat = [dict(_flatten(cell, "")) for cell in inputs.values()]
    if not flat:
        return []
    return [(k, v) for k, v in flat[0].items() if all(other.get(k) == v for other in flat)]


def _flatten(value: Any, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value)


def _provenance(
    results: Results, inputs: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    vl_convert = _vl_convert()
    made = sorted({str(cell["bssim_version"]) for cell in inputs.values()})
    yield "bssim that ran the cells", ", ".join(made) or "unknown"
    yield "bssim that wrote this report", __version__
    vega = vl_convert.get_vega_version()
    lite = vl_convert.get_vegalite_versions()[-1]
    yield "charts", f"Vega {vega} and Vega-Lite {lite}"
    digest = hashlib.sha256((results.folder / "runs.csv").read_bytes()).hexdigest()
    yield "SHA-256 of runs.csv", digest
    files = {name: d for cell in inputs.values() for name, d in cell["file_digests"].items()}
    for name, digest in files.items():
        yield f"digest of {Path(name).name}", str(digest)
    yield "method", "docs/architecture.md and docs/cost_models.md of bssim describe the simulation."
