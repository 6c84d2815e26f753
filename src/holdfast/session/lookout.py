"""The look-out: finds commits whose announcement is missing."""

from __future__ import annotations

import asyncio
import logging
import weakref

from ..errors import DatabaseBusyError, StorageUnavailableError
from .session import Session

logger = logging.getLogger("holdfast")

# How often to look for commits whose announcement never came (their writer died, or this tab
# slept), in seconds.
LOOKOUT = 2.0
# How long the announcement of a commit that was found may be on its way, in seconds.
GRACE = 0.5


async def look_out(reference: weakref.ref[Session]) -> None:
    """Look now and then, until the session is dropped."""
    pause = LOOKOUT
    while True:
        await asyncio.sleep(pause)
        session = reference()
        if session is None:
            return
        soon = await look(session) is None
        pause = min(GRACE, LOOKOUT) if soon else LOOKOUT
        del session


async def look(session: Session) -> bool | None:
    """Whether there were commits without an announcement. None: look again soon."""
    if not session.announcements.wanted:
        return False
    try:
        # Behind the transaction that is open here, if one is: an application that writes without
        # pause would otherwise never be told.
        await session.writer_lock.acquire(session.bound())
        try:
            news = await session.storage.has_news()
        finally:
            session.writer_lock.release()
    except StorageUnavailableError as error:
        session.lost(error)
        return False
    except DatabaseBusyError as error:
        logger.debug("%r was not looked at, and will be later: %r", session, error)
        return False
    except Exception:
        if not session.closed:
            logger.exception("%r was not looked at, and will be later", session)
        return False
    if news:
        session.remote_commit(None, True)
    return news
