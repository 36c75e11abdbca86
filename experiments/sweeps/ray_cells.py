"""Run the cells of a sweep on a Ray cluster: the same cells, the same rows."""

from collections.abc import Callable, Generator, Iterable

from bssim.errors import InputError
from bssim.experiments.sweeps.cell import Cell
from bssim.experiments.sweeps.row import failed_row
from bssim.experiments.sweeps.run_cell import CellOutcome


def run_on_ray(
    cells: Iterable[Cell], run: Callable[[Cell], CellOutcome], jobs: int
) -> Generator[tuple[Cell, CellOutcome]]:
    """Yield each cell with its outcome as it finishes; at most ``jobs`` at once, -1 for no limit.

    Uses the cluster of RAY_ADDRESS, or starts Ray on this machine. bssim and the trace files must
    be on every node, at the same paths. A cell whose process dies becomes a failed row. Raises
    InputError if Ray is not installed.

    This uses Ray tasks, because Ray's joblib backend returns results only when all are done and
    would lose the finished cells of a stopped sweep.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "--backend", "ray, but Ray is not installed", '`pip install "bssim[ray]"`'
        ) from error
    started_here = not ray.is_initialized()
    ray.init(ignore_reinit_error=True, log_to_driver=False)

    def run_one(cell: Cell) -> CellOutcome:  # Ray accepts functions and classes, but not a partial
        return run(cell)

    task = ray.remote(max_retries=0)(run_one)
    waiting = list(cells)[::-1]
    running: dict[object, Cell] = {}
    try:
        while waiting or running:
            while waiting and (jobs < 0 or len(running) < jobs):
                cell = waiting.pop()
                running[task.remote(cell)] = cell
            (done,), _ = ray.wait(list(running), num_returns=1)
            cell = running.pop(done)
            try:
                yield cell, ray.get(done)
            except ray.exceptions.RayError as error:
                cause = str(error).partition("\n")[0]
                yield (
                    cell,
                    CellOutcome(failed_row(cell.identity(), f"the worker process died: {cause}")),
                )
    finally:
        for done in running:
            ray.cancel(done, force=True)
        if started_here:
            ray.shutdown()
