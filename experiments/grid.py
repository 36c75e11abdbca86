"""From a sweep file to its cells: the grid spelled out, every name looked up, nothing run."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any, TypeVar

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm_config import load_llm
from bssim.cost_models.registry import check_cost_model
from bssim.errors import InputError, unknown_name
from bssim.experiments.cell import Cell, ReaderOptions, WorkloadRef
from bssim.experiments.config import FileEntry, MixEntry, SweepFile
from bssim.experiments.knobs import engine_with
from bssim.sim.disaggregation import Disaggregation
from bssim.sim.engine_config import EngineConfig
from bssim.sim.output_length import estimator_names
from bssim.sim.schedulers.registry import scheduler_names
from bssim.sim.simulate import check_disaggregation
from bssim.sim.workload.load import WORKLOAD_NAMES, check_source
from bssim.sim.workload.sources import SOURCE_NAMES
from bssim.sim.workload.synthesis import MixSpec

T = TypeVar("T")


def expand(sweep: SweepFile) -> list[Cell]:
    """Return the cells of a sweep in a fixed order: cells of one workload stand together.

    Raises InputError for an unknown workload, scheduler, model, hardware, engine field or
    estimator, with the place in the file and the nearest valid name, and for a grid that holds the
    same cell twice.
    """
    config = sweep.config
    _check_workloads(sweep)
    _check_names(sweep, "schedulers", config.schedulers, scheduler_names())
    _check_names(sweep, "output_lengths", config.output_lengths, estimator_names())
    cost_models = _load_each(sweep, "cost_models", config.cost_models, _cost_model)
    llms = _load_each(sweep, "models", config.models, load_llm)
    gpus = _load_each(sweep, "hardware", config.hardware, load_hardware)
    cells: dict[str, Cell] = {}
    for workload, llm, gpu, engine, cost_model, lengths, tp, (
        dp,
        split,
    ), seed, scheduler in product(
        _workloads(sweep),
        llms,
        gpus,
        list(_engines(sweep)),
        cost_models,
        config.output_lengths,
        config.tp,
        list(_replicas(sweep)),
        config.seeds,
        config.schedulers,
    ):
        if split is not None:
            _check_split(sweep, split, scheduler, engine, dp)
        cell = Cell(
            config=sweep.name,
            workload=workload(seed),
            scheduler=scheduler,
            llm=llm,
            hardware=gpu,
            engine=engine,
            cost_model=cost_model,
            output_lengths=lengths,
            seed=seed,
            tp=tp,
            dp=dp,
            disaggregation=split,
            on_oversize=config.on_oversize,
        )
        if cells.setdefault(cell.config_hash, cell) is not cell:
            raise InputError(
                f"{sweep.path}: the grid holds the same cell twice (workload "
                f"{cell.workload.label!r}, scheduler {scheduler!r}); expected lists without repeats"
            )
    return list(cells.values())


def _replicas(sweep: SweepFile) -> Iterator[tuple[int, str | None]]:
    """Yield data-parallel replicas and the split into prefill and decode; None: colocated."""
    for dp, (i, split) in product(sweep.config.dp, enumerate(sweep.config.disaggregation)):
        if split is not None:
            try:
                Disaggregation.parse(split)
            except InputError as error:
                what = str(error).removeprefix("disaggregation: ")
                raise InputError(f"{sweep.where('disaggregation', i)}: {what}") from error
        yield dp, split


def _check_split(
    sweep: SweepFile, split: str, scheduler: str, engine: EngineConfig, dp: int
) -> None:
    try:
        check_disaggregation(Disaggregation.parse(split), scheduler, engine, dp=dp)
    except InputError as error:
        raise InputError(f"{sweep.where('disaggregation')}: {error}") from error


def _check_names(sweep: SweepFile, field: str, found: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    for i, name in enumerate(found):
        if name not in names:
            raise unknown_name(sweep.where(field, i), name, names)


def _check_workloads(sweep: SweepFile) -> None:
    """Raise InputError for a source that is neither a built-in name nor a file."""
    for i, entry in enumerate(sweep.config.workloads):
        if isinstance(entry, MixEntry):
            for part in ("compute", "memory", "sharing"):
                source = sweep.resolve(getattr(entry.mix, part))
                check_source(source, SOURCE_NAMES, sweep.where("workloads", i, "mix", part))
        else:
            source = entry if isinstance(entry, str) else entry.source
            check_source(sweep.resolve(source), WORKLOAD_NAMES, sweep.where("workloads", i))


def _load_each(
    sweep: SweepFile, field: str, names: Iterable[str], load: Callable[[str], T]
) -> list[T]:
    loaded = []
    for i, name in enumerate(names):
        try:
            loaded.append(load(sweep.resolve(name)))
        except InputError as error:
            what = str(error).removeprefix(f"{field.removesuffix('s')}: ")  # `where` names it
            raise InputError(f"{sweep.where(field, i)}: {what}") from error
    return loaded


def _cost_model(name: str) -> str:
    check_cost_model(name)
    return name


def _workloads(sweep: SweepFile) -> Iterator[Callable[[int], WorkloadRef]]:
    """Yield each workload of the grid as a function of the cell's seed."""
    config = sweep.config
    for entry in config.workloads:
        if isinstance(entry, str):
            entry = FileEntry(source=entry)
        counts = config.num_requests if entry.num_requests is None else (entry.num_requests,)
        for count in counts:
            if isinstance(entry, FileEntry):
                yield _file_ref(sweep, entry, count)
            else:
                parts = entry.mix
                for density, sharing in product(parts.density, parts.sharing_target):
                    yield _mix_ref(sweep, entry, count, density, sharing)


