"""The parts of `bssim run` that need no engine."""

import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssim.cost_models.fitted import FittedCostModel
from bssim.errors import InputError
from bssim.experiments.batch import run_lines, run_planner
from bssim.experiments.batch.replicas.shards import split
from bssim.experiments.batch.run_lengths import Observed, RunLengths, learned
from bssim.experiments.batch.run_lines import check_batch, check_models, read_lines
from bssim.experiments.batch.run_planner import Planning, Question, choose
from bssim.experiments.batch.run_policy import ChangingPlan
from bssim.experiments.batch.run_pool import Pool
from bssim.experiments.batch.run_results import FinishedRows, Results
from bssim.sim.cluster import run_replicas
from bssim.sim.engine import EngineView, load_preset
from bssim.sim.schedulers import Plan, PlanContext, StaticOrder
from bssim.sim.setup import Setup
from bssim.sim.workload import PrefixTree, Workload, make_workload

COSTS = FittedCostModel(
    {"fixed": 0.003, "tokens": 3.5e-5, "decode_requests": 3e-5}, "made up", 256.0
)
ENGINE = replace(
    load_preset("vllm"), block_size=16, num_gpu_blocks=80, max_num_batched_tokens=128,
    max_num_seqs=16,
)  # fmt: skip


def line(index: int, **changes: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    whole = {"custom_id": f"c{index}", "method": "POST", "url": "/v1/chat/completions"}
    return {**whole, "body": body, **changes}


def batch_of(folder: Path, *lines: Any) -> Path:
    path = folder / "batch.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n\n" for entry in lines))
    return path


def body(**fields: Any) -> dict[str, Any]:
    return line(1, body={**line(1)["body"], **fields})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ([1], r"batch.jsonl:3: found list; expected an object"),
        (line(0), r":3: custom_id: found 'c0', as in line 1"),
        (line(1, custom_id=7), r":3: custom_id: found 7; expected a string"),
        (line(1, url="/v1/embeddings"), r":3: url: found '/v1/embeddings'.*/v1/completions"),
        (line(1, method="GET"), r":3: method: found 'GET'; expected POST"),
        (line(1, body=3), r":3: body: found 3; expected an object"),
        (body(n=2), r":3: body.n: found 2; expected 1: write the line n times"),
        (body(stream=True), r":3: body.stream: found True; expected false"),
        (body(use_beam_search=True), r":3: body.use_beam_search"),
        (body(prompt=["a", "b"]), r":3: body.prompt: found a list; expected one prompt"),
        (
            body(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
            r":3: body.messages\[0\].content: found a part of type 'image_url'",
        ),
    ],
)
def test_lines_that_cannot_be_run_are_refused_by_name(tmp_path: Path, entry: Any, words: str):
    with pytest.raises(InputError, match=words):
        check_batch(batch_of(tmp_path, line(0), entry))


def test_a_file_is_read_again_as_it_was_checked(tmp_path: Path):
    lines = [line(0), body(n=1, stream=False, prompt=[1, 2])]
    plain = batch_of(tmp_path, *lines)
    packed = tmp_path / "batch.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, packed):
        file = check_batch(path)
        assert file.custom_ids == ["c0", "c1"]
        assert [found.body for found in read_lines(file)] == [entry["body"] for entry in lines]
        check_models(file, ["m"])
        with pytest.raises(InputError, match=r":1: body.model: found 'm'; the engine serves x"):
            check_models(file, ["x"])


def row(index: int, tokens: int = 5, finish: str = "stop") -> dict[str, Any]:
    usage = {"prompt_tokens": 9, "completion_tokens": tokens}
    answer = {"choices": [{"finish_reason": finish}], "usage": usage}
    response = {"status_code": 200, "body": answer}
    return {"id": "x", "custom_id": f"c{index}", "response": response, "error": None}


