"""Cost models through the protocol: closed forms, sums, bounds that nothing beats, speed."""

import time
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.cost_models.bounds import compute_bounds
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.step_cost import CostModel, StepWork, attention_pairs
from bssim.cost_models.step_floors import StepFloors, StepLimits
from bssim.errors import InputError

LLM, A100 = load_llm("llama-3-8b"), load_hardware("a100-80gb")
PAIRS = (
    ("paper", "llama-3-8b", "a100-80gb", 1),
    ("roofline", "llama-3-8b", "a100-80gb", 1),
    ("roofline", "llama-3-70b", "h100-sxm", 8),
    ("roofline", "qwen3-30b-a3b", "h100-sxm", 1),
    ("roofline", "deepseek-v3", "h200", 16),
    ("paper", "llama-3-70b", "a100-80gb", 8),
)


@cache
def model_of(pair: tuple[str, str, str, int]) -> CostModel:
    name, llm, hardware, tp = pair
    return make_cost_model(name, load_llm(llm), load_hardware(hardware), tp)


def step(decode: int = 0, context: int = 0, chunks: tuple[tuple[int, int], ...] = ()) -> StepWork:
    """Return a step of ``decode`` requests at ``context`` and prefill chunks (tokens, before)."""
    c = np.array([tokens for tokens, _ in chunks], dtype=float)
    x = np.array([before for _, before in chunks], dtype=float)
    return StepWork(
        decode_requests=float(decode),
        decode_context_tokens=float(decode * context),
        prefill_requests=float(len(chunks)),
        prefill_tokens=float(c.sum()),
        prefill_context_tokens=float(x.sum()),
        prefill_attention_pairs=float((c * x + c * (c + 1) / 2).sum()),
        sampled_tokens=float(decode + len(chunks)),
    )


def test_paper_closed_form() -> None:
    cost = make_cost_model("paper", LLM, A100).step_cost(step(1000, 1024))
    assert cost.compute_s == pytest.approx(2 * LLM.num_params * 1000 / 312e12)
    assert cost.memory_s == pytest.approx(1000 * 1024 * 131072 / 2.039e12)
    alone = make_cost_model("paper", LLM, A100).step_cost(step(1, 1))
    assert alone.compute_s == pytest.approx(LLM.weight_bytes / 2.039e12)
    ideal = make_cost_model("paper", LLM, A100).ideal_cost(step(1, 1))
    assert ideal.compute_s == pytest.approx(2 * LLM.num_params / 312e12)


def test_paper_has_no_prefill_attention_and_no_fixed_cost() -> None:
    model = make_cost_model("paper", LLM, A100)
    one, many = step(chunks=((2048, 0),)), step(chunks=((2048, 100_000),))
    assert model.step_cost(one).sequential_s == model.step_cost(many).sequential_s
    assert model.step_cost(one).fixed_s == 0


@pytest.mark.parametrize("pair", PAIRS)
def test_operators_sum_to_the_step(pair: tuple[str, str, str, int]) -> None:
    model = model_of(pair)
    for work in (step(96, 700, ((768, 0),) * 4), step(1, 10), step(chunks=((512, 512),))):
        cost, operators = model.step_cost(work), model.operators(work)
        for resource in ("compute", "memory", "communication", "fixed"):
            parts = sum(o.seconds for o in operators if o.resource == resource)
            assert parts == pytest.approx(float(getattr(cost, f"{resource}_s")), rel=1e-9)
        assert all(o.provenance for o in operators)
        assert float(cost.bandwidth_s) <= float(cost.sequential_s) * (1 + 1e-9)


@pytest.mark.parametrize("pair", PAIRS)
def test_an_empty_step_is_free(pair: tuple[str, str, str, int]) -> None:
    cost = model_of(pair).step_cost(step())
    assert [float(getattr(cost, f.name)) for f in fields(cost)] == [0.0] * len(fields(cost))


