"""A cost model fitted to measured steps: seconds as a sum of non-negative terms of StepWork.

    step = fixed + a_0 tokens + sum_j a_j max(0, tokens - k_j)      dense operators
         + per chunk, per (query, key) pair, per context token      prefill attention
         + per decode request, per context token                    decode attention
         + per sampled token                                        LM head and sampling

With the hinges, the dense part can be any convex, non-decreasing curve of the tokens of a step:
flat while loading the weights takes longest, rising once FLOPs do. All coefficients are seconds per
unit and at least 0, so more work never makes a step cheaper.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bssim.cost_models.step_cost import FloatArray, OperatorCost, StepCost, StepWork
from bssim.errors import InputError
from bssim.whole_file import replacing
from bssim.yaml_file import read_yaml

KNOTS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""Tokens at which the slope of the dense part may change."""
TERMS = {
    "fixed": "fixed",
    "tokens": "compute",
    "prefill_requests": "compute",
    "prefill_context_tokens": "compute",
    "prefill_attention_pairs": "compute",
    "sampled_tokens": "compute",
    "decode_requests": "memory",
    "decode_context_tokens": "memory",
}
"""All terms except the hinges -> the StepCost field that each is added to."""
ROUNDS = 20
OUTLIER = 3.0
"""Residuals beyond this many standard deviations get less weight (Huber)."""


def features(work: StepWork) -> tuple[list[str], FloatArray]:
    """Return the names of all terms and their values, shape (steps, terms)."""
    tokens = np.atleast_1d(np.asarray(work.gemm_tokens, dtype=np.float64))
    columns: dict[str, FloatArray] = {}
    for name in TERMS:
        if name == "fixed":
            columns[name] = (tokens > 0).astype(np.float64)
        elif name == "tokens":
            columns[name] = tokens
        else:
            columns[name] = np.atleast_1d(np.asarray(getattr(work, name), dtype=np.float64))
    for knot in KNOTS:
        columns[f"tokens_over_{knot}"] = np.maximum(0.0, tokens - knot)
    return list(columns), np.stack(list(columns.values()), axis=1)


