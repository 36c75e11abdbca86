"""The published rows and what is known of the runs behind them."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

FOLDER = Path(__file__).parents[2] / "measured" / "published"
"""``trtllm.csv``, ``servers.csv``, ``releases.yaml`` and a README that explains them."""
FILES = {"trtllm.csv": False, "servers.csv": True}
"""File -> whether its rows ran behind an HTTP server."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One published throughput: a load, what it ran on, and what came out."""

    release: str
    gpu: str
    precision: Literal["fp16", "fp8", "mxfp4", "bf16", "fp8-kv16"]
    model: str
    tp: int
    input_tokens: int
    output_tokens: int
    num_requests: int
    output_tokens_per_s: float
    """Of the whole replica."""
    engine: str = "tensorrt-llm"
    server: bool = False
    """A client sent all requests at once to an HTTP server."""

    @property
    def load(self) -> str:
        """Prompt and output length, as the sources write them."""
        return f"{self.input_tokens}/{self.output_tokens}"

    @property
    def seconds(self) -> float:
        """How long the measured run took."""
        return self.num_requests * self.output_tokens / self.output_tokens_per_s


@dataclass(frozen=True, slots=True)
class Release:
    """What is known of one release's runs."""

    date: str
    source: str
    flags: str
    version: str
    """The engine version whose host constants hold: a file of cost_models/specs/engines."""
    fitted_model: str
    """The model whose rows the constants were fitted to; ``none``: they are another release's."""
    limits: Literal["fixed", "trtllm-bench"]
    """Whether `settings` hold the limits of a step, or the data set's lengths decide them."""
    settings: dict[str, Any]
    """Engine fields that hold for all of its rows."""
    preset: str = "trtllm"
    """The engine preset that the fields are based on."""
    utilization: float = 1.0
    """Share of the memory that the engine takes for weights, activations and KV."""
    gpu_settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Engine fields that hold on one GPU."""


@cache
def measurements() -> tuple[Measurement, ...]:
    """Return all published rows, in the order of the files."""
    tables = [
        pd.read_csv(FOLDER / name, dtype={"version": str}).assign(server=server)
        for name, server in FILES.items()
    ]
    table = pd.concat(tables, ignore_index=True).rename(columns={"version": "release"})
    return tuple(
        Measurement(**{str(key): value for key, value in row.items()})
        for row in table.to_dict("records")
    )


@cache
def releases() -> dict[str, Release]:
    """Return what is known of each release, oldest first."""
    entries = yaml.safe_load((FOLDER / "releases.yaml").read_text(encoding="utf-8"))
    return {
        name: Release(**(entry | {"date": str(entry["date"])})) for name, entry in entries.items()
    }
