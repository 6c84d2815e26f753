"""What a tracker's handler works with."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..api.handlers import DiffContext
from ..sqlite.rows import Parameters, Row
from ..sqlite.sqltext import fold, quote_name, quote_text

if TYPE_CHECKING:
    from ..session.transactions import LocalTransaction

_SPACE = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)"
_WITH = re.compile(rf"{_SPACE}*WITH\b(?:{_SPACE}+RECURSIVE\b)?", re.IGNORECASE | re.DOTALL)


class LocalContext(DiffContext):
    """The records are in a table of this connection's."""

    def __init__(
        self,
        transaction: LocalTransaction,
        destination: str,
        table: str,
        columns: Sequence[str],
        after: int,
        last: int | None,
        reset: bool,
    ) -> None:
        super().__init__(transaction, destination, reset)
        self._columns = columns
        # Records that the handler itself causes come after these, and in the next call.
        new = f"operation_id > {after} AND operation_id <= {last or 0}"
        self._from = f"FROM {table} WHERE {new} ORDER BY operation_id"

    async def with_diff(self, sql: str, params: Parameters = ()) -> list[Row]:
        return await self._run(
            f"SELECT operation_id, id, operation, timestamp, value, previous_value {self._from}",
            sql,
            params,
        )

    async def with_extracted_diff(self, sql: str, params: Parameters = ()) -> list[Row]:
        shown = {
            "id": "id",
            "__operation": "operation",
            "__operation_id": "operation_id",
            "__timestamp": "timestamp",
            "__previous_value": "previous_value",
        }
        columns = {"id": shown.pop("id")}
        for name in self._columns:
            if fold(name) == "id":
                del columns["id"]
            if fold(name) not in shown:
                columns[name] = _extract(name)
        listed = ", ".join(
            f"{value} AS {quote_name(name)}" for name, value in (columns | shown).items()
        )
        return await self._run(f"SELECT {listed} {self._from}", sql, params)

    async def _run(self, diff: str, sql: str, params: Parameters) -> list[Row]:
        if not isinstance(sql, str):
            raise TypeError(f"sql must be a str, not {type(sql).__name__}")
        if (own := _WITH.match(sql)) is not None:
            query = f"{own[0]} DIFF AS ({diff}),{sql[own.end() :]}"
        else:
            query = f"WITH DIFF AS ({diff}) {sql}"
        return await self.transaction.fetch_all(query, params)


def _extract(column: str) -> str:
    """A column out of `value`, with the type that it had: an object there is a BLOB in hex."""
    path = "$." + json.dumps(column, ensure_ascii=False)
    value = f"json_extract(value,{quote_text(path)})"
    blob = f"unhex(json_extract(value,{quote_text(path + '.blob')}))"
    return f"CASE json_type(value,{quote_text(path)}) WHEN 'object' THEN {blob} ELSE {value} END"
