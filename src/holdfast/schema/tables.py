"""What an application declares, and the SQL that it stands for: a view, its triggers, its rows.

What a view was made from stands in a comment in its own text, so that every connection, with this
schema or without, can read it there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..sqlite.sqltext import (
    check_name,
    fold,
    json_object_of,
    json_path,
    json_real,
    json_text,
    json_updated,
    quote_name,
    quote_text,
)

TYPES = ("TEXT", "INTEGER", "REAL")

# SQLite gives a view 2,000 columns at most, and one is the id.
MAX_COLUMNS = 1999

RESERVED = ("ps_", "sqlite_")

# What the text of each view of the schema has in it.
MARK = "/* holdfast view "
_MARKED = re.compile(re.escape(MARK) + r"(\{.*?\}) \*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a `Table`: `Column.text(name)`, `Column.integer(name)`, `Column.real(name)`.

    The view casts what is stored to the type; NULL stays NULL.
    """

    name: str
    type: str

    def __post_init__(self) -> None:
        check_name(self.name, "the name of a column")
        if fold(self.name) in ("true", "false"):
            raise ValueError(
                f"SQLite does not give a column of a view the name {self.name!r}, even in quotes; "
                "choose another"
            )
        if self.type not in TYPES:
            raise ValueError(
                f"column {self.name!r} has the type {self.type!r}; use {', '.join(TYPES)}"
            )

    @classmethod
    def text(cls, name: str) -> Column:
        """A column whose values the view casts to TEXT."""
        return cls(name, "TEXT")

    @classmethod
    def integer(cls, name: str) -> Column:
        """A column whose values the view casts to INTEGER."""
        return cls(name, "INTEGER")

    @classmethod
    def real(cls, name: str) -> Column:
        """A column whose values the view casts to REAL."""
        return cls(name, "REAL")

    def read(self, data: str) -> str:
        """An expression for this column of `data`, an expression for sound JSON."""
        return f"CAST(json_extract({data},{json_path(self.name)}) AS {self.type})"


