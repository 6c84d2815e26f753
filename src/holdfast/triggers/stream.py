"""The records of a trigger as an async iterator, each batch acknowledged by asking for the next."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from ..api.nesting import write_transactions
from ..api.records import DiffRecord
from ..errors import BacklogExceededError, DatabaseClosedError
from .inbox import Inbox
from .records import COLUMNS, fold_diff, read_diff
from .trigger import LocalTrigger

if TYPE_CHECKING:
    from ..session.session import Session


async def stream(
    session: Session, trigger: LocalTrigger, throttle: float, net: bool
) -> AsyncGenerator[list[DiffRecord]]:
    """What `trigger` records, as it comes; disposes of it at the end.

    net: each batch is folded, see `fold_diff`; one that comes to nothing is not given.
    """
    inbox = Inbox(session, trigger)
    not_before = 0.0
    try:
        while await inbox.wait(not_before) and not session.closed:
            found = await inbox.look()
            if found.discarded:
                raise BacklogExceededError(
                    f"records of {trigger.source!r} were discarded, because more than max_backlog "
                    "had not been asked for; read the source anew and begin again"
                )
            if found.last is None:
                continue
            not_before = time.monotonic() + throttle
            where = f"FROM {inbox.table} WHERE operation_id <= ? ORDER BY operation_id"
            rows = await session.fetch_all(f"SELECT {COLUMNS} {where}", (found.last,))
            records = read_diff(rows, session.origin)
            if net:
                records = fold_diff(records, inbox.record.key)
            if records:
                yield records
            async with session.write_transaction() as tx:
                inbox.acknowledge(tx, found.last)
            inbox.expect(found.last + 1)
    except DatabaseClosedError:
        if not session.closed:
            raise
    finally:
        inbox.stop()
        # By a task of its own, which goes on if this one is cancelled again.
        context = contextvars.copy_context()
        inside = any(tx.owner is session and tx.is_open for tx in write_transactions.get())
        context.run(write_transactions.set, ())
        disposing = context.run(session.start, trigger.dispose())
        # Left from inside a write transaction, that has to end first.
        if not inside:
            await asyncio.wait({disposing})
            if not disposing.cancelled():
                disposing.result()
