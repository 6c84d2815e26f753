"""A search in a process of its own.

What is broken may do anything, in C as well: write where nothing of it is, never end, or spoil what
is done after it. A child has it alone, and ends with it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import resource
import signal
import traceback
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

T = TypeVar("T")

# Far more than any search takes. In seconds: of computing, which does not depend on what else the
# machine does; and of waiting, within the time that a test may take.
COMPUTING = 60
WAITING = 600.0

UNNOTICED, NOTICED, NOT_SET_UP = range(3)
# What a program gets for what it did itself, and for being endless.
OWN_SIGNALS = {
    signal.SIGABRT,
    signal.SIGALRM,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGXCPU,
}


def finds_out(
    search: Callable[[T], Any],
    given: AbstractContextManager[T],
    *,
    computing: int = COMPUTING,
    waiting: float = WAITING,
) -> bool:
    """Whether search(given) raises, crashes or does not end. `given` is entered in the child.

    AssertionError: the child could not enter it, or something else ended the child; its traceback
    went to stderr.
    """
    with warnings.catch_warnings():
        # Another thread may hold a lock, which is never released in the child. Those that there are
        # (of xdist, of asyncio's pool) wait, and hold nothing that a search takes.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        # Whatever happens, nothing of the parent goes on here.
        outcome = NOT_SET_UP
        try:
            outcome = _in_child(search, given, computing, waiting)
        finally:
            os._exit(outcome)
    try:
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    assert ended in (UNNOTICED, NOTICED) or -ended in OWN_SIGNALS, f"nothing was found out: {ended}"
    return ended != UNNOTICED


def _in_child(
    search: Callable[[T], Any], given: AbstractContextManager[T], computing: int, waiting: float
) -> int:
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # At the hard limit comes SIGKILL, which may be anybody's.
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (computing, hard))
    # Whatever the parent ignores, as what runs in the background does.
    for number in OWN_SIGNALS | {signal.SIGINT, signal.SIGTERM}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.setitimer(signal.ITIMER_REAL, waiting)
    # What the parent has yet to collect (connections, above all) is for the parent to close.
    gc.freeze()
    with contextlib.ExitStack() as stack:
        try:
            value = stack.enter_context(given)
        except BaseException:
            traceback.print_exc()
            return NOT_SET_UP
        try:
            search(value)
        except BaseException:
            # Not left by way of the stack: what is left of the search is as broken as it is.
            os._exit(NOTICED)
    return UNNOTICED
