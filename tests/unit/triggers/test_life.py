"""How a trigger comes and goes: transactions, holds, the registry, the sweep."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from across import inside, session_of
from patience import LONGER, PATIENCE

import holdfast
import holdfast.triggers.manager
from holdfast import (
    Database,
    DatabaseClosedError,
    DestinationInUseError,
    HoldAlreadyTakenError,
    InvalidWhenError,
    MemoryTriggerHoldManager,
    NestedTransactionError,
    Transaction,
    UnknownSourceError,
)

from .conftest import SCHEMA, Open, Recorder, eventually, leftovers

pytestmark = pytest.mark.everywhere


class Holds(MemoryTriggerHoldManager):
    """Counts, and remembers in what order things were done."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.queries = 0

    async def obtain_hold(self, hold_id: str) -> Callable[[], Awaitable[None]]:
        inner = await super().obtain_hold(hold_id)
        self.log.append("granted")

        async def release() -> None:
            self.log.append("released")
            await inner()

        return release

    async def held(self) -> frozenset[str]:
        self.queries += 1
        return await super().held()


@pytest.fixture
def holds() -> Holds:
    return Holds()


def opened(name: str, holds: Holds) -> Any:
    return holdfast.open(
        name, schema=SCHEMA, hold_manager=holds, persist_triggers=True, busy_timeout=LONGER
    )


@pytest.fixture
async def held_db(database_name: str, holds: Holds) -> Any:
    async with opened(database_name, holds) as database:
        yield database


async def die(database: Database) -> None:
    """What is left of a tab that is killed: its holds go, its records stay."""
    manager = inside(database).triggers
    manager._live.clear()
    for release in manager._releases.values():
        await release()
    manager._releases.clear()
    await database.close()


# -- making ----------------------------------------------------------------------------------------


async def test_p8_persisted_by_default_where_tabs_share(db: Database) -> None:
    async with await db.triggers.create_diff_trigger("lists", "d") as trigger:
        assert trigger.persisted == db.persists_triggers == (db.storage in ("file", "opfs"))
        assert len(await db.triggers.tracked()) == trigger.persisted
    assert await leftovers(db) == []


@pytest.mark.parametrize("persist", [True, False])
async def test_p8_may_be_chosen(db: Database, persist: bool, recorder: Recorder) -> None:
    async with (
        await db.triggers.create_diff_trigger("lists", "d", persist=persist) as trigger,
        await db.triggers.track_table_diff("lists", recorder, persist=persist) as tracker,
    ):
        assert trigger.persisted == tracker.trigger.persisted == persist
        place = "main" if persist else "temp"
        names = await db.fetch_all(
            f"SELECT name FROM {place}.sqlite_master WHERE name LIKE 'holdfast%'"
        )
        assert len(names) == 6
        await db.execute("INSERT INTO lists(id) VALUES ('a')")
        assert await db.fetch_value("SELECT id FROM d") == "a"
        assert await recorder.until_seen(1) == [("INSERT", "a")]
    assert await leftovers(db) == []


async def test_p8_a_temporary_trigger_misses_what_others_write(a: Database, b: Database) -> None:
    """Unless they share its connection."""
    async with (
        await a.triggers.create_diff_trigger("lists", "mine", persist=False),
        await a.triggers.create_diff_trigger("lists", "everybodys", persist=True),
    ):
        await b.execute("INSERT INTO lists(id) VALUES ('b')")
        await a.execute("INSERT INTO lists(id) VALUES ('a')")
        seen = ["b", "a"] if a.storage == "indexeddb" else ["a"]
        assert [row[0] for row in await a.fetch_all("SELECT id FROM mine")] == seen
        assert [row[0] for row in await a.fetch_all("SELECT id FROM everybodys")] == ["b", "a"]


async def test_p8_a_temporary_trigger_is_found_beside_a_transaction(
    db: Database, recorder: Recorder
) -> None:
    """Readers, which are used then, have no temporary tables."""
    batches = db.triggers.diffs("lists", persist=False)
    waiting = asyncio.ensure_future(anext(batches))

    async def made() -> bool:
        return bool(inside(db).triggers._live)

    await eventually(made)
    async with await db.triggers.track_table_diff(
        "lists", recorder, persist=False, on_error=recorder.on_error
    ):
        await db.execute("INSERT INTO lists(id) VALUES ('a')")
        async with db.write_transaction():
            await asyncio.sleep(0.05)
        assert await recorder.until_seen(1) == [("INSERT", "a")]
        assert [record.id for record in await waiting] == ["a"]
    assert recorder.errors == []
    await batches.aclose()


