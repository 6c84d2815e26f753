"""Which databases live elsewhere: in a worker that is started, or found, from a page's main thread.

    storage       where a page's databases are
    -----------------------------------------------------------------------------------------
    "opfs"        a dedicated worker of the page: only there may files be used synchronously. It is
                  started when the first database is asked for, and lives as long as the page
    "indexeddb"   a shared worker, of which there is one for all pages
    "auto"        the first of these that the browser has, whatever it refuses at the moment

If a worker dies, what was open in it fails, and the next that is opened starts another.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from ..errors import DatabaseClosedError, StorageUnavailableError

if TYPE_CHECKING:
    from .client import Client

# The workers of this page, by storage, once they were asked for.
_workers: dict[str, asyncio.Task[Client]] = {}


async def elsewhere(storage: str, worker: str | None = None) -> Client | None:
    """Who has the databases of `storage`; None: this interpreter.

    worker: where the page serves holdfast.mjs, if it has to.
    StorageUnavailableError: the worker cannot be started; it says what was tried.
    """
    if sys.platform != "emscripten" or storage not in ("auto", "opfs", "indexeddb"):
        return None
    from ..browser.page import is_page, is_shared_worker

    if is_page():
        return await (_first(worker) if storage == "auto" else _client(storage, worker))
    if storage == "indexeddb" and not is_shared_worker():
        raise StorageUnavailableError(
            'storage="indexeddb" is one connection for all pages, in a shared worker, and only a '
            "page's main thread can reach that: call holdfast.open() there, or use "
            'storage="opfs" in this worker'
        )
    return None


class _NoOpfs(StorageUnavailableError):
    """The browser has no OPFS for this page, and never will while the page lives."""


async def _first(worker: str | None) -> Client:
    try:
        return await _client("opfs", worker)
    except _NoOpfs as error:
        # Nothing else leads to another storage: a name means one database.
        no_opfs = error
    try:
        return await _client("indexeddb", worker)
    except StorageUnavailableError as error:
        raise StorageUnavailableError(
            f'no durable storage is available. Tried: "opfs": {no_opfs}; "indexeddb": {error}'
        ) from error


async def _client(storage: str, worker: str | None) -> Client:
    starting = _workers.get(storage)
    if starting is None or _has_ended(starting):
        start = _start_own if storage == "opfs" else _start_shared
        starting = _workers[storage] = asyncio.ensure_future(start(worker))
    # Who is cancelled does not take it from others that wait for it.
    return await asyncio.shield(starting)


async def _start_own(url: str | None) -> Client:
    from ..browser.flags import BlobFlags
    from ..browser.page import Hiding, PageWorker
    from .client import Client

    worker = PageWorker(url)
    client = Client(worker.port, BlobFlags())
    client.on_close(lambda why: worker.end())
    worker.port.start()
    try:
        await worker.alive
        if why := await worker.opfs:
            raise _NoOpfs(
                f"OPFS cannot be used in a worker of this page: {why}. Private windows, blocked "
                "site data and older browsers do that"
            )
        await client.greet()
    except BaseException as error:
        client.close(f"the worker of this page was not started: {error}")
        raise
    hiding = Hiding(client.rest)
    client.on_close(lambda why: hiding.end())
    return client


async def _start_shared(url: str | None) -> Client:
    from ..browser.flags import BlobFlags
    from ..browser.shared import SharedTab
    from .client import Client

    tab = SharedTab(url)
    try:
        await tab.start()
    except BaseException:
        tab.end()
        raise
    client = Client(tab.port, BlobFlags())
    client.on_close(lambda why: tab.end())
    tab.port.start()
    try:
        await client.greet()
    except DatabaseClosedError as error:
        raise StorageUnavailableError(f"the shared worker could not be used: {error}") from error
    except BaseException as error:
        client.close(f"the shared worker could not be used: {error}")
        raise
    return client


def _has_ended(starting: asyncio.Task[Client]) -> bool:
    if not starting.done():
        return False
    if starting.cancelled() or starting.exception() is not None:
        return True
    return starting.result().closed
