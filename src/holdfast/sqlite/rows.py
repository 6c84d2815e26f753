"""What queries and statements return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

SQLiteValue = None | int | float | str | bytes
Parameters = Sequence[Any] | Mapping[str, Any]


class ExecuteResult(NamedTuple):
    """What a statement did: rows changed (triggers' changes not counted), and the last rowid."""

    changes: int
    last_insert_rowid: int


class Row(Sequence[Any]):
    """One row of a result; behaves as `sqlite3.Row`.

    By index or slice, by column name (case-insensitive), `keys()`, `len()`, iteration, equality
    with a tuple or another row, and `dict(row)`. Of two columns of one name, the first is found.
    """

    __slots__ = ("_columns", "_values")

    def __init__(self, columns: tuple[str, ...], values: tuple[Any, ...]) -> None:
        self._columns = columns
        self._values = values

    def keys(self) -> list[str]:
        """The column names, in order."""
        return list(self._columns)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self._values[key]
        columns = self._columns
        if key in columns:
            return self._values[columns.index(key)]
        wanted = key.lower()
        for index, column in enumerate(columns):
            if column.lower() == wanted:
                return self._values[index]
        raise IndexError(f"no column {key!r} in this row; it has {', '.join(columns)}")

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Row):
            return self._columns == other._columns and self._values == other._values
        if isinstance(other, tuple):
            return self._values == other
        return NotImplemented

    def __hash__(self) -> int:
        # Equal to a tuple, so it must hash as one.
        return hash(self._values)

    def __repr__(self) -> str:
        pairs = zip(self._columns, self._values, strict=True)
        return f"Row({', '.join(f'{name}={value!r}' for name, value in pairs)})"


# The two parts of a row.
columns_of: attrgetter[tuple[str, ...]] = attrgetter("_columns")
values_of: attrgetter[tuple[Any, ...]] = attrgetter("_values")
