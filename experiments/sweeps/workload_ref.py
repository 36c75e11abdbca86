"""A reference to a cell's workload, small enough to send to the worker that builds it."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from bssim.sim.workload import MixSpec, Workload, load_mix, load_workload
from bssim.sim.workload.readers import ReaderOptions


@dataclass(frozen=True)
class WorkloadRef:
    """A workload by name, file or mix, with everything that decides its requests."""

    source: str
    """Built-in name or file; the label of a mix."""
    num_requests: int | None
    seed: int
    name: str | None = None
    """The `workload` column; None: the loaded workload's own name."""
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    mix: MixSpec | None = None

    @property
    def label(self) -> str:
        """The name to show: the workload's own, or the file's stem, as the reader sets it."""
        return self.name or (self.source if self.mix else Path(self.source).name.partition(".")[0])

    def file_digests(self) -> dict[str, str]:
        """Return the SHA-256 of every file of the workload, by path."""
        names = [self.source]
        if self.mix is not None:
            names = [self.mix.compute_source, self.mix.memory_source, self.mix.sharing_source]
        return {name: file_digest(name) for name in names if Path(name).is_file()}


@lru_cache(maxsize=256)
def file_digest(path: str) -> str:
    """Return the SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4)
def build_workload(ref: WorkloadRef) -> Workload:
    """Build a workload once per process; all cells of a workload share it."""
    if ref.mix is not None:
        return load_mix(ref.mix, num_requests=ref.num_requests, seed=ref.seed, name=ref.label)
    workload = load_workload(ref.source, ref.reader, num_requests=ref.num_requests, seed=ref.seed)
    return replace(workload, name=ref.name) if ref.name else workload
