"""What an application hears of changes: `Database.changes` and `Database.watch`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING

from ..api import TableChange
from ..errors import DatabaseClosedError
from ..session.announcements import Announcement
from ..sqlite.rows import Parameters, Row
from ..sqlite.sqltext import fold

if TYPE_CHECKING:
    from ..session.session import Session


# How many changes may wait for their consumer before further ones are gathered.
MANY = 1000


async def table_changes(
    session: Session,
    application_name: Callable[[str], str | None],
    hidden: Callable[[], frozenset[str]],
    tables: tuple[str, ...] | None,
) -> AsyncIterator[TableChange]:
    """See `Database.changes`.

    application_name: what the application calls a real table, if it knows of it.
    hidden: the tables that are holdfast's own.
    """
    wanted = None if tables is None else frozenset(map(fold, tables))
    # Tables of virtual tables, which SQLite makes and writes; unknown until they are asked for.
    shadows: frozenset[str] | None = None
    found: deque[Announcement] = deque()
    ready = asyncio.Event()

    def note(announcement: Announcement) -> None:
        if announcement.tables is None or announcement.tables or announcement.failure:
            _append(found, announcement)
            ready.set()

    with _listening(session, note):
        while await _until(ready, session):
            ready.clear()
            while found and not session.closed:
                announcement = found.popleft()
                if announcement.failure is not None:
                    raise announcement.failure
                if shadows is None or announcement.ddl or announcement.tables is None:
                    shadows = await _table_names(session, "type = 'shadow'")
                found_in = announcement.tables
                if found_in is None:
                    found_in = await _table_names(session, "type <> 'view'")
                known = (application_name(name) for name in found_in - hidden())
                names = frozenset(name for name in known if name is not None) - shadows
                if wanted is not None:
                    names = frozenset(name for name in names if fold(name) in wanted)
                if names:
                    yield TableChange(names, announcement.remote)


def _append(found: deque[Announcement], new: Announcement) -> None:
    """Append it; once MANY wait for a slow consumer, gather it into the last one."""
    if found and found[-1].failure is not None:
        return
    if len(found) >= MANY and new.failure is None:
        for i in range(-1, -3, -1):
            last = found[i]
            if last.remote == new.remote:
                unknown = last.tables is None or new.tables is None
                tables = None if unknown else last.tables | new.tables  # type: ignore[operator]
                found[i] = last._replace(tables=tables, ddl=last.ddl or new.ddl)
                return
    found.append(new)


async def _table_names(session: Session, which: str) -> frozenset[str]:
    rows = await session.fetch_all(
        f"SELECT name FROM pragma_table_list WHERE schema = 'main' AND {which}"
    )
    return frozenset(row[0] for row in rows)


async def watch_query(
    session: Session, sql: str, params: Parameters, throttle: float, distinct: bool
) -> AsyncIterator[list[Row]]:
    """See `Database.watch`."""
    ready = asyncio.Event()
    reads: frozenset[str] = frozenset()
    # Whether rows are owed even if they are those of the last time.
    owed = True
    failure: Exception | None = None

    def note(announcement: Announcement) -> None:
        nonlocal owed, failure
        tables = announcement.tables
        failure = failure or announcement.failure
        if tables is None or tables & reads:
            owed = owed or not distinct
            ready.set()
        elif announcement.ddl:
            # Most schema changes matter to no query: a trigger of holdfast's, a temporary table.
            ready.set()

    with _listening(session, note):
        before: list[Row] | None = None
        while True:
            # In this order: what is committed from here on makes the next wait return.
            reads = (await session.statement(sql)).reads
            ready.clear()
            given, owed = owed, False
            rows = await session.fetch_all(sql, params)
            last = time.monotonic()
            if given or rows != before:
                before = rows
                yield rows
            if failure is None and not await _until(ready, session):
                return
            if failure is not None:
                raise failure
            pause = last + throttle - time.monotonic()
            if pause > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(session.closing.ended.wait(), pause)
            if session.closed:
                return


@contextlib.contextmanager
def _listening(session: Session, note: Callable[[Announcement], None]) -> Generator[None]:
    """Hear of every commit inside the block, which ends when the database is closed."""
    unsubscribe = session.announcements.subscribe(note)
    try:
        yield
    except DatabaseClosedError:
        # It was closed while the consumer was busy, or in the middle of a query.
        if not session.closed:
            raise
    finally:
        unsubscribe()


async def _until(ready: asyncio.Event, session: Session) -> bool:
    """Wait until `ready`, or until the database is closed; then False."""
    if not ready.is_set() and not session.closed:
        # close() wakes every listener with an announcement of nothing.
        await ready.wait()
    return not session.closed
