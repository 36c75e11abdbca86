"""Runs as trace files for the Perfetto UI: every step, or slices of time of a long run."""

from bssim.experiments.perfetto.events import write_trace
from bssim.experiments.perfetto.measured import StepLog, replayed
from bssim.experiments.perfetto.simulated import simulated
from bssim.experiments.perfetto.trace import StepTrack, Trace

__all__ = ["StepLog", "StepTrack", "Trace", "replayed", "simulated", "write_trace"]
