"""Token ids from the tree, and what a reader makes of them again."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.errors import InputError
from bssim.sim.workload import (
    Workload,
    convert,
    describe,
    exact_vocab_size,
    flatten,
    from_block_hashes,
    from_token_ids,
    load_workload,
    make_workload,
    prompt_token_ids,
    take,
)
from bssim.sim.workload.convert import write_csv, write_token_ids
from bssim.sim.workload.readers import read_workload


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Pools of up to 20 requests with nested groups of 1 to 40 tokens and tails of 0 to 40."""
    prompts = draw(
        st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=5), min_size=1, max_size=20)
    )
    tree, node = from_token_ids(*flatten(prompts))
    segment = tree.segment_tokens.copy()
    segment[1:] = draw(
        st.lists(st.integers(1, 40), min_size=len(segment) - 1, max_size=len(segment) - 1)
    )
    stretched = type(tree)(tree.parent, segment)
    tail = draw(st.lists(st.integers(0, 40), min_size=len(node), max_size=len(node)))
    prompt = np.maximum(stretched.depth_tokens[node] + tail, 1)
    return make_workload("pool", prompt, range(1, len(node) + 1), tree=stretched, node=node)


def all_ids(w: Workload, **options: int) -> list[np.ndarray]:
    return [prompt_token_ids(w, i, **options) for i in range(len(w))]


@settings(max_examples=50)
@given(workloads(), st.integers(0, 2**63))
def test_ids_read_back_give_the_same_tree_and_hits(w, seed):
    ids = all_ids(w, vocab_size=exact_vocab_size(w), seed=seed)
    tree, node = from_token_ids(*flatten(ids))
    again = make_workload("again", [len(i) for i in ids], w.output_tokens, tree=tree, node=node)
    assert again.digest() == w.digest()
    assert again.max_cached_tokens.tolist() == w.max_cached_tokens.tolist()


@settings(max_examples=50)
@given(workloads())
def test_blocks_of_16_ids_share_what_the_tree_shares(w):
    names: dict[tuple[int, ...], int] = {}
    ids = [i.tolist() for i in all_ids(w, vocab_size=1024)]
    whole = [
        [names.setdefault(tuple(p[: k + 16]), len(names)) for k in range(0, len(p) - 15, 16)]
        for p in ids
    ]
    tree, node = from_block_hashes(*flatten(whole), block_tokens=16, prompt_tokens=w.prompt_tokens)
    blocks = make_workload("blocks", w.prompt_tokens, w.output_tokens, tree=tree, node=node)
    for i in range(len(w)):
        for j in range(i):
            both = {0, *w.tree.path(int(w.node[i]))} & {0, *w.tree.path(int(w.node[j]))}
            shared = max(int(w.tree.depth_tokens[v]) for v in both)
            both = {0, *blocks.tree.path(int(node[i]))} & {0, *blocks.tree.path(int(node[j]))}
            assert max(int(tree.depth_tokens[v]) for v in both) == shared // 16 * 16


def test_ids_stay_inside_the_vocabulary_and_follow_the_seed():
    w = load_workload("trace1", num_requests=300)
    ids = np.concatenate(all_ids(w, vocab_size=1024, seed=5))
    assert ids.dtype == np.int32
    assert (ids.min(), ids.max()) == (3, 1023)
    assert len(ids) == w.prompt_tokens.sum()
    first = prompt_token_ids(w, 0, vocab_size=1024, seed=5)
    assert first.tolist() == prompt_token_ids(w, 0, vocab_size=1024, seed=5).tolist()
    assert first.tolist() != prompt_token_ids(w, 0, vocab_size=1024, seed=6).tolist()


def test_the_stream_of_ids_never_changes():
    # A replay on another machine, or with another NumPy, must see the same prompts.
    w = make_workload("w", [6, 4], [1, 1])
    assert prompt_token_ids(w, 1, vocab_size=1000, seed=7).tolist() == [4, 99, 462, 750]


def test_more_siblings_than_ids_share_little():
    w = make_workload("w", [50] * 1000, [1] * 1000)
    assert exact_vocab_size(w) == 1003
    ids = all_ids(w, vocab_size=100)
    assert len({tuple(i[:2].tolist()) for i in ids}) > 990
    tree, node = from_token_ids(*flatten(ids))
    again = make_workload("again", [50] * 1000, [1] * 1000, tree=tree, node=node)
    assert again.shared_tokens.max() <= 3
    with pytest.raises(InputError, match="vocab_size: found 8; expected at least 16"):
        prompt_token_ids(w, 0, vocab_size=8)


