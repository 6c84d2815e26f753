"""A *node*: what a worker has of one OPFS database, whoever opened it there.

The files, the leases, the channel and the VFS's wal-index; every `OpfsStorage` of the worker on
that name shares it.

    on the channel holdfast:<name>, text: first a word
    -----------------------------------------------------------------------------------------
    want <lease>           this tab waits for the lease "write", or "read" in exclusive mode
    commit <json>          transactions were committed: [whether the schema changed, tables, steps
                           from position to position (see history.py)]
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
import uuid
from array import array
from collections.abc import Awaitable, Iterable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import apsw

from ..connection import Connection
from ..errors import DatabaseBusyError, StorageUnavailableError
from .history import History, Step
from .leases import Leases, Level
from .presence import SOON, Presence

if TYPE_CHECKING:
    from ..browser.channel import Channel
    from ..browser.files import DatabaseFiles
    from ..browser.locks import WebLock
    from ..browser.turns import Turns
    from .opfs import OpfsStorage

logger = logging.getLogger("holdfast")

# The folder of OPFS that all of this package's files are in.
FOLDER = "holdfast"

# A file control of the VFS: bring the wal-index up to date (see holdfast_vfs.c).
CATCH_UP = 0x48460001
# Another: where the wal-index stands.
POSITION = 0x48460002

# What tabs must agree on to share a database: the locks, the messages and what the files mean.
PROTOCOL = 1

# Frames in the WAL from which a writer tries to checkpoint, and from which it waits for readers.
CHECKPOINT = 1000
CHECKPOINT_WAIT = 2000
# Frames from which the last tab that leaves empties the WAL, which every opening reads.
CHECKPOINT_AT_CLOSE = 100
# How long it waits for them, in seconds: briefly, then in earnest.
_BRIEFLY = 0.02
_EARNESTLY = 1.0

# A tab's id, of whatever protocol.
_TAB = re.compile(r"\d+-[0-9a-f]{32}")

_nodes: dict[str, Node] = {}


async def join(storage: OpfsStorage) -> Node:
    """The node of the storage's database, opened if this is the first one here."""
    node = _nodes.get(storage.name)
    if node is None:
        node = _nodes[storage.name] = Node(storage.name)
    node.storages.append(storage)
    try:
        async with node.opening:
            if not node.is_open:
                await node.open(storage.busy_timeout)
    except BaseException:
        await leave(storage, node)
        raise
    return node


async def leave(storage: OpfsStorage, node: Node) -> None:
    """The storage is closed; the last one closes the node."""
    node.storages.remove(storage)
    if not node.storages:
        del _nodes[node.name]
        await node.close()


def check_name(name: str) -> list[str]:
    """The segments of a database's name. ValueError: it is none."""
    segments = name.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError(
            f"{name!r} is no database name: it is one or more segments parted by '/', none of "
            "them empty, '.' or '..'"
        )
    if name == ":memory:":
        raise ValueError(
            "':memory:' is no name of a file to SQLite; for a database that is gone with its "
            'opener use storage="memory"'
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name!r} has a lone surrogate, which is no character") from None
    if segments[-1].endswith(("-wal", "-journal")):
        raise ValueError(
            f"{name!r} ends as the files that SQLite keeps beside a database; choose another name"
        )
    return segments


def files_lock(name: str) -> str:
    """The lock that every worker shares while it has a database open: see opfs_store.py."""
    return f"holdfast:{name}:files"


