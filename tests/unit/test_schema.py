"""JSON-backed views: what is declared, what is made, what is read, written and queued."""

from __future__ import annotations

import itertools
import json
import math
import random
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import holdfast
from holdfast.schema import MAX_COLUMNS, Column, Schema, Table, next_tx_id, stored_tables
from holdfast.session.transactions import LocalTransaction

LISTS = Table("lists", [Column.text("name"), Column.integer("n"), Column.real("x")])


class Plain(LocalTransaction):
    """As much of a transaction as a schema needs, on a connection of its own."""

    def __init__(self, path: str = ":memory:") -> None:
        self.raw = apsw.Connection(path)
        self.raw.execute("PRAGMA recursive_triggers = ON")

    def run_sql(self, sql: str, params: Any = ()) -> list[tuple[Any, ...]]:
        return self.raw.execute(sql, params).fetchall()

    def crud(self) -> list[tuple[int, dict[str, Any]]]:
        return [
            (tx_id, json.loads(data))
            for tx_id, data in self.run_sql("SELECT tx_id, data FROM ps_crud ORDER BY id")
        ]


async def applied(*tables: Table) -> Plain:
    tx = Plain()
    await Schema(tables).apply(tx)
    return tx


# -- declarations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Column.text(""), ValueError, "empty"),
        (lambda: Column.text(3), TypeError, "int"),  # type: ignore[arg-type]
        (lambda: Column("a", "BLOB"), ValueError, "BLOB"),
        (lambda: Column.text("a\0b"), ValueError, "NUL"),
        (lambda: Column.text("a\ud800"), ValueError, "surrogate"),
        (lambda: Column.text("True"), ValueError, "even in quotes"),
        (lambda: Table("ps_x", []), ValueError, "begin with"),
        (lambda: Table("SQLITE_x", []), ValueError, "begin with"),
        (lambda: Table("a", [], view_name="PS_b"), ValueError, "begin with"),
        (lambda: Table(None, []), TypeError, "NoneType"),  # type: ignore[arg-type]
        (lambda: Table("a", [Column.text("ID")]), ValueError, "'ID'"),
        (lambda: Table("a", [Column.text("b"), Column.real("B")]), ValueError, "'B'"),
        (lambda: Table("a", ["b"]), TypeError, "Column.text"),  # type: ignore[list-item]
        (lambda: Table("a", [], local_only=1), TypeError, "local_only"),  # type: ignore[arg-type]
        (lambda: Table("a", [], local_only=True, insert_only=True), ValueError, "choose"),
        (
            lambda: Table("a", [Column.text(f"c{i}") for i in range(MAX_COLUMNS + 1)]),
            ValueError,
            "2000",
        ),
        (lambda: Schema([Table("a", []), Table("A", [])]), ValueError, "'A'"),
        (lambda: Schema([Table("a", []), Table("b", [], view_name="a")]), ValueError, "'a'"),
        (lambda: Schema(Table("a", [])), TypeError, r"write Schema\(\[Table"),  # type: ignore[arg-type]
        (lambda: Schema(["a"]), TypeError, "Tables"),  # type: ignore[list-item]
    ],
)
def test_wrong_declarations_are_refused(
    make: Callable[[], object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        make()


def test_application_names() -> None:
    schema = Schema([LISTS, Table("t", [], view_name="shown", local_only=True)])
    names = ["ps_data__lists", "ps_data_local__t", "ps_crud", "ps_kv", "sqlite_sequence", "own"]
    assert [schema.application_name(name) for name in names] == [
        "lists",
        "shown",
        None,
        None,
        None,
        "own",
    ]


# -- applying --------------------------------------------------------------------------------------


async def test_apply_does_nothing_the_second_time() -> None:
    tx = await applied(LISTS)
    version = tx.raw.pragma("schema_version")
    assert await Schema([LISTS]).apply(tx) is False
    assert tx.raw.pragma("schema_version") == version


async def test_apply_changes_only_what_differs() -> None:
    other = Table("other", [Column.text("a")])
    tx = await applied(LISTS, other)
    tx.run_sql("INSERT INTO lists(id, name) VALUES ('1', 'one')")
    before = dict(tx.run_sql("SELECT name, rowid FROM sqlite_master"))
    wider = Table("lists", [*LISTS.columns, Column.text("more")])
    assert await Schema([wider, other]).apply(tx) is True
    after = dict(tx.run_sql("SELECT name, rowid FROM sqlite_master"))
    assert {name for name in after if after[name] == before.get(name)} >= {
        "other",
        "ps_data__lists",
        "ps_view_insert__other",
    }
    assert tx.run_sql("SELECT id, name, more FROM lists") == [("1", "one", None)]


async def test_a_trigger_that_was_dropped_is_made_again() -> None:
    tx = await applied(LISTS)
    tx.run_sql("DROP TRIGGER ps_view_update__lists")
    assert await Schema([LISTS]).apply(tx) is True
    tx.run_sql("INSERT INTO lists(id, n) VALUES ('1', 1); UPDATE lists SET n = 2")
    assert tx.run_sql("SELECT n FROM lists") == [(2,)]


async def test_a_table_that_is_gone_keeps_its_data_and_loses_its_view() -> None:
    tx = await applied(LISTS)
    tx.run_sql("INSERT INTO lists(id, name) VALUES ('1', 'one')")
    await Schema([]).apply(tx)
    with pytest.raises(apsw.SQLError, match="no such table: lists"):
        tx.run_sql("SELECT * FROM lists")
    await Schema([LISTS]).apply(tx)
    assert tx.run_sql("SELECT name FROM lists") == [("one",)]


async def test_a_view_can_be_renamed() -> None:
    tx = await applied(LISTS)
    tx.run_sql("INSERT INTO lists(id, name) VALUES ('1', 'one')")
    await Schema([Table("lists", LISTS.columns, view_name="shown")]).apply(tx)
    assert tx.run_sql("SELECT name FROM shown") == [("one",)]
    assert [table.view_name for table in stored_tables(tx)] == ["shown"]


async def test_without_a_declaration_views_stay_and_have_their_names() -> None:
    tx = await applied(Table("lists", LISTS.columns, view_name="shown"))
    undeclared = Schema.undeclared()
    assert await undeclared.apply(tx) is False
    assert undeclared.application_name("ps_data__lists") == "shown"
    assert tx.run_sql("SELECT count(*) FROM shown") == [(0,)]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("CREATE TABLE lists(a)", "a table named 'lists'"),
        ("CREATE VIEW Lists AS SELECT 1", "a view named 'Lists'"),
        ("CREATE TABLE t(a); CREATE INDEX lists ON t(a)", "an index named 'lists'"),
        ("CREATE VIEW ps_data__lists AS SELECT 1", "a view named 'ps_data__lists'"),
    ],
)
async def test_what_the_application_made_is_not_replaced(sql: str, says: str) -> None:
    tx = Plain()
    tx.run_sql(sql)
    before = tx.run_sql("SELECT * FROM sqlite_master")
    with pytest.raises(ValueError, match=says):
        await Schema([LISTS]).apply(tx)
    assert tx.run_sql("SELECT * FROM sqlite_master") == before