@settings(max_examples=25)
@given(w=workloads(), priorities=st.booleans())
def test_token_id_file_round_trip(tmp_path_factory, w, priorities):
    if priorities:
        w = make_workload(
            "pool",
            w.prompt_tokens,
            w.output_tokens,
            tree=w.tree,
            node=w.node,
            priority=np.arange(len(w)) % 3 - 1,
            request_ids=[f"q-{i}" for i in range(len(w))],
        )
    path = tmp_path_factory.mktemp("ids") / "pool.jsonl"
    write_token_ids(w, path, seed=1)
    again = read_workload(path)
    assert again.digest() == w.digest()
    assert [again.request_id(i) for i in range(len(w))] == [w.request_id(i) for i in range(len(w))]
    have = np.zeros(len(w)) if again.priority is None else again.priority
    want = np.zeros(len(w)) if w.priority is None else w.priority
    assert have.tolist() == want.tolist()


@settings(max_examples=50)
@given(workloads())
def test_csv_round_trip_keeps_every_hit(tmp_path_factory, w):
    path = tmp_path_factory.mktemp("csv") / "pool.csv"
    write_csv(w, path)
    again = read_workload(path)
    assert again.prompt_tokens.tolist() == w.prompt_tokens.tolist()
    assert again.output_tokens.tolist() == w.output_tokens.tolist()
    assert again.max_cached_tokens.tolist() == w.max_cached_tokens.tolist()
    assert again.request_ids == tuple(f"r{i}" for i in range(len(w)))


def test_csv_keeps_sources(tmp_path):
    w = load_workload("trace1", num_requests=500)
    convert(w, tmp_path / "t.csv")
    header, first = (tmp_path / "t.csv").read_text().splitlines()[:2]
    assert header == "request_id,source,prompt_tokens,output_tokens,max_cached_tokens"
    assert first.startswith("r0,")
    again = load_workload(tmp_path / "t.csv")
    names = [[x.source_names[s] for s in x.source] for x in (w, again)]
    assert names[0] == names[1]
    assert again.sharing_max == w.sharing_max


def test_progress_counts_every_line_and_suffixes_are_checked(tmp_path):
    w = make_workload("w", [2] * 2500, [1] * 2500)
    told: list[int] = []
    convert(w, tmp_path / "w.jsonl", progress=told.append)
    assert told == [1000, 1000, 500]
    assert len((tmp_path / "w.jsonl").read_text().splitlines()) == 2500
    assert [p.name for p in tmp_path.iterdir()] == ["w.jsonl"]
    with pytest.raises(InputError, match=r"found suffix '\.txt'; expected \.csv or \.jsonl"):
        convert(w, tmp_path / "w.txt")
    with pytest.raises(InputError, match="found no folder"):
        convert(w, tmp_path / "nowhere" / "w.csv")


def test_describe_counts_what_is_there():
    w = make_workload(
        "w",
        [10, 10, 20],
        [1, 2, 3],
        tree=load_workload("burstgpt", num_requests=2).tree,
        node=[1, 1, 0],
        source=[0, 0, 1],
        source_names=["a", "b"],
        notes=["hello"],
    )
    d = describe(w)
    assert json.loads(json.dumps(d)) == d
    assert (d["num_requests"], d["prompt_tokens_mean"], d["output_tokens_mean"]) == (3, 40 / 3, 2)
    assert d["sharing_max"] == 5 / 40
    assert d["density"] == pytest.approx(800.75 * (1 - 5 / 40) * 46 / (10.5 + 22 + 64.5), rel=1e-4)
    assert [s["num_requests"] for s in d["sources"]] == [2, 1]
    assert d["sources"][0]["sharing_max"] == 5 / 20
    assert d["tree"] == {"nodes": 2, "levels": 1, "tokens": 5, "deepest_tokens": 5}
    assert d["prompt_tokens_quantiles"]["max"] == 20
    assert d["notes"] == ["hello"]
    only_b = describe(take(w, [2]))
    assert only_b["sources"][0] == {"name": "a", "num_requests": 0}
