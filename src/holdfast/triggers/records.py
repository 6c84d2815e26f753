"""Records as Python values: which transaction wrote one, and what a batch of them comes to.

The triggers know nothing of transactions, so each commit of a holdfast connection stamps the first
record that it put into a destination: transaction_id, origin (which connection), and
last_operation_id. Records of one transaction are contiguous, because writers are serialised: a
record belongs to the stamp before it as far as that reaches. What no stamp reaches was written by
another program.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..api.operations import DiffOperation
from ..api.records import DiffRecord, Values

COLUMNS = (
    "operation_id, operation, id, timestamp, value, previous_value, "
    "previous_id, transaction_id, origin, last_operation_id"
)


def read_diff(rows: Iterable[Sequence[Any]], origin: str) -> list[DiffRecord]:
    """The records of a destination, rows of `COLUMNS` in order, as seen by connection `origin`."""
    stamp: tuple[str, str] | None = None
    reach = 0
    found = []
    for row in rows:
        number, operation, key, timestamp, value, previous, old_key, *stamped = row
        if stamped[2] is not None:
            stamp, reach = (stamped[0], stamped[1]), stamped[2]
        writer = stamp if number <= reach else None
        operation = DiffOperation(operation)
        # The old values of a DELETE stand in `value`.
        if operation is DiffOperation.DELETE:
            value, previous = None, value
        found.append(
            DiffRecord(
                operation_id=number,
                operation=operation,
                id=key,
                timestamp=datetime.fromisoformat(timestamp),
                values=_parse(value),
                previous=_parse(previous),
                transaction_id=writer[0] if writer else None,
                remote=writer is None or writer[1] != origin,
                previous_id=old_key,
            )
        )
    return found


def _parse(text: str | None) -> Values | None:
    if text is None:
        return None
    values: Values = json.loads(text)
    for name, value in values.items():
        if isinstance(value, dict):
            values[name] = bytes.fromhex(value["blob"])
    return values


def fold_diff(records: Iterable[DiffRecord], primary_key: Sequence[str] = ()) -> list[DiffRecord]:
    """At most one record per key, with the same effect: what a batch comes to.

    primary_key: the columns of the key, if it has any.
    DELETE and INSERT become an UPDATE, INSERT and DELETE nothing, an UPDATE joins what is before
    it. A record takes the place, number, time and writer of its last part. One whose key changed
    is a DELETE of the old key and an INSERT of the new. Rows whose key is or has a NULL can be
    many with one key, so they are left as they are.
    """
    folded: dict[Any, DiffRecord] = {}
    for record in records:
        for part in _split(record, primary_key):
            key = _key(part.id, part.values or part.previous, primary_key)
            if key is None:
                key = part.operation_id, part.operation
            before = folded.pop(key, None)
            after = part if before is None else _join(before, part)
            if after is not None:
                folded[key] = after
    return sorted(folded.values(), key=lambda record: record.operation_id)


def _split(record: DiffRecord, primary_key: Sequence[str]) -> tuple[DiffRecord, ...]:
    old_id = record.id if record.previous_id is None else record.previous_id
    if record.operation is not DiffOperation.UPDATE or _key(
        old_id, record.previous, primary_key
    ) == _key(record.id, record.values, primary_key):
        return (record,)
    return (
        replace(record, operation=DiffOperation.DELETE, id=old_id, values=None, previous_id=None),
        replace(record, operation=DiffOperation.INSERT, previous=None, previous_id=None),
    )


def _key(row_id: str | None, values: Values | None, primary_key: Sequence[str]) -> Any:
    """What tells a row from others; None: nothing does."""
    if primary_key and values is not None and all(name in values for name in primary_key):
        # As text, the number 1 and '1' would be one.
        key = [values[name] for name in primary_key]
        return None if None in key else tuple((isinstance(one, str), one) for one in key)
    if row_id is None or (len(primary_key) > 1 and None in json.loads(row_id)):
        return None
    return row_id


def _join(before: DiffRecord, after: DiffRecord) -> DiffRecord | None:
    existed = before.operation is not DiffOperation.INSERT
    exists = after.operation is not DiffOperation.DELETE
    if not existed and not exists:
        return None
    if existed and exists:
        operation = DiffOperation.UPDATE
    else:
        operation = DiffOperation.INSERT if exists else DiffOperation.DELETE
    return replace(after, operation=operation, previous=before.previous)
