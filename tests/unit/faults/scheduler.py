"""An event loop for several simulated tabs, in an order that a seed decides, in virtual time.

Each tab has a queue of its own, as it has an event loop of its own in a browser: what is put into
it first is run first. Which of the queues goes on is chosen anew for each callback. Whose queue a
callback belongs to is told by its context, which tasks and futures hand on by themselves.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import random
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any
from unittest import mock


class Queue:
    """What one tab has to do, or what one has sent that did not arrive yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[asyncio.Handle] = deque()
        self.stopped = False  # nothing runs, as in a process that got SIGSTOP
        self.dead = False
        self.slow = False  # goes on only when nothing else can


# Whose code runs now.
current: contextvars.ContextVar[Queue | None] = contextvars.ContextVar("queue", default=None)


class Stuck(AssertionError):
    """Everybody waits for somebody."""


class _Future(asyncio.Future[Any]):
    """Its place in a set depends neither on its address nor on earlier runs: asyncio has such sets.

    Which one is the first there decides who goes on, and a run could not be repeated.
    """

    def __init__(self, loop: SeededLoop) -> None:
        self._number = next(loop._numbers)
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[Any]):
    """A task with a place in sets as `_Future`."""

    def __init__(
        self, coro: Any, *, loop: SeededLoop, context: contextvars.Context | None, **options: Any
    ) -> None:
        self._number = next(loop._numbers)
        self.context = contextvars.copy_context() if context is None else context
        self.queue: Queue | None = self.context.get(current)
        super().__init__(coro, loop=loop, context=self.context, **options)

    def __hash__(self) -> int:
        return self._number


class SeededLoop(asyncio.AbstractEventLoop):
    """`run(coroutine)`: in an order chosen by `choose`, for at most `limit` seconds of its time."""

    def __init__(self, choose: random.Random, limit: float = 600.0) -> None:
        self._choose = choose
        self._limit = limit
        self._now = 1000.0
        self._queues: list[Queue] = []
        self._outside = self.queue("outside")
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        self._numbers = itertools.count()
        self._running = False
        self._tasks: list[_Task] = []
        self.errors: list[dict[str, Any]] = []

    def queue(self, name: str) -> Queue:
        queue = Queue(name)
        self._queues.append(queue)
        return queue

    def remove(self, queue: Queue) -> None:
        """It is dead: what waits in it never happens."""
        queue.dead = True
        queue.ready.clear()
        self._queues.remove(queue)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        before = asyncio._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._abandoned)
        asyncio._set_running_loop(self)
        self._running = True
        try:
            with mock.patch("time.monotonic", self.time):
                task = self.create_task(main)
                while not task.done():
                    self._step()
                return task.result()
        finally:
            self._running = False
            try:
                self._drop_tasks()
            finally:
                asyncio._set_running_loop(before)
                sys.set_asyncgen_hooks(*hooks)

    def _step(self) -> None:
        ready = [queue for queue in self._queues if queue.ready and not queue.stopped]
        if not ready:
            if not self._timers:
                raise Stuck("nothing can go on, and no time will change that")
            self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            handle = heapq.heappop(self._timers)[2]
            if not handle.cancelled():
                self._put(handle)
        if self._now > 1000.0 + self._limit:
            raise Stuck(f"not done after {self._limit:g} s")
        if ready:
            queue = self._choose.choice(ready) if len(ready) > 1 else ready[0]
            if queue.slow and any(not other.slow for other in ready):
                return
            self._now += self._choose.random() * 2e-4
            handle = queue.ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _put(self, handle: asyncio.Handle) -> None:
        queue = handle._context.get(current) or self._outside  # type: ignore[attr-defined]
        if self._running and not queue.dead:
            queue.ready.append(handle)

    def _abandoned(self, generator: AsyncGenerator[Any, Any]) -> None:
        queue = current.get()
        if self._running and not (queue and queue.dead):
            self.create_task(generator.aclose())

    def _drop_tasks(self) -> None:
        # Of tabs that died: nothing of them ran since. Now that all is over and no queue takes
        # anything, their frames have to go, and Python runs what they have to clean up.
        for task in self._tasks:
            if not task.done():
                # It would complain that nobody waits for it.
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                task.context.run(_end, task.get_coro())
        self._tasks.clear()
        self._timers.clear()

    # -- what asyncio asks of a loop ---------------------------------------------------------------

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._put(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def time(self) -> float:
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> Any:
        task = _Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        if len(self._tasks) > 500:
            self._tasks = [task for task in self._tasks if not task.done()]
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # Complaints come when something is collected, which may be anybody's turn.
        queue = getattr(context.get("future"), "queue", None) or current.get()
        if queue is None or not queue.dead:
            self.errors.append(context)


class _Over(BaseException):
    """There is nothing to wait for any more."""


def _end(coroutine: Any) -> None:
    """It goes no further than where it waits, nor than where it would wait to clean up.

    Not by close(): what waits again then is left in the middle, and complains when it is collected.
    """
    for _ in range(100):
        try:
            coroutine.throw(_Over())
        except BaseException:
            return
    raise AssertionError(f"{coroutine!r} waits for ever")
