"""The schema: JSON-backed views, and the tables that holdfast keeps for itself.

    table                         what it holds
    ---------------------------   -----------------------------------------------------------
    ps_data__<name>               the rows of the table <name>: id TEXT PRIMARY KEY, data TEXT
    ps_data_local__<name>         the same, of a local_only table
    ps_crud                       id, tx_id, data: one row per write, to be sent to a server
    ps_tx                         one row: the tx_id that the writes of this transaction get
    ps_kv                         key, value: what holdfast must remember (see triggers/registry)

The rows of a table live as JSON in its base table; a view shows them with typed columns, and
INSTEAD OF triggers of the view write through it. What a view was made from stands in a comment in
its own text, so that every connection, with this schema or without, can read it there. Names and
formats follow PowerSync's client schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .sqlite.sqltext import (
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

if TYPE_CHECKING:
    from .session.transactions import RunsSql, Transaction

TYPES = ("TEXT", "INTEGER", "REAL")

# SQLite gives a view 2,000 columns at most, and one is the id.
MAX_COLUMNS = 1999

_RESERVED = ("ps_", "sqlite_")
_MARK = "/* holdfast view "
_MARKED = re.compile(re.escape(_MARK) + r"(\{.*?\}) \*/", re.DOTALL)

_INTERNAL_TABLES = {
    "ps_kv": "CREATE TABLE ps_kv(key TEXT PRIMARY KEY NOT NULL, value BLOB)",
    "ps_tx": "CREATE TABLE ps_tx(id INTEGER PRIMARY KEY NOT NULL, tx_id INTEGER NOT NULL)",
    "ps_crud": (
        "CREATE TABLE ps_crud(id INTEGER PRIMARY KEY AUTOINCREMENT, tx_id INTEGER, data TEXT)"
    ),
}


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
        return f"{_MARK}{described.replace('/', chr(92) + 'u002f')} */"


class Schema:
    """The tables of an application: `Schema([Table("lists", [Column.text("name")])])`.

    Opening a database with it makes what is missing or different, in one transaction, and touches
    nothing when all is there. A table that is gone keeps its data; it loses its view when nobody
    else has the database open, for another version of the application may use it.
    """

    def __init__(self, tables: Iterable[Table]) -> None:
        if isinstance(tables, Table):
            raise TypeError("a schema is made of a list of tables; write Schema([Table(…)])")
        self.tables = tuple(tables)
        taken: set[tuple[str, str]] = set()
        for table in self.tables:
            if not isinstance(table, Table):
                raise TypeError(f"a schema is made of Tables, not of {type(table).__name__}")
            for kind, name in (("table", table.name), ("view", table.view_name)):
                if (kind, fold(name)) in taken:
                    raise ValueError(
                        f"two tables of the schema have the {kind} name {name!r}; "
                        "SQLite does not tell upper from lower case"
                    )
                taken.add((kind, fold(name)))
        self._declared = True
        self._view_names = _view_names(self.tables)

    @classmethod
    def undeclared(cls) -> Schema:
        """For one database that is opened without a schema: its views are left as they are."""
        schema = cls([])
        schema._declared = False
        return schema

    async def apply(self, tx: Transaction, *, alone: bool = True) -> bool:
        """Bring the database up to this schema; gives whether there was anything to do.

        alone: whether nobody else has the database open, who may use other views.
        ValueError: a name is taken by something that the application made.
        """
        steps = self._steps(tx, alone)
        for step in steps:
            tx.run_sql(step)
        self._learn(tx)
        return bool(steps)

    def is_applied(self, tx: Transaction) -> bool:
        """Whether `apply` has nothing to do: then it need not be called. Errors as there."""
        if self._steps(tx, alone=True):
            return False
        self._learn(tx)
        return True

    def _learn(self, tx: Transaction) -> None:
        if not self._declared:
            self._view_names = _view_names(stored_tables(tx))

    def application_name(self, table: str) -> str | None:
        """What the application calls a table; None for holdfast's and SQLite's own."""
        if (view := self._view_names.get(table)) is not None:
            return view
        return None if fold(table).startswith(_RESERVED) else table

    def _steps(self, tx: Transaction, alone: bool) -> list[str]:
        """What the database lacks, as SQL."""
        relations: dict[str, tuple[str, str, str]] = {}
        triggers: dict[str, str] = {}
        for kind, name, sql in tx.run_sql("SELECT type, name, sql FROM main.sqlite_master"):
            if kind == "trigger":
                triggers[fold(name)] = sql
            else:
                relations[fold(name)] = (kind, name, sql)

        def make_table(name: str, sql: str) -> list[str]:
            stored = relations.get(fold(name))
            if stored is not None and stored[0] != "table":
                raise ValueError(
                    f"the database has {_named(stored)}, a name that holdfast needs for a table; "
                    "rename it"
                )
            return [sql] if stored is None else []

        check_internal(tx.run_sql)
        steps = []
        for name, sql in _INTERNAL_TABLES.items():
            steps += make_table(name, sql)
        if "ps_tx" not in relations:
            steps.append("INSERT INTO ps_tx(id, tx_id) VALUES (1, 1)")
        kept: set[str] = set()
        moves: list[str] = []
        views: list[str] = []
        others = {fold(table.view_name): table for table in stored_tables(tx)}
        for table in self.tables:
            if (other := others.get(fold(table.view_name))) is not None:
                table = table.beside(other)
            if not table.insert_only:
                steps += make_table(table.base, table.base_sql())
                left = table.bases[not table.local_only]
                if other is not None and table.takes_over(other) and fold(left) in relations:
                    moves += _moved(left, table.base)
            wanted = table.trigger_sql()
            stored = relations.get(fold(table.view_name))
            if stored is not None and not _is_schema_view(stored):
                raise ValueError(
                    f"the view {table.view_name!r} of the schema cannot be made: the database has "
                    f"{_named(stored)} of its own; rename one, or give a view_name"
                )
            if (
                stored is not None
                and stored[2] == table.view_sql()
                and all(triggers.get(fold(name)) == sql for name, sql in wanted.items())
            ):
                kept.add(fold(table.view_name))
            else:
                views += [table.view_sql(), *wanted.values()]
        if self._declared:
            declared = {fold(table.view_name) for table in self.tables}
            # A view takes its triggers along.
            steps += [
                f"DROP VIEW {quote_name(stored[1])}"
                for name, stored in relations.items()
                if name not in kept and _is_schema_view(stored) and (alone or name in declared)
            ]
        return steps + moves + views


def _view_names(tables: Iterable[Table]) -> dict[str, str]:
    """The view of each table that stores rows, wherever another version has its rows stored."""
    return {base: table.view_name for table in tables for base in table.bases}


def _moved(left: str, base: str) -> list[str]:
    """All rows from one table into another, between the old view and the new.

    No managed trigger is on either then, so this is no change to anybody. ALTER TABLE … RENAME
    would fail where a view of the application's reads from the one that is away.
    """
    old, new = quote_name(left), quote_name(base)
    return [f"INSERT OR REPLACE INTO {new} SELECT id, data FROM {old}", f"DROP TABLE {old}"]


def check_internal(run: Callable[[str], Sequence[Sequence[Any]]]) -> None:
    """ValueError: something of the application's has the name of one of holdfast's own tables."""
    for name, sql in _INTERNAL_TABLES.items():
        found = run(
            "SELECT type, name, sql FROM main.sqlite_master "
            f"WHERE name = '{name}' COLLATE NOCASE AND type IN ('table', 'view')"
        )
        if not found or found[0][2] == sql:
            continue
        kind, stored, _ = found[0]
        has = [column for (column,) in run(f"SELECT name FROM pragma_table_info('{name}')")]
        wanted = re.findall(r"[(,] ?(\w+)", sql)
        if kind != "table" or {fold(column) for column in has} != set(wanted):
            raise ValueError(
                f"the database has a {kind} {stored}({', '.join(has)}) that holdfast did not "
                f"make, and holdfast needs that name for a table of its own, {name}"
                f"({', '.join(wanted)}); rename yours"
            )


def stored_tables(tx: RunsSql) -> list[Table]:
    """The tables whose views the database has, whoever declared them."""
    rows = tx.run_sql(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'view' AND instr(sql, ?)", (_MARK,)
    )
    return [table for name, sql in rows if (table := _read_mark(name, sql)) is not None]


def next_tx_id(tx: Transaction) -> None:
    """To be called before a commit that queued something in ps_crud: tells transactions apart."""
    tx.run_sql("UPDATE ps_tx SET tx_id = tx_id + 1 WHERE id = 1")


def _read_mark(view_name: str, sql: str) -> Table | None:
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


def _is_schema_view(stored: tuple[str, str, str]) -> bool:
    kind, _name, sql = stored
    return kind == "view" and _MARKED.search(sql) is not None


def _named(stored: tuple[str, str, str]) -> str:
    return f"{'an' if stored[0] == 'index' else 'a'} {stored[0]} named {stored[1]!r}"


def _own_name(name: object, what: str) -> str:
    checked = check_name(name, what)
    if fold(checked).startswith(_RESERVED):
        raise ValueError(
            f"{what} cannot begin with {' or '.join(_RESERVED)}, as {checked!r} does: such names "
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
