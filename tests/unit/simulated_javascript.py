"""JavaScript, as Python in a browser meets it: `pyodide.ffi`, promises, a host that may refuse.

The modules of `holdfast.browser` run as they are over any host that is the `current` one. What of
the host interface can be refused is told by its Protocol, see holdfast/browser/interface.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from unittest import mock

from holdfast.browser.interface import Host

# Of holdfast.browser what runs over a simulated host.
_MODULES = ("refusals", "channel", "tasks", "files", "locks", "indexeddb")


class JsException(Exception):
    """As pyodide.ffi's."""

    def __init__(self, name: str, message: str = "") -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message


class JsProxy(list[Any]):
    def to_py(self) -> list[Any]:
        return list(self)


class JsBytes(bytes):
    def to_bytes(self, *_: Any) -> bytes:  # type: ignore[override]
        return bytes(self)


class JsFunction:
    """What create_proxy gives."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def destroy(self) -> None:
        """Nothing is kept."""


def promise(method: Callable[..., Any]) -> Callable[..., Any]:
    """An async function of JavaScript: it goes on, whatever happens to who waits for it."""

    @functools.wraps(method)
    def call(*arguments: Any) -> Any:
        running = asyncio.ensure_future(method(*arguments))
        # As in host.js: who waited for it may have been cancelled.
        running.add_done_callback(lambda done: done.cancelled() or done.exception())
        return asyncio.shield(running)

    return call


class Refusals:
    """Which calls are refused: the one of that number, from 0, with a JsException.

    lasts: so are those that follow, until `end`. Every call that can be refused is counted, whether
    it is or not.
    """

    def __init__(
        self, number: int | None = None, error: JsException | None = None, *, lasts: bool = False
    ) -> None:
        self.number = number
        self.lasts = lasts
        self.error = error or JsException("UnknownError", "simulated")
        # Whether it concerns who calls now.
        self.concerns: Callable[[], bool] = lambda: True
        self.calls: list[str] = []

    @property
    def struck(self) -> str | None:
        """The call that was refused."""
        if self.number is None or self.number >= len(self.calls):
            return None
        return self.calls[self.number]

    def strikes(self, call: str) -> bool:
        if not self.concerns():
            return False
        self.calls.append(call)
        now = len(self.calls) - 1
        return now == self.number or (self.lasts and self.struck is not None)

    def end(self) -> None:
        """The browser has come to its senses."""
        self.lasts = False


NONE = Refusals()


class _Current:
    """`host()` may be kept by the package; which host it means changes."""

    host: Any = None
    refusals = NONE

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.host, name)
        if name == "request":
            return self._request
        declared = getattr(Host, name)
        if hasattr(declared, "certain"):
            return call
        waits = str(inspect.signature(declared).return_annotation).startswith("Awaitable")

        def refusable(*arguments: Any) -> Any:
            refusals = self.refusals
            if not refusals.strikes(name):
                return call(*arguments)
            if not waits:
                raise refusals.error
            return self._reject(refusals.error)

        return refusable

    @staticmethod
    @promise
    async def _reject(error: JsException) -> None:
        await asyncio.sleep(0)
        raise error

    def _request(self, id: int, *arguments: Any) -> None:
        # Its answer is what refuses it.
        refusals = self.refusals
        if refusals.strikes("request"):
            self.host.refuse(id, f"{refusals.error.name}: {refusals.error.message}")
        else:
            self.host.request(id, *arguments)


current = _Current()
_modules: dict[str, ModuleType] = {}


def _pyodide() -> dict[str, ModuleType]:
    if not _modules:
        import holdfast.browser

        ffi, host, pyodide = (
            ModuleType("pyodide.ffi"),
            ModuleType("holdfast.browser.host"),
            ModuleType("pyodide"),
        )
        ffi.__dict__.update(
            JsException=JsException, create_proxy=JsFunction, to_js=lambda value: value
        )
        host.__dict__.update(
            host=lambda: current, vfs_functions=lambda: current.host.vfs_functions()
        )
        _modules.update({"pyodide": pyodide, "pyodide.ffi": ffi, "holdfast.browser.host": host})
        with mock.patch.dict(sys.modules, _modules):
            for name in _MODULES:
                _modules[f"holdfast.browser.{name}"] = __import__(
                    f"holdfast.browser.{name}", fromlist=[name]
                )
                # What the package has not imported in Pyodide, CPython shall not find.
                delattr(holdfast.browser, name)
    return _modules


@contextlib.contextmanager
def over(host: Any) -> Iterator[None]:
    """The package finds itself in a worker of a browser that offers this host."""
    modules = _pyodide()
    locks: Any = modules["holdfast.browser.locks"]
    with mock.patch.dict(sys.modules, modules), mock.patch.object(current, "host", host):
        try:
            # They are of the host that was asked first.
            locks._functions.cache_clear()
            locks._waiting.clear()
            yield
        finally:
            locks._functions.cache_clear()


@contextlib.contextmanager
def refusing(refusals: Refusals) -> Iterator[Refusals]:
    """The host refuses so, within the block."""
    with mock.patch.object(current, "refusals", refusals):
        yield refusals