async def test_what_a_view_was_made_from_is_read_back() -> None:
    odd = Table("*/ -- 'x'", [Column.text("a/*b*/"), Column.real('"')], local_only=True)
    tx = await applied(LISTS, odd, Table("log", [Column.text("a")], insert_only=True))
    found = {table.name: table for table in stored_tables(tx)}
    assert set(found) == {"lists", "*/ -- 'x'", "log"}
    assert found["*/ -- 'x'"].columns == odd.columns
    assert found["*/ -- 'x'"].local_only
    assert found["log"].insert_only
    assert found["lists"].columns == LISTS.columns


# -- reading and writing ---------------------------------------------------------------------------


async def test_rows_are_written_through_the_view() -> None:
    tx = await applied(LISTS)
    tx.run_sql("INSERT INTO lists(id, name, n, x) VALUES ('1', 'one', 9007199254740993, 0.1)")
    tx.run_sql("INSERT INTO lists(id, name) VALUES ('2', 'two')")
    tx.run_sql("UPDATE lists SET name = 'zwei' WHERE id = '2'")
    tx.run_sql("INSERT INTO lists(id) VALUES ('3')")
    tx.run_sql("DELETE FROM lists WHERE id = '3'")
    assert tx.run_sql("SELECT * FROM lists ORDER BY id") == [
        ("1", "one", 9007199254740993, 0.1),
        ("2", "zwei", None, None),
    ]
    assert tx.run_sql("SELECT data FROM ps_data__lists WHERE id = '2'") == [('{"name":"zwei"}',)]


