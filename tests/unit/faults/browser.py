"""A browser with several tabs, in one process: what host.js offers, over a simulated disk.

The package runs as it is: `holdfast.browser` believes to be in Pyodide, and only its JavaScript is
replaced. Each tab opens "tab<n>/<name>"; the first segment is cut off from the names of files,
locks and channels, so that all tabs mean the same database, and the package's own tables of what a
worker has open, and the VFS's, tell them apart.

A tab's requests go to the browser, which answers: both take some time, in the order they were sent.
A tab that dies takes with it what it had not yet sent; its locks are released somewhat later, and
its file handles later still.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from unittest import mock

import apsw
from simulated_files import EXCLUSIVE, SHARED, Files, Handle
from simulated_javascript import JsBytes, JsException, JsProxy, over, promise
from simulated_locks import LockQueues
from simulated_opfs import Library, Process

from faults.disk import Disk
from faults.scheduler import Queue, SeededLoop, current

_SEGMENT = re.compile(r"^(holdfast:)tab\d+/")


class SimulatedTab(Queue):
    """A tab: its queue, what it has sent, and its way to the files."""

    def __init__(self, browser: Browser, number: int) -> None:
        super().__init__(f"tab{number}")
        self.browser = browser
        self.process = Process(browser.disk)
        self.process.on_death = lambda: browser.bury(self)
        self.died: asyncio.Future[None] = browser.loop.create_future()
        self.sent = browser.loop.queue(f"from tab{number}")
        self.context = contextvars.copy_context()
        self.context.run(current.set, self)
        # After the site's data was cleared Chromium gives new tabs a lock manager of their own.
        self.locks = browser.locks
        self.files: set[int] = set()
        self.connections: list[apsw.Connection] = []

    def send(self, what: Callable[[], None]) -> None:
        """Have the browser do something."""
        if not (self.dead or self.process.dead):
            context = self.browser.context.copy()
            context.run(current.set, self.sent)
            self.browser.loop.call_soon(what, context=context)

    def do(self, what: Callable[..., Any], *arguments: Any) -> None:
        """In the tab, when its turn comes."""
        self.browser.loop.call_soon(what, *arguments, context=self.context.copy())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this tab."""
        return self.browser.loop.create_task(coroutine, context=self.context.copy())

    async def ask(self, what: Callable[[], Any]) -> Any:
        """What the browser answers."""
        answer = self.browser.loop.create_future()

        def in_browser() -> None:
            try:
                result = what()
            except JsException as error:
                self.do(lambda error=error: answer.done() or answer.set_exception(error))
            else:
                self.do(lambda: answer.done() or answer.set_result(result))

        self.send(in_browser)
        return await answer


class Request:
    def __init__(self, tab: SimulatedTab, id: int, name: str, exclusive: bool) -> None:
        self.tab, self.id, self.name, self.exclusive = tab, id, name, exclusive


