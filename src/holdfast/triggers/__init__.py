"""Managed diff triggers: what changes in a table, for every tab that wants to know.

Each consumer has a table of its own, the destination, which SQLite triggers fill. A persisted one
fires for the writes of every tab and of other programs, and is held (see `holds`): when its tab is
gone, the others sweep it.

    source.py     what a trigger can sit on        sql.py       the SQL of it
    options.py    what was asked for               setup.py     made, inside a transaction
    registry.py   what is known of each of them    manager.py   make, find, sweep, dispose
    mending.py    schema changes beside them       destinations.py   which tables they fill
    inbox.py      a destination's one consumer     tracker.py   which calls a handler
    records.py    records as Python values         context.py   what a handler gets
"""

from .context import DiffContext
from .manager import TriggerManager
from .operations import DiffOperation
from .records import DiffRecord
from .registry import TrackedTrigger
from .tracker import DiffTracker
from .trigger import DiffTrigger

__all__ = [
    "DiffContext",
    "DiffOperation",
    "DiffRecord",
    "DiffTracker",
    "DiffTrigger",
    "TrackedTrigger",
    "TriggerManager",
]
