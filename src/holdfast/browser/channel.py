"""BroadcastChannel: text to the other tabs of this origin."""

from __future__ import annotations

from collections.abc import Callable

from pyodide.ffi import create_proxy

from .host import host
from .refusals import explaining


class Channel:
    """One end of a channel; `on_message` is called with each text that another end posts."""

    def __init__(self, name: str, on_message: Callable[[str], None]) -> None:
        self._callback = create_proxy(on_message)
        try:
            with explaining("BroadcastChannel"):
                self._channel = host().channel(name, self._callback)
        except BaseException:
            self._callback.destroy()
            raise
        # Bound once: an attribute of a JavaScript object costs a crossing each time.
        self.post: Callable[[str], None] = self._channel.post

    def close(self) -> None:
        self._channel.close()
        self._callback.destroy()
