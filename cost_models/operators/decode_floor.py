"""The least seconds of decode attention, whatever the batches are.

A step in which B requests decode at a mean context of C tokens reads at a share of the bandwidth
that depends on B and C. Few requests can have long contexts at a time, because the KV cache holds
what they read. The least seconds per decode at each C therefore have a lower convex envelope e, and
D decodes that read X tokens take at least ``D e(X / D)`` by Jensen's inequality.
"""

import itertools

import numpy as np

from bssim.cost_models.hardware import EfficiencyCurve
from bssim.cost_models.step_cost import DecodeLimits, FloatArray
from bssim.cost_models.step_floors import Envelope

_PARTS = 32
"""Parts of each interval of the curve. In one part, every context has the best share of all."""


def decode_envelope(
    share: EfficiencyCurve,
    kv_heads: float,
    read_s: float,
    flops_s: float,
    limits: DecodeLimits,
) -> Envelope:
    """Return the envelope of the seconds of one decode, by the mean context of its step.

    ``kv_heads``: of one request on the GPU. ``read_s`` and ``flops_s``: seconds per context token
    at the whole bandwidth, and for its FLOPs.
    """
    contexts = _contexts(share.axes.get("context", np.ones(1)), limits.longest_context_tokens)
    low, high = contexts[:-1], contexts[1:]
    most = limits.most_requests(low)
    sizes = np.concatenate([[1.0], share.axes.get("kv_heads", np.ones(1)) / kv_heads, [np.inf]])
    # interpolation in logarithms is largest at a corner of the part
    requests = np.clip(sizes[:, None], 1.0, most)
    best = np.maximum(
        share.at(kv_heads=requests * kv_heads, context=low).max(axis=0),
        share.at(kv_heads=requests * kv_heads, context=high).max(axis=0),
    )
    token_s = np.maximum(read_s / best, flops_s)
    # a context between two parts has the lower seconds of both
    least = np.minimum(np.append(token_s, np.inf), np.append(np.inf, token_s))
    return Envelope.below(contexts, contexts * least)


def _contexts(points: FloatArray, longest: float) -> FloatArray:
    """Return the ends of the parts, from one token to ``longest``; at least two."""
    last = max(longest, 2.0)
    ends = np.concatenate([[1.0], points[(points > 1.0) & (points < last)], [last]])
    logs = np.log(ends)
    parts = [np.linspace(a, b, _PARTS, endpoint=False) for a, b in itertools.pairwise(logs)]
    return np.append(np.exp(np.concatenate(parts)), last)
