"""Conditions: what they may say, and that none is accepted that would break a write (P1, B3)."""

from __future__ import annotations

from typing import Any

import apsw
import pytest

from holdfast import Database, DiffOperation, InvalidWhenError

from .conftest import leftovers

pytestmark = pytest.mark.everywhere

INSERTS = {"INSERT": "TRUE"}


async def ids(db: Database) -> list[tuple[str, str]]:
    rows = await db.fetch_all("SELECT operation, id FROM d ORDER BY operation_id")
    return [(row["operation"], row["id"]) for row in rows]


async def test_p1_a_missing_operation_has_no_trigger(db: Database) -> None:
    when = {DiffOperation.DELETE: "TRUE", "INSERT": "true"}
    async with await db.triggers.create_diff_trigger("lists", "d", when=when) as trigger:
        assert trigger.operations == ("INSERT", "DELETE")
        await db.execute("INSERT INTO lists(id, n) VALUES ('a', 1)")
        await db.execute("UPDATE lists SET n = 2")
        await db.execute("DELETE FROM lists")
        assert await ids(db) == [("INSERT", "a"), ("DELETE", "a")]


async def test_p1_each_operation_has_its_own_condition(db: Database) -> None:
    when = {
        "INSERT": "NEW.name LIKE 'x%' -- the comment ends here",
        "UPDATE": "NEW.n > OLD.n AND NEW.x IS NOT OLD.x",
        "DELETE": "OLD.n = (SELECT max(value) FROM limits WHERE value <> NULL OR kind = OLD.id)",
    }
    await db.execute("CREATE TABLE limits(kind, value)")
    await db.execute("INSERT INTO limits VALUES ('b', 5)")
    async with await db.triggers.create_diff_trigger("lists", "d", when=when):
        await db.execute("INSERT INTO lists(id, name, n) VALUES ('a', 'ax', 1), ('b', 'xb', 1)")
        await db.execute("UPDATE lists SET n = 5")
        await db.execute("UPDATE lists SET n = 4, x = 1 WHERE id = 'a'")
        await db.execute("UPDATE lists SET x = 2, n = 5")
        await db.execute("DELETE FROM lists")
        assert await ids(db) == [("INSERT", "b"), ("UPDATE", "a"), ("DELETE", "b")]


async def test_columns_are_typed_in_a_condition(db: Database) -> None:
    """JSON holds a text here; the application sees an integer."""
    when = {"INSERT": "NEW.n > 9 AND typeof(NEW.x) = 'real' AND NEW.data LIKE '%10%'"}
    async with await db.triggers.create_diff_trigger("lists", "d", when=when):
        await db.execute("""INSERT INTO ps_data__lists VALUES ('a', '{"n": "10", "x": 1}')""")
        assert await ids(db) == [("INSERT", "a")]


async def test_the_columns_of_a_table_in_a_condition(db: Database) -> None:
    await db.execute('CREATE TABLE t("order" TEXT COLLATE NOCASE, g AS (upper("order")))')
    when = {"INSERT": """NEW."order" = 'a' AND NEW.g = 'A' AND NEW.rowid > 1"""}
    async with await db.triggers.create_diff_trigger("t", "d", when=when):
        await db.execute("INSERT INTO t VALUES ('a'), ('A'), ('b')")
        assert await ids(db) == [("INSERT", "2")]