@dataclass(frozen=True, eq=False)
class FittedCostModel:
    """Prices steps with measured coefficients; made by `fit` or read from a file."""

    coefficients: dict[str, float]
    """Seconds per unit of each term, at least 0."""
    provenance: str
    """What was measured, where and when."""
    max_tokens: float
    """The largest step that was measured, in tokens."""
    name: str = "fitted"

    def _seconds(self, work: StepWork) -> dict[str, FloatArray]:
        names, values = features(work)
        # A step larger than any measured one must not be cheaper per token than the largest
        # measured step, or `ideal_cost` would not bound it: it pays the fixed seconds again.
        rows = values[:, names.index("tokens")]
        values[:, names.index("fixed")] *= np.maximum(1.0, rows / self.max_tokens)
        shape = np.shape(work.decode_requests)
        return {
            name: (values[:, k] * self.coefficients.get(name, 0.0)).reshape(shape)
            for k, name in enumerate(names)
        }

    def step_cost(self, work: StepWork) -> StepCost:
        """Return the cost of each step of ``work``, in seconds; no bandwidth floor is known."""
        zero = np.zeros(np.shape(work.decode_requests))
        total = dict.fromkeys(("compute", "memory", "fixed"), zero)
        for name, seconds in self._seconds(work).items():
            resource = TERMS.get(name, "compute")
            total[resource] = total[resource] + seconds
        return StepCost(
            compute_s=total["compute"],
            memory_s=total["memory"],
            communication_s=zero,
            fixed_s=total["fixed"],
            bandwidth_s=zero,
        )

    def ideal_cost(self, work: StepWork) -> StepCost:
        """Return the least cost of this work in any batching.

        Every step pays its fixed seconds, so the dense part costs at least its best seconds per
        token over all step sizes that were measured; the other terms are linear.
        """
        sizes = np.array([1.0, *(k for k in KNOTS if k < self.max_tokens), self.max_tokens])
        cost = self.step_cost(StepWork(prefill_tokens=sizes))
        best = float(np.min((np.asarray(cost.compute_s) + np.asarray(cost.fixed_s)) / sizes))
        seconds = self._seconds(work)
        # A cached prefix is read, or computed again where that is cheaper.
        again = best * np.asarray(work.prefill_context_tokens)
        read = seconds["prefill_context_tokens"]
        seconds["prefill_context_tokens"] = np.minimum(read, again)
        linear = [
            value
            for name, value in seconds.items()
            if TERMS.get(name) == "compute" and name != "tokens"
        ]
        zero = np.zeros(np.shape(work.decode_requests))
        return StepCost(
            compute_s=zero + best * np.asarray(work.tokens) + sum(linear, zero),
            memory_s=zero + seconds["decode_requests"] + seconds["decode_context_tokens"],
            communication_s=zero,
            fixed_s=zero,
            bandwidth_s=zero,
        )

    def operators(self, work: StepWork) -> list[OperatorCost]:
        """Return the terms of one step (scalar fields); FLOPs and bytes are not known."""
        return [
            OperatorCost(
                name=name,
                seconds=float(seconds),
                flops=0.0,
                bytes=0.0,
                bound=TERMS.get(name, "compute"),
                resource=TERMS.get(name, "compute"),
                provenance=self.provenance,
            )
            for name, seconds in self._seconds(work).items()
            if float(seconds) > 0
        ]

    def write(self, path: Path) -> None:
        """Write the model as YAML, completely or not at all: a part might be a valid model."""
        content = {
            "cost_model": "fitted",
            "provenance": self.provenance,
            "max_tokens": self.max_tokens,
            "seconds_per": self.coefficients,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "FittedCostModel":
        """Read a file that `write` wrote; raises InputError that names what is wrong."""
        content: Any = read_yaml(path, "a fitted cost model").data
        if not isinstance(content, dict) or content.get("cost_model") != "fitted":
            raise InputError.saying(
                path, "expected `cost_model: fitted`, as `bssim calibrate` writes"
            )
        known = [*TERMS, *(f"tokens_over_{knot}" for knot in KNOTS)]
        coefficients: Any = content.get("seconds_per")
        if not isinstance(coefficients, dict) or not coefficients:
            raise InputError(
                f"{path}: seconds_per",
                repr(coefficients),
                f"seconds of one or more of: {', '.join(known)}",
            )
        max_tokens = content.get("max_tokens", KNOTS[-1])
        if not _is_number(max_tokens) or not max_tokens >= 1:
            raise InputError(f"{path}: max_tokens", repr(max_tokens), "at least 1")
        for name, value in coefficients.items():
            if name not in known or not _is_number(value) or not value >= 0:
                raise InputError(
                    f"{path}: seconds_per.{name}",
                    repr(value),
                    f"a number of at least 0 for one of: {', '.join(known)}",
                )
        return cls(
            coefficients={name: float(value) for name, value in coefficients.items()},
            provenance=str(content.get("provenance", path)),
            max_tokens=float(max_tokens),
        )


def _is_number(value: object) -> bool:
    """Return whether a YAML value is a finite number; a boolean is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # math.isfinite raises for larger whole numbers


def fit(work: StepWork, seconds: FloatArray, provenance: str) -> FittedCostModel:
    """Fit the model to measured steps: fields of ``work`` and ``seconds`` have shape (steps,).

    The fit is a non-negative least squares that gives outliers (a pause of the machine) less
    weight. The mean residual is added to the fixed seconds, so totals are unbiased.
    Raises InputError for fewer steps than terms.
    """
    from scipy.optimize import nnls

    names, values = features(work)
    if len(values) < len(names):
        raise InputError("calibrate", f"{len(values)} measured steps", f"at least {len(names)}")
    scale = np.maximum(values.max(axis=0), 1e-12)
    weight = np.ones(len(values))
    solution = np.zeros(len(names))
    for _ in range(ROUNDS):
        root = np.sqrt(weight)
        solution, _ = nnls((values / scale) * root[:, None], seconds * root)
        residual = seconds - (values / scale) @ solution
        spread = 1.4826 * float(np.median(np.abs(residual - np.median(residual))))
        if spread == 0.0:
            break
        weight = np.minimum(1.0, OUTLIER * spread / np.maximum(np.abs(residual), 1e-15))
    coefficients = dict(zip(names, (solution / scale).tolist(), strict=True))
    left_over = float(np.sum(seconds - values @ (solution / scale)) / np.sum(values[:, 0]))
    coefficients["fixed"] = max(0.0, coefficients["fixed"] + left_over)
    return FittedCostModel(coefficients, provenance, float(np.max(np.asarray(work.gemm_tokens))))


def concatenate(parts: Sequence[StepWork]) -> StepWork:
    """Return the steps of several runs as one."""
    names = [f.name for f in fields(StepWork)]
    columns = {name: np.concatenate([_column(part, name) for part in parts]) for name in names}
    return StepWork(**columns)


def _column(work: StepWork, name: str) -> FloatArray:
    steps = np.shape(work.decode_requests)
    return np.broadcast_to(np.asarray(getattr(work, name), dtype=np.float64), steps)
