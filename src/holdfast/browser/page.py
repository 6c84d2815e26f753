"""The worker of a page's main thread: started from here, with this Python's own holdfast in it.

    page                                        worker (worker.mjs, see there)
    {lock, port, python, pyodide}          →    takes the lock, loads Pyodide
    {files: [[name, Uint8Array], …]}       →    puts them into its site-packages
                                           ←    {alive, watched}, or {failed: {name, message}}
                                           ←    {opfs}: why there is none; "" for nothing
    on the port: see remote/peer.py        ↔    holdfast.remote.worker.serve(port)

Nothing is loaded from a network but Pyodide itself, which the browser has in its cache. The worker
holds the Web Lock `lock` for as long as it lives; the page waits for it, and hears in that way that
the worker is gone, however it went; not where the browser refuses the lock, which `watched` tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import js
import pyodide_js
from pyodide.ffi import JsException, create_proxy, to_js

from ..errors import StorageUnavailableError
from ..unique import unique
from .ports import BrowserPort

# What a worker has to have in its site-packages, as it is in ours.
_DISTRIBUTIONS = ("holdfast", "apsw")
# Of those only what is imported or read.
_SUFFIXES = (".py", ".so", ".wasm", ".js", ".mjs", "METADATA")
_NOT = ("apsw/tests/", "apsw/sqlite_extra")

# The name that tells holdfast.mjs that it is to be the worker.
NAME = "holdfast:worker"
# The same of a shared one: followed by 32 hexadecimal digits.
SHARED_NAME = "holdfast-"

_DIED = (
    "the worker that has this page's databases died. What was committed is there; whether a commit "
    "that was under way is, is seen when the database is opened again, with holdfast.open()"
)


def is_page() -> bool:
    """Whether this is the main thread of a page."""
    return hasattr(js, "document") and hasattr(js, "Worker")


def is_shared_worker() -> bool:
    """Whether this is a worker that pages share."""
    return hasattr(js, "SharedWorkerGlobalScope")


def is_own_shared_worker() -> bool:
    """Whether it is the one that holdfast started: see shared.py."""
    return is_shared_worker() and _worker_name().startswith(SHARED_NAME)


def _worker_name() -> str:
    # WebKit's getters take no proxy of the global object for it; without a receiver they find it.
    for place in (js.globalThis, js.SharedWorkerGlobalScope.prototype):
        if found := js.Object.getOwnPropertyDescriptor(place, "name"):
            return str(js.Reflect.apply(found.get, None, js.Array.new()))
    return ""


class PageWorker:
    """A worker that is being started; `port` leads to what it serves, once `alive`.

    url: of holdfast.mjs, where the page serves it; None: it is made from the package.
    StorageUnavailableError: it could not be started.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._lock = f"holdfast:worker:{unique()}"
        self._withdraw = js.AbortController.new()
        # Kept by Python for as long as JavaScript may call them.
        self._proxies: list[Any] = []
        self.alive: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watching: asyncio.Task[None] | None = None
        # Why it has no OPFS; "" if it has.
        self.opfs: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        channel = js.MessageChannel.new()
        self.port = BrowserPort(channel.port1, python=True)
        try:
            options = as_object({"type": "module", "name": NAME})
            self._worker = js.Worker.new(script(url), options)
        except JsException as error:
            raise self._not_started(f"{error.name}: {error.message}") from error
        self._worker.onmessage = self._proxy(self._heard)
        self._worker.onerror = self._proxy(self._failed)
        start = as_object({"lock": self._lock, "python": True, "pyodide": pyodide_options()})
        start.port = channel.port2
        self._worker.postMessage(start, as_list(channel.port2))
        # It loads Pyodide meanwhile.
        send_files(self._worker)

    def end(self) -> None:
        """Whatever it does, it ends."""
        self._withdraw.abort()
        self._worker.onmessage = self._worker.onerror = None
        self._worker.terminate()
        for proxy in self._proxies:
            proxy.destroy()

    def _heard(self, event: Any) -> None:
        failed = getattr(event.data, "failed", None)
        if failed is not None:
            self._fail(f"{failed.name}: {failed.message}")
        elif (opfs := getattr(event.data, "opfs", None)) is not None:
            if not self.opfs.done():
                self.opfs.set_result(opfs)
        elif not self.alive.done():
            self.alive.set_result(None)
            if event.data.watched:
                self._watching = asyncio.ensure_future(self._watch())

    def _failed(self, event: Any) -> None:
        # Once the worker runs, an uncaught error ends only the call that raised it.
        if not self.alive.done():
            # A script that could not be loaded says no more than that there was an error.
            self._fail(getattr(event, "message", None) or "its script could not be loaded")

    def _fail(self, why: str) -> None:
        if not self.alive.done():
            self.alive.set_exception(self._not_started(why))
        else:
            self._lost(f"the worker that has this page's databases failed: {why}")

    def _lost(self, why: str) -> None:
        if not self.opfs.done():
            self.opfs.set_exception(self._not_started(why))
        self.port.on_close(why)

    async def _watch(self) -> None:
        options = as_object({"mode": "shared"})
        options.signal = self._withdraw.signal
        granted = self._proxy(lambda _lock: self._lost(_DIED))
        try:
            # Granted when the worker is gone.
            await js.navigator.locks.request(self._lock, options, granted)
        except JsException as error:
            # Withdrawn; or it would never be heard that the worker is gone.
            self._lost(f"the worker that has this page's databases cannot be watched: {error}")

    def _not_started(self, why: str) -> StorageUnavailableError:
        return not_started("the worker that would have this page's databases", why, self._url)

    def _proxy(self, function: Callable[..., object]) -> Any:
        self._proxies.append(create_proxy(function))
        return self._proxies[-1]


