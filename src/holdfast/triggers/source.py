"""What a trigger can sit on: a view of the schema, or any ordinary table.

Triggers sit on the base table and never refer to a view. A source gives the SQL of what they
record: the key of a row as text, its columns as JSON, and the condition, whose NEW and OLD are the
columns as the application sees them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..api.operations import DiffOperation
from ..errors import UnknownSourceError
from ..schema import Table, stored_tables
from ..sqlite.sqltext import (
    fold,
    json_array,
    json_object,
    json_real,
    json_text,
    json_value,
    quote_name,
)

if TYPE_CHECKING:
    from ..session.transactions import RunsSql

ROWS = {
    DiffOperation.INSERT: ("NEW",),
    DiffOperation.UPDATE: ("NEW", "OLD"),
    DiffOperation.DELETE: ("OLD",),
}


class Source(ABC):
    """A source that was found; `name` is the application's, `table` what triggers sit on."""

    name: str
    table: str
    view: str | None
    columns: tuple[str, ...]
    # The columns of the key, where it is made of columns of the application's.
    primary_key: tuple[str, ...] = ()

    def choose(self, columns: Sequence[str] | None) -> tuple[str, ...]:
        """The columns to record, as they are spelt. ValueError: one is unknown or named twice."""
        if columns is None:
            return self.columns
        known = {fold(name): name for name in self._selectable()}
        chosen = []
        for column in columns:
            if (name := known.get(fold(column))) is None:
                raise ValueError(
                    f"{self.name!r} has no column {column!r}; it has {', '.join(known.values())}"
                )
            if name in chosen:
                raise ValueError(f"columns names {name!r} twice")
            chosen.append(name)
        return tuple(chosen)

    def _selectable(self) -> Iterable[str]:
        return self.columns

    @abstractmethod
    def key(self, row: str) -> str:
        """The key of `row` (NEW or OLD): its single primary key as text, or a JSON array."""

    @abstractmethod
    def value(self, row: str, columns: Sequence[str]) -> str:
        """Those columns of `row` as a JSON object."""

    @abstractmethod
    def condition(self, operation: DiffOperation, when: str) -> str:
        """`when` for the WHEN of a trigger."""

    @abstractmethod
    def _sample(self, when: str) -> str:
        """A query for one row of what `when` may refer to."""

    def trial(self, operation: DiffOperation, when: str) -> str:
        """A query that evaluates `when` on a row of the source, or on NULLs if there is none."""
        rows = "".join(
            f" LEFT JOIN ({self._sample(when)} LIMIT 1) AS {row} ON 1" for row in ROWS[operation]
        )
        return f"SELECT ({when}\n) FROM (SELECT 1){rows}"

    @abstractmethod
    def write(self, operation: DiffOperation) -> str:
        """A statement that fires the triggers of the operation; to be compiled, not run."""


class ViewSource(Source):
    """A JSON-backed view of the schema."""

    def __init__(self, table: Table) -> None:
        self.name = self.view = table.view_name
        self.table = table.base
        self._columns = {column.name: column for column in table.columns}
        self.columns = tuple(self._columns)

    def _selectable(self) -> Iterable[str]:
        return ("id", *self.columns)

    def key(self, row: str) -> str:
        return _key_text(f"{row}.id")

    def value(self, row: str, columns: Sequence[str]) -> str:
        read = [(name, self._json(row, name)) for name in columns]
        if all(name == "id" for name in columns):
            return json_object(read)
        # Broken JSON in `data` must not make anybody's write fail.
        nulls = [(name, value if name == "id" else "'null'") for name, value in read]
        return (
            f"CASE WHEN json_valid({row}.data) THEN {json_object(read)} "
            f"ELSE {json_object(nulls)} END"
        )

    def _json(self, row: str, name: str) -> str:
        if name == "id":
            return json_text(f"{row}.id")
        column = self._columns[name]
        value = column.read(f"{row}.data")
        if column.type == "TEXT":
            return f"ifnull({json_text(value)},'null')"
        if column.type == "INTEGER":
            return f"ifnull({value},'null')"
        return f"CASE WHEN {value} IS NULL THEN 'null' ELSE {json_real(value)} END"

    def condition(self, operation: DiffOperation, when: str) -> str:
        # Names of a FROM win over the trigger's own NEW and OLD.
        rows = ", ".join(
            f"(SELECT {self._shown(f'{row}.', when)}) AS {row}" for row in ROWS[operation]
        )
        return f"EXISTS(SELECT 1 FROM {rows} WHERE ({when}\n))"

    def _sample(self, when: str) -> str:
        return f"SELECT {self._shown('', when)} FROM main.{quote_name(self.table)}"

    def _shown(self, row: str, when: str) -> str:
        shown = {"data": f"{row}data", "id": f"{row}id"}
        for name in _mentioned(self.columns, when):
            read = self._columns[name].read(f"{row}data")
            if name == "data":
                del shown["data"]
            shown[quote_name(name)] = f"CASE WHEN json_valid({row}data) THEN {read} END"
        return ", ".join(f"{value} AS {name}" for name, value in shown.items())

    def write(self, operation: DiffOperation) -> str:
        return _write(operation, self.table, "data")


