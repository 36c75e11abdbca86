"""Pipeline stages, expert parallelism, whose all-reduce: what they change, and that bounds hold."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.cost_models.bounds import compute_bounds
from bssim.cost_models.engine_costs import EngineCosts
from bssim.cost_models.hardware import kv_capacity_tokens, load_hardware
from bssim.cost_models.llm import Shard, load_llm
from bssim.cost_models.operators import ExpertMlp, expert_loads
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import StepWork
from bssim.cost_models.step_floors import StepLimits
from bssim.errors import InputError

LLM, BIG, MOE = load_llm("llama-3-8b"), load_llm("llama-3-70b"), load_llm("mixtral-8x7b")
H100 = load_hardware("h100-sxm")
SLOW = EngineCosts("slow", per_step_s=1e-3, per_request_s=1e-5, per_layer_s=1e-4, graph_tokens=8)


def decode(requests: float, context: float = 1000.0) -> StepWork:
    return StepWork(
        decode_requests=requests,
        decode_context_tokens=requests * context,
        sampled_tokens=requests,
    )


def test_a_round_of_two_stages_takes_as_long_as_half_the_requests_on_one_gpu() -> None:
    one = RooflineCostModel(LLM, H100).step_cost(decode(128))
    two = RooflineCostModel(LLM, H100, 1, EngineCosts(pp=2)).step_cost(decode(256))
    assert two.compute_s == pytest.approx(one.compute_s)
    assert two.memory_s == pytest.approx(one.memory_s)
    assert 0 < two.communication_s < 1e-3  # one send
    lonely = RooflineCostModel(LLM, H100, 1, EngineCosts(pp=2)).step_cost(decode(1))
    alone = RooflineCostModel(LLM, H100).step_cost(decode(1))
    assert lonely.compute_s == pytest.approx(alone.compute_s)  # the other stage idles


def test_uneven_stages_wait_for_the_largest() -> None:
    odd = replace(LLM, num_layers=33)
    two = RooflineCostModel(odd, H100, 1, EngineCosts(pp=2)).step_cost(decode(256))
    one = RooflineCostModel(odd, H100).step_cost(decode(128))
    assert two.memory_s == pytest.approx(one.memory_s * 34 / 33)


def test_stages_hold_their_layers_weights_and_kv() -> None:
    with pytest.raises(InputError, match="does not fit 1 x"):
        kv_capacity_tokens(BIG, H100)
    four = kv_capacity_tokens(BIG, H100, pp=4)
    usable = H100.memory_bytes * 0.9
    ends = 2 * BIG.lm_head_params * 2
    stage = (BIG.weight_bytes - ends) / 4 + ends / 2
    assert four == int((usable - stage) / (BIG.kv_bytes_per_token / 4))
    assert four < kv_capacity_tokens(BIG, H100, tp=4)  # which splits the vocabulary as well


def test_only_models_of_stages_price_a_pipeline() -> None:
    with pytest.raises(InputError, match="pp: found 2 with cost_model paper"):
        make_cost_model("paper", LLM, H100, 1, EngineCosts(pp=2))
    with pytest.raises(InputError, match="pp: found 33"):
        make_cost_model("roofline", LLM, H100, 1, EngineCosts(pp=33))


def test_operators_of_a_pipeline_sum_to_the_step() -> None:
    model = RooflineCostModel(BIG, H100, 2, replace(SLOW, pp=3))
    cost, operators = model.step_cost(decode(100)), model.operators(decode(100))
    for resource in ("compute", "memory", "communication"):
        total = sum(o.seconds for o in operators if o.resource == resource)
        assert total == pytest.approx(float(getattr(cost, f"{resource}_s")))
    assert {"send", "all_reduce", "logits_gather"} <= {o.name for o in operators}
    # three micro-batches of 33 requests are scheduled beside the GPUs, and launched: no graph
    assert cost.fixed_s == 0
    assert cost.host_s == pytest.approx(3 * 1e-3 + 100 * 1e-5 + 3 * 27 * 1e-4)


def test_loads_are_skewed_and_add_up() -> None:
    tokens = np.array([1.0, 3.0, 100.0, 5000.0])
    loads = expert_loads(tokens, 64, 6)
    assert loads.sum(axis=1) == pytest.approx(6 * tokens)
    assert np.all(loads <= tokens[:, None] * (1 + 1e-9))
    assert np.all(np.diff(loads, axis=1) <= 1e-9)
    assert loads[3, 0] > 3 * loads[3].mean()


def test_expert_parallelism_waits_for_the_busiest_gpu() -> None:
    split, whole = ExpertMlp(Shard(MOE, 4)), ExpertMlp(Shard(MOE, 4), expert_parallel=True)
    assert whole.flops(4096.0) > 1.1 * split.flops(4096.0)
    assert whole.weight_bytes == 4 * split.weight_bytes
    assert whole.active_experts(4096.0) <= MOE.num_experts / 4
    even = 2.0 * MOE.expert_params / 4 * MOE.experts_per_token * 4096
    assert split.flops(4096.0) == pytest.approx(even)
    with pytest.raises(InputError, match="enable_expert_parallel"):
        RooflineCostModel(replace(MOE, num_experts=9), H100, 4, EngineCosts(expert_parallel=True))


def test_the_engine_says_whose_all_reduce_it_is() -> None:
    def all_reduce(kind: str, rows: float) -> float:
        model = RooflineCostModel(BIG, H100, 8, EngineCosts(all_reduce=kind))
        (found,) = (o for o in model.operators(decode(rows)) if o.name == "all_reduce")
        return found.seconds

    assert all_reduce("vllm", 16) < 0.7 * all_reduce("nccl", 16)  # 256 KB: one shot, no ring
    assert all_reduce("vllm", 8192) == pytest.approx(all_reduce("nccl", 8192), rel=0.1)


@st.composite
def batches(draw: st.DrawFn) -> tuple[StepWork, int]:
    """Return the steps of one pool of decodes under a random batching, and its longest output."""
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    left, steps = np.array(lengths), []
    while left.any():
        runs = (left > 0) & (rng.random(len(left)) < 0.7)
        if runs.any():
            left[runs] -= 1
            steps.append((float(runs.sum()), float(runs.sum() * 500.0)))
    columns = np.array(steps).T
    work = StepWork(
        decode_requests=columns[0], decode_context_tokens=columns[1], sampled_tokens=columns[0]
    )
    return work, max(lengths)


ENGINES = (
    SLOW,
    replace(SLOW, async_scheduling=True),
    replace(SLOW, pp=2),
    EngineCosts(expert_parallel=True, all_reduce="trtllm"),
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("llm", "tp"), [(LLM, 1), (MOE, 2)])
@pytest.mark.parametrize("elementwise", ["compute", "memory"])
@settings(max_examples=15, deadline=None)
@given(batch=batches(), overlap=st.sampled_from(["sequential", "frontier", "perfect"]))
def test_no_batching_beats_a_bound(engine, llm, tp, elementwise, batch, overlap) -> None:
    work, longest = batch
    model = RooflineCostModel(llm, H100, tp, engine, elementwise=elementwise)
    rule = parse_overlap(overlap)
    makespan = float(np.sum(rule.step_seconds(model.step_cost(work))))
    bounds = compute_bounds(
        work.total(),
        model,
        rule,
        longest_output_tokens=longest,
        kv_token_steps=0.0,
        kv_capacity_tokens=1.0,
        limits=StepLimits(64, 64, micro_batches=engine.pp),
    )
    for f in fields(bounds):
        assert getattr(bounds, f.name) <= makespan * (1 + 1e-9), f.name
