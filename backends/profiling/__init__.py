"""Micro-benchmarks that `bssim calibrate` runs: operators, co-runs of two operators, all-reduces.

`vllm_host.py`, which measures the time that vLLM spends on the CPU, is a command of its own:
`python -m bssim.backends.profiling.vllm_host`.
"""

from bssim.backends.profiling.all_reduce import (
    AllReducePlan,
    all_reduce_processes,
    backend_name,
    group_sizes,
    measure_all_reduce,
)
from bssim.backends.profiling.corun import (
    CoRunner,
    CudaCoRunner,
    OverlapMeasurement,
    OverlapPlan,
    Pair,
    measure_overlap,
    overlap_rows,
    pairs,
)
from bssim.backends.profiling.machine import cpu_name, nvidia_driver
from bssim.backends.profiling.operators import (
    Case,
    Clock,
    Measurement,
    SizePlan,
    cases,
    device_facts,
    measure,
)
from bssim.backends.profiling.token_kernels import KERNELS, kernel_bytes

__all__ = [
    "KERNELS",
    "AllReducePlan",
    "Case",
    "Clock",
    "CoRunner",
    "CudaCoRunner",
    "Measurement",
    "OverlapMeasurement",
    "OverlapPlan",
    "Pair",
    "SizePlan",
    "all_reduce_processes",
    "backend_name",
    "cases",
    "cpu_name",
    "device_facts",
    "group_sizes",
    "kernel_bytes",
    "measure",
    "measure_all_reduce",
    "measure_overlap",
    "nvidia_driver",
    "overlap_rows",
    "pairs",
]