def test_results_go_on_after_a_torn_row(tmp_path: Path):
    batch = check_batch(batch_of(tmp_path, *(line(i) for i in range(4))))
    out = tmp_path / "out.jsonl"
    with Results(out, batch, {}) as results:
        results.write(2, row(2))
        results.write(0, row(0, 7, "length"))
        assert len(out.read_bytes().splitlines()) == 2  # on its way to the disk at once
    whole = out.read_bytes()
    out.write_bytes(whole + json.dumps(row(1)).encode()[:40])
    with Results(out, batch, {}) as results:
        assert list(results.observed()) == [(2, 5, True), (0, 7, False)]
        assert out.read_bytes() == whole
        results.write(1, {**row(1), "error": "no"})
        assert results.rows[1]["failed"]
        with pytest.raises(InputError, match="another process is writing it"):
            Results(out, batch, {})
    assert out.read_bytes().startswith(whole)


def test_results_of_another_batch_are_not_touched(tmp_path: Path):
    batch = check_batch(batch_of(tmp_path, line(0)))
    out = tmp_path / "out.jsonl"
    with Results(out, batch, {}) as results:
        results.write(0, row(0))
    before = out.read_bytes()
    other = check_batch(batch_of(tmp_path, line(0), line(1)))
    with pytest.raises(InputError, match=r"holds results of .* with other content"):
        Results(out, other, {})
    (tmp_path / "out.jsonl.run.json").unlink()
    with pytest.raises(InputError, match=r"exists, but has no out.jsonl.run.json next to it"):
        Results(out, batch, {})
    assert out.read_bytes() == before


def pool(caps: int, groups: int = 4, requests: int = 400) -> Workload:
    tree = PrefixTree(np.array([-1] + [0] * groups), np.array([0] + [64] * groups))
    rng = np.random.default_rng(1)
    return make_workload(
        "pool",
        64 + rng.integers(8, 40, requests),
        np.full(requests, caps),
        tree=tree,
        node=1 + np.arange(requests) % groups,
        max_tokens=np.full(requests, caps),
    )


