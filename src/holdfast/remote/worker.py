"""In the worker that has the databases of a page, or of all tabs: what holdfast.mjs calls there."""

from __future__ import annotations

from typing import Any

from ..browser.flags import BlobFlags
from ..browser.locks import WebLocks
from ..browser.ports import BrowserPort
from ..local.database import LocalDatabase
from ..local.opening import open_here
from ..storage.indexeddb.storage import current_tab
from .server import Server


def serve(port: Any, python: bool) -> Server:
    """Serve the client at the other end of a MessagePort; python: whether that is Python too."""
    ours = BrowserPort(port, python=python)
    server = Server(ours, flags=BlobFlags())
    ours.start()
    return server


async def serve_tab(port: Any, python: bool, lock: str) -> None:
    """The same for one of several tabs, until its `lock` goes: then what it had is disposed of."""
    ours = BrowserPort(port, python=python)

    async def opened(name: str, options: dict[str, Any]) -> LocalDatabase:
        current_tab.set(lock)
        return await open_here(name, **options)

    server = Server(ours, opened=opened, flags=BlobFlags())
    tab = WebLocks().request(lock, exclusive=False)
    try:
        ours.start()
        await tab.granted
    finally:
        tab.release()
        await server.close("the tab is gone")
