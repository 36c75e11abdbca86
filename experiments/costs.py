"""`bssim costs`: the seconds of one step on one model and device, operator by operator."""

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bssim.cost_models.engine_costs import EngineCosts
from bssim.cost_models.hardware import HardwareSpec, load_hardware, precision_notes
from bssim.cost_models.llm import BFLOAT16, LLMSpec, load_llm
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.step_cost import OperatorCost, StepWork, attention_pairs
from bssim.errors import InputError

RESOURCES = ("compute", "memory", "communication")


@dataclass(frozen=True, slots=True)
class RequestGroup:
    """A number of equal requests of a step."""

    requests: int
    tokens: int
    """Prompt tokens of a prefill, or KV tokens of a decode request before the step."""


def parse_group(option: str, text: str | None) -> RequestGroup:
    """Return the group of ``NxT``; None or an empty text means no requests.

    Raises InputError naming ``option`` for anything else.
    """
    if not text:
        return RequestGroup(0, 0)
    match = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", text)
    group = RequestGroup(*map(int, match.groups())) if match else None
    if group is None or group.requests < 1 or group.tokens < 1:
        raise InputError(option, repr(text), "REQUESTSxTOKENS, both at least 1, e.g. 4x768")
    return group


def step_work(prefill: RequestGroup, decode: RequestGroup) -> StepWork:
    """Return a step with whole prompts and one token of each decode request."""
    prompts, length = float(prefill.requests), float(prefill.tokens)
    return StepWork(
        decode_requests=float(decode.requests),
        decode_context_tokens=float(decode.requests * decode.tokens),
        prefill_requests=prompts,
        prefill_tokens=prompts * length,
        prefill_attention_pairs=prompts * attention_pairs(length),
        sampled_tokens=float(decode.requests) + prompts,
    )


@dataclass(frozen=True, slots=True)
class StepReport:
    """One priced step."""

    llm: LLMSpec
    hardware: HardwareSpec
    tp: int
    pp: int
    cost_model: str
    overlap: str
    prefill: RequestGroup
    decode: RequestGroup
    operators: tuple[OperatorCost, ...]
    step_s: float
    """Operators one after another, without host time."""
    overlapped_s: float
    """The same step under the overlap model."""

    def seconds(self, resource: str) -> float:
        """Return the seconds of one resource: ``compute``, ``memory`` or ``communication``."""
        return sum(cost.seconds for cost in self.operators if cost.resource == resource)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON types; ``step_s`` is the sequential sum of ``operators``."""
        return {
            "model": self.llm.name,
            "precision": self.llm.precision.label,
            "hardware": self.hardware.name,
            "tp": self.tp,
            "pp": self.pp,
            "cost_model": self.cost_model,
            "prefill": asdict(self.prefill),
            "decode": asdict(self.decode),
            "step_s": self.step_s,
            "compute_s": self.seconds("compute"),
            "memory_s": self.seconds("memory"),
            "communication_s": self.seconds("communication"),
            "overlap": self.overlap,
            "overlapped_s": self.overlapped_s,
            "operators": [asdict(operator) for operator in self.operators],
            "notes": list(precision_notes(self.llm, self.hardware)),
        }

    def as_text(self) -> str:
        """Return the report as a table for a terminal."""
        rows = [("operator", "ms", "share", "bound by", "TFLOP/s", "GB/s")]
        rows += [
            (
                cost.name,
                f"{1e3 * cost.seconds:.3f}",
                f"{cost.seconds / self.step_s:.0%}",
                cost.bound,
                f"{cost.flops / cost.seconds / 1e12:.1f}",
                f"{cost.bytes / cost.seconds / 1e9:.0f}",
            )
            for cost in self.operators
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        precision = "" if self.llm.precision == BFLOAT16 else f" ({self.llm.precision.label})"
        lines = [
            f"{self.llm.name}{precision} on {self.tp * self.pp} x {self.hardware.name}, "
            f"{self.cost_model}: prefill {self.prefill.requests} x {self.prefill.tokens}, decode "
            f"{self.decode.requests} x {self.decode.tokens}"
        ]
        for name, *numbers in rows:
            cells = [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
            lines.append("  ".join([name.ljust(widths[0]), *cells]).rstrip())
        lines.append("where the numbers come from:")
        for source in dict.fromkeys(operator.provenance for operator in self.operators):
            names = dict.fromkeys(o.name for o in self.operators if o.provenance == source)
            lines.append(f"  {', '.join(names)}: {source}")
        lines += [f"note: {note}" for note in precision_notes(self.llm, self.hardware)]
        shares = (f"{self.seconds(kind) / self.step_s:.0%} {kind}" for kind in RESOURCES)
        lines.append(f"step: {1e3 * self.step_s:.3f} ms ({', '.join(shares)})")
        if self.overlap != "sequential":
            lines[-1] += f"; {1e3 * self.overlapped_s:.3f} ms with {self.overlap} overlap"
        return "\n".join(lines)


def costs_report(
    model: str | LLMSpec,
    hardware: str | HardwareSpec,
    cost_model: str = "roofline",
    *,
    prefill: str | None = None,
    decode: str | None = None,
    tp: int = 1,
    pp: int = 1,
    overlap: str = "sequential",
) -> StepReport:
    """Price one step; ``prefill`` and ``decode`` are ``REQUESTSxTOKENS``.

    A decode's tokens are the KV before the step. Raises InputError for unknown
    names, bad groups, or a step of nothing.
    """
    prompts, running = parse_group("--prefill", prefill), parse_group("--decode", decode)
    if not (prompts.requests or running.requests):
        raise InputError(
            "costs", "no work", "--prefill or --decode, for example --prefill 4x768 --decode 96x700"
        )
    llm = model if isinstance(model, LLMSpec) else load_llm(model)
    device = hardware if isinstance(hardware, HardwareSpec) else load_hardware(hardware)
    pricer = make_cost_model(cost_model, llm, device, tp, EngineCosts(pp=pp))
    rule = parse_overlap(overlap, device.corun)
    work = step_work(prompts, running)
    operators = tuple(cost for cost in pricer.operators(work) if cost.resource != "fixed")
    cost = pricer.step_cost(work)
    return StepReport(
        llm=llm,
        hardware=device,
        tp=tp,
        pp=pp,
        cost_model=pricer.name,
        overlap=rule.name,
        prefill=prompts,
        decode=running,
        operators=operators,
        step_s=sum(operator.seconds for operator in operators),
        overlapped_s=float(np.asarray(rule.step_seconds(cost) - cost.fixed_s)),
    )