class Browser:
    """shared: Chromium, whose tabs can share file handles, or else Firefox.

    lossy: the share of messages that are lost.
    """

    def __init__(
        self,
        library: Library,
        disk: Disk,
        choose: random.Random,
        *,
        shared: bool = True,
        lossy: float = 0.0,
    ) -> None:
        self.library, self.disk, self.shared, self.lossy = library, disk, shared, lossy
        self.choose = choose
        self.loop = SeededLoop(choose)
        self.context = contextvars.copy_context()
        self.tabs: list[SimulatedTab] = []
        self.channels: dict[str, list[Channel]] = {}
        self.locks = self._lock_manager()
        self.requests: dict[int, Request] = {}
        self.files = Files(disk, modes=shared)
        self.names: dict[int, tuple[SimulatedTab, str]] = {}
        self.handles: dict[int, Handle] = {}
        # Numbers that may be given to other files.
        self.forgotten: set[int] = set()
        self.on_answer: Callable[[int, bool, str], None] = lambda *_: None
        self._made = 0
        # Until the browser finds out that a tab died, in seconds.
        self.longest_death = 0.2

    def tab(self) -> SimulatedTab:
        self._made += 1
        tab = SimulatedTab(self, self._made)
        self.loop._queues.append(tab)
        self.tabs.append(tab)
        return tab

    def clear(self) -> None:
        """The site's data."""
        self.files.clear()
        if self.shared:
            self.locks = self._lock_manager()
        for number, handle in self.handles.items():
            if number in self.library.host and self.library.host[number] is not CLOSED:
                tab, _ = self.names[number]
                here = handle in self.files.handles
                self.library.host[number] = (tab.process, handle.path) if here else CLOSED

    def kill(self, tab: SimulatedTab) -> None:
        """Now, in the middle of whatever it does."""
        tab.process.die()

    def bury(self, tab: SimulatedTab) -> None:
        """It died."""
        self.tabs.remove(tab)
        self.loop.remove(tab)
        for number in tab.files:
            self.library.host[number] = CLOSED
        self.loop.call_soon(tab.died.set_result, None, context=self.context.copy())
        # What it had sent is on its way; then the browser finds out.
        context = self.context.copy()
        context.run(current.set, tab.sent)
        self.loop.call_later(
            self.choose.random() * self.longest_death, self._clean_up_after, tab, context=context
        )

    def _clean_up_after(self, tab: SimulatedTab) -> None:
        for channels in self.channels.values():
            channels[:] = [channel for channel in channels if channel.tab is not tab]
        for request in [each for each in self.requests.values() if each.tab is tab]:
            self.release(request.id)
        late = self.choose.choice((0.0, 0.001, 0.05))
        self.loop.call_later(late, self.files.close_all, tab, context=self.context.copy())

    # -- locks -------------------------------------------------------------------------------------

    def ask_lock(self, request: Request, if_available: bool) -> None:
        self.requests[request.id] = request
        request.tab.locks.ask(request, if_available)

    def _lock_manager(self) -> LockQueues[Request]:
        return LockQueues(self._answer_lock, stalls=self.shared)

    def _answer_lock(self, request: Request, granted: bool) -> None:
        request.tab.do(self.on_answer, request.id, granted, "")

    def release(self, id: int) -> None:
        if (request := self.requests.pop(id, None)) is not None:
            request.tab.locks.release(request)


class Unanswered(AssertionError):
    """Chromium never answers that: see tests/conformance/README.md."""


class _Closed(Process):
    """Behind a number whose handle is not open, every call fails."""


class Channel:
    def __init__(self, browser: Browser, tab: SimulatedTab, name: str, on_message: Any) -> None:
        self.browser, self.tab, self.name, self.on_message = browser, tab, name, on_message
        self.closed = False
        browser.channels.setdefault(name, []).append(self)

    def post(self, text: str) -> None:
        if self.closed:
            return  # host.js drops what the browser refuses

        def deliver() -> None:
            for other in list(self.browser.channels[self.name]):
                if other is not self and self.browser.choose.random() >= self.browser.lossy:
                    other.tab.do(other.receive, text)

        self.tab.send(deliver)

    def receive(self, text: str) -> None:
        if not self.closed:
            self.on_message(text)

    def close(self) -> None:
        self.closed = True
        with contextlib.suppress(ValueError):
            self.browser.channels[self.name].remove(self)