def _file_ref(
    sweep: SweepFile, entry: FileEntry, count: int | None
) -> Callable[[int], WorkloadRef]:
    def at(seed: int) -> WorkloadRef:
        return WorkloadRef(
            source=sweep.resolve(entry.source),
            num_requests=count,
            seed=seed if entry.seed is None else entry.seed,
            name=entry.name,
            reader=ReaderOptions(
                format=entry.format,
                tokenizer=sweep.resolve(entry.tokenizer) if entry.tokenizer else None,
                output_tokens=entry.output_tokens,
                max_prompt_tokens=entry.max_prompt_tokens,
                max_output_tokens=entry.max_output_tokens,
            ),
        )

    return at


def _mix_ref(
    sweep: SweepFile, entry: MixEntry, count: int | None, density: float, sharing: float
) -> Callable[[int], WorkloadRef]:
    parts = entry.mix
    several = len(parts.density) * len(parts.sharing_target) > 1
    target = f"d{density:g}-s{sharing:g}"

    def at(seed: int) -> WorkloadRef:
        return WorkloadRef(
            source=target,
            num_requests=count,
            seed=seed if entry.seed is None else entry.seed,
            name=f"{entry.name}-{target}" if entry.name and several else entry.name or target,
            mix=MixSpec(
                density=density,
                sharing=sharing,
                compute_source=sweep.resolve(parts.compute),
                memory_source=sweep.resolve(parts.memory),
                sharing_source=sweep.resolve(parts.sharing),
            ),
        )

    return at


def _engines(sweep: SweepFile) -> Iterator[EngineConfig]:
    config = sweep.config
    for i, entry in enumerate(config.engines):
        knobs: Mapping[str, Any] = {"preset": entry} if isinstance(entry, str) else entry
        lists = {k: v if isinstance(v, list) else [v] for k, v in knobs.items() if k != "preset"}
        if "overlap" in lists and config.overlap != (None,):
            where = sweep.where("engines", i, "overlap")
            raise InputError(f"{where}: found beside the field `overlap`; expected one of the two")
        preset = knobs.get("preset", "nanoflow")
        if not isinstance(preset, str):
            where = sweep.where("engines", i, "preset")
            raise InputError(f"{where}: found {preset!r}; expected the name of one preset")
        for j, overlap in enumerate(config.overlap):
            for values in product(*lists.values()):
                settings = dict(zip(lists, values, strict=True))
                overlap_at = sweep.where("engines", i, "overlap")
                if overlap is not None:
                    settings["overlap"] = overlap
                    overlap_at = sweep.where("overlap", j)
                yield engine_with(
                    preset,
                    settings,
                    preset_at=sweep.where("engines", i, "preset"),
                    settings_at=sweep.where("engines", i),
                    overlap_at=overlap_at,
                )
