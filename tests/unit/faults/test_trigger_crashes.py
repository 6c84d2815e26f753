"""A tab dies at every step of a trigger's life: swept, made, filled, handled, disposed of.

Whatever it leaves, the invariants of consumers.py hold, nothing of the living is touched, and
nothing of the dead stays. A power cut at any moment of it leaves as sound a state.
"""

from __future__ import annotations

import asyncio

import pytest
from simulated_opfs import Library

from faults.browser import SimulatedTab
from faults.consumers import destination_of, examine
from faults.disk import Disk, crashes
from faults.trigger_schedule import KINDS, Consumer, TriggerSchedule
from holdfast import Database

NEVER = 10**9


class OneDeath(TriggerSchedule):
    """Beside a survivor, a tab lives a whole life, and dies at one of its changes to a file."""

    def __init__(self, library: Library, *, shared: bool, die_at: int = NEVER) -> None:
        super().__init__(library, 1, shared=shared)
        self.browser.lossy = 0.0
        # Without one, every change to a file is one of the WAL's, in which transactions are.
        self.checkpoint = 1000
        self.die_at = die_at
        self.changes = 0
        self.died = False

    async def _main(self) -> None:
        tab = self.browser.tab()
        database = await tab.run(self._open(tab))
        # The other tab shall find what there is to sweep.
        database._session.storage.on_peer_gone = lambda: None
        mine: list[Consumer] = []
        await self._make(tab, database, mine, "tracked")
        await self._ghost()

        victim = self.browser.tab()
        victim.process.die_at = self.die_at
        life = victim.run(self._whole_life(victim))
        await asyncio.wait((life, victim.died), return_when=asyncio.FIRST_COMPLETED)
        self.died = victim.died.done()
        if not self.died:
            life.result()
            self.changes = self.die_at - victim.process.die_at
        await asyncio.sleep(1)

        examine(await tab.run(self._snapshot(database)))
        await tab.run(database.triggers.sweep())
        found = await tab.run(self._snapshot(database))
        examine(found)
        assert found.tables == {destination_of(mine[0].name)}
        assert [one.held for one in await tab.run(database.triggers.tracked())] == [True]
        await tab.run(self._write(tab, database))
        await tab.run(self._settle(tab, mine[0]))
        await tab.run(database.close())

    async def _ghost(self) -> None:
        """A tab that leaves triggers behind."""
        ghost = self.browser.tab()
        database = await ghost.run(self._open(ghost))
        for kind in ("plain", "tracked"):
            await self._make(ghost, database, [], kind)
        self.browser.kill(ghost)
        await asyncio.sleep(1)

    async def _whole_life(self, tab: SimulatedTab) -> None:
        database = await self._open(tab)
        mine: list[Consumer] = []
        for kind in dict.fromkeys(KINDS):
            await self._make(tab, database, mine, kind)
        for _ in range(3):
            await self._write(tab, database)
        for consumer in mine:
            await self._settle(tab, consumer)
        while mine:
            await self._end(tab, database, mine)
        await self._make(tab, database, mine, "tracked")
        await database.close()

    async def _make(
        self, tab: SimulatedTab, database: Database, mine: list[Consumer], kind: str
    ) -> None:
        before = len(mine)
        while len(mine) == before:
            # Now and then it fails, on purpose.
            await tab.run(self._create(tab, database, mine, kind, "items"))


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_b1_dying_before_every_change_to_a_file(
    library: Library, thorough: bool, shared: bool
) -> None:
    whole = OneDeath(library, shared=shared)
    whole.run()
    assert not whole.died and whole.changes > 60
    for die_at in range(0, whole.changes, 1 if thorough else whole.changes // 8):
        schedule = OneDeath(library, shared=shared, die_at=die_at)
        try:
            schedule.run()
        except Exception as error:
            raise AssertionError(f"dead before its change {die_at} to a file: {error}") from error
        assert schedule.died


def test_b1_a_power_cut_before_every_change_to_a_file(library: Library, thorough: bool) -> None:
    whole = OneDeath(library, shared=True)
    whole.run()
    states = set()
    for crash in crashes(whole.disk, power_seeds=1, stride=1 if thorough else 3):
        try:
            found = whole._look(Disk(crash.files))
        except Exception as error:
            raise AssertionError(f"{crash.how} before entry {crash.before}: {error}") from error
        states.add(None if found is None else len(found.log) + len(found.effects))
    # All that this life has: every cut of it, --thorough, finds as many.
    assert len(states) > 17
