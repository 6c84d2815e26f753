"""What triggers give to an application."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from ..sqlite.rows import SQLiteValue
from .operations import DiffOperation

Values = dict[str, SQLiteValue]


@dataclass(frozen=True, slots=True)
class DiffRecord:
    """One change of one row.

    values: the columns after it, of a DELETE None; previous: before it, of an INSERT None. Values
    are as they were stored, bit for bit, but for -0.0, which is recorded as 0.0. Where a text is no
    UTF-8, its other bytes are lone surrogates, as `bytes.decode(errors="surrogateescape")` has it.
    """

    operation_id: int
    operation: DiffOperation
    id: str | None
    """The single primary key as text, else a JSON array of the key's columns, else the rowid."""
    timestamp: datetime
    """In UTC, to the millisecond."""
    values: Values | None
    previous: Values | None
    transaction_id: str | None
    """Equal for records of one transaction; None: another program wrote it."""
    remote: bool
    """Whether another connection wrote it."""
    previous_id: str | None = None
    """The id before an UPDATE that changed it, else None."""

    @property
    def changed(self) -> tuple[str, ...]:
        """The recorded columns that differ, in type or value; of an INSERT or a DELETE all."""
        values, previous = self.values, self.previous
        if values is None or previous is None:
            return tuple(values or previous or ())
        return tuple(name for name, value in values.items() if not _same(value, previous.get(name)))


def _same(one: SQLiteValue, other: SQLiteValue) -> bool:
    # What Python takes for equal, as 1 and 1.0, SQLite stores as two things.
    return one.__class__ is other.__class__ and one == other


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