class Host:
    """What globalThis.holdfastHost has, of the browser that is simulated now."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self._owners: dict[int, SimulatedTab] = {}

    def vfs_functions(self) -> tuple[int, ...]:
        return self.browser.library.functions

    @property
    def _tab(self) -> SimulatedTab:
        tab = current.get()
        assert isinstance(tab, SimulatedTab)
        return tab

    def missing(self) -> str:
        return ""

    # -- files -------------------------------------------------------------------------------------

    def look(self, path: list[str]) -> list[str]:
        return path

    def _folder(self, path: list[str]) -> list[str]:
        """Where it is for the tests, to whom all tabs' databases are in the root."""
        top = [] if path[0] == "holdfast" else [path[0]]
        return top + [each for each in path[1:] if not re.fullmatch(r"tab\d+", each)]

    @promise
    async def nameFiles(self, path: list[str], names: list[str]) -> JsProxy:
        tab, folder, files = self._tab, self._folder(path), self.browser.files

        def make() -> list[str]:
            files.folder(folder, create=True)
            return [files.file([*folder, name], create=True) for name in names]

        names = await tab.ask(make)
        numbers = self.browser.library.add(tab.process, names)
        for number, name in zip(numbers, names, strict=True):
            self.browser.names[number] = (tab, name)
            self.browser.library.host[number] = CLOSED
            tab.files.add(number)
        return JsProxy(numbers)

    @promise
    async def findFiles(self, path: list[str], names: list[str]) -> JsProxy:
        numbers = await self.nameFiles(path, names)
        if not self.browser.shared:
            return JsProxy([list(numbers), False, False])
        try:
            await self.openFiles(numbers, True)
        except JsException as error:
            if error.name != "NoModificationAllowedError":
                raise
            return JsProxy([list(numbers), True, False])
        return JsProxy([list(numbers), True, True])

    @promise
    async def openFiles(self, numbers: list[int], shared: bool) -> None:
        browser, tab = self.browser, self.browser.names[numbers[0]][0]
        mode = SHARED if shared else EXCLUSIVE

        def take() -> list[Handle]:
            opened: list[Handle] = []
            try:
                for number in numbers:
                    path = browser.names[number][1].split("/")
                    opened.append(browser.files.open(path, tab, mode))
            except JsException:
                for handle in opened:
                    browser.files.close(handle)
                raise
            return opened

        if all(browser.library.host[number] is not CLOSED for number in numbers):
            return
        opened = await tab.ask(take)
        for number, handle in zip(numbers, opened, strict=True):
            browser.handles[number] = handle
            browser.library.host[number] = (tab.process, handle.path)

    def closeFiles(self, numbers: list[int]) -> None:
        tab = self.browser.names[numbers[0]][0]
        for number in numbers:
            if not tab.dead and number in self.browser.handles:
                handle = self.browser.handles.pop(number)
                if handle.cleared:
                    raise Unanswered(f"the close of {handle}: the worker would wait for ever")
                self.browser.library.host[number] = CLOSED
                # A handle is closed without waiting for anybody.
                self.browser.files.close(handle)

    @promise
    async def closePresent(self, numbers: list[int]) -> None:
        if await self.stillThere(numbers[:2]):
            self.closeFiles(numbers)

    def forgetFiles(self, numbers: list[int]) -> None:
        self.browser.forgotten.update(numbers)

    def _content(self, number: int) -> bytearray:
        process, name = self.browser.library.host[number]
        return process.reach("read").content[name]

    def peek(self, number: int, n: int) -> JsBytes:
        return JsBytes(self._content(number)[:n])

    def size(self, number: int) -> int:
        return len(self._content(number))

    def read(self, number: int, at: int, n: int) -> JsBytes:
        return JsBytes(self._content(number)[at : at + n])

    def write(self, number: int, data: bytes, at: int) -> bool:
        process, name = self.browser.library.host[number]
        return process.reach("write").write(name, at, bytes(data)) == len(data)

    def empty(self, number: int) -> None:
        process, name = self.browser.library.host[number]
        process.reach("truncate").truncate(name, 0)
        process.reach("flush").flush(name)

    @promise
    async def stillThere(self, numbers: list[int]) -> bool:
        handles = self.browser.handles
        return await self._tab.ask(
            lambda: not any(handles[number].cleared for number in numbers if number in handles)
        )

    @promise
    async def entriesOf(self, path: list[str]) -> list[str]:
        try:
            found = await self._tab.ask(lambda: self.browser.files.names(self._folder(path)))
        except JsException as error:
            if error.name != "NotFoundError":
                raise
            return []
        return [name for name in found if not name.startswith("holdfast")]

    @promise
    async def removeFiles(self, path: list[str], names: list[str]) -> bool:
        folder = self._folder(path)
        gone = True
        for name in names:
            try:
                await self._tab.ask(lambda name=name: self.browser.files.remove([*folder, name]))
            except JsException as error:
                if error.name == "NoModificationAllowedError":
                    gone = False
                elif error.name != "NotFoundError":
                    raise
        return gone

    @promise
    async def list(self, path: Any, n: int) -> JsProxy:
        content = self.browser.disk.content
        return JsProxy(
            [name, JsBytes(content[name][:n])]
            for name in content
            if content[name] and not name.startswith(f"{path[0]}-")
        )

    @promise
    async def persist(self) -> bool:
        return False

    @promise
    async def estimate(self) -> JsProxy:
        return JsProxy([None, None, None])

    # -- locks and messages ------------------------------------------------------------------------

    def setOnAnswer(self, callback: Callable[[int, bool, str], None]) -> None:
        self.browser.on_answer = callback

    def request(self, id: int, name: str, exclusive: bool, if_available: bool) -> None:
        tab = self._tab
        request = Request(tab, id, _SEGMENT.sub(r"\1", name), exclusive)
        self._owners[id] = tab
        tab.send(lambda: self.browser.ask_lock(request, if_available))

    def refuse(self, id: int, error: str) -> None:
        """The answer to a request that the browser does not take."""
        tab = self._tab
        tab.send(lambda: tab.do(self.browser.on_answer, id, False, error))

    def release(self, id: int) -> None:
        # Of what was refused there is nothing to give back.
        if (tab := self._owners.pop(id, None)) is not None:
            tab.send(lambda: self.browser.release(id))

    @promise
    async def releasesArrived(self) -> None:
        await self._tab.ask(lambda: None)

    @promise
    async def heldLocks(self, prefix: str) -> list[str]:
        tab = self._tab
        asked, segment = prefix, f"holdfast:{tab.name}/"
        prefix = _SEGMENT.sub(r"\1", prefix)
        held = await tab.ask(lambda: [name for name, by in tab.locks.held.items() if by])
        found = [name for name in held if name.startswith(prefix)]
        if prefix == asked:
            return found
        return [name.replace("holdfast:", segment, 1) for name in found]

    def settle(self, promise: asyncio.Future[Any], callback: Any) -> None:
        tab = self._tab

        def settled(future: asyncio.Future[Any]) -> None:
            fulfilled = future.exception() is None
            tab.do(callback, fulfilled, future.result() if fulfilled else None)

        promise.add_done_callback(settled)

    def nextTask(self, callback: Any) -> None:
        self._tab.do(callback)

    def soon(self, callback: Any) -> None:
        self._tab.do(callback)

    def channel(self, name: str, on_message: Any) -> Channel:
        return Channel(self.browser, self._tab, _SEGMENT.sub(r"\1", name), on_message)


