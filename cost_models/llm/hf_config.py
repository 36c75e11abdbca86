"""Read fields of a Hugging Face ``config.json`` with checks and errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bssim.cost_models.llm.attention import AttentionGroup, Kind
from bssim.errors import InputError, unknown_name

LAYER_KINDS: Mapping[str, Kind] = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
}
"""``layer_types`` of a config -> kinds of attention that bssim prices."""

LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer")
MOST_LAYERS = 10_000
MOST = 1 << 53
"""The largest size; a longer number is damage, and loops over it would not end."""


class HfConfig:
    """Fields by name; a missing field or wrong type raises InputError with file and name."""

    def __init__(self, path: Path, data: Mapping[str, Any]) -> None:
        self.path = path
        self.data = data

    @property
    def kind(self) -> str:
        """The architecture's ``model_type``."""
        return str(self.data.get("model_type"))

    def number(self, *keys: str, default: int | None = None) -> int:
        """Return the first of ``keys`` that is set, as a whole number.

        A list with the same value for every layer counts as that value. Raises InputError if the
        layers differ.
        """
        for key in keys:
            value = self.data.get(key)
            if value is None:
                continue
            if isinstance(value, list) and value and all(item == value[0] for item in value):
                value = value[0]
            if isinstance(value, list):
                raise InputError(
                    f"{self.path}: {key}",
                    repr(value),
                    "one value for all layers, the only form that is modelled",
                )
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"{self.path}: {key}", repr(value), "a whole number")
            most = MOST_LAYERS if key in LAYER_COUNTS else MOST
            if abs(value) > most:
                raise InputError(f"{self.path}: {key}", value, f"at most {most:,}")
            return value
        if default is not None:
            return default
        raise InputError(self.path, f"no {keys[0]!r}", f"it in a {self.kind} config")

    def divisor(self, *keys: str, default: int | None = None) -> int:
        """Return a whole number like `number`, but refuse one below 1."""
        value = self.number(*keys, default=default)
        if value < 1:
            raise InputError(f"{self.path}: {keys[0]}", value, "at least 1")
        return value

    def listed(self, key: str) -> list[int]:
        """Return a field that has a whole number for each of some layers; empty without it."""
        found = self.data.get(key) or []
        if not isinstance(found, list) or not all(isinstance(item, int) for item in found):
            raise InputError(f"{self.path}: {key}", repr(found), "a list of whole numbers")
        return found

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean field."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InputError(f"{self.path}: {key}", repr(value), "true or false")
        return value

    def has(self, key: str) -> bool:
        """Return whether a field is set to something that is neither null nor zero."""
        return bool(self.data.get(key))

    def window(self, key: str = "sliding_window") -> int:
        """Return the size of the window, or 0 without one or if it covers every context."""
        window = self.number(key, default=0)
        longest = self.number("max_position_embeddings", default=0)
        return 0 if 0 < longest <= window else window

    @property
    def longest_context(self) -> int:
        """``max_position_embeddings``, or 0 (unknown) where scaled positions reach further."""
        scaling = self.data.get("rope_scaling") or self.data.get("rope_parameters") or {}
        kind = scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, dict) else "?"
        if kind not in (None, "default", "llama3", "mrope"):  # vLLM multiplies by the factor
            return 0
        return self.number("max_position_embeddings", "n_positions", default=0)

    def layer_kinds(self, default: Sequence[str] | None = None) -> list[Kind]:
        """Return the kind of attention of each layer; without ``layer_types``, use ``default``.

        Raises InputError for kinds that bssim cannot price (linear attention, state-space layers).
        """
        layers = self.number("num_hidden_layers")
        found = self.data.get("layer_types") or default or ["full_attention"] * layers
        if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != layers:
            raise InputError(f"{self.path}: layer_types", repr(found), f"a list of {layers} kinds")
        for name in found:
            if not isinstance(name, str) or name not in LAYER_KINDS:
                raise unknown_name(f"{self.path}: layer_types", name, LAYER_KINDS)
        return [LAYER_KINDS[name] for name in found]


def attention_layers(
    kinds: Sequence[Kind],
    windows: Mapping[Kind, int],
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    sinks: bool = False,
    softcap: bool = False,
) -> tuple[AttentionGroup, ...]:
    """Return the groups of layers with one shape and the given kinds, the most common kind first.

    A kind without a window becomes full attention, because it sees every token.
    """
    resolved = [kind if windows.get(kind) else "full" for kind in kinds]
    counts = {kind: resolved.count(kind) for kind in ("full", "sliding", "chunked")}
    return tuple(
        AttentionGroup(
            layers=count,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            kind=LAYER_KINDS[f"{kind}_attention"],
            window=0 if kind == "full" else windows[LAYER_KINDS[f"{kind}_attention"]],
            sinks=sinks,
            softcap=softcap,
        )
        for kind, count in sorted(counts.items(), key=lambda item: -item[1])
        if count
    )
