"""Whatever is done to whatever table, its diff tells it: replayed on what was there, it gives what
is there now, bit for bit."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

import apsw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import holdfast
from holdfast import Column, Database, DiffRecord, Schema, Table
from holdfast.sqlite.sqltext import quote_name
from holdfast.triggers.context import LocalContext
from holdfast.triggers.records import COLUMNS, fold_diff, read_diff

NAMES = ["a", "order", "my-col", 'quo"te', "id", "новый", "rowid", "value"]
NAMES += ["NEW", "back\\slash", "new\nline", "a.b", "a[0]", "$", "it's", " "]
VALUES = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.integers(-(2**63), 2**63 - 1),
    # The SQL that every SQLite has cannot tell -0.0 from 0.0: it is recorded as the latter.
    st.floats(allow_nan=False).map(lambda x: x + 0.0),
    st.sampled_from(["a", "A", "b", "1", "1.0", "", '{"blob":"00"}', "null"]),
    st.text(max_size=4),
    st.binary(max_size=3),
    st.sampled_from([b"1", b"a"]),
)


@dataclass
class Made:
    """A random table: its columns that can be written, and how it is made."""

    columns: list[str]
    sql: str


@st.composite
def tables(draw: st.DrawFn) -> Made:
    columns = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    types = ["TEXT", "INTEGER", "REAL", "BLOB", "TEXT COLLATE NOCASE", "TEXT COLLATE RTRIM"]
    strict = draw(st.integers(0, 3)) == 0
    types += ["ANY", "INT"] if strict else ["", "NUMERIC", "VARCHAR(3)", "COLLATE NOCASE"]
    parts = [f"{quote_name(name)} {draw(st.sampled_from(types))}" for name in columns]
    key = draw(st.lists(st.sampled_from(columns), max_size=2, unique=True))
    without_rowid = bool(key) and draw(st.booleans())
    for name in columns:
        if draw(st.integers(0, 4)) == 0:
            kind = draw(st.sampled_from(["VIRTUAL", "STORED"]))
            what = draw(st.sampled_from(["{}", "json_array(typeof({}))", "length({})"]))
            of = "ANY" if strict else ""
            parts.append(
                f"{quote_name('g ' + name)} {of} AS ({what.format(quote_name(name))}) {kind}"
            )
    if key:
        parts.append(f"PRIMARY KEY ({', '.join(quote_name(name) for name in key)})")
    options = [("WITHOUT ROWID", without_rowid), ("STRICT", strict)]
    end = ", ".join(option for option, wanted in options if wanted)
    return Made(columns, f"CREATE TABLE t({', '.join(parts)}) {end}")


@st.composite
def statements(draw: st.DrawFn, columns: list[str]) -> tuple[str, list[Any]]:
    name = quote_name(draw(st.sampled_from(columns)))
    how = draw(st.sampled_from(["INSERT", "INSERT", "INSERT", "UPDATE", "DELETE"]))
    conflict = draw(st.sampled_from(["", " OR REPLACE", " OR IGNORE"]))
    names = ", ".join(quote_name(column) for column in columns)
    value = draw(VALUES)
    if how == "INSERT":
        # A text may come from a JSON function.
        marks = ", ".join(
            draw(st.sampled_from(["?", "?", "json_array(typeof(?))"])) for _ in columns
        )
        upsert = (
            "" if conflict else draw(st.sampled_from(["", f" ON CONFLICT DO UPDATE SET {name}=?"]))
        )
        params = [draw(VALUES) for _ in columns] + ([value] if upsert else [])
        return f"INSERT{conflict} INTO t({names}) VALUES ({marks}){upsert}", params
    where = draw(st.sampled_from(["", f" WHERE {name} > ?", f" WHERE {name} IS ?"]))
    params = [draw(VALUES)] if where else []
    if how == "DELETE":
        return f"DELETE FROM t{where}", params
    return f"UPDATE{conflict} t SET {name}=?{where}", [value, *params]


@st.composite
def histories(draw: st.DrawFn, columns: list[str]) -> list[list[tuple[str, list[Any]]]]:
    """Transactions, each a list of statements."""
    return draw(
        st.lists(st.lists(statements(columns), min_size=1, max_size=4), min_size=1, max_size=4)
    )


def bits(row: Any) -> tuple[Any, ...]:
    """A row by its values' types and bits; equal where nothing can tell them apart."""
    return tuple(
        struct.pack(">d", value) if isinstance(value, float) else (type(value), value)
        for value in row
    )


