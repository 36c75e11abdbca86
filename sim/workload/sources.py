"""The sources of a mix: built-in fits, shipped as YAML in ``specs``, or the rows of a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import yaml
from scipy.special import ndtr

from bssim.errors import unknown_name
from bssim.sim.workload.combine import take
from bssim.sim.workload.prefix_tree import PrefixTree
from bssim.sim.workload.tree_builders import from_groups
from bssim.sim.workload.workload import Workload, make_workload

SOURCE_NAMES = ("azure", "burstgpt", "limo", "mmlu", "openvid", "sharegpt", "wildchat")


class Source(Protocol):
    """A source from which any number of requests can be drawn."""

    @property
    def name(self) -> str:
        """The label of its requests."""

    def draw(self, num_requests: int, rng: np.random.Generator) -> Workload:
        """Return ``num_requests`` requests in random order; any leading part is a fair draw too."""

    def report(self, drawn: Workload) -> tuple[str, ...]:
        """Return what a user of these draws must know: fits, caps, repeats."""


@dataclass(frozen=True)
class Lengths:
    """The fitted distribution of a length in tokens, rounded and limited to 1..cap."""

    cap: int
    lognormal: tuple[float, float] | None = None
    """(mu, sigma) of ln(length)."""
    quantiles: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None
    """(levels, lengths), interpolated linearly in ln(length); used where `lognormal` is None."""

    @property
    def mean(self) -> float:
        """Mean of the fit, before rounding and capping."""
        if self.lognormal is not None:
            mu, sigma = self.lognormal
            return float(np.exp(mu + sigma**2 / 2))
        return float(self._at(np.linspace(0.0, 1.0, 100_001)).mean())

    def from_normal(self, z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Map standard normal scores to lengths in whole tokens, 1..cap."""
        if self.lognormal is not None:
            mu, sigma = self.lognormal
            tokens = np.exp(mu + sigma * z)
        else:
            tokens = self._at(ndtr(z))
        return np.clip(np.rint(tokens), 1, self.cap)

    def _at(self, level: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        assert self.quantiles is not None  # one of the two forms, by construction
        levels, values = self.quantiles
        return np.exp(np.interp(level, levels, np.log(values)))


@dataclass(frozen=True)
class FittedSource:
    """Two fitted lengths joined by a Gaussian copula; all requests share one system prompt."""

    name: str
    prompt: Lengths
    output: Lengths
    copula: float
    """Correlation of the normal scores of the two lengths."""
    system_prompt_tokens: int
    provenance: str
    """The labels of the fit's numbers: paper, fitted, tuned, assumed."""

    def draw(self, num_requests: int, rng: np.random.Generator) -> Workload:
        """Draw lengths; every prompt has the system prompt and at least one token of its own."""
        z = rng.standard_normal((num_requests, 2))
        z[:, 1] = self.copula * z[:, 0] + np.sqrt(1 - self.copula**2) * z[:, 1]
        return make_workload(
            self.name,
            np.maximum(self.prompt.from_normal(z[:, 0]), self._least_prompt),
            self.output.from_normal(z[:, 1]),
            tree=PrefixTree(
                np.array([-1, 0], dtype=np.int32),
                np.array([0, self.system_prompt_tokens], dtype=np.int64),
            ),
            node=np.ones(num_requests, dtype=np.int32),
        )

    def report(self, drawn: Workload) -> tuple[str, ...]:
        """Say where the numbers come from and how many lengths are at a limit."""
        n, least = len(drawn), self._least_prompt
        short = int(np.count_nonzero(drawn.prompt_tokens == least))
        notes = [f"{self.name}: synthetic lengths, {self.provenance}"]
        notes += _at_cap(f"{self.name}: prompts", drawn.prompt_tokens, self.prompt.cap)
        notes += _at_cap(f"{self.name}: outputs", drawn.output_tokens, self.output.cap)
        if short:
            notes.append(
                f"{self.name}: {short:,} of {n:,} prompts have the minimum length, {least} tokens: "
                f"the system prompt of {self.system_prompt_tokens} tokens and one of their own"
            )
        return tuple(notes)

    @property
    def _least_prompt(self) -> int:
        return self.system_prompt_tokens + 1


@dataclass(frozen=True)
class GroupedSource:
    """Groups (MMLU: subjects) with a shared prefix each, fitted questions and fixed outputs."""

    name: str
    weight: npt.NDArray[np.float64]
    """Shape (groups,): share of the requests."""
    prefix_tokens: npt.NDArray[np.int64]
    """Shape (groups,): length of the shared prefix of the group."""
    question_mu: npt.NDArray[np.float64]
    """Shape (groups,): mean of ln(question tokens)."""
    question_sigma: npt.NDArray[np.float64]
    """Shape (groups,): standard deviation of ln(question tokens)."""
    question_cap: int
    output_tokens: int
    provenance: str

    def draw(self, num_requests: int, rng: np.random.Generator) -> Workload:
        """Draw a group and a question for each request."""
        edges = np.cumsum(self.weight)[:-1]
        group = np.searchsorted(edges, rng.random(num_requests), side="right")
        z = rng.standard_normal(num_requests)
        question = np.exp(self.question_mu[group] + self.question_sigma[group] * z)
        tokens = np.clip(np.rint(question), 1, self.question_cap).astype(np.int64)
        tree, node = from_groups(group, self.prefix_tokens)
        return make_workload(
            self.name,
            self.prefix_tokens[group] + tokens,
            np.full(num_requests, self.output_tokens),
            tree=tree,
            node=node,
        )

    def report(self, drawn: Workload) -> tuple[str, ...]:
        """Say where the numbers come from."""
        groups = drawn.tree.num_nodes - 1
        return (
            f"{self.name}: synthetic lengths, {self.provenance}; {groups} of {len(self.weight)} "
            f"groups have two requests or more",
        )


@dataclass(frozen=True)
class FileSource:
    """The rows of a file; a request that is drawn again shares the prefix of its node."""

    workload: Workload

    @property
    def name(self) -> str:
        """The workload's name."""
        return self.workload.name

    def draw(self, num_requests: int, rng: np.random.Generator) -> Workload:
        """Draw each row once before any row is drawn again."""
        have = len(self.workload)
        rows = rng.permutation(have)[:num_requests]
        if num_requests <= have:
            return take(self.workload, rows)
        again = rng.integers(0, have, size=num_requests - have)
        return take(self.workload, np.concatenate((rows, again)))

    def report(self, drawn: Workload) -> tuple[str, ...]:
        """Return the reader's notes and say whether rows were drawn more than once."""
        have = len(self.workload)
        if len(drawn) <= have:
            return (*self.workload.notes, f"{self.name}: {len(drawn):,} of {have:,} requests drawn")
        return (
            *self.workload.notes,
            f"{self.name}: {len(drawn):,} requests drawn from {have:,}, so some appear more than "
            "once",
        )


@dataclass(frozen=True, slots=True)
class Published:
    """The BlendServe paper's numbers for a source: Figure 2, Table 4; lengths scaled as in A.3."""

    sharing: float
    density: float
    prompt_tokens_mean: float | None = None
    """None: not in the paper."""
    output_tokens_mean: float | None = None
    """None: not in the paper."""


def published(name: str) -> Published:
    """Return the paper's numbers for a built-in source.

    Raises InputError with the nearest valid name for an unknown one.
    """
    return Published(**_read_spec(name)["paper"])


def _read_spec(name: str) -> dict[str, Any]:
    if name not in SOURCE_NAMES:
        raise unknown_name("source", name, SOURCE_NAMES)
    text = (resources.files("bssim.sim.workload") / "specs" / f"{name}.yaml").read_text("utf-8")
    spec: dict[str, Any] = yaml.safe_load(text)
    return spec


@cache
def builtin_source(name: str) -> FittedSource | GroupedSource:
    """Return a built-in source; its numbers and their provenance are in ``specs/<name>.yaml``.

    Raises InputError with the nearest valid name for an unknown one.
    """
    spec = _read_spec(name)
    if "subjects" in spec:
        table = np.array(list(spec["subjects"].values()), dtype=np.float64)
        return GroupedSource(
            name=spec["name"],
            weight=table[:, 0] / table[:, 0].sum(),
            prefix_tokens=table[:, 1].astype(np.int64),
            question_mu=table[:, 2],
            question_sigma=table[:, 3],
            question_cap=int(spec["question_cap"]["value"]),
            output_tokens=int(spec["output_tokens"]["constant"]["value"]),
            provenance=_provenance(spec),
        )
    prompt = _lengths(spec["prompt_tokens"])
    shared = round(spec["system_prompt_sharing"]["value"] * prompt.mean)
    return FittedSource(
        name=spec["name"],
        prompt=prompt,
        output=_lengths(spec["output_tokens"]),
        copula=float(spec["copula"]["value"]),
        system_prompt_tokens=max(1, shared),
        provenance=_provenance(spec),
    )


def _lengths(spec: Mapping[str, Any]) -> Lengths:
    cap = int(spec["cap"]["value"])
    if "lognormal" in spec:
        fit = spec["lognormal"]
        return Lengths(cap, lognormal=(float(fit["mu"]["value"]), float(fit["sigma"]["value"])))
    fit = spec["quantiles"]
    levels, values = np.array(fit["levels"], float), np.array(fit["values"], float)
    return Lengths(cap, quantiles=(levels, values))


def _provenance(spec: Mapping[str, Any]) -> str:
    """Return the fit's labels in words, e.g. ``"fitted; tuned to the paper's density: copula"``."""
    tuned = [
        f"{key} {part}".strip()
        for key, entry in spec.items()
        if isinstance(entry, dict)
        for part, number in _numbers(entry)
        if number["label"] == "tuned"
    ]
    return "fitted" + (f"; tuned to the paper's density: {', '.join(tuned)}" if tuned else "")


def _numbers(entry: Mapping[str, Any], path: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """Return every labelled number in a YAML entry, with its path."""
    if "label" in entry:
        return [(path, entry)]
    return [
        found
        for key, inner in entry.items()
        if isinstance(inner, dict)
        for found in _numbers(inner, f"{path} {key}".strip())
    ]


def _at_cap(label: str, tokens: npt.NDArray[np.int64], cap: int) -> list[str]:
    count = int(np.count_nonzero(tokens == cap))
    return (
        [f"{label}: {count:,} of {len(tokens):,} cut to the cap of {cap:,} tokens"] if count else []
    )
