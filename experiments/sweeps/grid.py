"""From a sweep file to its cells: expand the grid and look up every name, but run nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from typing import Any, TypeVar

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import LLMSpec, load_llm, with_precision
from bssim.cost_models.registry import check_cost_model
from bssim.errors import InputError, unknown_name
from bssim.experiments.sweeps.cell import Cell
from bssim.experiments.sweeps.config import FileEntry, MixEntry, SweepFile
from bssim.experiments.sweeps.engine_settings import engine_with
from bssim.experiments.sweeps.workload_ref import WorkloadRef
from bssim.sim.cluster import Disaggregation
from bssim.sim.engine import EngineConfig
from bssim.sim.lengths import estimator_names
from bssim.sim.schedulers import scheduler_names, variant_names
from bssim.sim.workload import SOURCE_NAMES, WORKLOAD_NAMES, MixSpec, check_source, is_builtin
from bssim.sim.workload.readers import ReaderOptions, check_file

T = TypeVar("T")


def expand(sweep: SweepFile) -> list[Cell]:
    """Return the cells of a sweep in a fixed order; cells of one workload are adjacent.

    Raises InputError for an unknown workload, file format, scheduler, model, hardware, engine field
    or estimator and for a value that an engine field cannot have, with the place in the file and
    the nearest valid name, and for a grid that holds the same cell twice.
    """
    config = sweep.config
    _check_workloads(sweep)
    _check_names(sweep, "schedulers", config.schedulers, [*scheduler_names(), *variant_names()])
    _check_names(sweep, "output_lengths", config.output_lengths, estimator_names())
    cost_models = _load_each(sweep, "cost_models", config.cost_models, _cost_model)
    llms = _load_each(sweep, "models", config.models, load_llm)
    gpus = _load_each(sweep, "hardware", config.hardware, load_hardware)
    _check_own_names(sweep, "models", [llm.name for llm in llms])
    llms = [precise for llm in llms for precise in _precisions(sweep, llm)]
    _check_own_names(sweep, "hardware", [gpu.name for gpu in gpus])
    _check_labels(sweep)
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
            raise InputError.saying(
                sweep.path,
                (
                    f"the grid holds the same cell twice (workload {cell.workload.label!r}, "
                    f"scheduler {scheduler!r})"
                ),
                "lists without repeats",
            )
    return list(cells.values())


def _precisions(sweep: SweepFile, llm: LLMSpec) -> Iterator[LLMSpec]:
    """Yield a model in every precision of the sweep."""
    config = sweep.config
    for dtype, method, kv in product(config.dtype, config.quantization, config.kv_cache_dtype):
        try:
            yield with_precision(llm, dtype=dtype, quantization=method, kv_cache_dtype=kv)
        except InputError as error:
            raise error.blamed_on(sweep.path) from None


def _replicas(sweep: SweepFile) -> Iterator[tuple[int, str | None]]:
    """Yield the data-parallel replicas and the prefill/decode split; None: colocated."""
    for dp, (i, split) in product(sweep.config.dp, enumerate(sweep.config.disaggregation)):
        if split is not None:
            try:
                Disaggregation.parse(split)
            except InputError as error:
                raise error.blamed_on(sweep.where("disaggregation", i), "disaggregation") from error
        yield dp, split


def _check_split(
    sweep: SweepFile, split: str, scheduler: str, engine: EngineConfig, dp: int
) -> None:
    try:
        Disaggregation.checked(split, scheduler, engine, dp=dp)
    except InputError as error:
        raise error.blamed_on(sweep.where("disaggregation")) from error


def _check_names(sweep: SweepFile, field: str, found: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    for i, name in enumerate(found):
        if name not in names:
            raise unknown_name(sweep.where(field, i), name, names)


def _check_own_names(sweep: SweepFile, field: str, names: Sequence[str]) -> None:
    """Raise InputError for two specs with one name, because names identify results."""
    for i, name in enumerate(names):
        if (first := names.index(name)) < i:
            raise InputError(
                sweep.where(field, i),
                f"the name {name!r}, which {field}[{first}] has too",
                "specs with different names (`name:` in a spec's file sets it)",
            )


def _check_labels(sweep: SweepFile) -> None:
    """Raise InputError for two workloads with one label: they would be averaged like seeds.

    Sizes of one workload are settings and need no names.
    """
    first: dict[str, WorkloadRef] = {}
    for workload in _workloads(sweep):
        found = replace(workload(0), num_requests=None)
        known = first.setdefault(found.label, found)
        if found != known:
            raise InputError(
                sweep.where("workloads"),
                (
                    f"two workloads with the label {found.label!r}: {_in_words(known)}, and "
                    f"{_in_words(found)}"
                ),
                "a label each (`name:` in a workload's entry sets it)",
            )


def _in_words(ref: WorkloadRef) -> str:
    """Return a workload's source and its options, in words."""
    if ref.mix is not None:
        mix = ref.mix
        parts = f"{mix.compute_source}, {mix.memory_source} and {mix.sharing_source}"
        options = {"density": mix.density, "sharing_target": mix.sharing, "seed": ref.seed}
        return f"a mix of {parts} with {_options(options)}"
    options = {key: value for key, value in asdict(ref.reader).items() if value is not None}
    if ref.seed:
        options["seed"] = ref.seed
    return f"{ref.source} with {_options(options)}" if options else ref.source