async def test_columns_are_typed() -> None:
    tx = await applied(LISTS)
    tx.run_sql(
        "INSERT INTO ps_data__lists VALUES ('1', ?)",
        (json.dumps({"name": 5, "n": "12 apples", "x": 3, "extra": [1]}),),
    )
    row = tx.run_sql("SELECT name, n, x, typeof(x) FROM lists")
    assert row == [("5", 12, 3.0, "real")]


async def test_broken_json_shows_nulls_and_spares_the_other_rows() -> None:
    tx = await applied(LISTS)
    tx.run_sql("INSERT INTO ps_data__lists VALUES ('1', '{broken'), ('2', '{}'), ('3', NULL)")
    tx.run_sql("UPDATE lists SET n = 2 WHERE id = '2'")
    assert tx.run_sql("SELECT id, n FROM lists ORDER BY id") == [("1", None), ("2", 2), ("3", None)]
    tx.run_sql("UPDATE lists SET n = 1 WHERE id = '1'")
    assert tx.run_sql("SELECT n FROM lists WHERE id = '1'") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("INSERT INTO lists(name) VALUES ('a')", "id is required"),
        ("INSERT INTO lists(id) VALUES (1)", "id must be text"),
        ("UPDATE lists SET id = 'other'", "id cannot be changed"),
        ("INSERT INTO lists(id, name) VALUES ('b', x'00')", "BLOB"),
        ("INSERT INTO lists(id) VALUES ('a')", "UNIQUE"),
    ],
)
async def test_wrong_writes_fail_and_write_nothing(sql: str, says: str) -> None:
    tx = await applied(LISTS)
    tx.run_sql("INSERT INTO lists(id) VALUES ('a')")
    with pytest.raises((apsw.SQLError, apsw.ConstraintError), match=says):
        tx.run_sql(sql)
    assert tx.run_sql("SELECT id FROM lists") == [("a",)]
    assert len(tx.crud()) == 1


async def test_each_write_is_queued() -> None:
    tx = await applied(LISTS)
    tx.run_sql("INSERT INTO lists(id, name, n) VALUES ('1', 'one', NULL)")
    tx.run_sql("UPDATE lists SET n = 5, name = 'one'")
    tx.run_sql("UPDATE lists SET n = NULL")
    next_tx_id(tx)
    tx.run_sql("DELETE FROM lists")
    assert tx.crud() == [
        (1, {"op": "PUT", "type": "lists", "id": "1", "data": {"name": "one"}}),
        (1, {"op": "PATCH", "type": "lists", "id": "1", "data": {"n": 5}}),
        (1, {"op": "PATCH", "type": "lists", "id": "1", "data": {"n": None}}),
        (2, {"op": "DELETE", "type": "lists", "id": "1"}),
    ]


async def test_replace_is_queued_and_ignore_is_not() -> None:
    tx = await applied(LISTS)
    tx.run_sql("INSERT INTO lists(id, n) VALUES ('1', 1)")
    tx.run_sql("INSERT OR IGNORE INTO lists(id, n) VALUES ('1', 2)")
    tx.run_sql("INSERT OR REPLACE INTO lists(id, n) VALUES ('1', 3)")
    assert tx.run_sql("SELECT n FROM lists") == [(3,)]
    assert [entry["data"]["n"] for _, entry in tx.crud()] == [1, 3]


async def test_text_from_a_json_function_is_text() -> None:
    tx = await applied(LISTS)
    tx.run_sql("INSERT INTO lists(id, name) SELECT '1', json_object('a', 1)")
    tx.run_sql("INSERT INTO lists(id, name) VALUES ('2', json_array(1))")
    tx.run_sql("UPDATE lists SET name = json_array(name) WHERE id = '1'")
    tx.run_sql("INSERT INTO lists(id) SELECT json_array(5)")
    assert tx.crud().pop()[1]["id"] == "[5]"
    assert [entry["data"]["name"] for _, entry in tx.crud()[:3]] == [
        '{"a":1}',
        "[1]",
        r'["{\"a\":1}"]',
    ]


