"""Measured operator tables: the Parquet files inside the `aiconfigurator-core` package.

Only the files of the package (extra `[silicon]`, Apache-2.0) are read; none of its code runs.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from bssim.errors import InputError

PACKAGE = "aiconfigurator_core"

SYSTEMS: dict[str, tuple[str, str]] = {
    "a100-40gb": ("a100_sxm", "0.14.0"),
    "a100-80gb": ("a100_sxm", "0.14.0"),
    "h100-sxm": ("h100_sxm", "0.24.0"),
    "h200": ("h200_sxm", "0.24.0"),
    "b200": ("b200_sxm", "0.24.0"),
    "l40s": ("l40s", "0.24.0"),
}
"""Our device -> (the package's system, the vLLM version whose kernels were measured)."""

BF16_BYTES = 2
MLA_SIZES = {
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
"""The sizes of the MLA attention that was measured."""
Sizes = tuple[float, float, float]
GEMM_TABLES: dict[str, tuple[tuple[str, str, Sizes], ...]] = {
    "gemm_fp8": (("vllm", "fp8", (1.0, 1.0, 2.0)), ("trtllm", "fp8", (1.0, 1.0, 2.0))),
    "gemm_fp4": (("vllm", "nvfp4", (0.5625, 0.5, 2.0)),),
    "gemm_int8": (("trtllm", "sq", (1.0, 1.0, 2.0)),),
    "gemm_w8a16": (("trtllm", "int8_wo", (1.0, 2.0, 2.0)), ("sglang", "int8_wo", (1.0, 2.0, 2.0))),
    "gemm_w4a16": (("trtllm", "int4_wo", (0.5, 2.0, 2.0)),),
}
"""Curve -> (framework, the package's dtype, bytes per weight, input and output element)."""
PEAK_FORMATS = {
    "gemm_fp8": "fp8",
    "gemm_fp4": "fp4",
    "gemm_int8": "int8",
    "gemm_w8a16": "bf16",
    "gemm_w4a16": "bf16",
}
EXPERT_TABLES = {"experts": ("bfloat16", 2.0), "experts_fp8": ("fp8_block", 1.0)}
"""Curve -> (the package's dtype, bytes per weight and input element). The rows of ``fp8`` with one
scale per tensor are left out, because on an H100 they are 2.5 times slower than bf16."""
REDUCE_TABLES = {"all_reduce_nccl": "nccl", "all_reduce_trtllm": "trtllm"}
LINK_TABLES = {"l40s": "0.5.12"}
"""Device -> the SGLang release whose all-reduces of more than two GPUs replace those of every other
table. The package has two machines with 8 L40S. Two GPUs reach 0.6 of PCIe 4 x16 on both. Four and
eight reach 0.6 on the machine of this release, but 0.16 and 0.05 on the other one, whose notes say
that the collection of all-reduces hangs there. Without NVLink, vLLM, SGLang and TensorRT-LLM all
leave groups of more than two GPUs to NCCL, so the rows hold for each of them."""


@dataclass(frozen=True, eq=False)
class OperatorTables:
    """Rows measured on one device: bf16, vLLM's kernels, one GPU; times in seconds."""

    source: str
    gemm: pd.DataFrame
    """Columns rows, n, k, seconds."""
    prefill_attention: pd.DataFrame
    """Columns heads, kv_heads, head_dim, requests, tokens (per request, none cached), seconds."""
    decode_attention: pd.DataFrame
    """Columns heads, kv_heads, head_dim, requests, context (KV before the step), seconds."""
    all_reduce: pd.DataFrame
    """Columns gpus, bytes, seconds: vLLM's own all-reduce in a CUDA graph; may be empty. The
    frame's attrs hold its ``source``."""
    others: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Curve of `hardware.OPTIONAL` -> its rows; each frame's attrs hold its ``source``."""
    mla: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Rows of MLA attention with DeepSeek's sizes (`MLA_SIZES`): ``prefill``, ``decode``, and
    ``decode_fp8`` for an fp8 KV cache. Columns heads, requests, tokens or context, seconds."""


def has_tables(hardware_name: str) -> bool:
    """Return whether the package is installed and has tables for this device."""
    return hardware_name in SYSTEMS and find_spec(PACKAGE) is not None


def load_tables(hardware_name: str) -> OperatorTables:
    """Return the tables of a device.

    Raises InputError if the package is not installed or has no tables for this device.
    """
    root, head = _device_root(hardware_name)
    release = SYSTEMS[hardware_name][1]
    return OperatorTables(
        source=f"{head}, vLLM {release}, bf16",
        gemm=_gemm(_read(root / "gemm" / "vllm" / release / "gemm_perf.parquet")),
        prefill_attention=_prefill(
            _read(root / "attention" / "vllm" / release / "context_attention_perf.parquet")
        ),
        decode_attention=_decode(
            _read(root / "attention" / "vllm" / release / "generation_attention_perf.parquet")
        ),
        all_reduce=_all_reduce(root, release, head),
        others=dict(_others(root, release, head)),
        mla=_mla(root, head),
    )


def _device_root(hardware_name: str) -> tuple[Path, str]:
    """Return the folder of a device's tables, and the text that their sources begin with."""
    if hardware_name not in SYSTEMS:
        raise InputError(
            "cost_model silicon",
            f"hardware {hardware_name!r}",
            f"one with measured tables: {', '.join(sorted(SYSTEMS))}",
        )
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError.saying(
            "cost_model silicon",
            "package aiconfigurator-core is not installed",
            "it from `pip install 'bssim[silicon]'`",
        )
    system = SYSTEMS[hardware_name][0]
    root = Path(spec.origin).parent / "systems" / "data" / system
    return root, f"measured: aiconfigurator-core {version('aiconfigurator-core')}, {system}"


def _kernel_table(folder: Path, name: str) -> pd.DataFrame:
    """Return the newest release's table; its ``attrs`` hold the release."""
    path = _newest(folder, name)
    if path is None:
        raise InputError.saying(folder, "no table", f"{name} of some release")
    frame = pd.read_parquet(path)
    frame.attrs["release"] = path.parent.name
    return frame


def load_trtllm_tables(hardware_name: str) -> OperatorTables:
    """Return the rows of TensorRT-LLM's kernels that differ from vLLM's.

    They are GEMMs and attention on one GPU, in bf16 and, under ``others``, fp8. Raises InputError
    like `load_tables`.
    """
    root, head = _device_root(hardware_name)
    gemm = _kernel_table(root / "gemm" / "trtllm", "gemm_perf.parquet")
    context = _kernel_table(root / "attention" / "trtllm", "context_attention_perf.parquet")
    decode = _kernel_table(root / "attention" / "trtllm", "generation_attention_perf.parquet")
    head = f"{head}, trtllm {gemm.attrs['release']}"
    others = {}
    if (gemm["gemm_dtype"] == "fp8").any():
        others["gemm_fp8"] = _sourced(_gemm(gemm, "fp8"), f"{head}, fp8")
    if (decode["kv_cache_dtype"] == "fp8").any():
        rows = _decode(decode, "fp8")
        others["decode_attention_fp8"] = _sourced(
            rows, f"{head}, bf16 attention on an fp8 KV cache"
        )
    if (context["attn_dtype"] == "fp8").any():
        rows = _prefill(context, "fp8")
        others["prefill_attention_fp8"] = _sourced(rows, f"{head}, fp8 attention over prompts")
    return OperatorTables(
        source=f"{head}, bf16",
        gemm=_gemm(gemm),
        prefill_attention=_prefill(context),
        decode_attention=_decode(decode),
        all_reduce=pd.DataFrame(columns=["gpus", "bytes", "seconds"]),
        others=others,
    )


def gemm_sizes(curve: str, source: str) -> Sizes:
    """Return the bytes per element in the rows of a GEMM curve."""
    return next(sizes for name, _, sizes in GEMM_TABLES[curve] if f", {name} " in source)


def _others(root: Path, release: str, head: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each optional curve for which a device has rows, with the rows."""
    for curve, candidates in GEMM_TABLES.items():
        for framework, dtype, _ in candidates:
            found = _newest_with(
                root / "gemm" / framework, "gemm_perf.parquet", "gemm_dtype", dtype
            )
            if found is not None:
                version_, frame = found
                yield (
                    curve,
                    _sourced(_gemm(frame, dtype), f"{head}, {framework} {version_}, {dtype}"),
                )
                break
    decode = _read(root / "attention" / "vllm" / release / "generation_attention_perf.parquet")
    if (decode["kv_cache_dtype"] == "fp8").any():
        source = f"{head}, vLLM {release}, bf16 attention on an fp8 KV cache"
        yield "decode_attention_fp8", _sourced(_decode(decode, "fp8"), source)
    quantize = root / "quantize" / "vllm" / release / "scale_matrix_perf.parquet"
    if quantize.is_file():
        source = f"{head}, vLLM {release}, static_scaled_fp8_quant"
        yield "elementwise", _sourced(_elementwise(pd.read_parquet(quantize)), source)
    moe = pd.read_parquet(root / "moe" / "vllm" / release / "moe_perf.parquet")
    for curve, (dtype, _) in EXPERT_TABLES.items():
        table = _experts(moe, dtype)
        if len(table):
            yield curve, _sourced(table, f"{head}, vLLM {release}, {dtype}, power law 1.01")
    for curve, framework in REDUCE_TABLES.items():
        path = _newest(root / "comm" / framework, "*perf.parquet")
        if path is not None:
            table = _reduces(pd.read_parquet(path))
            yield curve, _on_links(root, table, f"{head}, {framework} {path.parent.name}")


def _sourced(table: pd.DataFrame, source: str) -> pd.DataFrame:
    table.attrs["source"] = source
    return table


def _newest(folder: Path, pattern: str) -> Path | None:
    """Return the file of the newest release under ``folder``, or None."""

    def release(path: Path) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", path.parent.name)]

    return max(folder.glob(f"*/{pattern}"), key=release, default=None)


def _newest_with(
    folder: Path, name: str, column: str, value: str
) -> tuple[str, pd.DataFrame] | None:
    """Return the newest release whose table has ``value`` in ``column``, and the table."""
    for path in sorted(folder.glob(f"*/{name}"), reverse=True):
        frame = pd.read_parquet(path)
        if (frame[column] == value).any():
            return path.parent.name, frame
    return None


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError.saying(path, "not found", "this table in aiconfigurator-core >= 0.12")
    return pd.read_parquet(path)


def _seconds(frame: pd.DataFrame) -> "pd.Series[float]":
    return frame["latency"] / 1e3


def _median(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per size: the median of its repetitions."""
    sizes = [name for name in table.columns if name != "seconds"]
    return table.groupby(sizes)[["seconds"]].median().reset_index()


def _gemm(frame: pd.DataFrame, dtype: str = "bfloat16") -> pd.DataFrame:
    frame = frame[frame["gemm_dtype"] == dtype]
    table = pd.DataFrame(
        {"rows": frame["m"], "n": frame["n"], "k": frame["k"], "seconds": _seconds(frame)}
    )
    return _median(table)


def _attention(
    frame: pd.DataFrame, kv_dtype: str = "bfloat16", dtype: str = "bfloat16"
) -> pd.DataFrame:
    frame = frame[(frame["attn_dtype"] == dtype) & (frame["kv_cache_dtype"] == kv_dtype)]
    if "window_size" in frame:
        frame = frame[frame["window_size"] == 0]
    return frame


def _prefill(frame: pd.DataFrame, dtype: str = "bfloat16") -> pd.DataFrame:
    frame = _attention(frame, dtype, dtype)
    table = pd.DataFrame(
        {
            "heads": frame["num_heads"],
            "kv_heads": frame["num_key_value_heads"],
            "head_dim": frame["head_dim"],
            "requests": frame["batch_size"],
            "tokens": frame["isl"],
            "seconds": _seconds(frame),
        }
    )
    return _median(table)


def _decode(frame: pd.DataFrame, kv_dtype: str = "bfloat16") -> pd.DataFrame:
    frame = _attention(frame, kv_dtype)
    table = pd.DataFrame(
        {
            "heads": frame["num_heads"],
            "kv_heads": frame["num_key_value_heads"],
            "head_dim": frame["head_dim"],
            "requests": frame["batch_size"],
            "context": frame["step"],
            "seconds": _seconds(frame),
        }
    )
    return _median(table)


def _mla(root: Path, head: str) -> dict[str, pd.DataFrame]:
    """Return the rows of MLA attention, without its GEMMs.

    They are TensorRT-LLM's for every engine: the package has vLLM's only as whole modules, GEMMs
    included.
    """
    folder = root / "mla" / "trtllm"
    context = _kernel_table(folder, "context_mla_perf.parquet")
    decode = _kernel_table(folder, "generation_mla_perf.parquet")
    source = f"{head}, trtllm {decode.attrs['release']}, MLA"
    found = {}
    for name, frame, kv_dtype, size in (
        ("prefill", context, "bfloat16", ("tokens", "isl")),
        ("decode", decode, "bfloat16", ("context", "step")),
        ("decode_fp8", decode, "fp8", ("context", "step")),
    ):
        rows = frame[(frame["mla_dtype"] == "bfloat16") & (frame["kv_cache_dtype"] == kv_dtype)]
        table = pd.DataFrame(
            {
                "heads": rows["num_heads"],
                "requests": rows["batch_size"],
                size[0]: rows[size[1]],
                "seconds": _seconds(rows),
            }
        )
        found[name] = _sourced(_median(table), source)
    return found


def _all_reduce(root: Path, release: str, head: str) -> pd.DataFrame:
    """Return vLLM's all-reduces of this release, or of the newest one that has any."""
    name = "custom_allreduce_perf.parquet"
    path: Path | None = root / "comm" / "vllm" / release / name
    if path is None or not path.is_file():
        path = _newest(root / "comm" / "vllm", name)
    if path is None:
        return _sourced(pd.DataFrame(columns=["gpus", "bytes", "seconds"]), head)
    table = _custom(pd.read_parquet(path), "vllm_graph")
    return _on_links(root, table, f"{head}, vLLM {path.parent.name}, bf16")


def _custom(frame: pd.DataFrame, backend: str) -> pd.DataFrame:
    frame = frame[frame["backend"] == backend]
    table = pd.DataFrame(
        {
            "gpus": frame["num_gpus"],
            "bytes": frame["message_size"] * BF16_BYTES,  # the file counts elements
            "seconds": _seconds(frame),
        }
    )
    return _median(table)


def _on_links(root: Path, table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return the rows with those of `LINK_TABLES` for groups of more than two GPUs."""
    release = LINK_TABLES.get(root.name)
    if release is None:
        return _sourced(table, source)
    path = root / "comm" / "sglang" / release / "custom_allreduce_perf.parquet"
    others = _custom(_read(path), "sglang_graph")
    table = pd.concat([table[table["gpus"] == 2], others[others["gpus"] > 2]], ignore_index=True)
    return _sourced(
        table, f"{source} for 2 GPUs, sglang {release} (NCCL, another machine) for 4 and 8"
    )


def _reduces(frame: pd.DataFrame) -> pd.DataFrame:
    """Return all-reduces of 16-bit elements; columns gpus, bytes, seconds."""
    frame = frame[frame["op_name"] == "all_reduce"]
    dtype = "nccl_dtype" if "nccl_dtype" in frame else "allreduce_dtype"
    frame = frame[frame[dtype].isin(["half", "bfloat16"])]
    table = pd.DataFrame(
        {
            "gpus": frame["num_gpus"],
            "bytes": frame["message_size"] * BF16_BYTES,
            "seconds": _seconds(frame),
        }
    )
    return _median(table)


def _elementwise(frame: pd.DataFrame) -> pd.DataFrame:
    """Return bytes and seconds of a kernel that reads 2 bytes per element and writes 1."""
    table = pd.DataFrame(
        {"bytes": frame["m"] * frame["k"] * (BF16_BYTES + 1), "seconds": _seconds(frame)}
    )
    return _median(table)


def _experts(frame: pd.DataFrame, dtype: str) -> pd.DataFrame:
    """Return the rows of whole layers of gated routed experts on one GPU."""
    gated = ~frame["hidden_size"].isin(_NOT_GATED)
    frame = frame[
        (frame["moe_dtype"] == dtype)
        & (frame["distribution"] == "power_law_1.01")
        & (frame["moe_ep_size"] == 1)
        & gated
    ]
    table = pd.DataFrame(
        {
            "tokens": frame["num_tokens"],
            "hidden": frame["hidden_size"],
            "width": frame["inter_size"] // frame["moe_tp_size"],
            "experts": frame["num_experts"],
            "per_token": frame["topk"],
            "seconds": _seconds(frame),
        }
    )
    return _median(table)


_NOT_GATED = (1024, 2688)
"""Hidden sizes of Nemotron's experts, which have two matrices."""