CLOSED = (_Closed(Disk()), "")
CLOSED[0].die()


@contextlib.contextmanager
def simulated(browser: Browser) -> Iterator[None]:
    """The package finds itself in that browser."""
    from holdfast.storage.opfs import node
    from holdfast.storage.opfs import storage as opfs
    from holdfast.storage.opfs import store as opfs_store

    browser.library.use()
    made: list[apsw.Connection] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(over(Host(browser)))
        for module in (node, opfs, opfs_store):
            stack.enter_context(mock.patch.object(module, "load_extension", browser.library.load))
        stack.enter_context(mock.patch.dict(node.Node.known, clear=True))
        hooks = [*apsw.connection_hooks, made.append]
        stack.enter_context(mock.patch.object(apsw, "connection_hooks", hooks))
        try:
            yield
        finally:
            for tab in list(browser.tabs):
                tab.process.die()
            for connection in made:
                connection.close(True)
            for name in node.Node.known:
                _remove(browser.library, name)
            for number in browser.names:
                del browser.library.host[number]


def _remove(library: Library, name: str) -> None:
    control = library.load(apsw.Connection(":memory:"))
    with contextlib.suppress(apsw.SQLError):
        control.execute("SELECT holdfast_vfs_remove(?)", (name,)).fetchall()
    control.close()
