"""Names that are never given twice."""

from __future__ import annotations

import os


def unique() -> str:
    """32 hexadecimal digits, at random. A browser takes long to import `uuid`."""
    return os.urandom(16).hex()