def not_started(what: str, why: str, url: str | None) -> StorageUnavailableError:
    """The error for a worker, `what`, that was to run holdfast.mjs at `url`."""
    advice = (
        "a Content-Security-Policy that forbids workers of blob: URLs does that: serve the "
        "wheel's holdfast/javascript/holdfast.mjs, and say where with holdfast.open(…, "
        'worker="/holdfast.mjs")'
        if url is None
        else f"check that {url} is the holdfast.mjs of the installed wheel"
    )
    return StorageUnavailableError(f"{what} could not be started ({why}); {advice}")


class Hiding:
    """Calls `callback` whenever the page is hidden, frozen or left."""

    def __init__(self, callback: Callable[[], None]) -> None:
        def heard(event: Any) -> None:
            # Of a page that is left, browsers say either first: that it goes, or that it is hidden.
            if event.type != "visibilitychange" or js.document.visibilityState == "hidden":
                callback()

        self._proxy = create_proxy(heard)
        self._events = (
            (js.document, "visibilitychange"),
            (js.document, "freeze"),
            (js.window, "pagehide"),
        )
        for target, event in self._events:
            target.addEventListener(event, self._proxy)

    def end(self) -> None:
        for target, event in self._events:
            target.removeEventListener(event, self._proxy)
        self._proxy.destroy()


def script(url: str | None) -> str:
    """Where holdfast.mjs is; None: made from the package."""
    if url is not None:
        return _absolute(url)
    source = Path(__file__).parents[1].joinpath("javascript", "holdfast.mjs").read_text("utf-8")
    blob = js.Blob.new(as_list(source), as_object({"type": "text/javascript"}))
    # Not revoked: a worker may load its script later than its constructor returns.
    return str(js.URL.createObjectURL(blob))


def send_files(target: Any) -> None:
    """This Python's own distributions, without a copy on the way."""
    sent, buffers = js.Array.new(), js.Array.new()
    for name, path in _files():
        data = pyodide_js.FS.readFile(path)
        sent.push(as_list(name, data))
        buffers.push(data.buffer)
    message = js.Object.new()
    message.files = sent
    target.postMessage(message, buffers)


def pyodide_options() -> dict[str, str]:
    """For loadPyodide there, as the page's own was loaded."""
    config = pyodide_js._api.config
    options = {"indexURL": _absolute(config.indexURL)}
    if (library := getattr(config, "stdLibURL", None)) is not None:
        options["stdLibURL"] = _absolute(library)
    return options


def _files() -> Iterator[tuple[str, str]]:
    """(name below site-packages, path here) of what the worker needs."""
    from importlib.metadata import distribution

    for name in _DISTRIBUTIONS:
        found = distribution(name)
        for file in found.files or ():
            text = str(file)
            if text.endswith(_SUFFIXES) and not text.startswith(("..", *_NOT)):
                yield text, str(found.locate_file(file))


def _absolute(url: str) -> str:
    return str(js.URL.new(url, js.location.href).href)


def as_object(values: dict[str, Any]) -> Any:
    return to_js(values, dict_converter=js.Object.fromEntries)


def as_list(*values: Any) -> Any:
    made = js.Array.new()
    for value in values:
        made.push(value)
    return made
