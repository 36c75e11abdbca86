"""Sums of what windows see: closed forms by events against a count token by token."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssim.cost_models.llm import AttentionGroup, Kind
from bssim.cost_models.step_cost import StepWork
from bssim.sim.engine.window_sums import WindowSums


def group_of(kind: Kind, window: int) -> AttentionGroup:
    return AttentionGroup(1, 1, 1, 1, kind, window)


GROUPS = st.builds(group_of, st.sampled_from(["sliding", "chunked"]), st.integers(1, 9))


def seen(group: AttentionGroup, position: int) -> int:
    """Return how many earlier tokens the token at ``position`` sees."""
    if group.kind == "chunked":
        return len([t for t in range(position) if t // group.window == position // group.window])
    return len([t for t in range(position) if position - t < group.window])


@given(GROUPS, st.integers(0, 40), st.integers(0, 40))
def test_visible_tokens_are_counted_one_by_one(
    group: AttentionGroup, context: int, tokens: int
) -> None:
    assert group.visible_context(context) == seen(group, context)
    pairs = sum(seen(group, context + i) + 1 for i in range(tokens))
    assert group.visible_pairs(tokens, context) == pairs


@given(GROUPS, st.data())
def test_sums_are_those_of_the_requests(group: AttentionGroup, data: Any) -> None:
    sums, steps = WindowSums(group), 30
    decode, context, pairs = (np.zeros(steps, int) for _ in range(3))
    for _ in range(data.draw(st.integers(0, 4))):
        first, length, computed = (data.draw(st.integers(0, n)) for n in (20, 40, 25))
        base, last = computed - first, first + length
        sums.decodes(base, first, last)
        gone = data.draw(st.integers(first, last + 1))  # preempted before this step
        sums.decodes(base, gone, last, -1)
        for step in range(first, min(gone, steps)):
            decode[step] += seen(group, base + step)
    for step in sorted(data.draw(st.lists(st.integers(0, steps - 1), max_size=4))):
        computed, tokens = data.draw(st.integers(0, 25)), data.draw(st.integers(1, 25))
        sums.prefills(step, computed, tokens)
        context[step] += seen(group, computed)
        pairs[step] += sum(seen(group, computed + i) + 1 for i in range(tokens))
    found = sums.take(0, steps)
    for mine, expected in zip(found, (decode, context, pairs), strict=True):
        np.testing.assert_array_equal(mine, expected)


@given(GROUPS, st.integers(0, 9), st.integers(0, 9), st.integers(1, 29))
def test_steps_may_be_taken_in_pieces(
    group: AttentionGroup, first: int, computed: int, cut: int
) -> None:
    whole, pieces = WindowSums(group), WindowSums(group)
    for sums in (whole, pieces):
        sums.decodes(computed - first, first, first + 15)
    together = whole.take(0, 30)[0]
    apart = np.concatenate([pieces.take(0, cut)[0], pieces.take(cut, 30)[0]])
    np.testing.assert_array_equal(together, apart)


def test_works_without_sums_are_priced_at_their_mean_length() -> None:
    group = group_of("sliding", 101)
    work = StepWork(decode_requests=4.0, decode_context_tokens=1000.0)
    assert work.seen_by(group).decode_context_tokens == 400
    assert work.seen_by(AttentionGroup(1, 1, 1, 1)) is work
    exact = StepWork(decode_requests=4.0, decode_context_tokens=1000.0, window_decode_tokens=310.0)
    assert exact.seen_by(group).decode_context_tokens == 310
    chunk = StepWork(prefill_requests=1.0, prefill_tokens=50.0, prefill_context_tokens=200.0)
    assert chunk.seen_by(group).prefill_attention_pairs == pytest.approx(50 * 101)
    assert chunk.seen_by(group).prefill_context_tokens == 100
