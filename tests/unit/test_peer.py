"""Calls between the two ends of a port, whoever is cancelled, gone or late."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context, ContextVar
from typing import Any

import pytest
from across import MemoryPort, pair
from patience import PATIENCE

from holdfast import DatabaseClosedError
from holdfast.remote.peer import Peer, to_its_end

who: ContextVar[str] = ContextVar("who", default="nobody")


class Thing:
    """What the other end may call."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = 0
        self.ended = 0
        self.told: list[Any] = []

    async def echo(self, value: Any) -> Any:
        return value

    async def wait(self) -> str:
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.ended += 1
        return "waited"

    async def stubborn(self) -> str:
        """It is not to be cancelled."""
        answer: str = await to_its_end(self._work())
        return answer

    async def _work(self) -> str:
        self.begun.set()
        await self.go_on.wait()
        return "whole"

    async def who(self) -> str:
        return who.get()

    async def note(self, value: Any) -> None:
        self.told.append(value)

    async def fail(self) -> None:
        raise LookupError("it fails")

    async def unsendable(self) -> object:
        return object()


class Ends:
    """Both of them."""

    def __init__(self) -> None:
        self.port, self.other_port = pair()
        self.closed: list[str] = []
        self.thing = Thing()
        self.peer = Peer(self.port, Thing(), self.closed.append)
        self.other = Peer(self.other_port, self.thing, lambda why: None)

    def sent(self, port: MemoryPort) -> list[str]:
        """The kinds of messages."""
        return [message[0] for message in port.sent]


@pytest.fixture
async def ends() -> Ends:
    return Ends()


@pytest.fixture(autouse=True)
async def no_errors() -> Any:
    """A port that is handed something calls what hears it: nothing of that may fail."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    yield
    await settled()
    assert errors == []


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


# -- cancellation ----------------------------------------------------------------------------------


async def test_what_a_cancelled_task_waits_for_is_cancelled_there_first(ends: Ends) -> None:
    task = asyncio.ensure_future(ends.peer.call(0, "wait"))
    await ends.thing.begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done(), "the other end has not answered yet"
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)
    assert (ends.thing.cancelled, ends.thing.ended) == (1, 1)
    assert not ends.other._running and not ends.peer._calls


async def test_what_cannot_be_cancelled_there_is_waited_for(ends: Ends) -> None:
    answer = ends.peer.request(0, "stubborn")

    async def wait() -> None:
        await answer

    task = asyncio.ensure_future(wait())
    await ends.thing.begun.wait()
    for _ in range(3):
        task.cancel()
        await settled()
        assert not task.done()
    assert ends.sent(ends.port).count("cancel") == 3, "each time is told"
    ends.thing.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)
    assert answer.value == "whole" and answer.error is None


async def test_a_cancellation_that_comes_too_late_changes_nothing_there(ends: Ends) -> None:
    task = asyncio.ensure_future(ends.peer.call(0, "echo", 1))
    while "result" not in ends.sent(ends.other_port):  # noqa: ASYNC110
        await asyncio.sleep(0)
    # The answer is on its way.
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ends.peer.call(0, "echo", 2) == 2


async def test_an_answer_that_is_here_cannot_be_cancelled(ends: Ends) -> None:
    answer = ends.peer.request(0, "echo", 1)
    assert await answer == 1
    assert not answer.cancel()
    assert await answer == 1
    assert "cancel" not in ends.sent(ends.port)


# -- what can and cannot be sent -------------------------------------------------------------------


async def test_what_cannot_be_sent_leaves_nothing_behind(ends: Ends) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        ends.peer.request(0, "echo", object())
    assert not ends.peer._calls
    assert await ends.peer.call(0, "echo", [1, {"a": b"x"}]) == [1, {"a": b"x"}]


async def test_an_answer_that_cannot_be_sent_is_an_error(ends: Ends) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        await asyncio.wait_for(ends.peer.call(0, "unsendable"), PATIENCE)


async def test_what_was_told_and_fails_is_logged(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    ends.peer.tell(0, "note", 1)
    ends.peer.tell(0, "fail")
    with caplog.at_level(logging.ERROR, "holdfast"):
        await settled()
    assert ends.thing.told == [1]
    assert [type(record.exc_info and record.exc_info[1]) for record in caplog.records] == [
        LookupError
    ]
    assert "result" not in ends.sent(ends.other_port), "there is no answer"


async def test_a_call_runs_in_the_context_of_its_object(ends: Ends) -> None:
    class Block(Thing):
        context = Context()

    Block.context.run(who.set, "the block")
    number = ends.other.export(Block())
    who.set("the caller")
    assert await ends.peer.call(0, "who") == "nobody"
    assert await ends.peer.call(number, "who") == "the block"
    ends.other.forget(number)
    with pytest.raises(DatabaseClosedError, match="has ended"):
        await ends.peer.call(number, "who")


# -- the end ---------------------------------------------------------------------------------------


async def test_when_one_end_is_closed_nothing_goes_on(ends: Ends) -> None:
    calls = [asyncio.ensure_future(ends.peer.call(0, "wait")) for _ in range(2)]
    theirs = asyncio.ensure_future(ends.other.call(0, "wait"))
    await ends.thing.begun.wait()
    await settled()
    mine: Thing = ends.peer.find(0)
    assert mine.begun.is_set()
    ends.peer.close("it is over")
    ends.peer.close("it is over again")
    assert ends.closed == ["it is over"] and ends.peer.closed
    assert not any(call.done() for call in calls), "not inside of the call"
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, DatabaseClosedError) and str(error) == "it is over"
    await settled()
    assert mine.cancelled == 1
    sent = len(ends.port.sent)
    ends.peer.tell(0, "note", 1)
    for refused in (lambda: ends.peer.request(0, "echo", 1), ends.peer.check):
        with pytest.raises(DatabaseClosedError, match="it is over"):
            refused()
    # What a port hands over all the same is not heard.
    ends.port.on_message(("tell", 0, "note", ("late",)))
    ends.port.on_message(("call", 9, 0, "echo", (1,)))
    await settled()
    assert mine.told == [] and len(ends.port.sent) == sent
    theirs.cancel()
    ends.other.close("it is over there too")
    await asyncio.wait({theirs})


async def test_what_is_cancelled_because_it_is_over_tells_nobody(ends: Ends) -> None:
    """What runs here for the other end may wait for something of that end."""

    class Nested(Thing):
        async def nested(self) -> None:
            await ends.peer.call(0, "wait")

    task = asyncio.ensure_future(ends.other.call(ends.peer.export(Nested()), "nested"))
    await ends.thing.begun.wait()
    sent = len(ends.port.sent)
    ends.peer.close("it is over")
    await settled()
    assert len(ends.port.sent) == sent
    ends.other.close("it is over there too")
    with pytest.raises(DatabaseClosedError):
        await asyncio.wait_for(task, PATIENCE)


async def test_an_answer_that_nobody_waits_for_is_dropped(ends: Ends) -> None:
    ends.port.on_message(("result", 99, 1))
    ends.port.on_message(("error", 99, ends.other.errors.plain(LookupError("x"))))
    assert await ends.peer.call(0, "echo", 1) == 1


async def test_work_is_whole_however_often_its_caller_is_cancelled() -> None:
    thing = Thing()
    task = asyncio.ensure_future(thing.stubborn())
    await thing.begun.wait()
    for _ in range(3):
        task.cancel()
        await settled()
        assert not task.done()
    thing.go_on.set()
    assert await asyncio.wait_for(task, PATIENCE) == "whole"
