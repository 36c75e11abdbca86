"""Find the kinds of matrices that a quantised checkpoint leaves unquantised.

Checkpoints list these modules by name, by a part of their path, by wildcards or by regular
expressions. A kind of matrix is excluded only if all of its modules are, in all layers.
"""

import fnmatch
import re
from collections.abc import Mapping
from typing import Any

from bssim.cost_models.llm.spec import LLMSpec
from bssim.errors import InputError

LISTS = (
    "modules_to_not_convert",
    "ignored_layers",
    "ignore",
    "exclude_modules",
    "llm_int8_skip_modules",
)
"""The names of the list of exceptions in the configs of different methods."""
PREFIXES = ("model.", "language_model.model.", "model.language_model.")
MODULES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "qkv_proj": (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.qkv_proj",),
        ("attn.c_attn",),
    ),
    "o_proj": (("self_attn.o_proj",), ("attn.c_proj",)),
    "mlp": (
        ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        ("mlp.gate_up_proj", "mlp.down_proj"),
        ("feed_forward.gate_proj", "feed_forward.up_proj", "feed_forward.down_proj"),
    ),
    "shared_expert": (
        ("mlp.shared_experts.gate_proj", "mlp.shared_experts.down_proj"),
        ("mlp.shared_expert.gate_proj", "mlp.shared_expert.down_proj"),
        ("feed_forward.shared_expert.gate_proj", "feed_forward.shared_expert.down_proj"),
    ),
    "experts": (
        ("mlp.experts.0.gate_proj", "mlp.experts.0.down_proj"),
        ("block_sparse_moe.experts.0.w1", "block_sparse_moe.experts.0.w2"),
        ("feed_forward.experts.0.gate_proj", "feed_forward.experts.0.down_proj"),
    ),
}
"""Kind of matrix -> its modules in a layer, with one tuple of names per family."""
MLA_MODULES = (
    (
        "self_attn.q_a_proj",
        "self_attn.q_b_proj",
        "self_attn.kv_a_proj_with_mqa",
        "self_attn.kv_b_proj",
    ),
)


class _Exceptions:
    """The modules that a config excludes, with a fast test for one module."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        entries = [item for key in LISTS for item in _names(config, key, where)]
        self._patterns = [
            _pattern(entry[3:], where) for entry in entries if entry.startswith("re:")
        ]
        self._wildcards = [entry for entry in entries if "*" in entry and entry[:3] != "re:"]
        self._names = {entry for entry in entries if "*" not in entry and entry[:3] != "re:"}

    def hold(self, module: str) -> bool:
        """Return whether a module, or a part of the model that contains it, is excluded."""
        parts = module.split(".")
        return (
            any(
                ".".join(parts[i:j]) in self._names
                for i in range(len(parts))
                for j in range(i + 1, len(parts) + 1)
            )
            or any(pattern.match(module) for pattern in self._patterns)
            or any(
                fnmatch.fnmatch(module, entry) or fnmatch.fnmatch(module, f"{entry}.*")
                for entry in self._wildcards
            )
        )


def _names(config: Mapping[str, Any], key: str, where: str) -> list[str]:
    found = config.get(key) or []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InputError(f"{where}: {key}", repr(found), "a list of names of modules")
    return found


def _pattern(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(where, repr(f"re:{text}"), f"a regular expression; {error}") from None


def is_excluded(kind: str, llm: LLMSpec, config: Mapping[str, Any], where: str) -> bool:
    """Return whether a config excludes a kind of matrix.

    Raises InputError if it excludes only some of the layers, or only some of the modules, and for a
    list of exceptions that holds anything else than names and regular expressions.
    """
    exceptions = _Exceptions(config, where)
    families = MLA_MODULES if kind == "qkv_proj" and llm.is_mla else MODULES.get(kind, ())
    have = {
        "mlp": llm.num_layers - llm.num_moe_layers,
        "shared_expert": llm.num_moe_layers,
        "experts": llm.num_moe_layers,
    }.get(kind, llm.num_layers)
    excluded = 0
    for i in range(llm.num_layers):
        found = [
            [exceptions.hold(f"{prefix}layers.{i}.{module}") for module in modules]
            for modules in families
            for prefix in PREFIXES
        ]
        excluded += any(all(family) for family in found)
        if any(any(family) for family in found) and not any(all(family) for family in found):
            raise InputError(
                where,
                f"a part of {kind} unquantised in layer {i}",
                "all of its matrices alike, the only form that is modelled",
            )
    if 0 < excluded < have:
        raise InputError(
            where,
            f"{kind} unquantised in {excluded} of {have} layers",
            "all layers alike, the only form that is modelled",
        )
    return excluded > 0
