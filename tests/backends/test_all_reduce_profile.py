"""Measuring all-reduces: real processes on this CPU, with gloo."""

import os

import numpy as np
import pytest

from bssim.backends.profiling import (
    AllReducePlan,
    all_reduce_processes,
    group_sizes,
    measure_all_reduce,
)
from bssim.errors import InputError
from tests.backends.test_torch_profile import TINY


@pytest.mark.parametrize(
    ("processes", "sizes"), [(1, []), (2, [2]), (3, [2, 3]), (4, [2, 4]), (8, [2, 4, 8])]
)
def test_groups_are_powers_of_two_and_everybody(processes: int, sizes: list[int]) -> None:
    assert group_sizes(processes) == sizes


@pytest.mark.torch
def test_processes_really_reduce() -> None:
    plan = AllReducePlan(tokens=(1, 1 << 14), held_out_tokens=(64,))
    found = measure_all_reduce(
        TINY, device="cpu", processes=3, plan=plan, repeats=3, rng=np.random.default_rng(0)
    )
    token = TINY.hidden_size * 4
    sizes = [token, token << 14, 64 * token]
    assert [m.case.sizes for m in found] == [(group, size) for group in (2, 3) for size in sizes]
    assert [m.case.held_out for m in found] == [False, False, True] * 2
    assert all(len(m.times) == 3 and min(m.times) > 0 for m in found)
    seconds = {m.case.sizes: min(m.times) for m in found}
    assert seconds[2, sizes[1]] > seconds[2, sizes[0]]  # 4 MB against 256 bytes
    assert measure_all_reduce(TINY, device="cpu", processes=1, rng=np.random.default_rng(0)) == []


@pytest.mark.torch
def test_a_process_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no-such-link")
    with pytest.raises(InputError, match=r"all-reduce of 2 processes failed: .*; expected them"):
        measure_all_reduce(TINY, device="cpu", processes=2, rng=np.random.default_rng(0))


@pytest.mark.torch
def test_how_many_processes() -> None:
    cores = os.cpu_count() or 1
    assert all_reduce_processes("cpu", None) == 1
    assert all_reduce_processes("cpu", cores) == cores
    with pytest.raises(InputError, match=f"--all-reduce: found {cores + 1}; expected at most"):
        all_reduce_processes("cpu", cores + 1)