def test_roofline_limits() -> None:
    """A huge GEMM runs at the best efficiency; one row takes as long as its weights."""
    model = make_cost_model("roofline", LLM, A100)
    one = {o.name: o for o in model.operators(step(1, 1))}
    assert one["mlp"].bound == "memory"
    assert one["mlp"].bytes == pytest.approx(3 * 4096 * 14336 * 2 * 32, rel=0.01)
    big = {o.name: o for o in model.operators(step(chunks=((8192, 0),)))}
    assert big["mlp"].bound == "compute"
    assert big["mlp"].flops == 2 * 3 * 4096 * 14336 * 32 * 8192
    assert big["prefill_attention"].flops == 4 * 32 * 128 * 32 * (8192 * 8193 / 2)
    assert big["lm_head"].flops == 2 * 128256 * 4096
    decode = {o.name: o for o in model.operators(step(256, 1024))}
    assert decode["decode_attention"].bytes == 256 * 1024 * 131072
    assert decode["decode_attention"].bound == "memory"


def test_soft_capping_reads_and_writes_the_logits_three_times() -> None:
    gemma = load_llm("gemma-2-9b")
    work = step(8, 1024)
    capped = {o.name: o for o in make_cost_model("roofline", gemma, A100).operators(work)}
    plain = make_cost_model("roofline", replace(gemma, logit_softcap=False), A100)
    assert capped.pop("logit_softcap").bytes == 3 * 8 * 256_000 * (2 + 2)
    assert capped == {o.name: o for o in plain.operators(work)}


def test_padding_costs_gemm_rows_and_nothing_else() -> None:
    model = make_cost_model("roofline", LLM, A100)
    plain = step(1000, 700)
    padded = StepWork(
        **{f.name: getattr(plain, f.name) for f in fields(plain)} | {"padding_tokens": 1000.0}
    )
    larger = {o.name: o.seconds for o in model.operators(padded)}
    for operator in model.operators(plain):
        if operator.name in ("lm_head", "sampling", "decode_attention"):
            assert larger[operator.name] == operator.seconds
        else:
            assert larger[operator.name] > operator.seconds
    assert model.ideal_cost(padded).compute_s == model.ideal_cost(plain).compute_s


def test_tensor_parallelism_splits_work_and_adds_all_reduces() -> None:
    llm, h100 = load_llm("llama-3-70b"), load_hardware("h100-sxm")
    work = step(64, 2048, ((4096, 0),))
    one = make_cost_model("roofline", llm, h100, 1).operators(work)
    eight = {o.name: o for o in make_cost_model("roofline", llm, h100, 8).operators(work)}
    for operator in one:
        assert eight[operator.name].flops == pytest.approx(operator.flops / 8, rel=1e-3)
    assert "all_reduce" not in {o.name for o in one}
    sent = (2 * 80 + 1) * (2 * 7 / 8) * (64 + 4096) * 8192 * 2
    assert eight["all_reduce"].bytes == pytest.approx(sent)
    with pytest.raises(InputError, match="tp: found 7"):
        make_cost_model("roofline", llm, h100, 7)


def test_experts_touched_grow_with_the_batch() -> None:
    moe = make_cost_model("roofline", load_llm("mixtral-8x7b"), load_hardware("h100-sxm"))
    sizes = [{o.name: o for o in moe.operators(step(n, 1))}["experts"].bytes for n in (1, 2, 512)]
    expert = 3 * 4096 * 14336 * 2 * 32
    assert sizes[0] == pytest.approx(2 * expert, rel=0.02)
    assert 2 * expert < sizes[1] < 8 * (1 - 0.75**2) * expert  # fewer than even routing touches
    assert sizes[2] == pytest.approx(8 * expert, rel=0.1)


