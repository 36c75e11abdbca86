"""`bssim calibrate --operators --overlap`: measure this machine and write its hardware file."""

import csv
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bssim import __version__
from bssim.backends.profiling import (
    KERNELS,
    AllReducePlan,
    Clock,
    CoRunner,
    CudaCoRunner,
    Measurement,
    OverlapMeasurement,
    OverlapPlan,
    SizePlan,
    all_reduce_processes,
    backend_name,
    device_facts,
    group_sizes,
    kernel_bytes,
    measure,
    measure_all_reduce,
    measure_overlap,
    overlap_rows,
    pairs,
)
from bssim.cost_models.fitting import (
    CoRunFit,
    LinkFit,
    Profile,
    build_profile,
    fit_corun,
    operator_time,
    write_hardware,
)
from bssim.cost_models.hardware import HardwareSpec, load_hardware
from bssim.cost_models.llm import Dtype, LLMSpec, Precision, load_llm
from bssim.cost_models.step_cost import FloatArray
from bssim.errors import InputError

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
BASES = (
    ("H100 PCIe", "h100-pcie"),
    ("H100 80GB HBM3", "h100-sxm"),
    ("H200", "h200"),
    ("B200", "b200"),
    ("A100-SXM4-80GB", "a100-80gb"),
    ("A100 80GB", "a100-80gb"),
    ("A100-SXM4-40GB", "a100-40gb"),
    ("A100-PCIE-40GB", "a100-40gb"),
    ("L40S", "l40s"),
    ("MI300X", "mi300x"),
)
"""Part of the CUDA name of a device, and its shipped spec."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class MachineOptions:
    """What to measure, on what, and how often."""

    model: str
    """The model with the shapes to measure: a name from `bssim models`, a config.json, a model
    folder or a YAML spec."""
    device: str = "cpu"
    dtype: str = "bfloat16"
    base: str | None = None
    """Shipped spec that provides memory and links; None: the spec of the device."""
    repeats: int = 7
    clock: Clock = "wall"
    """The clock on a CPU; ``process`` is CPU time, for one thread on a busy machine."""
    all_reduce: int | None = None
    """The most GPUs (on a CPU: processes) in an all-reduce. 1: no all-reduce; None: all GPUs, or no
    all-reduce on a CPU."""
    seed: int = 0
    command: str = ""
    """The command line, stored with the numbers."""

    def llm(self) -> LLMSpec:
        """Return the model with weights and KV cache in ``dtype``.

        Raises InputError for a type that cannot be measured. This includes float32 on a GPU, which
        has no fused attention and so needs all scores in memory.
        """
        if self.dtype not in DTYPE_BYTES or (self.device, self.dtype) == ("cuda", "float32"):
            raise InputError(
                "calibrate: --dtype", repr(self.dtype), "bfloat16, or on a CPU float32"
            )
        dtype: Dtype = "float32" if self.dtype == "float32" else "bfloat16"
        return replace(load_llm(self.model), precision=Precision(dtype))


@dataclass(frozen=True, eq=False)
class MachineProfile:
    """What was measured: operators, overlap, or both."""

    hardware: HardwareSpec
    """The spec in the file that was written."""
    operators: Profile | None
    overlap: CoRunFit | None

    def as_dict(self) -> dict[str, Any]:
        """Return the results as JSON types, with errors on held-out sizes and co-runs."""
        found: dict[str, Any] = {"name": self.hardware.name}
        if self.operators is not None:
            found["operators"] = {
                "flops": self.operators.flops,
                "bandwidth": self.operators.bandwidth,
                "spread": self.operators.spread,
                "dirty": self.operators.is_dirty,
                "held_out_error": {k: _quantiles(e) for k, e in self.operators.errors.items()},
            }
            link = self.operators.link
            found["all_reduce"] = link and {
                "link_bandwidth": link.bandwidth,
                "link_latency_s": link.latency_s,
                "gpus": [int(gpus) for gpus in link.curve.axes["gpus"]],
                "spread": link.spread,
                "dirty": link.is_dirty,
            }
        if self.overlap is not None:
            found["overlap"] = {
                "attention": [list(point) for point in self.overlap.points.attention],
                "spread": self.overlap.spread,
                "dirty": self.overlap.is_dirty,
                "held_out_error": {k: _quantiles(e) for k, e in self.overlap.errors.items()},
            }
        return found

    def as_text(self) -> str:
        """Return the results as text for a terminal."""
        lines = []
        if self.operators is not None:
            lines.append(
                f"peaks: {self.operators.flops / 1e12:.3g} TFLOP/s, "
                f"{self.operators.bandwidth / 1e9:.4g} GB/s; "
                f"{_spread_text(self.operators.spread, self.operators.is_dirty)}"
            )
            for name, error in self.operators.errors.items():
                q = _quantiles(error)
                lines.append(
                    f"{name}: {len(error)} sizes held out, median error {q['median']:.1%}, "
                    f"worst {q['worst']:.1%}"
                )
            lines.append(self._link_text(self.operators.link))
        if self.overlap is not None:
            lines.append(
                "overlap of GEMMs and decode attention: "
                f"{_spread_text(self.overlap.spread, self.overlap.is_dirty)}"
            )
            lines += [f"  {self.overlap.error_text(name)}" for name in self.overlap.errors]
        return "\n".join(lines)

    def _link_text(self, link: LinkFit | None) -> str:
        if link is None:
            source = self.hardware.sources["link_bandwidth"]
            return f"all-reduce: not measured, only one device; links {source}"
        return (
            f"links, among {' and '.join(f'{gpus:g}' for gpus in link.curve.axes['gpus'])}: "
            f"{link.bandwidth / 1e9:.4g} GB/s, {link.latency_s * 1e6:.3g} us per hop; "
            f"{_spread_text(link.spread, link.is_dirty)}"
        )


def _quantiles(error: "np.typing.NDArray[np.float64]") -> dict[str, float]:
    """Return the bias, and the median and worst absolute error; zeros if nothing was held out."""
    if not len(error):
        return {"mean": 0.0, "median": 0.0, "worst": 0.0}
    size = np.abs(error)
    return {
        "mean": float(np.mean(error)),
        "median": float(np.median(size)),
        "worst": float(np.max(size)),
    }


def _spread_text(spread: float, dirty: bool) -> str:
    return f"repetitions differ by {spread:.1%}{', DIRTY: measure again' if dirty else ''}"


def base_of(device: str, name: str) -> str:
    """Return the shipped spec of a device; raises InputError if its name has none."""
    if device == "cpu":
        return "cpu"
    for part, base in BASES:
        if part in name:
            return base
    raise InputError(
        "calibrate: --base",
        f"no shipped spec for {name!r}",
        "--base NAME (see `bssim hardware`) for memory and links",
    )


def calibrate_machine(
    options: MachineOptions,
    out: Path,
    *,
    operators: bool = True,
    overlap: bool = False,
    sizes: SizePlan | None = None,
    messages: AllReducePlan | None = None,
    grid: OverlapPlan | None = None,
    runner: CoRunner | None = None,
    progress: Progress | None = None,
) -> MachineProfile:
    """Measure the operators of a model, or their overlap, or both, and write the hardware file.

    ``.operators.csv`` and ``.overlap.csv`` files next to ``out`` list every repetition. ``runner``
    replaces the two streams of the GPU. All input is checked before the measurements start. Raises
    InputError if torch or the device is missing, and for a model or type that cannot be measured.
    """
    llm = options.llm()
    grid = grid or OverlapPlan()
    if overlap and runner is None:
        runner = CudaCoRunner(llm, options.device)
    facts = device_facts(options.device)
    base = options.base or base_of(options.device, str(facts["device"]))
    load_hardware(base)
    processes = all_reduce_processes(options.device, options.all_reduce) if operators else 1
    if processes > 1:
        facts["all_reduce"] = f"{backend_name(options.device)}, {group_sizes(processes)} processes"
    source = (
        f"measured: {facts['device']}, torch {facts['torch']}, {options.dtype}, "
        f"shapes of {llm.name}, {datetime.now(UTC).date().isoformat()}"
    )
    rng = np.random.default_rng(options.seed)
    profile: Profile | None = None
    fit: CoRunFit | None = None
    if operators:
        # First, so that processes that cannot reach each other fail early.
        measured = measure_all_reduce(
            llm,
            device=options.device,
            processes=processes,
            plan=messages,
            repeats=options.repeats,
            rng=rng,
        )
        measured += measure(
            llm,
            device=options.device,
            plan=sizes,
            repeats=options.repeats,
            clock=options.clock,
            rng=rng,
            progress=progress,
        )
        _write_csv(out.with_suffix(".operators.csv"), operator_rows(measured))
        profile = operators_profile(llm, measured, source)
    if overlap and runner is not None:
        corun = measure_overlap(
            pairs(llm, grid),
            runner,
            ratios=grid.ratios,
            repeats=options.repeats,
            rng=rng,
            progress=progress,
        )
        _write_csv(out.with_suffix(".overlap.csv"), overlap_rows(corun))
        fit = overlap_fit(corun, source)
    hardware = write_hardware(
        out,
        base=base,
        measurement={**facts, "model": llm.name, **_circumstances(options)},
        sections=[part.as_yaml() for part in (profile, fit) if part is not None],
    )
    return MachineProfile(hardware, profile, fit)


def _circumstances(options: MachineOptions) -> dict[str, object]:
    """Return how and when something was measured."""
    return {
        "dtype": options.dtype,
        "repeats": options.repeats,
        "seed": options.seed,
        "clock": options.clock,
        "system": platform.system(),
        "bssim": __version__,
        "command": options.command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def operators_profile(llm: LLMSpec, measured: Sequence[Measurement], source: str) -> Profile:
    """Return the profile of measured operators."""
    times = [
        operator_time(
            llm, row.case.kind, row.case.sizes, row.seconds, row.spread, row.case.held_out
        )
        for row in measured
        if row.case.kind not in KERNELS
    ]
    profile = build_profile(times, source, llm.precision.activation_format)
    return replace(profile, errors={**profile.errors, **kernel_errors(llm, measured, profile)})


def kernel_errors(
    llm: LLMSpec, measured: Sequence[Measurement], profile: Profile
) -> dict[str, FloatArray]:
    """Return |predicted / measured - 1| of each kernel between the matrix products.

    The prediction is that of the elementwise curve, which is not fitted to them.
    """
    curve, found = profile.curves["elementwise"], dict[str, list[float]]()
    for row in measured:
        if row.case.kind in KERNELS:
            moved = float(kernel_bytes(row.case.kind, row.case.sizes[0], llm))
            predicted = moved / (profile.bandwidth * float(curve.at(bytes=moved)))
            found.setdefault(row.case.kind, []).append(abs(predicted / row.seconds - 1))
    return {name: np.array(values) for name, values in found.items()}


def overlap_fit(measured: Sequence[OverlapMeasurement], source: str) -> CoRunFit:
    """Return the frontier of measured co-runs."""
    return fit_corun([row.corun() for row in measured], source)


def operator_rows(measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return one CSV row per repetition; sizes are those of `Case`."""
    return [
        {
            "kind": row.case.kind,
            "sizes": "x".join(map(str, row.case.sizes)),
            "held_out": row.case.held_out,
            "repetition": i,
            "seconds": seconds,
        }
        for row in measured
        for i, seconds in enumerate(row.times)
    ]


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
