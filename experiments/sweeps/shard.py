"""Split a sweep over independent tasks, such as those of a SLURM job array."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bssim.errors import InputError
from bssim.experiments.sweeps.cell import Cell


@dataclass(frozen=True)
class Shard:
    """One of ``count`` equal parts of a sweep."""

    index: int
    """From 0."""
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``I/N``, such as ``0/8``. Raises InputError."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if found is None or int(found[1]) >= int(found[2]):
            raise InputError("--shard", repr(text), "I/N with I from 0 to N-1, such as 0/8")
        return cls(int(found[1]), int(found[2]))

    def of(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells of this part, in the order of the grid.

        Cells are dealt in the order of their hashes. Every part therefore has its share of slow
        schedulers and large workloads, whatever the order of the lists in the sweep file.
        """
        keys = sorted(cell.config_hash for cell in cells)
        own = set(keys[self.index :: self.count])
        return [cell for cell in cells if cell.config_hash in own]
