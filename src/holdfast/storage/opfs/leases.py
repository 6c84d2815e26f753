"""Who may do what to a shared database: leases, made of locks that die with their tab.

Correctness rests on the locks alone. Messages only make things faster: a lost one costs time.

    lock of a database    mode                 who holds it
    ------------------    ------------------   ------------------------------------------------
    <db>:write            exclusive            the one tab that may append to the WAL
    <db>:read             shared               every tab inside a transaction, of either kind
    <db>:read             exclusive, beside    the tab that checkpoints and restarts the WAL,
                          <db>:write           creates or converts the database
    <db>:tab:<id>         exclusive            each tab for as long as it lives (see storage.py)

    message               what it says
    ------------------    ---------------------------------------------------------------------
    want write            this tab waits for `write`
    want read <seconds>   this tab waits that long for a moment in which no tab reads
    done read             it waits no longer
    free read             a reader that kept it waiting has left

Order: `write` is always asked for before `read`, and nobody waits without bound for `read` in
exclusive mode, so a circle of waiting tabs cannot close.

`read` in exclusive mode is never queued. Browsers grant nothing to those that wait behind an
exclusive request that was withdrawn, or whose tab died, until a holder releases the lock, which a
long reader does much later. It is asked for with `ifAvailable`, and what makes a moment without
readers is a wish: tabs that read nothing wait a little before they begin, and the readers of one
tab leave before the next ones enter. Readers of other tabs go on where no such moment comes.

A lease is kept between transactions while nobody else wants it: asking for a lock costs some
0.2 ms, keeping one nothing. A tab that wants a lock says so; a keeper gives it up when its
transaction ends. When tabs alternate, keeping the lease only adds a request. A tab that was asked
after each single transaction releases it unasked and requests it silently while others stay active.
A kept lease that is not used for IDLE seconds is given up too, so a sleeping tab blocks nobody; and
one that is used without pause is put back into the queue every SLICE seconds while other tabs are
open, whether their wishes were heard or not, so nobody starves.
No lock is ever stolen: a stopped tab that wakes would write over its successor.

Where a browser's file handles are exclusive, a tab can do nothing beside another: `read` is always
exclusive then, comes with the handles (they are opened when it is granted and closed before it is
given up), and allows everything; `write` is not used. A request there waits for a holder that is
exclusive too, so it may be queued. Handing over costs some milliseconds, so what others want is
given up when the loop turns, not after each transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from ...bounds import Bound, BoundedLock
from ...errors import DatabaseBusyError
from .requests import LockManager, LockRequest, Requests
from .wishes import DRAIN, Waker, Wish

# A kept lease is given up after this many seconds without use.
IDLE = 0.1

# While other tabs are open, a lease is kept for this long at a stretch, in seconds.
SLICE = 0.02

# Pauses between two looks for a moment without readers, in seconds, should no message tell of it:
# the first, which doubles, and the longest.
FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.05

# The shared lock that was given up for such a moment is taken back within this bound, in seconds.
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

    post(text): a message to the other tabs; theirs come to `heard`.
    on_level(level): called, before anything else may happen, whenever the level changes.
    handles: in a browser whose handles are exclusive; None where tabs can share them.
    others(): whether other tabs have the database open.
    soon(function): calls it when nothing of this tab runs, the loop's call_soon if not given.
    title: what errors call the database.
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
        *,
        title: str,
    ) -> None:
        self._handles = handles
        self._name = database
        self._post = post
        self._requests = Requests(database, locks, lambda what: post(f"want {what}"), title=title)
        self._on_level = on_level
        self._others = others
        self._soon = soon or asyncio.get_running_loop().call_soon
        self._level = Level.NONE
        self._write: LockRequest | None = None
        self._read: LockRequest | None = None
        self._readers = 0  # transactions of this tab now, writers included
        self._writing = False
        self._write_wanted = False
        self._read_wanted = False
        self._slice_over = False
        # Tabs write in turn: the last keeping was ended by a wish, after a single transaction.
        self._in_turn = False
        self._transactions = 0  # of the write lease that is held
        self._others_write = False  # or want to, since this tab last asked for it
        kept = f"other tasks of this tab, or another tab that these wait for, kept {title!r} busy"
        self._write_turn = BoundedLock(kept)
        self._read_turn = BoundedLock(kept)
        self._wish = Wish()
        # For the task that has the read turn: a reader left, a wish ended, a moment may have come.
        self._waker = Waker()
        # Others read when this tab last wished that they did not.
        self._missed = False
        # A reader of this tab was in the way of what was last to be done alone.
        self.own_reader_stayed = False
        self._last_used = 0.0
        self._taken = 0.0  # when the lease to write was granted
        self._idle_timer: asyncio.Handle | None = None
        self._closed = False

    @property
    def level(self) -> Level:
        return self._level

    @property
    def readers(self) -> int:
        """Transactions of this tab that are open now, writers included."""
        return self._readers

    # -- reading ---------------------------------------------------------------------------------

    def read_now(self) -> bool:
        """Enter a read without waiting; False when `read` is needed."""
        if self._read is None or self._read_wanted or self._read_turn.locked():
            return False
        self._readers += 1
        return True

    async def read(self, bound: Bound, *, inside: bool = False) -> None:
        """Enter a read. DatabaseBusyError: not within the bound.

        inside: of another read of this tab, which does not end before this one.
        """
        if self.read_now():
            return
        if inside and self._read is not None:
            self._readers += 1
            return
        await self._read_turn.acquire(bound)
        try:
            if not inside:
                await self._oblige(bound)
            await self._take_read(bound)
            self._readers += 1
        finally:
            self._read_turn.release()

    def leave_read(self) -> None:
        """Leave a read."""
        self._readers -= 1
        if self._readers:
            pass
        elif self._handles is None and self._read_wanted:
            self._give_read()
        elif self._read_wanted:
            self._soon(self._give_read_if_free)
        self._waker.wake()
        self._used()

    # -- writing ---------------------------------------------------------------------------------

    async def write(self, bound: Bound, *, inside: bool = False) -> None:
        """Enter a write, alone among all tabs and all connections of this one.

        inside: as for `read`.
        """
        if not inside and self._handles is not None and self._read_wanted:
            # Before the turn to write, which a reader that is waited for may be waiting for.
            await self._read_turn.acquire(bound)
            try:
                await self._oblige(bound)
            finally:
                self._read_turn.release()
        await self._write_turn.acquire(bound)
        try:
            if self._write is None and self._handles is None:
                self._in_turn = self._in_turn and self._others_write
                self._others_write = False
                self._write = await self._requests.ask(
                    "write", exclusive=True, bound=bound, quiet=self._in_turn
                )
                self._transactions = 0
                self._taken = time.monotonic()
                self._set_level()
            self._writing = True
            self._transactions += 1
            # Where handles are shared, no other tab can wish for a moment without readers now.
            await self.read(bound, inside=True)
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
        if self._slice_over:
            # Others of this tab that wait for their turn ask for the lease anew.
            self._give_write()
        elif self._write_wanted or self._in_turn:
            # When the loop turns: a tab that has more to write at once goes on until then, but not
            # before others of the same tab that wait for their turn.
            self._soon(self._give_write_if_free)
        self._write_turn.release()

    # -- nobody else -----------------------------------------------------------------------------

    async def alone(self, work: Callable[[], None], bound: Bound, drain: float = DRAIN) -> bool:
        """Inside a write, before it began its transaction: `work()`, while nobody else even reads.

        False if others read all the time, and it was not done. The write goes on beside readers.
        drain: what readers of other tabs may be asked to wait for each other, in seconds;
        "free read" comes when they have left.
        """
        if self._handles is not None:
            work()
            return True
        try:
            await self._read_turn.acquire(bound)
        except DatabaseBusyError:
            return False
        try:
            self.own_reader_stayed = not await self._wait_for_readers(bound, but=1)
            if self.own_reader_stayed:
                return False
            self._give_read()
            self._read = await self._moment_without_readers(bound, drain)
            self._missed = self._read is None
            if self._read is not None:
                try:
                    self._set_level(Level.EXCLUSIVE)
                    work()
                finally:
                    self._give_read()
            # No other tab can keep it: this one has the lease to write.
            await self._take_read(Bound(ASK_AGAIN))
        finally:
            self._read_turn.release()
        return not self._missed

    async def _moment_without_readers(self, bound: Bound, drain: float) -> LockRequest | None:
        """`read` in exclusive mode; None: others read all the time."""
        pause = FIRST_PAUSE
        wished = False
        try:
            while (lock := await self._requests.ask_if_free("read")) is None and not bound.over:
                if not wished or pause >= LONGEST_PAUSE:
                    # The message may have been lost.
                    self._post(f"want read {drain:.3f}")
                    wished = True
                if not await self._waker.wait(bound.at_most(pause)):
                    pause = min(2 * pause, LONGEST_PAUSE)
            return lock
        finally:
            if wished or self._missed:
                self._post("done read")

    # -- giving up -------------------------------------------------------------------------------

    def heard(self, text: str) -> None:
        """A message of another tab, as the table at the top has them."""
        word, what, *seconds = text.split(" ")
        if word == "want" and what == "write":
            self._write_is_wanted()
        elif word == "want":
            self._read_is_wanted(float(seconds[0]) if seconds else DRAIN)
        else:
            if word == "done":
                self._wish.ended()
            self._waker.wake()

    def _write_is_wanted(self) -> None:
        self._others_write = True
        if self._write is not None and not self._writing:
            self._in_turn = self._transactions == 1
            self._give_write()
        elif self._write is not None or self._write_turn.locked():
            # Held, or queued behind a tab that may have the same wish.
            self._write_wanted = True

    def _read_is_wanted(self, seconds: float) -> None:
        self._wish.heard(seconds)
        if self._read is not None and not self._readers:
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
        self._slice_over = False
        if lock is not None:
            # The VFS hears of it first: from here on nothing may be written.
            self._set_level()
            lock.release()

    def _give_read(self) -> None:
        lock, self._read = self._read, None
        wanted, self._read_wanted = self._read_wanted, False
        if lock is not None:
            self._set_level()
            if self._handles is not None:
                self._handles.close()
            lock.release()
            if wanted and self._handles is None:
                self._wish.met()
                self._post("free read")

    def _used(self) -> None:
        self._last_used = time.monotonic()
        if self._last_used - self._taken > SLICE and self._taken and self._others():
            self._taken = 0.0  # asked for once
            self._soon(self._end_slice)
        if self._idle_timer is None and not self._closed:
            self._idle_timer = asyncio.get_running_loop().call_later(IDLE, self._idle)

    def _end_slice(self) -> None:
        """Put the lease back into the queue, now or when the transaction ends that has it."""
        if self._handles is not None:
            self._read_is_wanted(DRAIN)
        elif self._writing:
            self._slice_over = True
        else:
            self._give_write()

    def _idle(self) -> None:
        # One timer at a time, however many transactions: it looks when the last one was.
        self._idle_timer = None
        rest = self._last_used + IDLE - time.monotonic()
        if rest > 0.001:
            self._idle_timer = asyncio.get_running_loop().call_later(rest, self._idle)
            return
        self.give_up_kept()

    # -- asking and waiting ----------------------------------------------------------------------

    async def _take_read(self, bound: Bound) -> None:
        if self._read is not None:
            return
        if self._handles is None:
            self._read = await self._requests.ask("read", exclusive=False, bound=bound)
        else:
            lock = await self._requests.ask("read", exclusive=True, bound=bound)
            try:
                await self._handles.open(bound.left)
                if self._closed:
                    self._handles.close()
                self._requests.check_open()
            except BaseException:
                lock.release()
                raise
            self._read = lock
            self._taken = time.monotonic()
        self._set_level()

    async def _oblige(self, bound: Bound) -> None:
        """Let another tab have what it wishes for, if that comes soon."""
        drains = self._read_wanted and self._readers > 0
        if drains and await self._wait_for_readers(bound.at_most(self._wish.drain)):
            self._give_read()
        while self._read is None and self._handles is None and not bound.over:
            if (rest := self._wish.hold_back) <= 0:
                return
            await self._waker.wait(bound.at_most(rest))

    async def _wait_for_readers(self, bound: Bound, but: int = 0) -> bool:
        while self._readers > but:
            if bound.over:
                return False
            await self._waker.wait(bound)
        return True

    def _set_level(self, level: Level | None = None) -> None:
        if level is not None:
            pass
        elif self._read is None:
            level = Level.NONE
        elif self._handles is not None:
            level = Level.EXCLUSIVE
        else:
            level = Level.READ if self._write is None else Level.WRITE
        if level != self._level:
            self._level = level
            self._on_level(level)
