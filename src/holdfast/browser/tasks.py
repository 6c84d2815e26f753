"""When Python goes on: at once after an answer of the browser, or as soon as the browser may act.

Pyodide's event loop takes two tasks of the browser for each callback, and two callbacks from a
future's result to the coroutine that waits for it. Between two tabs that hand over a lease this is
most of the time, so what waits here goes on in the very call that brings the answer. Where the
browser can switch stacks that call is made in a task of its own (`callPromising`), as the event
loop's are: `pyodide.ffi.run_sync` works in whatever goes on.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

from pyodide.ffi import create_proxy

from .host import host

T = TypeVar("T")
_Waiting = tuple[Callable[[Any], object], contextvars.Context]


class BrowserFuture(asyncio.Future[T], Generic[T]):
    """A future whose waiters `answer` runs itself; otherwise it is like any other."""

    def __init__(self) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._waiting: list[_Waiting] = []
        # A call from JavaScript may run on a thread state of its own, which knows no loop.
        self._hooks = sys.get_asyncgen_hooks()

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        waiting = (callback, context or contextvars.copy_context())
        if self.done():
            self._schedule([waiting])
        else:
            self._waiting.append(waiting)

    def remove_done_callback(self, callback: Callable[[Any], object], /) -> int:
        before = len(self._waiting)
        self._waiting = [waiting for waiting in self._waiting if waiting[0] != callback]
        return before - len(self._waiting)

    def set_result(self, result: T) -> None:
        super().set_result(result)
        self._schedule(self._take())

    def set_exception(self, exception: type | BaseException) -> None:
        super().set_exception(exception)
        self._schedule(self._take())

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self._schedule(self._take())
        return cancelled

    def answer(self, result: T) -> None:
        """Set the result, and run what waits; only from an event of the browser, inside no task."""
        super().set_result(result)
        loop = self.get_loop()
        asyncio._set_running_loop(loop)
        sys.set_asyncgen_hooks(*self._hooks)
        for callback, context in self._take():
            try:
                context.run(callback, self)
            except Exception as error:
                loop.call_exception_handler(
                    {"message": f"exception in {callback!r}", "exception": error, "future": self}
                )

    def _take(self) -> list[_Waiting]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _schedule(self, waiting: list[_Waiting]) -> None:
        for callback, context in waiting:
            self.get_loop().call_soon(callback, self, context=context)


async def settle(promise: Any, undo: Callable[[Any], object]) -> Any:
    """What JavaScript answers. A cancelled caller still waits for the answer, and undoes it.

    JavaScript goes on, and the handles that it opens would keep others out of the files.
    """
    found: list[tuple[bool, Any]] = []
    answer: BrowserFuture[None] = BrowserFuture()
    cancelled: asyncio.CancelledError | None = None

    def settled(fulfilled: bool, value: Any) -> None:
        found.append((fulfilled, value))
        if not answer.done():
            answer.answer(None)

    proxy = create_proxy(settled)
    host().settle(promise, proxy)
    while not found:
        try:
            await answer
        except asyncio.CancelledError as error:
            cancelled, answer = error, BrowserFuture()
    proxy.destroy()
    fulfilled, value = found[0]
    if cancelled is not None:
        if fulfilled:
            undo(value)
        raise cancelled
    # An error keeps its name and its kind where it is awaited.
    return value if fulfilled else await promise


class Signal(asyncio.Event):
    """An event whose waiters go on in the browser's next task."""

    def __init__(self, tasks: BrowserTasks) -> None:
        super().__init__()
        self._tasks = tasks
        self._answers: list[BrowserFuture[None]] = []

    def set(self) -> None:
        super().set()
        answers, self._answers = self._answers, []
        for answer in answers:
            self._tasks.after(answer)

    async def wait(self) -> Literal[True]:
        if not self.is_set():
            answer: BrowserFuture[None] = BrowserFuture()
            self._answers.append(answer)
            try:
                await answer
            finally:
                if answer in self._answers:
                    self._answers.remove(answer)
        return True


class BrowserTasks:
    """The turns of this worker's event loop, as one database needs them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._soon: list[Callable[[], None]] = []
        self._next: deque[BrowserFuture[None]] = deque()
        self._run_soon = create_proxy(self._now)
        self._run_next = create_proxy(self._turned)
        self._closed = False

    def soon(self, function: Callable[[], None]) -> None:
        """Call it when Python has returned to the browser, before anything else happens."""
        self._soon.append(function)
        if len(self._soon) == 1:
            host().soon(self._run_soon)

    async def next(self) -> None:
        """Let other tasks go first, and the messages that have come."""
        await self.after(BrowserFuture())

    def after(self, answer: BrowserFuture[None]) -> BrowserFuture[None]:
        """Have it answered in the browser's next task."""
        self._next.append(answer)
        host().nextTask(self._run_next)
        return answer

    def event(self) -> Signal:
        return Signal(self)

    def close(self) -> None:
        """What was asked for still happens."""
        self._closed = True
        self._end()

    def _now(self) -> None:
        asyncio._set_running_loop(self._loop)
        functions, self._soon = self._soon, []
        for function in functions:
            try:
                function()
            except Exception as error:
                self._loop.call_exception_handler(
                    {"message": f"exception in {function!r}", "exception": error}
                )
        self._end()

    def _turned(self) -> None:
        answer = self._next.popleft()
        if not answer.done():
            answer.answer(None)
        self._end()

    def _end(self) -> None:
        if self._closed and not self._soon and not self._next:
            self._run_soon.destroy()
            self._run_next.destroy()
