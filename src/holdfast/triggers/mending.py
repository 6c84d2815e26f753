"""Schema changes beside managed triggers: these are made anew, or end, and hinder nobody.

A managed trigger is SQL that was made for the columns of its source and for what its conditions
refer to. When the schema changes, that SQL may be out of date, or not even compile, and then it
would break every write of its source. So:

* ALTER TABLE checks, and rewrites, every trigger of the database. Before it the managed ones are
  removed, and made anew after it, in one savepoint: it succeeds or fails as if there were none.
* After any statement that changes the schema, and before the commit of a transaction that did,
  each trigger is compared with what it should be by now, and tried out. If one differs or fails,
  all are made anew.
* One that cannot be made is left out until the commit, for a table may be dropped and made again
  in one transaction. At the commit it ends: its record says why, and its consumer reads it there.
  What it recorded stays.
* Another program's changes are found by schema_version, when a write transaction begins. What the
  triggers were last found to be sound at stands in ps_kv, so that one connection does it for all.
  Its commit is announced as a change of the schema, which wakes the consumers of every tab.
* What a transaction found and mended counts once it is committed. If it ends in any other way, the
  next one finds and mends it again.

Sources go by name: a table that was renamed is gone, and one that has its name now is the source.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import apsw

from ..api.operations import DiffOperation
from ..errors import HoldfastError, InvalidWhenError, UnknownSourceError
from ..sqlite.sqltext import quote_name
from .registry import SOUND_AT, Record, drop_triggers, read_all, write_record
from .setup import compiled, mount, trigger_texts
from .source import Source, resolve

if TYPE_CHECKING:
    from ..sqlite.connection import Connection

_SKIPPED = r"(?:[\s;]|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))*"
_DDL = re.compile(rf"{_SKIPPED}(alter|create|drop)\b", re.IGNORECASE | re.DOTALL)

# Internal tables, which cannot be tracked.
INTERNAL = ("ps_kv", "ps_tx")

_MARK = (
    "DELETE FROM main.ps_kv WHERE key = :key; INSERT INTO main.ps_kv(key, value) "
    "SELECT :key, :version WHERE EXISTS (SELECT 1 FROM main.ps_kv "
    "WHERE key >= 'holdfast:trigger:' AND key < 'holdfast:trigger;')"
)


class Version(NamedTuple):
    """The schema_version of each schema that triggers are in."""

    main: int
    temp: int


class _Kept(NamedTuple):
    """A record, and where it is."""

    record: Record
    temporary: bool


class Mender:
    """The managed triggers of one database, as one connection sees and mends them.

    Every method but `forget` is for a write transaction.
    """

    def __init__(self, engine: Connection) -> None:
        self._engine = engine
        # The schema at which every trigger was last found to be sound or ended, as committed and
        # as the open transaction has it; None: unknown.
        self.sound_at: Version | None = None
        self.sound_now: Version | None = None
        # SQLite's count of commits at the last look, which costs less than the schema's version.
        self._seen: int | None = None
        # Whether triggers were removed for a statement of the raw connection.
        self._unmounted = False
        # Whether the open transaction found, or mended, what others are to hear of.
        self._news = False
        # Whether what runs on the raw connection is holdfast's own.
        self._busy = False

    @classmethod
    def of(cls, engine: Connection) -> Mender:
        """The one of that connection, which several databases may share."""
        mender: Mender | None = getattr(engine.around_ddl, "__self__", None)
        if mender is None:
            mender = cls(engine)
            engine.around_ddl = mender.around
        return mender

    # -- when ------------------------------------------------------------------------------------

    def begun(self) -> None:
        """A write transaction began: the schema may have changed since the last one."""
        self._engine.bring_up()
        if self._engine.raw.data_version() == self._seen and self.sound_at is not None:
            return
        version = self._version()
        if version != self.sound_at:
            # What is known of statements was found out at another schema.
            self._engine.statements.forget()
            if self.sound_at is not None and self._marked() != version.main:
                # No connection of holdfast's changed it, or mended it since.
                self._news = True
        self.mend(final=True)

    @contextlib.contextmanager
    def _own_statements(self) -> Iterator[None]:
        """In here `trace` leaves every statement alone."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def committing(self, *, ddl: bool, raw: bool) -> None:
        """It is about to commit. raw: statements of its own may have run on the raw connection."""
        if ddl or raw or self._unmounted or self.sound_now is None:
            if raw:
                # It may have rolled back some of it, or all, so that the version says nothing.
                self.forget()
            self.mend(final=True)

    def committed(self) -> bool:
        """What was found in the transaction holds; whether others are to hear of it."""
        self.sound_at = self.sound_now
        self._seen = self._engine.raw.data_version()
        news, self._news = self._news, False
        return news

    def rolled_back(self) -> None:
        """What was found and mended in the transaction is undone with it."""
        self.sound_now = self.sound_at
        self._unmounted = self._news = False

    def forget(self) -> None:
        """Some of the transaction was undone: the version may come to stand for another schema."""
        self.sound_now = None

    @contextlib.contextmanager
    def around(self, sql: str) -> Iterator[None]:
        """Around a statement that changes the schema."""
        if (found := _DDL.match(sql)) is None:
            yield
            return
        with self._own_statements():
            yield from self._around(found[1].lower() == "alter")

    def _around(self, alters: bool) -> Iterator[None]:
        if not alters or not (kept := self._kept()):
            yield
            self.mend(final=False)
            return
        engine = self._engine
        engine.run("SAVEPOINT holdfast_ddl")
        try:
            self._unmount(kept)
            yield
        except BaseException:
            self.forget()
            if engine.raw.in_transaction:
                engine.run("ROLLBACK TO holdfast_ddl; RELEASE holdfast_ddl")
            raise
        self.mend(final=False)
        engine.run("RELEASE holdfast_ddl")

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Around what makes or drops managed triggers, which concerns no other trigger."""
        before = self._version()
        with self._own_statements():
            yield
        if before == self.sound_now:
            self._found_sound(self._version())

    def trace(self, _cursor: object, sql: str, _bindings: object) -> bool:
        """Called before each statement of the raw connection."""
        if self._busy:
            return True
        with self._own_statements():
            found = _DDL.match(sql)
            if found is not None and found[1].lower() != "create":
                self._unmount(self._kept())
                self._unmounted = True
                self.forget()
            elif self._unmounted:
                self.mend(final=False)
        return True

    # -- what ------------------------------------------------------------------------------------

    def is_current(self, engine: Connection) -> bool:
        """In a read of `engine`: whether the triggers were mended for the schema that it sees."""
        ((version,),) = engine.run("PRAGMA main.schema_version")
        return self.sound_at is not None and self.sound_at.main == version

    def mend(self, *, final: bool) -> None:
        """See to it that every trigger is as it should be.

        final: end those that cannot be; otherwise they are left out, and tried again later.
        """
        with self._own_statements():
            version = self._version()
            if version == self.sound_now:
                return
            self._unmounted = False
            kept = self._kept(version.main)
            if not self._are_sound(kept):
                self._news = True
                self._unmount(kept)
                for one in kept:
                    self._remount(one, final)
                version = self._version()
            if final:
                self._found_sound(version)

    def _found_sound(self, version: Version) -> None:
        self.sound_now = version
        engine = self._engine
        if self._has_registry() and self._marked() != version.main:
            last = engine.raw.last_insert_rowid()
            engine.run(_MARK, {"key": SOUND_AT, "version": version.main})
            engine.raw.set_last_insert_rowid(last)

    def _version(self) -> Version:
        raw = self._engine.raw
        temporary = self._engine.statements.made_temporary
        return Version(
            raw.execute("PRAGMA main.schema_version").get,
            raw.execute("PRAGMA temp.schema_version").get if temporary else 0,
        )

    def _has_registry(self) -> bool:
        found = "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = 'ps_kv'"
        return bool(self._engine.run(found))

    def _marked(self) -> int | None:
        if not self._has_registry():
            return None
        rows = self._engine.run("SELECT value FROM main.ps_kv WHERE key = ?", (SOUND_AT,))
        return rows[0][0] if rows else None

    def _kept(self, version: int | None = None) -> list[_Kept]:
        """The triggers that live; without the persisted ones if they are sound at `version`."""
        engine = self._engine
        found: list[_Kept] = []
        if self._has_registry() and (version is None or self._marked() != version):
            found += [_Kept(record, False) for record in read_all(engine, temporary=False)]
        if engine.statements.made_temporary:
            found += [_Kept(record, True) for record in read_all(engine, temporary=True)]
        return [one for one in found if one.record.ended is None]

    def _are_sound(self, kept: Sequence[_Kept]) -> bool:
        if not kept:
            return True
        stored: dict[str, str] = dict(
            self._engine.run(
                "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' UNION ALL "
                "SELECT name, sql FROM temp.sqlite_master WHERE type = 'trigger'"
            )
        )
        writes: dict[tuple[str, DiffOperation], Source] = {}
        for record, temporary in kept:
            try:
                source = self._source(record, temporary)
                texts = trigger_texts(record, source, temporary=temporary)
            except (UnknownSourceError, ValueError):
                return False
            wanted = dict(zip(record.triggers, texts, strict=True))
            if any(stored.get(name) != text for name, text in wanted.items()):
                return False
            writes |= {(source.table, operation): source for operation in record.operations}
        return not any(
            compiled(self._engine, source, operation) for (_, operation), source in writes.items()
        )

    def _source(self, record: Record, temporary: bool) -> Source:
        """The source of a record. UnknownSourceError: it is gone, or its destination is."""
        source = resolve(self._engine, record.source, INTERNAL)
        place = "temp" if temporary else "main"
        try:
            # Compiled and no more: whether the destination takes what the triggers put there.
            self._engine.run(
                "EXPLAIN SELECT operation_id, id, operation, timestamp, value, previous_value, "
                f"previous_id FROM {place}.{quote_name(record.destination)}"
            )
        except apsw.SQLError as error:
            raise UnknownSourceError(
                f"the destination {record.destination!r} was dropped or altered: {error}"
            ) from error
        return source

    def _unmount(self, kept: Sequence[_Kept]) -> None:
        for record, temporary in kept:
            drop_triggers(self._engine, record, temporary=temporary)

    def _remount(self, one: _Kept, final: bool) -> None:
        record, temporary = one
        engine = self._engine
        try:
            source = self._source(record, temporary)
            made = mount(engine, record, source, temporary=temporary)
        except (HoldfastError, ValueError, apsw.Error) as error:
            if not engine.raw.in_transaction or _is_of_the_disk(error):
                raise
            drop_triggers(engine, record, temporary=temporary)
            if final:
                write_record(engine, _ended(record, error), temporary=temporary)
            return
        if made != record:
            write_record(engine, made, temporary=temporary)


def _is_of_the_disk(error: Exception) -> bool:
    """Whether it says nothing of the trigger."""
    return isinstance(error, apsw.Error) and not isinstance(error, apsw.SQLError)


def _ended(record: Record, error: Exception) -> Record:
    if isinstance(error, InvalidWhenError):
        why = (
            f"the schema was changed, and a condition on {record.source!r} cannot be evaluated any "
            f"more: {error}. Its changes are no longer recorded; track it anew with another"
        )
        return record._replace(ended=("InvalidWhenError", why))
    why = (
        f"the schema was changed, and {record.source!r} cannot be tracked as before: {error}. Its "
        "changes are no longer recorded; track it anew as it is now"
    )
    return record._replace(ended=("SourceDroppedError", why))
