"""The YAML file of an engine's own costs as a schema: `engine_costs.py` reads what it checked."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from bssim.cost_models.hardware import known_kernels
from bssim.schema import QuantityFromZero, Written, one_of

ALL_REDUCE = ("vllm", "nccl", "trtllm")


class HostSeconds(Written):
    """The CPU seconds of a step: constant, per running request, per layer without a graph."""

    per_step: QuantityFromZero
    per_request: QuantityFromZero
    per_layer: QuantityFromZero


class EngineFile(Written):
    """The keys of a file."""

    name: str | None = None
    description: str | None = None
    host_s: HostSeconds
    graph_tokens: Annotated[int, Field(ge=0)] = 0
    all_reduce: Annotated[str, BeforeValidator(one_of(lambda: ALL_REDUCE))]
    kernels: Annotated[str, BeforeValidator(one_of(known_kernels))] = "vllm"
