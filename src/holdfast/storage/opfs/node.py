"""A *node*: what a worker has of one OPFS database, shared by all connections there.

The files, the leases, the channel and the VFS's wal-index; every `OpfsStorage` of the worker on
that name shares it.

    on the channel holdfast:<name>, text: first a word
    -----------------------------------------------------------------------------------------
    want …, done …, free … about leases: see leases.py
    commit <json>          transactions were committed: [whether the schema changed, tables, steps
                           from position to position (see ../history.py)]
    hello <tab>            this tab opened the database; others answer
    here <tab>             the answer: watch my tab lock, as I watch yours

A tab's id begins with the number of this protocol (files, locks and messages), so that pages of
different versions of this package notice each other by their tab locks and do not mix.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from ...bounds import Bound
from ...errors import DatabaseBusyError, StorageUnavailableError
from ...giving_back import give_back
from ...sqlite.connection import Connection
from ...unique import unique
from ..history import History, Step
from ..joined import Joined
from ..names import name_segments
from .leases import Leases, Level
from .presence import SOON, Presence
from .wal import Wal

if TYPE_CHECKING:
    from ...browser.channel import Channel
    from ...browser.files import DatabaseFiles
    from ...browser.locks import WebLock
    from ...browser.tasks import BrowserTasks
    from .storage import OpfsStorage

logger = logging.getLogger("holdfast")

_VFS = Path(__file__).parents[2] / "vfs" / "holdfast_vfs.wasm"

# The folder of OPFS that all of this package's files are in.
FOLDER = "holdfast"

# What tabs must agree on to share a database: the locks, the messages and what the files mean.
PROTOCOL = 1

# For so long, in seconds, may a tab that died still have its files open.
_LATE = 2.0

# A tab's id, of whatever protocol.
_TAB = re.compile(r"\d+-[0-9a-f]{32}")


def files_lock(name: str) -> str:
    """The lock that every worker shares while it has a database open: see store.py."""
    return f"holdfast:{name}:files"


def claim_lock(name: str) -> str:
    """The lock that openers pass through: see store.py."""
    return f"holdfast:{name}:claim"


def tab_lock(name: str, tab: str) -> str:
    """The lock that a tab holds for as long as it has the database open."""
    return f"holdfast:{name}:tab:{tab}"


async def tabs_of(name: str) -> list[str]:
    """The ids of the tabs that have the database open."""
    return _ids(name, await _ask_tabs(name))


def _ask_tabs(name: str) -> Awaitable[Iterable[str]]:
    from ...browser.locks import held

    return held(tab_lock(name, ""))


def _ids(name: str, locks: Iterable[str]) -> list[str]:
    found = [lock.removeprefix(tab_lock(name, "")) for lock in locks]
    # What is no id is a lock of another database, whose name goes on like ours.
    return [tab for tab in found if _TAB.fullmatch(tab)]


class Node(Joined["OpfsStorage"]):
    """What this worker has of one database."""

    def __init__(self, name: str) -> None:
        from ...browser.locks import WebLocks

        super().__init__(name)
        self.tab = f"{PROTOCOL}-{unique()}"
        self.locks = WebLocks()
        self.history: History | None = None
        self.files: DatabaseFiles
        self.leases: Leases
        self.presence: Presence
        self.tasks: BrowserTasks
        self.wal: Wal
        self._control: apsw.Connection
        self._channel: Channel
        self._files_lock: WebLock
        self._tab_lock: WebLock
        self._peers: dict[str, WebLock] = {}
        self._unsent: set[str] | None = None
        self._unsent_ddl = False
        self._unsent_steps: list[Step] = []

    # -- opening and closing ---------------------------------------------------------------------

    async def open(self, storage: OpfsStorage, bound: Bound) -> None:
        """Files, VFS, leases, channel and tab lock; all or nothing."""
        from ...browser.channel import Channel
        from ...browser.files import DatabaseFiles, look
        from ...browser.host import vfs_functions
        from ...browser.tasks import BrowserTasks

        *folder, name = name_segments(self.name)
        with contextlib.ExitStack() as undo:
            looking = look([FOLDER, *folder])
            self._tab_lock = self.locks.request(tab_lock(self.name, self.tab))
            undo.callback(self._tab_lock.release)
            claim = self.locks.request(claim_lock(self.name), exclusive=False)
            passing = undo.enter_context(contextlib.ExitStack())
            passing.callback(claim.release)
            self._files_lock = self.locks.request(files_lock(self.name), exclusive=False)
            undo.push(lambda error, *_: self._files_lock.release() if error else None)
            # While the browser looks for all three:
            self._control = apsw.Connection(":memory:")
            undo.callback(self._control.close, True)
            load_extension(self._control)
            self._control.execute("SELECT holdfast_vfs_host(?, ?, ?, ?, ?)", vfs_functions())

            await self._tab_lock.granted
            tabs = _ask_tabs(self.name)
            await self._share_files(claim, bound)
            passing.close()
            self.files = await DatabaseFiles.find(looking, name)
            if self.files.shared and not self.files.is_open:
                await self.files.open(bound.left)
            undo.callback(self.files.close)
            self._check_versions(others := _ids(self.name, await tabs))
            if self.files.shared and others == [self.tab]:
                await self._check_locks(bound)
            self._control.execute(
                "SELECT holdfast_vfs_add(?, ?, ?, ?)", (self.name, *self.files.numbers)
            )
            undo.callback(self._control.execute, "SELECT holdfast_vfs_remove(?)", (self.name,))

            self.tasks = BrowserTasks()
            undo.callback(self.tasks.close)
            self.leases = Leases(
                f"holdfast:{self.name}",
                self.locks,
                lambda text: self._channel.post(text),
                self._set_level,
                None if self.files.shared else self.files,
                lambda: bool(self._peers),
                self.tasks.soon,
                title=self.name,
            )
            undo.callback(self.leases.close)
            self.presence = Presence(self.name, self.files, self.leases)
            undo.callback(self.presence.close)
            self.wal = Wal(
                self.name, self.leases, self.presence, self._connection, self._wal_emptied
            )
            self._channel = Channel(f"holdfast:{self.name}", self._heard)
            undo.callback(self._channel.close)
            self._channel.post(f"hello {self.tab}")
            self.is_open = True
            self._undo = undo.pop_all()

    async def _share_files(self, claim: WebLock, bound: Bound) -> None:
        lock = self._files_lock
        try:
            async with asyncio.timeout(bound.left):
                await lock.granted
                if not claim.granted.done():
                    # Another one waits until nobody has the database open: it goes first, unless
                    # it takes too long over it (its page may be frozen).
                    lock.release()
                    await asyncio.wait({claim.granted}, timeout=bound.left / 2)
                    lock = self._files_lock = self.locks.request(
                        files_lock(self.name), exclusive=False
                    )
                    await lock.granted
        except TimeoutError:
            raise DatabaseBusyError(
                f"{self.name!r} is being imported or deleted for longer than {bound}; try again"
            ) from None

    async def _check_locks(self, bound: Bound) -> None:
        """StorageUnavailableError: another tab has the database open, and its locks are not seen.

        In Chromium, tabs of before and after the site's data was cleared have the same files and
        different locks, so that their writes would go over each other.
        """
        late = bound.at_most(_LATE)
        while not await self.files.has_alone(bound.left) and len(await self.tabs()) == 1:
            if late.over:
                raise StorageUnavailableError(
                    f"{self.name!r} is open in a page with which this one cannot share it, because "
                    "the site's data was cleared while one of them was open. Close every page of "
                    "the site, and load it again"
                )
            # The handles of a tab that died are released somewhat later than its locks.
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Give back what `open` took, in the reverse order."""
        from ...browser.locks import arrived

        if self.is_open:
            self.is_open = False
            peers, self._peers = self._peers, {}
            await give_back(
                self._send,
                self.wal.close,
                *(peer.release for peer in peers.values()),
                self._undo.close,
                self.presence.closed,
                self.files.closed,
                # An import or deletion then finds no handle open.
                self._files_lock.release,
                arrived,
            )
        else:
            await arrived()

    def rest(self) -> None:
        """The worker may be stopped soon: keep no lease beyond its transaction, and no message."""
        self._send()
        self.leases.rest()

    async def tabs(self) -> list[str]:
        """The ids of the tabs that have the database open."""
        return await tabs_of(self.name)

    def _check_versions(self, tabs: list[str]) -> None:
        """StorageUnavailableError: a page with another version of this package has it open.

        tabs: asked for while this tab's own lock was held, so the later of two sees the earlier.
        """
        others = {tab.partition("-")[0] for tab in tabs} - {str(PROTOCOL)}
        if others:
            raise StorageUnavailableError(
                f"{self.name!r} is open in a page with another version of holdfast (its protocol "
                f"is {', '.join(sorted(others))}, the one here is {PROTOCOL}). Reload that page, "
                "or close it, and open the database again"
            )

    def status(self, what: str) -> Any:
        """holdfast_vfs_status()."""
        return self._control.execute("SELECT holdfast_vfs_status(?, ?)", (self.name, what)).get

    def _set_level(self, level: Level) -> None:
        self._control.execute("SELECT holdfast_vfs_level(?, ?)", (self.name, int(level)))

    # -- messages --------------------------------------------------------------------------------

    def _heard(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word in ("want", "done", "free"):
            self.leases.heard(text)
            if word == "free":
                self.wal.reader_left()
        elif word == "commit":
            self.leases.written()
            ddl, tables, steps = json.loads(rest)
            for before, after in steps:
                self.add_step((tuple(before), tuple(after)))
            for storage in self.storages:
                storage.on_announcement(frozenset(tables), ddl)
        elif word == "hello":
            self._channel.post(f"here {self.tab}")
            self._watch(rest)
            self.presence.look_within(0)
        elif word == "here":
            self._watch(rest)

    def _watch(self, tab: str) -> None:
        """Find out when the tab dies: its lock is granted to us then."""
        if tab == self.tab or tab in self._peers:
            return
        peer = self.locks.request(tab_lock(self.name, tab), exclusive=False)
        self._peers[tab] = peer

        def gone(granted: asyncio.Future[bool]) -> None:
            if self._peers.pop(tab, None) is None:
                return
            peer.release()
            if not granted.cancelled() and granted.exception() is None and granted.result():
                self.wal.reader_left()
                for storage in self.storages:
                    storage.on_peer_gone()

        peer.granted.add_done_callback(gone)

    def announce(
        self, source: OpfsStorage, tables: frozenset[str], ddl: bool, step: Step | None
    ) -> None:
        """To the other connections of this worker now, to other tabs when the loop turns.

        A burst of commits that lets nothing else run goes out as one message.
        """
        for storage in self.storages:
            if storage is not source:
                storage.on_announcement(tables, ddl)
        self._note(tables, ddl, step)
        self.presence.look_within(SOON)

    def _note(self, tables: frozenset[str], ddl: bool, step: Step | None) -> None:
        if self._unsent is None:
            self._unsent = set()
            self.tasks.soon(self._send)
        self._unsent |= tables
        if step is not None:
            before, after = step
            if self._unsent_steps and self._unsent_steps[-1][1] == before:
                before, _ = self._unsent_steps.pop()
            self._unsent_steps.append((before, after))
        self._unsent_ddl = self._unsent_ddl or ddl

    def _send(self) -> None:
        if self._unsent is not None:
            said = [self._unsent_ddl, sorted(self._unsent), self._unsent_steps]
            self._channel.post(f"commit {json.dumps(said, separators=(',', ':'))}")
            self._unsent, self._unsent_ddl, self._unsent_steps = None, False, []

    def add_step(self, step: Step) -> None:
        """A commit was made here, or announced by another tab."""
        if self.history is not None:
            self.history.add(step)

    def _wal_emptied(self, step: Step) -> None:
        self.add_step(step)
        self._note(frozenset(), False, step)

    def _connection(self) -> Connection | None:
        return next((each.main for each in self.storages if each.main is not None), None)

    async def tidy(self, connection: Connection) -> None:
        """It is about to be closed here: leave a short WAL, if no other tab has it open."""
        if not self._peers:
            await self.wal.tidy(connection)


def load_extension(raw: apsw.Connection) -> None:
    """The VFS and its SQL functions, for a connection."""
    raw.enable_load_extension(True)
    raw.load_extension(str(_VFS), "sqlite3_holdfastvfs_init")
    raw.enable_load_extension(False)
