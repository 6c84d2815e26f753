"""Managed diff triggers: what changes in a table, for every tab that wants to know.

Each consumer has a table of its own, the destination, which SQLite triggers fill. A persisted one
fires for the writes of every tab and of other programs, and is held (see `holds`): when its tab is
gone, the others sweep it.

    source.py     what a trigger can sit on        sql.py       the SQL of it
    registry.py   what is known of each of them    setup.py     made, inside a transaction
    mending.py    schema changes beside them       manager.py   make, find, sweep, dispose
    inbox.py      a destination's one consumer     destinations.py   which tables they fill
    records.py    records as Python values         tracker.py   which calls a handler
    stream.py     records as an async iterator     context.py   what a handler gets
"""

from .manager import LocalTriggerManager

__all__ = ["LocalTriggerManager"]
