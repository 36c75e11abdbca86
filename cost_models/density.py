"""The paper's performance model (section 4): seconds and compute density of requests, at peak.

This is what BlendServe's tree and scan reason with; the simulator prices steps with a CostModel.
All functions take scalars or arrays of one value per request and broadcast.
"""

import numpy as np

from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec
from bssim.cost_models.step_cost import FloatArray, Scalars


def compute_seconds(
    prompt_tokens: Scalars,
    output_tokens: Scalars,
    llm: LLMSpec,
    hardware: HardwareSpec,
    tp: int = 1,
    *,
    quadratic: bool = False,
) -> FloatArray:
    """Return Comp(r) = (2 (p + d) P + 4 p^2 H L) / C.

    The paper drops the quadratic term in its derivations; so does the default here. P counts the
    active parameters of an MoE model.
    """
    p, d = np.asarray(prompt_tokens, dtype=np.float64), np.asarray(output_tokens)
    flops = 2.0 * (p + d) * llm.num_active_params
    if quadratic:
        flops = flops + 4.0 * p**2 * llm.hidden_size * llm.num_layers
    return np.asarray(flops / (hardware.flops * tp))


def memory_seconds(
    prompt_tokens: Scalars,
    output_tokens: Scalars,
    llm: LLMSpec,
    hardware: HardwareSpec,
    tp: int = 1,
) -> FloatArray:
    """Return Mem(r) = (p d + d^2 / 2) Hkv L 4 / BW: every KV byte read once a decode step."""
    return np.asarray(
        kv_token_steps(prompt_tokens, output_tokens)
        * llm.kv_bytes_per_token
        / (hardware.bandwidth * llm.kv_shards(tp))
    )


def kv_token_steps(prompt_tokens: Scalars, output_tokens: Scalars) -> FloatArray:
    """Return p d + d^2 / 2: KV tokens of a request summed over its decode steps."""
    p, d = np.asarray(prompt_tokens, dtype=np.float64), np.asarray(output_tokens, dtype=np.float64)
    return np.asarray(p * d + d * d / 2)


def density(
    prompt_tokens: Scalars,
    output_tokens: Scalars,
    llm: LLMSpec,
    hardware: HardwareSpec,
    tp: int = 1,
) -> FloatArray:
    """Return rho(r) = Comp(r) / Mem(r) of each request; above 1 is compute-intensive."""
    return np.asarray(
        compute_seconds(prompt_tokens, output_tokens, llm, hardware, tp)
        / memory_seconds(prompt_tokens, output_tokens, llm, hardware, tp)
    )


def density_of_set(
    prompt_tokens: FloatArray,
    output_tokens: FloatArray,
    sharing: float,
    llm: LLMSpec,
    hardware: HardwareSpec,
    tp: int = 1,
) -> float:
    """Return rho(R) = (1 - s) sum Comp / sum Mem, with ``sharing`` s as the share of compute saved.

    A cache hit saves compute and not KV reads.
    """
    compute = compute_seconds(prompt_tokens, output_tokens, llm, hardware, tp).sum()
    memory = memory_seconds(prompt_tokens, output_tokens, llm, hardware, tp).sum()
    return float((1 - sharing) * compute / memory)


def density_constant(llm: LLMSpec, hardware: HardwareSpec, tp: int = 1) -> float:
    """Return k of rho = (1 - s) k sum(p + d) / sum(p d + d^2 / 2); 800.75 for 8B on an A100."""
    compute_per_token = 2.0 * llm.num_active_params / (hardware.flops * tp)
    memory_per_token = llm.kv_bytes_per_token / (hardware.bandwidth * llm.kv_shards(tp))
    return compute_per_token / memory_per_token


def steady_state_requests(
    kv_bytes: Scalars, prompt_tokens: Scalars, output_tokens: Scalars, llm: LLMSpec
) -> FloatArray:
    """Return KVmem / ((p + d/2) Hkv L 4): requests that decode at once in ``kv_bytes``."""
    mean_context = np.asarray(prompt_tokens, dtype=np.float64) + np.asarray(output_tokens) / 2
    return np.asarray(kv_bytes / (mean_context * llm.kv_bytes_per_token))


def memory_partition(
    left_density: float, right_density: float, root_density: float
) -> tuple[float, float]:
    """Return the shares of KV memory (M_L / M, M_R / M) for which both sides blend to the root.

    Solves M_L + M_R = M and M_L rho(L) + M_R rho(R) = M rho(root). Where rho(L) = rho(R), or
    rho(root) is not between them (the paper does not say), all memory goes to the side nearer the
    root.
    """
    low, high = sorted((left_density, right_density))
    if left_density == right_density or not low <= root_density <= high:
        left_is_nearer = abs(root_density - left_density) <= abs(root_density - right_density)
        return (1.0, 0.0) if left_is_nearer else (0.0, 1.0)
    left = (root_density - right_density) / (left_density - right_density)
    return left, 1.0 - left
