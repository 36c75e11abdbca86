"""The input of every reader: the text of a file and the options of the user."""

import gzip
import re
import reprlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bssim import input_file
from bssim.errors import InputError
from bssim.sim.workload.prefix_tree import PrefixTree
from bssim.sim.workload.readers.options import AS_WRITTEN, ReaderOptions
from bssim.sim.workload.workload import Workload, make_workload
from bssim.wording import counted

_REPR = reprlib.Repr()
_REPR.maxlist = _REPR.maxdict = 20
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 100
"""Values in messages; a field may hold 100 MB."""


@dataclass(frozen=True)
class SourceText:
    """A file's text (without a byte-order mark) and how to read it."""

    path: str
    name: str
    text: str
    options: ReaderOptions = AS_WRITTEN
    on_unsupported: str = "error"
    """``end`` leaves out batch file lines that bssim cannot price; ``error`` refuses them."""

    def first_line(self) -> str:
        """Return the first line that is not blank; InputError for an empty file."""
        found = re.search(r"\S", self.text)
        if found:
            end = self.text.find("\n", found.start())
            return self.text[found.start() : end if end >= 0 else None].strip()
        raise InputError(self.path, "an empty file", "a batch file or a trace (CSV or JSON lines)")

    def error(self, line: int, field: str, found: object, expected: str) -> InputError:
        """Return the error for one bad value."""
        shown = _REPR.repr(found)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return InputError(f"{self.path}:{line}: {field}", shown, expected)


def read_text(file: Path) -> str:
    """Return the text of a file, plain or gzip; InputError if it cannot be read."""
    with reading(file):
        return input_file.read_text(file)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn errors of reading a file into InputError."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise InputError.saying(file, f"cannot be read as gzip ({e})", "a whole file") from e
    except OSError as e:
        raise InputError.saying(file, f"cannot be read: {e.strerror}", "a readable file") from e
    except UnicodeDecodeError as e:
        raise InputError(file, f"byte {e.object[e.start]:#04x} at {e.start}", "UTF-8") from e


@dataclass(frozen=True)
class Rows:
    """What a reader found, one entry per request, before empty requests are dropped."""

    prompt_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    tree: PrefixTree | None = None
    node: npt.NDArray[np.int32] | None = None
    source: npt.NDArray[np.int64] | None = None
    source_names: tuple[str, ...] | None = None
    request_ids: list[str] | None = None
    priority: npt.NDArray[np.int64] | None = None
    arrival_s: npt.NDArray[np.float64] | None = None
    max_tokens: npt.NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()

    def workload(self, source: SourceText) -> Workload:
        """Drop requests without prompt or output tokens and build the workload."""
        keep = (self.prompt_tokens > 0) & (self.output_tokens > 0)
        dropped = int(np.count_nonzero(~keep))
        notes = list(self.notes)
        if dropped:
            notes.append(
                f"{source.name}: {dropped:,} of {len(keep):,} requests dropped: no prompt or no "
                "output"
            )
        if dropped == len(keep):
            raise InputError(
                source.path,
                f"{counted(dropped, 'request')}, none with both prompt and output tokens",
                "at least one",
            )
        rows = np.flatnonzero(keep)
        ids = self.request_ids
        return make_workload(
            source.name,
            self.prompt_tokens[rows],
            self.output_tokens[rows],
            tree=self.tree,
            node=None if self.node is None else self.node[rows],
            source=None if self.source is None else self.source[rows],
            source_names=self.source_names,
            request_ids=None if ids is None else [ids[i] for i in rows.tolist()],
            priority=None if self.priority is None else self.priority[rows],
            arrival_s=None if self.arrival_s is None else self.arrival_s[rows],
            max_tokens=None if self.max_tokens is None else self.max_tokens[rows],
            notes=notes,
        )
