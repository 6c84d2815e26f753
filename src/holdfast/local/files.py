"""Databases as files, in this interpreter: see `holdfast.import_database` and the like."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..api.options import OnProgress, Report, check_progress
from ..bounds import Bound
from ..errors import NotADatabaseError
from ..schema import check_internal
from ..storage import Store, choose_kind, choose_store
from ..storage.store import (
    HEADER,
    Scratch,
    check,
    check_header,
    check_whole,
    explained_copy,
    unsound,
)
from ..triggers.strip import strip


async def import_chunks(
    name: str,
    chunks: AsyncIterator[bytes | memoryview],
    total: int | None,
    storage: str,
    wait: float,
    on_progress: OnProgress | None,
    ignore_check_constraints: bool,
) -> None:
    """`import_database` in this interpreter; total: the size of all chunks, where it is known."""
    progress = check_progress(on_progress)
    store = choose_store(storage, name)
    bound = Bound(wait)
    await store.check_free(bound)
    rest = bound.left
    async with store.scratch() as scratch:
        await _receive(store, chunks, total, scratch, progress)
        with store.explaining():
            source = scratch.connect()
        try:
            await store.work(source, lambda: check(name, source, ignore_check_constraints))
            try:
                check_internal(lambda sql: source.execute(sql).fetchall())
            except ValueError as error:
                raise NotADatabaseError(
                    f"the data for {name!r} cannot be used here: {error}; nothing was changed"
                ) from error
            with store.explaining(), unsound(name):
                # A copy of a file in use has triggers whose owners know nothing of this database.
                source.execute("PRAGMA journal_mode = OFF").fetchall()
                strip(source)
            size = scratch.size()
            async with store.replacing(Bound(rest)) as destination:
                async for done, pages in explained_copy(store, source, destination):
                    # Its last step is told when it is durable.
                    if done < pages:
                        await progress(size // 2 + size * done // pages // 2, size)
        finally:
            scratch.disconnect(source)
    await progress(size, size)


async def delete_database(name: str, storage: str, wait: float) -> bool:
    """`delete_database` in this interpreter."""
    return await choose_store(storage, name).delete(Bound(wait))


async def databases(storage: str, folder: str | None) -> list[str]:
    """`databases` in this interpreter."""
    kind = choose_kind(storage)
    if folder is not None and kind != "file":
        raise ValueError(f'folder is for storage="file"; "{kind}" has one place for all databases')
    if kind == "memory":
        return []
    if kind == "opfs":
        from ..storage.opfs.store import names

        return await names()
    if kind == "indexeddb":
        from ..storage.indexeddb.store import names

        return await names()
    from ..storage.file import store as file_store

    return file_store.names(folder)


async def _receive(
    store: Store,
    chunks: AsyncIterator[bytes | memoryview],
    total: int | None,
    scratch: Scratch,
    progress: Report,
) -> None:
    """Write the data to the scratch file; what cannot be a database is refused early."""
    done = 0
    header = b""
    async for chunk in chunks:
        if len(header) < HEADER:
            header += bytes(chunk[: HEADER - len(header)])
            if len(header) == HEADER:
                check_header(store.name, header)
        with store.explaining():
            scratch.append(chunk)
        done += len(chunk)
        await progress(done // 2, total)
    check_header(store.name, header)
    with store.explaining():
        check_whole(store.name, scratch, total)
