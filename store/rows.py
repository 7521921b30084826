"""Typed rows: a statement and the type of the rows that it returns.

    @dataclass(frozen=True, slots=True)
    class DueReceipt:
        id: int
        provider: str
        state: ReceiptState

    _DUE = Query.of(DueReceipt, "SELECT id, provider, state FROM receipts WHERE match_at <= :at")

    due = await _DUE.rows(connection, {"at": at})  # a sequence of DueReceipt

The names of the columns are those of the dataclass's fields, in the same order: an expression gets
its name with AS. A result with other columns raises `ColumnsDiffer`, also when it has no rows, so that
any test which runs the statement finds the mistake. That is why `SELECT *` does not fit: a column that
a migration adds would break it.

A value becomes what the type of its field says, where that is an enum, a `tuple[…, …]` or a
`frozenset[…]`, of which each may be optional. For any other type the field names a function
(`read_with`). All other values stay as the driver makes them.

A row costs one call with positional arguments, and takes no longer than a row that is a mapping
would. Mappings of columns do not leave the store. Of rows that come by the thousand
`domain.values.value` makes a cheaper class than `@dataclass(frozen=True)`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import UnionType
from typing import Any, Final, Generic, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from psycopg import AsyncCursor
from psycopg.pq import ExecStatus
from psycopg.rows import AsyncRowFactory, RowMaker, no_result

from store.database import Connection, Parameters, PendingResult, Planner, Statement, sql

_T = TypeVar("_T")
_Read = Callable[[Any], Any]

_READ: Final = "read"


class ColumnsDiffer(TypeError):
    """The columns of a result are not those that the type of its rows has."""

    def __init__(self, row: type, expected: Sequence[bytes], found: Sequence[bytes]) -> None:
        names = [b", ".join(columns).decode() for columns in (expected, found)]
        super().__init__(f"{row.__name__} has the columns {names[0]}; the result has {names[1]}")


@dataclass(frozen=True, slots=True)
class Query(Generic[_T]):
    """A statement that returns rows of one type."""

    statement: Statement
    row_factory: AsyncRowFactory[_T]

    @classmethod
    def of(cls, row: type[_T], statement: str) -> Self:
        """A query with `:named` parameters.

        Args:
            row: a dataclass with a field for each column; or, for a statement with one column, the
                type of its values, such as `str`.
            statement: SQL.

        Raises:
            TypeError: the dataclass cannot be made from positional arguments.
        """
        return cls(sql(statement), row_factory(row))

    def rows(
        self,
        connection: Connection,
        parameters: Parameters | None = None,
        *,
        planner: Planner | None = None,
    ) -> PendingResult[Sequence[_T]]:
        """Send the statement; all rows that it returns. `planner` as for `Connection.fetch`."""
        return connection.fetch(self.statement, parameters, self.row_factory, planner=planner)

    def row(
        self, connection: Connection, parameters: Parameters | None = None
    ) -> PendingResult[_T | None]:
        """Send the statement; the first row that it returns, or None."""
        return self.rows(connection, parameters).then(_first)


def read_with(read: _Read) -> Mapping[str, _Read]:
    """Metadata of a field whose value is made by `read` from what the driver returns, None included.

    last_bind_error: BindError | None = field(metadata=read_with(_bind_error))
    """
    return {_READ: read}


def row_factory(row: type[_T]) -> AsyncRowFactory[_T]:
    """A row factory for psycopg; `row` as for `Query.of`."""
    if not dataclasses.is_dataclass(row):
        return _column_factory(row)
    fields = [field for field in dataclasses.fields(row) if field.init]
    if any(field.kw_only for field in fields):
        message = f"{row.__name__} has fields that are keyword-only"
        raise TypeError(message)
    types = get_type_hints(row)
    names = tuple(field.name.encode() for field in fields)
    reads = [
        (place, read)
        for place, field in enumerate(fields)
        if (read := field.metadata.get(_READ) or _reader(types[field.name])) is not None
    ]

    def make(values: Sequence[Any]) -> _T:
        return row(*values)

    def read_and_make(values: Sequence[Any]) -> _T:
        arguments = list(values)
        for place, read in reads:
            arguments[place] = read(arguments[place])
        return row(*arguments)

    maker = read_and_make if reads else make

    def factory(cursor: AsyncCursor[Any]) -> RowMaker[_T]:
        found = _columns(cursor)
        if found is None:
            return no_result
        if found != names:
            raise ColumnsDiffer(row, names, found)
        return maker

    return factory


def _column_factory(value: type[_T]) -> AsyncRowFactory[_T]:
    read = _reader(value)

    def first(values: Sequence[Any]) -> _T:
        only: _T = values[0] if read is None else read(values[0])
        return only

    def factory(cursor: AsyncCursor[Any]) -> RowMaker[_T]:
        found = _columns(cursor)
        if found is None:
            return no_result
        if len(found) != 1:
            raise ColumnsDiffer(value, [b"(only one)"], found)
        return first

    return factory


def _columns(cursor: AsyncCursor[Any]) -> tuple[bytes, ...] | None:
    """The names of a result's columns; None for a statement that returns no rows."""
    result = cursor.pgresult
    if result is None or result.status != ExecStatus.TUPLES_OK:
        return None
    return tuple([result.fname(place) or b"" for place in range(result.nfields)])


def _first(rows: Sequence[_T]) -> _T | None:
    return rows[0] if rows else None


class _Members(dict[Any, Enum | None]):
    """The members of an enum by their values, several times as fast as a call of the enum.

    If they are optional, None is one of them.
    """

    def __init__(self, of: type[Enum], *, are_optional: bool = False) -> None:
        super().__init__({member.value: member for member in of})
        if are_optional:
            self[None] = None
        self._of = of

    def __missing__(self, value: object) -> Enum:
        return self._of(value)  # raises the enum's own ValueError


def _reader(of: Any) -> _Read | None:
    """What makes a value of this type from the driver's; None if that is one already."""
    origin, arguments = get_origin(of), get_args(of)
    if origin in {Union, UnionType}:
        return _optional_reader([each for each in arguments if each is not type(None)])
    if isinstance(of, type) and issubclass(of, Enum):
        return _Members(of).__getitem__
    if origin is frozenset or (origin is tuple and arguments[1:] == (...,)):
        return _collection_reader(origin, _reader(arguments[0]))
    return None


def _optional_reader(types: Sequence[Any]) -> _Read | None:
    if len(types) != 1 or (read := _reader(types[0])) is None:
        return None
    if isinstance(types[0], type) and issubclass(types[0], Enum):
        return _Members(types[0], are_optional=True).__getitem__
    return lambda value: None if value is None else read(value)


def _collection_reader(collection: _Read, read: _Read | None) -> _Read:
    if read is None:
        return collection
    return lambda values: collection(map(read, values))
