"""Who may do what to a shared database: leases, made of locks that die with their tab.

Correctness rests on the locks alone. Messages only make things faster: a lost one costs time.

    lock of a database    mode                 who holds it
    ------------------    ------------------   ------------------------------------------------
    <db>:write            exclusive            the one tab that may append to the WAL
    <db>:read             shared               every tab inside a transaction, of either kind
    <db>:read             exclusive, beside    the tab that checkpoints, restarts the WAL,
                          <db>:write           creates or converts the database
    <db>:tab:<id>         exclusive            each tab for as long as it lives (see opfs.py)

Order: `write` is always asked for before `read`, and nobody waits without bound for `read` in
exclusive mode, so a circle of waiting tabs cannot close.

A lease is kept between transactions while nobody else wants it: asking for a lock costs some
0.2 ms, keeping one nothing. Whoever wants a lock says so on the channel ("want"); a keeper gives it
up when its transaction ends. Where tabs write in turn, keeping only adds the asking: a tab that was
asked after each of its transactions gives the write lease up unasked, and does not ask aloud
either, for as long as it hears of others' commits or wishes between its own.
A kept lease that is not used for IDLE seconds is given up too, so a sleeping tab blocks nobody; and
one that is used without pause is put back into the queue every SLICE seconds while other tabs are
open, whether their wishes were heard or not, so nobody starves.
No lock is ever stolen: a stopped tab that wakes would write over its successor.

Where a browser's file handles are exclusive, a tab can do nothing beside another: `read` is always
exclusive then, comes with the handles (they are opened when it is granted and closed before it is
given up), and allows everything; `write` is not used. Handing over costs some milliseconds there,
so what others want is given up when the loop turns, not after each transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from ..errors import DatabaseBusyError
from .requests import LockManager, LockRequest, Requests

# A kept lease that nobody here used for this long, in seconds, is given up.
IDLE = 0.1

# While other tabs are open, a lease is kept for this long at a stretch, in seconds.
SLICE = 0.02

# Under a standing wish of others, a reader beside other readers of this tab waits this long for
# its turn at most, in seconds: it may be what one of those readers is waiting for.
POLITE = 0.01

# After an exclusive read was not granted, the shared one that was given up for it is taken back
# within this bound, in seconds: at most one other tab's checkpoint is in the way.
ASK_AGAIN = 60.0


class Level(IntEnum):
    """What the locks that are held now allow; the VFS knows the same numbers."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXCLUSIVE = 3


class Handles(Protocol):
    """File handles that only one tab can have open at a time."""

    async def open(self, timeout: float) -> None:
        """DatabaseBusyError: another tab still had them open after `timeout` seconds."""
        ...

    def close(self) -> None: ...


