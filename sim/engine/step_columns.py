"""The steps of a run, recorded in a few entries and expanded to arrays at the end."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from bssim.cost_models.step_cost import StepWork
from bssim.sim.engine.step import Step

WindowColumns = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]
WINDOW_FIELDS = ("window_decode_tokens", "window_prefill_context_tokens", "window_attention_pairs")
"""The fields of `StepWork` that the columns of a piece belong to, in order."""


_FIELDS = (
    "decodes",
    "context",
    "held",
    "running",
    "chunks",
    "prefill",
    "prefill_context",
    "twice_pairs",
    "sampled",
    "repeat",
)


class StepColumns:
    """Entries in order, and their expansion to arrays of shape (steps,).

    An entry stands for steps in which no request joins or ends, often a single one.
    """

    def __init__(self) -> None:
        self._flat: list[int] = []
        """The `_FIELDS` of all entries, one after another."""
        self.windows: list[WindowColumns] = []
        """What layers with a window see of the steps, piece by piece; empty without such layers."""

    def record(
        self,
        decodes: int,
        context: int,
        held: int,
        running: int,
        chunks: int = 0,
        prefill: int = 0,
        prefill_context: int = 0,
        twice_pairs: int = 0,
        sampled: int = 0,
        repeat: int = 1,
    ) -> None:
        """Append an entry of ``repeat`` steps. Counts are per step.

        ``context``: KV tokens that the decodes read in the first of the steps. ``held``: KV blocks
        held in the last of the steps. ``twice_pairs``: twice the attention pairs of the prefills.
        """
        self._flat += (
            decodes,
            context,
            held,
            running,
            chunks,
            prefill,
            prefill_context,
            twice_pairs,
            sampled,
            repeat,
        )

    def extend(self, later: "StepColumns") -> None:
        """Append the steps of another record."""
        self._flat += later._flat
        self.windows.extend(later.windows)

    @property
    def steps(self) -> int:
        """Number of steps."""
        return sum(self._flat[len(_FIELDS) - 1 :: len(_FIELDS)])

    def _columns(self, *names: str) -> list[npt.NDArray[np.int64]]:
        """Return the lengths of the entries, shape (entries,), then columns of shape (steps,)."""
        table = np.array(self._flat, dtype=np.int64).reshape(-1, len(_FIELDS))
        columns = dict(zip(_FIELDS, table.T, strict=True))
        repeat = columns["repeat"]
        return [repeat, *(np.repeat(columns[name], repeat) for name in names)]

    def work(self, batch_multiple: int) -> StepWork:
        """Return the work of every step, shape (steps,), padding included."""
        repeat, decodes, first, prefill, chunks, prefill_context, twice_pairs, sampled = (
            self._columns(
                "decodes",
                "context",
                "prefill",
                "chunks",
                "prefill_context",
                "twice_pairs",
                "sampled",
            )
        )
        # within an entry, contexts grow by one token per step
        begin = np.repeat(np.cumsum(repeat) - repeat, repeat)
        context = first + (np.arange(len(begin)) - begin) * decodes

        def floats(values: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            return values.astype(np.float64)

        windows = {}
        if self.windows:
            columns = (np.concatenate(pieces) for pieces in zip(*self.windows, strict=True))
            windows = dict(zip(WINDOW_FIELDS, map(floats, columns), strict=True))
        return StepWork(
            **windows,
            decode_requests=floats(decodes),
            decode_context_tokens=floats(context),
            prefill_requests=floats(chunks),
            prefill_tokens=floats(prefill),
            prefill_context_tokens=floats(prefill_context),
            prefill_attention_pairs=floats(twice_pairs // 2),
            sampled_tokens=floats(sampled),
            padding_tokens=floats(-(decodes + prefill) % batch_multiple),
        )

    def held_blocks(self, block_size: int) -> npt.NDArray[np.int64]:
        """Return the KV blocks held in every step; exact within entries for one-token blocks.

        For larger blocks, it is as if the decodes filled their blocks evenly spread over time.
        """
        repeat, held, decodes = self._columns("held", "decodes")
        end = np.repeat(np.cumsum(repeat), repeat)
        later = end - 1 - np.arange(len(end))
        return np.asarray(held - later * decodes // block_size)

    def running_requests(self) -> npt.NDArray[np.int64]:
        """Return the requests running in every step."""
        return self._columns("running")[1]


StepRow = dict[str, Any]
"""One line of ``--steps``: see docs/cli.md."""


def step_row(
    step: Step,
    name: Callable[[int], str],
    running: Iterable[int],
    computed: Callable[[int], int],
    idle: set[int],
    free_blocks: int,
) -> StepRow:
    """Return a step as ``--steps`` writes it, its finished requests still missing.

    ``computed``: the tokens that an admitted request has after the step. ``idle``: running requests
    that get no token unless they have a chunk; the others get one.
    """
    tokens = step.chunks | {r: computed(r) - hit for r, hit in step.admitted.items()}
    return {
        "step": step.number,
        "scheduled": {name(r): tokens.get(r, 1) for r in running if r in tokens or r not in idle},
        "cached": {name(r): hit for r, hit in step.admitted.items()},
        "preempted": [name(r) for r in step.preempted],
        "free_blocks": free_blocks,
    }
