"""``bssim support``: does a model fit a GPU, and are its operators measured there?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bssim.cost_models.hardware import (
    HardwareSpec,
    known_hardware,
    kv_capacity_tokens,
    load_hardware,
)
from bssim.cost_models.llm import LLMSpec, known_llms, load_llm
from bssim.errors import InputError
from bssim.experiments.costs import costs_report

TPS = (1, 2, 4, 8)
"""Tensor-parallel sizes to try: those of one machine."""
LEAST_KV_TOKENS = 32_768
"""A model fits if this many KV tokens have room too: 32 requests of 1,024 tokens."""
MEASURED = ("fitted to measurements", "measured")
"""Beginnings of the provenance of an operator that was measured on the device itself."""
MOSTLY = 0.9
"""From this share of measured time, the table shows no ``~``."""


@dataclass(frozen=True, slots=True)
class Support:
    """One model in one precision on one GPU."""

    model: str
    precision: str
    hardware: str
    tp: int | None
    """The fewest GPUs, of `TPS`, on which the model fits; None: it does not, see `problem`."""
    kv_tokens: int | None
    """KV tokens beside the weights on ``tp`` GPUs, 10 % of the memory kept free."""
    measured: float | None
    """Share of a typical step (512 tokens of prefill, 128 decodes at 1,024) that is spent in
    operators measured on this GPU. The others are taken from another GPU or assumed."""
    problem: str = ""
    """Why the model does not run."""

    @property
    def cell(self) -> str:
        """The entry of the table: TP size, with ``~`` if much of the time is not measured."""
        if self.tp is None:
            return "-"
        return f"{self.tp}{'' if self.measured is not None and self.measured >= MOSTLY else '~'}"


def support(
    models: Sequence[str] = (),
    hardware: Sequence[str] = (),
    quantizations: Sequence[str | None] = (None,),
) -> list[Support]:
    """Return one entry per model, precision and GPU; no names mean all built-in ones.

    A ``quantization`` of None is the model's own precision. Raises InputError for unknown names.
    """
    gpus = [load_hardware(name) for name in hardware or known_hardware()]
    return [
        _support(llm, gpu)
        for name in models or known_llms()
        for llm in dict.fromkeys(_variants(name, quantizations))
        for gpu in gpus
    ]


def _variants(model: str, quantizations: Iterable[str | None]) -> Iterable[LLMSpec]:
    for method in quantizations:
        yield load_llm(model, quantization=method)


def _support(llm: LLMSpec, gpu: HardwareSpec) -> Support:
    problem = ""
    for tp in TPS:
        try:
            tokens = kv_capacity_tokens(llm, gpu, tp)
            step = costs_report(llm, gpu, prefill="1x512", decode="128x1024", tp=tp)
        except InputError as error:
            problem = str(error)
            continue
        if tokens < LEAST_KV_TOKENS:
            problem = f"only {tokens:,} KV tokens have room beside the weights on {tp} GPUs"
            continue
        measured = sum(o.seconds for o in step.operators if o.provenance.startswith(MEASURED))
        share = measured / step.step_s
        return Support(llm.name, llm.precision.label, gpu.name, tp, tokens, share)
    return Support(llm.name, llm.precision.label, gpu.name, None, None, None, problem)


def support_table(entries: Sequence[Support]) -> str:
    """Return the entries as a table, models by GPUs, in 80 columns for the built-in names."""
    gpus = list(dict.fromkeys(entry.hardware for entry in entries))
    rows = dict.fromkeys((entry.model, entry.precision) for entry in entries)
    cells = {(e.model, e.precision, e.hardware): e.cell for e in entries}
    heads = [gpu.split("-", 1) for gpu in gpus]
    table = [
        ("", "", *(head[0] for head in heads)),
        ("model", "precision", *(head[1] if len(head) > 1 else "" for head in heads)),
        *((*row, *(cells[*row, gpu] for gpu in gpus)) for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for model, precision, *found in table:
        texts = [text.rjust(width) for text, width in zip(found, widths[2:], strict=True)]
        lines.append(" ".join([model.ljust(widths[0]), precision.ljust(widths[1]), *texts]))
    lines.append(
        f"Entries: how many GPUs (tensor parallelism) hold the weights and {LEAST_KV_TOKENS:,} KV\n"
        f"tokens; -: more than {TPS[-1]}, or a precision that the GPU lacks; ~: more than "
        f"{1 - MOSTLY:.0%} of\nthe time of a typical step is in operators that were not measured "
        "on this GPU.\n--json has the details."
        + ("\ncpu: a server socket with assumed peaks, not a GPU." if "cpu" in gpus else "")
    )
    return "\n".join(line.rstrip() for line in lines)
