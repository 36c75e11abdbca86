"""Errors of ratios between published rows: the gain of an order, a GPU or a split is a ratio."""

from collections.abc import Mapping

import pandas as pd

SAME = ("release", "gpu", "precision", "model", "tp", "load")
"""What two rows of a ratio have in common, without the field that differs."""
RATIOS: tuple[tuple[str, str, object, object], ...] = (
    ("H100 over A100, FP16", "gpu", "h100-sxm", "a100-80gb"),
    ("H200 over H100, FP8", "gpu", "h200", "h100-sxm"),
    ("FP8 over FP16, H100", "precision", "fp8", "fp16"),
    ("TP 4 over TP 2", "tp", 4, 2),
    ("TP 8 over TP 4", "tp", 8, 4),
    ("128/2048 over 2048/128", "load", "128/2048", "2048/128"),
    ("128/128 over 128/2048", "load", "128/128", "128/2048"),
    ("0.17 over 0.14", "release", "0.17.0", "0.14.0"),
)
"""Name, the field that differs, and its values in the numerator and the denominator."""


def ratio_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return, for each of `RATIOS`, pairs and errors of the predicted ratio of throughputs.

    Index: name. Columns: n, measured (median ratio), predicted, median, p90 (of absolute errors).
    """
    lines: dict[str, Mapping[str, float]] = {}
    for name, field, above, below in RATIOS:
        keys = [key for key in SAME if key != field]
        columns = [*keys, "output_tokens_per_s", "predicted"]
        pairs = table[table[field] == above][columns].merge(
            table[table[field] == below][columns], on=keys, suffixes=("", "_below")
        )
        if pairs.empty:
            continue
        measured = pairs["output_tokens_per_s"] / pairs["output_tokens_per_s_below"]
        predicted = pairs["predicted"] / pairs["predicted_below"]
        error = (predicted / measured - 1).abs()
        lines[name] = {
            "n": len(pairs),
            "measured": float(measured.median()),
            "predicted": float(predicted.median()),
            "median": float(error.median()),
            "p90": float(error.quantile(0.9)),
        }
    return pd.DataFrame.from_dict(lines, orient="index")
