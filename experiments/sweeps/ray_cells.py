"""Run the cells of a sweep on a Ray cluster: the same cells, the same rows.

Each workload enters Ray's object store once. Nodes need bssim, but neither the trace files nor a
shared folder. A worker process fetches a workload once and keeps it for its next cells.
"""

import time
from collections import Counter
from collections.abc import Generator, Iterable
from functools import lru_cache
from typing import Any

from bssim import __version__
from bssim.cost_models.fitted import FittedCostModel
from bssim.cost_models.registry import fitted_file
from bssim.experiments.ray_cluster import connected
from bssim.experiments.sweeps.cell import Cell
from bssim.experiments.sweeps.row import failed_row
from bssim.experiments.sweeps.run_cell import CellOutcome, Loaded, Run
from bssim.experiments.sweeps.workload_ref import WorkloadRef, build_workload
from bssim.sim.workload import Workload

ATTEMPTS = 3
"""A cell fails when its worker process or node has died this many times."""
QUEUED = 16
"""Cells submitted beyond one per CPU, so that no worker waits for this process."""
COUNT_CPUS_S = 5.0
"""Seconds between two looks at the size of the cluster."""


def run_on_ray(cells: Iterable[Cell], run: Run, jobs: int) -> Generator[tuple[Cell, CellOutcome]]:
    """Yield each cell with its outcome as it finishes; at most ``jobs`` at once, -1 for no limit.

    Uses the cluster of RAY_ADDRESS, or starts Ray on this machine. A cell whose process or node
    dies runs again, and becomes a failed row after `ATTEMPTS`. Raises InputError if Ray is not
    installed.

    Ray itself does not retry (``max_retries=0``), because it restarts a task that runs out of
    memory without limit. Ray's joblib backend would return results only when all cells are done.
    """
    with connected("--backend", "ray") as ray:
        yield from _run(ray, cells, run, jobs)


def _run(
    ray: Any, cells: Iterable[Cell], run: Run, jobs: int
) -> Generator[tuple[Cell, CellOutcome]]:
    waiting = list(cells)[::-1]
    store = _Store(ray, waiting)
    task = ray.remote(max_retries=0)(_run_one)
    limit = _Limit(ray, jobs)
    running: dict[Any, Cell] = {}
    deaths: Counter[str] = Counter()
    try:
        while waiting or running:
            while waiting and len(running) < limit():
                cell = waiting.pop()
                try:
                    ready, boxed = store.loaded(cell)
                except Exception:  # run it here: it fails in the words of a local run
                    yield cell, run(cell)
                    continue
                # config_hash is computed before pickling, because it reads the trace files.
                assert cell.config_hash
                running[task.remote(run, cell, ready, boxed, __version__)] = cell
            if not running:
                continue
            (done,), _ = ray.wait(list(running), num_returns=1)
            cell = running.pop(done)
            try:
                outcome = ray.get(done)
            except ray.exceptions.RayError as error:
                cause = str(error).partition("\n")[0]
                deaths[cell.config_hash] += 1
                lost = not isinstance(error, ray.exceptions.RayTaskError)
                if lost and deaths[cell.config_hash] < ATTEMPTS:
                    waiting.append(cell)
                    continue
                what = "the worker process died: " if lost else ""
                outcome = CellOutcome(failed_row(cell.identity(), f"{what}{cause}"))
            store.finished(cell)
            yield cell, outcome
    finally:
        for done in running:
            ray.cancel(done, force=True)


class _Store:
    """The workloads in Ray's object store, each from its first cell to its last."""

    def __init__(self, ray: Any, cells: Iterable[Cell]) -> None:
        self._ray = ray
        self._left = Counter(cell.workload for cell in cells)
        self._objects: dict[WorkloadRef, tuple[Any, Any]] = {}
        # A lost result of this task is made again, unlike that of `put`.
        self._load = ray.remote(num_returns=2)(_load)

    def loaded(self, cell: Cell) -> tuple[Any, list[Any]]:
        """Return an object that is ready with the workload, and the workload and fitted costs.

        Raises InputError for a file that is wrong.
        """
        ref = cell.workload
        if ref not in self._objects:
            if ref.file_digests():
                self._objects[ref] = (True, self._ray.put(build_workload(ref)))
            else:  # drawn on a worker, which needs no file for it
                self._objects[ref] = tuple(self._load.remote(ref))
        ready, workload = self._objects[ref]
        fitted = fitted_file(cell.cost_model)
        # Inside a list, because Ray would unpickle a plain argument for every cell.
        return ready, [workload, None if fitted is None else FittedCostModel.read(fitted)]

    def finished(self, cell: Cell) -> None:
        """Drop a workload after its last cell."""
        self._left[cell.workload] -= 1
        if not self._left[cell.workload]:
            del self._objects[cell.workload]


class _Limit:
    """How many cells may be submitted now: a cluster may grow and shrink during a sweep."""

    def __init__(self, ray: Any, jobs: int) -> None:
        self._ray, self._jobs = ray, jobs
        self._cpus, self._due = 0, 0.0

    def __call__(self) -> int:
        if self._jobs > 0:
            return self._jobs
        if time.monotonic() >= self._due:
            self._cpus = int(self._ray.cluster_resources().get("CPU", 1))
            self._due = time.monotonic() + COUNT_CPUS_S
        return self._cpus + QUEUED


def _load(ref: WorkloadRef) -> tuple[bool, Workload | None]:
    """Build a workload; None if that is impossible, and each cell finds the reason itself."""
    try:
        return True, build_workload(ref)
    except Exception:
        return False, None


def _run_one(run: Run, cell: Cell, ready: bool, boxed: list[Any], version: str) -> CellOutcome:
    """Run a cell on a worker; a node with another bssim is refused."""
    if version != __version__:
        message = f"this node has bssim {__version__}; expected {version}, as the driver has"
        return CellOutcome(failed_row(cell.identity(), message))
    if not ready:
        return run(cell)
    return run(cell, Loaded(_fetched(boxed[0]), boxed[1]))


@lru_cache(maxsize=4)
def _fetched(workload: Any) -> Workload:
    """Fetch a workload once per process. Its arrays stay in the node's shared memory."""
    import ray

    found: Workload = ray.get(workload)
    return found
