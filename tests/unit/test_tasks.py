"""When Python goes on in a browser, over one whose tasks a test lets happen one by one."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from patience import PATIENCE


class Proxy:
    """What create_proxy gives: of no use any more once it was destroyed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.destroyed = False

    def __call__(self, *arguments: Any) -> Any:
        assert not self.destroyed, "called after it was destroyed"
        return self.function(*arguments)

    def destroy(self) -> None:
        assert not self.destroyed, "destroyed twice"
        self.destroyed = True


class Browser:
    """What the tests see of host.js: what it was asked for, until the test has it done."""

    def __init__(self) -> None:
        self.microtasks: deque[Callable[[], None]] = deque()
        self.tasks: deque[Callable[[], None]] = deque()
        self.settling: list[tuple[asyncio.Future[Any], Callable[[bool, Any], None]]] = []
        self.proxies: list[Proxy] = []

    def create_proxy(self, function: Callable[..., Any]) -> Proxy:
        self.proxies.append(Proxy(function))
        return self.proxies[-1]

    def soon(self, callback: Callable[[], None]) -> None:
        self.microtasks.append(callback)

    def nextTask(self, callback: Callable[[], None]) -> None:
        self.tasks.append(callback)

    def settle(self, promise: asyncio.Future[Any], callback: Callable[[bool, Any], None]) -> None:
        self.settling.append((promise, callback))

    def in_browser(self, function: Callable[[], None]) -> None:
        """An event of the browser: no task of Python runs, and JavaScript knows of no loop."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        asyncio._leave_task(loop, task)
        asyncio._set_running_loop(None)
        try:
            function()
        finally:
            asyncio._set_running_loop(loop)
            asyncio._enter_task(loop, task)

    def microtask(self) -> None:
        self.in_browser(self.microtasks.popleft())

    def task(self) -> None:
        self.in_browser(self.tasks.popleft())

    def fulfil(self, value: Any) -> None:
        promise, callback = self.settling.pop(0)
        promise.set_result(value)
        self.in_browser(lambda: callback(True, value))

    def reject(self, error: Exception) -> None:
        promise, callback = self.settling.pop(0)
        promise.set_exception(error)
        self.in_browser(lambda: callback(False, None))


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def tasks(browser: Browser) -> Iterator[Any]:
    """The module."""
    ffi, host = ModuleType("pyodide.ffi"), ModuleType("holdfast.browser.host")
    ffi.__dict__.update(create_proxy=browser.create_proxy)
    host.__dict__.update(host=lambda: browser)
    modules = {"pyodide": ModuleType("pyodide"), ffi.__name__: ffi, host.__name__: host}
    name = "holdfast.browser.tasks"
    with mock.patch.dict(sys.modules, modules):
        sys.modules.pop(name, None)
        yield importlib.import_module(name)
        sys.modules.pop(name, None)
    package = importlib.import_module("holdfast.browser")
    for attribute in ("tasks", "host"):
        vars(package).pop(attribute, None)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def errors() -> list[dict[str, Any]]:
    """What the loop was told of."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: found.append(context))
    return found


# -- answers ---------------------------------------------------------------------------------------


async def test_who_waits_for_an_answer_goes_on_in_the_call_that_brings_it(
    browser: Browser, tasks: Any
) -> None:
    answer = tasks.BrowserFuture()
    who: ContextVar[str] = ContextVar("who")
    seen: list[tuple[str, int, str | None]] = []

    async def wait(name: str) -> None:
        who.set(name)
        found = await answer
        task = asyncio.current_task()
        seen.append((who.get(), found, task and task.get_name()))

    tasks = [asyncio.create_task(wait(name), name=name) for name in ("a", "b")]
    await settled()
    browser.in_browser(lambda: answer.answer(7))
    assert seen == [("a", 7, "a"), ("b", 7, "b")], "in order, each in its own context and task"
    assert all(task.done() for task in tasks)
    assert await answer == 7
    # Whoever comes late waits for the loop, as with any future.
    late: list[int] = []
    answer.add_done_callback(lambda future: late.append(future.result()))
    assert late == []
    await settled()
    assert late == [7]


