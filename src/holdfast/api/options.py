"""What the caller asks for, checked before anything is done."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..sqlite.sqltext import check_name, check_text, fold
from .operations import DiffOperation, When, check_when


class Options(NamedTuple):
    """A trigger that is to be made."""

    source: str
    when: dict[DiffOperation, str | None]
    """None for an operation: always."""
    columns: tuple[str, ...] | None
    persist: bool | None
    """None: as the database does."""
    before_create: Callable[..., Any] | None
    only_changed: bool
    max_backlog: int | None = None


def check_options(
    source: str,
    when: When | None,
    columns: Sequence[str] | None,
    persist: bool | None,
    before_create: Callable[..., Any] | None,
    only_changed: bool,
    max_backlog: int | None = None,
) -> Options:
    """TypeError, ValueError, InvalidWhenError: something is not as it should be."""
    if not isinstance(source, str):
        raise TypeError(f"source must be the name of a table or view, not {source!r}")
    check_text(source, "source")
    if persist is not None and not isinstance(persist, bool):
        raise TypeError(f"persist must be None, True or False, not {persist!r}")
    if not isinstance(only_changed, bool):
        raise TypeError(f"only_changed must be True or False, not {only_changed!r}")
    check_callable(before_create, "before_create")
    if max_backlog is not None:
        if not isinstance(max_backlog, int) or isinstance(max_backlog, bool):
            raise TypeError(f"max_backlog must be a number of records or None, not {max_backlog!r}")
        if max_backlog < 1:
            raise ValueError(f"max_backlog must be 1 or more records, not {max_backlog}")
    return Options(
        source=source,
        when=check_when(when),
        columns=check_names(columns, "columns"),
        persist=persist,
        before_create=before_create,
        only_changed=only_changed,
        max_backlog=max_backlog,
    )


def check_names(names: Iterable[str] | None, what: str) -> tuple[str, ...] | None:
    """The names of columns or tables, or None. TypeError."""
    if names is None:
        return None
    if isinstance(names, str):
        raise TypeError(f"{what} must be a list of names, not a str; write [{names!r}]")
    if isinstance(names, (bytes, bytearray)) or not isinstance(names, Iterable):
        raise TypeError(f"{what} must be a list of names, not {type(names).__name__}")
    found = tuple(names)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"{what} must be names, not {name!r}")
    return found


def check_callable(value: object, what: str, optional: bool = True) -> None:
    """TypeError: it cannot be called, or a call would run nothing of it."""
    if not (callable(value) or (optional and value is None)):
        raise TypeError(f"{what} must be an async callable, not {value!r}")
    for function in (value, type(value).__call__) if callable(value) else ():
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{what} has a yield, so calling it makes a generator and runs nothing of it: "
                f"{value!r}; leave the yield out"
            )


def check_destination(name: object) -> str:
    """The name of a destination. TypeError, ValueError."""
    checked = check_name(name, "the name of a destination")
    if fold(checked).startswith(("ps_", "sqlite_")):
        raise ValueError(
            f"a destination cannot be named {checked!r}: names that begin with ps_ or sqlite_ are "
            "holdfast's and SQLite's own"
        )
    return checked


def check_throttle(seconds: object) -> float:
    """A time in seconds. TypeError, ValueError."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"throttle must be a number of seconds, not {seconds!r}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"throttle must be 0 or more seconds, not {seconds}")
    return float(seconds)


# Called with the bytes done, and in all; None where that is not known yet.
OnProgress = Callable[[int, int | None], object]
Report = Callable[[int, int | None], Awaitable[None]]


def check_progress(on_progress: OnProgress | None) -> Report:
    """on_progress as it is used here: awaited, for it may be another interpreter's."""
    if on_progress is None:
        return _report_nothing
    if not callable(on_progress):
        raise TypeError(
            f"on_progress must be callable with (done, total), not {type(on_progress).__name__}"
        )

    async def report(done: int, total: int | None) -> None:
        if inspect.isawaitable(result := on_progress(done, total)):
            await result

    return report


async def _report_nothing(done: int, total: int | None) -> None:
    pass
