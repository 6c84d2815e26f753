"""What is between a database and who uses it across a port: calls, errors, cancellation, deaths.

That everything else is as it is here, the tests marked `everywhere` show.
"""

from __future__ import annotations

import asyncio
import enum
import sys
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from across import Across, pair
from patience import LONGER, PATIENCE

import holdfast
from holdfast import (
    Database,
    DatabaseClosedError,
    HoldAlreadyTakenError,
    MemoryTriggerHoldManager,
    StorageUnavailableError,
)
from holdfast.remote import server as serving
from holdfast.remote.client import Client, connect
from holdfast.remote.server import Server


@pytest.fixture
async def across() -> AsyncIterator[Across]:
    there = Across()
    yield there
    if there.client is not None:
        await there.die()


@pytest.fixture
async def client(across: Across) -> Client:
    return await across.elsewhere("auto")


@pytest.fixture
async def db(client: Client, tmp_path: Path) -> AsyncIterator[Database]:
    database = await client.open(str(tmp_path / "a.db"), busy_timeout=LONGER)
    await database.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)")
    yield database
    await database.close()


async def count(path: Path) -> int:
    async with holdfast.open(str(path / "a.db")) as here:
        found: int = await here.fetch_value("SELECT count(*) FROM t")
        return found


# -- the two ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "value"),
    [("PROTOCOL", 99), ("__version__", "9.9")],
    ids=["protocol", "wheel"],
)
async def test_ends_of_different_versions_refuse_each_other(
    monkeypatch: pytest.MonkeyPatch, what: str, value: Any
) -> None:
    here, there = pair()
    server = Server(there)
    monkeypatch.setattr(f"holdfast.remote.client.{what}", value)
    with pytest.raises(StorageUnavailableError, match="must come from the same release"):
        await connect(here)
    assert here.closed
    await server.close("it is over")


