"""Holds: taken once, seen by all who should, and free again when their owner is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from patience import PATIENCE

from holdfast.errors import DatabaseBusyError, HoldAlreadyTakenError
from holdfast.holds import (
    FileTriggerHoldManager,
    MemoryTriggerHoldManager,
    NavigatorTriggerHoldManager,
    TriggerHoldManager,
)

Make = Callable[[], TriggerHoldManager]


class FakeWebLocks:
    """`holdfast.browser.locks` with the locks of one process."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.releasing: list[str] = []
        self.queries = 0

    async def arrived(self) -> None:
        await asyncio.sleep(0)
        self.names -= set(self.releasing)
        self.releasing.clear()

    def module(self) -> ModuleType:
        locks = self

        class Lock:
            def __init__(self, name: str, if_available: bool) -> None:
                assert if_available, "a hold is never waited for"
                self.name = name
                self.mine = name not in locks.names
                locks.names.add(name)
                self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
                self.granted.get_loop().call_soon(self._answer)

            def _answer(self) -> None:
                if not self.granted.done():  # whoever waited may have been cancelled
                    self.granted.set_result(self.mine)

            def release(self) -> None:
                # A browser hears of it some time after JavaScript's turn is over.
                if self.mine:
                    locks.releasing.append(self.name)

        class WebLocks:
            def request(
                self, name: str, *, exclusive: bool = True, if_available: bool = False
            ) -> Lock:
                assert exclusive
                return Lock(name, if_available)

        async def held(prefix: str) -> list[str]:
            locks.queries += 1
            return [name for name in locks.names if name.startswith(prefix)]

        module = ModuleType("holdfast.browser.locks")
        module.__dict__.update(WebLocks=WebLocks, held=held, arrived=self.arrived)
        return module


@pytest.fixture
def web_locks(monkeypatch: pytest.MonkeyPatch) -> FakeWebLocks:
    fake = FakeWebLocks()
    monkeypatch.setitem(sys.modules, "holdfast.browser.locks", fake.module())
    return fake


@pytest.fixture(params=["memory", "file", "navigator"])
def make(request: pytest.FixtureRequest, tmp_path: Path, web_locks: FakeWebLocks) -> Make:
    if request.param == "memory":
        return MemoryTriggerHoldManager
    if request.param == "navigator":
        return NavigatorTriggerHoldManager
    return lambda: FileTriggerHoldManager(tmp_path / "a.db")


async def test_a_hold_is_seen_until_it_is_released(make: Make) -> None:
    mine, other = make(), make()
    assert isinstance(mine, TriggerHoldManager)
    before = await other.held()
    release = await mine.obtain_hold("Notes/a.db#1 é")
    assert await other.held() - before == {"Notes/a.db#1 é"}
    assert await other.is_held("Notes/a.db#1 é")
    assert not await other.is_held("notes/a.db#1 é")
    await release()
    assert await other.held() == before
    assert not await mine.is_held("Notes/a.db#1 é")


async def test_a_hold_is_taken_once(make: Make) -> None:
    mine, other = make(), make()
    release = await mine.obtain_hold("one")
    for manager in (mine, other):
        with pytest.raises(HoldAlreadyTakenError, match="'one'"):
            await manager.obtain_hold("one")
    assert await other.is_held("one"), "a refused try takes nothing away"
    await release()
    await (await other.obtain_hold("one"))()


async def test_a_release_is_idempotent_and_only_ones_own(make: Make) -> None:
    manager = make()
    release = await manager.obtain_hold("one")
    await release()
    again = await manager.obtain_hold("one")
    await release()
    assert await manager.is_held("one")
    await asyncio.gather(again(), again())
    assert not await manager.is_held("one")


