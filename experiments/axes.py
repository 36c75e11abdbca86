"""What a sweep varied: the table of its cells by the inputs that differ between them."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

WORKLOAD_AXES = ("workload.mix.density", "workload.mix.sharing", "workload.num_requests")
"""Numbers that make one workload of a grid differ from the next."""


SPLIT = "disaggregation"
"""Left out of the inputs of colocated cells."""


def varied_settings(inputs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return what varies beside workload, scheduler and seed: model, hardware, knobs, ...

    One line a cell (index: config_hash), one column a varied input such as
    ``engine.max_num_seqs``; no columns where the sweep has one setting.
    """
    keys = ("llm.name", "hardware.name", "cost_model", "output_lengths", "tp", "dp", SPLIT)
    return _varied(inputs, lambda key: key in keys or key.startswith("engine."))


def varied_numbers(inputs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the varied inputs that are numbers and could be the axes of a heat map."""
    numbers = _varied(
        inputs, lambda key: key in (*WORKLOAD_AXES, "tp", "dp") or key.startswith("engine.")
    )
    return numbers.select_dtypes("number")


def setting_label(setting: Mapping[str, Any]) -> str:
    """Return one setting in words, e.g. ``vllm, max_num_seqs=256``; empty for no setting."""
    named = ("llm.name", "hardware.name", "engine.name", "cost_model", "output_lengths", SPLIT)
    return ", ".join(
        str(value) if key in named else f"{key.removeprefix('engine.')}={value}"
        for key, value in setting.items()
        if not pd.isna(value)
    )


def _varied(inputs: Mapping[str, Mapping[str, Any]], wanted: Any) -> pd.DataFrame:
    flat = {key: {k: v for k, v in _flatten(cell, "") if wanted(k)} for key, cell in inputs.items()}
    table = pd.DataFrame.from_dict(flat, orient="index")
    return table.loc[:, table.nunique(dropna=False) > 1]


def _flatten(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
