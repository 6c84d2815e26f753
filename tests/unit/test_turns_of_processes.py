"""Processes that write to one file: none of them waits for long while another writes on.

`Turns` is tried with a clock of the test's own and locks of the system: an open file description
of its own stands for each process.
"""

import asyncio
import heapq
import os
import sys

import pytest
from patience import PATIENCE

import holdfast

if sys.platform != "linux":
    pytest.skip("these locks are Linux's", allow_module_level=True)

from holdfast.storage.file import turns
from holdfast.storage.file.guard import WRITE_AT
from holdfast.storage.file.ofd import NONE, REFUSED, WRITE, holder, set_lock
from holdfast.storage.file.turns import IMPATIENCE, NEXT_AT, TURN, Turns

PAUSE = 0.003
COMMIT = 0.0002


class Writer:
    """A process that writes without pause, one step at a time."""

    def __init__(self, path, now):
        self._now = now
        self.descriptor = os.open(path, os.O_RDWR)
        self.place = Turns(now)
        self.writing = False
        self.waits_since = now()
        self.waits = []

    def step(self):
        """Do the next thing; after how many seconds the one after it is due."""
        if self.writing:
            self.writing = False
            set_lock(self.descriptor, NONE, WRITE_AT)
            self.waits_since = self._now()
        if not self.place.may_write(self.descriptor):
            return PAUSE
        try:
            set_lock(self.descriptor, WRITE, WRITE_AT)
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            self.place.refused(self.descriptor)
            return PAUSE
        self.place.obtained(self.descriptor)
        self.writing = True
        self.waits.append(self._now() - self.waits_since)
        return COMMIT


class World:
    def __init__(self, path, count):
        path.touch()
        self.now = 0.0
        self.writers = [Writer(path, lambda: self.now) for _ in range(count)]
        self._due = [(0.0001 * number, number) for number in range(count)]

    def run(self, until, stopped=()):
        while self._due[0][0] < until:
            self.now, number = heapq.heappop(self._due)
            writer = self.writers[number]
            pause = until - self.now if number in stopped else writer.step()
            heapq.heappush(self._due, (self.now + pause, number))
        self.now = until


@pytest.fixture
def world(tmp_path):
    worlds = []

    def make(count):
        worlds.append(World(tmp_path / "file", count))
        return worlds[-1]

    yield make
    for each in worlds:
        for writer in each.writers:
            os.close(writer.descriptor)


def test_of_two_that_write_without_pause_each_waits_for_a_turn_of_the_other(world):
    both = world(2)
    both.run(5.0)
    for writer in both.writers:
        # Its own turn ends, the other's begins after a pause and ends, and a pause follows.
        assert max(writer.waits) <= TURN + 3 * PAUSE + 2 * COMMIT
        assert sum(writer.waits) / 5.0 < 0.75
    # Handing over costs less than half of the time.
    commits = sum(len(writer.waits) for writer in both.writers)
    assert commits * COMMIT > 5.0 / 2


@pytest.mark.parametrize("count", [3, 5, 8])
def test_of_more_none_starves(world, count):
    all_ = world(count)
    all_.run(5.0)
    for writer in all_.writers:
        assert len(writer.waits) * COMMIT > 0.2 * 5.0 / count


def test_one_that_is_stopped_when_it_is_next_costs_the_others_a_tenth_of_the_time(world):
    both = world(2)
    one, other = both.writers
    at = 1.0
    both.run(at)
    while not (one.place._is_next and other.writing):
        assert at < 2.0, "it is never next"
        at += COMMIT / 2
        both.run(at)
    before = len(other.waits)
    both.run(at + 10.0, stopped=[0])
    assert max(other.waits[before:]) <= turns.PATIENCE + 2 * PAUSE
    rounds = 10.0 / (turns.PATIENCE + IMPATIENCE)
    assert (len(other.waits) - before) * COMMIT > 10.0 - (rounds + 1) * (turns.PATIENCE + 2 * PAUSE)
    # And when it goes on, it is its turn.
    both.run(at + 11.5)
    assert one.waits_since > at + 10.0


def test_one_that_gives_up_leaves_its_place(world):
    a, b, c = world(3).writers
    for writer in (a, b, c):
        writer.step()
    assert a.writing and b.place._is_next and not c.place._is_next
    b.place.give_up(b.descriptor)
    c.step()
    assert c.place._is_next


WRITE_ON = """
import asyncio, holdfast, sys
async def main():
    async with holdfast.open({name!r}, busy_timeout=5) as db:
        while await db.fetch_value("SELECT count(*) FROM turns") < 2 * {enough}:
            for _ in range(20):
                await db.execute("INSERT INTO written VALUES (?)", ({who},))
asyncio.run(main())
"""


async def test_two_processes_that_write_without_pause_alternate(tmp_path):
    name = str(tmp_path / "a.db")
    enough = 10
    async with holdfast.open(name) as db:
        await db.execute("CREATE TABLE written(who)")
        await db.execute("CREATE TABLE turns(who)")
        await db.execute(
            "CREATE TRIGGER turn AFTER INSERT ON written "
            "WHEN new.who IS NOT (SELECT who FROM turns ORDER BY rowid DESC LIMIT 1) "
            "BEGIN INSERT INTO turns VALUES (new.who); END"
        )
        both = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                WRITE_ON.format(name=name, enough=enough, who=who),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            for who in (1, 2)
        ]
        assert [await each.wait() for each in both] == [0, 0]
        assert await db.fetch_value("SELECT count(*) FROM turns") >= 2 * enough


@pytest.mark.parametrize("ends", ["cancelled", "bound"])
async def test_a_call_that_ends_while_it_waits_leaves_its_place(tmp_path, ends):
    name = str(tmp_path / "a.db")
    async with holdfast.open(name, busy_timeout=60 if ends == "cancelled" else 0.05) as db:
        await db.execute("CREATE TABLE t(x)")
        descriptor = os.open(name, os.O_RDWR)
        try:
            # As another process has them.
            set_lock(descriptor, WRITE, WRITE_AT)
            writing = asyncio.ensure_future(db.execute("INSERT INTO t VALUES (1)"))
            async with asyncio.timeout(PATIENCE):
                # Another process would see no event either.
                while holder(descriptor, NEXT_AT) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            if ends == "cancelled":
                writing.cancel()
            with pytest.raises((asyncio.CancelledError, holdfast.DatabaseBusyError)):
                await writing
            assert holder(descriptor, NEXT_AT) is None
            set_lock(descriptor, NONE, WRITE_AT)
            await db.execute("INSERT INTO t VALUES (2)")
            assert holder(descriptor, NEXT_AT) is None
        finally:
            # SQLite's locks are this process's: with them gone, ours remain.
            os.close(descriptor)