def test_estimates_follow_the_prefix_and_stay_below_the_cap():
    work = pool(caps=200)
    lengths = RunLengths(work, np.random.default_rng(0))
    assert 0 < len(lengths.sample) <= 40
    rows = np.arange(200)
    truth = np.where(rows % 4 == 0, 100, 10)
    estimates, curves = lengths.estimate(Observed(rows, truth, np.ones(200, np.bool_)))
    assert (estimates.mean <= 200).all()
    groups = np.arange(400) % 4
    if curves is not None and len(np.unique(curves.group)) > 1:
        assert estimates.mean[groups == 0].mean() > 3 * estimates.mean[groups == 1].mean()
    drawn = lengths.draw(curves, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(estimates.mean.mean(), rel=0.15)
    assert 1 <= drawn.min() <= drawn.max() <= 200


def test_a_request_that_its_cap_ended_would_have_gone_on():
    work = pool(caps=200)
    rows, tokens = np.arange(100), np.full(100, 20)
    means = [
        RunLengths(work, np.random.default_rng(0))
        .estimate(Observed(rows, tokens, np.full(100, ended)))[0]
        .mean.mean()
        for ended in (True, False)
    ]
    assert means[0] == pytest.approx(20, rel=0.15)
    assert means[1] > 100


def test_without_observations_a_request_uses_its_cap():
    lengths = RunLengths(pool(caps=50), np.random.default_rng(0))
    nothing = np.zeros(0, np.int64)
    estimates, curves = lengths.estimate(Observed(nothing, nothing, nothing.astype(np.bool_)))
    assert (estimates.mean == 50).all()
    assert (lengths.draw(curves, np.random.default_rng(0)) == 50).all()


class Changing:
    """A scheduler whose plan is replaced every few steps by a random order of the rest.

    Half of the rest is given back, and taken again at the next change.
    """

    name = "changing"

    def __init__(self, every: int) -> None:
        self.every = every
        self.admitted: list[int] = []

    def plan(self, context: PlanContext) -> Plan:
        size, scheduler = len(context.workload), self

        class Policy(ChangingPlan):
            waits_for_finish = False
            steps = 0
            away: Sequence[int] = ()

            def begin_step(self, engine: EngineView) -> None:
                if self.steps % scheduler.every == 0:
                    self.take(self.away)
                    self.away = self.never_admitted()[::2].tolist() if 0 < self.steps < 150 else ()
                    self.give_back(self.away)
                    rest = self.never_admitted()
                    self.adopt(StaticOrder(context.rng.permutation(len(rest))), rest)
                self.steps += 1
                super().begin_step(engine)

            def admitted(self, request: int, cached_tokens: int) -> None:
                scheduler.admitted.append(request)
                super().admitted(request, cached_tokens)

        policy = Policy(size)
        policy.take(range(size), first=[3, 1, 2])
        return Plan((policy,), np.ones(size))


@pytest.mark.parametrize("every", [1, 5, 10_000])
def test_plans_may_change_at_any_step_and_every_request_is_served(every: int):
    work = replace(pool(caps=60, requests=120), output_tokens=np.full(120, 60))
    scheduler = Changing(every)
    setup = Setup(work, ENGINE, 79, COSTS, run_planner.SequentialOverlap())
    replicas, outcome = run_replicas(setup, setup.plan(scheduler, "oracle", seed=0))
    assert (outcome.finish_s > 0).all()
    assert set(scheduler.admitted) == set(range(120))
    assert scheduler.admitted[:3] == [3, 1, 2]
    preemptions = sum(replica.core.preemptions for replica in replicas)
    assert preemptions > 0
    assert len(scheduler.admitted) == 120 + preemptions


def shards(
    work: Workload,
    finished: dict[int, int],
    parts: int,
    scheduler: str = "auto",
    running: list[dict[int, int]] | None = None,
) -> list[list[int]]:
    """Split what is left of a pool of which some rows finished with so many tokens."""
    rows = FinishedRows()
    rows.rows = {
        10 * row: {"prompt_tokens": 0, "output_tokens": tokens, "ended": True, "failed": False}
        for row, tokens in finished.items()
    }
    indices = [10 * row for row in range(len(work))]
    running = [{}] * parts if running is None else running
    begun = finished.keys() | {row for of in running for row in of}
    left = [row for row in range(len(work)) if row not in begun]
    return split(Pool(work, indices, left), left, rows, running, scheduler, seed=0)


@pytest.mark.parametrize("scheduler", ["auto", "fcfs"])
def test_each_request_that_is_left_is_in_one_shard(scheduler: str):
    work, finished = pool(caps=50), dict.fromkeys(range(0, 400, 3), 20)
    found = shards(work, finished, 3, scheduler)
    left = [row for part in found for row in part]
    assert sorted(left) == [row for row in range(400) if row not in finished]
    assert all(abs(len(part) - len(left) / 3) < 5 for part in found)


def test_a_shard_keeps_prefix_groups_whole():
    found = shards(pool(caps=50), dict.fromkeys(range(0, 400, 3), 20), 4)
    groups = [{row % 4 for row in part} for part in found]
    assert sum(map(len, groups)) <= 4 + 3  # every cut divides at most one group


def test_shards_are_equal_by_the_lengths_that_were_seen():
    """Groups 0 and 1 turn out to be short: half of the load is then within groups 2 and 3."""
    seen = {row: (2 if row % 4 < 2 else 190) for row in range(0, 400) if row // 4 % 2}
    first, second = shards(pool(caps=200), seen, 2)
    assert len(first) > 1.3 * len(second)


def test_a_replica_may_get_no_request():
    found = shards(pool(caps=50), dict.fromkeys(range(398), 20), 3)
    assert sorted(map(len, found)) == [0, 1, 1]


@pytest.mark.parametrize("scheduler", ["auto", "fcfs"])
def test_a_replica_with_much_left_to_do_gets_less(scheduler: str):
    work, finished = pool(caps=50), dict.fromkeys(range(0, 200), 40)
    running = [dict.fromkeys(range(200, 260), 5), {}]
    first, second = shards(work, finished, 2, scheduler, running)
    assert len(first) + len(second) == 140
    assert 20 < len(first) < 60


def test_running_requests_show_that_outputs_are_longer():
    """All finished requests of groups 0 and 1 were short, but most of them run on."""
    seen = {row: 5 if row % 4 < 2 else 100 for row in range(0, 100)}
    running = {row: 190 for row in range(100, 200) if row % 4 < 2}
    alone, _ = shards(pool(caps=200), seen, 2)
    first, _ = shards(pool(caps=200), seen, 2, running=[running, dict(running)])
    assert len(first) < len(alone)


def test_a_choice_beside_the_run_is_the_choice_within_it(monkeypatch: pytest.MonkeyPatch):
    work = replace(pool(caps=30, groups=40), output_tokens=np.full(400, 8))
    lengths = RunLengths(work, np.random.default_rng(0))
    rows = np.arange(100)
    observed = Observed(rows, np.full(100, 8), np.ones(100, np.bool_))
    estimator = learned(lengths.estimate(observed)[0], np.arange(400))
    question = Question(work, estimator, ENGINE, COSTS, ("fcfs", "dfs", "ratio"), 0)
    here = choose(question)
    assert here.forecast.scheduler == "dfs"
    assert here.tried["dfs"] < 0.9 * here.tried["fcfs"]
    monkeypatch.setattr(run_planner, "INLINE_REQUESTS", 10)
    there = Planning(question).result(wait=True)
    assert there is not None
    assert (there.forecast.scheduler, there.tried) == (here.forecast.scheduler, here.tried)
    assert there.forecast.finish_s.tolist() == here.forecast.finish_s.tolist()


HEADS = (b"[1]", b"{", b"\xff", b"[" * 10**5)
ROWS = (
    {"custom_id": "c0", "response": 3},
    {"custom_id": "c0", "response": {"status_code": 200, "body": {"choices": [4]}}},
    {"custom_id": "c0", "response": {"body": {"usage": {"prompt_tokens": "many"}}}},
    {"custom_id": "c0", "response": {"body": {"usage": {"completion_tokens": -1}}}},
    {"custom_id": ["c0"]},
    [3],
)


@pytest.mark.parametrize("head", HEADS)
def test_a_damaged_file_of_settings_is_named(tmp_path: Path, head: bytes):
    batch = check_batch(batch_of(tmp_path, line(0)))
    (tmp_path / "out.jsonl.run.json").write_bytes(head)
    with pytest.raises(InputError, match=r"out.jsonl.run.json: not what `bssim run` wrote"):
        Results(tmp_path / "out.jsonl", batch, {})


@pytest.mark.parametrize("damaged", ROWS)
def test_a_damaged_row_is_named_with_its_line(tmp_path: Path, damaged: Any):
    batch = check_batch(batch_of(tmp_path, line(0), line(1)))
    out = tmp_path / "out.jsonl"
    with Results(out, batch, {}) as results:
        results.write(1, row(1))
    before = out.read_bytes() + json.dumps(damaged).encode() + b"\n"
    out.write_bytes(before)
    with pytest.raises(InputError, match=r"out.jsonl:2: found .* the result of a request"):
        Results(out, batch, {})
    assert out.read_bytes() == before


def test_batch_files_that_are_no_files_are_refused(tmp_path: Path):
    pipe, packed = tmp_path / "pipe.jsonl", tmp_path / "batch.jsonl.gz"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="not a regular file"):
        check_batch(pipe)
    packed.write_bytes(gzip.compress(json.dumps(line(0)).encode())[:-9])
    with pytest.raises(InputError, match=r"batch.jsonl.gz: .*ended before"):
        check_batch(packed)
    packed.write_bytes(gzip.compress(b" " * run_lines.MOST_LINE))
    with pytest.raises(InputError, match=r":1: too long"):
        check_batch(packed)
    plain = batch_of(tmp_path)
    for text in (b"[" * 10**5, b'{"custom_id": ' + b"1" * 5000 + b"}"):
        plain.write_bytes(text)
        with pytest.raises(InputError, match=r":1: found bad JSON"):
            check_batch(plain)
