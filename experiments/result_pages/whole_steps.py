"""Whole steps beside sums of NVIDIA's operator tables: a table of docs/cost_models.md.

    python -m bssim.experiments.result_pages.whole_steps

prices steps of Llama-3-8B with ``roofline`` and ``silicon``, and has `aiconfigurator-core` (extra
``[silicon]``) sum the same steps from its measured tables with its own code, its own
interpolation and its own rule for elementwise kernels. Its sum has no rotary embedding, KV write
or sampling.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.silicon import SYSTEMS
from bssim.experiments.costs import RequestGroup, step_work
from bssim.experiments.markdown import markdown_table

MODEL, TABLES_MODEL = "llama-3-8b", "meta-llama/Meta-Llama-3.1-8B"
"""One shape: the two models differ in their positions alone."""
DEVICES = ("a100-80gb", "h100-sxm")
COST_MODELS = ("roofline", "silicon")
NOTHING = RequestGroup(0, 0)
STEPS: tuple[tuple[RequestGroup, RequestGroup], ...] = (
    *(
        (NOTHING, RequestGroup(batch, context))
        for batch in (16, 64, 256, 512)
        for context in (512, 2048)
    ),
    (RequestGroup(1, 512), NOTHING),
    (RequestGroup(1, 2048), NOTHING),
    (RequestGroup(4, 2048), NOTHING),
    (RequestGroup(1, 2048), RequestGroup(256, 1024)),
)
"""(prefill, decode) of each step; a decode's tokens are the KV before the step."""


@dataclass(frozen=True, slots=True)
class WholeStep:
    """One step on one device: seconds of the tables' sum and of each cost model."""

    device: str
    prefill: RequestGroup
    decode: RequestGroup
    tables_s: float
    model_s: dict[str, float]

    def error(self, cost_model: str) -> float:
        """Return the relative error of a cost model."""
        return self.model_s[cost_model] / self.tables_s - 1


class TableSums:
    """Sums of measured operators by the package's own code, for one device."""

    def __init__(self, device: str) -> None:
        """Load the tables; the package must be installed."""
        from aiconfigurator_core.sdk import common, config
        from aiconfigurator_core.sdk.models import get_model
        from aiconfigurator_core.sdk.perf_database import get_database

        system, release = SYSTEMS[device]
        settings: Any = config.ModelConfig(tp_size=1, pp_size=1)
        settings.gemm_quant_mode = common.GEMMQuantMode.bfloat16
        settings.kvcache_quant_mode = common.KVCacheQuantMode.bfloat16
        settings.fmha_quant_mode = common.FMHAQuantMode.bfloat16
        self._database: Any = get_database(system, "vllm", release)
        self._model: Any = get_model(TABLES_MODEL, settings, "vllm")

    def seconds(self, prefill: RequestGroup, decode: RequestGroup) -> float:
        """Return the seconds of one step: row operators at all rows, attention at its own sizes."""
        from aiconfigurator_core.sdk import rust_engine_step as engine

        names = [str(op._name) for op in self._model.generation_ops]
        attention = [i for i, name in enumerate(names) if name == "generation_attention"]
        logits = [i for i, name in enumerate(names) if "logits" in name]
        others = [i for i in range(len(names)) if i not in (*attention, *logits)]
        rows = decode.requests + prefill.requests * prefill.tokens
        sampled = decode.requests + prefill.requests
        of = (self._model, self._database)
        parts: list[Any] = [
            *engine.evaluate_generation_ops_with_rust(
                *of, indices=others, batch_size=rows, s=1, x=rows
            ),
            *engine.evaluate_generation_ops_with_rust(
                *of, indices=logits, batch_size=sampled, s=1, x=sampled
            ),
        ]
        if decode.requests:
            parts += engine.evaluate_generation_ops_with_rust(
                *of, indices=attention, batch_size=decode.requests, s=decode.tokens + 1
            )
        if prefill.requests:
            names = [str(op._name) for op in self._model.context_ops]
            attention = [i for i, name in enumerate(names) if name == "context_attention"]
            parts += engine.evaluate_context_ops_with_rust(
                *of, indices=attention, batch_size=prefill.requests, s=prefill.tokens
            )
        return sum(float(part[1]) for part in parts) / 1e3


def whole_steps(devices: Iterable[str] = DEVICES) -> list[WholeStep]:
    """Return every step on every device; raises ImportError without the package."""
    llm, found = load_llm(MODEL), []
    for device in devices:
        tables, hardware = TableSums(device), load_hardware(device)
        models = {name: make_cost_model(name, llm, hardware) for name in COST_MODELS}
        for prefill, decode in STEPS:
            work = step_work(prefill, decode)
            seconds = {
                name: sum(operator.seconds for operator in model.operators(work))
                for name, model in models.items()
            }
            found.append(
                WholeStep(device, prefill, decode, tables.seconds(prefill, decode), seconds)
            )
    return found


def as_markdown(steps: Iterable[WholeStep]) -> str:
    """Return the steps as a table, and under it the median and the mean error of each model."""
    steps = list(steps)
    rows = []
    for step in steps:
        groups = (("prefill", step.prefill), ("decode", step.decode))
        label = " + ".join(f"{name} {g.requests}x{g.tokens}" for name, g in groups if g.requests)
        errors_of = (f"{step.error(name):+.1%}" for name in COST_MODELS)
        rows.append((label, step.device, f"{1e3 * step.tables_s:.2f}", *errors_of))
    lines = markdown_table(["step", "device", "tables, ms", *COST_MODELS], rows, "ll")
    for name in COST_MODELS:
        errors = np.array([step.error(name) for step in steps])
        lines.append(
            f"\n`{name}`: median {np.median(np.abs(errors)):.1%}, mean {errors.mean():+.1%}, "
            f"worst {np.abs(errors).max():.1%} over {len(errors)} steps."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown(whole_steps()))
