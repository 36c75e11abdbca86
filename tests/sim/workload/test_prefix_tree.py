"""The tree against brute force: any pool of short prompts over a tiny alphabet."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.errors import InputError
from bssim.sim.workload import (
    PrefixTree,
    Workload,
    flatten,
    from_block_hashes,
    from_groups,
    from_token_ids,
    infinite_cache_hits,
    make_workload,
)
from bssim.sim.workload.prefix_tree import canonical

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=14)


def common(a: list[int], b: list[int]) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def pool(prompts: list[list[int]]) -> Workload:
    tree, node = from_token_ids(*flatten(prompts))
    lengths = [len(p) for p in prompts]
    return make_workload("pool", lengths, [1] * len(prompts), tree=tree, node=node)


def shared_in_tree(w: Workload, i: int, j: int) -> int:
    both = {0, *w.tree.path(int(w.node[i]))} & {0, *w.tree.path(int(w.node[j]))}
    return max(int(w.tree.depth_tokens[v]) for v in both)


@settings(max_examples=60)
@given(PROMPTS)
def test_two_prompts_share_in_the_tree_what_they_share_as_token_ids(prompts):
    w = pool(prompts)
    for i, a in enumerate(prompts):
        for j in range(i):
            assert shared_in_tree(w, i, j) == common(a, prompts[j])


@settings(max_examples=60)
@given(PROMPTS)
def test_every_tree_is_canonical(prompts):
    w = pool(prompts)
    things = np.bincount(w.tree.parent[1:], minlength=w.tree.num_nodes)
    things += np.bincount(w.node, minlength=w.tree.num_nodes)
    for v in range(1, w.tree.num_nodes):
        assert w.tree.parent[v] < v
        assert w.tree.segment_tokens[v] > 0
        assert w.requests_below[v] >= 2
        assert things[v] >= 2
    again, node = canonical(w.tree.parent, w.tree.segment_tokens, w.node)
    assert again.parent.tolist() == w.tree.parent.tolist()
    assert again.segment_tokens.tolist() == w.tree.segment_tokens.tolist()
    assert node.tolist() == w.node.tolist()


@settings(max_examples=60)
@given(PROMPTS)
def test_a_subtree_is_a_range_of_nodes_and_siblings_are_first_seen(prompts):
    w = pool(prompts)
    first = [
        min(np.flatnonzero([v in (0, *w.tree.path(int(u))) for u in w.node]))
        for v in range(w.tree.num_nodes)
    ]
    for v in range(w.tree.num_nodes):
        children = [c for c in range(w.tree.num_nodes) if w.tree.parent[c] == v]
        assert [first[c] for c in children] == sorted(first[c] for c in children)
        below = [u for u in range(w.tree.num_nodes) if v in (0, *w.tree.path(u))]
        assert below == list(range(v, v + len(below)))


@settings(max_examples=60)
@given(PROMPTS)
def test_hits_of_an_infinite_cache_are_the_longest_prefix_seen_before(prompts):
    w = pool(prompts)
    for order in (np.arange(len(w)), w.dfs_order, w.dfs_order[::-1]):
        hits = infinite_cache_hits(w.tree, w.node, w.prompt_tokens, order)
        for place, i in enumerate(order):
            seen = max((common(prompts[i], prompts[j]) for j in order[:place]), default=0)
            assert hits[i] == min(seen, len(prompts[i]) - 1)


@settings(max_examples=60)
@given(PROMPTS)
def test_dfs_order_shares_with_its_neighbour_and_reaches_the_maximum(prompts):
    w = pool(prompts)
    order = w.dfs_order
    assert sorted(order) == list(range(len(w)))
    hits = [0] * len(w)
    for a, b in pairwise(order):
        hits[b] = min(common(prompts[a], prompts[b]), len(prompts[b]) - 1)
    assert w.max_cached_tokens.tolist() == hits


@settings(max_examples=60)
@given(PROMPTS, st.randoms(use_true_random=False))
def test_no_order_has_more_hits_than_the_most(prompts, random):
    w = pool(prompts)
    order = list(range(len(w)))
    random.shuffle(order)
    hits = infinite_cache_hits(w.tree, w.node, w.prompt_tokens, np.array(order))
    assert hits.sum() <= w.most_hits
    order.sort(key=lambda i: len(prompts[i]))
    hits = infinite_cache_hits(w.tree, w.node, w.prompt_tokens, np.array(order))
    assert hits.sum() == w.most_hits
    assert w.sharing_max == w.most_hits / sum(map(len, prompts))


def test_a_prompt_that_another_extends_counts_whole_in_the_most_hits():
    w = pool([[1, 2, 3], [1, 2]])
    assert w.max_cached_tokens.tolist() == [0, 1]  # after the longer one, 2 is computed again
    assert w.most_hits == 2  # before it, both of its tokens are found


@settings(max_examples=60)
@given(PROMPTS, st.integers(1, 4))
def test_block_hashes_share_whole_blocks(prompts, block):
    # A block's hash stands for it and all before it, as engines compute it; the last is partial.
    names: dict[tuple[int, ...], int] = {}
    hashes = [
        [names.setdefault(tuple(p[: k + block]), len(names)) for k in range(0, len(p), block)]
        for p in prompts
    ]
    lengths = [len(p) for p in prompts]
    tree, node = from_block_hashes(*flatten(hashes), block_tokens=block, prompt_tokens=lengths)
    w = make_workload("blocks", lengths, [1] * len(lengths), tree=tree, node=node)
    for i, a in enumerate(prompts):
        for j in range(i):
            exact = common(a, prompts[j])
            blocks = common(hashes[i], hashes[j])
            assert shared_in_tree(w, i, j) == min(blocks * block, len(a), len(prompts[j]))
            assert exact - block < shared_in_tree(w, i, j) <= exact


def test_groups_nest_and_unshared_ones_vanish():
    # Group 0 holds groups 1 and 2; group 2 has one member, group 3 none.
    tree, node = from_groups([1, 1, 2, 0, -1], [100, 20, 30, 7], parent_group=[-1, 0, 0, -1])
    assert tree.parent.tolist() == [-1, 0, 1]
    assert tree.segment_tokens.tolist() == [0, 100, 20]
    assert node.tolist() == [2, 2, 1, 1, 0]


def test_a_chain_folds_into_one_node_and_a_node_without_tokens_into_its_parent():
    tree, node = canonical([-1, 0, 1, 2, 2], [0, 5, 0, 6, 7], [3, 3, 3])
    assert tree.parent.tolist() == [-1, 0]
    assert tree.segment_tokens.tolist() == [0, 11]
    assert node.tolist() == [1, 1, 1]


def test_a_prefix_of_all_prompts_stays_a_node_below_the_root():
    tree, node = from_groups([0, 0], [9])
    assert (tree.num_nodes, node.tolist()) == (2, [1, 1])


def test_one_request_has_a_bare_root():
    tree, node = from_token_ids([4, 5, 6], [0, 3])
    assert (tree.num_nodes, node.tolist()) == (1, [0])


def test_ids_outside_31_bits_and_a_group_before_its_parent_are_refused():
    with pytest.raises(InputError, match=r"found -1\.\.3"):
        from_token_ids([3, -1], [0, 2])
    with pytest.raises(InputError, match=r"found 0\.\.2147483648"):
        from_token_ids(np.array([0, 2**31]), [0, 2])
    with pytest.raises(InputError, match=r"parent_group\[0\]: found 1; expected a group before 0"):
        from_groups([0, 1], [1, 1], parent_group=[1, -1])


def test_level_and_path():
    tree = PrefixTree(np.array([-1, 0, 1, 0], np.int32), np.array([0, 2, 3, 4], np.int64))
    assert tree.level.tolist() == [0, 1, 2, 1]
    assert tree.depth_tokens.tolist() == [0, 2, 5, 4]
    assert (tree.path(2), tree.path(0)) == ([1, 2], [])
