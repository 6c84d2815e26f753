"""The schema: JSON-backed views, and the tables that holdfast keeps for itself.

    table                         what it holds
    ---------------------------   -----------------------------------------------------------
    ps_data__<name>               the rows of the table <name>: id TEXT PRIMARY KEY, data TEXT
    ps_data_local__<name>         the same, of a local_only table
    ps_crud                       id, tx_id, data: one row per write, to be sent to a server
    ps_tx                         one row: the tx_id that the writes of this transaction get
    ps_kv                         key, value: what holdfast must remember (see triggers/registry)

The rows of a table live as JSON in its base table; a view shows them with typed columns, and
INSTEAD OF triggers of the view write through it. Names and formats follow PowerSync's client
schema.
"""

from .internal import check_internal, next_tx_id
from .schema import Schema, stored_tables
from .tables import MAX_COLUMNS, Column, Table

__all__ = [
    "MAX_COLUMNS",
    "Column",
    "Schema",
    "Table",
    "check_internal",
    "next_tx_id",
    "stored_tables",
]
