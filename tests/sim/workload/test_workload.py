import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.errors import InputError
from bssim.sim.workload import (
    Workload,
    cap_lengths,
    concatenate,
    flatten,
    from_token_ids,
    load_workload,
    make_workload,
    shuffle,
    subsample,
    take,
)

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=12)


def pool(prompts: list[list[int]], name: str = "pool", **columns: object) -> Workload:
    tree, node = from_token_ids(*flatten(prompts))
    n = len(prompts)
    return make_workload(
        name, [len(p) for p in prompts], range(1, n + 1), tree=tree, node=node, **columns
    )


def same(a: Workload, b: Workload) -> bool:
    return a.digest() == b.digest()


@settings(max_examples=50)
@given(PROMPTS, st.data())
def test_rows_of_a_workload_are_the_workload_of_the_rows(prompts, data):
    rows = data.draw(st.permutations(range(len(prompts))))
    rows = rows[: data.draw(st.integers(1, len(rows)))]
    taken = take(pool(prompts), rows)
    built = pool([prompts[i] for i in rows])
    assert taken.tree.parent.tolist() == built.tree.parent.tolist()
    assert taken.tree.segment_tokens.tolist() == built.tree.segment_tokens.tolist()
    assert taken.node.tolist() == built.node.tolist()
    assert taken.output_tokens.tolist() == [i + 1 for i in rows]


@settings(max_examples=50)
@given(PROMPTS, PROMPTS)
def test_side_by_side_nothing_is_shared_across(left, right):
    a, b = pool(left, "a"), pool(right, "b")
    both = concatenate([a, b], name="ab")
    apart = pool(left + [[t + 10 for t in p] for p in right])
    assert both.tree.parent.tolist() == apart.tree.parent.tolist()
    assert both.tree.segment_tokens.tolist() == apart.tree.segment_tokens.tolist()
    assert both.max_cached_tokens.sum() == a.max_cached_tokens.sum() + b.max_cached_tokens.sum()
    assert [both.source_names[s] for s in both.source] == ["a"] * len(left) + ["b"] * len(right)


@settings(max_examples=50)
@given(PROMPTS, st.integers(1, 8))
def test_cut_prompts_are_the_prompts_cut(prompts, cap):
    w = cap_lengths(pool(prompts), max_prompt_tokens=cap, max_output_tokens=3)
    built = pool([p[:cap] for p in prompts])
    # A private tail cut at the cap stays private, even where two tails are now empty.
    assert w.prompt_tokens.tolist() == [min(len(p), cap) for p in prompts]
    assert w.sharing_max == built.sharing_max
    assert w.output_tokens.max() <= 3


def test_a_repeated_row_keeps_its_group_and_gets_a_tail_of_its_own():
    w = pool([[1, 2, 3], [1, 2, 4], [9, 9, 9]], request_ids=["a", "b", "c"])
    again = take(w, [0, 0, 1, 2, 2])
    assert again.shared_tokens.tolist() == [2, 2, 2, 0, 0]
    assert again.request_ids is None


def test_shuffle_and_subsample_follow_the_generator():
    w = pool([[i, i + 1] for i in range(50)], request_ids=[f"q{i}" for i in range(50)])
    a, b = (shuffle(w, np.random.default_rng(3)) for _ in range(2))
    assert same(a, b)
    assert a.output_tokens.tolist() != w.output_tokens.tolist()
    part = subsample(w, 20, np.random.default_rng(0))
    assert part.output_tokens.tolist() == sorted(part.output_tokens.tolist())
    assert part.request_ids == tuple(f"q{d - 1}" for d in part.output_tokens)
    assert part.notes == ("sampled 20 of 50 requests without replacement, order kept",)
    assert subsample(w, 50, np.random.default_rng(0)) is w


def test_columns_survive_a_concatenation_where_all_parts_have_them():
    a = pool([[1]], "a", request_ids=["x"], priority=[2], arrival_s=[0.5], max_tokens=[7])
    b = pool([[2]], "b", request_ids=["y"], arrival_s=[1.5])
    both = concatenate([a, b], name="ab")
    assert both.request_ids == ("x", "y")
    assert both.priority.tolist() == [2, 0]
    assert both.arrival_s.tolist() == [0.5, 1.5]
    assert both.max_tokens is None
    twice = concatenate([a, a], name="aa")
    assert twice.request_ids is None
    assert twice.source_names == ("a",)


def test_digest_follows_lengths_and_tree_only():
    prompts = [[1, 2, 3], [1, 2, 4]]
    assert pool(prompts).digest() == pool([[7, 8, 3], [7, 8, 4]], "other").digest()
    assert pool(prompts).digest() != pool([[1, 2, 3], [1, 5, 4]]).digest()
    assert pool(prompts).digest() != pool(prompts[:1]).digest()


def test_bad_columns_are_named():
    with pytest.raises(InputError, match=r"output_tokens\[1\]: found 0; expected at least 1"):
        make_workload("w", [1, 1], [1, 0])
    with pytest.raises(InputError, match=r"priority has shape \(1,\); expected \(2,\)"):
        make_workload("w", [1, 1], [1, 1], priority=[0])
    with pytest.raises(InputError, match="found no requests"):
        make_workload("w", [], [])
    with pytest.raises(InputError, match="max_prompt_tokens: found 0"):
        cap_lengths(pool([[1]]), max_prompt_tokens=0)
    shared = pool([[1, 2, 3], [1, 2, 4]])
    with pytest.raises(InputError, match="request 1 has 1 prompt tokens; expected at least the 2"):
        make_workload("w", [3, 1], [1, 1], tree=shared.tree, node=shared.node)


def test_columns_cannot_be_written():
    w = pool([[1, 2], [1, 3]])
    with pytest.raises(ValueError, match="read-only"):
        w.prompt_tokens[0] = 5


def test_a_workload_name_too_long_for_the_file_system_is_an_unknown_name():
    with pytest.raises(InputError, match="workload: found 'xxx"):
        load_workload("x" * 300)