class TableSource(Source):
    """An ordinary table of the application."""

    def __init__(self, name: str, columns: Sequence[TableColumn], rowid: str | None) -> None:
        self.name = self.table = name
        self.view = None
        self._info = columns
        self._rowid = rowid
        self.primary_key = tuple(
            column.name for column in sorted(columns, key=lambda c: c.key) if column.key
        )
        self.columns = tuple(column.name for column in columns)

    def key(self, row: str) -> str:
        if not self.primary_key:
            return f"{row}.{self._rowid}"
        parts = [f"{row}.{quote_name(name)}" for name in self.primary_key]
        if len(parts) == 1:
            return _key_text(parts[0])
        return json_array([json_value(part) for part in parts])

    def value(self, row: str, columns: Sequence[str]) -> str:
        return json_object([(name, json_value(f"{row}.{quote_name(name)}")) for name in columns])

    def condition(self, operation: DiffOperation, when: str) -> str:
        return f"({when}\n)"

    def _sample(self, when: str) -> str:
        names = [quote_name(name) for name in _mentioned(self.columns, when)]
        if self._rowid is not None:
            own = {fold(name) for name in self.columns}
            names += [name for name in _ROWID_NAMES if name in fold(when) and name not in own]
        shown = ", ".join(f"{name} AS {name}" for name in names) or "1"
        return f"SELECT {shown} FROM main.{quote_name(self.table)}"

    def write(self, operation: DiffOperation) -> str:
        stored = next(column.name for column in self._info if not column.generated)
        return _write(operation, self.table, stored)


class TableColumn(NamedTuple):
    """A line of PRAGMA table_xinfo."""

    name: str
    key: int
    """Its place in the primary key, from 1; 0: not part of it."""
    generated: bool


_ROWID_NAMES = ("rowid", "_rowid_", "oid")


def resolve(tx: RunsSql, name: str, internal: Iterable[str] = ()) -> Source:
    """The source of that name: a view, a table of the schema, or an ordinary table.

    internal: tables that are holdfast's own. UnknownSourceError says what there is.
    """
    views = {fold(table.view_name): table for table in stored_tables(tx)}
    rows = tx.run_sql(
        "SELECT name, type, wr FROM pragma_table_list "
        "WHERE schema = 'main' AND name = ? COLLATE NOCASE",
        (name,),
    )
    if fold(name) in views:
        return _view_source(views[fold(name)])
    if not rows:
        for table in views.values():
            if fold(table.name) == fold(name):
                return _view_source(table)
        raise UnknownSourceError(
            f"there is no table or view {name!r} in this database; there are "
            f"{_existing(tx, internal)}"
        )
    ((stored, kind, without_rowid),) = rows
    if fold(stored).startswith("sqlite_") or fold(stored) in {fold(own) for own in internal}:
        raise UnknownSourceError(f"{stored!r} is not a table of the application; track one that is")
    if kind == "view":
        raise UnknownSourceError(
            f"{stored!r} is a view of the application's own, which stores nothing that a trigger "
            "could see change; track the tables that it reads"
        )
    if kind != "table":
        raise UnknownSourceError(
            f"{stored!r} is a {kind} table, and SQLite has no triggers for such; track an "
            "ordinary table"
        )
    columns = [
        TableColumn(*row)
        for row in tx.run_sql(
            "SELECT name, pk, hidden > 1 FROM pragma_table_xinfo(?, 'main')", (stored,)
        )
    ]
    own = {fold(column.name) for column in columns}
    rowid = next((alias for alias in _ROWID_NAMES if alias not in own), None)
    if rowid is None and not any(column.key for column in columns):
        raise UnknownSourceError(
            f"the rows of {stored!r} cannot be told apart: it has no primary key, and columns "
            f"named {', '.join(_ROWID_NAMES)} hide its rowid; give it a primary key"
        )
    return TableSource(stored, columns, None if without_rowid else rowid)


def _view_source(table: Table) -> ViewSource:
    if table.insert_only:
        raise UnknownSourceError(
            f"{table.view_name!r} is insert_only: its rows are queued and stored nowhere, so a "
            "trigger would never fire; watch ps_crud, or do without insert_only"
        )
    return ViewSource(table)


def _existing(tx: RunsSql, internal: Iterable[str]) -> str:
    hidden = {fold(name) for name in internal}
    names = [
        name
        for (name,) in tx.run_sql(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' "
            "AND type IN ('table', 'view') ORDER BY name"
        )
        if not fold(name).startswith(("ps_", "sqlite_")) and fold(name) not in hidden
    ]
    return ", ".join(repr(name) for name in names) or "none yet"


def _mentioned(columns: Iterable[str], when: str) -> list[str]:
    """The columns that `when` may refer to: a view can have more than a subquery may give."""
    text = fold(when)
    return [
        name for name in columns if fold(name) in text or any(quote in name for quote in "\"'`]")
    ]


def _key_text(value: str) -> str:
    return (
        f"CASE typeof({value}) WHEN 'blob' THEN hex({value}) WHEN 'real' THEN {json_real(value)} "
        f"ELSE {value} END"
    )


def _write(operation: DiffOperation, table: str, column: str) -> str:
    quoted = f"main.{quote_name(table)}"
    if operation is DiffOperation.INSERT:
        return f"INSERT INTO {quoted} DEFAULT VALUES"
    if operation is DiffOperation.DELETE:
        return f"DELETE FROM {quoted}"
    return f"UPDATE {quoted} SET {quote_name(column)}={quote_name(column)}"
