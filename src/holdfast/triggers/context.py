"""What a tracker's handler works with."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..sqlite.rows import Parameters, Row
from ..sqlite.sqltext import fold, quote_name, quote_text

if TYPE_CHECKING:
    from ..session.transactions import Transaction

_SPACE = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)"
_WITH = re.compile(rf"{_SPACE}*WITH\b(?:{_SPACE}+RECURSIVE\b)?", re.IGNORECASE | re.DOTALL)


class DiffContext:
    """The records of one call of a handler, inside its write transaction.

    transaction: the transaction that the handler runs in. What the handler writes is committed
        together with the removal of the records.
    destination: the name of the table that the records are in.
    reset: records were discarded before this call (`max_backlog`): read the source anew.
    """

    def __init__(
        self,
        transaction: Transaction,
        destination: str,
        table: str,
        columns: Sequence[str],
        last: int | None,
        reset: bool,
    ) -> None:
        self.transaction = transaction
        self.destination = destination
        self.reset = reset
        self._columns = columns
        # Records that the handler itself causes come after these, and in the next call.
        self._from = f"FROM {table} WHERE operation_id <= {last or 0} ORDER BY operation_id"

    async def with_diff(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Run a query (or a write) in which `DIFF` names the records, in order.

        DIFF has operation_id, id, operation, timestamp, value and previous_value, as the
        destination has them. The SQL may itself begin with WITH.
        """
        return await self._run(
            f"SELECT operation_id, id, operation, timestamp, value, previous_value {self._from}",
            sql,
            params,
        )

    async def with_extracted_diff(self, sql: str, params: Parameters = ()) -> list[Row]:
        """As `with_diff`, with the recorded columns in place of the JSON.

        DIFF has `id`, the columns by name with their stored types (of a DELETE the old values),
        and `__operation`, `__operation_id`, `__timestamp`, `__previous_value`. Where a recorded
        column is itself named id, `id` is that column.
        """
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