async def test_local_only_is_not_queued() -> None:
    tx = await applied(Table("lists", LISTS.columns, local_only=True))
    tx.run_sql("INSERT INTO lists(id, n) VALUES ('1', 1); UPDATE lists SET n = 2")
    assert tx.run_sql("SELECT id FROM ps_data_local__lists") == [("1",)]
    tx.run_sql("DELETE FROM lists")
    assert tx.crud() == []


async def test_insert_only_is_queued_and_not_stored() -> None:
    tx = await applied(Table("log", [Column.text("line")], insert_only=True))
    tx.run_sql("INSERT INTO log(id, line) VALUES ('1', 'a')")
    assert tx.run_sql("SELECT * FROM log") == []
    assert [entry for _, entry in tx.crud()] == [
        {"op": "PUT", "type": "log", "id": "1", "data": {"line": "a"}}
    ]
    with pytest.raises(apsw.SQLError, match="it is a view"):
        tx.run_sql("DELETE FROM log")
    assert tx.run_sql("SELECT 1 FROM sqlite_master WHERE name = 'ps_data__log'") == []


async def test_as_many_columns_as_sqlite_has() -> None:
    wide = Table("wide", [Column.integer(f"c{i}") for i in range(MAX_COLUMNS)])
    tx = await applied(wide)
    tx.run_sql("INSERT INTO wide(id, c0, c1998) VALUES ('1', 1, 2)")
    tx.run_sql("UPDATE wide SET c700 = 3")
    assert tx.run_sql("SELECT c0, c700, c1998 FROM wide") == [(1, 3, 2)]
    assert [entry["data"] for _, entry in tx.crud()] == [{"c0": 1, "c1998": 2}, {"c700": 3}]


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
).filter(lambda name: name.lower() not in ("true", "false"))


def bits(value: float) -> bytes:
    # SQL cannot tell the two zeros apart.
    return struct.pack(">d", value + 0.0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=NAMES, column=NAMES, text=st.text(), number=st.floats(allow_nan=False))
async def test_any_name_and_any_value(table: str, column: str, text: str, number: float) -> None:
    if column.lower() == "id" or table.lower().startswith(("ps_", "sqlite_")):
        return
    tx = await applied(Table(table, [Column.text(column), Column.real(f"{column} 2")]))
    quoted = '"' + table.replace('"', '""') + '"'
    tx.run_sql(f"INSERT INTO {quoted} VALUES ('a', ?, ?)", (text, number))
    ((_, read, real),) = tx.run_sql(f"SELECT * FROM {quoted}")
    assert read == text
    assert bits(real) == bits(number)
    ((_, entry),) = tx.crud()
    assert entry["type"] == table
    assert entry["data"] == {column: text, f"{column} 2": number}


async def test_an_older_sqlite_reads_and_writes_the_views(tmp_path: Path) -> None:
    tx = Plain(str(tmp_path / "a.db"))
    await Schema([LISTS]).apply(tx)
    tx.raw.close()
    numbers = [0.1, 0.1 + 0.2, 1.7976931348623157e308, 5e-324, math.inf, -1e-300]
    other = sqlite3.connect(tmp_path / "a.db")
    other.executemany(
        "INSERT INTO lists(id, x) VALUES (?, ?)", [(str(i), x) for i, x in enumerate(numbers)]
    )
    assert [x for (x,) in other.execute("SELECT x FROM lists ORDER BY id")] == numbers
    stored = other.execute("SELECT data FROM ps_data__lists ORDER BY id")
    assert [json.loads(data)["x"] for (data,) in stored] == numbers
    other.close()


# -- versions of an application beside each other --------------------------------------------------


def keys(tx: Any, row: str = "1") -> dict[str, Any]:
    ((data,),) = tx.run_sql("SELECT data FROM ps_data__lists WHERE id = ?", (row,))
    pairs: list[tuple[str, Any]] = json.loads(data, object_pairs_hook=list)
    return dict(pairs)


