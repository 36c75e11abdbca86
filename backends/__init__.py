"""Run on real engines: replay a simulated schedule, run a batch, measure hardware.

`vllm/` runs vLLM, and `profiling/` measures a machine. To add an engine, write a folder here with a
class that has the methods of `Backend`.
"""

from bssim.backends.base import FinishedRequest, ReplayRequest, ReplayResult, Row, Session
from bssim.backends.replay import read_replay, replay
from bssim.backends.step_work import WorkMeter, summed_work

__all__ = [
    "FinishedRequest",
    "ReplayRequest",
    "ReplayResult",
    "Row",
    "Session",
    "WorkMeter",
    "read_replay",
    "replay",
    "summed_work",
]
