"""The records of a trigger as an async iterator, each batch acknowledged by asking for the next."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING

from ..api.nesting import is_inside, outside, write_transactions
from ..api.records import DiffRecord
from ..errors import BacklogExceededError, DatabaseClosedError
from .inbox import Inbox
from .insisting import PASSING, insist
from .records import COLUMNS, fold_diff, read_diff
from .trigger import LocalTrigger

if TYPE_CHECKING:
    from ..session.session import Session
    from .cutting import Cutting

logger = logging.getLogger("holdfast")


async def stream(
    session: Session, trigger: LocalTrigger, cutting: Cutting, throttle: float, net: bool
) -> AsyncGenerator[list[DiffRecord]]:
    """What `trigger` records, as it comes; disposes of it at the end.

    net: each batch is folded, see `fold_diff`; one that comes to nothing is not given.
    """
    inbox = Inbox(session, trigger)
    what = f"following the changes of {trigger.source!r}"
    not_before = 0.0
    try:
        while await inbox.wait(not_before) and not session.closed:
            rows = await insist(session, what, partial(inbox.read, COLUMNS))
            if not rows:
                continue
            if rows[0][0] > inbox.consumed + 1:
                raise BacklogExceededError(
                    f"records of {trigger.source!r} were discarded, because more than max_backlog "
                    "had not been asked for; read the source anew and begin again"
                )
            not_before = time.monotonic() + throttle
            last = rows[-1][0]
            records = read_diff(rows, session.origin)
            if net:
                records = fold_diff(records, inbox.record.key)
            if records:
                yield records
            # Inside of a write transaction it would wait for changes that none can make meanwhile.
            session.closing.check_open()
            if inbox.record.max_backlog is not None:
                # What is still there counts.
                await insist(session, what, partial(_remove, session, inbox, last))
            inbox.consumed = last
            if inbox.record.max_backlog is None:
                cutting.note(inbox)
    except DatabaseClosedError:
        if not session.closed:
            raise
    finally:
        inbox.stop()
        cutting.forget(inbox)
        # By a task of its own, which goes on if this one is cancelled again.
        disposing = outside().run(session.start, _dispose(trigger))
        # Left from inside a write transaction, that has to end first.
        if not is_inside(write_transactions, session):
            await asyncio.wait({disposing})
            if not disposing.cancelled():
                disposing.result()


async def _remove(session: Session, inbox: Inbox, last: int) -> None:
    async with session.write_transaction() as tx:
        inbox.acknowledge(tx, last)


async def _dispose(trigger: LocalTrigger) -> None:
    try:
        await trigger.dispose()
    except PASSING as error:
        logger.debug("the trigger of %r is dropped later: %s", trigger.source, error)