class Table:
    """A JSON-backed view: `id TEXT` and the given columns.

    columns: the `Column`s, 1,999 at most; "id" is there by itself.
    local_only: writes are not queued in ps_crud.
    insert_only: rows are queued in ps_crud and stored nowhere; there is nothing to read, update
        or delete.
    view_name: the name of the view where it is not that of the table.
    The inserter supplies the id, a text that never changes. An update leaves what `data` has beside
    the declared columns as it is.
    Versions of an application may have the database open beside each other: a column that another
    one declared stays in the view. Where both declare it, the type is that of the last to open, and
    so are local_only and insert_only; the rows stay in the view. A view that is insert_only now
    shows them again as soon as it is not.
    """

    def __init__(
        self,
        name: str,
        columns: Iterable[Column],
        *,
        local_only: bool = False,
        insert_only: bool = False,
        view_name: str | None = None,
    ) -> None:
        self.name = _own_name(name, "the name of a table")
        self.view_name = (
            self.name if view_name is None else _own_name(view_name, f"view_name of {name!r}")
        )
        for option, value in (("local_only", local_only), ("insert_only", insert_only)):
            if not isinstance(value, bool):
                raise TypeError(f"{option} of table {name!r} must be True or False, not {value!r}")
        if local_only and insert_only:
            raise ValueError(
                f"table {name!r} is local_only and insert_only: its rows would be neither stored "
                "nor queued; choose one"
            )
        self.local_only = local_only
        self.insert_only = insert_only
        self.columns = tuple(columns)
        taken = {"id"}
        for column in self.columns:
            if not isinstance(column, Column):
                raise TypeError(
                    f"a column of table {name!r} is a {type(column).__name__}; "
                    "use Column.text(), Column.integer() or Column.real()"
                )
            if fold(column.name) in taken:
                why = "every table has an id" if fold(column.name) == "id" else "there are two"
                raise ValueError(f"table {name!r} cannot have the column {column.name!r}: {why}")
            taken.add(fold(column.name))
        if len(self.columns) > MAX_COLUMNS:
            raise ValueError(
                f"table {name!r} has {len(self.columns)} columns; SQLite shows {MAX_COLUMNS} "
                "beside the id"
            )

    def __repr__(self) -> str:
        return f"<holdfast.Table {self.name!r}, {len(self.columns)} columns>"

    def beside(self, other: Table) -> Table:
        """This table with what another version of the application declared beside it."""
        if self.name != other.name:
            return self
        # As far as the stored order allows, so that nothing has to be made anew for an order.
        own = {fold(column.name): column for column in self.columns}
        columns = [own.pop(fold(column.name), column) for column in other.columns]
        columns += own.values()
        if len(columns) > MAX_COLUMNS:
            return self
        return Table(
            self.name,
            columns,
            local_only=self.local_only,
            insert_only=self.insert_only,
            view_name=self.view_name,
        )

    def takes_over(self, other: Table) -> bool:
        """Whether this is a version of the same table whose rows may be stored elsewhere."""
        return self.name == other.name and (self.base != other.base or other.insert_only)

    @property
    def base(self) -> str:
        """The table that stores the rows."""
        return self.bases[self.local_only]

    @property
    def bases(self) -> tuple[str, str]:
        """What `base` is where writes are queued, and where the table is local_only."""
        return f"ps_data__{self.name}", f"ps_data_local__{self.name}"

    # -- the SQL of it, in the very form in which SQLite keeps it --------------------------------

    def base_sql(self) -> str:
        return f"CREATE TABLE {quote_name(self.base)}(id TEXT PRIMARY KEY NOT NULL, data TEXT)"

    def view_sql(self) -> str:
        names = ", ".join(quote_name(name) for name in ("id", *(c.name for c in self.columns)))
        if self.insert_only:
            shown = ["CAST(NULL AS TEXT)"]
            shown += [f"CAST(NULL AS {column.type})" for column in self.columns]
            source = "WHERE 0"
        else:
            # A row with broken JSON shows NULLs; it must not take the other rows with it.
            shown = ["id"]
            shown += [
                f"CASE WHEN json_valid(data) THEN {column.read('data')} END"
                for column in self.columns
            ]
            source = f"FROM {quote_name(self.base)}"
        return (
            f"CREATE VIEW {quote_name(self.view_name)}({names}) AS {self._mark()} "
            f"SELECT {', '.join(shown)} {source}"
        )

    def trigger_sql(self) -> dict[str, str]:
        """The INSTEAD OF triggers of the view, by name."""
        base = quote_name(self.base)
        members = [
            (column.name, _written(f"NEW.{quote_name(column.name)}")) for column in self.columns
        ]
        written = json_object_of(members)
        check = (
            "SELECT CASE WHEN NEW.id IS NULL THEN RAISE(ABORT,'id is required') "
            "WHEN typeof(NEW.id)<>'text' THEN RAISE(ABORT,'id must be text') END"
        )
        if self.insert_only:
            return self._trigger("INSERT", [check, *self._queue("PUT", "NEW.id", written)])
        changed = json_object_of(
            [(column.name, _changed(quote_name(column.name))) for column in self.columns]
        )
        return {
            **self._trigger(
                "INSERT",
                [
                    check,
                    f"INSERT INTO {base}(id, data) VALUES (NEW.id, {written})",
                    *self._queue("PUT", "NEW.id", written),
                ],
            ),
            **self._trigger(
                "UPDATE",
                [
                    "SELECT CASE WHEN NEW.id IS NOT OLD.id "
                    "THEN RAISE(ABORT,'id cannot be changed') END",
                    f"UPDATE {base} SET data={json_updated('data', members)} WHERE id=OLD.id",
                    *self._queue("PATCH", "OLD.id", changed),
                ],
            ),
            **self._trigger(
                "DELETE",
                [f"DELETE FROM {base} WHERE id=OLD.id", *self._queue("DELETE", "OLD.id", None)],
            ),
        }

    def _trigger(self, operation: str, steps: Sequence[str]) -> dict[str, str]:
        name = f"ps_view_{operation.lower()}__{self.view_name}"
        return {
            name: f"CREATE TRIGGER {quote_name(name)} INSTEAD OF {operation} "
            f"ON {quote_name(self.view_name)} BEGIN {'; '.join(steps)}; END"
        }

    def _queue(self, operation: str, key: str, data: str | None) -> list[str]:
        if self.local_only:
            return []
        kind = json.dumps(self.name, ensure_ascii=False)
        entry = quote_text(f'{{"op":"{operation}","type":{kind},"id":') + f"||{json_text(key)}"
        entry += "||'}'" if data is None else f"||',\"data\":'||{data}||'}}'"
        # changes() is that of the step before: an INSERT OR IGNORE that was ignored is no write.
        written = "" if self.insert_only else " WHERE changes()>0"
        return [
            "INSERT INTO ps_crud(tx_id, data) "
            f"SELECT (SELECT tx_id FROM ps_tx WHERE id=1), {entry}{written}"
        ]

    def _mark(self) -> str:
        described = json.dumps(
            {
                "table": self.name,
                "local_only": self.local_only,
                "insert_only": self.insert_only,
                "columns": [[column.name, column.type] for column in self.columns],
            }
        )
        # Without a slash nothing in it ends the comment.
        return f"{MARK}{described.replace('/', chr(92) + 'u002f')} */"


def read_mark(view_name: str, sql: str) -> Table | None:
    """The table that a view was made from; None: it is not one of the schema."""
    if (found := _MARKED.search(sql)) is None:
        return None
    described = json.loads(found[1])
    return Table(
        described["table"],
        [Column(name, kind) for name, kind in described["columns"]],
        local_only=described["local_only"],
        insert_only=described["insert_only"],
        view_name=view_name,
    )


def _own_name(name: object, what: str) -> str:
    checked = check_name(name, what)
    if fold(checked).startswith(RESERVED):
        raise ValueError(
            f"{what} cannot begin with {' or '.join(RESERVED)}, as {checked!r} does: such names "
            "are holdfast's and SQLite's own"
        )
    return checked


def _written(value: str) -> str:
    """A value as JSON, NULL for NULL."""
    return (
        f"CASE typeof({value}) WHEN 'text' THEN {json_text(value)} "
        f"WHEN 'real' THEN {json_real(value)} "
        f"WHEN 'blob' THEN RAISE(ABORT,'a JSON-backed view cannot hold a BLOB') ELSE {value} END"
    )


def _changed(column: str) -> str:
    """The new value of a column as JSON, NULL if it is the old one."""
    new = f"NEW.{column}"
    return f"CASE WHEN {new} IS NOT OLD.{column} THEN ifnull({_written(new)},'null') END"