async def test_a_client_refuses_a_server_of_another_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though that one would have taken it."""

    async def hello(self: Server, *mine: object) -> list[Any]:
        return [serving.PROTOCOL, "9.9", sys.version]

    monkeypatch.setattr(Server, "hello", hello)
    here, there = pair()
    server = Server(there)
    with pytest.raises(StorageUnavailableError, match=r"the worker has holdfast 9\.9"):
        await connect(here)
    await server.close("it is over")


def test_two_pythons_must_be_one() -> None:
    mine = holdfast.__version__
    with pytest.raises(StorageUnavailableError, match=r"the page runs Python 3\.13"):
        serving.check_versions(serving.PROTOCOL, mine, "3.13", "the page", "the worker")
    serving.check_versions(serving.PROTOCOL, mine, None, "a page of JavaScript", "the worker")


async def test_only_what_the_protocol_shows_can_be_called(client: Client) -> None:
    for method in ("_close_all", "__init__", "nothing"):
        with pytest.raises(RuntimeError, match="to call from here"):
            await client.peer.call(0, method)


async def test_values_are_what_sqlite_stores(db: Database) -> None:
    class Level(enum.IntEnum):
        HIGH = 3

    given = (Level.HIGH, True, memoryview(b"\0\xff"), bytearray(b"x"), "ü", 2**63 - 1, 1.5, None)
    (row,) = await db.fetch_all("SELECT ?, ?, ?, ?, ?, ?, ?, ?", given)
    assert row == (3, 1, b"\0\xff", b"x", "ü", 2**63 - 1, 1.5, None)
    with pytest.raises(TypeError, match="parameter 2 is a object; SQLite stores"):
        await db.execute("INSERT INTO t VALUES(?, ?)", (1, object()))
    with pytest.raises(TypeError, match="cannot be sent"):
        await db.execute(object())  # type: ignore[arg-type]
    # What could not be sent left nothing behind.
    assert await db.fetch_value("SELECT count(*) FROM t") == 0


# -- errors ----------------------------------------------------------------------------------------


async def test_an_error_is_of_its_type_and_says_where_it_was_raised(db: Database) -> None:
    await db.execute("INSERT INTO t VALUES(1, 'a')")
    with pytest.raises(apsw.ConstraintError, match="UNIQUE") as caught:
        await db.execute("INSERT INTO t VALUES(2, 'a')")
    assert caught.value.extendedresult == apsw.SQLITE_CONSTRAINT_UNIQUE  # type: ignore[attr-defined]
    told = "".join(traceback.format_exception(caught.value))
    assert "connection.py" in told and "test_remote.py" in told
    assert told.index("connection.py") < told.index("test_remote.py"), "there, and then here"


async def test_what_a_function_of_the_application_raises_comes_back_itself(db: Database) -> None:
    class MineError(Exception):
        pass

    mine = MineError("not plain", object())

    async def before_create(tx: holdfast.Transaction) -> None:
        raise mine

    with pytest.raises(MineError) as caught:
        await db.triggers.create_diff_trigger("t", "d", before_create=before_create)
    assert caught.value is mine
    seen: list[Exception] = []
    told = asyncio.Event()

    async def on_error(error: Exception) -> None:
        seen.append(error)
        told.set()

    async def on_change(ctx: holdfast.DiffContext) -> None:
        if not seen:
            raise mine

    async with await db.triggers.track_table_diff("t", on_change, on_error=on_error):
        await db.execute("INSERT INTO t VALUES(1, 1)")
        await told.wait()
    assert seen == [mine]


async def test_an_error_keeps_the_one_that_it_was_raised_from(
    db: Database, client: Client, tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"SQLite format 3\0" + b"this is not a database" * 100)
    with pytest.raises(holdfast.NotADatabaseError) as caught:
        await client.open(str(garbage))
    assert isinstance(caught.value.__cause__, apsw.NotADBError)


async def test_the_raw_connection_cannot_be_had(db: Database) -> None:
    async with db.write_transaction() as tx:
        with pytest.raises(AttributeError, match="lives in another interpreter"):
            tx.connection  # noqa: B018
        assert not hasattr(tx, "connection")


async def test_an_iterator_tells_why_it_failed_however_late_it_is_asked(
    client: Client, db: Database
) -> None:
    call = client.peer.call
    # The first item is pulled at once, before it is asked for.
    number = await call(db.number, "watch", "SELECT wrong FROM t", (), 0)  # type: ignore[attr-defined]
    for _ in range(5):
        await call(db.number, "fetch_all", "SELECT 1", ())  # type: ignore[attr-defined]
    with pytest.raises(apsw.SQLError, match="wrong"):
        await call(number, "next")
    with pytest.raises(DatabaseClosedError, match="has ended"):
        await call(number, "next")


# -- cancellation ----------------------------------------------------------------------------------


async def test_a_cancelled_task_has_ended_only_when_its_transaction_has(
    db: Database, tmp_path: Path
) -> None:
    inside = asyncio.Event()

    async def write() -> None:
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO t VALUES(1, 1)")
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # At once, and by another connection.
    async with holdfast.open(str(tmp_path / "a.db"), busy_timeout=0) as here:
        await here.execute("INSERT INTO t VALUES(2, 2)")
    assert await count(tmp_path) == 1


@pytest.mark.parametrize("turns", range(12))
async def test_what_was_begun_for_a_cancelled_task_is_given_back(
    db: Database, tmp_path: Path, turns: int
) -> None:
    async def begin() -> None:
        async with db.write_transaction():
            await asyncio.Event().wait()

    async def track() -> None:
        await db.triggers.create_diff_trigger("t", "d")
        await asyncio.Event().wait()

    for what in (begin, track):
        task = asyncio.create_task(what())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(db.execute("INSERT INTO t DEFAULT VALUES"), PATIENCE)
        for trigger in await db.triggers.tracked():
            # It was there before the task was cancelled, and is the application's to dispose of.
            assert turns > 3 and trigger.destination == "d"


async def test_a_database_that_opened_for_a_cancelled_task_is_closed(
    across: Across, client: Client, tmp_path: Path
) -> None:
    task = asyncio.create_task(client.open(str(tmp_path / "a.db")))
    while not across.server._databases:  # noqa: ASYNC110
        await asyncio.sleep(0)
    # The answer is on its way.
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert across.server._databases == {}


# -- deaths ----------------------------------------------------------------------------------------


async def test_of_a_client_that_is_gone_nothing_is_left(
    across: Across, db: Database, tmp_path: Path
) -> None:
    await db.triggers.create_diff_trigger("t", "d")
    handling = asyncio.Event()

    async def on_change(ctx: holdfast.DiffContext) -> None:
        handling.set()
        await asyncio.Event().wait()

    await db.triggers.track_table_diff("t", on_change)
    await db.execute("INSERT INTO t VALUES(1, 1)")
    await handling.wait()
    waiting = asyncio.create_task(db.execute("INSERT INTO t VALUES(2, 2)"))
    watching = asyncio.create_task(anext(db.watch("SELECT * FROM t")))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asyncio.wait_for(across.server.close("the tab is gone"), PATIENCE)
    assert across.client is not None
    across.client.close("the worker died")
    async with holdfast.open(str(tmp_path / "a.db")) as here:
        assert await here.triggers.tracked() == []
        assert await here.fetch_all("SELECT name FROM sqlite_master WHERE name LIKE '%diff%'") == []
        assert await here.fetch_value("SELECT count(*) FROM t") == 1
    for error in await asyncio.gather(waiting, watching, return_exceptions=True):
        assert isinstance(error, DatabaseClosedError)


async def test_a_server_that_is_gone_is_an_error_that_says_so(
    across: Across, client: Client, db: Database
) -> None:
    tracker = await db.triggers.track_table_diff("t", lambda ctx: None)  # type: ignore[arg-type,return-value]
    inside, died = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with db.write_transaction():
            inside.set()
            await died.wait()

    async def follow() -> None:
        async for _ in db.changes():
            pass

    tasks = [asyncio.create_task(each()) for each in (write, follow)]
    await inside.wait()
    tasks.append(asyncio.create_task(db.execute("INSERT INTO t VALUES(1, 1)")))
    await asyncio.sleep(0)
    await across.die("the worker died in a test")
    died.set()
    for task in tasks:
        with pytest.raises(DatabaseClosedError, match="died in a test"):
            await asyncio.wait_for(task, PATIENCE)
    for call in (db.status, db.export, lambda: db.fetch_value("SELECT 1"), db.triggers.tracked):
        with pytest.raises(DatabaseClosedError, match="died in a test"):
            await call()
    assert db.closed
    # What is over anyway is not asked for again.
    await tracker.stop()
    await db.close()


async def test_a_page_that_hangs_keeps_nobody_from_writing(
    client: Client, db: Database, tmp_path: Path
) -> None:
    """Its handler is called once it answers, and only then is there a transaction for that."""
    handled = asyncio.Event()

    async def on_change(ctx: holdfast.DiffContext) -> None:
        handled.set()

    await db.triggers.track_table_diff("t", on_change, throttle=0)
    port: Any = client.peer._port
    arrive, held = port._arrive, []
    asked = asyncio.Event()

    def hang(data: bytes) -> None:
        held.append(data)
        asked.set()

    port._arrive = hang
    async with holdfast.open(str(tmp_path / "a.db"), busy_timeout=0) as other:
        await other.execute("INSERT INTO t(v) VALUES('x')")
        await asked.wait()
        await other.execute("INSERT INTO t(v) VALUES('y')")
        assert not handled.is_set()
        port._arrive = arrive
        for data in held:
            arrive(data)
        await handled.wait()


async def test_a_transaction_of_a_server_that_is_gone_says_what_became_of_it(
    across: Across, client: Client, db: Database
) -> None:
    told: list[str] = []
    client.on_close(told.append)
    with pytest.raises(DatabaseClosedError, match="was rolled back: died in a test"):
        async with db.write_transaction() as tx:
            await across.die("died in a test")
            assert not tx.is_open
            await tx.execute("INSERT INTO t VALUES(1, 1)")
    assert told == ["died in a test"]


# -- hold managers ---------------------------------------------------------------------------------


class Holds:
    """A hold manager of the application's, in its own interpreter."""

    def __init__(self) -> None:
        self.held_ids: set[str] = set()

    async def obtain_hold(self, hold_id: str) -> Any:
        if hold_id in self.held_ids or "refused" in self.held_ids:
            raise HoldAlreadyTakenError(hold_id)
        self.held_ids.add(hold_id)

        async def release() -> None:
            self.held_ids.discard(hold_id)

        return release

    async def is_held(self, hold_id: str) -> bool:
        return hold_id in self.held_ids

    async def held(self) -> frozenset[str]:
        return frozenset(self.held_ids)


