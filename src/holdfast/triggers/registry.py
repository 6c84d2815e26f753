"""The records of triggers: what to drop when a trigger is not held, and how to make it anew.

One row per trigger, key "holdfast:trigger:<id>", value a JSON object:

    version       1; a record of a later version is left to those who understand it
    id            the id of its hold
    source        as the application calls it
    destination   the table that the records go to
    operations    a list of "INSERT", "UPDATE", "DELETE"
    triggers      the names of its SQLite triggers
    created_at    ISO 8601, UTC
    when          the condition of each operation; null: always
    columns       those that were asked for; null: all that there are
    only_changed  whether updates that change none of them are left out
    max_backlog   how many records are kept; null: all
    recorded      the columns that are recorded now
    key           the columns of the source's key, as far as they are the application's
    ended         null, or [the name of an error, its message]: why nothing is recorded any more

The row is made and removed in the same transaction as what it speaks of. Those of persisted
triggers are in main.ps_kv, for every connection; those of temporary ones in temp.ps_triggers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from .. import errors
from ..api.operations import DiffOperation
from ..api.records import TrackedTrigger
from ..session.transactions import RunsSql
from ..sqlite.sqltext import quote_text
from .sql import drop_table_sql, drop_trigger_sql

logger = logging.getLogger("holdfast")

VERSION = 1
PREFIX = "holdfast:trigger:"

# The value is the schema_version at which every persisted trigger was found to be sound.
SOUND_AT = "holdfast:sound_at"

READ = (
    "SELECT value FROM ps_kv WHERE key >= 'holdfast:trigger:' AND key < 'holdfast:trigger;' "
    "ORDER BY key"
)
READ_TEMPORARY = "SELECT value FROM temp.ps_triggers ORDER BY key"

_MAKE_TEMPORARY = (
    "CREATE TABLE IF NOT EXISTS temp.ps_triggers(key TEXT PRIMARY KEY NOT NULL, value TEXT)"
)


class Record(NamedTuple):
    """What is known of a trigger: enough to drop it, and to make it anew."""

    id: str
    source: str
    destination: str
    operations: tuple[DiffOperation, ...]
    triggers: tuple[str, ...]
    created_at: datetime
    when: dict[DiffOperation, str | None]
    columns: tuple[str, ...] | None
    only_changed: bool
    max_backlog: int | None
    recorded: tuple[str, ...]
    key: tuple[str, ...]
    ended: tuple[str, str] | None = None

    def tracked(self, held: bool) -> TrackedTrigger:
        return TrackedTrigger(
            self.id, self.source, self.destination, self.operations, held, self.created_at
        )

    def error(self) -> errors.HoldfastError | None:
        """Why nothing is recorded any more; None: it is."""
        if self.ended is None:
            return None
        kind, message = self.ended
        if kind == errors.InvalidWhenError.__name__:
            return errors.InvalidWhenError(message)
        return errors.SourceDroppedError(message)


def write_record(tx: RunsSql, record: Record, *, temporary: bool = False) -> None:
    """Write it, in place of what it was."""
    if temporary:
        tx.run_sql(_MAKE_TEMPORARY)
    tx.run_sql(
        f"INSERT INTO {_table(temporary)}(key, value) VALUES (?, ?) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (PREFIX + record.id, json.dumps(plain_record(record) | {"version": VERSION})),
    )


def read_record(tx: RunsSql, record: Record, *, temporary: bool = False) -> Record | None:
    """That record as the transaction sees it; None: it was removed."""
    return next(iter(read_records(tx.run_sql(*find_record(record, temporary=temporary)))), None)


def find_record(record: Record, *, temporary: bool = False) -> tuple[str, tuple[str]]:
    """A query for that record, and its parameters."""
    return f"SELECT value FROM {_table(temporary)} WHERE key = ?", (PREFIX + record.id,)


def drop(tx: RunsSql, record: Record, *, temporary: bool = False) -> None:
    """Remove a trigger: its SQLite triggers, its destination, its record."""
    if not temporary and not tx.run_sql(*find_record(record)):
        # It is gone, and a table with the name of its destination is another trigger's.
        return
    drop_triggers(tx, record, temporary=temporary)
    tx.run_sql(drop_table_sql(record.destination, temporary))
    if not temporary or _has_temporary_records(tx):
        tx.run_sql(f"DELETE FROM {_table(temporary)} WHERE key = ?", (PREFIX + record.id,))


def drop_triggers(tx: RunsSql, record: Record, *, temporary: bool = False) -> None:
    """Remove its SQLite triggers, as far as they are there."""
    for name in record.triggers:
        tx.run_sql(drop_trigger_sql(name, temporary))
    if temporary:
        _drop_orphans(tx, record.triggers)


def _drop_orphans(tx: RunsSql, triggers: Sequence[str]) -> None:
    """Temporary triggers whose table another connection dropped.

    SQLite keeps their text, hides it from DROP TRIGGER, and would revive them with the next table
    of that name. The temporary schema is this connection's alone, so its text may be removed.
    """
    names = ", ".join(quote_text(name) for name in triggers)
    found = f"temp.sqlite_master WHERE type = 'trigger' AND name IN ({names})"
    if tx.run_sql(f"SELECT 1 FROM {found}"):
        tx.run_sql(
            f"PRAGMA writable_schema = ON; DELETE FROM {found}; PRAGMA writable_schema = OFF"
        )


def read_all(tx: RunsSql, *, temporary: bool) -> list[Record]:
    """The records of every persisted trigger, or of this connection's temporary ones."""
    if temporary:
        return read_records(tx.run_sql(READ_TEMPORARY)) if _has_temporary_records(tx) else []
    there = tx.run_sql("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = 'ps_kv'")
    return read_records(tx.run_sql(READ)) if there else []


def _has_temporary_records(tx: RunsSql) -> bool:
    return bool(tx.run_sql("SELECT 1 FROM temp.sqlite_master WHERE name = 'ps_triggers'"))


def read_records(rows: Iterable[Sequence[Any]]) -> list[Record]:
    """The records among the rows of `READ`; what is none of this version's is left alone."""
    return [record for (text,) in rows if (record := _parse(text)) is not None]


def plain_record(record: Record) -> dict[str, Any]:
    """What can be written as JSON, or sent through a port."""
    fields = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in record._asdict().items()
    }
    return fields | {
        "created_at": record.created_at.isoformat(),
        "operations": [str(operation) for operation in record.operations],
        "when": {str(operation): text for operation, text in record.when.items()},
    }


def parse_record(fields: dict[str, Any]) -> Record:
    """KeyError, TypeError, ValueError: that is no record."""
    columns, ended = fields["columns"], fields["ended"]
    return Record(
        **fields
        | {
            "operations": tuple(DiffOperation(operation) for operation in fields["operations"]),
            "triggers": tuple(fields["triggers"]),
            "created_at": datetime.fromisoformat(fields["created_at"]),
            "when": {DiffOperation(name): text for name, text in fields["when"].items()},
            "columns": None if columns is None else tuple(columns),
            "recorded": tuple(fields["recorded"]),
            "key": tuple(fields["key"]),
            "ended": None if ended is None else (ended[0], ended[1]),
        }
    )


def _parse(text: Any) -> Record | None:
    try:
        fields = json.loads(text)
        return parse_record(fields) if fields.pop("version") == VERSION else None
    except (KeyError, TypeError, ValueError):
        logger.warning("ps_kv has a trigger's record that cannot be read: %.200r", text)
        return None


def _table(temporary: bool) -> str:
    return "temp.ps_triggers" if temporary else "main.ps_kv"
