"""The demo's Python: films in one SQLite database, shared by every tab of the page.

It runs in each tab's worker and tells the page what happens by events. The rows that a tab shows
are watched. What changes, in whatever tab, is also read as diffs from a trigger that is stored
in the database; a tab that dies leaves its trigger behind, and those that live on remove it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from datetime import datetime
from itertools import groupby
from typing import Any

from pyodide.http import pyfetch

import holdfast

logger = logging.getLogger("demo")

DATABASE = "films.db"

# The names of the constraints are what a person reads who breaks them.
TABLE = """
    CREATE TABLE films (
        id INTEGER PRIMARY KEY,
        title TEXT,
        released TEXT CONSTRAINT "a date looks like 1998-06-12" CHECK (released IS date(released)),
        genre TEXT,
        director TEXT,
        rating REAL CONSTRAINT "a rating is between 0 and 10" CHECK (rating BETWEEN 0 AND 10),
        votes INTEGER CONSTRAINT "votes are 0 or more" CHECK (votes >= 0),
        gross INTEGER CONSTRAINT "a gross is 0 or more" CHECK (gross >= 0)
    ) STRICT
"""
COLUMNS = ("title", "released", "genre", "director", "rating", "votes", "gross")
TABLE_EXISTS = "SELECT 1 FROM sqlite_schema WHERE name = 'films'"

# Of one transaction, this many records go to the page one by one; the rest is counted.
SHOWN = 20


class OwnHolds(holdfast.NavigatorTriggerHoldManager):
    """Web Locks, as by default; remembers which holds were obtained in this tab."""

    def __init__(self) -> None:
        super().__init__()
        self.mine: set[str] = set()

    async def obtain_hold(self, hold_id: str) -> Callable[[], Awaitable[None]]:
        release = await super().obtain_hold(hold_id)
        self.mine.add(hold_id)
        return release


class Demo:
    """What the page can ask for (the public methods), and what it is told (`emit`)."""

    def __init__(self, send: Callable[[str, str], None]) -> None:
        self._send = send
        self._holds = OwnHolds()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the database, fill it if nobody did, and follow what happens in it."""
        try:
            self.emit("step", step="database")
            self.db = await holdfast.open(DATABASE, hold_manager=self._holds)
            self.emit("step", step="films")
            await self._load()
            self._background(self._follow_diffs())
            self._background(self._follow_triggers())
        except Exception as error:
            self._fail(error)
        else:
            self.emit("ready")

    async def _load(self) -> None:
        """Make the table and its rows in one transaction, unless another tab did.

        Of tabs that open at once one writes first; the others wait for its commit, and then find
        the table with all its rows.
        """
        loaded = False
        if not await self.db.fetch_value(TABLE_EXISTS):
            films = await download_films()
            insert = f"INSERT INTO films ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?)"
            async with self.db.write_transaction() as tx:
                if not await tx.fetch_value(TABLE_EXISTS):
                    await tx.execute(TABLE)
                    for done in range(0, len(films), 100):
                        self.emit("progress", done=done, total=len(films))
                        await tx.execute_many(insert, films[done : done + 100])
                    loaded = True
        total = await self.db.fetch_value("SELECT count(*) FROM films")
        self.emit("progress", done=total, total=total, loaded=loaded)

    # -- what the page asks for ------------------------------------------------------------------

    async def show(
        self, view: int, search: str, sort: str, descending: bool, offset: int, limit: int
    ) -> None:
        """Watch this part of the table, and no longer the part before."""
        if self._watching is not None:
            self._watching.cancel()
        where, words = matching(search)
        order = ordering(sort, descending)
        self._watching = self._background(
            self._watch(
                view,
                f"SELECT *, (SELECT count(*) FROM films WHERE {where}) AS total FROM films "
                f"WHERE {where} ORDER BY {order} LIMIT :limit OFFSET :offset",
                {**words, "limit": limit, "offset": offset},
            )
        )

    async def _watch(self, view: int, sql: str, params: dict[str, Any]) -> None:
        async for rows in self.db.watch(sql, params):
            total = rows[0]["total"] if rows else 0
            films = [{name: row[name] for name in ("id", *COLUMNS)} for row in rows]
            self.emit("rows", view=view, offset=params["offset"], total=total, rows=films)

    async def place(self, id: int, search: str, sort: str, descending: bool) -> int | None:
        """Where in the sorted table a film is, from 0; None: it is not among those searched."""
        where, words = matching(search)
        found: int | None = await self.db.fetch_value(
            f"SELECT place FROM (SELECT id, row_number() OVER (ORDER BY "
            f"{ordering(sort, descending)}) - 1 AS place FROM films WHERE {where}) WHERE id = :id",
            {**words, "id": id},
        )
        return found

    async def edit(self, id: int, column: str, value: Any) -> None:
        result = await self.db.execute(
            f"UPDATE films SET {known(column)} = ? WHERE id = ?", (value, id)
        )
        if not result.changes:
            raise LookupError("This film is gone: it was deleted in another tab.")

    async def add(self, film: dict[str, Any]) -> int:
        """Insert a film, and answer its id."""
        columns = [column if column == "id" else known(column) for column in film]
        result = await self.db.execute(
            f"INSERT INTO films ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            list(film.values()),
        )
        return result.last_insert_rowid

    async def remove(self, id: int) -> dict[str, Any] | None:
        """Delete a film, and answer all of it, so that it can be added again."""
        async with self.db.write_transaction() as tx:
            row = await tx.fetch_one("DELETE FROM films WHERE id = ? RETURNING *", (id,))
        return dict(row) if row else None

    # -- what the page is told -------------------------------------------------------------------

    async def _follow_diffs(self) -> None:
        """What is written to the table, in any tab, as a trigger of this tab's own records it."""
        async for batch in self.db.triggers.diffs("films", only_changed=True):
            for _, records in groupby(batch, key=lambda record: record.transaction_id):
                first, *others = records
                self.emit(
                    "diff",
                    remote=first.remote,
                    records=[describe(record) for record in (first, *others[: SHOWN - 1])],
                    more=len(others[SHOWN - 1 :]),
                )
            await self._report_status()

    async def _follow_triggers(self) -> None:
        """The triggers of all tabs. What is known of them are rows too, so it can be watched."""
        async for _ in self.db.watch("SELECT key FROM ps_kv"):
            triggers = await self.db.triggers.tracked()
            self.emit(
                "triggers",
                triggers=[
                    {
                        "id": trigger.id,
                        "source": trigger.source,
                        "destination": trigger.destination,
                        "operations": sorted(trigger.operations),
                        "held": trigger.held,
                        "mine": trigger.id in self._holds.mine,
                        "created": trigger.created_at.isoformat(),
                    }
                    for trigger in sorted(triggers, key=lambda trigger: trigger.created_at)
                ],
            )
            await self._report_status()

    async def _report_status(self) -> None:
        self.emit("status", **asdict(await self.db.status()))

    # -- between the page and this ---------------------------------------------------------------

    def emit(self, event: str, **data: Any) -> None:
        self._send(event, json.dumps(data))

    async def call(self, method: str, arguments: str) -> str:
        """Run a public method for the page; answers its result or its error, as JSON."""
        try:
            result = await getattr(self, method)(**json.loads(arguments))
            return json.dumps({"result": result})
        except Exception as error:
            return json.dumps({"error": {"type": type(error).__name__, "message": str(error)}})

    def _background(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        logger.error("the demo failed", exc_info=error)
        self.emit("failed", type=type(error).__name__, message=str(error))


def known(column: str) -> str:
    if column not in COLUMNS:
        raise ValueError(f"films has no column {column!r}; it has {', '.join(COLUMNS)}")
    return column


def matching(search: str) -> tuple[str, dict[str, str]]:
    """A condition that a film meets if each word of `search` is in it, and its parameters."""
    words = {f"word{i}": word for i, word in enumerate(search.split())}
    text = "lower(concat_ws(' ', title, director, genre, released))"
    found = " AND ".join(f"instr({text}, lower(:{name}))" for name in words)
    return found or "TRUE", words


def ordering(sort: str, descending: bool) -> str:
    """By that column, films without a value last."""
    direction = "DESC" if descending else "ASC"
    return f"{known(sort)} COLLATE NOCASE {direction} NULLS LAST, id"


def describe(record: holdfast.DiffRecord) -> dict[str, Any]:
    """A record for the page: only those columns in which the film before and after differ."""
    before, after = record.previous or {}, record.values or {}
    return {
        "operation": record.operation,
        "id": record.id,
        "title": (after or before)["title"],
        "time": record.timestamp.isoformat(),
        "changes": [
            (column, before.get(column), after.get(column))
            for column in COLUMNS
            if before.get(column) != after.get(column)
        ],
    }


async def download_films() -> list[tuple[Any, ...]]:
    """The films of vega-datasets' movies.json, in the order of COLUMNS."""
    response = await pyfetch("/data/movies.json")
    response.raise_for_status()
    return [
        (
            # Titles that are numbers, like 1776, are numbers there.
            None if film["Title"] is None else str(film["Title"]),
            datetime.strptime(film["Release Date"], "%b %d %Y").date().isoformat(),
            film["Major Genre"],
            film["Director"],
            film["IMDB Rating"],
            film["IMDB Votes"],
            film["Worldwide Gross"],
        )
        for film in await response.json()
    ]
