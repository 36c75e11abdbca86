"""Chapters as a Markdown page with figures, and claims as text.

A chapter is written by its study (in `reproduction/`, `evidence/`, ...); `registry.py` lists the
pages.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from bssim import __version__
from bssim.experiments.markdown import markdown_table
from bssim.experiments.plots import message_of, save
from bssim.experiments.result_pages.registry import Page
from bssim.experiments.result_pages.runner import Finished
from bssim.experiments.result_pages.study import Claim, Value, finite
from bssim.experiments.sweeps import write_text
from bssim.wording import counted

SHOWN_FAILURES = 5


def write_page(
    path: Path, page: Page, finished: Sequence[Finished], num_requests: int | None = None
) -> None:
    """Write a page, and its figures (PNG and PDF) into ``figures/`` beside it.

    ``num_requests`` is the number that replaced the one in the sweep files; None: not replaced. The
    same chapters give the same bytes.
    """
    lines = [f"# {page.title}", "", page.opening, ""]
    names = " ".join(one.study.name for one in finished)
    lines += [f"Made by bssim {__version__}, `bssim reproduce`: {names}.", ""]
    if num_requests is not None:
        size = f"{num_requests:,} requests per workload"
        lines += [f"**A trial, sweeps at {size} instead of their own: not to be quoted.**", ""]
    for one in finished:
        lines += [f"## {one.study.title}", "", one.chapter.text.strip(), ""]
        for link, caption in _figures(path.parent / "figures", one):
            lines += [f"![{caption}](figures/{link})", "", f"*{caption}*", ""]
        lines += [*_claims_table(one.chapter.claims, page.reference), *_failures(one)]
    claims = [claim for one in finished for claim in one.chapter.claims]
    lines += _closing(claims, page.reference)
    write_text(path, "\n".join(lines))


def save_figures(folder: Path, finished: Iterable[Finished]) -> list[Path]:
    """Save the figures of chapters as PNG and PDF and return their paths."""
    return [
        path
        for one in finished
        for stem, figure in one.chapter.figures.items()
        for path in save(figure, folder / stem)
    ]


def shown(value: Value) -> str:
    """Return a value as text: four significant digits, thousands grouped; a dash for None."""
    value = finite(value)
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def verdict(claim: Claim) -> str:
    """Return whether a claim holds, in one word; empty if it is only a number to compare."""
    return {None: "", True: "yes", False: "**no**"}[claim.holds]


def _figures(folder: Path, one: Finished) -> Iterable[tuple[str, str]]:
    for stem, figure in one.chapter.figures.items():
        png, _ = save(figure, folder / stem)
        caption = one.chapter.captions.get(stem, one.study.title)
        message = message_of(figure).rstrip(".")
        yield png.name, f"{message}. {caption}" if message else caption


def _claims_table(claims: Sequence[Claim], reference: str) -> list[str]:
    if not claims:
        return []
    rows = []
    for claim in claims:
        parts = (shown(claim.paper), shown(claim.ours), shown(claim.ratio), verdict(claim))
        rows.append([_cell(part) for part in (claim.what, *parts, claim.note)])
    columns = ["what", reference, "ours", f"ours / {reference}", "holds", "note"]
    return [*markdown_table(columns, rows, "lrrrll"), ""]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _failures(one: Finished) -> list[str]:
    if one.failed.empty:
        return []
    lines = [f"**{len(one.failed)} of {counted(one.cells, 'cell')} have no result:**", ""]
    lines += [
        f"- {row.config}: {row.workload}, {row.scheduler} ({row.status}): {row.error}"
        for row in one.failed.head(SHOWN_FAILURES).itertuples()
    ]
    if len(one.failed) > SHOWN_FAILURES:
        lines.append(f"- and {len(one.failed) - SHOWN_FAILURES} more")
    return [*lines, ""]


def _closing(claims: Sequence[Claim], reference: str) -> list[str]:
    statements = [claim for claim in claims if claim.holds is not None]
    if not statements:
        return []
    wrong = [claim for claim in statements if not claim.holds]
    holds = f"{len(statements) - len(wrong)} of {counted(len(statements), 'statement')} hold"
    lines = ["## What does not hold", "", f"{holds}." + (" The others:" if wrong else ""), ""]
    for claim in wrong:
        numbers = f"{reference} {shown(claim.paper)}, ours {shown(claim.ours)}"
        lines.append(f"- `{claim.id}`, {claim.what}: {numbers}. {claim.note}".rstrip())
    return [*lines, ""] if wrong else lines
