"""Rows, records, schemas and errors as plain values, and back."""

from __future__ import annotations

import builtins
import sys
import traceback
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple

import apsw

from .. import errors
from ..api.operations import DiffOperation
from ..api.records import DiffRecord, TrackedTrigger
from ..schema import Column, Schema, Table
from ..sqlite.rows import ExecuteResult, Row, columns_of, values_of
from ..storage import StorageStatus

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})

# -- results --------------------------------------------------------------------------------------


class PlainRows(NamedTuple):
    """Rows of one query, which the peer sends as a tuple: to convert them may take long."""

    columns: tuple[str, ...]
    values: list[tuple[Any, ...]]


def plain_rows(rows: Sequence[Row]) -> PlainRows:
    return PlainRows(columns_of(rows[0]) if rows else (), list(map(values_of, rows)))


def read_rows(plain: Sequence[Any]) -> list[Row]:
    columns, rows = plain
    return [Row(columns, values) for values in rows]


def plain_row(row: Row | None) -> tuple[tuple[str, ...], tuple[Any, ...]] | None:
    return None if row is None else (columns_of(row), values_of(row))


def read_result(plain: Sequence[int]) -> ExecuteResult:
    return ExecuteResult(*plain)


def plain_status(status: StorageStatus) -> dict[str, Any]:
    return asdict(status)


def read_status(plain: Mapping[str, Any]) -> StorageStatus:
    return StorageStatus(**plain)


def plain_diff(records: Iterable[DiffRecord]) -> list[dict[str, Any]]:
    """The fields of `DiffRecord` by name; the timestamp in ISO 8601."""
    return [
        {
            "operation_id": record.operation_id,
            "operation": str(record.operation),
            "id": record.id,
            "timestamp": record.timestamp.isoformat(),
            "values": record.values,
            "previous": record.previous,
            "transaction_id": record.transaction_id,
            "remote": record.remote,
            "previous_id": record.previous_id,
        }
        for record in records
    ]


def read_diff(plain: Iterable[dict[str, Any]]) -> list[DiffRecord]:
    return [
        DiffRecord(
            **{
                **fields,
                "operation": DiffOperation(fields["operation"]),
                "timestamp": datetime.fromisoformat(fields["timestamp"]),
            }
        )
        for fields in plain
    ]


def plain_tracked(tracked: TrackedTrigger) -> dict[str, Any]:
    """The fields of `TrackedTrigger` by name; the time in ISO 8601."""
    return {
        **tracked._asdict(),
        "operations": [str(operation) for operation in tracked.operations],
        "created_at": tracked.created_at.isoformat(),
    }


def read_tracked(plain: Mapping[str, Any]) -> TrackedTrigger:
    return TrackedTrigger(
        **{
            **plain,
            "operations": tuple(DiffOperation(operation) for operation in plain["operations"]),
            "created_at": datetime.fromisoformat(plain["created_at"]),
        }
    )


def plain_schema(schema: Schema | None) -> list[dict[str, Any]] | None:
    """The tables of a schema, with the arguments of `Table` and of `Column` by name."""
    if schema is None:
        return None
    return [
        {
            "name": table.name,
            "columns": [{"name": column.name, "type": column.type} for column in table.columns],
            "local_only": table.local_only,
            "insert_only": table.insert_only,
            "view_name": table.view_name,
        }
        for table in schema.tables
    ]


def read_schema(plain: Iterable[Mapping[str, Any]] | None) -> Schema | None:
    if plain is None:
        return None
    return Schema(
        [
            Table(**{**table, "columns": [Column(**column) for column in table["columns"]]})
            for table in plain
        ]
    )


# -- errors ---------------------------------------------------------------------------------------


class RemoteError(Exception):
    """An error of a type that is not known on this side."""


class RemoteTraceback(Exception):
    """Where an error of the other side was raised: the innermost `__cause__` of its copy."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


# So many errors that were sent are kept, so that one that comes back is the very same object.
_KEPT = 100
_ORIGIN = "_holdfast_origin"


class Errors:
    """The errors of one connection, in both directions.

    type       its name, and `module` where that is
    message    its text
    args       if they are plain, else the text; `attributes`: those that are plain
    traceback  as Python prints it
    cause      the error that it was raised from
    number     the sender's number for it; `yours`: the receiver's, where it came from there
    """

    def __init__(self) -> None:
        self._sent: OrderedDict[int, BaseException] = OrderedDict()
        self._last = 0

    def plain(self, error: BaseException) -> dict[str, Any]:
        """An error as it is sent."""
        self._last += 1
        number = self._last
        self._sent[number] = error
        if len(self._sent) > _KEPT:
            self._sent.popitem(last=False)
        attributes = {
            name: value
            for name, value in vars(error).items()
            if name != _ORIGIN and _is_plain(value)
        }
        cause = error.__cause__
        return {
            "type": type(error).__qualname__,
            "module": type(error).__module__,
            "message": str(error),
            "args": list(error.args) if _is_plain(error.args) else [str(error)],
            "attributes": attributes,
            "traceback": "".join(traceback.format_exception(error)),
            "cause": (
                None if cause is None or isinstance(cause, RemoteTraceback) else self.plain(cause)
            ),
            "number": number,
            "yours": getattr(error, _ORIGIN, None),
        }

    def read(self, plain: Mapping[str, Any]) -> BaseException:
        """The error itself, if it came from here; else one like it."""
        yours = plain.get("yours")
        if yours is not None and (original := self._sent.get(yours)) is not None:
            return original
        kind = _find_type(plain.get("module") or "builtins", plain["type"])
        error: BaseException
        if kind is None:
            error = RemoteError(f"{plain['type']}: {plain['message']}")
        else:
            args = plain.get("args") or []
            try:
                error = kind(*args)
            except TypeError:  # its own __init__ takes something else
                error = kind.__new__(kind, *args)
            error.args = tuple(args)
        vars(error).update(plain.get("attributes") or {})
        if (number := plain.get("number")) is not None:
            vars(error)[_ORIGIN] = number
        cause = plain.get("cause")
        if cause is not None:
            error.__cause__ = self.read(cause)
        elif plain.get("traceback"):
            error.__cause__ = RemoteTraceback(plain["traceback"])
        return error


def _find_type(module: str, name: str) -> type[BaseException] | None:
    """A type of errors by its name, of what is loaded here."""
    places = {"builtins": builtins, "apsw": apsw, errors.__name__: errors}
    found = getattr(places.get(module) or sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    return value.__class__ in _PLAIN
