"""Calls between the two ends of a port, in both directions.

    message                                  meaning
    --------------------------------------   -----------------------------------------------------
    call <id> <object> <method> <args>       await that method; it is answered, once. A <flag> may
        <flag>                               follow, which is raised when the call is cancelled
    cancel <id>                              the caller that waits for it was cancelled; the call
                                             is cancelled if it still can be, and answered
    result <id> <value>, error <id> <error>  the answer
    tell <object> <method> <args>            call that method; there is no answer

Each end numbers its own calls, and the objects that the other may call. Object 0 is there from the
start. A method that an object does not show under this protocol has a name that begins with "_".
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from ..errors import DatabaseClosedError
from ..sqlite import interrupts
from .flags import Flags
from .port import Port
from .wire import Errors, PlainRows

logger = logging.getLogger("holdfast")


class Answer(Awaitable[Any]):
    """The answer to a call, for one task to await.

    It is cancelled as a whole or not at all: a task that is cancelled while it waits tells the
    other end, and goes on to wait; only when that has answered does it see its CancelledError. So
    whatever was begun there has ended by then, or is known by `value`.

    Tasks take it for a future (asyncio asks for no more than these methods). Unlike asyncio's own
    it wakes its task at once, not at the next turn of the event loop: in a browser each turn costs
    as much as the rest of a call.
    """

    def __init__(self, withdraw: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._withdraw = withdraw
        self._cancelled = False
        self.error: BaseException | None = None
        self._wake: tuple[Callable[[Any], object], Context] | None = None
        self._asyncio_future_blocking = False
        self.answered = False
        self.value: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.answered:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    # -- for the task ----------------------------------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context) -> None:
        self._wake = callback, context

    def result(self) -> Any:
        if self._cancelled:
            raise asyncio.CancelledError
        if self.error is not None:
            raise self.error
        return self.value

    def cancel(self, msg: object = None) -> bool:
        if self.answered:
            return False
        self._cancelled = True
        # Each time: what is cancelled twice may leave behind what it was waiting for.
        self._withdraw()
        return True

    # -- for the port ----------------------------------------------------------------------------

    def set(self, value: Any, error: BaseException | None = None, *, soon: bool = False) -> None:
        """Wake the task, at once; `soon`: at the next turn, when another task may be running."""
        self.answered = True
        self.value = value
        self.error = error
        if self._wake is not None:
            callback, context = self._wake
            if soon:
                self._loop.call_soon(callback, self, context=context)
            else:
                context.run(callback, self)


class Peer:
    """One end: `call` and `tell` go to the other; the other's come to what was exported here.

    root: the object 0 of this end.
    on_close: called once, when the other end is gone or `close` was called.
    flags: what tells of a cancelled call while a statement runs; None: nothing does.
    """

    def __init__(
        self,
        port: Port,
        root: object,
        on_close: Callable[[str], None],
        flags: Flags | None = None,
    ) -> None:
        self.errors = Errors()
        self._port = port
        self._flags = flags
        # Of the calls of this end that wait for their answers.
        self._lowered: dict[int, str] = {}
        self._objects: dict[int, object] = {0: root}
        self._last_object = 0
        self._last_call = 0
        self._calls: dict[int, Answer] = {}
        self._running: dict[int, asyncio.Task[Any]] = {}
        self._telling: set[asyncio.Task[Any]] = set()
        self._on_close = on_close
        self._why_closed: str | None = None
        self._kinds: dict[str, Callable[..., None]] = {
            "call": self._called,
            "cancel": self._cancel,
            "result": self._answered,
            "error": self._failed,
            "tell": self._told,
        }
        port.on_message = self._heard
        port.on_close = self.close

    # -- to the other end ------------------------------------------------------------------------

    def request(self, target: int, method: str, *args: Any) -> Answer:
        """`await` it: see `call`."""
        self.check()
        self._last_call += 1
        number = self._last_call
        flag = None if self._flags is None else self._flags.take()
        try:
            # Sent first: what cannot be sent leaves nothing behind.
            self._port.send(("call", number, target, method, args, flag))
        except BaseException:
            self._give_back(flag)
            raise
        if flag is not None:
            self._lowered[number] = flag
        answer = self._calls[number] = Answer(lambda: self._withdraw(number))
        return answer

    def _withdraw(self, number: int) -> None:
        if self._why_closed is None:
            self._port.send(("cancel", number))
            flag = self._lowered.pop(number, None)
            if flag is not None and self._flags is not None:
                self._flags.raise_(flag)

    def _give_back(self, flag: str | None) -> None:
        if flag is not None and self._flags is not None:
            self._flags.give_back(flag)

    async def call(self, target: int, method: str, *args: Any) -> Any:
        """What that method of the other end returns, or raises.

        DatabaseClosedError: the other end is gone. TypeError: an argument cannot be sent.
        """
        return await self.request(target, method, *args)

    async def obtain(
        self, undo: Callable[[Any], Awaitable[object]], target: int, method: str, *args: Any
    ) -> Any:
        """`call` for what has to be given back: by `undo`, if the caller was cancelled."""
        answer = self.request(target, method, *args)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.value is not None:
                await undo(answer.value)
            raise

    def tell(self, target: int, method: str, *args: Any) -> None:
        """Call a method of the other end, whatever comes of it; nothing if that is gone."""
        if self._why_closed is None:
            self._port.send(("tell", target, method, args))

    def rows(self, rows: PlainRows) -> tuple[Any, Any]:
        """What is sent in place of them. To make it may take as long as to read them did."""
        return rows.columns, self._port.rows(rows.values, interrupts.check)

    def check(self) -> None:
        """DatabaseClosedError: the other end is gone."""
        if self._why_closed is not None:
            raise DatabaseClosedError(self._why_closed)

    @property
    def closed(self) -> bool:
        return self._why_closed is not None

    def close(self, why: str) -> None:
        """No more messages: what waits for the other end fails, what runs for it is cancelled."""
        if self._why_closed is not None:
            return
        self._why_closed = why
        self._port.close()
        for task in self._running.values():
            task.cancel()
        calls, self._calls = self._calls, {}
        for answer in calls.values():
            answer.set(None, DatabaseClosedError(why), soon=True)
        self._on_close(why)

    # -- from the other end ----------------------------------------------------------------------

    def export(self, thing: object) -> int:
        """The number under which the other end may call the methods of `thing`."""
        self._last_object += 1
        self._objects[self._last_object] = thing
        return self._last_object

    def find(self, number: int) -> Any:
        """What was exported under that number. DatabaseClosedError: it is gone."""
        try:
            return self._objects[number]
        except KeyError:
            raise DatabaseClosedError(
                "what was called has ended, with its transaction or its database"
            ) from None

    def forget(self, number: int) -> None:
        """The other end has no more use for what has that number."""
        self._objects.pop(number, None)

    def _heard(self, message: Any) -> None:
        if self._why_closed is None:
            kind, *rest = message
            self._kinds[kind](*rest)

    def _answered(self, number: int, value: Any) -> None:
        self._give_back(self._lowered.pop(number, None))
        # Unasked for only if this end was closed, and what was asked for given up.
        if (answer := self._calls.pop(number, None)) is not None:
            answer.set(value)

    def _failed(self, number: int, plain: Any) -> None:
        self._give_back(self._lowered.pop(number, None))
        if (answer := self._calls.pop(number, None)) is not None:
            answer.set(None, self.errors.read(plain))

    def _called(
        self, number: int, target: int, method: str, args: Any, flag: str | None = None
    ) -> None:
        context = self._context(target)
        call = None
        if flag is not None and self._flags is not None:
            self._flags.arrived(flag)
            call = interrupts.Call(partial(self._flags.is_raised, flag))
            # What runs beside it in the context of a transaction is no part of this call.
            context = context.copy()
            context.run(call.enter)
        task = start(self._run(target, method, args), context)
        if task.done():
            # It had to wait for nothing: answered in this very turn of the loop.
            self._answer(number, task, call)
            return
        self._running[number] = task
        task.add_done_callback(lambda task: self._answer(number, task, call))

    def _cancel(self, number: int) -> None:
        # Not there: its answer is on its way.
        if (task := self._running.get(number)) is not None:
            task.cancel()

    def _told(self, target: int, method: str, args: Any) -> None:
        task = start(self._run(target, method, args), self._context(target))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        task.add_done_callback(_log)

    def _context(self, target: int) -> Context:
        # What is called inside a transaction runs in its context.
        found: Context | None = getattr(self._objects.get(target), "context", None)
        return Context() if found is None else found

    async def _run(self, target: int, method: str, args: Any) -> Any:
        thing = self.find(target)
        function = None if method.startswith("_") else getattr(thing, method, None)
        if function is None:
            raise RuntimeError(f"{type(thing).__name__} has no method {method!r} to call from here")
        value = await function(*args)
        return self.rows(value) if value.__class__ is PlainRows else value

    def _answer(self, number: int, task: asyncio.Task[Any], call: interrupts.Call | None) -> None:
        self._running.pop(number, None)
        if call is not None:
            call.end()
        if self._why_closed is not None:
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.debug("nobody is there to be told of %r", error)
            return
        try:
            self._port.send(("result", number, task.result()))
        except BaseException as error:
            self._port.send(("error", number, self.errors.plain(error)))


async def to_its_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it whole, also if the caller is cancelled meanwhile: the caller is told what it gave."""
    context = copy_context()
    context.run(interrupts.leave)
    task = start(coroutine, context)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()


def start(coroutine: Coroutine[Any, Any, Any], context: Context) -> asyncio.Task[Any]:
    """A task that begins to run at once, where Python can do that."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)
    return loop.create_task(coroutine, context=context)


def _log(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("what the other end told of failed", exc_info=error)
