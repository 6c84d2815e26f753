"""Runs the Python blocks of a documentation page as a notebook does, in one interpreter.

`python notebook.py`, in a folder for what they write: reads a JSON list of [code, output that is
expected] from standard input, and prints a JSON list of what each block has printed. A block may
use `await` at top level. It has ended when its code has, and has printed as many lines as are
expected of it: a handler may run later. A block that ends with `async for` follows something
without end, and is cancelled when it has printed them.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import sys
from types import FunctionType
from typing import Any

from patience import PATIENCE

import holdfast


class Output(io.StringIO):
    """What a block prints; `enough` is set at so many lines."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self._lines = lines
        self.enough = asyncio.Event()
        self.write("")  # enough at once, where nothing is expected

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.getvalue().count("\n") >= self._lines:
            self.enough.set()
        return written


async def run(code: str, expected: str, names: dict[str, Any]) -> str:
    tree = ast.parse(code)
    endless = isinstance(tree.body[-1], ast.AsyncFor) and not any(
        isinstance(node, ast.Break) for node in ast.walk(tree.body[-1])
    )
    block = compile(tree, "<block>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    output = Output(expected.count("\n"))
    with contextlib.redirect_stdout(output):
        try:
            async with asyncio.timeout(PATIENCE / 2):
                result = FunctionType(block, names)()
                if inspect.iscoroutine(result):
                    task = asyncio.create_task(result)
                    if endless:
                        await output.enough.wait()
                        task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                await output.enough.wait()
        except TimeoutError:
            print("(and then nothing more)")
    return output.getvalue()


async def main() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    blocks = json.load(sys.stdin)
    print(json.dumps([await run(code, expected, names) for code, expected in blocks]))
    for value in list(names.values()):
        # A reader leaves them open, and the process would end with a warning for each.
        if isinstance(value, holdfast.Database):
            await value.close()


if __name__ == "__main__":
    asyncio.run(main())
