"""What an application calls: abstract classes with the signatures, docstrings and argument checks.

Two sets of classes fill them in: `local` and `triggers` for a database of this interpreter, and
`remote` for one that lives in another interpreter, such as a page's worker.

    database.py   Database               transactions.py   Transaction
    triggers.py   TriggerManager, DiffTrigger, DiffTracker
    handlers.py   DiffContext, and how an application's handlers are called
    nesting.py    which transactions a task is inside of, and what close() waits for
    options.py    the checks of a trigger's options         operations.py   `when`
    records.py    what triggers give: DiffRecord, TrackedTrigger
"""

from .database import Database, TableChange
from .handlers import DiffContext
from .operations import DiffOperation
from .records import DiffRecord, TrackedTrigger
from .transactions import Transaction
from .triggers import DiffTracker, DiffTrigger, TriggerManager

__all__ = [
    "Database",
    "DiffContext",
    "DiffOperation",
    "DiffRecord",
    "DiffTracker",
    "DiffTrigger",
    "TableChange",
    "TrackedTrigger",
    "Transaction",
    "TriggerManager",
]
