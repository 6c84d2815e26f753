"""In the worker that has the databases of a page, or of all tabs: what holdfast.mjs calls there."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ..browser.locks import WebLocks
from ..browser.ports import BrowserPort
from ..database import Database
from ..opening import open
from ..storage.indexeddb import current_tab
from .server import Server

logger = logging.getLogger("holdfast")

_closing: set[asyncio.Task[None]] = set()


def serve(port: Any, python: bool) -> Server:
    """Serve the client at the other end of a MessagePort; python: whether that is Python too."""
    ours = BrowserPort(port, python=python)
    server = Server(ours)
    ours.start()
    return server


def serve_tab(port: Any, python: bool, lock: str) -> None:
    """The same for one of several tabs: when its `lock` goes, what it had is disposed of."""
    ours = BrowserPort(port, python=python)

    async def opened(name: str, options: dict[str, Any]) -> Database:
        current_tab.set(lock)
        return await open(name, **options).here()

    server = Server(ours, opened=opened)
    ours.start()
    tab = WebLocks().request(lock, exclusive=False)

    def gone(_granted: asyncio.Future[bool]) -> None:
        tab.release()
        task = asyncio.ensure_future(server.close("the tab is gone"))
        _closing.add(task)
        task.add_done_callback(closed)

    def closed(task: asyncio.Task[None]) -> None:
        _closing.discard(task)
        if (error := task.exception()) is not None:
            logger.error("what a tab left could not be disposed of", exc_info=error)

    tab.granted.add_done_callback(gone)