class Node:
    """What this worker has of one database."""

    def __init__(self, name: str) -> None:
        from ..browser.locks import WebLocks

        self.name = name
        self.tab = f"{PROTOCOL}-{uuid.uuid4().hex}"
        self.locks = WebLocks()
        self.storages: list[OpfsStorage] = []
        self.opening = asyncio.Lock()
        self.is_open = False
        # Frames in the WAL, when it was last caught up with; an array, for the VFS writes to it.
        self._frames = array("I", [0])
        self._position = array("I", [0, 0, 0])
        self._position_at = self._position.buffer_info()[0]
        self.history: History | None = None
        self._frames_at = self._frames.buffer_info()[0]
        self.files: DatabaseFiles
        self.leases: Leases
        self.presence: Presence
        self.turns: Turns
        self._checkpoint_at = CHECKPOINT
        self._control: apsw.Connection
        self._channel: Channel
        self._files_lock: WebLock
        self._tab_lock: WebLock
        self._peers: dict[str, WebLock] = {}
        self._unsent: set[str] | None = None
        self._unsent_ddl = False
        self._unsent_steps: list[Step] = []
        # What `close` has to give back, the last first.
        self._undo = contextlib.ExitStack()

    # -- opening and closing ---------------------------------------------------------------------

    async def open(self, timeout: float) -> None:
        """Files, VFS, leases, channel and tab lock; all or nothing."""
        from ..browser.channel import Channel
        from ..browser.files import DatabaseFiles, look
        from ..browser.host import vfs_functions
        from ..browser.turns import Turns

        *folder, name = check_name(self.name)
        with contextlib.ExitStack() as undo:
            looking = look([FOLDER, *folder])
            self._tab_lock = self.locks.request(self.tab_lock_prefix + self.tab)
            undo.callback(self._tab_lock.release)
            self._files_lock = self.locks.request(files_lock(self.name), exclusive=False)
            undo.push(lambda error, *_: self._files_lock.release() if error else None)
            # While the browser looks for all three:
            self._control = apsw.Connection(":memory:")
            undo.callback(self._control.close, True)
            load_extension(self._control)
            self._control.execute("SELECT holdfast_vfs_host(?, ?, ?, ?, ?)", vfs_functions())

            await self._tab_lock.granted
            tabs = self._ask_tabs()
            await self._share_files(timeout)
            self.files = await DatabaseFiles.find(looking, name)
            if self.files.shared and not self.files.is_open:
                await self.files.open(timeout)
            undo.callback(self.files.close)
            self._control.execute(
                "SELECT holdfast_vfs_add(?, ?, ?, ?)", (self.name, *self.files.numbers)
            )
            undo.callback(self._control.execute, "SELECT holdfast_vfs_remove(?)", (self.name,))

            self.turns = Turns()
            undo.callback(self.turns.close)
            self.leases = Leases(
                f"holdfast:{self.name}",
                self.locks,
                self._want,
                self._set_level,
                None if self.files.shared else self.files,
                lambda: bool(self._peers),
                self.turns.soon,
            )
            undo.callback(self.leases.close)
            self.presence = Presence(self.name, self.files, self.leases)
            undo.callback(self.presence.close)
            self._channel = Channel(f"holdfast:{self.name}", self._heard)
            undo.callback(self._channel.close)
            self._check_versions(self._ids(await tabs))
            self._channel.post(f"hello {self.tab}")
            self.is_open = True
            self._undo = undo.pop_all()

    async def _share_files(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._files_lock.granted
        except TimeoutError:
            raise DatabaseBusyError(
                f"{self.name!r} is being imported or deleted, or somebody waits to do so, for "
                f"longer than {timeout:g} s; try again"
            ) from None

    async def close(self) -> None:
        """Give back what `open` took, in the reverse order."""
        if self.is_open:
            self.is_open = False
            self._send()
            for peer in self._peers.values():
                peer.release()
            self._peers.clear()
            try:
                self._undo.close()
                await self.files.closed()
            finally:
                # Whoever replaces or deletes the files finds none open.
                self._files_lock.release()

    def rest(self) -> None:
        """The worker may be stopped soon: keep no lease beyond its transaction, and no message."""
        self._send()
        self.leases.rest()

    async def tabs(self) -> list[str]:
        """The ids of the tabs that have the database open."""
        return self._ids(await self._ask_tabs())

    def _ask_tabs(self) -> Awaitable[Iterable[str]]:
        from ..browser.locks import held

        return held(self.tab_lock_prefix)

    def _ids(self, locks: Iterable[str]) -> list[str]:
        found = [name.removeprefix(self.tab_lock_prefix) for name in locks]
        # What is no id is a lock of another database, whose name goes on like ours.
        return [tab for tab in found if _TAB.fullmatch(tab)]

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

    @property
    def tab_lock_prefix(self) -> str:
        return f"holdfast:{self.name}:tab:"

    def _want(self, what: str) -> None:
        self._channel.post(f"want {what}")

    def _heard(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "want":
            self.leases.wanted(rest)
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
        peer = self.locks.request(self.tab_lock_prefix + tab, exclusive=False)
        self._peers[tab] = peer

        def gone(granted: asyncio.Future[bool]) -> None:
            if self._peers.pop(tab, None) is None:
                return
            peer.release()
            if not granted.cancelled() and granted.exception() is None and granted.result():
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
            self.turns.soon(self._send)
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

    # -- the WAL ---------------------------------------------------------------------------------

    def catch_up(self, connection: Connection) -> None:
        """Before a transaction, under its lease: see what others committed."""
        try:
            connection.raw.file_control("main", CATCH_UP, self._frames_at)
        except apsw.MisuseError as error:
            raise DatabaseBusyError(
                f"a cursor or blob of a raw connection of {self.name!r} is still open after its "
                "transaction; close it"
            ) from error

    def position(self, connection: Connection) -> tuple[int, ...]:
        """Where in the database's history the wal-index is, as `History` takes it."""
        connection.raw.file_control("main", POSITION, self._position_at)
        # The salts of an empty WAL are each tab's own.
        return tuple(self._position) if self._position[0] else ()

    def add_step(self, step: Step) -> None:
        """A commit was made here, or announced by another tab."""
        if self.history is not None:
            self.history.add(step)

    @property
    def frames(self) -> int:
        """Frames in the WAL, when it was last caught up with."""
        return self._frames[0]

    async def checkpoint(self, connection: Connection) -> None:
        """Inside a write, before its transaction: copy the WAL into the database file.

        The transaction then runs under the exclusive lease too, and restarts the WAL.
        """
        timeout = _EARNESTLY if self.frames >= CHECKPOINT_WAIT else _BRIEFLY
        if not await self.leases.exclusive(timeout):
            self._checkpoint_at = self.frames + CHECKPOINT // 10
            return
        self.catch_up(connection)
        try:
            connection.raw.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.FullError:
            # The database file cannot grow, and all of it is still in the WAL. The transaction
            # may be the one that frees space.
            logger.warning("no space for a checkpoint of %r; it is tried again later", self.name)
            self._checkpoint_at = self.frames + CHECKPOINT // 10
            return
        self._checkpoint_at = CHECKPOINT

    async def tidy(self, connection: Connection) -> None:
        """It is about to be closed here: leave a short WAL, if nobody else has it open."""
        # Of `frames`, those of the last transaction of its own are missing.
        if self._peers or self.status("frames") < CHECKPOINT_AT_CLOSE:
            return
        try:
            self.presence.check()
            await self.leases.write(_BRIEFLY)
            try:
                if await self.leases.exclusive(_BRIEFLY):
                    self.catch_up(connection)
                    before = self.position(connection)
                    connection.raw.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
                    self._note(frozenset(), False, (before, self.position(connection)))
            finally:
                self.leases.leave_write()
        except (DatabaseBusyError, StorageUnavailableError, apsw.Error) as error:
            # Nothing is lost by it: all is in the WAL.
            logger.debug("the WAL of %r was left as it is: %r", self.name, error)

    @property
    def wants_checkpoint(self) -> bool:
        return self.frames >= self._checkpoint_at


def load_extension(raw: apsw.Connection) -> None:
    """The VFS and its SQL functions, for a connection."""
    raw.enable_load_extension(True)
    path = files(__package__.rpartition(".")[0]).joinpath("vfs", "holdfast_vfs.wasm")
    raw.load_extension(str(path), "sqlite3_holdfastvfs_init")
    raw.enable_load_extension(False)
