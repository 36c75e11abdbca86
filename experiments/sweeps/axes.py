"""The inputs that a sweep varies, as a table of its cells."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

SPLIT = "disaggregation"
"""Not among the inputs of colocated cells."""
SIZE = "workload.num_requests"
PRECISION = tuple(f"llm.precision.{name}" for name in ("dtype", "quantization", "kv_cache_dtype"))
WORKLOAD_AXES = ("workload.mix.density", "workload.mix.sharing", SIZE)
"""Numbers that differ between the workloads of a grid."""


def varied_settings(inputs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return what varies besides workload, scheduler and seed: model, hardware, knobs, ...

    One row per cell (index: config_hash), one column per varied input such as
    ``engine.max_num_seqs``; no columns if the sweep has one setting. The number of requests is a
    column only if some workload has several sizes.
    """
    keys = {"llm.name", "hardware.name", "cost_model", "output_lengths", "tp", "dp", SPLIT}
    keys |= set(PRECISION)
    if _has_several_sizes(inputs):
        keys.add(SIZE)
    return _varied(inputs, lambda key: key in keys or key.startswith("engine."))


def _has_several_sizes(inputs: Mapping[str, Mapping[str, Any]]) -> bool:
    sizes: dict[str, set[int | None]] = {}
    for cell in inputs.values():
        rest = {k: v for k, v in cell["workload"].items() if k not in ("num_requests", "seed")}
        workload = json.dumps(rest, sort_keys=True)
        sizes.setdefault(workload, set()).add(cell["workload"]["num_requests"])
    return any(len(found) > 1 for found in sizes.values())


def varied_numbers(inputs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the varied inputs that are numbers and could be the axes of a heat map; null: NaN."""
    table = _varied(
        inputs, lambda key: key in (*WORKLOAD_AXES, "tp", "dp") or key.startswith("engine.")
    )
    numbers = [column for column in table if all(map(_is_number, table[column]))]
    return table[numbers].astype("float64")


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def workload_family(label: str, workload: Mapping[str, Any]) -> str:
    """Return a workload's name without its targets: one name for a whole grid of mixes.

    ``label`` is its own name, ``workload`` its resolved inputs.
    """
    mix = workload["mix"]
    if mix is None:
        return label
    name = label.removesuffix(workload["source"]).removesuffix("-")  # the source is the targets
    sources = (mix["compute_source"], mix["memory_source"], mix["sharing_source"])
    return name or "-".join(Path(source).name.partition(".")[0] for source in sources)


def setting_label(setting: Mapping[str, Any]) -> str:
    """Return one setting in words, e.g. ``vllm, max_num_seqs=256``; empty for no setting."""
    return ", ".join(
        _in_words(key, value)
        for key, value in setting.items()
        if value is None or not pd.isna(value)  # NaN: the cell has no such input
    )


def _in_words(key: str, value: object) -> str:
    if key == SIZE:
        return "all requests" if value is None else f"{value:,} requests"
    if key in ("llm.name", "hardware.name", "engine.name", "cost_model", "output_lengths", SPLIT):
        return str(value)
    key = key.removeprefix("engine.").removeprefix("llm.precision.")
    return f"{key}={'null' if value is None else value}"


def _varied(inputs: Mapping[str, Mapping[str, Any]], wanted: Any) -> pd.DataFrame:
    flat = {key: {k: v for k, v in _flatten(cell, "") if wanted(k)} for key, cell in inputs.items()}
    # Keep the objects: with a null among them, pandas would turn integers into floats.
    table = pd.DataFrame(list(flat.values()), index=list(flat), dtype=object)
    return table.loc[:, table.nunique(dropna=False) > 1]


def _flatten(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
