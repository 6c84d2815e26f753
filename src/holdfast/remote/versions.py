"""Whether both ends of a port understand each other."""

from __future__ import annotations

import sys

from ..errors import StorageUnavailableError
from ..version import __version__

# Raised by one whenever client and server of the version before would misunderstand each other.
PROTOCOL = 2


def check_versions(
    protocol: int, holdfast: str, python: str | None, theirs: str, ours: str
) -> None:
    """StorageUnavailableError: the other end is of another holdfast or Python than this one."""
    mine = __version__
    if (protocol, holdfast) != (PROTOCOL, mine):
        raise StorageUnavailableError(
            f"{theirs} has holdfast {holdfast} (protocol {protocol}), and {ours} has {mine} "
            f"(protocol {PROTOCOL}); both must come from the same release: reload the page, or "
            "serve the holdfast.mjs of the wheel that is installed"
        )
    if python is not None and python != sys.version:
        raise StorageUnavailableError(
            f"{theirs} runs Python {python}, and {ours} runs {sys.version}; both must be the same"
        )
