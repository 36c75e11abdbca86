"""Speed of the tree builder and of a mix at full size: ``pytest benchmarks``.

Aims, on one core: 100M+ tokens in 400,000 prompts in under 15 s, a trace in under 2 s.
"""

import numpy as np

from bssim.sim.workload import flatten, from_token_ids, load_workload, prompt_token_ids, shuffle


def test_tree_of_trace1_from_token_ids(benchmark):
    w = load_workload("trace1")
    ids, offsets = flatten([prompt_token_ids(w, i, vocab_size=1 << 20) for i in range(len(w))])
    assert len(ids) > 100_000_000
    tree, node = benchmark.pedantic(from_token_ids, args=(ids, offsets), rounds=1)
    assert tree.num_nodes == w.tree.num_nodes
    assert np.array_equal(node, w.node)


def test_trace1(benchmark):
    w = benchmark.pedantic(load_workload, args=("trace1",), rounds=3)
    assert len(w) == 400_000


def test_shuffle_of_trace1(benchmark):
    w = load_workload("trace1")
    shuffled = benchmark.pedantic(
        lambda: shuffle(w, np.random.default_rng(0)).max_cached_tokens.sum(), rounds=3
    )
    assert shuffled == w.max_cached_tokens.sum()
