"""Turn vLLM's names and the ``quantization_config`` of a config into a `Precision`.

Bytes per weight include the scales and zero points of groups. No method here quantises the router,
the embeddings, or (except GPTQ on request) the LM head.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bssim.cost_models.llm.exceptions import is_excluded
from bssim.cost_models.llm.hf_config import MOST
from bssim.cost_models.llm.precision import Dtype, Precision
from bssim.cost_models.llm.spec import LLMSpec
from bssim.errors import InputError, unknown_name

SCALE_BYTES = 2.0
"""Bytes per scale: AWQ, GPTQ and compressed-tensors weights have 16-bit scales."""
AWQ_GROUP = 128
NF4_BLOCK = 64
"""Weights per absolute maximum in bitsandbytes."""
NF4_SECOND_BLOCK = 256
"""Absolute maxima per second-level maximum (double quantisation)."""
MX_BLOCK = 32
"""Weights per one-byte scale in MXFP4."""
NVFP4_BLOCK = 16

BITSANDBYTES_NOTE = (
    "bitsandbytes is priced like fused 4-bit kernels; its own kernels expand the weights first"
)
FLOAT32_NOTE = (
    "priced in float32, as its config says; vLLM's --dtype auto would run it in bfloat16, which "
    "--dtype bfloat16 prices"
)

BODY = ("qkv_proj", "o_proj", "mlp", "shared_expert", "experts")
"""What a method quantises by default."""
_SAME_METHOD = {
    "auto_awq": "awq",
    "awq_marlin": "awq",
    "auto_gptq": "gptq",
    "gptq_marlin": "gptq",
    "moe_wna16": "gptq",
    "gpt_oss_mxfp4": "mxfp4",
}
"""vLLM's names of the kernels of a method -> the method."""


@dataclass(frozen=True, slots=True)
class _Method:
    """What a method does to weights."""

    weight_bytes: float
    gemm_format: str
    kinds: tuple[str, ...] = BODY
    note: str = ""


def _grouped(where: str, bits: object, group: object, zero_points: bool) -> _Method:
    """Return weight-only integers with a 16-bit scale per group; group -1: per column."""
    if bits not in (4, 8):
        raise InputError(where, f"{bits!r} bits", "4 or 8, which kernels support")
    width = int(str(bits)) / 8
    size = 0 if group == -1 else _size(where, group)
    extra = (SCALE_BYTES + (width if zero_points else 0.0)) / size if size else 0.0
    return _Method(width + extra, f"w{bits}a16")


