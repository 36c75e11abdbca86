"""A YAML file that a person wrote: its content, and the line of every place in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bssim.errors import InputError
from bssim.input_file import read_text


@dataclass(frozen=True)
class YamlFile:
    """A file that was read, and how to name a place in it."""

    path: Path
    root: yaml.Node | None
    data: Any

    def where(self, *loc: int | str) -> str:
        """Return ``file:line: field``, e.g. ``a.yaml:4: schedulers[1]``.

        ``loc`` are keys and list positions from the top, followed as far as the file goes; a key
        is found under its singular too.
        """
        node, line, field = self.root, None, ""
        for part in loc:
            if isinstance(part, int):
                if not isinstance(node, yaml.SequenceNode) or part >= len(node.value):
                    continue  # one value where a list may stand
                node = node.value[part]
                line, field = node.start_mark.line, f"{field}[{part}]"
            else:
                pairs = node.value if isinstance(node, yaml.MappingNode) else []
                names = (part, part.removesuffix("s"))  # plural or singular, as the file has it
                found = [(key, value) for key, value in pairs if key.value in names]
                if not found:
                    continue  # a union tag of pydantic, or a field left at its default
                key, node = found[0]
                line = key.start_mark.line
                field = f"{field}.{key.value}" if field else key.value
        return f"{self.path}:{line + 1}: {field}" if line is not None else str(self.path)

    def where_field(self, *loc: int | str) -> str:
        """Return `where`, with the last key's name also where the file leaves it out."""
        owner, place = self.where(*loc[:-1]), self.where(*loc)
        if place != owner:
            return place
        return f"{owner}.{loc[-1]}" if len(loc) > 1 else f"{owner}: {loc[-1]}"


MOST_BYTES = 8 << 20
"""Bytes of a YAML file."""
SMALL_BYTES = 1 << 18
"""Larger files are always parsed by libyaml."""
MOST_VALUES = 1_000_000
"""Values of a YAML file, with aliases replaced by what they name."""
_FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, expected: str, *, large: bool = False) -> YamlFile:
    """Return a file; ``expected`` says what it should have been.

    A ``large`` file, such as curves with 1,000 points, is parsed by libyaml if PyYAML has it: ten
    times faster, with shorter error messages.

    Raises InputError naming file and line for a file that cannot be read, is no YAML, repeats a key
    or holds itself.
    """
    try:
        text = read_text(path, MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError.saying(path, f"cannot be read: {why}", expected) from error
    try:
        if len(text) > SMALL_BYTES:
            large = True
        loader = (_FAST if large else yaml.SafeLoader)(text)
        root = loader.get_single_node()
        _reject_bombs(path, root)
        _reject_repeated_keys(path, root, ())
        return YamlFile(path, root, None if root is None else loader.construct_document(root))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise InputError.saying(f"{path}{line}", f"not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # a control character, or 2020-13-45
        if isinstance(error, InputError):
            raise
        raise InputError.saying(path, f"not valid YAML: {error}") from error
    except RecursionError as error:
        raise InputError.saying(path, "not valid YAML: nested too deeply") from error


def _reject_bombs(path: Path, root: yaml.Node | None) -> None:
    """Raise InputError if aliases repeat values so often that reading them would take for ever."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 1  # also for a node inside itself, which is refused later
            items = node.value if isinstance(node, yaml.CollectionNode) else ()
            parts = (part for item in items for part in (item if type(item) is tuple else (item,)))
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if root is not None and size(root) > MOST_VALUES:
        raise InputError.saying(
            path, f"holds {size(root):.3g} values, aliases counted as what they name", "fewer"
        )


def _reject_repeated_keys(path: Path, node: yaml.Node | None, above: Sequence[yaml.Node]) -> None:
    """YAML readers silently keep the last of two equal keys, and let a node hold itself.

    Here both are errors. ``above`` are the nodes that hold this one.
    """
    if any(node is other for other in above) and node is not None:
        line = node.start_mark.line + 1
        raise InputError(f"{path}:{line}", "an alias inside what it names", "a value")
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _reject_repeated_keys(path, item, (*above, node))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise InputError.saying(
                        f"{path}:{line}",
                        f"{key.value!r} is given twice; first on line {seen[key.value]}",
                    )
                seen[key.value] = line
            _reject_repeated_keys(path, value, (*above, node))
