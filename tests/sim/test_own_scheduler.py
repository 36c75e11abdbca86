"""The scheduler that docs/schedulers.md shows, as it is printed there."""

import re
from pathlib import Path

import numpy as np
import pytest

from bssim.sim.schedulers import Scheduler
from tests.sim.harness import run, unshared

PAGE = Path(__file__).parents[2] / "docs" / "schedulers.md"


def documented() -> Scheduler:
    """Return the example of the page."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, type] = {"__name__": "example"}
    exec(source, names)
    scheduler: Scheduler = names["TwoEnds"]()
    return scheduler


@pytest.mark.parametrize("dp", [1, 3])
def test_it_serves_every_request_once(dp: int) -> None:
    rng = np.random.default_rng(0)
    pool = unshared(rng.integers(1, 60, 200), rng.integers(1, 90, 200))
    result = run(pool, documented(), kv=400, dp=dp)
    assert sorted(result.schedule.order.tolist()) == list(range(200))
    assert result.preemptions > 0


def test_it_takes_long_outputs_until_half_of_the_cache_is_read() -> None:
    pool = unshared([10] * 8, [50, 5, 50, 5, 50, 5, 50, 5])
    order = run(pool, documented(), kv=80, max_num_seqs=3).schedule.order.tolist()
    assert order[:3] == [6, 4, 2]  # nobody decodes yet: the longest, last of equals first
    assert order[3] == 1  # three decodes read more than 40 tokens


def test_it_beats_the_order_of_the_pool_where_long_outputs_come_last() -> None:
    pool = unshared([20] * 100, [2] * 80 + [200] * 20)
    fcfs = run(pool, "fcfs", max_num_seqs=64).makespan_s
    assert run(pool, documented(), max_num_seqs=64).makespan_s < 0.95 * fcfs
