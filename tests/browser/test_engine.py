"""The engine on OPFS, in one worker: what it writes is there, as a plain SQLite file."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_pyodide import run_in_pyodide


@pytest.fixture(scope="module")
def selenium_holdfast(selenium_worker_module_scope: Any, wheel_url: str) -> Any:
    """A worker with the wheel installed."""
    selenium_worker_module_scope.load_package(["micropip"])
    selenium_worker_module_scope.run_async(
        f"import micropip\nawait micropip.install({wheel_url!r})"
    )
    return selenium_worker_module_scope


@run_in_pyodide
async def test_what_was_committed_is_there_after_a_reopen(selenium_holdfast: Any) -> None:
    import holdfast

    async with holdfast.open("reopen.db") as db:
        assert (db.storage, db.persists_triggers, db.closed) == ("opfs", True, False)
        await db.execute("DROP TABLE IF EXISTS t")
        await db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        done = await db.execute_many(
            "INSERT INTO t(v) VALUES (?)", [("text",), (1.5,), (b"\x00\xff",), (None,)]
        )
        assert (done.changes, done.last_insert_rowid) == (4, 4)
    assert db.closed
    async with holdfast.open("reopen.db") as db:
        rows = await db.fetch_all("SELECT v FROM t ORDER BY id")
        assert [row["v"] for row in rows] == ["text", 1.5, b"\x00\xff", None]
        assert await db.fetch_value("PRAGMA integrity_check") == "ok"


@run_in_pyodide
async def test_a_failed_transaction_leaves_nothing(selenium_holdfast: Any) -> None:
    import holdfast

    async with holdfast.open("rollback.db") as db:
        await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY)")
        await db.execute("DELETE FROM t")
        try:
            async with db.write_transaction() as tx:
                await tx.execute("INSERT INTO t VALUES (1)")
                assert await tx.fetch_value("SELECT count(*) FROM t") == 1
                raise LookupError("changed my mind")
        except LookupError:
            pass
        else:
            raise AssertionError("the exception was swallowed")
        assert await db.fetch_value("SELECT count(*) FROM t") == 0


@run_in_pyodide
async def test_two_connections_of_one_worker_see_each_other(selenium_holdfast: Any) -> None:
    import holdfast

    async with holdfast.open("twice.db") as a, holdfast.open("twice.db") as b:
        await a.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY)")
        await a.execute("DELETE FROM t")
        for number in range(20):
            await (a, b)[number % 2].execute("INSERT INTO t VALUES (?)", (number,))
            assert await (b, a)[number % 2].fetch_value("SELECT max(id) FROM t") == number
        async with a.read_transaction() as snapshot:
            assert await snapshot.fetch_value("SELECT count(*) FROM t") == 20
            await b.execute("INSERT INTO t VALUES (20)")
            assert await snapshot.fetch_value("SELECT count(*) FROM t") == 20
        assert await a.fetch_value("SELECT count(*) FROM t") == 21


@run_in_pyodide
async def test_whoever_waited_for_a_lease_may_switch_stacks_as_before(
    selenium_holdfast: Any,
) -> None:
    import asyncio

    from pyodide.ffi import can_run_sync

    import holdfast

    before = can_run_sync()
    async with holdfast.open("stacks.db") as db:
        assert can_run_sync() == before
        await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY)")
        for _ in range(3):
            await asyncio.sleep(0.2)  # longer than an unused lease is kept
            await db.execute("INSERT INTO t DEFAULT VALUES")
            assert can_run_sync() == before
    assert can_run_sync() == before


@run_in_pyodide
async def test_wrong_use_is_told(selenium_holdfast: Any) -> None:
    import pytest

    import holdfast

    for name in ("", "/", "a//b", "../a.db", "a/./b", "a/..", "/a.db", "a.db/"):
        with pytest.raises(ValueError, match="name"):
            await holdfast.open(name)
    with pytest.raises(ValueError, match="storage"):
        await holdfast.open("a.db", storage="floppy")
    db = await holdfast.open("folder/wrong.db")
    with pytest.raises(ValueError):
        await db.execute("SELECT 1; SELECT 2")
    await db.close()
    await db.close()
    with pytest.raises(holdfast.DatabaseClosedError, match=r"wrong\.db"):
        await db.fetch_all("SELECT 1")


@run_in_pyodide
async def test_a_worker_without_opfs_is_told_so(selenium_holdfast: Any) -> None:
    import pytest
    from pyodide.code import run_js

    import holdfast

    hide = run_js(
        """() => {
          const original = navigator.storage.getDirectory;
          navigator.storage.getDirectory = undefined;
          return () => { navigator.storage.getDirectory = original; };
        }"""
    )
    restore = hide()
    try:
        with pytest.raises(holdfast.StorageUnavailableError, match="OPFS"):
            await holdfast.open("hidden.db", storage="opfs")
    finally:
        restore()
    async with holdfast.open("hidden.db") as db:
        assert db.storage == "opfs"