async def test_temporary_triggers_spare_the_sequences_of_main(db: Database) -> None:
    await db.execute("CREATE TABLE t(k INTEGER PRIMARY KEY AUTOINCREMENT)")
    async with await db.triggers.create_diff_trigger("t", "d", persist=False):
        await db.execute("INSERT INTO t VALUES (41)")
    assert await db.fetch_value("SELECT seq FROM main.sqlite_sequence WHERE name = 't'") == 41


async def test_p3_timestamps_are_utc_to_the_millisecond(db: Database) -> None:
    async with await db.triggers.create_diff_trigger("lists", "d"):
        before = datetime.now(UTC)
        await db.execute("INSERT INTO lists(id) VALUES ('a')")
        after = datetime.now(UTC)
        text = await db.fetch_value("SELECT timestamp FROM d")
    assert len(text) == len("2026-11-23T15:24:00.123Z") and text[-1] == "Z"
    # A browser has more than one clock.
    apart = timedelta(seconds=5)
    assert before - apart < datetime.fromisoformat(text) < after + apart


async def test_p3_numbers_rise_for_ever(db: Database) -> None:
    async with await db.triggers.create_diff_trigger("lists", "d"):
        await db.execute("INSERT INTO lists(id) VALUES ('a'), ('b')")
        await db.execute("DELETE FROM d")
        await db.execute("INSERT INTO lists(id) VALUES ('c')")
        assert await db.fetch_value("SELECT operation_id FROM d") == 3


async def test_p5_before_create_runs_in_the_same_transaction(a: Database, b: Database) -> None:
    await a.execute("INSERT INTO lists(id) VALUES ('before')")
    read: list[str] = []
    writer: list[asyncio.Task[Any]] = []

    async def read_first(tx: Transaction) -> None:
        read.extend(row[0] for row in await tx.fetch_all("SELECT id FROM lists"))
        writer.append(asyncio.create_task(b.execute("INSERT INTO lists(id) VALUES ('between')")))
        await tx.execute("INSERT INTO lists(id) VALUES ('own')")
        await asyncio.sleep(0.02)

    async with await a.triggers.create_diff_trigger("lists", "d", before_create=read_first):
        await writer[0]
        assert read == ["before"]
        # One's own first writes are none of the changes; everybody else's are.
        assert [row[0] for row in await a.fetch_all("SELECT id FROM d")] == ["between"]


