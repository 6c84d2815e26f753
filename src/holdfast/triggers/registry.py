"""The records of persisted triggers, in ps_kv: what there is to drop when nobody holds it.

One row per trigger, key "holdfast:trigger:<id>", value a JSON object:

    version       1; a record of a later version is left to those who understand it
    id            the id of its hold
    source        as the application calls it
    destination   the table that the records go to
    operations    a list of "INSERT", "UPDATE", "DELETE"
    triggers      the names of its SQLite triggers
    created_at    ISO 8601, UTC

The row is made and removed in the same transaction as what it speaks of.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from ..sqltext import quote_text
from .operations import DiffOperation
from .sql import drop_sql

if TYPE_CHECKING:
    from ..transactions import Transaction

logger = logging.getLogger("holdfast")

VERSION = 1
PREFIX = "holdfast:trigger:"

READ = (
    "SELECT value FROM ps_kv WHERE key >= 'holdfast:trigger:' AND key < 'holdfast:trigger;' "
    "ORDER BY key"
)


class TrackedTrigger(NamedTuple):
    """A persisted trigger of any tab."""

    id: str
    """Its hold's id."""
    source: str
    destination: str
    operations: tuple[DiffOperation, ...]
    held: bool
    """Whether its owner lives."""
    created_at: datetime
    """In UTC."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a trigger: enough to drop it."""

    id: str
    source: str
    destination: str
    operations: tuple[DiffOperation, ...]
    triggers: tuple[str, ...]
    created_at: datetime

    def tracked(self, held: bool) -> TrackedTrigger:
        return TrackedTrigger(
            self.id, self.source, self.destination, self.operations, held, self.created_at
        )


def write_record(tx: Transaction, record: Record) -> None:
    fields = asdict(record) | {"version": VERSION, "created_at": record.created_at.isoformat()}
    tx.run_sql(
        "INSERT INTO ps_kv(key, value) VALUES (?, ?)", (PREFIX + record.id, json.dumps(fields))
    )


def drop(tx: Transaction, record: Record, *, temporary: bool = False) -> None:
    """Remove a trigger: its SQLite triggers, its destination, its record."""
    for statement in drop_sql(record.triggers, record.destination, temporary):
        tx.run_sql(statement)
    if temporary:
        _drop_orphans(tx, record.triggers)
    else:
        tx.run_sql("DELETE FROM ps_kv WHERE key = ?", (PREFIX + record.id,))


def _drop_orphans(tx: Transaction, triggers: Sequence[str]) -> None:
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


def read_records(rows: Iterable[Sequence[Any]]) -> list[Record]:
    """The records among the rows of `READ`; what is none of this version's is left alone."""
    return [record for (text,) in rows if (record := _parse(text)) is not None]


def _parse(text: Any) -> Record | None:
    try:
        fields = json.loads(text)
        if fields["version"] != VERSION:
            return None
        return Record(
            id=fields["id"],
            source=fields["source"],
            destination=fields["destination"],
            operations=tuple(DiffOperation(operation) for operation in fields["operations"]),
            triggers=tuple(fields["triggers"]),
            created_at=datetime.fromisoformat(fields["created_at"]),
        )
    except (KeyError, TypeError, ValueError):
        logger.warning("ps_kv has a trigger's record that cannot be read: %.200r", text)
        return None
