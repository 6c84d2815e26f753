"""JavaScript's bytes, in parts: Blob, File, ReadableStream, ArrayBuffer, typed arrays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pyodide.ffi import JsBuffer, JsProxy


def chunks_of(data: Any, size: int) -> tuple[AsyncIterator[bytes], int | None] | None:
    """Parts of at most `size` bytes, and how many bytes there are where that is known.

    None: it is not JavaScript's.
    """
    if not isinstance(data, JsProxy):
        return None
    if hasattr(data, "getReader"):
        return _of_stream(data, size), None
    if hasattr(data, "arrayBuffer") and hasattr(data, "slice"):
        return _of_blob(data, size), int(data.size)
    if isinstance(data, JsBuffer):
        return _of_buffer(data, size), int(data.byteLength)
    return None


async def _of_blob(blob: Any, size: int) -> AsyncIterator[bytes]:
    for at in range(0, int(blob.size), size):
        part = await blob.slice(at, min(at + size, int(blob.size))).arrayBuffer()
        yield part.to_bytes()


async def _of_buffer(buffer: Any, size: int) -> AsyncIterator[bytes]:
    view = buffer.to_memoryview()
    for at in range(0, len(view), size):
        yield bytes(view[at : at + size])


async def _of_stream(stream: Any, size: int) -> AsyncIterator[bytes]:
    reader = stream.getReader()
    try:
        while not (step := await reader.read()).done:
            if not isinstance(step.value, JsBuffer):
                raise TypeError("the stream must give Uint8Arrays")
            part = step.value
            for at in range(0, int(part.byteLength), size):
                yield part.subarray(at, min(at + size, int(part.byteLength))).to_bytes()
    finally:
        reader.releaseLock()
