"""The steps of a run, recorded in few entries and expanded into arrays at the end."""

from typing import Any

import numpy as np

from bssim.cost_models.step_cost import StepWork


class StepColumns:
    """Steps as recorded: one entry a run of equal steps, expanded into arrays at the end."""

    def __init__(self) -> None:
        self.repeat: list[int] = []
        self.decodes: list[int] = []
        self.context: list[int] = []
        self.chunks: list[int] = []
        self.prefill: list[int] = []
        self.prefill_context: list[int] = []
        self.pairs: list[int] = []
        self.sampled: list[int] = []
        self.held: list[int] = []
        self.running: list[int] = []

    def work(self, batch_multiple: int) -> StepWork:
        """Return the work of every step, shape (steps,), padding included."""
        repeat = np.asarray(self.repeat, dtype=np.int64)

        def column(values: list[int]) -> "np.ndarray[Any, np.dtype[np.float64]]":
            return np.repeat(np.asarray(values, dtype=np.float64), repeat)

        decodes = column(self.decodes)
        context = column(self.context)
        if len(repeat) and repeat.max() > 1:
            # within a run of steps nobody comes or goes: contexts grow by one token each
            begin = np.repeat(np.cumsum(repeat) - repeat, repeat)
            context += (np.arange(len(context)) - begin) * decodes
        prefill = column(self.prefill)
        return StepWork(
            decode_requests=decodes,
            decode_context_tokens=context,
            prefill_requests=column(self.chunks),
            prefill_tokens=prefill,
            prefill_context_tokens=column(self.prefill_context),
            prefill_attention_pairs=column(self.pairs),
            sampled_tokens=column(self.sampled),
            padding_tokens=-(decodes + prefill) % batch_multiple,
        )

    def held_blocks(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Return the KV blocks held in every step; exact within runs for one-token blocks."""
        repeat = np.asarray(self.repeat, dtype=np.int64)
        last = np.repeat(np.asarray(self.held, dtype=np.int64), repeat)
        end = np.repeat(np.cumsum(repeat), repeat)
        decodes = np.repeat(np.asarray(self.decodes, dtype=np.int64), repeat)
        return last - (end - 1 - np.arange(len(last))) * decodes

    def running_requests(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Return the requests running in every step."""
        return np.repeat(np.asarray(self.running, dtype=np.int64), self.repeat)