async def test_a_hold_manager_of_the_applications_is_asked(client: Client, tmp_path: Path) -> None:
    holds = Holds()
    async with await client.open(str(tmp_path / "a.db"), hold_manager=holds) as db:
        await db.execute("CREATE TABLE t(x)")
        trigger = await db.triggers.create_diff_trigger("t", "d")
        assert holds.held_ids == {trigger.id}
        assert [each.held for each in await db.triggers.tracked()] == [True]
        await trigger.dispose()
        assert holds.held_ids == set() and trigger.gone
        holds.held_ids = {"refused"}
        with pytest.raises(HoldAlreadyTakenError):
            await db.triggers.create_diff_trigger("t", "d")


async def test_managers_of_holdfast_are_those_of_the_other_side(
    client: Client, tmp_path: Path
) -> None:
    # Not asked across for each hold, as the application's are.
    file = holdfast.FileTriggerHoldManager(tmp_path / "a.db")
    assert client._plain_hold_manager(MemoryTriggerHoldManager()) == ["memory"]
    assert client._plain_hold_manager(file) == ["file", str(file.folder)]
    for manager in (
        MemoryTriggerHoldManager(),
        holdfast.FileTriggerHoldManager(tmp_path / "a.db"),
    ):
        async with await client.open(str(tmp_path / "a.db"), hold_manager=manager) as db:
            await db.execute("CREATE TABLE IF NOT EXISTS t(x)")
            async with await db.triggers.create_diff_trigger("t", "d") as trigger:
                assert await manager.is_held(trigger.id)
            assert not await manager.is_held(trigger.id)