async def test_an_answer_is_a_future_like_any_other_in_all_else(tasks: Any) -> None:
    async def outcome(answer: Any) -> Any:
        try:
            return await answer
        except BaseException as error:
            return error

    given, failed, cancelled = (tasks.BrowserFuture() for _ in range(3))
    waiting = [asyncio.create_task(outcome(answer)) for answer in (given, failed, cancelled)]
    await settled()
    given.set_result(1)
    failed.set_exception(KeyError("x"))
    assert cancelled.cancel() and not cancelled.cancel()
    assert not any(task.done() for task in waiting), "not inside of the call"
    one, error, end = await asyncio.gather(*waiting)
    assert one == 1
    assert isinstance(error, KeyError)
    assert isinstance(end, asyncio.CancelledError)

    called: list[str] = []

    def first(future: Any) -> None:
        called.append("first")

    answer = tasks.BrowserFuture()
    answer.add_done_callback(first)
    answer.add_done_callback(lambda future: called.append("second"))
    answer.add_done_callback(first)
    assert answer.remove_done_callback(first) == 2
    answer.set_result(None)
    await settled()
    assert called == ["second"]


async def test_a_callback_that_fails_keeps_nobody_from_the_answer(
    browser: Browser, tasks: Any, errors: list[dict[str, Any]]
) -> None:
    answer = tasks.BrowserFuture()
    called: list[Any] = []
    answer.add_done_callback(lambda future: 1 / 0)
    answer.add_done_callback(called.append)
    browser.in_browser(lambda: answer.answer(None))
    assert called == [answer]
    assert [type(each["exception"]) for each in errors] == [ZeroDivisionError]


async def test_a_generator_that_begins_in_an_answer_is_known_to_its_loop(
    browser: Browser, tasks: Any
) -> None:
    """Else nobody would close it when it is left."""
    answer = tasks.BrowserFuture()
    closed = asyncio.Event()

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.set()

    async def leave() -> None:
        await answer
        async for _ in numbers():
            break

    task = asyncio.create_task(leave())
    await settled()

    def event() -> None:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)  # as on a thread state that knows no loop
        try:
            answer.answer(None)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    browser.in_browser(event)
    await task
    await asyncio.wait_for(closed.wait(), PATIENCE)


# -- tasks -----------------------------------------------------------------------------------------


async def test_soon_is_once_for_all_that_was_asked_for(
    browser: Browser, tasks: Any, errors: list[dict[str, Any]]
) -> None:
    loop = asyncio.get_running_loop()
    made = tasks.BrowserTasks()
    called: list[Any] = []

    def again() -> None:
        called.append(asyncio.get_running_loop())
        made.soon(lambda: called.append("later"))

    for function in (lambda: called.append("first"), lambda: 1 / 0, again):
        made.soon(function)
    assert len(browser.microtasks) == 1 and not called
    browser.microtask()
    assert called == ["first", loop], "in order, and with the loop"
    assert [type(each["exception"]) for each in errors] == [ZeroDivisionError]
    assert len(browser.microtasks) == 1
    browser.microtask()
    assert called[2:] == ["later"]
    made.close()


async def test_next_lets_a_task_of_the_browser_go_first(browser: Browser, tasks: Any) -> None:
    made = tasks.BrowserTasks()
    done: list[str] = []

    async def wait(name: str) -> None:
        await made.next()
        done.append(name)

    a, b, c = (asyncio.create_task(wait(name)) for name in "abc")
    await settled()
    assert not done and len(browser.tasks) == 3
    b.cancel()
    browser.task()
    assert done == ["a"], "one for each"
    browser.task()
    browser.task()
    await asyncio.wait({a, b, c})
    assert done == ["a", "c"] and b.cancelled()
    made.close()


