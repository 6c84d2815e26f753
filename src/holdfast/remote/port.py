"""What carries messages between a client and its server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Port(Protocol):
    """One end of a connection.

    A message is a tuple or list of plain values: None, bool, int, float, str, bytes, and tuples,
    lists and dicts (with str keys) of them. What arrives may have lists where tuples were sent.
    Messages arrive in the order in which they were sent, each in a turn of the event loop of its
    own, never inside of `send`.
    """

    on_message: Callable[[Any], None]
    """Set by who uses the port, before the event loop turns."""
    on_close: Callable[[str], None]
    """The same; called once, with the reason, when the other end is gone."""

    def send(self, message: Any) -> None:
        """TypeError: the message has something in it that cannot be sent."""
        ...

    def rows(self, rows: list[tuple[Any, ...]], check: Callable[[], None]) -> Any:
        """What to send in place of them. `check` is called now and then, and may raise."""
        ...

    def close(self) -> None:
        """Nothing is sent or heard any more; the other end is told of it by other means."""
        ...
