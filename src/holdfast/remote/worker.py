"""In the worker that has the databases of a page: what holdfast.mjs calls there."""

from __future__ import annotations

from typing import Any

from ..browser.ports import BrowserPort
from .server import Server


def serve(port: Any, python: bool) -> Server:
    """Serve the client at the other end of a MessagePort; python: whether that is Python too."""
    ours = BrowserPort(port, python=python)
    server = Server(ours)
    ours.start()
    return server
