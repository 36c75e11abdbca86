"""The exception type for wrong user input, and the form of its message."""

import difflib
from collections.abc import Iterable
from typing import Self

_LONGEST = 200
"""Texts of more than twice as many characters are shortened in messages."""


class InputError(ValueError):
    """Wrong user input: its place (file, line or field), the value found, what was expected.

    ``InputError(where, found, expected)`` reads ``where: found FOUND; expected EXPECTED``. The
    message shows ``found`` as it is, so pass ``repr(value)`` for text. Use `saying` for a problem
    that is not a value, and ``InputError(message)`` for one without a place.

    Code that knows the place better than the code that raised the error uses `blamed_on`, so no
    code parses messages. The CLI prints only the message and exits with status 2. The message is
    one line: long texts are shortened, and line breaks become blanks.
    """

    def __init__(self, where: object, found: object = None, expected: str = "") -> None:
        if found is None and not expected:
            self._tell("", str(where), "")
        else:
            self._tell(str(where), f"found {found}", expected)

    @classmethod
    def saying(cls, where: object, problem: str, expected: str = "") -> Self:
        """Return an error that reads ``where: PROBLEM; expected EXPECTED``."""
        error = cls.__new__(cls)
        error._tell(str(where), problem, expected)
        return error

    def blamed_on(self, place: object, name: str = "") -> Self:
        """Return the error with ``place``, where the user wrote the wrong value.

        ``name`` is the name of that place in the code that raised the error. An error about another
        place, such as a line of a file named at ``place``, keeps that place after ``place``.
        """
        if self.where == name:
            return self.saying(place, self.problem, self.expected)
        own = f"{self.where}: " if self.where else ""
        return self.saying(place, f"{own}{self.problem}", self.expected)

    def _tell(self, where: str, problem: str, expected: str) -> None:
        where, problem, expected = _short(where), _short(problem), " ".join(expected.split())
        self.where = where
        """File, line, option or field; empty if the problem has no place."""
        self.problem = problem
        """``found ...``, or another statement of the problem."""
        self.expected = expected
        """What would have been right; empty if that is obvious."""
        place = f"{where}: " if where else ""
        super().__init__(f"{place}{problem}" + (f"; expected {expected}" if expected else ""))


def _short(text: str) -> str:
    """Return ``text`` as one line, without its middle if it is long."""
    if len(text) > 2 * _LONGEST:
        text = f"{text[:_LONGEST]} ... {text[-_LONGEST // 4 :]}"
    return " ".join(text.split()) if "\n" in text or "\r" in text else text


def unknown_name(where: object, found: object, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not in a closed list, with the nearest valid ones.

    The nearest names are those that start with the text found, at most three; otherwise the most
    similar one.

    ``where`` is the field or file position, e.g. ``"configs/a.yaml: schedulers[1]"``.
    """
    names = sorted(known)
    typed = str(found)[:_LONGEST].lower()
    near = [name for name in names if typed and name.lower().startswith(typed)][:3]
    near = near or difflib.get_close_matches(typed, names, n=1, cutoff=0.4)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    return InputError(where, f"{found!r}{hint}", f"one of: {', '.join(names)}")
