"""The blocks of a database in IndexedDB; the format is described in host.js.

An IndexedDB transaction is atomic. Its `complete` event comes, with durability "strict", when it
is on the disk, and else when the operating system has it (w3.org/TR/IndexedDB, "durability hint").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyodide.ffi import create_proxy, to_js

from ..errors import NotADatabaseError, StorageUnavailableError
from .host import host
from .refusals import explaining
from .tasks import settle

# Bytes; as in host.js.
BLOCK = 4096

# Blocks that are handed to IndexedDB at once; a transaction of more gets them one after the other.
_AT_ONCE = 1024


class BlockStore:
    """The blocks of one database. Claim it before opening, see storage/indexeddb/hub.py."""

    def __init__(self, name: str, database: Any) -> None:
        self.name = name
        self._database = database

    @classmethod
    async def open(cls, name: str) -> BlockStore:
        """Made where missing. StorageUnavailableError: there is no IndexedDB, or it refuses."""
        check_available()
        with explaining("IndexedDB", name):
            return cls(name, await host().openBlocks(name, True))

    @property
    def is_open(self) -> bool:
        """False: the browser has closed it, as it does when it clears the site's data."""
        return bool(host().blocksAreOpen(self._database))

    async def load(self) -> tuple[int, list[bytes]]:
        """The size in bytes, and all blocks. NotADatabaseError: some are missing."""
        blocks: list[bytes] = []
        with explaining("IndexedDB", self.name):
            size = int(await host().sizeOf(self._database))
            while part := (await host().readBlocks(self._database, len(blocks))).to_bytes():
                blocks += [part[at : at + BLOCK] for at in range(0, len(part), BLOCK)]
        if len(blocks) != -(-size // BLOCK):
            raise NotADatabaseError(
                f"IndexedDB has {len(blocks)} blocks of {self.name!r}, and its {size} bytes need "
                "another number: somebody else wrote there. It was left as it is"
            )
        return size, blocks

    async def write(self, size: int, blocks: Mapping[int, bytes], *, strict: bool) -> None:
        """Some blocks and the size, in one transaction; what is behind the size goes.

        QuotaExceededError: there is no space. StorageUnavailableError: IndexedDB refuses, or is
        gone.
        On either nothing was written.
        """
        await self._write(size, -(-size // BLOCK), iter(blocks.items()), strict)

    async def replace(self, size: int, blocks: Sequence[bytes]) -> None:
        """All blocks; errors as `write`."""
        await self._write(size, 0, enumerate(blocks), True)

    async def _write(
        self, size: int, keep: int, blocks: Iterator[tuple[int, bytes]], strict: bool
    ) -> None:
        def part() -> Any:
            numbers: list[float] = []
            found: list[bytes] = []
            for number, block in blocks:
                numbers.append(number)
                found.append(block)
                if len(numbers) == _AT_ONCE:
                    break
            if not numbers:
                return None
            packed = struct.pack(f"{len(numbers)}d", *numbers)
            return to_js([to_js(memoryview(packed).cast("d")), to_js(b"".join(found))])

        proxy = create_proxy(part)
        try:
            with explaining("IndexedDB", self.name):
                writing = host().writeBlocks(
                    self._database, size, keep, proxy, "strict" if strict else "relaxed"
                )
                # Cancelled or not, the transaction goes on, and no other may begin before
                # it has ended.
                await settle(writing, lambda _: None)
        finally:
            proxy.destroy()

    def close(self) -> None:
        self._database.close()


async def names() -> list[str]:
    """The names of the databases there are."""
    check_available()
    with explaining("IndexedDB"):
        return list(await host().namesOfBlocks())


async def delete(name: str) -> bool:
    """Delete a database that was claimed; whether there was one."""
    check_available()
    with explaining("IndexedDB", name):
        return bool(await host().deleteBlocks(name))


def check_available() -> None:
    """StorageUnavailableError: there is no IndexedDB here."""
    if missing := host().missingForBlocks():
        raise StorageUnavailableError(f"IndexedDB cannot be used here: {missing}")
