"""What a trigger can sit on, and that nothing of a row is lost on the way (P2, P13, B4, B14)."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import apsw
import pytest
from across import inside

import holdfast
from holdfast import Column, Database, Schema, Table, UnknownSourceError

from .conftest import SCHEMA, leftovers

pytestmark = pytest.mark.everywhere


async def records(db: Database, source: str, *writes: Any, **options: Any) -> list[dict[str, Any]]:
    """The destination's rows after `writes`, JSON parsed."""
    async with await db.triggers.create_diff_trigger(source, "a diff", **options):
        for write in writes:
            sql, params = write if isinstance(write, tuple) else (write, ())
            await db.execute(sql, params)
        rows = await db.fetch_all('SELECT * FROM "a diff" ORDER BY operation_id')
    parsed = []
    for row in rows:
        found = dict(row)
        for name in ("value", "previous_value"):
            found[name] = None if found[name] is None else json.loads(found[name])
        parsed.append(found)
    return parsed


def brief(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["operation"], row["id"], row["value"], row["previous_value"]) for row in rows]


async def test_p3_records_of_a_view(db: Database) -> None:
    rows = await records(
        db,
        "lists",
        "INSERT INTO lists(id, name, n) VALUES ('a', 'one', 1)",
        "UPDATE lists SET n = 2",
        "DELETE FROM lists",
    )
    assert brief(rows) == [
        ("INSERT", "a", {"name": "one", "n": 1, "x": None}, None),
        (
            "UPDATE",
            "a",
            {"name": "one", "n": 2, "x": None},
            {"name": "one", "n": 1, "x": None},
        ),
        ("DELETE", "a", {"name": "one", "n": 2, "x": None}, None),
    ]
    assert [row["operation_id"] for row in rows] == [1, 2, 3]
    assert list(rows[0])[:6] == [
        "operation_id",
        "id",
        "operation",
        "timestamp",
        "value",
        "previous_value",
    ]


async def test_p2_columns(db: Database) -> None:
    write = "INSERT INTO lists(id, name, n) VALUES ('{}', 'one', 1)"
    some = await records(db, "lists", write.format("a"), columns=["N", "id"])
    none = await records(db, "lists", write.format("b"), columns=[])
    assert brief(some) == [("INSERT", "a", {"n": 1, "id": "a"}, None)]
    assert brief(none) == [("INSERT", "b", {}, None)]


