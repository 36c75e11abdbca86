"""A study: the sweeps it needs, and the chapter it writes from their results."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from matplotlib.figure import Figure

from bssim.experiments.sweeps import Cell, Results

Value = float | str | None
"""A number, or text if a claim is not a number; None if there is nothing to compare with."""


@dataclass(frozen=True)
class Claim:
    """One statement of the paper (or aim) beside what the simulator computes."""

    id: str
    """Study and key, e.g. ``fig7a.trace1.blendserve_over_dfs``; unique over all studies."""
    what: str
    """The quantity, with its unit, in words that need no context."""
    paper: Value
    ours: Value
    note: str = ""
    """Why the two differ, or what bssim assumes."""
    holds: bool | None = None
    """Whether the paper's statement holds here; None: only a number to compare, no statement.
    What does not hold is listed again at the end of the page, with its note as the reason."""

    @property
    def ratio(self) -> float | None:
        """Ours over the paper's, if both are numbers and the paper's is not zero."""
        paper, ours = finite(self.paper), finite(self.ours)
        if isinstance(paper, float | int) and isinstance(ours, float | int) and paper:
            return ours / paper
        return None

    def as_json(self) -> dict[str, Any]:
        """Return the claim as ``--json`` prints it: a missing number (NaN) is null."""
        keys = ("id", "what", "paper", "ours", "ratio", "note")
        return {key: finite(getattr(self, key)) for key in keys}


def finite(value: Value) -> Value:
    """Return ``value``, or None for NaN and infinity: the value of a run that failed."""
    if isinstance(value, float):  # numpy floats too: JSON and the page need Python's
        return float(value) if math.isfinite(value) else None
    return value


@dataclass(frozen=True)
class Chapter:
    """The result of one study: claims for machines, Markdown and figures for readers."""

    claims: Sequence[Claim]
    text: str
    """Markdown under the chapter's heading; the table of claims follows automatically."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By file stem; each is saved beside the page and shown after the text."""
    captions: Mapping[str, str] = field(default_factory=dict)
    """By the same stem: the caption of the figure."""


class Study(Protocol):
    """One figure or table of the paper, or one question of bssim's own."""

    name: str
    """Name on the command line: ``fig7a``, ``table3``, ``sampling``."""
    title: str

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return the sweep files of ``configs/`` it reads, as ``paper/fig7a.yaml``.

        Several studies may name the same file: it runs once. ``full``: the whole grid where the
        default is a part.
        """

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """Write the chapter from the finished sweeps, by the names of `sweeps`.

        Anything else it computes must be quick (under a minute), deterministic and explained.
        """


@runtime_checkable
class ListsCells(Protocol):
    """A study with cells that no grid spells out, such as one per row of a table."""

    name: str

    def cells(self, num_requests: int | None) -> Sequence[Cell]:
        """Return the cells. They run into the folder of the study's name, and `Study.chapter` finds
        their results under that name.

        ``num_requests`` caps the requests of each: a trial.
        """