class Leases:
    """The leases of one tab on one database, shared by its connections there.

    post(want): says "read" or "write" to the other tabs; theirs come to `wanted`.
    on_level(level): called, before anything else may happen, whenever the level changes.
    handles: in a browser whose handles are exclusive; None where tabs can share them.
    others(): whether other tabs have the database open.
    soon(function): calls it when nothing of this tab runs, the loop's call_soon if not given.
    """

    def __init__(
        self,
        database: str,
        locks: LockManager,
        post: Callable[[str], None],
        on_level: Callable[[Level], None],
        handles: Handles | None = None,
        others: Callable[[], bool] = lambda: True,
        soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self._handles = handles
        self._name = database
        self._requests = Requests(database, locks, post)
        self._on_level = on_level
        self._others = others
        self._soon = soon or asyncio.get_running_loop().call_soon
        self._level = Level.NONE
        self._write: LockRequest | None = None
        self._read: LockRequest | None = None
        self._read_is_exclusive = False
        self._readers = 0  # transactions of this tab now, writers included
        self._writing = False
        self._write_wanted = False
        self._read_wanted = False
        # Tabs write in turn: the last keeping was ended by a wish, after a single transaction.
        self._in_turn = False
        self._transactions = 0  # of the write lease that is held
        self._others_write = False  # or want to, since this tab last asked for it
        self._write_turn = asyncio.Lock()
        self._read_turn = asyncio.Lock()
        self._reader_left: asyncio.Future[None] | None = None
        self._last_used = 0.0
        self._taken = 0.0  # when the lease to write was granted
        self._idle_timer: asyncio.Handle | None = None
        self._closed = False

    @property
    def level(self) -> Level:
        return self._level

    # -- reading ---------------------------------------------------------------------------------

    def read_now(self) -> bool:
        """Enter a read without waiting; False when `read` is needed."""
        if self._read is None or self._read_wanted or self._read_turn.locked():
            return False
        self._readers += 1
        return True

    async def read(self, timeout: float) -> None:
        """Enter a read. DatabaseBusyError after `timeout` seconds."""
        if self.read_now():
            return
        async with self._read_turn:
            if self._read_wanted and self._readers:
                await self._wait_for_readers(POLITE)
            await self._take_read(timeout)
            self._readers += 1

    def leave_read(self) -> None:
        """Leave a read."""
        self._readers -= 1
        if self._readers:
            pass
        elif self._handles is None and (self._read_wanted or self._read_is_exclusive):
            # There is no way down from exclusive but to ask anew.
            self._give_read()
        elif self._read_wanted:
            self._soon(self._give_read_if_free)
        if self._reader_left is not None and not self._reader_left.done():
            self._reader_left.set_result(None)
        self._used()

    # -- writing ---------------------------------------------------------------------------------

    async def write(self, timeout: float) -> None:
        """Enter a write, alone among all tabs and all connections of this one."""
        await self._take_write_turn(timeout)
        try:
            if self._write is None and self._handles is None:
                self._in_turn = self._in_turn and self._others_write
                self._others_write = False
                self._write = await self._requests.ask(
                    "write", exclusive=True, timeout=timeout, quiet=self._in_turn
                )
                self._transactions = 0
                self._taken = time.monotonic()
                self._set_level()
            self._writing = True
            self._transactions += 1
            await self.read(timeout)
        except BaseException:
            self._leave_write_turn()
            self._used()
            raise

    def leave_write(self) -> None:
        """Leave a write; gives up what others want, keeps the rest."""
        self.leave_read()
        self._leave_write_turn()

    def write_now(self) -> bool:
        """Enter a write that is left, by `leave_write_now`, before anything else can run.

        False when `write` is needed.
        """
        if self._level < Level.WRITE or self._write_turn.locked() or self._read_wanted:
            return False
        self._transactions += 1
        return True

    def leave_write_now(self) -> None:
        """Leave a write that `write_now` entered.

        Whatever others want was asked for between two turns of the loop, and given or marked then.
        """
        self._used()

    def _leave_write_turn(self) -> None:
        self._writing = False
        if self._write_wanted or self._in_turn:
            # When the loop turns: a tab that has more to write at once goes on until then, but not
            # before others of the same tab that wait for their turn.
            self._soon(self._give_write_if_free)
        self._write_turn.release()

    async def exclusive(self, timeout: float) -> bool:
        """Inside a write, before it began its transaction: nobody else even reads.

        False if others still read after `timeout` seconds; the write goes on as it was, and
        `leave_write` ends either.
        """
        if self._level == Level.EXCLUSIVE:
            return True
        async with self._read_turn:
            if self._readers > 1 and not await self._wait_for_readers(timeout, but=1):
                return False
            self._give_read()
            try:
                self._read = await self._requests.ask("read", exclusive=True, timeout=timeout)
            except DatabaseBusyError:
                await self._take_read(ASK_AGAIN)
                return False
            self._read_is_exclusive = True
            self._set_level()
            return True

    # -- giving up -------------------------------------------------------------------------------

    def wanted(self, what: str) -> None:
        """Another tab wants "write", or "read" in exclusive mode."""
        if what == "write":
            self._others_write = True
            if self._write is not None and not self._writing:
                self._in_turn = self._transactions == 1
                self._give_write()
            elif self._write is not None or self._write_turn.locked():
                # Held, or being waited for behind somebody who may have the same wish.
                self._write_wanted = True
        elif self._read is not None and not self._readers:
            self._give_read()
        elif self._read is not None or (self._handles is not None and self._read_turn.locked()):
            self._read_wanted = True

    def written(self) -> None:
        """Another tab has written."""
        self._others_write = True

    def _give_write_if_free(self) -> None:
        if not self._writing and not self._write_turn.locked():
            self._give_write()

    def _give_read_if_free(self) -> None:
        if not self._readers and not self._read_turn.locked():
            self._give_read()

    def give_up_kept(self) -> None:
        """Give up what no transaction needs: the tab is idle."""
        self._give_write_if_free()
        self._give_read_if_free()

    def rest(self) -> None:
        """The tab goes to sleep: the same, and what a transaction needs goes when that ends."""
        self.give_up_kept()
        self._write_wanted = self._write_wanted or self._write is not None
        self._read_wanted = self._read_wanted or self._read is not None

    def close(self) -> None:
        """Give up everything."""
        self._closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._requests.close()
        self._give_read()
        self._give_write()

    def _give_write(self) -> None:
        lock, self._write = self._write, None
        self._write_wanted = False
        if lock is not None:
            # The VFS hears of it first: from here on nothing may be written.
            self._set_level()
            lock.release()

    def _give_read(self) -> None:
        lock, self._read = self._read, None
        self._read_is_exclusive = False
        self._read_wanted = False
        if lock is not None:
            self._set_level()
            if self._handles is not None:
                self._handles.close()
            lock.release()

    def _used(self) -> None:
        self._last_used = time.monotonic()
        if self._last_used - self._taken > SLICE and self._taken and self._others():
            self._taken = 0.0  # asked for once
            self._soon(self._end_slice)
        if self._idle_timer is None and not self._closed:
            self._idle_timer = asyncio.get_running_loop().call_later(IDLE, self._idle)

    def _end_slice(self) -> None:
        if self._handles is None:
            self._give_write_if_free()
        else:
            self._give_read_if_free()

    def _idle(self) -> None:
        # One timer at a time, however many transactions: it looks when the last one was.
        self._idle_timer = None
        rest = self._last_used + IDLE - time.monotonic()
        if rest > 0.001:
            self._idle_timer = asyncio.get_running_loop().call_later(rest, self._idle)
            return
        self.give_up_kept()

    # -- asking ----------------------------------------------------------------------------------

    async def _take_read(self, timeout: float) -> None:
        if self._read is not None:
            return
        if self._handles is None:
            self._read = await self._requests.ask("read", exclusive=False, timeout=timeout)
        else:
            lock = await self._requests.ask("read", exclusive=True, timeout=timeout)
            try:
                await self._handles.open(timeout)
                if self._closed:
                    self._handles.close()
                self._requests.check_open()
            except BaseException:
                lock.release()
                raise
            self._read = lock
            self._taken = time.monotonic()
        self._set_level()

    async def _take_write_turn(self, timeout: float) -> None:
        if not self._write_turn.locked():
            await self._write_turn.acquire()  # at once: nobody has it
            return
        try:
            async with asyncio.timeout(timeout):
                await self._write_turn.acquire()
        except TimeoutError:
            raise DatabaseBusyError(
                f"another connection of this tab kept {self._name!r} for longer than "
                f"{timeout:g} s; look for a transaction that is left open"
            ) from None

    async def _wait_for_readers(self, timeout: float, but: int = 0) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while self._readers > but:
                    self._reader_left = asyncio.get_running_loop().create_future()
                    await self._reader_left
        except TimeoutError:
            return False
        return True

    def _set_level(self) -> None:
        if self._read is None:
            level = Level.NONE
        elif self._handles is not None:
            level = Level.EXCLUSIVE
        elif self._write is None:
            level = Level.READ
        else:
            level = Level.EXCLUSIVE if self._read_is_exclusive else Level.WRITE
        if level != self._level:
            self._level = level
            self._on_level(level)