async def test_p5_before_create_may_make_the_source(db: Database) -> None:
    async def make(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE t(a)")

    async with await db.triggers.create_diff_trigger("t", "d", before_create=make):
        await db.execute("INSERT INTO t VALUES (1)")
        assert await db.fetch_value("SELECT count(*) FROM d") == 1


async def test_p5_inside_a_transaction(db: Database, recorder: Recorder) -> None:
    async with db.write_transaction() as tx:
        trigger = await db.triggers.create_diff_trigger("lists", "d", transaction=tx)
        tracker = await db.triggers.track_table_diff("lists", recorder, transaction=tx)
        await tx.execute("INSERT INTO lists(id) VALUES ('a')")
        assert await tx.fetch_value("SELECT id FROM d") == "a"
        assert recorder.calls == []
    assert await recorder.until_seen(1) == [("INSERT", "a")]
    await tracker.stop()
    async with db.write_transaction() as tx:
        await trigger.dispose(tx)
        assert not trigger.gone
    assert trigger.gone
    await trigger.dispose()
    assert await leftovers(db) == []


async def test_p5_rolled_back_by_the_caller(
    held_db: Database, holds: Holds, recorder: Recorder
) -> None:
    triggers = held_db.triggers
    with pytest.raises(ZeroDivisionError):
        async with held_db.write_transaction() as tx:
            trigger = await triggers.create_diff_trigger("lists", "d", transaction=tx)
            tracker = await triggers.track_table_diff("lists", recorder, transaction=tx)
            raise ZeroDivisionError
    assert trigger.gone and holds.log == ["granted"] * 2 + ["released"] * 2
    assert not inside(held_db).triggers._trackers
    assert await leftovers(held_db) == []
    await trigger.dispose()
    await tracker.stop()
    assert recorder.calls == []


@pytest.mark.parametrize("persist", [True, False])
async def test_p5_made_and_disposed_of_in_one_transaction(db: Database, persist: bool) -> None:
    async with db.write_transaction() as tx:
        trigger = await db.triggers.create_diff_trigger(
            "lists", "d", transaction=tx, persist=persist
        )
        await tx.execute("INSERT INTO lists(id) VALUES ('a')")
        await trigger.dispose(tx)
    assert trigger.gone and await leftovers(db) == []


async def test_a_destination_that_was_replaced_makes_no_commit_fail(db: Database) -> None:
    async with await db.triggers.create_diff_trigger("lists", "d", persist=True):
        async with db.write_transaction() as tx:
            ours = "type = 'trigger' AND name LIKE 'holdfast_%'"
            for (name,) in await tx.fetch_all(f"SELECT name FROM sqlite_master WHERE {ours}"):
                await tx.execute(f"DROP TRIGGER {name}")
            await tx.execute("DROP TABLE d")
            await tx.execute("CREATE TABLE d(mine)")
            await tx.execute("INSERT INTO d VALUES (1)")
        await db.execute("INSERT INTO d VALUES (2)")
    assert await leftovers(db) == []


async def test_p5_what_was_rolled_back_is_forgotten(held_db: Database) -> None:
    """SQLite gives its schema version again, then, to another schema."""
    create = held_db.triggers.create_diff_trigger
    with pytest.raises(ZeroDivisionError):
        async with held_db.write_transaction() as tx:
            await create("lists", "d1", transaction=tx)
            version = await tx.fetch_value("PRAGMA schema_version")
            await create("lists", "d2", transaction=tx)
            raise ZeroDivisionError
    async with held_db.write_transaction() as tx:
        await tx.execute("CREATE TABLE d1(mine)")
        for number in range(version - await tx.fetch_value("PRAGMA schema_version")):
            await tx.execute(f"CREATE INDEX i{number} ON d1(mine)")
        assert await tx.fetch_value("PRAGMA schema_version") == version
        # Were it taken for a destination still, it would be stamped.
        await tx.execute("INSERT INTO d1 VALUES (1)")
    assert inside(held_db).triggers.destinations() == frozenset()


async def test_p5_a_disposal_that_is_rolled_back(held_db: Database, holds: Holds) -> None:
    trigger = await held_db.triggers.create_diff_trigger("lists", "d")
    with pytest.raises(ZeroDivisionError):
        async with held_db.write_transaction() as tx:
            await trigger.dispose(tx)
            await trigger.dispose(transaction=tx)
            raise ZeroDivisionError
    assert not trigger.gone and holds.log == ["granted"]
    await held_db.execute("INSERT INTO lists(id) VALUES ('a')")
    assert await held_db.fetch_value("SELECT id FROM d") == "a"
    await trigger.dispose()
    assert holds.log == ["granted", "released"]


async def test_p5_a_failed_creation_leaves_the_transaction_usable(
    held_db: Database, holds: Holds
) -> None:
    async def fail(tx: Transaction) -> None:
        await tx.execute("INSERT INTO lists(id) VALUES ('gone')")
        raise ZeroDivisionError

    create = held_db.triggers.create_diff_trigger
    async with held_db.write_transaction() as tx:
        await tx.execute("INSERT INTO lists(id) VALUES ('a')")
        with pytest.raises(ZeroDivisionError):
            await create("lists", "d", before_create=fail, transaction=tx)
        with pytest.raises(InvalidWhenError):
            await create("lists", "d", when={"INSERT": "nope(1)"}, transaction=tx)
        with pytest.raises(UnknownSourceError):
            await create("nope", "d", transaction=tx)
        await tx.execute("INSERT INTO lists(id) VALUES ('b')")
    assert await leftovers(held_db) == []
    assert [row[0] for row in await held_db.fetch_all("SELECT id FROM lists")] == ["a", "b"]
    assert holds.log == ["granted", "released"] * 3


async def test_wrong_transactions(db: Database) -> None:
    create = db.triggers.create_diff_trigger
    with pytest.raises(TypeError, match="Transaction"):
        await create("lists", "d", transaction=db)  # type: ignore[arg-type]
    async with db.read_transaction() as reading:
        with pytest.raises(ValueError, match="only reads"):
            await create("lists", "d", transaction=reading)
    async with holdfast.open("other", storage="memory") as other:
        async with other.write_transaction() as tx:
            with pytest.raises(ValueError, match="another database"):
                await create("lists", "d", transaction=tx)
        with pytest.raises(DatabaseClosedError):
            await other.triggers.create_diff_trigger("lists", "d", transaction=tx)
    async with db.write_transaction():
        with pytest.raises(NestedTransactionError):
            await create("lists", "d")
    assert await leftovers(db) == []


@pytest.mark.parametrize(
    ("name", "error"),
    [("", ValueError), ("sqlite_d", ValueError), ("PS_d", ValueError), (None, TypeError)],
)
async def test_names_that_no_destination_can_have(
    db: Database, name: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await db.triggers.create_diff_trigger("lists", name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": 1},
        {"persist": 1},
        {"before_create": "x"},
        {"only_changed": "yes"},
        {"on_change": None},
        {"on_error": 1},
        {"throttle": "1"},
        {"throttle": True},
        {"max_backlog": 1.5},
        {"max_backlog": True},
    ],
)
async def test_wrong_types(db: Database, recorder: Recorder, wrong: dict[str, Any]) -> None:
    options: dict[str, Any] = {"source": "lists", "on_change": recorder} | wrong
    with pytest.raises(TypeError, match=next(iter(wrong))):
        await db.triggers.track_table_diff(**options)
    assert await leftovers(db) == []


@pytest.mark.parametrize(
    "wrong", [{"throttle": -1}, {"throttle": float("nan")}, {"max_backlog": 0}]
)
async def test_wrong_values(db: Database, recorder: Recorder, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        await db.triggers.track_table_diff("lists", recorder, **wrong)
    assert await leftovers(db) == []


# -- holds -----------------------------------------------------------------------------------------


async def test_p9_the_hold_comes_first_and_goes_last(held_db: Database, holds: Holds) -> None:
    seen: list[tuple[str, list[str]]] = []

    async def look(what: str) -> None:
        seen.append((what, list(holds.log)))

    async def before(tx: Transaction) -> None:
        await look("create")
        tx.on_commit(lambda: look("created"))

    trigger = await held_db.triggers.create_diff_trigger("lists", "d", before_create=before)
    async with held_db.write_transaction() as tx:
        await trigger.dispose(tx)
        await look("dispose")
    assert seen == [("create", ["granted"]), ("created", ["granted"]), ("dispose", ["granted"])]
    assert holds.log == ["granted", "released"]


async def test_p9_a_refused_hold_creates_nothing(held_db: Database, holds: Holds) -> None:
    async def refuse(hold_id: str) -> Any:
        raise HoldAlreadyTakenError("taken")

    holds.obtain_hold = refuse  # type: ignore[method-assign]
    with pytest.raises(HoldAlreadyTakenError):
        await held_db.triggers.create_diff_trigger("lists", "d")
    assert await leftovers(held_db) == []


async def test_p9_temporary_triggers_need_no_hold(held_db: Database, holds: Holds) -> None:
    async with await held_db.triggers.create_diff_trigger("lists", "d", persist=False):
        assert holds.log == []


async def test_p1_an_error_while_cleaning_up_is_told_as_well(
    held_db: Database, holds: Holds
) -> None:
    async def obtain(hold_id: str) -> Any:
        async def release() -> None:
            raise OSError("the lock is stuck")

        return release

    holds.obtain_hold = obtain  # type: ignore[method-assign]
    with pytest.raises(UnknownSourceError, match="nope") as caught:
        await held_db.triggers.create_diff_trigger("nope", "d")
    assert "the lock is stuck" in "".join(caught.value.__notes__)


async def test_a_cancelled_creation_leaves_nothing(held_db: Database, holds: Holds) -> None:
    entered = asyncio.Event()

    async def wait(tx: Transaction) -> None:
        entered.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(
        held_db.triggers.create_diff_trigger("lists", "d", before_create=wait)
    )
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert holds.log == ["granted", "released"]
    assert await leftovers(held_db) == []


@pytest.mark.parametrize("persist", [True, False])
async def test_p14_made_anew_in_one_transaction(db: Database, persist: bool) -> None:
    """As when a column is to be recorded too; nothing that is written falls between the two."""
    create = db.triggers.create_diff_trigger
    trigger = await create("lists", "d", columns=["n"], persist=persist)
    await db.execute("INSERT INTO lists(id, n) VALUES ('a', 1)")
    async with db.write_transaction() as tx:
        kept = await tx.fetch_all("SELECT id, value FROM d")
        await trigger.dispose(tx)
        again = await create("lists", "d", columns=["n", "x"], persist=persist, transaction=tx)
    await db.execute("INSERT INTO lists(id, n, x) VALUES ('b', 2, 0.5)")
    assert [tuple(row) for row in kept] == [("a", '{"n":1}')]
    assert [tuple(row) for row in await db.fetch_all("SELECT id, value FROM d")] == [
        ("b", '{"n":2,"x":0.5}')
    ]
    assert trigger.gone and not again.gone
    assert len(await db.triggers.tracked()) == persist
    await again.dispose()
    assert await leftovers(db) == []


@pytest.mark.parametrize("persist", [True, False])
async def test_a_creation_that_is_cancelled_after_its_commit_leaves_nothing(
    db: Database, persist: bool
) -> None:
    committed, cancelled = asyncio.Event(), asyncio.Event()

    async def before(tx: Transaction) -> None:
        async def wait() -> None:
            committed.set()
            await cancelled.wait()

        tx.on_commit(wait)

    task = asyncio.create_task(
        db.triggers.create_diff_trigger("lists", "d", before_create=before, persist=persist)
    )
    await committed.wait()
    assert len(await leftovers(db)) > 0
    task.cancel()
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await leftovers(db) == [] and not inside(db).triggers._live


async def test_b2_a_destination_that_exists_is_left_alone(db: Database) -> None:
    await db.execute("CREATE TABLE taken(a)")
    await db.execute("INSERT INTO taken VALUES (1)")
    await db.execute("CREATE TEMP TABLE passing(a)")
    create = db.triggers.create_diff_trigger
    for persist in (True, False):
        for name in ("TAKEN", "passing", "lists"):
            with pytest.raises(DestinationInUseError, match=name):
                await create("lists", name, persist=persist)
        async with await create("lists", "d", persist=persist):
            with pytest.raises(DestinationInUseError, match="'d'"):
                await create("drafts", "d")
            await db.execute("INSERT INTO lists(id) VALUES (?)", (str(persist),))
            assert await db.fetch_value("SELECT count(*) FROM d") == 1
    assert await db.fetch_value("SELECT a FROM taken") == 1


# -- the registry ----------------------------------------------------------------------------------


async def test_p10_a_record_is_kept_and_removed(a: Database, b: Database) -> None:
    trigger = await a.triggers.create_diff_trigger(
        "drafts", "d", when={"DELETE": "TRUE", "INSERT": "TRUE"}
    )
    (mine,) = await a.triggers.tracked()
    assert mine == (await b.triggers.tracked())[0]
    assert (mine.id, mine.source, mine.destination, mine.operations, mine.held) == (
        trigger.id,
        "my drafts",
        "d",
        ("INSERT", "DELETE"),
        True,
    )
    assert mine.created_at.utcoffset() == timedelta(0)
    assert abs(mine.created_at - datetime.now(UTC)) < timedelta(seconds=5)
    await trigger.dispose()
    assert await b.triggers.tracked() == []


async def test_b1_one_transaction_makes_and_one_drops(a: Database, b: Database) -> None:
    """Whoever looks from outside sees all of a trigger, or nothing."""
    seen: list[int] = []

    async def before(tx: Transaction) -> None:
        seen.append(len(await leftovers(b)))

    commits = a.fetch_value
    version = await commits("PRAGMA data_version")
    trigger = await a.triggers.create_diff_trigger("lists", "d", before_create=before)
    assert seen == [0]
    # Three triggers and a record; the destination's name is looked for by itself.
    assert len(await leftovers(b)) == 4
    assert await b.fetch_value("SELECT 1 FROM sqlite_master WHERE name = 'd'") == 1
    await trigger.dispose()
    assert await leftovers(b) == []
    assert await b.fetch_value("SELECT 1 FROM sqlite_master WHERE name = 'd'") is None
    assert await commits("PRAGMA data_version") == version


async def test_a_record_of_a_later_version_is_left_alone(a: Database) -> None:
    await a.execute("CREATE TABLE d(a)")
    later = {
        "version": 2,
        "id": "x",
        "source": "lists",
        "destination": "d",
        "operations": [],
        "triggers": [],
        "created_at": "2026-11-23T15:24:00+00:00",
    }
    for value in (json.dumps(later), '{"version": 1}', "no json", None):
        await a.execute("INSERT OR REPLACE INTO ps_kv VALUES ('holdfast:trigger:x', ?)", (value,))
        assert await a.triggers.sweep() == []
        assert await a.triggers.tracked() == []
        assert await a.fetch_value("SELECT count(*) FROM ps_kv") == 1
        assert await a.fetch_value("SELECT count(*) FROM d") == 0


# -- the sweep -------------------------------------------------------------------------------------


async def test_p12_what_a_dead_tab_left_is_reclaimed(connect: Open, recorder: Recorder) -> None:
    alive, dead = await connect(), await connect()
    tracker = await alive.triggers.track_table_diff("lists", recorder)
    first = await dead.triggers.create_diff_trigger("lists", "d")
    await dead.triggers.track_table_diff("drafts", recorder)
    await die(dead)
    assert [t.held for t in await alive.triggers.tracked()] == [True, False, False]
    reclaimed = await alive.triggers.sweep()
    assert [t.id for t in reclaimed if t.destination == "d"] == [first.id]
    assert len(reclaimed) == 2 and not any(t.held for t in reclaimed)
    assert [t.destination for t in await alive.triggers.tracked()] == [tracker.destination]
    await alive.execute("INSERT INTO lists(id) VALUES ('a')")
    assert await recorder.until_seen(1) == [("INSERT", "a")]
    await tracker.stop()
    assert await leftovers(alive) == []


async def test_p10_opening_sweeps(connect: Open) -> None:
    dead = await connect()
    await dead.triggers.create_diff_trigger("lists", "d")
    await die(dead)
    fresh = await connect()
    assert await leftovers(fresh) == []
    assert await fresh.fetch_value("SELECT 1 FROM sqlite_master WHERE name = 'd'") is None


async def test_p10_sweeps_now_and_then(
    database_name: str, monkeypatch: pytest.MonkeyPatch, holds: Holds
) -> None:
    assert holdfast.triggers.manager.SWEEP_INTERVAL == 120
    monkeypatch.setattr(holdfast.triggers.manager, "SWEEP_INTERVAL", 0.02)
    async with opened(database_name, holds) as alive:
        dead = await opened(database_name, holds)
        await dead.triggers.create_diff_trigger("lists", "d")
        # While it lives, looking needs no write transaction.
        async with dead.write_transaction():
            holds.queries = 0

            async def looked() -> bool:
                return holds.queries > 2

            await eventually(looked)
        await die(dead)

        async def gone() -> bool:
            return await leftovers(alive) == []

        await eventually(gone)


async def test_p10_never_drops_what_is_held(a: Database, b: Database) -> None:
    async with await a.triggers.create_diff_trigger("lists", "d"):
        assert await b.triggers.sweep() == []
        assert await a.triggers.sweep() == []
        await b.execute("INSERT INTO lists(id) VALUES ('a')")
        assert await a.fetch_value("SELECT id FROM d") == "a"


async def test_b12_one_query_for_all(database_name: str, holds: Holds) -> None:
    async with opened(database_name, holds) as one:
        for number in range(5):
            await one.triggers.create_diff_trigger("lists", f"d{number}")
        other = await holdfast.open(database_name, hold_manager=holds)
        holds.queries = 0
        await other.triggers.sweep()
        assert holds.queries == 1
        await other.triggers.tracked()
        assert holds.queries == 2
        await die(one)
        assert len(await other.triggers.sweep()) == 5
        assert holds.queries == 3
        await other.close()


async def test_a_sweep_of_nothing_waits_for_nobody(a: Database, b: Database) -> None:
    """Another tab may be in a long transaction."""
    async with b.write_transaction(), asyncio.timeout(PATIENCE):
        assert await a.triggers.sweep() == []


async def test_opening_and_sweeping_beside_living_triggers_wait_for_no_writer(
    a: Database, b: Database, connect: Open
) -> None:
    await b.triggers.create_diff_trigger("lists", "d")
    async with a.write_transaction() as tx, asyncio.timeout(PATIENCE):
        await tx.execute("INSERT INTO lists(id) VALUES('1')")
        c = await connect()
        for one in (b, c):
            assert await one.triggers.sweep() == []
        assert await c.fetch_value("SELECT count(*) FROM lists") == 0


async def test_a_copy_of_a_database_is_not_held(tmp_path: Path) -> None:
    async with (
        holdfast.open(str(tmp_path / "a.db"), schema=SCHEMA) as original,
        await original.triggers.create_diff_trigger("lists", "d"),
    ):
        async with original.read_transaction():
            for suffix in ("", "-wal"):
                shutil.copy(tmp_path / f"a.db{suffix}", tmp_path / f"b.db{suffix}")
        async with holdfast.open(str(tmp_path / "b.db"), schema=SCHEMA) as copy:
            assert await leftovers(copy) == []
        assert len(await original.triggers.tracked()) == 1


async def test_one_that_cannot_be_dropped_does_not_keep_the_others(
    connect: Open, caplog: pytest.LogCaptureFixture
) -> None:
    alive, dead = await connect(), await connect()
    for name in ("d1", "d2"):
        await dead.triggers.create_diff_trigger("lists", name)
    await die(dead)
    async with alive.write_transaction() as tx:
        await tx.execute("DROP TABLE d1")
        await tx.execute("CREATE VIEW d1 AS SELECT 1")
    assert [t.destination for t in await alive.triggers.sweep()] == ["d2"]
    assert "use DROP VIEW" in caplog.text
    assert [name[:17] for name in await leftovers(alive)] == ["holdfast:trigger:"]


# -- closing ---------------------------------------------------------------------------------------


async def test_b8_close_disposes_of_everything(
    database_name: str, holds: Holds, recorder: Recorder
) -> None:
    db = await opened(database_name, holds)
    other = await holdfast.open(database_name, hold_manager=holds)
    trigger = await db.triggers.create_diff_trigger("lists", "d")
    tracker = await db.triggers.track_table_diff("lists", recorder)
    stream = db.triggers.diffs("lists")
    waiting = asyncio.create_task(anext(stream))  # type: ignore[arg-type]

    async def all_there() -> bool:
        return len(await db.triggers.tracked()) == 3

    await eventually(all_there)
    await db.close()
    assert sorted(holds.log) == ["granted"] * 3 + ["released"] * 3
    with pytest.raises(StopAsyncIteration):
        await waiting
    # Whatever is done with them now is harmless.
    await trigger.dispose()
    await tracker.stop()
    with pytest.raises(DatabaseClosedError):
        await db.triggers.create_diff_trigger("lists", "d")
    assert await leftovers(other) == []
    assert await other.fetch_value("SELECT 1 FROM sqlite_master WHERE name = 'd'") is None
    await other.close()


async def test_b8_close_releases_holds_even_if_nothing_can_be_dropped(
    database_name: str, holds: Holds, caplog: pytest.LogCaptureFixture
) -> None:
    db = await opened(database_name, holds)
    await db.triggers.create_diff_trigger("lists", "d")
    async with holdfast.open(database_name, hold_manager=holds) as other:
        async with other.write_transaction():
            session_of(db).storage.busy_timeout = 0.05
            await db.close()
        assert holds.log == ["granted", "released"]
        assert "could not be dropped" in caplog.text
    async with holdfast.open(database_name, schema=SCHEMA, hold_manager=holds) as fresh:
        assert await leftovers(fresh) == []


async def test_a_record_is_as_documented(a: Database) -> None:
    async with await a.triggers.create_diff_trigger("lists", "d", when={"INSERT": "TRUE"}) as t:
        row = await a.fetch_one("SELECT * FROM ps_kv WHERE key LIKE 'holdfast:trigger:%'")
        assert row is not None and row["key"] == "holdfast:trigger:" + t.id
        fields = json.loads(row["value"])
        assert set(fields) == {
            "version",
            "id",
            "source",
            "destination",
            "operations",
            "triggers",
            "created_at",
            "when",
            "columns",
            "only_changed",
            "max_backlog",
            "recorded",
            "key",
            "ended",
        }
        assert fields["version"] == 1 and fields["operations"] == ["INSERT"]


async def test_b8_what_is_gone_takes_no_destination_of_another_with_it(
    a: Database, b: Database
) -> None:
    """Disposed of while close() waits for its turn, its name may be another's by then."""
    trigger = await a.triggers.create_diff_trigger("lists", "d")
    live = inside(a).triggers._live
    kept = dict(live)
    await trigger.dispose()
    await b.triggers.create_diff_trigger("lists", "d")
    live.update(kept)
    await a.close()
    await b.execute("INSERT INTO lists(id, name) VALUES('1', 'x')")
    assert await b.fetch_value("SELECT count(*) FROM d") == 1
