"""The one exception type that means "the user's input is wrong", and how its message is built."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad user input: the message names where (file, line or field), what was found and expected.

    The CLI prints the message alone and exits with status 1 or 2; it never shows a traceback.
    """


def unknown_name(where: str, found: object, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not in a closed list, with the nearest valid ones.

    Nearest are names that go on from what was typed, at most three, else the one most alike.

    ``where`` is the field or file position, e.g. ``"configs/a.yaml: schedulers[1]"``.
    """
    names = sorted(known)
    typed = str(found).lower()
    near = [name for name in names if typed and name.lower().startswith(typed)][:3]
    near = near or difflib.get_close_matches(str(found), names, n=1, cutoff=0.4)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    return InputError(f"{where}: found {found!r}{hint}; expected one of: {', '.join(names)}")
