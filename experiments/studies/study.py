"""What a study is: the sweeps it needs, and the chapter it writes once they have run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from matplotlib.figure import Figure

from bssim.experiments.store import Results

Value = float | str | None
"""A number, or words where a claim is no number; None where there is nothing to stand beside."""


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
    """Why the two differ, or what ours assumes."""

    @property
    def ratio(self) -> float | None:
        """Ours over the paper's, where both are numbers and the paper's is not zero."""
        if (
            isinstance(self.paper, float | int)
            and isinstance(self.ours, float | int)
            and self.paper
        ):
            return self.ours / self.paper
        return None

    def as_json(self) -> dict[str, Any]:
        """Return the claim as ``--json`` prints it."""
        keys = ("id", "what", "paper", "ours", "ratio", "note")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class Chapter:
    """What one study found: claims for machines, Markdown and figures for people."""

    claims: Sequence[Claim]
    text: str
    """Markdown under the chapter's heading; the table of claims follows it by itself."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By file stem; each is saved beside the page and shown after the text."""
    captions: Mapping[str, str] = field(default_factory=dict)
    """By the same stem: what to see in the figure."""


class Study(Protocol):
    """One figure or table of the paper, or one question of our own."""

    name: str
    """As on the command line: ``fig7a``, ``table3``, ``sampling``."""
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