def _options(options: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items())


def _check_workloads(sweep: SweepFile) -> None:
    """Raise InputError if a source is neither a built-in name nor a file."""
    for i, entry in enumerate(sweep.config.workloads):
        if isinstance(entry, MixEntry):
            for part in ("compute", "memory", "sharing"):
                source = sweep.resolve(getattr(entry.mix, part))
                where = sweep.where("workloads", i, "mix", part)
                check_source(source, SOURCE_NAMES, where)
                if source not in SOURCE_NAMES:
                    try:
                        check_file(source)
                    except InputError as error:
                        raise error.blamed_on(where, "format") from error
        else:
            named = FileEntry(source=entry) if isinstance(entry, str) else entry
            source = sweep.resolve(named.source)
            if not is_builtin(source):
                check_source(source, WORKLOAD_NAMES, sweep.where("workloads", i))
            _check_reader(sweep, i, named)


def _check_reader(sweep: SweepFile, i: int, entry: FileEntry) -> None:
    """Raise InputError for reader options that the source cannot have, or of another format."""
    source, options = sweep.resolve(entry.source), asdict(_reader(sweep, entry))
    at = {name: sweep.where("workloads", i, name) for name in options}
    if is_builtin(source):
        for name, value in options.items():
            if value is not None:
                raise InputError(at[name], repr(value), f"none: {source} is not a file")
        return
    try:
        check_file(source, _reader(sweep, entry))
    except InputError as error:
        option = error.where if error.where in at else "format"
        raise error.blamed_on(at[option], option) from error


def _load_each(
    sweep: SweepFile, field: str, names: Iterable[str], load: Callable[[str], T]
) -> list[T]:
    loaded = []
    for i, name in enumerate(names):
        try:
            loaded.append(load(sweep.resolve(name)))
        except InputError as error:
            raise error.blamed_on(sweep.where(field, i), field.removesuffix("s")) from error
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
            reader=_reader(sweep, entry),
        )

    return at


def _reader(sweep: SweepFile, entry: FileEntry) -> ReaderOptions:
    return ReaderOptions(
        format=entry.format,
        tokenizer=sweep.resolve(entry.tokenizer) if entry.tokenizer else None,
        default_output_tokens=entry.default_output_tokens,
        max_prompt_tokens=entry.max_prompt_tokens,
        max_output_tokens=entry.max_output_tokens,
    )


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
        for field, values in lists.items():
            if not values:
                where = sweep.where("engines", i, field)
                raise InputError(where, "an empty list", "at least one value")
        if "overlap" in lists and config.overlap != (None,):
            where = sweep.where("engines", i, "overlap")
            raise InputError(where, "beside the field `overlap`", "one of the two")
        preset = knobs.get("preset", "nanoflow")
        if not isinstance(preset, str):
            where = sweep.where("engines", i, "preset")
            raise InputError(where, repr(preset), "the name of one preset")
        if "pipeline_parallel_size" in lists and config.pp != (None,):
            where = sweep.where("engines", i, "pipeline_parallel_size")
            raise InputError(where, "beside the field `pp`", "one of the two")
        for (j, overlap), pp in product(enumerate(config.overlap), config.pp):
            for knob_values in product(*lists.values()):
                settings = dict(zip(lists, knob_values, strict=True))
                if pp is not None:
                    settings["pipeline_parallel_size"] = pp
                overlap_at = sweep.where("engines", i, "overlap")
                if overlap is not None:
                    settings["overlap"] = overlap
                    overlap_at = sweep.where("overlap", j)
                yield engine_with(
                    preset,
                    settings,
                    preset_at=sweep.where("engines", i, "preset"),
                    settings_at=partial(sweep.file.where_field, "engines", i),
                    overlap_at=overlap_at,
                )
