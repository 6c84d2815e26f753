"""The shared worker that has the databases of all tabs, found or started from a page.

A browser has one shared worker for each address and name. The script is a blob of the page that
started it, whose address no other page can guess, so the worker tells it by a lock:

    holdfast:shared:<version>                 exclusive   the one worker that has the databases
    holdfast:shared:<version>:<name>:<url>    exclusive   a worker, for as long as it lives
    holdfast:tab:<id>                         exclusive   a page, for as long as it lives

Each that is started has a name of its own: a browser may connect a page to one that is ending, by
its name and address, and never answer. Pages that look at the same time may start one each; the
workers settle it among themselves, so that no page, which may be frozen, holds a lock that others
wait for.

    page                                           worker (worker.mjs, see there)
    takes its own lock
    looks for a worker's lock; none: makes up
    a name and a URL
    new SharedWorker(url, {name})                  takes its lock; asks whether it is the one
    {lock, port, python, pyodide}             →
                                              ←    {life, wanted}, or {failed: {name, message}},
                                                   or {other}: it is not; looks again
    waits for the worker's lock, which it gets
    when the worker is gone
    {files: …}, if wanted                     →    waits for the page's lock, and gets it when the
    on the port: see remote/peer.py           ↔    page is gone: disposes of all that it had

What browsers do (November 2026: Chromium 156, Firefox ESR 153, WebKitGTK 2.50):

                                                       Chromium   Firefox   WebKitGTK
    another page joins by a blob: URL it did not make     yes       yes        yes
    … when the page that made it is closed                yes       yes        yes
    … when that was reloaded                              yes       yes        yes
    the worker lives on when its first page is closed     yes       yes        yes
    a blob: URL whose page and worker are gone            error     error      error
    module scripts, import() of Pyodide, IndexedDB,
    Web Locks, BroadcastChannel in it                     yes       yes        yes
    createSyncAccessHandle in it                          no        no         no OPFS at all
    durability "strict"                                   yes       yes        yes
    navigator.storage.estimate                            yes       yes        no
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import js
from pyodide.ffi import JsException, create_proxy

from ..errors import StorageUnavailableError
from ..unique import unique
from ..version import __version__
from .page import SHARED_NAME, as_list, as_object, not_started, pyodide_options, script, send_files
from .ports import BrowserPort
from .refusals import refusal

_PREFIX = f"holdfast:shared:{__version__}:"

# How long to wait for the worker to answer, in seconds: a browser may say nothing of a shared
# worker that it does not start. One that starts its Python answers between the parts of that, each
# of which takes its time on a slow device.
TIMEOUT = 60.0

_DIED = (
    "the shared worker that has the databases of this site's pages died. What was committed is "
    "there; whether a commit that was under way is, is seen when the database is opened again, "
    "with holdfast.open()"
)


def missing() -> str:
    """What is missing here for a shared worker; "" for nothing."""
    if not js.isSecureContext:
        return "the page is not served by https or from localhost"
    for name in ("SharedWorker", "indexedDB"):
        if not hasattr(js, name):
            return f"{name} does not exist"
    if not hasattr(js.navigator, "locks"):
        return "navigator.locks does not exist"
    return ""


class SharedTab:
    """This page's end of the shared worker; once started, `port` leads to what it serves.

    url: of holdfast.mjs, where the page serves it; None: it is made from the package.
    """

    port: BrowserPort

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._own: _Lock | None = None
        self._life: _Lock | None = None
        self._worker: Any = None
        # Kept by Python for as long as JavaScript may call them.
        self._proxies: list[Any] = []

    async def start(self) -> None:
        """Find the worker, or start it. StorageUnavailableError: it could not be started."""
        if why := missing():
            raise StorageUnavailableError(
                f'storage="indexeddb" cannot be used here: {why}. It needs a browser with '
                "SharedWorker, IndexedDB and Web Locks, and a page served by https or from "
                "localhost"
            )
        self._own = _Lock(f"holdfast:tab:{unique()}")
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._own.granted
                while not await self._find(self._own.name):
                    pass
        except TimeoutError:
            raise self._not_started(f"it did not answer within {TIMEOUT:g} s") from None
        except JsException as error:
            raise self._not_started(f"{error.name}: {error.message}") from error
        except _NotAnswered as error:
            raise self._not_started(str(error)) from None

    def end(self) -> None:
        """The worker sees that this page is gone."""
        for lock in (self._own, self._life):
            if lock is not None:
                lock.release()
        if self._worker is not None:
            self._worker.onerror = self._worker.port.onmessage = None
        for proxy in self._proxies:
            proxy.destroy()

    async def _find(self, own: str) -> bool:
        """Join the worker that lives, or start one. False: it has ended, or is not the one."""
        life = await _running()
        if life is None:
            name = f"{SHARED_NAME}{unique()}"
            return await self._join(own, name, script(self._url), starts=True)
        return await self._join_running(own, life)

    async def _join_running(self, own: str, life: str) -> bool:
        """Join the worker that has that lock. False: it has ended."""
        name, _, url = life.removeprefix(_PREFIX).partition(":")
        gone = _Lock(life, "shared")
        joining = asyncio.ensure_future(self._join(own, name, url, starts=False))
        try:
            either: set[asyncio.Future[Any]] = {joining, gone.granted}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if joining.done() and joining.exception() is None:
                return joining.result()
            # About to end, it answers nothing, or its script is gone; then its lock goes too.
            await gone.granted
            return False
        finally:
            joining.cancel()
            gone.release()

    async def _join(self, own: str, name: str, url: str, *, starts: bool) -> bool:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def heard(event: Any) -> None:
            failed = getattr(event.data, "failed", None)
            if failed is None:
                if not answer.done():
                    answer.set_result(event.data)
            elif not answer.done():
                answer.set_exception(_NotAnswered(f"{failed.name}: {failed.message}"))
            elif self._life is not None:
                why = f"{failed.name}: {failed.message}"
                self.port.on_close(f"the shared worker that has the databases failed: {why}")

        def errored(event: Any) -> None:
            # A script that could not be loaded says no more than that there was an error. Any other
            # one ends nothing but what it was raised in, unless that is the worker's start.
            message = getattr(event, "message", None)
            if not answer.done() and (starts or message is None):
                answer.set_exception(_NotAnswered(message or "its script could not be loaded"))

        worker = js.SharedWorker.new(url, as_object({"type": "module", "name": name}))
        worker.onerror = self._proxy(errored)
        worker.port.onmessage = self._proxy(heard)
        channel = js.MessageChannel.new()
        start = as_object({"lock": own, "python": True, "pyodide": pyodide_options()})
        start.port = channel.port2
        worker.port.postMessage(start, as_list(channel.port2))
        found = await answer
        if hasattr(found, "other"):
            return False
        if found.wanted:
            send_files(worker.port)
        self._worker = worker
        self.port = BrowserPort(channel.port1, python=True)
        self._life = _Lock(found.life, "shared")
        self._life.granted.add_done_callback(self._died)
        return True

    def _died(self, granted: asyncio.Future[bool]) -> None:
        if granted.cancelled():
            return
        refused = granted.exception()
        self.port.on_close(_DIED if refused is None else f"it cannot be watched: {refused}")

    def _not_started(self, why: str) -> StorageUnavailableError:
        return not_started("the shared worker that would have the databases", why, self._url)

    def _proxy(self, function: Callable[..., object]) -> Any:
        self._proxies.append(create_proxy(function))
        return self._proxies[-1]


class _NotAnswered(Exception):
    """The worker could not be reached; why."""


class _Lock:
    """A Web Lock of the page's, without host.js: a page's policy may keep that out."""

    def __init__(self, name: str, mode: str = "exclusive") -> None:
        self.name = name
        loop = asyncio.get_running_loop()
        self.granted: asyncio.Future[bool] = loop.create_future()
        self._released: asyncio.Future[None] = loop.create_future()
        self._withdraw = js.AbortController.new()
        self._callback = create_proxy(self._have)
        self._refused = create_proxy(self._refuse)
        options = as_object({"mode": mode})
        options.signal = self._withdraw.signal
        js.navigator.locks.request(name, options, self._callback).catch(self._refused)

    def _have(self, _lock: Any) -> Any:
        if not self.granted.done():
            self.granted.set_result(True)
        return self._released

    def _refuse(self, error: Any) -> None:
        # Withdrawn, nobody waits for it any more.
        if not self.granted.done():
            self.granted.set_exception(
                refusal("navigator.locks", None, str(error.name), str(error.message))
            )
            self.granted.exception()  # some wait for another lock first, and hear of that

    def release(self) -> None:
        """Give it back, or withdraw the request."""
        if not self._released.done():
            self._released.set_result(None)
        self.granted.cancel()
        self._withdraw.abort()


async def _running() -> str | None:
    """The lock of the shared worker that lives, of this version."""
    state = await js.navigator.locks.query()
    for lock in state.held:
        if str(lock.name).startswith(_PREFIX):
            return str(lock.name)
    return None
