"""Opening a database in this interpreter: see `holdfast.open`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..bounds import Bound
from ..schema import Schema
from ..session.session import Session
from ..sqlite.space import FULL, is_full, no_space
from ..storage import choose
from ..triggers.mending import Mender
from .database import LocalDatabase

if TYPE_CHECKING:
    from ..holds import TriggerHoldManager

# What a database is called: in a browser a str.
Name = str | os.PathLike[str]


def as_name(given: Name, what: str = "name") -> str:
    """The name as a str. TypeError: it is none, nor the path of a file where there are files."""
    if isinstance(given, str):
        return given
    if sys.platform != "emscripten" and isinstance(given, os.PathLike):
        path = os.fspath(given)
        if isinstance(path, str):
            return path
    wanted = "a str" if sys.platform == "emscripten" else "a str or an os.PathLike of one"
    raise TypeError(f"{what} must be {wanted}, not {type(given).__name__}")


def check_options(
    schema: Schema | None,
    persist_triggers: bool | None,
    hold_manager: TriggerHoldManager | None,
    synchronous: str,
    busy_timeout: float,
) -> None:
    """TypeError, ValueError: see `holdfast.open`."""
    if schema is not None and not isinstance(schema, Schema):
        raise TypeError(f"schema must be a holdfast.Schema, not {type(schema).__name__}")
    if persist_triggers not in (None, True, False):
        raise TypeError(f"persist_triggers must be None, True or False, not {persist_triggers!r}")
    if hold_manager is not None and not hasattr(hold_manager, "obtain_hold"):
        raise TypeError(
            f"hold_manager must be a TriggerHoldManager, not {type(hold_manager).__name__}"
        )
    if not isinstance(synchronous, str):
        raise TypeError(f"synchronous must be a str, not {type(synchronous).__name__}")
    if synchronous not in ("full", "normal"):
        raise ValueError(f'synchronous must be "full" or "normal", not {synchronous!r}')
    if not isinstance(busy_timeout, int | float):
        raise TypeError(
            f"busy_timeout must be a number of seconds, not {type(busy_timeout).__name__}"
        )
    if not busy_timeout >= 0:
        raise ValueError(f"busy_timeout must be 0 or more seconds, not {busy_timeout!r}")


async def open_here(
    name: str,
    schema: Schema | None = None,
    storage: str = "auto",
    persist_triggers: bool | None = None,
    hold_manager: TriggerHoldManager | None = None,
    synchronous: str = "full",
    busy_timeout: float = 10.0,
) -> LocalDatabase:
    """Open it in this interpreter, wherever databases live by default."""
    name = as_name(name)
    check_options(schema, persist_triggers, hold_manager, synchronous, busy_timeout)
    try:
        chosen = await choose(storage, name, synchronous)
        chosen.busy_timeout = max(busy_timeout, chosen.shortest_wait)
        bound = Bound(chosen.busy_timeout)
        connection = await chosen.open(bound)
        database = LocalDatabase(
            Session(chosen, connection, Mender.of(connection)),
            schema or Schema.undeclared(),
            chosen.persists_triggers if persist_triggers is None else persist_triggers,
            hold_manager or chosen.default_hold_manager(),
        )
        try:
            await database.begin(bound)
        except BaseException:
            await database.close()
            raise
        return database
    except FULL as error:
        if not is_full(error):
            raise
        raise no_space(repr(name), "it was not opened, and nothing was lost") from error
