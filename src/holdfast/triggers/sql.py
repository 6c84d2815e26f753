"""The SQL of a trigger: its destination, the triggers themselves, and how they go.

What is here runs in every program that writes to the source, so it uses nothing but functions
that every SQLite has, and what it inserts cannot violate anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..api.operations import DiffOperation
from ..sqlite.sqltext import quote_name, quote_text
from .source import Source

_CREATE = "CREATE TRIGGER "

# Milliseconds of UTC, as in 2026-11-23T15:24:00.123Z.
_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ','now')"


def destination_sql(destination: str, temporary: bool) -> str:
    """The table that the records of one consumer go to.

    The first six columns are for everybody. Of holdfast's own, previous_id is the key before an
    UPDATE that changed it; the others are a stamp, see records.py.
    """
    return (
        f"CREATE TABLE {_place(temporary)}.{quote_name(destination)}("
        "operation_id INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, operation TEXT, timestamp TEXT, "
        "value TEXT, previous_value TEXT, "
        "previous_id TEXT, transaction_id TEXT, origin TEXT, last_operation_id INTEGER)"
    )


def trigger_sql(
    name: str,
    source: Source,
    operation: DiffOperation,
    *,
    destination: str,
    temporary: bool,
    columns: Sequence[str],
    when: str | None,
    only_changed: bool,
    max_backlog: int | None,
) -> str:
    """One trigger, in the very form in which SQLite keeps it; `placed` is what makes it.

    A table's name inside of it is found beside the trigger: main or temp.
    """
    row = "OLD" if operation is DiffOperation.DELETE else "NEW"
    record = {
        "id": source.key(row),
        "operation": quote_text(operation),
        "timestamp": _NOW,
        "value": source.value(row, columns),
    }
    conditions = [] if when is None else [source.condition(operation, when)]
    if operation is DiffOperation.UPDATE:
        record["previous_value"] = source.value("OLD", columns)
        key, previous_key = source.key("NEW"), source.key("OLD")
        record["previous_id"] = f"CASE WHEN {previous_key} IS NOT {key} THEN {previous_key} END"
        if only_changed:
            # As JSON, so that neither a collation nor 1 = 1.0 hides a difference.
            conditions.append(
                f"({record['value']} IS NOT {record['previous_value']} "
                f"OR {previous_key} IS NOT {key})"
            )
    steps = []
    if max_backlog is not None:
        steps.append(_discard(quote_name(destination), max_backlog))
    steps.append(
        f"INSERT INTO {quote_name(destination)}({', '.join(record)}) "
        f"VALUES ({', '.join(record.values())})"
    )
    # The sources of both live in main; only a temporary trigger has to say so.
    table = f"main.{quote_name(source.table)}" if temporary else quote_name(source.table)
    return (
        f"{_CREATE}{quote_name(name)} AFTER {operation} ON {table} "
        + (f"WHEN {' AND '.join(conditions)} " if conditions else "")
        + f"BEGIN {'; '.join(steps)}; END"
    )


def _discard(destination: str, max_backlog: int) -> str:
    """Empties a destination that is full; the consumer sees the gap in operation_id.

    The two ends tell how many records there are, since they are only ever taken from the front;
    and a bound on the key costs two look-ups where a condition would read every record.
    """
    last = f"(SELECT max(operation_id) FROM {destination})"
    first = f"(SELECT min(operation_id) FROM {destination})"
    return (
        f"DELETE FROM {destination} WHERE operation_id <= "
        f"CASE WHEN {last}-{first} >= {max_backlog - 1} THEN {last} END"
    )


def placed(trigger: str, temporary: bool) -> str:
    """The statement that makes a trigger of `trigger_sql`."""
    return f"{_CREATE}{_place(temporary)}.{trigger[len(_CREATE) :]}"


def drop_trigger_sql(name: str, temporary: bool) -> str:
    return f"DROP TRIGGER IF EXISTS {_place(temporary)}.{quote_name(name)}"


def drop_table_sql(destination: str, temporary: bool) -> str:
    return f"DROP TABLE IF EXISTS {_place(temporary)}.{quote_name(destination)}"


def _place(temporary: bool) -> str:
    return "temp" if temporary else "main"
