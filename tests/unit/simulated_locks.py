"""Web Locks by name, as browsers grant them: one queue for each name, first come, first served."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Request(Protocol):
    """What is asked for: a lock by its name, alone or together with others."""

    @property
    def name(self) -> str: ...

    @property
    def exclusive(self) -> bool: ...


R = TypeVar("R", bound=Request)


class LockQueues(Generic[R]):
    """answer(request, granted) is called once for each request that was not withdrawn.

    stalls: as Chromium's. A request that is withdrawn, or whose tab dies, leaves its queue and
    moves nobody up: those behind it are looked at when the last holder releases the lock, and not
    before. Firefox and WebKit look at them at once. See tests/conformance/README.md.
    """

    def __init__(self, answer: Callable[[R, bool], None], *, stalls: bool = True) -> None:
        self._answer, self._stalls = answer, stalls
        self.held: dict[str, list[R]] = {}
        self.waiting: dict[str, deque[R]] = {}

    def ask(self, request: R, if_available: bool = False) -> None:
        waiting = self.waiting.setdefault(request.name, deque())
        if not waiting and self._is_free(request):
            self._grant(request)
        elif if_available:
            self._answer(request, False)
        else:
            waiting.append(request)

    def release(self, request: R) -> None:
        """Give it back, or withdraw it."""
        waiting, held = self.waiting.get(request.name, deque()), self.held.get(request.name, [])
        if request in waiting:
            waiting.remove(request)
            if self._stalls:
                return
        elif request in held:
            held.remove(request)
            if self._stalls and held:
                return
        while waiting and self._is_free(waiting[0]):
            self._grant(waiting.popleft())

    def _is_free(self, request: R) -> bool:
        held = self.held.get(request.name, [])
        return not held or not (request.exclusive or any(other.exclusive for other in held))

    def _grant(self, request: R) -> None:
        self.held.setdefault(request.name, []).append(request)
        self._answer(request, True)
