"""An operator with its seconds: cost models sum them, and `bssim costs` lists them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bssim.cost_models.step_cost import BoolArray, FloatArray, OperatorCost


@dataclass(frozen=True, eq=False)
class OperatorSeconds:
    """One operator class over many steps: arrays of shape (steps,), or scalars."""

    name: str
    resource: str
    """The StepCost field it is added to, without ``_s``."""
    seconds: FloatArray
    flops: FloatArray
    bytes: FloatArray
    compute_bound: BoolArray
    """True where FLOPs, not bytes, set the time."""
    provenance: str


def scaled(operator: OperatorSeconds, factor: float) -> OperatorSeconds:
    """Return the operator with ``factor`` times its seconds."""
    return operator if factor == 1 else replace(operator, seconds=operator.seconds * factor)


def merged(operators: Iterable[OperatorSeconds]) -> list[OperatorCost]:
    """Return one step's operators (scalar fields) by name, without those that take no time."""
    found: dict[str, list[OperatorSeconds]] = {}
    for operator in operators:
        if float(operator.seconds) > 0:
            found.setdefault(operator.name, []).append(operator)
    return [_merge(parts) for parts in found.values()]


def _merge(parts: list[OperatorSeconds]) -> OperatorCost:
    """Return the launches of one operator class of one step as one entry.

    The entry has the bound of the longest part.
    """
    longest = max(parts, key=lambda part: float(part.seconds))
    bound = "compute" if bool(longest.compute_bound) else "memory"
    return OperatorCost(
        name=longest.name,
        seconds=sum(float(part.seconds) for part in parts),
        flops=sum(float(part.flops) for part in parts),
        bytes=sum(float(part.bytes) for part in parts),
        bound="communication" if longest.resource == "communication" else bound,
        resource=longest.resource,
        provenance=longest.provenance,
    )
