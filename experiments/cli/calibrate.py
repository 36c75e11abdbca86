"""``bssim calibrate``: measure how long operators take on this machine."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from bssim.errors import InputError
from bssim.experiments.cli import options
from bssim.experiments.cli.groups import grouped
from bssim.experiments.cli.terminal import request_progress, say


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What to measure, on which device and how often."""

    model: options.Model = "llama-3-8b"
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu"
    dtype: Annotated[str, typer.Option("--dtype", help="bfloat16 or float32.")] = "bfloat16"
    base: Annotated[
        str | None,
        typer.Option("--base", help="Spec for memory and links. [default: the device's own]"),
    ] = None
    repeats: Annotated[
        int, typer.Option("--repeats", min=3, help="Per size; the median counts.")
    ] = 7
    clock: Annotated[
        Literal["wall", "process"],
        typer.Option("--clock", help="process: CPU time, for one thread on a shared CPU."),
    ] = "wall"
    all_reduce: Annotated[
        int | None,
        typer.Option(
            "--all-reduce",
            metavar="N",
            min=1,
            help="GPUs (on a CPU: processes) in the all-reduce; 1: none. "
            "[default: all GPUs; none on a CPU]",
        ),
    ] = None
    seed: options.Seed = 0


@grouped
def calibrate(
    *,
    replays: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="REPLAY",
            help="Complete replays (replay.json): fitted to with --from-replay, predicted with "
            "--operators.",
        ),
    ] = None,
    operators: Annotated[
        bool, typer.Option("--operators", help="Time GEMMs, attention, copies and all-reduces.")
    ] = False,
    overlap: Annotated[
        bool,
        typer.Option("--overlap", help="Time GEMMs and decode attention together on a GPU."),
    ] = False,
    from_replay: Annotated[
        bool, typer.Option("--from-replay", help="Fit a cost model to the steps of replays.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="YAML to write. [default: calibrated.yaml, with --from-replay fitted.yaml]",
        ),
    ] = None,
    measure: MeasureOptions,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure this machine.

    Writes a file for `--hardware FILE` or for `--cost-model fitted:FILE`.

    --operators and --overlap write one hardware file, and a CSV with every repetition beside it.
    --from-replay writes a cost model of the replayed engine. All print held-out errors.

    \b
    Example:
      bssim calibrate --operators --overlap --device cuda -o my-gpu.yaml
      bssim calibrate --operators -m my-model/config.json -o my-cpu.yaml
      bssim calibrate --from-replay fcfs/replay.json dfs/replay.json
    """
    paths = replays or []
    _check(paths, measure, operators=operators, overlap=overlap, from_replay=from_replay)
    out = out or Path("fitted.yaml" if from_replay else "calibrated.yaml")
    options.require_suffix(out, "--out", ".yaml", ".yml")
    if from_replay:
        _from_replay(paths, out, json)
        return
    _measure(paths, out, measure, operators, overlap, json=json, quiet=quiet)


def _check(
    paths: list[Path],
    measure: MeasureOptions,
    *,
    operators: bool,
    overlap: bool,
    from_replay: bool,
) -> None:
    """Raise InputError for options that cannot be combined."""
    if from_replay == (operators or overlap):
        raise InputError.saying(
            "calibrate",
            "expected --operators, --overlap or both; or --from-replay FILE",
        )
    if paths and not (from_replay or operators):
        raise InputError(
            "calibrate",
            f"{str(paths[0])!r} with --overlap alone",
            "--operators (predicts the replays) or --from-replay (fits a model to them)",
        )
    if measure.all_reduce is not None and not operators:
        raise InputError(
            "--all-reduce",
            f"{measure.all_reduce} without --operators",
            "both: it is one of the operators",
        )


def _measure(
    paths: list[Path],
    out: Path,
    measure: MeasureOptions,
    operators: bool,
    overlap: bool,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Measure this machine, write ``out`` and predict the replays of ``paths``."""
    import sys

    from bssim.experiments.calibration import MachineOptions, calibrate_machine

    wanted = MachineOptions(
        **asdict(measure),
        command=" ".join(["bssim", *sys.argv[1:]]),
    )
    with request_progress(quiet, "timings") as progress:
        found = calibrate_machine(
            wanted, out, operators=operators, overlap=overlap, progress=progress
        )
    errors = []
    if paths:
        from bssim.backends import read_replay
        from bssim.experiments.calibration import predicted_errors

        errors = predicted_errors(
            wanted.llm(), found.hardware, [read_replay(path) for path in paths]
        )
    say(f"wrote {out}", quiet)
    if json:
        from json import dumps

        replayed = {"replays": [asdict(error) for error in errors]} if paths else {}
        typer.echo(dumps({"hardware": str(out), **found.as_dict(), **replayed}))
        return
    typer.echo(found.as_text())
    for error in errors:
        typer.echo(f"predicted from these operators: {error.as_text()}")


def _from_replay(paths: list[Path], out: Path, json: bool) -> None:
    from bssim.backends import read_replay
    from bssim.experiments.calibration import fit_replays

    model, held_out = fit_replays([read_replay(path) for path in paths])
    model.write(out)
    if json:
        from dataclasses import asdict
        from json import dumps

        facts = {"cost_model": str(out), "held_out": [asdict(error) for error in held_out]}
        typer.echo(dumps(facts))
        return
    for error in held_out:
        typer.echo(error.as_text())
