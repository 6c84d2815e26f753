"""`remote.flags.Flags` in a browser: blob: URLs, which a worker can read while it runs Python.

A flag is the URL of an empty blob, made by the end that may raise it; raising it is revoking it. A
worker looks by asking for it with a synchronous request, which takes some milliseconds. This needs
no shared memory, and so no cross-origin isolation. A Content-Security-Policy whose connect-src
leaves out blob: forbids it; then a call is cancelled before or after its statement runs only.
"""

from __future__ import annotations

import js

from .host import host

# So many calls at once have one; the other calls have none.
_MOST = 32


class BlobFlags:
    """Flags that are made here, or looked at."""

    def __init__(self) -> None:
        self._idle: list[str] = []
        self._used = 0
        self._noticed = False

    def take(self) -> str | None:
        if self._used == _MOST:
            return None
        self._used += 1
        return self._idle.pop() if self._idle else str(js.URL.createObjectURL(js.Blob.new()))

    def give_back(self, flag: str) -> None:
        self._used -= 1
        self._idle.append(flag)

    def raise_(self, flag: str) -> None:
        self._used -= 1
        js.URL.revokeObjectURL(flag)

    def arrived(self, flag: str) -> None:
        if not self._noticed:
            self._noticed = True
            host().noticeFlag(flag)

    def is_raised(self, flag: str) -> bool:
        return bool(host().isRaised(flag))
