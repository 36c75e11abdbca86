import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.backends.token_ids import FIRST_TOKEN_ID, PromptTokens
from bssim.errors import InputError
from tests.conformance.pools import grown, pool


def shared(a: list[int], b: list[int]) -> int:
    same = [x == y for x, y in zip(a, b, strict=False)]
    return same.index(False) if False in same else len(same)


@settings(max_examples=150, deadline=None)
@given(prompts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), max_size=12))
def test_prompts_share_exactly_what_the_tree_says(prompts: list[list[int]]):
    made = list(PromptTokens(pool(prompts, [1] * len(prompts)), vocab_size=1000))
    assert [len(p) for p in made] == [len(p) for p in prompts]
    for i in range(len(made)):
        for j in range(i):
            assert shared(made[i], made[j]) == shared(prompts[i], prompts[j])


def test_ids_are_in_the_vocabulary_and_repeatable():
    load = grown([(0, 50), (1, 30)], [(k % 3, 1 + 40 * k, 5, 0) for k in range(9)])
    ids = [np.array(p) for p in PromptTokens(load, vocab_size=600)]
    assert all(p.min() >= FIRST_TOKEN_ID and p.max() < 600 for p in ids)
    again = PromptTokens(load, vocab_size=600)
    assert [again[k] for k in reversed(range(9))] == [p.tolist() for p in reversed(ids)]
    other = PromptTokens(load, vocab_size=600, seed=1)
    assert other[8] != again[8]


def test_more_branches_than_tokens_take_two_tokens_each():
    load = grown([], [(0, 2, 1, 0)] * 50)
    assert len({tuple(p) for p in PromptTokens(load, vocab_size=FIRST_TOKEN_ID + 8)}) == 50


def test_a_vocabulary_too_small_to_tell_branches_apart_is_refused():
    load = grown([], [(0, 1, 1, 0)] * 50)
    with pytest.raises(InputError, match=r"50 branches.*expected a larger vocabulary"):
        PromptTokens(load, vocab_size=FIRST_TOKEN_ID + 8)
    with pytest.raises(InputError, match="vocab_size: found 17"):
        PromptTokens(load, vocab_size=17)
