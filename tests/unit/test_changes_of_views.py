"""`ExecuteResult.changes` of a write through a view: the rows of the view that were written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Column, Database, Schema, Table

pytestmark = pytest.mark.everywhere

SCHEMA = Schema(
    [
        Table("lists", [Column.integer("n")]),
        Table("own", [Column.integer("n")], local_only=True, view_name="my own"),
        Table("log", [Column.integer("n")], insert_only=True),
    ]
)


@pytest.fixture(params=["file", "memory", "indexeddb"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "indexeddb":
        request.getfixturevalue("origin")
    name = "a.db" if request.param == "indexeddb" else str(tmp_path / "a.db")
    async with holdfast.open(name, schema=SCHEMA, storage=request.param) as database:
        yield database


@pytest.mark.parametrize("view", ["lists", "my own", "theirs", "odd"])
@pytest.mark.parametrize("tracked", [False, True])
async def test_rows_of_the_view_are_counted(db: Database, view: str, tracked: bool) -> None:
    await db.execute("CREATE TABLE stored(id TEXT PRIMARY KEY, n, twice)")
    for name, also in (("theirs", ""), ("odd", "INSERT INTO stored(n) VALUES (0);")):
        await db.execute(f"CREATE VIEW {name} AS SELECT id, n FROM stored WHERE id NOT NULL")
        steps = {
            "INSERT": "INSERT INTO stored(id, n) VALUES (NEW.id, NEW.n);",
            "UPDATE": "UPDATE stored SET n = NEW.n WHERE id = OLD.id;",
            "DELETE": "DELETE FROM stored WHERE id = OLD.id;",
        }
        for operation, step in steps.items():
            await db.execute(
                f"CREATE TRIGGER {name}_{operation} INSTEAD OF {operation} ON {name} "
                f"BEGIN {step} {also} END"
            )
    if tracked:
        source = view if view in ("lists", "my own") else "stored"
        await db.triggers.create_diff_trigger(source, "d")

    async def written(sql: str, *params: Any) -> list[int]:
        """By itself, inside a transaction, and as one of many: each time from the same rows."""
        found = []
        for how in range(3):
            async with db.write_transaction() as tx:
                await tx.execute(f'DELETE FROM "{view}"')
                await tx.execute_many(
                    f'INSERT INTO "{view}"(id, n) VALUES (?, ?)', [("1", 1), ("2", 2), ("3", 3)]
                )
                if how == 1:
                    found.append((await tx.execute(sql, params)).changes)
                elif how == 2:
                    found.append((await tx.execute_many(sql, [params])).changes)
            if how == 0:
                found.append((await db.execute(sql, params)).changes)
        return found

    assert await written(f'INSERT INTO "{view}"(id, n) VALUES (?, 4), (?, 5)', "4", "5") == [2] * 3
    assert await written(f'UPDATE "{view}" SET n = n + 1 WHERE n >= ?', 2) == [2] * 3
    assert await written(f'UPDATE "{view}" SET n = 1 WHERE n = ?', 7) == [0] * 3
    assert await written(f'DELETE FROM "{view}" WHERE n < ?', 3) == [2] * 3
    assert await written(f'DELETE FROM "{view}" WHERE 0') == [0] * 3
    assert (
        await written(f'INSERT OR REPLACE INTO "{view}"(id) VALUES (?), (?)', "1", "x") == [2] * 3
    )
    if view != "odd":
        ignored = f'INSERT OR IGNORE INTO "{view}"(id) VALUES (?)'
        assert await written(ignored, "1") == [0] * 3
        assert await written(f"{ignored}, (?), (?)", "1", "x", "2") == [1] * 3
    many = await db.execute_many(f'INSERT INTO "{view}"(id) VALUES (?)', [("a",), ("b",), ("c",)])
    assert many.changes == 3
    assert (await db.execute_many(f'DELETE FROM "{view}" WHERE id = ?', [])).changes == 0


async def test_what_is_only_queued_is_counted(db: Database) -> None:
    result = await db.execute("INSERT INTO log(id, n) VALUES ('1', 1), ('2', 2)")
    assert result.changes == 2
    assert await db.fetch_value("SELECT count(*) FROM ps_crud") == 2
