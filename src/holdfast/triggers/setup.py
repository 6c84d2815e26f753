"""Making a trigger, inside a transaction: everything that can be wrong is found out here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import apsw

from ..api.operations import DiffOperation, invalid_when, without_quoted
from ..api.options import Options
from ..errors import DestinationInUseError
from .registry import Record, write_record
from .source import Source, resolve
from .sql import destination_sql, placed, trigger_sql

if TYPE_CHECKING:
    from ..session.transactions import LocalTransaction
    from ..sqlite.connection import Connection


async def find_source(tx: LocalTransaction, options: Options, internal: Iterable[str]) -> Source:
    """The source, after `before_create`, which may be what makes it."""
    if options.before_create is not None:
        result = options.before_create(tx)
        if inspect.isawaitable(result):
            await result
    return resolve(tx, options.source, internal)


def make_trigger(engine: Connection, record: Record, source: Source, *, temporary: bool) -> Record:
    """Destination, triggers and record, which is given back as it was written.

    DestinationInUseError, InvalidWhenError, ValueError; the caller undoes what was done.
    """
    source.choose(record.columns)
    _check_free(engine, record.destination)
    if not temporary:
        _check_functions(engine, record)
    engine.run(destination_sql(record.destination, temporary))
    record = mount(engine, record, source, temporary=temporary)
    write_record(engine, record, temporary=temporary)
    return record


def mount(engine: Connection, record: Record, source: Source, *, temporary: bool) -> Record:
    """Make the SQLite triggers of a record on what its source is now; the record with that in it.

    ValueError: a column is gone; InvalidWhenError; the caller undoes what was done.
    """
    texts = trigger_texts(record, source, temporary=temporary)
    broken = {operation for operation in record.operations if compiled(engine, source, operation)}
    for operation, text in zip(record.operations, texts, strict=True):
        when = record.when[operation]
        if when is None:
            engine.run(placed(text, temporary))
        else:
            try:
                engine.run(placed(text, temporary))
                engine.run(source.trial(operation, when))
            except apsw.Error as error:
                raise invalid_when(operation, when, error) from error
        # If another trigger breaks the write already, ours cannot be judged.
        if operation not in broken and (why := compiled(engine, source, operation)) is not None:
            raise why if when is None else invalid_when(operation, when, why) from why
    return record._replace(recorded=source.choose(record.columns), key=source.primary_key)


def trigger_texts(record: Record, source: Source, *, temporary: bool) -> list[str]:
    """The SQLite triggers of a record as the database has them. ValueError: a column is gone."""
    columns = source.choose(record.columns)
    return [
        trigger_sql(
            name,
            source,
            operation,
            destination=record.destination,
            temporary=temporary,
            columns=columns,
            when=record.when[operation],
            only_changed=record.only_changed,
            max_backlog=record.max_backlog,
        )
        for name, operation in zip(record.triggers, record.operations, strict=True)
    ]


def _check_free(engine: Connection, destination: str) -> None:
    taken = engine.run(
        "SELECT type, name FROM main.sqlite_master WHERE type <> 'trigger' "
        "AND name = :name COLLATE NOCASE UNION ALL "
        "SELECT type, name FROM temp.sqlite_master WHERE type <> 'trigger' "
        "AND name = :name COLLATE NOCASE",
        {"name": destination},
    )
    if taken:
        kind, name = taken[0]
        raise DestinationInUseError(
            f"the destination {destination!r} is there already, as the {kind} {name!r}, and was "
            "left alone; each trigger needs one of its own: choose another name, or dispose of "
            "the trigger that it belongs to"
        )


def compiled(engine: Connection, source: Source, operation: DiffOperation) -> apsw.Error | None:
    """Why a write of the source cannot be compiled, its triggers included."""
    try:
        # Not from the cache: a kept EXPLAIN does not notice that there are other triggers now.
        engine.raw.execute(f"EXPLAIN {source.write(operation)}", can_cache=False).fetchall()
    except apsw.Error as error:
        return error
    return None


def _check_functions(engine: Connection, record: Record) -> None:
    """InvalidWhenError: a persisted trigger would need what only this connection has."""
    own = {
        name for (name,) in engine.run("SELECT name FROM pragma_function_list WHERE NOT builtin")
    }
    for operation, when in record.when.items():
        if when is None:
            continue
        plain = without_quoted(when).lower()
        called = set(re.findall(r"([^\W\d]\w*)\s*\(", plain))
        # Operators that are functions in disguise.
        called |= set(re.findall(r"(?<![.\w])(?:regexp|match)\b", plain))
        if found := sorted(called & own):
            raise invalid_when(
                operation,
                when,
                f"{found[0]}() is a function of this connection, and a persisted trigger runs in "
                "others too; do without it, or use persist=False",
            )