@pytest.mark.parametrize(
    ("columns", "error", "says"),
    [
        (["nope"], ValueError, "it has id, name, n, x"),
        (["n", "N"], ValueError, "twice"),
        ("name", TypeError, r"\['name'\]"),
        ([1], TypeError, "names"),
    ],
)
async def test_p2_wrong_columns(
    db: Database, columns: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await db.triggers.create_diff_trigger("lists", "a diff", columns=columns)
    assert await leftovers(db) == []


@pytest.mark.parametrize("name", ["lists", "LISTS", "drafts", "my drafts", "My Drafts"])
async def test_p13_a_view_by_any_of_its_names(db: Database, name: str) -> None:
    view = "lists" if name.lower() == "lists" else "my drafts"
    rows = await records(db, name, f"INSERT INTO \"{view}\"(id, n) VALUES ('a', 1)")
    assert brief(rows) == [("INSERT", "a", {"name": None, "n": 1, "x": None}, None)]


async def test_p13_a_trigger_sits_on_the_base_table(db: Database) -> None:
    async with await db.triggers.create_diff_trigger(
        "lists", "a diff", when={"INSERT": "NEW.n > 1"}
    ):
        for place in ("main", "temp"):
            for table, sql in await db.fetch_all(
                f"SELECT tbl_name, sql FROM {place}.sqlite_master WHERE name LIKE 'holdfast%'"
            ):
                assert table == "ps_data__lists"
                assert '"lists"' not in sql
    # So the view can go and come back while one is there.
    async with await db.triggers.create_diff_trigger("lists", "a diff"):
        async with inside(db).write_transaction() as tx:
            await Schema([]).apply(tx)
            await SCHEMA.apply(tx)
        await db.execute("INSERT INTO lists(id) VALUES ('a')")
        assert await db.fetch_value('SELECT id FROM "a diff"') == "a"


async def test_p13_an_older_schema_is_no_matter(database_name: str) -> None:
    """Views are found in the database, whoever declared them."""
    async with (
        holdfast.open(database_name, schema=SCHEMA) as one,
        await one.triggers.create_diff_trigger("my drafts", "a diff"),
    ):
        async with inside(one).write_transaction() as tx:
            table = Table("drafts", [Column.text("other")], local_only=True, view_name="my drafts")
            await Schema([table]).apply(tx)
        async with await one.triggers.create_diff_trigger("my drafts", "another"):
            await one.execute("INSERT INTO \"my drafts\"(id, other) VALUES ('a', 'b')")
            # Its columns stand beside those that were there.
            value = json.loads(await one.fetch_value("SELECT value FROM another"))
            assert value == {"name": None, "n": None, "x": None, "other": "b"}


TABLES: list[tuple[str, str, str, list[tuple[Any, ...]]]] = [
    (
        "an integer key",
        "CREATE TABLE t(k INTEGER PRIMARY KEY, v)",
        "INSERT INTO t VALUES (7, 'a'); UPDATE t SET k = 8; DELETE FROM t",
        [
            ("INSERT", "7", {"k": 7, "v": "a"}, None),
            ("UPDATE", "8", {"k": 8, "v": "a"}, {"k": 7, "v": "a"}),
            ("DELETE", "8", {"k": 8, "v": "a"}, None),
        ],
    ),
    (
        "a composite key, in its own order",
        "CREATE TABLE t(a, b, v, PRIMARY KEY (b, a)) WITHOUT ROWID",
        "INSERT INTO t VALUES (1, 'x', NULL); UPDATE t SET v = 2",
        [
            ("INSERT", '["x",1]', {"a": 1, "b": "x", "v": None}, None),
            ("UPDATE", '["x",1]', {"a": 1, "b": "x", "v": 2}, {"a": 1, "b": "x", "v": None}),
        ],
    ),
    (
        "no key",
        "CREATE TABLE t(v)",
        "INSERT INTO t(rowid, v) VALUES (-5, 'a'); UPDATE t SET rowid = 3",
        [("INSERT", "-5", {"v": "a"}, None), ("UPDATE", "3", {"v": "a"}, {"v": "a"})],
    ),
    (
        "no key, and columns that hide the rowid's first names",
        "CREATE TABLE t(rowid, _rowid_)",
        "INSERT INTO t(oid, rowid) VALUES (4, 'a')",
        [("INSERT", "4", {"rowid": "a", "_rowid_": None}, None)],
    ),
    (
        "a blob for a key",
        "CREATE TABLE t(k PRIMARY KEY) WITHOUT ROWID",
        "INSERT INTO t VALUES (x'00ff'), (1.5), (9223372036854775807)",
        [
            ("INSERT", "00FF", {"k": {"blob": "00FF"}}, None),
            ("INSERT", "1.5", {"k": 1.5}, None),
            ("INSERT", "9223372036854775807", {"k": 9223372036854775807}, None),
        ],
    ),
    (
        "odd names",
        """CREATE TABLE t("order" TEXT PRIMARY KEY, "my-col", "a""b", "it's", "NEW", "ключ")""",
        """INSERT INTO t VALUES ('k', 1, 2, 3, 4, 5)""",
        [
            (
                "INSERT",
                "k",
                {"order": "k", "my-col": 1, 'a"b': 2, "it's": 3, "NEW": 4, "ключ": 5},
                None,
            )
        ],
    ),
    (
        "generated columns",
        """CREATE TABLE t(a PRIMARY KEY, v AS (json_array(a)), s AS (a || '!') STORED)""",
        "INSERT INTO t VALUES (1); DELETE FROM t",
        [
            ("INSERT", "1", {"a": 1, "v": "[1]", "s": "1!"}, None),
            ("DELETE", "1", {"a": 1, "v": "[1]", "s": "1!"}, None),
        ],
    ),
]


@pytest.mark.parametrize(
    ("create", "writes", "expected"), [t[1:] for t in TABLES], ids=[t[0] for t in TABLES]
)
async def test_b4_any_table(
    db: Database, create: str, writes: str, expected: list[tuple[Any, ...]]
) -> None:
    await db.execute(create)
    assert brief(await records(db, "T", *writes.split("; "))) == expected


async def test_b4_an_update_that_changes_the_key_has_both(db: Database) -> None:
    await db.execute("CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY)")
    rows = await records(
        db, "t", "INSERT INTO t VALUES ('a')", "UPDATE t SET k = 'A'", "UPDATE t SET k = 'A'"
    )
    assert [(row["id"], row["previous_id"]) for row in rows] == [
        ("a", None),
        ("A", "a"),
        ("A", None),
    ]


async def test_b4_any_value(db: Database) -> None:
    values = {
        "text": 'quo"te \\ \n \x01 é 😀 \0 end',
        "whole": -(2**63),
        "real": 0.1 + 0.2,
        "tiny": 5e-324,
        "infinite": float("-inf"),
        "bytes": b"\x00\xff",
        "no bytes": b"",
        "null": None,
        "like json": '{"blob": "00"}',
    }
    names = ", ".join(f'"{name}"' for name in values)
    await db.execute(f"CREATE TABLE t(k INTEGER PRIMARY KEY, {names})")
    marks = ", ".join("?" for _ in values)
    (row,) = await records(
        db, "t", (f"INSERT INTO t({names}) VALUES ({marks})", tuple(values.values()))
    )
    expected = {"k": 1, **values, "bytes": {"blob": "00FF"}, "no bytes": {"blob": ""}}
    assert row["value"] == expected
    assert [type(value) for value in row["value"].values()] == [
        type(value) for value in expected.values()
    ]


async def test_b4_text_from_a_json_function_is_text(db: Database) -> None:
    await db.execute(
        "CREATE TABLE t(v, g AS (v), h AS (json_array(1)), s AS (json_array(1)) STORED)"
    )
    (row,) = await records(db, "t", "INSERT INTO t VALUES (json_array(2))")
    assert row["value"] == {"v": "[2]", "g": "[2]", "h": "[1]", "s": "[1]"}
    await db.execute("CREATE TABLE u(a, b, PRIMARY KEY (a, b))")
    (row,) = await records(db, "u", "INSERT INTO u SELECT json_array(1), json_object('b', 2)")
    assert row["id"] == r"""["[1]","{\"b\":2}"]"""
    (row,) = await records(
        db,
        "lists",
        """INSERT INTO ps_data__lists SELECT json_array(1), '{"name": [{"a": null}]}'""",
        columns=["id", "name"],
    )
    assert row["value"] == {"id": "[1]", "name": '[{"a":null}]'}


async def test_b4_many_columns() -> None:
    names = [f"c{number}" for number in range(1999)]
    async with holdfast.open("wide", storage="memory") as db:
        await db.execute(f"CREATE TABLE t({', '.join(names)})")
        insert, update = await records(
            db,
            "t",
            "INSERT INTO t(c0, c598) VALUES (1, 2)",
            "UPDATE t SET c3 = 4",
            only_changed=True,
        )
    assert insert["value"] == dict.fromkeys(names) | {"c0": 1, "c598": 2}
    assert update["value"] == insert["value"] | {"c3": 4}


async def test_b4_many_columns_of_a_view(database_name: str) -> None:
    names = [f"c{number}" for number in range(1999)]
    schema = Schema([Table("wide", [Column.integer(name) for name in names])])
    async with holdfast.open(database_name, schema=schema) as db:
        (row,) = await records(
            db,
            "wide",
            "INSERT INTO wide(id, c1998) VALUES ('a', 1)",
            when={"INSERT": "NEW.c1998 = 1 AND NEW.c7 IS NULL"},
        )
    assert row["value"] == dict.fromkeys(names) | {"c1998": 1}


async def test_b4_broken_json_makes_no_write_fail(db: Database) -> None:
    rows = await records(
        db,
        "lists",
        "INSERT INTO ps_data__lists VALUES ('a', '{broken')",
        "UPDATE ps_data__lists SET data = NULL",
        "UPDATE ps_data__lists SET data = '[1]'",
        'UPDATE ps_data__lists SET data = \'{"n": "5 apples", "x": 2, "other": 1}\'',
        when={"INSERT": "NEW.n IS NULL", "UPDATE": "TRUE"},
        columns=["n", "x", "id"],
    )
    assert [row["value"] for row in rows] == [
        {"n": None, "x": None, "id": "a"},
        {"n": None, "x": None, "id": "a"},
        {"n": None, "x": None, "id": "a"},
        {"n": 5, "x": 2.0, "id": "a"},
    ]


async def test_b4_other_programs_write_without_us(file: Path) -> None:
    """The Python library's SQLite, an older one, fires the same triggers to the same effect."""
    numbers = [0.1 + 0.2, 1.7976931348623157e308, 5e-324, float("inf"), -1e-7]
    async with holdfast.open(str(file), schema=SCHEMA) as db:
        await db.execute("CREATE TABLE t(k INTEGER PRIMARY KEY, v)")
        async with (
            await db.triggers.create_diff_trigger("t", "one"),
            await db.triggers.create_diff_trigger("lists", "two"),
        ):
            other = sqlite3.connect(file)
            other.executemany("INSERT INTO t(v) VALUES (?)", [(number,) for number in numbers])
            other.execute("INSERT INTO lists(id, x) VALUES ('a', ?)", (numbers[0],))
            other.execute("UPDATE t SET v = x'00' WHERE k = 1")
            other.execute("DELETE FROM t")
            other.commit()
            other.close()
            found = await db.fetch_all("SELECT value FROM one WHERE operation = 'INSERT'")
            assert [json.loads(row[0])["v"] for row in found] == numbers
            assert await db.fetch_value("SELECT count(*) FROM one") == 11
            assert json.loads(await db.fetch_value("SELECT value FROM two"))["x"] == numbers[0]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nope", "there are 'lists', 'log', 'mine', 'my drafts', 't'"),
        ("", "no table or view"),
        ("mine", "track the tables that it reads"),
        ("fts", "virtual"),
        ("fts_data", "shadow"),
        ("SQLITE_sequence", "not a table of the application"),
        ("ps_kv", "not a table of the application"),
        ("a diff", "not a table of the application"),
        ("hidden", "give it a primary key"),
    ],
)
async def test_p1_unknown_sources(db: Database, source: str, says: str) -> None:
    await db.execute("CREATE TABLE t(a)")
    await db.execute("CREATE VIEW mine AS SELECT * FROM t")
    await db.execute("CREATE VIRTUAL TABLE fts USING fts5(a)")
    if source == "hidden":
        await db.execute("CREATE TABLE hidden(rowid, oid, _rowid_)")
    async with await db.triggers.create_diff_trigger("t", "a diff", persist=True):
        before = await leftovers(db)
        with pytest.raises(UnknownSourceError, match=says):
            await db.triggers.create_diff_trigger(source, "another diff")
        assert await leftovers(db) == before


async def test_b14_insert_only_is_refused(db: Database) -> None:
    with pytest.raises(UnknownSourceError, match="never fire"):
        await db.triggers.create_diff_trigger("log", "a diff")
    assert await leftovers(db) == []


async def test_p14_names_are_quoted(db: Database) -> None:
    for name in ('di"ff', "it's", "select", "a;b --", "日本"):
        async with await db.triggers.create_diff_trigger("lists", name) as trigger:
            await db.execute("INSERT INTO lists(id) VALUES (?)", (name,))
            quoted = '"' + name.replace('"', '""') + '"'
            assert await db.fetch_value(f"SELECT id FROM {quoted}") == name
            assert trigger.destination == name
        with pytest.raises(apsw.SQLError, match="no such table"):
            await db.fetch_all(f"SELECT * FROM {quoted}")
