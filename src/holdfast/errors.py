"""The errors that Holdfast raises of its own. SQL errors stay apsw's.

A wrong type is a `TypeError` and a wrong value a `ValueError`; everything here is about the state
of the database, its tabs and its triggers.
"""


class HoldfastError(Exception):
    """Base of every error in this module."""


class StorageUnavailableError(HoldfastError):
    """No durable storage can be had here; the message says what was tried and why it failed."""


class DatabaseClosedError(HoldfastError):
    """The database, or the transaction, is closed."""


class DatabaseBusyError(HoldfastError):
    """Another tab or process kept the database for longer than the bound."""


class NestedTransactionError(HoldfastError):
    """A call that would wait for the transaction that it is made in."""


class QuotaExceededError(HoldfastError):
    """The browser, or the disk, gives no more space; the transaction was rolled back."""


class UnknownSourceError(HoldfastError):
    """The source of a trigger is no table or view of the database, or can never fire."""


class InvalidWhenError(HoldfastError):
    """A `when` expression fails on a row of its source."""


class DestinationInUseError(HoldfastError):
    """The destination of a trigger exists already; it was left alone."""


class SourceDroppedError(HoldfastError):
    """The source of a tracker was dropped; the tracker has ended."""


class BacklogExceededError(HoldfastError):
    """Records were discarded because they passed `max_backlog`; the consumer must read anew."""


class HoldAlreadyTakenError(HoldfastError):
    """A living tab or process has this hold already."""


class NotADatabaseError(HoldfastError):
    """The bytes are not a sound SQLite database."""
