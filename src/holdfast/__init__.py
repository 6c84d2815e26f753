"""Holdfast: one SQLite database for every tab of a page, and triggers that see them all.

`db = await holdfast.open("notes.db")`: see `open`, `Database` and, for what tabs write to each
other's tables, `Database.triggers`.
"""

from typing import TYPE_CHECKING, Any

from .api import (
    Database,
    DiffContext,
    DiffOperation,
    DiffRecord,
    DiffTracker,
    DiffTrigger,
    TableChange,
    TrackedTrigger,
    Transaction,
    TriggerManager,
)
from .errors import (
    BacklogExceededError,
    DatabaseBusyError,
    DatabaseClosedError,
    DestinationInUseError,
    HoldAlreadyTakenError,
    HoldfastError,
    InvalidWhenError,
    NestedTransactionError,
    NotADatabaseError,
    QuotaExceededError,
    SourceDroppedError,
    StorageUnavailableError,
    UnknownSourceError,
)
from .files import databases, delete_database, import_database, persist
from .holds import MemoryTriggerHoldManager, NavigatorTriggerHoldManager, TriggerHoldManager
from .opening import open
from .schema import Column, Schema, Table
from .sqlite.rows import ExecuteResult, Row
from .storage import StorageStatus
from .version import __version__

if TYPE_CHECKING:
    from .holds import FileTriggerHoldManager

__all__ = [
    "BacklogExceededError",
    "Column",
    "Database",
    "DatabaseBusyError",
    "DatabaseClosedError",
    "DestinationInUseError",
    "DiffContext",
    "DiffOperation",
    "DiffRecord",
    "DiffTracker",
    "DiffTrigger",
    "ExecuteResult",
    "FileTriggerHoldManager",
    "HoldAlreadyTakenError",
    "HoldfastError",
    "InvalidWhenError",
    "MemoryTriggerHoldManager",
    "NavigatorTriggerHoldManager",
    "NestedTransactionError",
    "NotADatabaseError",
    "QuotaExceededError",
    "Row",
    "Schema",
    "SourceDroppedError",
    "StorageStatus",
    "StorageUnavailableError",
    "Table",
    "TableChange",
    "TrackedTrigger",
    "Transaction",
    "TriggerHoldManager",
    "TriggerManager",
    "UnknownSourceError",
    "__version__",
    "databases",
    "delete_database",
    "import_database",
    "open",
    "persist",
]


def __getattr__(name: str) -> Any:
    if name == "FileTriggerHoldManager":
        # A browser has no use for it, and would take long to import what it needs.
        from .holds import FileTriggerHoldManager

        return FileTriggerHoldManager
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
