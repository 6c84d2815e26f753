"""Power is cut before every change to a file: what was not flushed is lost, kept or torn."""

from __future__ import annotations

import pytest
from simulated_opfs import Library

from faults.client import Client
from faults.disk import Disk, crashes
from faults.workload import Run, allowed_after, check_recovery


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_power_cut_before_every_change(
    library: Library, thorough: bool, synchronous: str, keeps: bool
) -> None:
    """full: what was acknowledged is there. normal: some prefix of it is."""
    run = Run(library, Disk(), synchronous=synchronous, keeps=keeps).all()
    stride, seeds = (1, 8) if thorough else (4, 2)
    for crash in crashes(run.disk, kills=False, power_seeds=seeds, stride=stride, seed=keeps):
        first, last = allowed_after(crash, durable=synchronous == "FULL")
        try:
            check_recovery(library, Disk(crash.files), run.states[first : last + 1])
        except Exception as error:
            raise AssertionError(f"{crash.how}, before entry {crash.before}: {error}") from error


def test_a_conversion_to_wal_is_not_taken_back_later(library: Library) -> None:
    """The rollback journal of the creation is gone for good before the first transaction."""
    run = Run(library, Disk())
    run.client(0)
    flushed = [change[:2] for change in run.disk.journal][-2:]
    assert flushed == [("truncate", "x.db-journal"), ("flush", "x.db-journal")]
    run.close()


def test_a_survivor_makes_sure_that_the_journal_stays_away(library: Library) -> None:
    """The creator died between emptying the journal and flushing that."""
    run = Run(library, Disk())
    run.client(0)
    journal = [change[:2] for change in run.disk.journal]
    run.close()
    disk = Disk.resumed(run.disk, journal.index(("truncate", "x.db-journal")) + 1)
    survivor = Client(library, disk)
    survivor.write("CREATE TABLE t(x)")
    expected = survivor.dump()
    survivor.close()
    for crash in crashes(disk, kills=False, power_seeds=20):
        if crash.before == len(disk.journal):
            check_recovery(library, Disk(crash.files), [expected])


def test_power_cut_after_a_kill(library: Library, thorough: bool) -> None:
    """A survivor reads what was never flushed, and goes on from it; then power is cut."""
    run = Run(library, Disk()).all()
    kills = [crash for crash in crashes(run.disk, stride=13) if crash.how == "kill"]
    # The creation in full, and some of the rest.
    for crash in [*kills[:9], *kills[9 :: 1 if thorough else 17]]:
        disk = Disk.resumed(run.disk, crash.before)
        origin: list[Client] = []
        client = Client(library, disk, origin=origin)
        start, began = len(disk.journal), client.dump()
        first, last = allowed_after(crash, durable=True)
        # What may be lost again, and what the survivor acknowledged on top of what it read.
        states = [*run.states[first : last + 1], began]
        acknowledged = len(states) - 1
        marks = {}
        for sql in ("CREATE TABLE z(x)", "INSERT INTO z VALUES(zeroblob(20000))"):
            client.write(sql)
            states.append(client.dump())
            marks[len(disk.journal)] = len(states) - 1
            client.checkpoint()
        client.close()
        for second in crashes(disk, kills=False, power_seeds=2 if thorough else 1, stride=3):
            if second.before < start:
                continue
            done = max((n for at, n in marks.items() if at <= second.before), default=0)
            allowed = states[max(done, 0) :] if done > acknowledged else states
            check_recovery(library, Disk(second.files), allowed)


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_a_wal_that_was_begun_anew_in_place_takes_nothing_back(
    library: Library, synchronous: str
) -> None:
    """Its header is flushed before its first frame, or old frames would be valid beside new ones.

    They hold what the database file had before.
    """
    disk = Disk()
    client = Client(library, disk, synchronous=synchronous)
    client.write("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    client.write(*(f"INSERT INTO t VALUES({n}, 0)" for n in range(5)))
    for n in range(1, 9):
        client.write(f"UPDATE t SET v = {n}")
    before = len(disk.journal)
    client.restart()
    if synchronous == "NORMAL":
        # What was not copied yet may be lost.
        before = len(disk.journal)
    client.write("INSERT INTO t VALUES(9, zeroblob(9000))")
    entries = range(before, len(disk.journal))
    for crash in crashes(disk, kills=False, power_seeds=40, only=entries):
        found = Client(library, Disk(crash.files)).read("SELECT v FROM t WHERE id < 9")
        assert found == [(8,)] * 5, (crash.how, found)
