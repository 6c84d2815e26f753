"""The names that a database may have in a browser."""

from __future__ import annotations

from ..sqlite.sqltext import check_text
from .base import check_not_memory


def name_segments(name: str) -> list[str]:
    """The segments of a database's name. ValueError: it is none."""
    segments = name.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError(
            f"{name!r} is no database name: it is one or more segments parted by '/', none of "
            "them empty, '.' or '..'"
        )
    check_not_memory(name)
    check_text(name, "the name of a database")
    if segments[-1].endswith(("-wal", "-journal")):
        raise ValueError(
            f"{name!r} ends as the files that SQLite keeps beside a database; choose another name"
        )
    return segments
