"""Damage to the bytes of a file: as transfers, editors and other programs leave it."""

import copy
import json
import random
from typing import Any

NUMBERS = "NaN Infinity -Infinity -1 0 1e999 1e308 9223372036854775808 0.5 true null {} [] '' .inf"
PIECES = [
    *(number.encode() for number in NUMBERS.split()),
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\n", b'"', b",", b"[" * 50, b"{" * 50),
    *(b"1" * 5000, b"x" * 3000, b"\xe2\x80\xa8", b"&a", b"*a", b": ", b"- ", b"\t", b"\\ud800"),
]
VALUES: list[Any] = [
    *(float("nan"), float("inf"), -1, 0, 1, 0.5, -2.5, 1e308, 1e-320, 2**53, 2**63, 10**400),
    *(True, False, None, "", "x", "nan", "x" * 3000, "\ud800", "a\nb", "../../x", "1e9"),
    *([], {}, [1], [[]], {"x": 1}, {"": None}, [None], ["x", 2]),
]
"""What one field of a JSON file may become."""
SHARE_OF_FIELDS = 0.5
"""Share of the JSON files in which a field changes; the others lose their form."""


def damaged(name: str, data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return the bytes of a file called ``name`` with one to three kinds of damage.

    ``others``: files whose start may get in between.
    """
    if name.endswith((".json", ".jsonl")) and rng.random() < SHARE_OF_FIELDS:
        return _fields_changed(data, rng)
    for _ in range(rng.randint(1, 3)):
        at, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        data = rng.choice(
            (
                data[:at],  # truncated
                data[:at] + data[end:],  # a part lost
                data + data[at:],  # a part twice
                data[:at] + rng.choice(PIECES) + data[at:],
                data[:at] + rng.choice(PIECES) + data[end:],
                data[:at] + rng.choice(others)[:40] + data[at:],  # interleaved
                data.replace(b"\n", b"\r\n"),
                data.decode("latin-1").encode(rng.choice(("utf-16", "utf-8-sig", "latin-1"))),
            )
        )
    for digits in (b"20", b"600", b"64", b"30"):  # a number in a field
        if rng.random() < 0.1:
            data = data.replace(digits, rng.choice(PIECES), 1)
    return data


def _fields_changed(data: bytes, rng: random.Random) -> bytes:
    """Return JSON, or JSON lines, in which one to three fields have another value or are lost."""
    try:
        rows = [json.loads(data)]
    except ValueError:
        rows = [json.loads(line) for line in data.splitlines()]
    for _ in range(rng.randint(1, 3)):
        _change(rng.choice(rows), rng)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _change(node: Any, rng: random.Random) -> None:
    """Change or drop one value somewhere below ``node``."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.8:
            node = node[key]
            continue
        if rng.random() < 0.15:
            del node[key]
        else:
            node[key] = copy.deepcopy(rng.choice(VALUES))
        return
