"""Names and texts that no SQL can have in it: each is refused with what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import holdfast
from holdfast import Database

pytestmark = pytest.mark.everywhere

BAD = {"NUL": "a\0b", "lone surrogate": "a\ud800b"}

Call = Callable[[Database, str], Any]


async def nothing(ctx: object) -> None:
    raise AssertionError("nothing was made that could be called")


SQL: dict[str, Call] = {
    "execute": lambda db, text: db.execute(f"SELECT '{text}'"),
    "execute_many": lambda db, text: db.execute_many(f"INSERT INTO t VALUES ('{text}')", [()]),
    "fetch_all": lambda db, text: db.fetch_all(f"SELECT '{text}'"),
    "watch": lambda db, text: anext(db.watch(f"SELECT '{text}'")),
    "source": lambda db, text: db.triggers.track_table_diff(text, nothing),
    "when": lambda db, text: db.triggers.track_table_diff("t", nothing, when={"INSERT": text}),
    "destination": lambda db, text: db.triggers.create_diff_trigger("t", text),
    "column": lambda db, text: db.triggers.track_table_diff("t", nothing, columns=[text]),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("call", SQL)
async def test_text_of_sql(call: str, what: str) -> None:
    async with holdfast.open("a", storage="memory") as db:
        await db.execute("CREATE TABLE t(x)")
        with pytest.raises((ValueError, holdfast.InvalidWhenError)) as refused:
            await SQL[call](db, BAD[what])
        assert type(refused.value) in (ValueError, holdfast.InvalidWhenError)
        assert await db.fetch_all("SELECT * FROM t") == []


@pytest.mark.parametrize("by_name", [False, True])
async def test_parameters(by_name: bool) -> None:
    """Which one it is, and how to store what was read from a text that is not UTF-8."""
    async with holdfast.open("a", storage="memory") as db:
        await db.execute("CREATE TABLE t(x, y)")
        bad = "\udcff"
        params: Any = {"x": "fine", "y": bad} if by_name else ("fine", bad)
        places = ":x, :y" if by_name else "?, ?"
        insert = f"INSERT INTO t VALUES ({places})"
        expected = "parameter 'y' has a lone" if by_name else "parameter 2 has a lone"
        for call in (
            lambda: db.execute(insert, params),
            lambda: db.execute_many(insert, [params]),
            lambda: db.fetch_all(f"SELECT {places}", params),
        ):
            with pytest.raises(ValueError, match=f"{expected}.*surrogateescape"):
                await call()
        await db.execute("INSERT INTO t(x) VALUES (?)", (bad.encode(errors="surrogateescape"),))
        # NUL is a character like any other in a value.
        await db.execute("INSERT INTO t(x) VALUES (?)", ("a\0b",))
        rows = await db.fetch_all("SELECT x FROM t")
        assert [tuple(row) for row in rows] == [(b"\xff",), ("a\0b",)]


@pytest.mark.parametrize("names", [5, [5], b"t", [None], "t", 1.5])
async def test_lists_of_names(names: Any) -> None:
    async with holdfast.open("a", storage="memory") as db:
        await db.execute("CREATE TABLE t(x)")
        with pytest.raises(TypeError, match="tables must be"):
            db.changes(names)
        with pytest.raises(TypeError, match="columns must be"):
            await db.triggers.track_table_diff("t", nothing, columns=names)


@pytest.mark.here
@pytest.mark.parametrize("what", BAD)
async def test_names_of_files(what: str) -> None:
    for call in (
        holdfast.databases(folder=BAD[what]),
        holdfast.open(BAD[what])._open(),
        holdfast.delete_database(BAD[what]),
        holdfast.import_database(BAD[what], b""),
    ):
        with pytest.raises(ValueError, match=what) as refused:
            await call
        assert type(refused.value) is ValueError


@pytest.mark.here
async def test_what_is_no_ordinary_file() -> None:
    for call in (
        holdfast.open("/proc/self/mem")._open(),
        holdfast.delete_database("/proc/self/mem"),
    ):
        with pytest.raises(holdfast.StorageUnavailableError, match="/proc/self/mem"):
            await call
