"""Giving back all that is held, whatever fails on the way."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Step = Callable[[], Awaitable[object] | object]

# Tasks that go on without a caller: asyncio keeps no reference of its own, so these would be lost.
_kept: set[asyncio.Task[Any]] = set()


async def give_back(*steps: Step) -> None:
    """Every step in order, each awaited, whether those before it failed or not.

    Raises the first error, with the others as its notes. Cancelled, it goes on with the next step.
    """
    first: BaseException | None = None
    for step in steps:
        try:
            result = step()
            if inspect.isawaitable(result):
                await result
        except GeneratorExit:
            raise  # its event loop has ended: nothing can be awaited any more
        except BaseException as error:
            if first is None:
                first = error
            else:
                first.add_note(f"then failed, too: {error!r}")
    if first is not None:
        raise first


def keep(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that runs to its end even if its caller drops it."""
    task = asyncio.get_running_loop().create_task(coroutine)
    _kept.add(task)
    task.add_done_callback(_kept.discard)
    return task
