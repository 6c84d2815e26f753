"""Holds by OS file locks: one file per hold, locked by its process until that ends.

The kernel releases the lock of a process that dies, and of none that is only stopped. The files
are in a folder beside the database:

    <database>-holds/<id>.hold   locked by the process that has the hold
    <database>-holds/guard       locked to create, try or remove one

Under the guard nobody else tries a file that is just being created, and nobody's try is taken for
a hold; so a hold file that can be locked has no owner, and may be removed. The guard is kept for
moments only. Its file and the folder go with the last hold.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DatabaseBusyError
from ..giving_back import keep
from .memory import already_taken

if TYPE_CHECKING:
    from filelock import BaseFileLock

_SUFFIX = ".hold"

logger = logging.getLogger("holdfast")


class FileTriggerHoldManager:
    """Holds that every process of this machine sees.

    database_path: the database's file; aliases and symlinks of it make no difference.
    timeout: how long to wait, in seconds, for a process that creates or removes a hold: others
        take moments, but one may have been stopped just there.
    """

    # No event tells that a process died, so its holds are looked at this often, in seconds.
    watch_interval = 1.0

    def __init__(self, database_path: str | os.PathLike[str], timeout: float = 10.0) -> None:
        self.timeout = timeout
        self.folder = Path(os.path.realpath(database_path) + "-holds")

    @classmethod
    def in_folder(cls, folder: str) -> FileTriggerHoldManager:
        """The one whose `folder` this is."""
        return cls(folder.removesuffix("-holds"))

    async def obtain_hold(self, hold_id: str) -> Callable[[], Awaitable[None]]:
        """Take a hold; gives its idempotent release. HoldAlreadyTakenError: a process has it.

        OSError: the folder cannot be written; DatabaseBusyError: a process keeps the guard.
        """
        taking = keep(asyncio.to_thread(self._obtain, hold_id))
        try:
            lock = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._unwanted)
            raise
        released: asyncio.Task[None] | None = None

        async def release() -> None:
            nonlocal released
            if released is None:
                released = keep(asyncio.to_thread(self._release, lock))
            # A caller that is cancelled must not leave the lock half released.
            await asyncio.shield(released)

        return release

    def _unwanted(self, taking: asyncio.Task[BaseFileLock]) -> None:
        """The hold came, or not, after its caller had been cancelled."""
        if not taking.cancelled() and taking.exception() is None:
            keep(asyncio.to_thread(self._release, taking.result()))

    async def is_held(self, hold_id: str) -> bool:
        """Whether a living process has this hold."""
        return hold_id in await self.held()

    async def held(self) -> frozenset[str]:
        """Every hold of every living process; removes the files that dead ones left.

        OSError, DatabaseBusyError: as `obtain_hold`.
        """
        return await asyncio.to_thread(self._held)

    # -- on a thread, because the guard may have to be waited for --------------------------------

    def _obtain(self, hold_id: str) -> BaseFileLock:
        with self._guarded():
            lock = _lock_file(self.folder / _file_name(hold_id))
            if not _try(lock):
                raise already_taken(hold_id)
            return lock

    def _release(self, lock: BaseFileLock) -> None:
        try:
            with self._guarded():
                _remove(lock)
        except (OSError, DatabaseBusyError) as error:
            # Unlocked, its file is one that a dead process left, and goes as those do.
            lock.release()
            logger.debug("%s is left to be removed: %s", lock.lock_file, error)

    def _held(self) -> frozenset[str]:
        from urllib.parse import unquote

        if not self.folder.is_dir():
            return frozenset()
        held = set()
        with self._guarded():
            for path in self.folder.glob("*" + _SUFFIX):
                lock = _lock_file(path)
                if _try(lock):
                    _remove(lock)
                else:
                    held.add(unquote(path.name.removesuffix(_SUFFIX)))
        return frozenset(held)

    @contextmanager
    def _guarded(self) -> Generator[None]:
        import filelock

        while True:
            # Not exist_ok, which looks for the folder and raises if it was removed just then.
            with suppress(FileExistsError):
                self.folder.mkdir()
            guard = _lock_file(self.folder / "guard")
            try:
                guard.acquire(timeout=self.timeout, poll_interval=0.002)
                break
            except (FileNotFoundError, FileExistsError):
                # The owner of the last hold removed the folder in between. filelock makes it too,
                # and FileExistsError is all that it says when it goes at that moment.
                if os.path.lexists(self.folder) and not self.folder.is_dir():
                    raise
                continue
            except filelock.Timeout:
                raise DatabaseBusyError(
                    f"another process kept {guard.lock_file} for longer than {self.timeout:g} s, "
                    "and others need it for a moment only; look for a process that was stopped "
                    "(with SIGSTOP, or in a debugger), and let it go on or end it"
                ) from None
        try:
            yield
        finally:
            # Removed while locked: a waiting process finds that it is gone and starts anew.
            # Windows removes no open file, so there it stays.
            try:
                if sys.platform != "win32" and not any(self.folder.glob("*" + _SUFFIX)):
                    Path(guard.lock_file).unlink()
                    with suppress(OSError):  # another process made the guard's file again already
                        self.folder.rmdir()
            finally:
                guard.release()


def _file_name(hold_id: str) -> str:
    # Capital letters are escaped too: some file systems do not tell them from small ones.
    quoted = re.sub(
        r"[^a-z0-9_-]",
        lambda found: "".join(f"%{byte:02x}" for byte in found[0].encode()),
        hold_id,
    )
    if len(quoted) + len(_SUFFIX) > 255:
        raise ValueError(f"the hold id {hold_id!r} is too long to be a file's name")
    return quoted + _SUFFIX


def _lock_file(path: Path) -> BaseFileLock:
    import filelock

    # Never a soft lock, which survives its process; and free to be released by another thread.
    return filelock.FileLock(path, thread_local=False, fallback_to_soft=False)


def _try(lock: BaseFileLock) -> bool:
    import filelock

    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return False
    return True


def _remove(lock: BaseFileLock) -> None:
    """The file of a lock that is ours, under the guard; Windows removes no open file."""
    if sys.platform == "win32":
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
    else:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
