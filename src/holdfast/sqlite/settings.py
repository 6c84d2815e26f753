"""The state of a connection that is in no file: its settings, functions and collations.

A database has a main connection, and readers beside it. Whichever of them answers must not matter,
so what is set on one is set on the others before they are used next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

# Pragmas that set something of the connection alone; the others are of the file, of the process, or
# holdfast's (see statements.py).
COPIED_PRAGMAS = frozenset(
    {
        "analysis_limit",
        "automatic_index",
        "cache_size",
        "cache_spill",
        "case_sensitive_like",
        "cell_size_check",
        "count_changes",
        "foreign_keys",
        "full_column_names",
        "fullfsync",
        "ignore_check_constraints",
        "legacy_alter_table",
        "read_uncommitted",
        "reverse_unordered_selects",
        "secure_delete",
        "short_column_names",
        "synchronous",
        "threads",
        "trusted_schema",
    }
)

# SQLite does not set these inside a transaction.
_IGNORED_INSIDE = frozenset({"foreign_keys", "synchronous"})

Apply = Callable[[apsw.Connection], object]


class Settings:
    """What was set on the connections of one database, in the order in which it was."""

    def __init__(self) -> None:
        # What it is about -> (number, how it is done). What is set anew replaces what was before.
        self._done: dict[tuple[object, ...], tuple[int, Apply]] = {}
        self._last = 0
        self._settings: dict[str, str] = {}

    def note(self, raw: RawConnection, about: tuple[object, ...], apply: Apply) -> None:
        """It was done on `raw`."""
        self._last += 1
        self._done.pop(about, None)
        self._done[about] = (self._last, apply)
        if raw.brought_up == self._last - 1:
            raw.brought_up = self._last

    def note_pragma(self, raw: RawConnection, name: str, value: str) -> None:
        """It is being set on `raw`; the same again is no news."""
        if name not in COPIED_PRAGMAS or self._settings.get(name) == value:
            return
        if raw.in_transaction and name in _IGNORED_INSIDE:
            return
        self._settings[name] = value
        text = value.replace("'", "''")
        self.note(raw, ("pragma", name), lambda other: other.execute(f"PRAGMA {name} = '{text}'"))

    def bring_up(self, raw: RawConnection) -> None:
        """Do there what was done elsewhere since it was last brought up; under a lease."""
        if raw.brought_up == self._last:
            return
        for number, apply in list(self._done.values()):
            if number > raw.brought_up:
                apply(raw)
        raw.brought_up = self._last


def _shared(name: str, about: Callable[..., tuple[object, ...] | None]) -> Any:
    """A method of apsw.Connection; what is done by it is done on every connection.

    about: what a call is about; None: it only asks.
    """
    inherited = getattr(apsw.Connection, name)

    def method(self: RawConnection, *args: Any, **kwargs: Any) -> Any:
        result = inherited(self, *args, **kwargs)
        if (key := about(*args, **kwargs)) is not None:
            self.note((name, *key), lambda raw: inherited(raw, *args, **kwargs))
        return result

    method.__name__ = name
    method.__doc__ = inherited.__doc__
    return method


def _function(name: str, *_args: Any, numargs: int = -1, **_kwargs: Any) -> tuple[object, ...]:
    # The number of arguments is the third of all, after the callable.
    return name.lower(), _args[1] if len(_args) > 1 else numargs


def _named(name: str, *_args: Any, **_kwargs: Any) -> tuple[object, ...]:
    return (name.lower(),)


def _option(option: int, value: int = -1, *_args: Any) -> tuple[object, ...] | None:
    return None if value == -1 else (option,)


class RawConnection(apsw.Connection):
    """An apsw.Connection that tells the others of its database what is set on it."""

    # Set when it is one of a database's, and as holdfast wants it: what comes then is the user's.
    settings: Settings | None = None
    brought_up = 0

    def note(self, about: tuple[object, ...], apply: Apply) -> None:
        if self.settings is not None:
            self.settings.note(self, about, apply)

    create_scalar_function = _shared("create_scalar_function", _function)
    create_aggregate_function = _shared("create_aggregate_function", _function)
    create_window_function = _shared("create_window_function", _function)
    create_collation = _shared("create_collation", _named)
    create_module = _shared("create_module", _named)
    load_extension = _shared("load_extension", _named)
    enable_load_extension = _shared("enable_load_extension", lambda *_: ())
    collation_needed = _shared("collation_needed", lambda *_: ())
    overload_function = _shared("overload_function", lambda name, count: (name.lower(), count))
    limit = _shared("limit", _option)
    config = _shared("config", _option)
    # The names that apsw had for them before.
    createscalarfunction = create_scalar_function
    createaggregatefunction = create_aggregate_function
    createcollation = create_collation
    createmodule = create_module
    collationneeded = collation_needed
    loadextension = load_extension
    enableloadextension = enable_load_extension
    overloadfunction = overload_function