def test_mla_decode_reads_one_latent_for_all_heads() -> None:
    model = make_cost_model("roofline", load_llm("deepseek-v3"), load_hardware("h200"), 16)
    attention = {o.name: o for o in model.operators(step(64, 4096))}["decode_attention"]
    assert attention.bytes == 64 * 4096 * 61 * 576 * 2  # the latent is not split over GPUs
    assert attention.flops == 64 * 4096 * 61 * 2 * (128 // 16) * (2 * 512 + 64)


def test_unknown_cost_model() -> None:
    with pytest.raises(InputError, match="did you mean 'roofline'"):
        make_cost_model("rooflin", LLM, A100)


@pytest.mark.parametrize("name", ["paper", "roofline"])
def test_pricing_200_000_steps_is_fast(name: str) -> None:
    rng, n = np.random.default_rng(0), 200_000
    work = StepWork(
        *(
            rng.integers(0, top, n).astype(float)
            for top in (1024, 10**6, 5, 1024, 5000, 10**6, 1024)
        )
    )
    model = make_cost_model(name, LLM, A100)
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        cost = model.step_cost(work)
        best = min(best, time.perf_counter() - start)
    assert cost.compute_s.shape == (n,)
    assert best < 1.0  # 0.1 s on an idle core; the margin is for busy test machines


# -- bounds ----------------------------------------------------------------------------------

request = st.tuples(st.integers(1, 3000), st.integers(1, 40))


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[tuple[int, int]], StepWork, list[int], float]:
    """Return a pool, its steps under a random batching, tokens a step, and KV token-steps."""
    pool = draw(st.lists(request, min_size=1, max_size=8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    done, left = [0] * len(pool), [p for p, _ in pool]
    out = [0] * len(pool)
    steps, held, kv = [], [], 0.0
    while any(out[i] < d for i, (_, d) in enumerate(pool)):
        decode = context = sampled = 0
        chunks = []
        tokens = 0
        for i, (p, d) in enumerate(pool):
            if out[i] == d or (rng.random() < 0.3):
                continue
            if left[i]:
                c = int(rng.integers(1, left[i] + 1))
                chunks.append((c, done[i]))
                done[i] += c
                left[i] -= c
                tokens += done[i]
                if not left[i]:
                    out[i] += 1
                    sampled += 1
            else:
                decode += 1
                context += p + out[i] - 1
                tokens += p + out[i]
                kv += p + out[i]
                out[i] += 1
                sampled += 1
        if not (decode or chunks):
            continue
        work = step(decode, 0, tuple(chunks))
        values = {f.name: getattr(work, f.name) for f in fields(work)}
        values |= {"decode_context_tokens": float(context), "sampled_tokens": float(sampled)}
        steps.append(values)
        held.append(tokens)
    columns = StepWork(**{f.name: np.array([s[f.name] for s in steps]) for f in fields(StepWork)})
    return pool, columns, held, kv


@pytest.mark.parametrize("overlap", ["sequential", "frontier", "perfect", "pnorm:4"])
@pytest.mark.parametrize("pair", PAIRS[:4])
@settings(max_examples=10, deadline=None)
@given(run=runs())
def test_no_batching_beats_a_bound(pair: tuple[str, str, str, int], overlap: str, run) -> None:
    pool, work, held, kv = run
    model, rule = model_of(pair), parse_overlap(overlap)
    makespan = float(np.sum(rule.step_seconds(model.step_cost(work))))
    total = work.total()
    least = StepWork(
        **{f.name: getattr(total, f.name) for f in fields(total)} | {"prefill_context_tokens": 0.0}
    )
    bounds = compute_bounds(
        least,
        model,
        rule,
        longest_output_tokens=max(d for _, d in pool),
        kv_token_steps=kv,
        kv_capacity_tokens=max(held),
        limits=StepLimits(24_000, len(pool)),
    )
    slack = makespan * (1 + 1e-9)
    assert bounds.practical_optimum_s <= slack
    assert bounds.critical_path_s <= slack
    assert bounds.kv_capacity_s <= slack
    assert bounds.practical_optimum_s * (1 - 1e-12) <= bounds.step_count_s <= slack
    assert bounds.ideal_s <= bounds.practical_optimum_s * (1 + 1e-9)


def test_practical_optimum_is_reached_by_one_endless_balanced_step() -> None:
    """The bound is not just valid but tight: big steps at the total ratio come within 1 %."""
    model, rule = make_cost_model("paper", LLM, A100), parse_overlap("frontier")
    work = step(3000, 800)
    steps = 1000
    total = StepWork(**{f.name: steps * getattr(work, f.name) for f in fields(work)})
    bounds = compute_bounds(
        total,
        model,
        rule,
        longest_output_tokens=steps,
        kv_token_steps=0,
        kv_capacity_tokens=1,
        limits=StepLimits(3800, 3800),
    )
    makespan = steps * float(rule.step_seconds(model.step_cost(work)))
    assert bounds.practical_optimum_s == pytest.approx(makespan, rel=0.01)


def test_weight_loads_of_the_fewest_steps_are_on_the_floor() -> None:
    """Work bound by memory on an engine that overlaps: bytes / bandwidth, weights in every step."""
    model, rule = make_cost_model("paper", LLM, A100), parse_overlap("gamma:0.2")
    capacity, steps = 400_000.0, 1000
    kv_s = float(model.ideal_cost(step(1, capacity)).memory_s)
    weights_s = LLM.weight_bytes / 2.039e12
    total = StepWork(
        steps * 100.0, steps * capacity, 0.0, steps * 200.0, 0.0, 0.0, sampled_tokens=0.0
    )
    bounds = compute_bounds(
        total,
        model,
        rule,
        longest_output_tokens=5,
        kv_token_steps=steps * capacity,
        kv_capacity_tokens=capacity,
        limits=StepLimits(2048, 1024),
    )
    assert bounds.step_count_s == pytest.approx(steps * (kv_s + weights_s))
    assert bounds.tightest_s == bounds.step_count_s
    assert bounds.practical_optimum_s < steps * (kv_s + 0.5 * weights_s)


def test_replicas_and_capacity() -> None:
    model, rule = make_cost_model("roofline", LLM, A100), parse_overlap("sequential")
    limits = StepLimits(1024, 256)
    fastest = float(rule.step_seconds(StepFloors(model, limits).step_cost))
    lm_head = 128256 * 4096 * 2 / 2.039e12
    assert fastest > LLM.weight_bytes / 2.039e12 - lm_head  # the embedding table is not read
    bounds = compute_bounds(
        step(10, 10),
        model,
        rule,
        longest_output_tokens=7,
        kv_token_steps=1001,
        kv_capacity_tokens=50,
        limits=limits,
        replicas=2,
    )
    assert bounds.kv_capacity_s == pytest.approx(11 * fastest)
    assert bounds.critical_path_s == pytest.approx(7 * fastest)
    assert bounds.tightest_s == max(
        bounds.kv_capacity_s, bounds.practical_optimum_s, bounds.step_count_s
    )
    with pytest.raises(InputError, match="kv_capacity_tokens 0"):
        compute_bounds(
            step(1, 1),
            model,
            rule,
            longest_output_tokens=1,
            kv_token_steps=1,
            kv_capacity_tokens=0,
            limits=limits,
        )


def test_a_field_of_step_work_that_is_left_out_is_zero_in_every_step():
    work = StepWork(prefill_tokens=np.array([1.0, 2.0, 3.0]), prefill_requests=1.0)
    assert work.tokens.tolist() == [1.0, 2.0, 3.0]
    assert work[1:].prefill_requests.tolist() == [1.0, 1.0]
    assert work[1:].decode_context_tokens.tolist() == [0.0, 0.0]
    assert work.total().prefill_requests == 3.0


@pytest.mark.parametrize(("tokens", "context"), [(1, 0), (4, 0), (3, 5)])
def test_attention_pairs_counts_the_causal_mask(tokens: int, context: int):
    pairs = sum(1 for query in range(tokens) for _ in range(context + query + 1))
    assert attention_pairs(tokens, context) == pairs
