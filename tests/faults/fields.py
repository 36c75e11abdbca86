"""Every field of every input file with every wrong value, one at a time.

``python -m tests.faults.fields`` prints counts.
"""

import argparse
import copy
import csv
import io
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.faults.damage import VALUES
from tests.faults.readers import IN_MEMORY, Readers, Tally, limit_memory

LOST = object()
"""Instead of a value: the field is not there."""
SLOWER = 100
"""A read of a results folder takes as long as so many others."""
MOST_ITEMS = 2
"""Items of a list that change; the others are like them."""


def each_changed(name: str, data: bytes, every: int = 1) -> Iterator[bytes]:
    """Yield a file with each of its fields lost, and changed to each of `VALUES`.

    Of all these, yield one in ``every``, not always the first one.
    """
    rows = _parsed(name, data)
    at = len(data)
    for path in _paths(rows):
        for value in (*VALUES, LOST):
            at += 1
            if at % every:
                continue
            changed = copy.deepcopy(rows)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            if value is LOST:
                del holder[path[-1]]
            else:
                holder[path[-1]] = value
            yield _text(name, changed)


def _parsed(name: str, data: bytes) -> Any:
    if name.endswith(".csv"):
        return list(csv.reader(io.StringIO(data.decode())))
    if name.endswith(".yaml"):
        return yaml.safe_load(data)
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in data.splitlines()]
    return json.loads(data)


def _text(name: str, rows: Any) -> bytes:
    """Return the file; a row or a value that its format cannot hold is written as JSON."""
    if name.endswith(".csv"):
        text = io.StringIO()
        csv.writer(text).writerows(row if isinstance(row, list) else [row] for row in rows)
        return text.getvalue().encode("utf-8", "surrogatepass")
    if name.endswith(".yaml"):
        return yaml.dump(rows, allow_unicode=False, sort_keys=False).encode()
    if name.endswith(".jsonl"):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    return json.dumps(rows).encode()


def _paths(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = list(node) if isinstance(node, dict) else []
    if isinstance(node, list):
        keys = list(range(min(len(node), MOST_ITEMS)))
    for key in keys:
        if not str(key).startswith("_"):  # notes in the configs of the tests
            yield (*above, key)
            yield from _paths(node[key], (*above, key))


def run(every: int, only: str = "", limited: bool = False) -> tuple[Counter[str], list[str]]:
    """Read one in ``every`` of the changed files; return counts and examples of wrong ends.

    ``only``: the start of the names of the files. ``limited``: see `limit_memory`.
    """
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        readers = Readers(Path(folder))
        tally = Tally(readers)
        if limited:
            limit_memory()
        for name, data in readers.sound.items():
            if not name.startswith(only) or name.endswith((".parquet", "tokenizer.json")):
                continue
            step = every * SLOWER if name.startswith("demo/") else every
            for changed in each_changed(name, data, step):
                tally.read(name, changed)
    return tally.counts, tally.wrong


def main() -> None:
    """Read every changed file, print counts, and fail if a case went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="of the changed files, one in so many")
    parser.add_argument("--only", default="", help="the start of the names of the files")
    options = parser.parse_args()
    counts, wrong = run(options.every, options.only, limited=True)
    print(f"{counts['read'] + counts['refused']:,} files with one changed field: {dict(counts)}")
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
