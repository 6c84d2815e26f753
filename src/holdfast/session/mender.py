"""What a session does around its transactions so that managed triggers fit the schema."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..sqlite.connection import Connection


class Mender(Protocol):
    """See triggers/mending.py, which has the one implementation."""

    @property
    def sound_at(self) -> Any:
        """The version of the schema that the triggers fit, as committed."""

    @property
    def sound_now(self) -> Any:
        """The same inside the open transaction."""

    def is_current(self, connection: Connection) -> bool: ...

    def begun(self) -> None: ...

    def committing(self, *, ddl: bool, raw: bool) -> None: ...

    def committed(self) -> bool: ...

    def rolled_back(self) -> None: ...

    def trace(self, cursor: Any, sql: str, bindings: Any) -> bool: ...

    def forget(self) -> None: ...

    def own(self) -> AbstractContextManager[None]: ...
