"""The number formats of the weights, activations, GEMMs and KV cache of a model."""

from dataclasses import dataclass
from typing import Literal

from bssim.errors import InputError, unknown_name

Dtype = Literal["bfloat16", "float16", "float32"]
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
DTYPE_FORMATS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
KV_CACHE_BYTES = {
    "auto": None,
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
"""vLLM's ``--kv-cache-dtype`` -> bytes per KV element; ``auto`` is the activations' type."""
LINEARS = ("qkv_proj", "o_proj", "mlp", "shared_expert", "experts", "router", "lm_head")
"""The kinds of weight matrices that a quantisation may or may not cover."""


@dataclass(frozen=True, slots=True)
class Precision:
    """The precision of one model, as facts that cost models use (bytes and formats).

    The default is an unquantised bfloat16 model. Embedding tables, norms and biases always have the
    type of the activations.
    """

    dtype: Dtype = "bfloat16"
    """Activations, and every weight that is not quantised (vLLM's ``--dtype``)."""
    quantization: str | None = None
    """vLLM's name for the method (``fp8``, ``awq``, ...); None: no weight is quantised."""
    quantized: tuple[str, ...] = ()
    """The entries of `LINEARS` that are quantised."""
    quantized_weight_bytes: float = 0.0
    """Bytes per quantised weight element, including its share of scales and zero points."""
    quantized_gemm_format: str = ""
    """Format of GEMMs with quantised weights: ``fp8``, ``int8``, ``fp4``, ``w4a16`` or ``w8a16``.
    The last two expand the weights and multiply in the type of the activations."""
    kv_cache_dtype: str = "auto"
    """vLLM's ``--kv-cache-dtype``."""

    def __post_init__(self) -> None:
        """Refuse unknown names and contradictory records."""
        if self.dtype not in DTYPE_BYTES:
            raise unknown_name("dtype", self.dtype, DTYPE_BYTES)
        if self.kv_cache_dtype not in KV_CACHE_BYTES:
            raise unknown_name("kv_cache_dtype", self.kv_cache_dtype, KV_CACHE_BYTES)
        for name in self.quantized:
            if name not in LINEARS:
                raise unknown_name("quantized", name, LINEARS)
        complete = bool(
            self.quantized and self.quantized_weight_bytes > 0 and self.quantized_gemm_format
        )
        if complete != (self.quantization is not None):
            raise InputError(
                "quantization",
                (
                    f"{self.quantization!r} of {', '.join(self.quantized) or 'no'} matrices at "
                    f"{self.quantized_weight_bytes} bytes"
                ),
                "a method with all of its facts, or none",
            )

    @property
    def activation_bytes(self) -> int:
        """Bytes per activation, and per weight that is not quantised."""
        return DTYPE_BYTES[self.dtype]

    @property
    def activation_format(self) -> str:
        """Format of products that are not quantised, including attention: bf16, fp16 or fp32."""
        return DTYPE_FORMATS[self.dtype]

    @property
    def kv_bytes(self) -> int:
        """Bytes per KV cache element."""
        return KV_CACHE_BYTES[self.kv_cache_dtype] or self.activation_bytes

    def weight_bytes(self, linear: str) -> float:
        """Return the bytes per weight element of ``linear``, one of `LINEARS`."""
        if linear in self.quantized:
            return self.quantized_weight_bytes
        return self.activation_bytes

    def gemm_format(self, linear: str) -> str:
        """Return the format of the GEMMs of ``linear``, one of `LINEARS`."""
        if linear in self.quantized:
            return self.quantized_gemm_format
        return self.activation_format

    @property
    def label(self) -> str:
        """The precision in a few characters: ``bfloat16``, ``fp8``, ``awq + fp8 KV``."""
        weights = self.quantization or self.dtype
        return weights if self.kv_cache_dtype == "auto" else f"{weights} + {self.kv_cache_dtype} KV"


BFLOAT16 = Precision()
