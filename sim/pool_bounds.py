"""The least work of a pool in any order, and the lower bounds of its makespan."""

import numpy as np

from bssim.cost_models.bounds import Bounds, compute_bounds
from bssim.cost_models.llm import AttentionGroup
from bssim.cost_models.step_cost import DecodeLimits, StepWork, attention_pairs
from bssim.sim.setup import Setup
from bssim.sim.workload import Workload, infinite_cache_hits


def least_work(workload: Workload, windowed: AttentionGroup | None = None) -> StepWork:
    """Return the work that any order must do: all tokens except hits and last output tokens.

    All fields are scalars, and the hits are the most of any order. The practical optimum prices
    this work. ``windowed``: layers of the model with a window.
    """
    p = workload.prompt_tokens.astype(np.float64)
    d = workload.output_tokens.astype(np.float64)
    shortest_first = np.argsort(workload.prompt_tokens, kind="stable")
    hit = infinite_cache_hits(
        workload.tree, workload.node, workload.prompt_tokens, shortest_first
    ).astype(np.float64)
    windows = {}
    if windowed is not None:
        # a query sees its visible context and itself
        decode = windowed.visible_pairs(d - 1, p) - (d - 1)
        windows = {
            "window_decode_tokens": float(decode.sum()),
            "window_prefill_context_tokens": float(windowed.visible_context(hit).sum()),
            "window_attention_pairs": float(windowed.visible_pairs(p - hit, hit).sum()),
        }
    return StepWork(
        **windows,
        decode_requests=float((d - 1).sum()),
        decode_context_tokens=float(((d - 1) * p + (d - 1) * (d - 2) / 2).sum()),
        prefill_requests=float(len(workload)),
        prefill_tokens=float((p - hit).sum()),
        prefill_context_tokens=float(hit.sum()),
        prefill_attention_pairs=float(attention_pairs(p - hit, hit).sum()),
        sampled_tokens=float(d.sum()),
    )


def pool_bounds(setup: Setup, replicas: int) -> Bounds:
    """Return the lower bounds on the makespan of a pool; see `bssim.cost_models.bounds`."""
    workload = setup.workload
    d = workload.output_tokens.astype(np.float64)
    # Only private tokens count, because many requests may hold one copy of shared tokens.
    private = (workload.prompt_tokens - workload.shared_tokens).astype(np.float64)
    work = least_work(workload, setup.windowed)
    limits = setup.engine.step_limits()
    decodes = DecodeLimits(
        max_requests=limits.max_num_seqs,
        kv_capacity_tokens=setup.kv_capacity_tokens,
        shared_tokens=float(workload.shared_tokens.max()),
        longest_context_tokens=float((workload.prompt_tokens + d).max()),
    )
    return compute_bounds(
        work,
        setup.cost_model,
        setup.overlap,
        longest_output_tokens=int(d.max()),
        # the prompt in the step of the first token, then one token more in every decode
        kv_token_steps=float((d * private + d * (d - 1) / 2).sum()),
        kv_capacity_tokens=setup.kv_capacity_tokens,
        limits=limits,
        decodes=decodes,
        replicas=replicas,
    )