def replay(start: Counter[Any], records: list[DiffRecord]) -> Counter[Any]:
    rows = start.copy()
    for record in records:
        if record.previous is not None:
            rows[bits(record.previous.values())] -= 1
        if record.values is not None:
            rows[bits(record.values.values())] += 1
    return rows


async def contents(db: Database, source: str) -> Counter[Any]:
    rows = await db.fetch_all(f"SELECT * FROM {source}")
    return Counter(bits(row) for row in rows)


async def run(db: Database, history: list[list[tuple[str, list[Any]]]]) -> None:
    for transaction in history:
        async with db.write_transaction() as tx:
            for sql, params in transaction:
                try:
                    await tx.execute(sql, params)
                except (apsw.ConstraintError, apsw.MismatchError, apsw.SQLError):
                    # It did nothing, and must have recorded nothing.
                    continue


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), made=tables(), persist=st.booleans())
async def test_a_replayed_diff_gives_the_table(
    data: st.DataObject, made: Made, persist: bool
) -> None:
    before, after = (
        data.draw(histories(made.columns), label=label) for label in ("before", "after")
    )
    async with holdfast.open("t", storage="memory") as db:
        await db.execute(made.sql)
        await run(db, before)
        start = await contents(db, "t")
        extracted: list[Any] = []

        async with await db.triggers.create_diff_trigger("t", "d", persist=persist) as trigger:
            await run(db, after)
            rows = await db.fetch_all(f"SELECT {COLUMNS} FROM d ORDER BY operation_id")
            records = read_diff(rows, db._session.origin)
            primary_key = trigger.record.key
            names = trigger.record.recorded
            async with db.write_transaction() as tx:
                context = LocalContext(tx, "d", "d", names, 0, len(rows), False)
                listed = ", ".join(quote_name(name) for name in names)
                extracted = await context.with_extracted_diff(
                    f"SELECT {listed} FROM DIFF ORDER BY __operation_id"
                )
        final = await contents(db, "t")
    assert +replay(start, records) == final
    assert min(replay(start, records).values(), default=0) >= 0
    assert +replay(start, fold_diff(records, primary_key)) == final
    assert [bits(row) for row in extracted] == [
        bits((record.values or record.previous or {}).values()) for record in records
    ]
    assert all(record.transaction_id is not None and not record.remote for record in records)


VIEW = [Column.text("name"), Column.integer("order"), Column.real("a b")]
TYPED = [st.text(max_size=4), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), local_only=st.booleans())
async def test_a_replayed_diff_gives_the_view(data: st.DataObject, local_only: bool) -> None:
    keys = st.sampled_from(["a", "b", "c"])
    schema = Schema([Table("v", VIEW, local_only=local_only)])
    columns = [quote_name(column.name) for column in VIEW]
    async with holdfast.open("t", schema=schema, storage="memory") as db:
        async with await db.triggers.create_diff_trigger(
            "v", "d", columns=["id", *(column.name for column in VIEW)]
        ):
            for _ in range(data.draw(st.integers(1, 8))):
                which = data.draw(st.integers(0, 2))
                value = data.draw(st.none() | TYPED[which].map(lambda x: x + 0.0 if x == 0 else x))
                if isinstance(value, int) and which == 2:
                    value = float(value)
                sql = data.draw(
                    st.sampled_from(
                        [
                            f"INSERT OR REPLACE INTO v(id, {columns[which]}) VALUES (:k, :v)",
                            f"INSERT OR IGNORE INTO v(id, {columns[which]}) VALUES (:k, :v)",
                            f"UPDATE v SET {columns[which]} = :v WHERE id <> :k",
                            "DELETE FROM v WHERE id = :k AND :v IS NOT 1",
                        ]
                    )
                )
                await db.execute(sql, {"k": data.draw(keys), "v": value})
            rows = await db.fetch_all(f"SELECT {COLUMNS} FROM d ORDER BY operation_id")
        records = read_diff(rows, db._session.origin)
        final = await contents(db, "v")
    assert +replay(Counter(), records) == final
    assert +replay(Counter(), fold_diff(records)) == final
