"""MessagePort as a `remote.port.Port`: to another Python as bytes, to JavaScript as its own values.

Two Pythons of one version send marshalled bytes, which costs a fraction of a structured clone. To
JavaScript a dict is an object, bytes are a Uint8Array, an int beyond 2**53 is a BigInt, and None is
undefined; from there null is not sent, whole numbers are int and other ones float.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable
from typing import Any

import js
from pyodide.ffi import ConversionError, create_proxy, to_js

# Rows that are converted at once, in some milliseconds.
_PART = 2000


class BrowserPort:
    """One end of a MessageChannel. python: whether the other end is Python too."""

    def __init__(self, port: Any, *, python: bool) -> None:
        self.on_message: Callable[[Any], None] = lambda message: None
        self.on_close: Callable[[str], None] = lambda why: None
        self._port = port
        # Bound once: an attribute of a JavaScript object costs a crossing each time.
        self._post = port.postMessage
        self._python = python
        self._hear = create_proxy(self._hear_bytes if python else self._hear_values)

    def start(self) -> None:
        """Begin to hear; what was sent before comes now."""
        self._port.onmessage = self._hear

    def send(self, message: Any) -> None:
        self._post(_bytes_of(message) if self._python else _values_of(message))

    def rows(self, rows: list[tuple[Any, ...]], check: Callable[[], None]) -> Any:
        if self._python or len(rows) <= _PART:
            return rows
        parts = js.Array.new()
        for at in range(0, len(rows), _PART):
            check()
            parts.push(_values_of(rows[at : at + _PART]))
        return parts.flat()

    def close(self) -> None:
        self._port.onmessage = None
        self._port.close()
        self._hear.destroy()

    def _hear_bytes(self, event: Any) -> None:
        self.on_message(marshal.loads(event.data.to_bytes()))

    def _hear_values(self, event: Any) -> None:
        self.on_message(event.data.to_py(default_converter=_converted))


def _bytes_of(message: Any) -> Any:
    try:
        return to_js(marshal.dumps(message))
    except ValueError as error:
        raise TypeError(
            f"{_arguments(message)} cannot be sent to the worker that has the database ({error}); "
            "use None, int, float, str, bytes, and lists, tuples and dicts of them"
        ) from None


def _values_of(message: Any) -> Any:
    try:
        return to_js(message, dict_converter=js.Object.fromEntries, create_pyproxies=False)
    except ConversionError as error:
        raise TypeError(f"{_arguments(message)} has no form in JavaScript: {error}") from None


def _arguments(message: Any) -> str:
    text = repr(message[-1])
    return text if len(text) < 200 else f"{text[:200]}…"


def _converted(value: Any, _convert: Any, _cache: Any) -> Any:
    raise TypeError(f"{value} cannot be sent to Python")
