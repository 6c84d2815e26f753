"""The tables that holdfast keeps in each database for itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..sqlite.sqltext import fold

if TYPE_CHECKING:
    from ..session.transactions import LocalTransaction

INTERNAL_TABLES = {
    "ps_kv": "CREATE TABLE ps_kv(key TEXT PRIMARY KEY NOT NULL, value BLOB)",
    "ps_tx": "CREATE TABLE ps_tx(id INTEGER PRIMARY KEY NOT NULL, tx_id INTEGER NOT NULL)",
    "ps_crud": (
        "CREATE TABLE ps_crud(id INTEGER PRIMARY KEY AUTOINCREMENT, tx_id INTEGER, data TEXT)"
    ),
}


def check_internal(run: Callable[[str], Sequence[Sequence[Any]]]) -> None:
    """ValueError: something of the application's has the name of one of holdfast's own tables."""
    for name, sql in INTERNAL_TABLES.items():
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


def next_tx_id(tx: LocalTransaction) -> None:
    """To be called before a commit that queued something in ps_crud: tells transactions apart."""
    tx.run_sql("UPDATE ps_tx SET tx_id = tx_id + 1 WHERE id = 1")