async def test_many_at_once(make: Make) -> None:
    managers = [make() for _ in range(4)]

    async def attempt(number: int) -> Callable[[], Awaitable[None]] | None:
        try:
            return await managers[number % 4].obtain_hold(f"hold {number // 4}")
        except HoldAlreadyTakenError:
            return None

    releases = await asyncio.gather(*(attempt(number) for number in range(40)))
    granted = [release for release in releases if release is not None]
    assert len(granted) == 10
    assert {f"hold {number}" for number in range(10)} <= await managers[0].held()
    await asyncio.gather(*(release() for release in granted))
    assert not {f"hold {number}" for number in range(10)} & await managers[0].held()


async def test_a_cancelled_web_lock_is_given_back(web_locks: FakeWebLocks) -> None:
    manager = NavigatorTriggerHoldManager()
    task = asyncio.create_task(manager.obtain_hold("one"))
    await asyncio.sleep(0)
    assert web_locks.names == {"holdfast:hold:one"}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await web_locks.arrived()
    assert web_locks.names == set()


async def test_one_query_tells_all_holds(web_locks: FakeWebLocks) -> None:
    manager = NavigatorTriggerHoldManager()
    for number in range(5):
        await manager.obtain_hold(str(number))
    assert len(await manager.held()) == 5
    assert web_locks.queries == 1


# -- file locks ------------------------------------------------------------------------------------

HOLDER = """
import asyncio, sys
from holdfast.holds import FileTriggerHoldManager

async def main():
    await FileTriggerHoldManager(sys.argv[1]).obtain_hold(sys.argv[2])
    print("held", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@asynccontextmanager
async def holder(path: Path, hold_id: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process with a hold."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HOLDER,
        str(path),
        hold_id,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    manager = FileTriggerHoldManager(tmp_path / "a.db")
    async with holder(tmp_path / "a.db", "theirs") as process:
        assert await manager.held() == {"theirs"}
        with pytest.raises(HoldAlreadyTakenError):
            await manager.obtain_hold("theirs")
        process.kill()
        await process.wait()
        assert await manager.held() == frozenset()
    assert list(tmp_path.iterdir()) == [], "what it left is removed"


async def test_a_stopped_process_holds_what_it_held(tmp_path: Path) -> None:
    manager = FileTriggerHoldManager(tmp_path / "a.db")
    async with holder(tmp_path / "a.db", "theirs") as process:
        process.send_signal(signal.SIGSTOP)
        assert await manager.held() == {"theirs"}
        release = await manager.obtain_hold("mine")
        assert await manager.held() == {"theirs", "mine"}
        await release()
        process.send_signal(signal.SIGCONT)
        assert await manager.held() == {"theirs"}


async def test_aliases_of_a_database_share_their_holds(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    (tmp_path / "link.db").symlink_to("a.db")
    release = await FileTriggerHoldManager(tmp_path / "link.db").obtain_hold("one")
    assert await FileTriggerHoldManager(tmp_path / "sub" / ".." / "a.db").is_held("one")
    assert not await FileTriggerHoldManager(tmp_path / "b.db").is_held("one")
    await release()


async def test_nothing_is_left_beside_the_database(tmp_path: Path) -> None:
    manager = FileTriggerHoldManager(tmp_path / "a.db")
    assert await manager.held() == frozenset()
    assert list(tmp_path.iterdir()) == []
    first, second = await manager.obtain_hold("one"), await manager.obtain_hold("two")
    await first()
    assert (tmp_path / "a.db-holds" / "two.hold").exists()
    await second()
    assert list(tmp_path.iterdir()) == []


async def test_the_folder_may_vanish_under_whoever_waits(tmp_path: Path) -> None:
    """Each release may remove the folder while others are about to make a hold in it."""

    async def again_and_again(name: str) -> None:
        manager = FileTriggerHoldManager(tmp_path / "a.db")
        for _ in range(25):
            release = await manager.obtain_hold(name)
            assert name in await manager.held()
            await release()

    await asyncio.gather(*(again_and_again(name) for name in "abcd"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_the_folder_may_vanish_where_it_was_just_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Here, and by filelock, which makes it too."""
    manager = FileTriggerHoldManager(tmp_path / "a.db")
    make = os.mkdir
    found = [manager.folder] * times

    def mkdir(path: Path, *arguments: int) -> None:
        if path in found:
            found.remove(path)  # and the owner of its last hold removes it at once
            raise FileExistsError(path)
        make(path, *arguments)

    monkeypatch.setattr(os, "mkdir", mkdir)
    release = await manager.obtain_hold("one")
    assert not found
    assert await manager.held() == {"one"}
    await release()


