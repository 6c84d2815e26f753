"""What tells the other end that a call was cancelled while it can hear no message."""

from __future__ import annotations

from typing import Protocol


class Flags(Protocol):
    """The flags of one end of a port; each is a text that is sent with a call."""

    def take(self) -> str | None:
        """A flag for one call; None: there is none, and the call is cancelled by message only."""
        ...

    def give_back(self, flag: str) -> None:
        """Its call was answered, and it was not raised."""
        ...

    def raise_(self, flag: str) -> None:
        """Its call was cancelled. It is not used again."""
        ...

    def arrived(self, flag: str) -> None:
        """At the other end: a call came with this flag."""
        ...

    def is_raised(self, flag: str) -> bool:
        """At the other end, without waiting."""
        ...