@pytest.mark.parametrize("columns", [0, 1, 98, 99, 100, 250])
async def test_an_update_leaves_unknown_keys_as_they_are(columns: int) -> None:
    table = Table("lists", [Column.integer(f"c{i}") for i in range(columns)] + [Column.text("t")])
    tx = await applied(table)
    unknown = '"a,b":{"c" : [1.10, 12345678901234567890]},"é\\u0041":"}","":null,"z":1.50'
    for known in ("", '"t":"x",', '"t":null,"c0":1,'):
        tx.run_sql(
            "INSERT OR REPLACE INTO ps_data__lists VALUES ('1', ?)", (f"{{{known}{unknown}}}",)
        )
        tx.run_sql("UPDATE lists SET t = 'y,'")
        assert tx.run_sql("SELECT t FROM lists") == [("y,",)]
        ((data,),) = tx.run_sql("SELECT data FROM ps_data__lists")
        assert data.replace(" ", "").endswith(unknown.replace(" ", "") + "}")
        tx.run_sql("UPDATE lists SET t = NULL")
        assert "t" not in keys(tx) and keys(tx)["z"] == 1.5
    assert all(set(entry["data"]) == {"t"} for _, entry in tx.crud())


@pytest.mark.parametrize("data", ["[1]", "5", "{broken", '""', None, "null", "{}"])
async def test_what_is_no_object_is_written_anew(data: str | None) -> None:
    tx = await applied(LISTS)
    tx.run_sql("INSERT INTO ps_data__lists VALUES ('1', ?)", (data,))
    tx.run_sql("UPDATE lists SET n = 1, name = 'a'")
    assert keys(tx) == {"name": "a", "n": 1}


async def test_of_a_key_that_is_there_twice_the_new_value_counts() -> None:
    tx = await applied(LISTS)
    tx.run_sql("INSERT INTO ps_data__lists VALUES ('1', '{\"n\":1,\"n\":2}')")
    tx.run_sql("UPDATE lists SET n = 3")
    assert tx.run_sql("SELECT n FROM lists") == [(3,)]


async def test_an_older_schema_spares_a_newer_one() -> None:
    newer = Table("lists", [*LISTS.columns, Column.text("more")])
    tx = await applied(newer)
    tx.run_sql("INSERT INTO lists(id, name, more) VALUES ('1', 'one', 'more')")
    version = tx.raw.pragma("schema_version")
    older = Schema([Table("lists", [Column.text("NAME"), Column.integer("n"), Column.real("x")])])
    assert await Schema([LISTS]).apply(tx) is False
    assert tx.raw.pragma("schema_version") == version
    tx.run_sql("UPDATE lists SET n = 2")
    assert tx.run_sql("SELECT name, n, more FROM lists") == [("one", 2, "more")]
    assert tx.crud()[1][1]["data"] == {"n": 2}
    await older.apply(tx)
    assert [column.name for column in stored_tables(tx)[0].columns] == ["NAME", "n", "x", "more"]
    # A column that both declare has the type of the last.
    await Schema([Table("lists", [Column.text("n"), Column.text("last")])]).apply(tx)
    assert [(column.name, column.type) for column in stored_tables(tx)[0].columns] == [
        ("NAME", "TEXT"),
        ("n", "TEXT"),
        ("x", "REAL"),
        ("more", "TEXT"),
        ("last", "TEXT"),
    ]
    # A table of another name is another table.
    await Schema([Table("others", [Column.text("a")], view_name="lists")]).apply(tx)
    assert [column.name for column in stored_tables(tx)[0].columns] == ["a"]


KINDS: dict[str, dict[str, Any]] = {
    "queued": {},
    "local": {"local_only": True},
    "stored nowhere": {"insert_only": True},
}


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=3)), ids=" ".join)
async def test_rows_stay_in_the_view_wherever_they_are_stored(kinds: tuple[str, ...]) -> None:
    """And nothing that a version of the application moves is queued."""
    tx = Plain()
    expected: list[str] = []
    for step, kind in enumerate(kinds):
        schema = Schema([Table("lists", [Column.text("name")], **KINDS[kind])])
        await schema.apply(tx)
        # A view of the application's own stands over it all the time.
        tx.run_sql("CREATE VIEW IF NOT EXISTS mine AS SELECT name FROM lists")
        queued = len(tx.crud())
        tx.run_sql("INSERT INTO lists(id, name) VALUES (?, ?)", (str(step), kind))
        assert len(tx.crud()) == queued + (kind != "local")
        if kind != "stored nowhere":
            expected.append(kind)
        shown = [] if kind == "stored nowhere" else expected
        assert tx.run_sql("SELECT name FROM lists ORDER BY id") == [(name,) for name in shown]
        assert await schema.apply(tx) is False
        assert {schema.application_name(f"ps_data{local}__lists") for local in ("", "_local")} == {
            "lists"
        }


