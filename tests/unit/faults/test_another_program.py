"""A schema change that no tab was told of, in the simulated browser: the next commit finds it."""

from __future__ import annotations

import asyncio
import contextlib
from unittest import mock

import apsw
import pytest
from simulated_opfs import Library

from faults.migrations import migrate_unnoticed
from faults.world import Tab, World
from holdfast import Database, DiffContext, SourceDroppedError
from holdfast.session import lookout


class Undone(Exception):
    """What the transaction in between fails with."""


async def fail(database: Database, how: str) -> None:
    """In a transaction that does not commit."""
    if how == "statement":
        with contextlib.suppress(apsw.SQLError):
            await database.execute("INSERT INTO tracked(nowhere) VALUES (1)")
    elif how == "constraint":
        with contextlib.suppress(apsw.ConstraintError):
            await database.execute("INSERT INTO other VALUES (0)")
    else:
        entered = asyncio.Event()

        async def wait() -> None:
            async with database.write_transaction():
                entered.set()
                if how == "exception":
                    raise Undone
                await asyncio.Event().wait()

        task = asyncio.get_running_loop().create_task(wait())
        await entered.wait()
        if how == "cancellation":
            task.cancel()
        await asyncio.wait({task})
        assert task.cancelled() or isinstance(task.exception(), Undone)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
@pytest.mark.parametrize("writer", ["its own", "another"])
@pytest.mark.parametrize("how", ["statement", "constraint", "exception", "cancellation"])
def test_the_next_commit_tells(library: Library, how: str, writer: str, shared: bool) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        a, b, program = [await world.open() for _ in range(3)]
        for sql in (
            "CREATE TABLE tracked(id INTEGER PRIMARY KEY, a)",
            "CREATE TABLE other(x UNIQUE)",
            "INSERT INTO other VALUES (0)",
        ):
            await a.run(a.db.execute(sql))
        told: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def on_change(_context: DiffContext) -> None:
            """Nothing is written."""

        async def on_error(error: Exception) -> None:
            told.set_result(error)

        await a.run(a.db.triggers.track_table_diff("tracked", on_change, on_error=on_error))
        for tab in (a, b):
            await tab.run(tab.db.execute("INSERT INTO other VALUES (NULL)"))
        with (
            mock.patch.object(program.db._session.storage, "announce"),
            mock.patch.object(program.db._session.mender, "mend"),
        ):
            await program.run(migrate_unnoticed(program.db, ["DROP TABLE tracked"]))
        for tab in (a, b):
            await tab.run(fail(tab.db, how))
        writing: Tab = a if writer == "its own" else b
        await writing.run(writing.db.execute("INSERT INTO other VALUES (NULL)"))
        assert isinstance(await told, SourceDroppedError)
        for tab in (a, b, program):
            await tab.close()

    async def look(_session: object) -> bool:
        """Nobody looks out for what was not announced."""
        return False

    with mock.patch.object(lookout, "look", look):
        world.run(main)
