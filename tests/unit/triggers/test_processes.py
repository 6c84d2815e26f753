"""Several processes on one file (B15), and one that dies at each step of a trigger's life (B1)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest
from patience import PATIENCE

import holdfast
from holdfast import Database
from holdfast.triggers.manager import SWEEP_INTERVAL
from holdfast.triggers.registry import READ, read_records

from .conftest import SCHEMA, Recorder, eventually, leftovers

# Follows "lists" until a line comes in; prints the ids that it was given, one to a line.
FOLLOWER = """
import asyncio, sys
import holdfast

async def main():
    async def handler(ctx):
        for row in await ctx.with_diff("SELECT id FROM DIFF"):
            print(row["id"], flush=True)

    async with holdfast.open(sys.argv[1], schema=holdfast.Schema.undeclared()) as db:
        async with await db.triggers.track_table_diff("lists", handler):
            await db.triggers.create_diff_trigger("lists", "theirs")
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


@asynccontextmanager
async def process(code: str, *args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        *args,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def line(started: asyncio.subprocess.Process) -> str:
    assert started.stdout is not None
    return (await asyncio.wait_for(started.stdout.readline(), PATIENCE)).decode().strip()


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with holdfast.open(str(tmp_path / "a.db"), schema=SCHEMA) as database:
        yield database


async def test_b15_processes_see_each_other(db: Database, recorder: Recorder) -> None:
    await db.triggers.track_table_diff("lists", recorder)
    async with process(FOLLOWER, db.name) as other:
        assert await line(other) == "ready"
        assert [one.held for one in await db.triggers.tracked()] == [True] * 3
        assert await db.triggers.sweep() == []
        await db.execute("INSERT INTO lists(id) VALUES ('mine')")
        assert await line(other) == "mine"
        raw = apsw.Connection(db.name)
        raw.set_busy_timeout(round(1000 * PATIENCE))
        raw.execute("INSERT INTO lists(id) VALUES ('a stranger''s')")
        raw.close()
        assert await line(other) == "a stranger's"
        assert other.stdin is not None
        other.stdin.write(b"\n")
        assert await asyncio.wait_for(other.wait(), PATIENCE) == 0
    assert len(await db.triggers.tracked()) == 1
    assert [one for _, one in await recorder.until_seen(2)] == ["mine", "a stranger's"]


async def test_b11_b15_p12_a_killed_process_is_reclaimed(db: Database, recorder: Recorder) -> None:
    await db.triggers.track_table_diff("lists", recorder)
    mine = await leftovers(db)
    async with process(FOLLOWER, db.name) as other:
        assert await line(other) == "ready"
        assert len(await leftovers(db)) > len(mine)
        other.send_signal(signal.SIGKILL)
        await other.wait()

    async def reclaimed() -> bool:
        return await leftovers(db) == mine

    # Not because of the sweep that comes from time to time.
    assert PATIENCE < SWEEP_INTERVAL
    await eventually(reclaimed)
    assert await db.fetch_value("SELECT 1 FROM sqlite_master WHERE name = 'theirs'") is None
    await db.execute("INSERT INTO lists(id) VALUES ('a')")
    assert await recorder.until_seen(1) == [("INSERT", "a")]


async def test_b15_a_stopped_process_is_not_reclaimed(db: Database) -> None:
    async with process(FOLLOWER, db.name) as other:
        assert await line(other) == "ready"
        other.send_signal(signal.SIGSTOP)
        await db.execute("INSERT INTO lists(id) VALUES ('meanwhile')")
        await asyncio.sleep(2.5)
        assert await db.triggers.sweep() == []
        assert [one.held for one in await db.triggers.tracked()] == [True, True]
        async with holdfast.open(db.name, schema=SCHEMA) as fresh:
            assert len(await fresh.triggers.tracked()) == 2
        other.send_signal(signal.SIGCONT)
        assert await line(other) == "meanwhile"


# -- dying at each step ----------------------------------------------------------------------------

# Makes, uses and disposes of a trigger, and of another by way of a caller's transaction; dies when
# the step named by the second argument is reached for the n-th time, n being the third.
MORTAL = """
import asyncio, os, sys
import holdfast
from holdfast.sqlite.connection import Connection
from holdfast.holds import FileTriggerHoldManager
from holdfast.triggers import manager, registry, trigger

path, step, left = sys.argv[1], sys.argv[2], int(sys.argv[3])

def mortal(owner, name, label, after=False):
    original = getattr(owner, name)

    def wrapped(*args, **kwargs):
        global left
        dying = label == step
        left -= dying
        if dying and not left:
            if after:
                original(*args, **kwargs)
            os.kill(os.getpid(), 9)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)

mortal(FileTriggerHoldManager, "_obtain", "before the hold")
mortal(FileTriggerHoldManager, "_obtain", "after the hold", after=True)
mortal(Connection, "run", "a statement")
mortal(Connection, "run", "after a statement", after=True)
mortal(manager.LocalTriggerManager, "before_commit", "a commit")
mortal(trigger.LocalTrigger, "finish", "after the drop")
mortal(FileTriggerHoldManager, "_release", "after the release", after=True)

async def main():
    done = asyncio.Event()

    async def handler(ctx):
        await ctx.with_diff("INSERT INTO handled SELECT id FROM DIFF")
        done.set()

    async with holdfast.open(path, schema=holdfast.Schema.undeclared()) as db:
        tracker = await db.triggers.track_table_diff("lists", handler, max_backlog=5)
        await db.execute("INSERT OR IGNORE INTO lists(id) VALUES ('mortal')")
        await done.wait()
        async with db.write_transaction() as tx:
            other = await db.triggers.create_diff_trigger("lists", "theirs", transaction=tx)
        async with db.write_transaction() as tx:
            await other.dispose(tx)
        await tracker.stop()
    print("lived")

asyncio.run(main())
"""


async def invariants(db: Database) -> None:
    """No destination without a record, no trigger without a destination, no record without either,
    and no write that fails."""
    # In one snapshot: the survivor sweeps when it likes.
    async with db.read_transaction() as tx:
        records = read_records(await tx.fetch_all(READ))
        rows = await tx.fetch_all(
            "SELECT type, name, sql FROM sqlite_master WHERE name LIKE 'ps_diff%' "
            "OR name = 'theirs' OR name LIKE 'holdfast%'"
        )
    destinations = {row["name"] for row in rows if row["type"] == "table"}
    assert destinations == {record.destination for record in records}
    for row in rows:
        if row["type"] == "trigger":
            assert any(f'"{destination}"' in row["sql"] for destination in destinations)
    assert len([row for row in rows if row["type"] == "trigger"]) == 3 * len(destinations)


async def die_at(db: Database, step: str, count: int) -> bool:
    """Whether a process died there; False: it got by."""
    async with process(MORTAL, db.name, step, str(count)) as mortal:
        output, _ = await asyncio.wait_for(mortal.communicate(), PATIENCE)
        if mortal.returncode == 0:
            assert output == b"lived\n"
            return False
        assert mortal.returncode == -signal.SIGKILL
        return True


@pytest.mark.parametrize(
    ("step", "counts"),
    [
        ("before the hold", [1, 2]),
        ("after the hold", [1, 2]),
        ("a commit", [2, 3, 5]),
        ("a statement", [4, 14, 24, 34, 44]),
        ("after a statement", [9, 19, 29, 39]),
        ("after the drop", [1, 2]),
        ("after the release", [1, 2]),
    ],
)
async def test_b1_dying_at_each_step(
    db: Database, recorder: Recorder, step: str, counts: list[int]
) -> None:
    await db.execute("CREATE TABLE handled(id)")
    await db.triggers.track_table_diff("lists", recorder)
    for count in counts:
        assert await die_at(db, step, count), f"there are no {count} of {step!r}"
        await invariants(db)
        await db.triggers.sweep()
        await invariants(db)
        assert len(await db.triggers.tracked()) == 1
        holds = Path(db.name + "-holds")
        assert len(list(holds.glob("*.hold"))) == 1
        before = len(recorder.seen)
        await db.execute("INSERT OR REPLACE INTO lists(id) VALUES ('survivor')")
        await recorder.until(lambda: len(recorder.seen) > before)  # noqa: B023
        await db.execute("DELETE FROM lists")
    handled = await db.fetch_value("SELECT count(*) FROM handled")
    assert handled <= len(counts)


async def test_the_mortal_lives_when_it_is_let(db: Database) -> None:
    await db.execute("CREATE TABLE handled(id)")
    assert not await die_at(db, "nowhere", 1)
    assert await db.fetch_value("SELECT id FROM handled") == "mortal"
    assert await leftovers(db) == []