async def test_versions_that_take_turns_lose_no_write() -> None:
    """The one shown last wins where both have the row."""
    tx = Plain()
    for local in (False, True, False, True):
        await Schema([Table("lists", LISTS.columns, local_only=local)]).apply(tx)
        tx.run_sql("DELETE FROM lists WHERE id = 'a'")
        tx.run_sql("INSERT INTO lists(id, n) VALUES ('a', ?)", (local,))
        assert tx.run_sql("SELECT id, n FROM lists") == [("a", int(local))]
    # As two versions left it that knew nothing of each other.
    tx.run_sql("CREATE TABLE ps_data__lists(id TEXT PRIMARY KEY NOT NULL, data TEXT)")
    tx.run_sql("""INSERT INTO ps_data__lists VALUES ('a', '{"n":7}'), ('b', '{"n":8}')""")
    await Schema([LISTS]).apply(tx)
    assert tx.run_sql("SELECT id, n FROM lists ORDER BY id") == [("a", 1), ("b", 8)]


async def test_too_many_columns_are_those_of_the_last() -> None:
    wide = [Column.text(f"a{i}") for i in range(MAX_COLUMNS)]
    tx = await applied(Table("lists", wide))
    await Schema([LISTS]).apply(tx)
    assert stored_tables(tx)[0].columns == LISTS.columns


async def test_a_view_of_others_stays_as_long_as_they_are_there() -> None:
    tx = await applied(LISTS, Table("new", [Column.text("a")]))
    assert await Schema([LISTS]).apply(tx, alone=False) is False
    assert await Schema([LISTS]).apply(tx) is True
    assert [table.name for table in stored_tables(tx)] == ["lists"]


@pytest.mark.parametrize("seed", range(30))
async def test_no_row_is_lost_whatever_the_versions_say_of_it(tmp_path: Path, seed: int) -> None:
    """One version after the other, each alone, some of them without the table."""
    chance = random.Random(seed)
    columns = [Column.text("name")]
    versions = (
        Schema([Table("lists", columns)]),
        Schema([Table("lists", columns, local_only=True)]),
        Schema([Table("lists", columns, local_only=True, view_name="others")]),
        Schema([Table("things", columns)]),
        None,
    )
    written: set[str] = set()
    for number in range(8):
        schema = chance.choice(versions)
        async with holdfast.open(tmp_path / "a.db", schema) as db:
            names = {table.view_name for table in schema.tables} if schema else set()
            for view in names & {"lists", "others"}:
                rows = await db.fetch_all(f"SELECT id FROM {view}")
                assert {row["id"] for row in rows} == written, number
                await db.execute(f"INSERT INTO {view}(id, name) VALUES (?, ?)", (str(number), "x"))
                written.add(str(number))


async def test_of_two_rows_with_one_id_the_one_in_use_stays(tmp_path: Path) -> None:
    """As an older version of holdfast left them, which did not move the first."""
    path = tmp_path / "a.db"
    plain, local = (
        Schema([Table("lists", [Column.text("name")], local_only=x)]) for x in (False, True)
    )
    async with holdfast.open(path, local) as db:
        await db.execute("INSERT INTO lists VALUES ('a', 'new')")
        await db.execute('CREATE TABLE "ps_data__lists"(id TEXT PRIMARY KEY NOT NULL, data TEXT)')
        await db.execute("""INSERT INTO ps_data__lists VALUES ('a', '{"name":"old"}'),
            ('b', '{"name":"old"}')""")
    for schema in (local, plain, local):
        async with holdfast.open(path, schema) as db:
            rows = await db.fetch_all("SELECT * FROM lists ORDER BY id")
            assert rows == [("a", "new"), ("b", "old")]
