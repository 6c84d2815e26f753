"""Taking holdfast's own tables and triggers out of a private copy of a database."""

from __future__ import annotations

import apsw

from .registry import PREFIX, READ, SOUND_AT, read_records
from .sql import drop_table_sql, drop_trigger_sql


def strip(raw: apsw.Connection) -> None:
    """Drop managed triggers, their destinations and records, and tables that opening makes anew.

    JSON-backed views stay, with all that makes them work: the queue of writes (ps_crud) and the
    number of its transaction (ps_tx). Without views and with nothing queued, those go too.
    """
    with raw:
        if _has_columns(raw, "ps_kv", {"key", "value"}):
            for record in read_records(raw.execute(READ)):
                for name in record.triggers:
                    raw.execute(drop_trigger_sql(name, temporary=False))
                raw.execute(drop_table_sql(record.destination, temporary=False))
                raw.execute("DELETE FROM ps_kv WHERE key = ?", (PREFIX + record.id,))
            raw.execute("DELETE FROM ps_kv WHERE key = ?", (SOUND_AT,))
            if not _has_rows(raw, "ps_kv"):
                raw.execute("DROP TABLE ps_kv")
        if (
            _has_columns(raw, "ps_tx", {"id", "tx_id"})
            and _has_columns(raw, "ps_crud", {"id", "tx_id", "data"})
            and not _has_rows(raw, "ps_crud")
            and not raw.execute(
                "SELECT 1 FROM sqlite_master WHERE type IN ('view', 'trigger') "
                "AND (sql LIKE '%ps!_crud%' ESCAPE '!' OR sql LIKE '%ps!_tx%' ESCAPE '!')"
            ).get
        ):
            raw.execute("DROP TABLE ps_tx")
            raw.execute("DROP TABLE ps_crud")


def _has_columns(raw: apsw.Connection, table: str, names: set[str]) -> bool:
    return {name for (name,) in raw.execute(f"SELECT name FROM pragma_table_info('{table}')")} == (
        names
    )


def _has_rows(raw: apsw.Connection, table: str) -> bool:
    return bool(raw.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").get)