async def test_waiters_of_an_event_go_on_in_the_next_task(browser: Browser, tasks: Any) -> None:
    made = tasks.BrowserTasks()
    event = made.event()
    done: list[str] = []

    async def wait(name: str) -> None:
        assert await event.wait() is True
        done.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in "abc"]
    await settled()
    tasks[1].cancel()
    await settled()
    event.set()
    assert event.is_set()
    await settled()
    assert done == []
    while browser.tasks:
        browser.task()
    assert done == ["a", "c"]
    # It stays set until it is cleared; who waits then waits for the next time.
    assert await event.wait() is True
    event.clear()
    again = asyncio.create_task(wait("again"))
    await settled()
    assert not again.done()
    event.set()
    browser.task()
    await again
    made.close()


@pytest.mark.parametrize("last", ["soon", "next"])
async def test_what_was_asked_for_before_the_close_still_happens(
    browser: Browser, tasks: Any, last: str
) -> None:
    made = tasks.BrowserTasks()
    done: list[str] = []
    waiting = asyncio.create_task(made.next())
    await settled()
    made.soon(lambda: done.append("soon"))
    made.close()
    happen = (
        [browser.task, browser.microtask] if last == "soon" else [browser.microtask, browser.task]
    )
    for event in happen:
        assert not any(proxy.destroyed for proxy in browser.proxies)
        event()
    await waiting
    assert done == ["soon"]
    assert len(browser.proxies) == 2 and all(proxy.destroyed for proxy in browser.proxies)


@pytest.mark.parametrize("first", ["soon", "next"])
async def test_of_a_closed_one_nothing_is_left(browser: Browser, tasks: Any, first: str) -> None:
    made = tasks.BrowserTasks()
    if first == "soon":
        made.soon(lambda: None)
        browser.microtask()
    else:
        waiting = asyncio.create_task(made.next())
        await settled()
        browser.task()
        await waiting
    made.close()
    assert all(proxy.destroyed for proxy in browser.proxies)


# -- to its end ------------------------------------------------------------------------------------


class Work:
    """A promise that somebody waits for, and what was undone."""

    def __init__(self, tasks: Any) -> None:
        self.undone: list[Any] = []
        self.promise: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        waited: Awaitable[Any] = tasks.settle(self.promise, self.undone.append)
        self.task = asyncio.ensure_future(waited)


async def test_what_javascript_answers_is_waited_for(browser: Browser, tasks: Any) -> None:
    work = Work(tasks)
    await settled()
    assert not work.task.done()
    browser.fulfil("handles")
    # At once: no turn of the loop is between.
    assert work.task.done() and work.task.result() == "handles"
    assert work.undone == [] and browser.proxies[0].destroyed


async def test_what_javascript_refuses_is_the_error_itself(browser: Browser, tasks: Any) -> None:
    work = Work(tasks)
    await settled()
    refused = OSError("NoModificationAllowedError")
    browser.reject(refused)
    with pytest.raises(OSError) as caught:
        await work.task
    assert caught.value is refused
    assert work.undone == [] and browser.proxies[0].destroyed


@pytest.mark.parametrize("times", [1, 2])
async def test_who_is_cancelled_waits_for_it_and_undoes_it(
    browser: Browser, tasks: Any, times: int
) -> None:
    work = Work(tasks)
    await settled()
    for _ in range(times):
        work.task.cancel()
        await settled()
        assert not work.task.done(), "it goes on in JavaScript"
    browser.fulfil("handles")
    with pytest.raises(asyncio.CancelledError):
        await work.task
    assert work.undone == ["handles"] and browser.proxies[0].destroyed


async def test_of_what_failed_there_is_nothing_to_undo(browser: Browser, tasks: Any) -> None:
    work = Work(tasks)
    await settled()
    work.task.cancel()
    await settled()
    browser.reject(OSError("refused"))
    with pytest.raises(asyncio.CancelledError):
        await work.task
    assert work.undone == []
    assert work.promise.exception() is not None


async def test_cancelled_after_the_answer_it_undoes_it(browser: Browser, tasks: Any) -> None:
    """The two may come in the same turn: what was opened is not left to nobody."""
    work = Work(tasks)
    await settled()
    work.task.cancel()
    browser.fulfil("handles")
    with pytest.raises(asyncio.CancelledError):
        await work.task
    assert work.undone == ["handles"]
