"""Which databases live elsewhere: those of a page's main thread, in a worker that is started here.

Browsers allow files in OPFS to be used synchronously in dedicated workers only. All databases of
a page are in one worker, which is started when the first is asked for and lives as long as the
page. If it dies, what was open in it fails, and the next that is opened starts another.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import Client

# The one worker of this page, once it was asked for.
_engine: asyncio.Task[Client] | None = None


async def elsewhere(storage: str, worker: str | None = None) -> Client | None:
    """Who has the databases of `storage`; None: this interpreter.

    worker: where the page serves holdfast.mjs, if it has to.
    StorageUnavailableError: the worker cannot be started.
    """
    if sys.platform != "emscripten" or storage not in ("auto", "opfs"):
        return None
    from ..browser.page import is_page

    return await _page_engine(worker) if is_page() else None


async def _page_engine(worker: str | None) -> Client:
    global _engine
    if _engine is None or _has_ended(_engine):
        _engine = asyncio.ensure_future(_start_engine(worker))
    # Who is cancelled does not take it from others that wait for it.
    return await asyncio.shield(_engine)


async def _start_engine(url: str | None) -> Client:
    from ..browser.page import Hiding, PageWorker
    from .client import Client

    worker = PageWorker(url)
    client = Client(worker.port)
    client.on_close(lambda why: worker.end())
    worker.port.start()
    try:
        await worker.alive
        await client.greet()
    except BaseException as error:
        client.close(f"the worker of this page was not started: {error}")
        raise
    hiding = Hiding(client.rest)
    client.on_close(lambda why: hiding.end())
    return client


def _has_ended(engine: asyncio.Task[Client]) -> bool:
    if not engine.done():
        return False
    return engine.cancelled() or engine.exception() is not None or engine.result().closed
