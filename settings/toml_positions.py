"""The position of each key and value of a TOML document, which `tomllib` does not report."""

import tomllib
from dataclasses import dataclass, field

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

Path = tuple[str | int, ...]
"""Keys and, within lists, places from 0: ("routes", 0, "providers", 1)."""

_LANGUAGE = Language(tree_sitter_toml.language())
_VALUES = frozenset(
    {
        "array",
        "boolean",
        "float",
        "inline_table",
        "integer",
        "local_date",
        "local_date_time",
        "local_time",
        "offset_date_time",
        "string",
    }
)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a text; lines and columns count from 1, columns in characters."""

    line: int
    column: int


_Point = tuple[int, int]
"""Row, and octets before it in that row, from 0."""


@dataclass(slots=True)
class Positions:
    """The positions of a document's keys and values; only those that are looked up are computed."""

    lines: list[bytes]
    keys: dict[Path, _Point] = field(default_factory=dict)
    values: dict[Path, _Point] = field(default_factory=dict)

    def of_key(self, path: Path) -> Position:
        """Where the key stands; if it is nowhere, where the nearest table around it does."""
        for length in range(len(path), 0, -1):
            found = self.keys.get(path[:length]) or self.values.get(path[:length])
            if found:
                return self._position(found)
        return Position(1, 1)

    def of_value(self, path: Path) -> Position:
        """Where the value stands; if it is nowhere, as `of_key`."""
        found = self.values.get(path)
        return self._position(found) if found else self.of_key(path)

    def _position(self, point: _Point) -> Position:
        row, octets = point
        return Position(row + 1, len(self.lines[row][:octets].decode(errors="replace")) + 1)


def positions_in(text: str) -> Positions:
    """The positions in a document that `tomllib` reads without an error."""
    return _Walk(text).positions


class _Walk:
    def __init__(self, text: str) -> None:
        source = text.encode()
        self._lengths: dict[Path, int] = {}  # of lists of tables, which grow header by header
        self.positions = Positions(source.split(b"\n"))
        for node in Parser(_LANGUAGE).parse(source).root_node.named_children:
            if node.type == "pair":
                self._pair((), node)
            elif node.type in {"table", "table_array_element"}:
                self._table(node)

    def _table(self, node: Node) -> None:
        header, *pairs = [child for child in node.named_children if child.type != "comment"]
        keys = _keys(header)
        path: Path = ()
        for place, (name, key) in enumerate(keys):
            path = (*path, name)
            self._note_key(path, key)
            if node.type == "table_array_element" and place == len(keys) - 1:
                self._lengths[path] = self._lengths.get(path, 0) + 1
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
                self._note_key(path, key)
        for pair in pairs:
            if pair.type == "pair":
                self._pair(path, pair)

    def _pair(self, base: Path, node: Node) -> None:
        key, value = (child for child in node.named_children if child.type != "comment")
        path = base
        for name, part in _keys(key):
            path = (*path, name)
            self._note_key(path, part)
        self._value(path, value)

    def _value(self, path: Path, node: Node) -> None:
        self.positions.values.setdefault(path, _point(node))
        if node.type == "inline_table":
            for pair in node.named_children:
                if pair.type == "pair":
                    self._pair(path, pair)
        elif node.type == "array":
            entries = [child for child in node.named_children if child.type in _VALUES]
            for place, entry in enumerate(entries):
                self._value((*path, place), entry)

    def _note_key(self, path: Path, node: Node) -> None:
        self.positions.keys.setdefault(path, _point(node))


def _point(node: Node) -> _Point:
    row, octets = node.start_point
    return row, octets


def _keys(node: Node) -> list[tuple[str, Node]]:
    if node.type == "dotted_key":
        return [pair for child in node.named_children for pair in _keys(child)]
    written = (node.text or b"").decode()
    if node.type == "bare_key":
        return [(written, node)]
    # A quoted key has the escapes of a string: the reader of TOML itself knows them best.
    return [(next(iter(tomllib.loads(f"{written} = 0"))), node)]
