"""How a database is brought up to the schema of the application that opens it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..sqlite.sqltext import fold, quote_name
from .internal import INTERNAL_TABLES, check_internal
from .tables import MARK, RESERVED, Table, read_mark

if TYPE_CHECKING:
    from ..session.transactions import LocalTransaction, RunsSql


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

    async def apply(self, tx: LocalTransaction, *, alone: bool = True) -> bool:
        """Bring the database up to this schema; gives whether there was anything to do.

        alone: whether no other connection is open, which may use other views.
        ValueError: a name is taken by something that the application made.
        """
        steps = self._steps(tx, alone)
        for step in steps:
            tx.run_sql(step)
        self._learn(tx)
        return bool(steps)

    def is_applied(self, tx: LocalTransaction) -> bool:
        """Whether `apply` has nothing to do: then it need not be called. Errors as there."""
        if self._steps(tx, alone=True):
            return False
        self._learn(tx)
        return True

    def _learn(self, tx: LocalTransaction) -> None:
        if not self._declared:
            self._view_names = _view_names(stored_tables(tx))

    def application_name(self, table: str) -> str | None:
        """What the application calls a table; None for holdfast's and SQLite's own."""
        if (view := self._view_names.get(table)) is not None:
            return view
        return None if fold(table).startswith(RESERVED) else table

    def _steps(self, tx: LocalTransaction, alone: bool) -> list[str]:
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
        for name, sql in INTERNAL_TABLES.items():
            steps += make_table(name, sql)
        if "ps_tx" not in relations:
            steps.append("INSERT INTO ps_tx(id, tx_id) VALUES (1, 1)")
        kept: set[str] = set()
        moves: list[str] = []
        views: list[str] = []
        others = {fold(table.view_name): table for table in stored_tables(tx)}
        declared = {fold(table.view_name) for table in self.tables}
        staying = (
            []
            if self._declared and alone
            else [table for name, table in others.items() if name not in declared]
        )
        in_use = {fold(table.base) for table in (*self.tables, *staying) if not table.insert_only}
        for table in self.tables:
            if (other := others.get(fold(table.view_name))) is not None:
                table = table.beside(other)
            if not table.insert_only:
                steps += make_table(table.base, table.base_sql())
                left = table.bases[not table.local_only]
                if fold(left) in relations:
                    if other is not None and table.takes_over(other):
                        moves += _moved(left, table.base, "REPLACE")
                    elif fold(left) not in in_use:
                        # Left by a view that was dropped; what is here is newer.
                        moves += _moved(left, table.base, "IGNORE")
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
            # A view takes its triggers along.
            steps += [
                f"DROP VIEW {quote_name(stored[1])}"
                for name, stored in relations.items()
                if name not in kept and _is_schema_view(stored) and (alone or name in declared)
            ]
        return steps + moves + views


def stored_tables(tx: RunsSql) -> list[Table]:
    """The tables whose views the database has, of any version of the application."""
    rows = tx.run_sql(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'view' AND instr(sql, ?)", (MARK,)
    )
    return [table for name, sql in rows if (table := read_mark(name, sql)) is not None]


def _view_names(tables: Iterable[Table]) -> dict[str, str]:
    """The view of each table that stores rows, wherever another version has its rows stored."""
    return {base: table.view_name for table in tables for base in table.bases}


def _moved(left: str, base: str, same_id: str) -> list[str]:
    """All rows from one table into another, between the old view and the new.

    same_id: REPLACE the row that is there already, or IGNORE the one that comes.

    No managed trigger is on either then, so this is no change to anybody. ALTER TABLE … RENAME
    would fail where a view of the application's reads from the one that is away.
    """
    old, new = quote_name(left), quote_name(base)
    return [f"INSERT OR {same_id} INTO {new} SELECT id, data FROM {old}", f"DROP TABLE {old}"]


def _is_schema_view(stored: tuple[str, str, str]) -> bool:
    kind, name, sql = stored
    return kind == "view" and read_mark(name, sql) is not None


def _named(stored: tuple[str, str, str]) -> str:
    return f"{'an' if stored[0] == 'index' else 'a'} {stored[0]} named {stored[1]!r}"
