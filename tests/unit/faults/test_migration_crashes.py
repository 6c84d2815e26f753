"""A tab dies at every step of a migration: at each statement, and at each change to a file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import apsw
import pytest
from patience import PATIENCE
from simulated_opfs import Library

from faults.browser import SimulatedTab
from faults.migrations import (
    FOREIGN,
    MIGRATIONS,
    OLD,
    Open,
    Outcome,
    Survivor,
    migrate,
    migrate_unnoticed,
    opener,
)
from faults.schedule import Schedule
from faults.scheduler import current
from faults.trigger_schedule import trackable
from holdfast import Schema

NEVER = 10**9


class OneDeath(Schedule):
    """Beside a survivor, a tab migrates, and dies at one of its steps.

    by: "statement" or "file", what is counted.
    """

    def __init__(
        self, library: Library, migration: str, *, shared: bool, by: str, die_at: int = NEVER
    ) -> None:
        super().__init__(library, 1, shared=shared)
        self.browser.lossy = 0.0
        self.checkpoint = 1000
        self.migration, self.by, self.die_at = migration, by, die_at
        self.steps = 0
        self.died = False
        self.victim: SimulatedTab | None = None
        self.outcome: Outcome

    @contextlib.contextmanager
    def _package(self) -> Iterator[None]:
        def watch(connection: apsw.Connection) -> None:
            tab = current.get()
            if isinstance(tab, SimulatedTab):
                connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda _: self._step(tab), id="deaths")

        with super()._package():
            hooks = [*apsw.connection_hooks, watch]
            with (
                mock.patch.object(apsw, "connection_hooks", hooks),
                trackable(random.Random(1)),
            ):
                yield

    def _step(self, tab: SimulatedTab) -> None:
        if tab is self.victim and self.by == "statement":
            self.steps += 1
            if self.steps > self.die_at:
                self.browser.kill(tab)

    async def _main(self) -> None:
        tab = self.browser.tab()
        database = await tab.run(self._opener(tab)(OLD))
        survivor = await tab.run(Survivor.beside(database, self.migration))
        # What the dead left is looked at before anybody sees to it.
        database._session.storage.on_peer_gone = lambda: None
        if self.migration in FOREIGN:
            other = self.browser.tab()
            program = await other.run(self._opener(other)(OLD))
            # Nobody hears of it, or of a tab that goes: the first to find it is the victim.
            with (
                mock.patch.object(program._session.storage, "announce"),
                mock.patch.object(program._session.mender, "mend"),
            ):
                await other.run(migrate_unnoticed(program, FOREIGN[self.migration]))
        victim = self.browser.tab()

        def ready() -> None:
            self.victim = victim
            if self.by == "file":
                victim.process.die_at = self.die_at

        life = victim.run(migrate(self._opener(victim), self.migration, ready))
        await asyncio.wait((life, victim.died), return_when=asyncio.FIRST_COMPLETED)
        self.died = victim.died.done()
        if not self.died:
            life.result()
            if self.by == "file":
                self.steps = self.die_at - (victim.process.die_at or 0)
        await asyncio.sleep(1)
        self.outcome = await tab.run(survivor.outcome())
        other = self.browser.tab()
        another = await other.run(self._opener(other)(Schema.undeclared()))
        await other.run(survivor.check_swept(another))
        await other.run(another.close())
        await tab.run(survivor.leave())

    def _opener(self, tab: SimulatedTab) -> Open:
        return opener(name=f"{tab.name}/x.db", storage="opfs")

    def _check(self) -> None:
        pass


def die(library: Library, migration: str, *, shared: bool, by: str, every: int) -> None:
    """At each `every`th step of it, and at the last ones."""
    whole = OneDeath(library, migration, shared=shared, by=by)
    whole.run()
    assert whole.outcome.new and not whole.died
    steps = {*range(0, whole.steps, every), *range(max(0, whole.steps - 3), whole.steps)}
    found = set()
    for die_at in sorted(steps):
        one = OneDeath(library, migration, shared=shared, by=by, die_at=die_at)
        try:
            one.run()
            assert one.died
            if one.outcome.new:
                assert one.outcome == whole.outcome
            else:
                assert not one.outcome.ended, one.outcome
        except Exception as error:
            raise AssertionError(f"dead at step {die_at} of {whole.steps}: {error!r}") from error
        found.add(one.outcome.new)
    # What another program did is there from the beginning.
    assert found == ({True} if migration in FOREIGN else {True, False})


@pytest.mark.parametrize("by", ["statement", "file"])
@pytest.mark.parametrize("migration", MIGRATIONS)
def test_dying_at_every_step(
    library: Library, thorough: bool, shared: bool, migration: str, by: str
) -> None:
    every = 1 if thorough or by == "file" else 29
    die(library, migration, shared=shared, by=by, every=every)


class Nursery:
    """A process that has the package loaded, and forks one that migrates and dies, when asked."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from faults.migrations import nurse; nurse()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def run(self, file: str, migration: str, die_at: int) -> tuple[bool, int]:
        """Whether it died, and the statements that it ran. Meanwhile nothing runs here."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps([file, migration, die_at]), file=self.process.stdin, flush=True)
        died, steps = json.loads(self.process.stdout.readline())
        return died, steps


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.process.communicate()


@pytest.mark.parametrize("migration", MIGRATIONS)
async def test_a_process_that_dies_at_a_statement(
    nursery: Nursery, tmp_path: Path, thorough: bool, migration: str
) -> None:
    async def one(die_at: int) -> tuple[bool, int, Outcome]:
        file = str(tmp_path / f"{die_at}.db")
        open_one = opener(name=file, storage="file")
        survivor = await Survivor.beside(await open_one(OLD), migration)
        survivor.database._session.storage.on_peer_gone = lambda: None

        def write_elsewhere(sql: str) -> None:
            with contextlib.closing(sqlite3.connect(file, timeout=PATIENCE)) as other:
                other.execute(sql)
                other.commit()

        for statement in FOREIGN.get(migration, ()):
            write_elsewhere(statement)
        if migration in FOREIGN:
            write_elsewhere("CREATE TABLE looked_for(x)")
        died, steps = nursery.run(file, migration, die_at)
        outcome = await survivor.outcome(write_elsewhere)
        another = await open_one(Schema.undeclared())
        await survivor.check_swept(another)
        await another.close()
        await survivor.leave()
        return died, steps, outcome

    died, steps, whole = await one(NEVER)
    assert whole.new and not died
    every = 1 if thorough else 31
    for die_at in sorted({*range(0, steps, every), *range(max(0, steps - 3), steps)}):
        died, _, outcome = await one(die_at)
        # How many statements its end takes depends on what else happens at that time.
        assert died or (outcome == whole and die_at >= steps - 31), die_at
        assert outcome == whole or not (outcome.new or outcome.ended), (die_at, outcome)
