"""Making a trigger, inside a transaction: everything that can be wrong is found out here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import apsw

from ..errors import DestinationInUseError
from .operations import DiffOperation, invalid_when, without_quoted
from .options import Options
from .registry import Record, write_record
from .source import Source, resolve
from .sql import destination_sql, trigger_sql

if TYPE_CHECKING:
    from ..transactions import Transaction


async def find_source(tx: Transaction, options: Options, internal: Iterable[str]) -> Source:
    """The source, after `before_create`, which may be what makes it."""
    if options.before_create is not None:
        result = options.before_create(tx)
        if inspect.isawaitable(result):
            await result
    return resolve(tx, options.source, internal)


def make_trigger(tx: Transaction, record: Record, source: Source, options: Options) -> None:
    """Destination, triggers and, of a persisted one, its record.

    DestinationInUseError, InvalidWhenError, ValueError; the caller undoes what was done.
    """
    temporary = not options.persist
    columns = source.choose(options.columns)
    _check_free(tx, record.destination)
    if options.persist:
        _check_functions(tx, options)
    broken = {operation for operation in record.operations if _compile(tx, source, operation)}
    tx.run_sql(destination_sql(record.destination, temporary))
    for name, operation in zip(record.triggers, record.operations, strict=True):
        when = options.when[operation]
        sql = trigger_sql(
            name,
            source,
            operation,
            destination=record.destination,
            temporary=temporary,
            columns=columns,
            when=when,
            only_changed=options.only_changed,
            max_backlog=options.max_backlog,
        )
        if when is None:
            tx.run_sql(sql)
            continue
        try:
            tx.run_sql(sql)
            tx.run_sql(source.trial(operation, when))
        except apsw.Error as error:
            raise invalid_when(operation, when, error) from error
        # Where somebody else's trigger breaks the write already, nothing can be said of ours.
        if operation not in broken and (why := _compile(tx, source, operation)) is not None:
            raise invalid_when(operation, when, why) from why
    if options.persist:
        write_record(tx, record)


def _check_free(tx: Transaction, destination: str) -> None:
    taken = tx.run_sql(
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


def _compile(tx: Transaction, source: Source, operation: DiffOperation) -> apsw.Error | None:
    """Why a write of the source cannot be compiled, its triggers included."""
    try:
        # Not from the cache: a kept EXPLAIN does not notice that there are other triggers now.
        tx.connection.execute(f"EXPLAIN {source.write(operation)}", can_cache=False).fetchall()
    except apsw.Error as error:
        return error
    return None


def _check_functions(tx: Transaction, options: Options) -> None:
    """InvalidWhenError: a persisted trigger would need what only this connection has."""
    own = {
        name for (name,) in tx.run_sql("SELECT name FROM pragma_function_list WHERE NOT builtin")
    }
    for operation, when in options.when.items():
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
