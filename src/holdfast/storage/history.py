"""Whether every commit was told of.

The history of a database is a chain: each commit leads from one position to the next. Who commits
announces that step together with the tables. Whoever listens joins the steps, its own and those
that it hears of; where the chain ends before the position that the database is at, a commit was
made of which no announcement came.

A position is any value that no two states of the database share while somebody has it open, such as
the number of commits, or the WAL's salts and its length.
"""

from __future__ import annotations

from collections.abc import Hashable

Step = tuple[Hashable, Hashable]

# Steps that are kept while one before them is missing. More than this were not in order for so
# long that the missing one will not come.
_KEPT = 1000


class History:
    """What one listener knows of the commits of a database, from the position `start` on."""

    def __init__(self, start: Hashable) -> None:
        self._known = start
        self._steps: dict[Hashable, Hashable] = {}
        # The position of the last look, while steps to it were missing.
        self._awaited: Hashable | None = None

    def add(self, step: Step) -> None:
        """A commit was announced, or made here."""
        before, after = step
        if len(self._steps) >= _KEPT:
            self._steps.clear()
        self._steps[before] = after
        while self._known in self._steps:
            self._known = self._steps.pop(self._known)
            if self._known == self._awaited:
                self._awaited = None

    def missed(self, now: Hashable) -> bool | None:
        """Whether commits up to the position `now` were never announced; then they are known.

        None: some are missing for the first time, and may be announced yet. Ask again soon.
        """
        if now == self._known:
            missed: bool | None = False
        elif self._awaited is None:
            self._awaited = now
            return None
        else:
            missed = True
        self._known = now
        self._awaited = None
        # They lead to where the database was before.
        self._steps.clear()
        return missed
