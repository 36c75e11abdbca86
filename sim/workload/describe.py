"""The statistics of a workload that `bssim workload describe` prints."""

from typing import Any

import numpy as np
import numpy.typing as npt

from bssim.cost_models.density import DensityConstants, density_of_sums, token_sums
from bssim.sim.workload.request_density import pool_density
from bssim.sim.workload.workload import Workload

_QUANTILES = (("p01", 0.01), ("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p99", 0.99))


def describe(workload: Workload, *, constants: DensityConstants | None = None) -> dict[str, Any]:
    """Return lengths, sharing, density, sources, tree and notes; JSON types only.

    Densities include sharing and are for ``constants`` (default: Llama-3-8B on one A100-80GB). The
    sharing of a source is the share of its own prompt tokens that are cached.
    """
    unit = constants or DensityConstants()
    prompt, output, tree = workload.prompt_tokens, workload.output_tokens, workload.tree
    return {
        "name": workload.name,
        "num_requests": len(workload),
        "prompt_tokens": int(prompt.sum()),
        "output_tokens": int(output.sum()),
        "prompt_tokens_mean": float(prompt.mean()),
        "output_tokens_mean": float(output.mean()),
        "prompt_tokens_quantiles": _quantiles(prompt),
        "output_tokens_quantiles": _quantiles(output),
        "sharing_max": workload.sharing_max,
        "density": pool_density(workload, unit),
        "sources": [
            _source(workload, code, name, unit) for code, name in enumerate(workload.source_names)
        ],
        "tree": {
            "nodes": tree.num_nodes,
            "levels": int(tree.level.max()),
            "tokens": int(tree.segment_tokens.sum()),
            "deepest_tokens": int(tree.depth_tokens.max()),
        },
        "digest": workload.digest(),
        "notes": list(workload.notes),
    }


def _quantiles(tokens: npt.NDArray[np.int64]) -> dict[str, float]:
    values = np.quantile(tokens, [q for _, q in _QUANTILES])
    middle = {name: float(v) for (name, _), v in zip(_QUANTILES, values, strict=True)}
    return {"min": float(tokens.min()), **middle, "max": float(tokens.max())}


def _source(workload: Workload, code: int, name: str, unit: DensityConstants) -> dict[str, Any]:
    rows = workload.source == code
    prompt, output = workload.prompt_tokens[rows], workload.output_tokens[rows]
    if not len(prompt):
        return {"name": name, "num_requests": 0}
    sharing = float(workload.max_cached_tokens[rows].sum() / prompt.sum())
    computed, read = token_sums(prompt, output)
    return {
        "name": name,
        "num_requests": len(prompt),
        "prompt_tokens_mean": float(prompt.mean()),
        "output_tokens_mean": float(output.mean()),
        "sharing_max": sharing,
        "density": density_of_sums(sharing, float(computed.sum()), float(read.sum()), unit),
    }