@pytest.mark.parametrize(
    ("when", "error", "says"),
    [
        ({}, ValueError, "no operation"),
        ({"UPSERT": "TRUE"}, ValueError, "INSERT, UPDATE, DELETE"),
        ({"insert": "TRUE"}, ValueError, "no operation"),
        ({1: "TRUE"}, TypeError, "str"),
        ({"INSERT": True}, TypeError, '"TRUE"'),
        ("TRUE", TypeError, "mapping"),
        (["INSERT"], TypeError, "mapping"),
        ({"INSERT": " "}, InvalidWhenError, "empty"),
    ],
)
async def test_p1_no_operation_and_other_nonsense(
    db: Database, when: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await db.triggers.create_diff_trigger("lists", "d", when=when)
    assert await leftovers(db) == []


BAD = {
    "syntax": ("INSERT", "NEW.n >"),
    "column": ("INSERT", "NEW.nope = 1"),
    "no row of that name": ("INSERT", "OLD.n = 1"),
    "nor that": ("DELETE", "NEW.n = 1"),
    "table": ("UPDATE", "NEW.n IN (SELECT n FROM nowhere)"),
    "function": ("UPDATE", "nonsense(NEW.n)"),
    "arguments": ("UPDATE", "abs(NEW.n, 1)"),
    "fails on a row": ("UPDATE", "json_extract(NEW.name, '$.a')"),
    "fails on an old row": ("DELETE", "abs(OLD.n + -9223372036854775807 - 2)"),
    "raises": ("INSERT", "RAISE(ABORT, 'never')"),
    "a parameter": ("INSERT", "NEW.n = ?"),
    "aggregate": ("INSERT", "count(NEW.n)"),
    "several": ("INSERT", "TRUE; DROP TABLE ps_kv"),
    "brackets": ("INSERT", "TRUE) OR (TRUE"),
    "open bracket": ("INSERT", "(TRUE"),
    "open string": ("INSERT", "NEW.name = 'abc"),
    "open comment": ("INSERT", "TRUE /* abc"),
    "a trigger's body": ("INSERT", "TRUE) BEGIN DELETE FROM ps_kv; END; --"),
    "temporary": ("INSERT", "NEW.n IN (SELECT n FROM temp.passing)"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("source", ["lists", "t"])
async def test_b3_a_bad_condition_is_refused(db: Database, case: str, source: str) -> None:
    operation, when = BAD[case]
    await db.execute("CREATE TABLE t(id TEXT PRIMARY KEY, name, n)")
    await db.execute("CREATE TEMP TABLE passing(n)")
    await db.execute(f"INSERT INTO {source}(id, name, n) VALUES ('a', 'no json', 1)")
    before = await leftovers(db)
    with pytest.raises(InvalidWhenError, match=operation) as caught:
        await db.triggers.create_diff_trigger(source, "d", when={operation: when}, persist=True)
    assert when in str(caught.value)
    assert await leftovers(db) == before
    await db.execute(f"INSERT INTO {source}(id, n) VALUES ('b', 2)")
    await db.execute(f"UPDATE {source} SET n = 3")
    await db.execute(f"DELETE FROM {source}")
    assert await db.fetch_value(f"SELECT count(*) FROM {source}") == 0


async def test_b3_trying_changes_nothing(db: Database) -> None:
    await db.execute("CREATE TABLE t(k INTEGER PRIMARY KEY, n NOT NULL CHECK (n > 0))")
    await db.execute("CREATE TABLE heard(what)")
    await db.execute("CREATE TRIGGER own AFTER UPDATE ON t BEGIN INSERT INTO heard VALUES (1); END")
    await db.execute("INSERT INTO t VALUES (1, 1)")
    when = {"INSERT": "NEW.n > 1", "UPDATE": "NEW.n > 1", "DELETE": "OLD.n > 1"}
    async with await db.triggers.create_diff_trigger("t", "d", when=when):
        assert [tuple(row) for row in await db.fetch_all("SELECT * FROM t")] == [(1, 1)]
        assert await db.fetch_all("SELECT * FROM heard") == []
        assert await ids(db) == []


async def test_b3_what_somebody_else_broke_is_not_our_condition(db: Database) -> None:
    await db.execute("CREATE TABLE t(n)")
    await db.execute("CREATE TRIGGER own AFTER INSERT ON t BEGIN INSERT INTO gone VALUES (1); END")
    async with await db.triggers.create_diff_trigger(
        "t", "d", when={"INSERT": "NEW.n > 1", "DELETE": "OLD.n > 1"}
    ):
        with pytest.raises(apsw.SQLError, match="gone"):
            await db.execute("INSERT INTO t VALUES (2)")


@pytest.mark.here
@pytest.mark.parametrize("when", ["mine(NEW.n)", "MINE (NEW.n) > 1", "NEW.name REGEXP 'a'"])
async def test_b3_a_function_of_this_connection_only(db: Database, when: str) -> None:
    """Others could not even write to the source."""
    async with db.write_transaction() as tx:
        tx.connection.create_scalar_function("mine", lambda n: n)
        tx.connection.create_scalar_function("regexp", lambda pattern, text: pattern == text)
    with pytest.raises(InvalidWhenError, match="persist=False"):
        await db.triggers.create_diff_trigger("lists", "d", when={"INSERT": when}, persist=True)
    assert await leftovers(db) == []
    async with await db.triggers.create_diff_trigger(
        "lists", "d", when={"INSERT": when}, persist=False
    ):
        await db.execute("INSERT INTO lists(id, n, name) VALUES ('a', 5, 'a')")
        assert await ids(db) == [("INSERT", "a")]


@pytest.mark.here
async def test_a_column_may_be_called_like_a_function(db: Database) -> None:
    await db.execute("CREATE TABLE t(match, mine)")
    async with db.write_transaction() as tx:
        tx.connection.create_scalar_function("mine", lambda n: n)
    when = {"INSERT": "NEW.match = 1 AND NEW.mine = 2"}
    async with await db.triggers.create_diff_trigger("t", "d", when=when, persist=True):
        await db.execute("INSERT INTO t VALUES (1, 2), (2, 1)")
        assert await ids(db) == [("INSERT", "1")]