async def test_a_guard_that_is_kept_is_an_error(tmp_path: Path) -> None:
    manager = FileTriggerHoldManager(tmp_path / "a.db", timeout=0.05)
    with manager._guarded():
        with pytest.raises(DatabaseBusyError, match=r"guard .* 0.05 s"):
            await manager.obtain_hold("one")
        with pytest.raises(DatabaseBusyError, match="guard"):
            await manager.held()
    assert await manager.held() == frozenset()


async def test_a_hold_is_released_though_the_guard_is_kept(tmp_path: Path) -> None:
    manager = FileTriggerHoldManager(tmp_path / "a.db", timeout=0.05)
    other = FileTriggerHoldManager(tmp_path / "a.db")
    release = await manager.obtain_hold("one")
    with other._guarded():
        await release()
        assert len(list(manager.folder.glob("*.hold"))) == 1
    assert await other.held() == frozenset()
    assert not manager.folder.exists()


async def test_a_hold_that_comes_after_a_cancellation_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = FileTriggerHoldManager(tmp_path / "a.db")
    entered, go_on, obtained = asyncio.Event(), threading.Event(), asyncio.Event()
    loop, obtain = asyncio.get_running_loop(), manager._obtain

    def late(hold_id: str) -> Any:
        loop.call_soon_threadsafe(entered.set)
        go_on.wait(PATIENCE)
        lock = obtain(hold_id)
        loop.call_soon_threadsafe(obtained.set)
        return lock

    monkeypatch.setattr(manager, "_obtain", late)
    obtaining = asyncio.ensure_future(manager.obtain_hold("one"))
    await asyncio.wait_for(entered.wait(), PATIENCE)
    obtaining.cancel()
    await asyncio.wait([obtaining])
    assert obtaining.cancelled()
    go_on.set()
    await asyncio.wait_for(obtained.wait(), PATIENCE)
    monkeypatch.undo()
    async with asyncio.timeout(PATIENCE):
        while manager.folder.exists():  # noqa: ASYNC110 (its threads tell nothing)
            await asyncio.sleep(0.002)
    await (await manager.obtain_hold("one"))()


async def test_ids_that_differ_in_case_alone_have_files_of_their_own(tmp_path: Path) -> None:
    manager = FileTriggerHoldManager(tmp_path / "a.db")
    releases = [await manager.obtain_hold(hold_id) for hold_id in ("one", "One", "%6fne")]
    names = [path.name for path in manager.folder.glob("*.hold")]
    # Some file systems take both for one.
    assert len({name.lower() for name in names}) == 3
    assert await manager.held() == {"one", "One", "%6fne"}
    for release in releases:
        await release()


@pytest.mark.parametrize("wrong", ["x" * 300, "é" * 50])
async def test_an_id_that_no_file_can_be_named_by(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="too long"):
        await FileTriggerHoldManager(tmp_path / "a.db").obtain_hold(wrong)
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    manager: Any = FileTriggerHoldManager(tmp_path / "missing" / "a.db")
    with pytest.raises(FileNotFoundError):
        await asyncio.wait_for(manager.obtain_hold("one"), PATIENCE)
    manager = FileTriggerHoldManager(tmp_path / "a.db")
    manager.folder.write_text("a file of somebody else's")
    with pytest.raises(FileExistsError):
        await asyncio.wait_for(manager.obtain_hold("one"), PATIENCE)