def _size(where: str, value: object) -> int:
    """Return the number of weights along one side of a group or block."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        raise InputError(where, f"group size {value!r}", f"-1, or from 1 to {MOST:,}")
    return value


def _block_scales(where: str, block: object) -> float:
    """Return the bytes per weight of a 32-bit scale per block of rows and columns, if any."""
    if not block:
        return 0.0
    if not isinstance(block, list) or len(block) != 2:
        raise InputError(where, f"block {block!r}", "its rows and columns")
    return 4.0 / (_size(where, block[0]) * _size(where, block[1]))


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    """Return a part of a config; it may be missing."""
    if value and not isinstance(value, Mapping):
        raise InputError(where, repr(value), "a mapping")
    return value if isinstance(value, Mapping) else {}


def _awq(where: str, config: Mapping[str, Any]) -> _Method:
    return _grouped(
        where,
        config.get("bits", config.get("w_bit", 4)),
        config.get("group_size", config.get("q_group_size", AWQ_GROUP)),
        zero_points=bool(config.get("zero_point", True)),
    )


def _gptq(where: str, config: Mapping[str, Any]) -> _Method:
    """GPTQ files have zero points even for symmetric weights, where all are equal. Kernels drop
    those, so they are not counted."""
    found = _grouped(
        where,
        config.get("bits", 4),
        config.get("group_size", AWQ_GROUP),
        zero_points=not config.get("sym", True),
    )
    return replace(found, kinds=(*BODY, "lm_head")) if config.get("lm_head") else found


def _fp8(where: str, config: Mapping[str, Any]) -> _Method:
    """FP8 weights and activations; each block, as in DeepSeek models, has a 32-bit scale."""
    if config.get("activation_scheme", "dynamic") not in ("dynamic", "static"):
        raise InputError(
            f"{where}: activation_scheme", repr(config["activation_scheme"]), "dynamic or static"
        )
    scales = _block_scales(f"{where}: weight_block_size", config.get("weight_block_size"))
    return _Method(1.0 + scales, "fp8")


def _bitsandbytes(where: str, config: Mapping[str, Any]) -> _Method:
    if config.get("load_in_8bit") or config.get("_load_in_8bit"):
        raise InputError(
            where,
            "load_in_8bit",
            "load_in_4bit: LLM.int8() multiplies outliers separately, which bssim cannot price",
        )
    scale = 4.0
    if config.get("bnb_4bit_use_double_quant"):
        scale = 1.0 + 4.0 / NF4_SECOND_BLOCK
    return _Method(
        0.5 + scale / NF4_BLOCK,
        "w4a16",
        note=BITSANDBYTES_NOTE,
    )


def _mxfp4(where: str, config: Mapping[str, Any]) -> _Method:
    return _Method(0.5 + 1.0 / MX_BLOCK, "w4a16", kinds=("experts",))


def _experts_int8(where: str, config: Mapping[str, Any]) -> _Method:
    return _Method(1.0, "w8a16", kinds=("experts",))


def _int8(where: str, config: Mapping[str, Any]) -> _Method:
    return _Method(1.0, "int8")


def _modelopt(where: str, config: Mapping[str, Any]) -> _Method:
    inner = _mapping(f"{where}: quantization", config.get("quantization"))
    algorithm = config.get("quant_algo") or inner.get("quant_algo")
    if algorithm == "FP8":
        return _Method(1.0, "fp8")
    if algorithm == "NVFP4":
        return _Method(0.5 + 1.0 / NVFP4_BLOCK, "fp4")
    raise InputError(f"{where}: quant_algo", repr(algorithm), "FP8 or NVFP4")


def _compressed_tensors(where: str, config: Mapping[str, Any]) -> _Method:
    """Return the scheme of a compressed-tensors config; InputError if it has several."""
    groups = _mapping(f"{where}: config_groups", config.get("config_groups"))
    found = {
        _scheme(where, _mapping(f"{where}: config_groups: {name}", group))
        for name, group in groups.items()
    }
    if len(found) != 1:
        raise InputError(f"{where}: config_groups", f"{len(found)} different schemes", "one")
    return found.pop()


def _scheme(where: str, group: Mapping[str, Any]) -> _Method:
    weights = _mapping(f"{where}: weights", group.get("weights"))
    inputs = _mapping(f"{where}: input_activations", group.get("input_activations"))
    if not weights:
        raise InputError(f"{where}: config_groups", "no weights", "their scheme")
    bits, kind = weights.get("num_bits"), weights.get("type", "int")
    size = weights.get("group_size")
    targets = group.get("targets") or ["Linear"]
    if targets != ["Linear"]:
        raise InputError(f"{where}: targets", repr(targets), "['Linear']")
    if not inputs and kind == "int":
        return _grouped(where, bits, size or -1, zero_points=not weights.get("symmetric", True))
    if not inputs and (kind, bits) == ("float", 8):
        return _Method(1.0, "w8a16")
    if not inputs and (kind, bits) == ("float", 4):
        return _Method(0.5 + 1.0 / _size(where, size or NVFP4_BLOCK), "w4a16")
    scheme = (kind, bits, inputs.get("type", "int"), inputs.get("num_bits"))
    if scheme == ("float", 8, "float", 8):
        return _Method(1.0 + _block_scales(where, weights.get("block_structure")), "fp8")
    if scheme == ("int", 8, "int", 8):
        return _Method(1.0, "int8")
    if scheme == ("float", 4, "float", 4):
        return _Method(0.5 + 1.0 / _size(where, size or NVFP4_BLOCK), "fp4")
    raise InputError(
        where,
        f"weights of {bits} bits ({kind}) with inputs of {scheme[3]} bits ({scheme[2]})",
        "W4A16, W8A16, W8A8 or W4A4 schemes",
    )


_METHODS: Mapping[str, Callable[[str, Mapping[str, Any]], _Method]] = {
    "awq": _awq,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
    "experts_int8": _experts_int8,
    "fbgemm_fp8": _fp8,
    "fp8": _fp8,
    "gptq": _gptq,
    "int8": _int8,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "mxfp4": _mxfp4,
}
NEED_A_CONFIG = ("compressed-tensors", "modelopt", "modelopt_fp4")
"""Methods with several schemes, so that the name alone is not enough."""


def quantized(
    llm: LLMSpec, method: str, config: Mapping[str, Any] | None = None, where: str = "quantization"
) -> LLMSpec:
    """Return ``llm`` with weights quantised by a method, given by vLLM's name.

    ``config`` is the ``quantization_config`` of a checkpoint. Without one, the defaults of the
    method apply (groups of 128 for AWQ and GPTQ, NF4 for bitsandbytes). ``int8`` is W8A8, which
    vLLM supports as a compressed-tensors scheme. Raises InputError for a method that bssim cannot
    price, and for a config that quantises a kind of matrix in only some of the layers.
    """
    name = _SAME_METHOD.get(method, method)
    if name not in _METHODS:
        raise unknown_name(where, method, _METHODS if config else ["none", *_METHODS])
    if config is None and name in NEED_A_CONFIG:
        raise InputError(
            where,
            f"{method!r} for {llm.name}, which does not say which scheme",
            "a config.json with a quantization_config",
        )
    facts = _METHODS[name](where, config or {})
    present = llm.matrix_params(max(llm.num_experts, 0))
    kinds = tuple(
        kind
        for kind in facts.kinds
        if present[kind] and not is_excluded(kind, llm, config or {}, where)
    )
    if not kinds:
        raise InputError(
            where,
            f"{method!r}, which quantises {', '.join(facts.kinds)}",
            f"a method that quantises some weights of {llm.name}",
        )
    precision = Precision(
        dtype=llm.precision.dtype,
        quantization=name,
        quantized=kinds,
        quantized_weight_bytes=facts.weight_bytes,
        quantized_gemm_format=facts.gemm_format,
        kv_cache_dtype=llm.precision.kv_cache_dtype,
    )
    notes = (*llm.notes, facts.note) if facts.note else llm.notes
    return replace(llm, precision=precision, notes=notes)


def kv_cache_dtype(config: Mapping[str, Any], where: str) -> str:
    """Return the KV cache type in a quantisation config, or ``auto`` if it has none."""
    scheme = config.get("kv_cache_scheme")
    if isinstance(scheme, Mapping):
        if (scheme.get("type"), scheme.get("num_bits")) != ("float", 8):
            raise InputError(
                f"{where}: kv_cache_scheme",
                f"{scheme.get('num_bits')} bits ({scheme.get('type')})",
                "8 bits (float)",
            )
        return "fp8"
    algorithm = config.get("kv_cache_quant_algo")
    if algorithm not in (None, "FP8"):
        raise InputError(f"{where}: kv_cache_quant_algo", repr(algorithm), "FP8")
    return "fp8" if algorithm else "auto"


def method_of(config: Mapping[str, Any], where: str) -> str:
    """Return the method of a ``quantization_config``."""
    method = config.get("quant_method")
    if not isinstance(method, str):
        raise InputError(f"{where}: quant_method", repr(method), "the method's name")
    return method


def with_precision(
    llm: LLMSpec,
    *,
    dtype: str | None = None,
    quantization: str | None = None,
    kv_cache_dtype: str | None = None,
) -> LLMSpec:
    """Return ``llm`` with another precision, in vLLM's names; None or ``auto`` keeps its own.

    Raises InputError for unknown names, and for a method that bssim cannot price.
    """
    own = llm.precision.quantization
    if dtype not in (None, "auto"):
        notes = tuple(note for note in llm.notes if note != FLOAT32_NOTE)
        precision = replace(llm.precision, dtype=plain_dtype(str(dtype)))
        llm = replace(llm, precision=precision, notes=notes)
    if quantization == "none":
        notes = tuple(note for note in llm.notes if note != BITSANDBYTES_NOTE)
        llm = replace(llm, precision=Precision(llm.precision.dtype), notes=notes)
    elif quantization is not None and _SAME_METHOD.get(quantization, quantization) != own:
        if own is not None:
            raise InputError(
                "quantization",
                f"{quantization!r} for {llm.name}, whose weights are {own!r}",
                f"{own}, none for unquantised weights, or no value",
            )
        llm = quantized(llm, quantization)
    if kv_cache_dtype not in (None, "auto"):
        llm = replace(llm, precision=replace(llm.precision, kv_cache_dtype=str(kv_cache_dtype)))
    if llm.precision.quantization is not None and llm.precision.dtype == "float32":
        raise InputError(
            "dtype",
            f"float32 with {llm.precision.quantization} weights",
            "bfloat16 or float16, in which vLLM runs them",
        )
    return llm


_DTYPE_NAMES: Mapping[str, Dtype] = {
    "float32": "float32",
    "float": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "half": "float16",
}


def plain_dtype(name: str, where: str = "dtype") -> Dtype:
    """Return a type by any of vLLM's names for it; raises InputError for any other name."""
    short = name.removeprefix("torch.")
    if short not in _DTYPE_NAMES:
        raise unknown_name(where, short, _DTYPE_NAMES)
    return _DTYPE_NAMES[short]
