"""What a piece of SQL is: one statement or several, reading or writing, and which tables.

SQLite is asked, not the text: the statement is prepared, its authorizer callbacks are collected,
and it is stopped before its first step. The answers are kept per text until the schema changes.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import apsw

from .settings import RawConnection
from .sqltext import check_text, unquote_name

# Pragmas that would take the database away from its other tabs, or turn off what triggers and
# holdfast's own writes rely on.
_REFUSED_PRAGMAS = frozenset(
    {
        "journal_mode",
        "locking_mode",
        "wal_autocheckpoint",
        "wal_checkpoint",
        "recursive_triggers",
        "query_only",
        "temp_store",
        "mmap_size",
    }
)
# Without the flushes a power cut damages the database, with what other tabs committed.
_SYNCHRONOUS = frozenset({"1", "2", "3", "normal", "full", "extra", "on", "yes", "true"})
# What stands behind these asks about something. Behind every other pragma it sets something.
_ASKING_PRAGMAS = frozenset(
    {
        "foreign_key_check",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
# These write to the database; "optimize" only at times, and then SQLite may call it read-only.
_WRITING_PRAGMAS = frozenset(
    {"application_id", "incremental_vacuum", "optimize", "schema_version", "user_version"}
)
# They tell what a connection did, or what it is, and not what is in the database.
_OF_WRITER = frozenset({"last_insert_rowid", "changes", "total_changes"})
_OF_WRITER_PRAGMAS = frozenset({"data_version", "defer_foreign_keys", "query_only"})
_OF_WRITER_TABLES = frozenset(f"pragma_{name}" for name in _OF_WRITER_PRAGMAS)
_READ_SCHEMA = "SELECT 1 FROM main.sqlite_master LIMIT 1"
_TEMPORARY_SCHEMA = frozenset({"sqlite_temp_master", "sqlite_temp_schema"})
_DDL_ACTIONS = frozenset(
    code
    for name, code in vars(apsw).items()
    if name.startswith(("SQLITE_CREATE_", "SQLITE_DROP_")) and isinstance(code, int)
) | {apsw.SQLITE_ALTER_TABLE, apsw.SQLITE_REINDEX}
_DROP_TABLE = frozenset(
    {
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_DROP_TEMP_TABLE,
        apsw.SQLITE_DROP_VIEW,
        apsw.SQLITE_DROP_TEMP_VIEW,
        apsw.SQLITE_DROP_VTABLE,
    }
)
_CREATE_TABLE = frozenset({apsw.SQLITE_CREATE_TABLE, apsw.SQLITE_CREATE_TEMP_TABLE})
_CREATE_TEMPORARY = frozenset(
    {
        apsw.SQLITE_CREATE_TEMP_TABLE,
        apsw.SQLITE_CREATE_TEMP_VIEW,
        apsw.SQLITE_CREATE_TEMP_TRIGGER,
    }
)
_WRITES = (apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE)
_SPACE = r"(?:[\s;]|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))*"
_RENAME = re.compile(r"\brename\s+to\s+(\w+|\"[^\"]*\"|'[^']*'|`[^`]*`|\[[^]]*\])[\s;]*$", re.I)
_VACUUM = re.compile(_SPACE + r"vacuum\b", re.I | re.S)
_SCHEMA = r"""(?:\w+|"[^"]*"|'[^']*'|`[^`]*`|\[[^]]*\])"""
_VACUUM_INTO = re.compile(rf"{_SPACE}vacuum\b{_SPACE}(?:{_SCHEMA}{_SPACE})??into\b", re.I | re.S)
_KEPT = 500


class ViewWrite(NamedTuple):
    """A write through a view, as its INSTEAD OF trigger carries it out."""

    trigger: str
    operation: int
    # The table that has a row for each of the view's, of a view of the schema.
    base: str | None


class Statement(NamedTuple):
    """What SQLite says of one statement."""

    sql: str
    readonly: bool
    # Called on the database it runs outside of a transaction: a pragma that sets something, VACUUM.
    bare: bool
    # It can run inside of none: VACUUM, and what SQLite ignores there.
    alone: bool
    # Fires triggers, so that total_changes() counts more than the statement's own rows.
    fires_triggers: bool
    ddl: bool
    reads: frozenset[str]
    # Written tables that the update hook may say nothing of: truncated, WITHOUT ROWID, virtual,
    # dropped or altered.
    unhooked: frozenset[str]
    # It sees the temporary schema, which other connections do not have.
    temporary: bool = False
    view: ViewWrite | None = None
    # What it asks about is of the connection that writes.
    of_writer: bool = False


class Statements:
    """The statements of one connection, by their text."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._known: dict[str, Statement] = {}
        self._actions: list[tuple[int, str | None, str | None, str | None]] | None = None
        self._temporary = False
        self._of_writer = False
        # Tables of which no column is read, as in count(*): SQLite does not tell their schema.
        self._unplaced: set[str] = set()
        self._ddl = False
        # Whether this connection ever made a temporary table, view or trigger, which readers lack.
        self.made_temporary = False
        # One authorizer for good: setting it anew would expire every prepared statement.
        connection.authorizer = self._authorize

    def known(self, sql: str) -> Statement | None:
        """What `sql` is, if it was asked before; touches no file."""
        return self._known.get(sql)

    def get(self, sql: str) -> Statement:
        """What `sql` is; under a lease, for preparing reads the schema.

        ValueError: none, several, or not allowed here; SQL errors are apsw's.
        """
        known = self._known.get(sql)
        if known is None:
            if not isinstance(sql, str):
                raise TypeError(f"sql must be a str, not {type(sql).__name__}")
            check_text(sql, "sql")
            # Once its schema has changed, SQLite asks the file only after some of the errors that
            # the old one leads to. A statement that runs always has it read the new one.
            self._connection.execute(_READ_SCHEMA).fetchall()
            self._temporary = self._of_writer = False
            self._unplaced.clear()
            # Preparing takes the schema as this connection has it; a step reads it if it changed.
            self._connection.execute("SELECT 1 FROM main.sqlite_master LIMIT 1").fetchall()
            known = self._analyse(sql)
            if (
                self._temporary
                or any(name.startswith("pragma_") for name in known.reads)
                or any(map(self._is_temporary, self._unplaced))
            ):
                known = known._replace(temporary=True)
            if self._of_writer or _OF_WRITER_TABLES & set(map(str.lower, known.reads)):
                known = known._replace(of_writer=True)
            if len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[sql] = known
        return known

    def may_see_temporary(self, sql: str | None) -> bool:
        """Whether it matters that other connections have no temporary schema; None: who knows."""
        if not self.made_temporary:
            return False
        known = None if sql is None else self._known.get(sql)
        return known is None or known.temporary

    def forget(self) -> None:
        """The schema changed."""
        self._known.clear()

    @property
    def has_ddl(self) -> bool:
        """What `take_ddl` will say."""
        return self._ddl

    def take_ddl(self) -> bool:
        """Whether anything was prepared, since this was last asked, that changes the schema."""
        ddl, self._ddl = self._ddl, False
        return ddl

    def _authorize(
        self, action: int, one: str | None, two: str | None, db: str | None, within: str | None
    ) -> int:
        if self._actions is not None:
            self._actions.append((action, one, two, within))
            self._temporary |= db == "temp" or action == apsw.SQLITE_PRAGMA
            if action == apsw.SQLITE_READ and db is None and one:
                self._unplaced.add(one)
            self._of_writer |= (
                # Functions are told as the second, in any case.
                (action == apsw.SQLITE_FUNCTION and two in _OF_WRITER)
                or (action == apsw.SQLITE_PRAGMA and (one or "").lower() in _OF_WRITER_PRAGMAS)
            )
            # Most pragmas take effect when they are prepared, which is not yet meant here.
            return apsw.SQLITE_IGNORE if _sets(action, one, two) else apsw.SQLITE_OK
        if action == apsw.SQLITE_PRAGMA and _refusal(one, two) and one != "query_only":
            return apsw.SQLITE_DENY  # on the raw connection; but readers are made "query_only"
        if action == apsw.SQLITE_PRAGMA and one and two is not None:
            raw = self._connection
            if isinstance(raw, RawConnection) and raw.settings is not None:
                raw.settings.note_pragma(raw, one.lower(), two)
        if action in _DDL_ACTIONS:
            self._ddl = True
            # CREATE TABLE temp.t is not told as one of those: only the word TEMP makes it such.
            if db == "temp" or action in _CREATE_TEMPORARY:
                self.made_temporary = True
        return apsw.SQLITE_OK

    def _is_temporary(self, name: str) -> bool:
        """Whether that is a temporary table or view, which comes before others of its name."""
        if not self.made_temporary:
            return False
        if name.lower() in _TEMPORARY_SCHEMA:
            return True
        find = "SELECT 1 FROM temp.sqlite_master WHERE name = ? COLLATE NOCASE"
        return bool(self._connection.execute(find, (name,)).fetchall())

    def _prepare(self, sql: str) -> tuple[str, bool, bool, bool]:
        """(text of the first statement, read-only, EXPLAIN, anything to run)."""
        found: list[tuple[str, bool, bool, bool]] = []

        def stop(cursor: apsw.Cursor, text: str, _bindings: Any) -> bool:
            found.append((text, cursor.is_readonly, bool(cursor.is_explain), bool(cursor.has_vdbe)))
            return False

        cursor = self._connection.cursor()
        cursor.exec_trace = stop
        try:
            # Not from the cache: a prepared statement does not call the authorizer again.
            cursor.execute(sql, apsw._null_bindings, can_cache=False)  # type: ignore[attr-defined]
        except apsw.ExecTraceAbort:
            return found[0]
        finally:
            cursor.close(True)
        return sql, True, False, False

    def _analyse(self, sql: str) -> Statement:
        actions: list[tuple[int, str | None, str | None, str | None]] = []
        self._actions = actions
        try:
            text, readonly, explain, runs = self._prepare(sql)
            if not runs:
                raise ValueError(f"there is no statement in {sql!r}")
            self._actions = []
            rest = sql.strip()[len(text.strip()) :] if text != sql else ""
            if rest.strip(" \t\r\n;") and self._is_statement(rest):
                raise ValueError(
                    f"several statements in one call, none was run: {sql!r}; "
                    "call once for each, inside write_transaction() if they belong together"
                )
        finally:
            self._actions = None
        pragmas = [
            ((one or "").lower(), two)
            for action, one, two, _ in actions
            if action == apsw.SQLITE_PRAGMA
        ]
        for pragma, value in pragmas:
            if why := _refusal(pragma, value):
                raise ValueError(f"PRAGMA {pragma} {why}")
        sets = any(_sets(action, one, two) for action, one, two, _ in actions)
        if explain and not sets:
            return self._describe(sql, True, False, False, [])
        bare = alone = False
        for pragma, value in pragmas:
            if pragma in _WRITING_PRAGMAS and (value is not None or pragma == "optimize"):
                readonly = False
            elif sets:
                readonly, bare, alone = False, True, pragma == "foreign_keys"
            elif pragma == "journal_mode":
                readonly = True  # it only asks, whatever SQLite says of it
        for action, one, _two, _within in actions:
            if action in (apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT):
                raise ValueError(
                    f"{sql!r} controls a transaction; use write_transaction() or "
                    "read_transaction(), which also keep other tabs out"
                )
            if action == apsw.SQLITE_READ and (one or "").lower() == "pragma_optimize":
                readonly = False
        if _VACUUM_INTO.match(text):
            raise ValueError(
                f"{sql!r} would write a file beside all that holdfast knows of, with its triggers "
                "in it; a compact copy is made by export() or export_chunks()"
            )
        if _VACUUM.match(text):
            bare, alone, readonly = True, True, False
        elif any(action in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH) for action, *_ in actions):
            raise ValueError(
                f"{sql!r}: a connection has one database; open the other with holdfast.open()"
            )
        return self._describe(sql, readonly, bare, alone, actions)

    def _is_statement(self, sql: str) -> bool:
        try:
            return self._prepare(sql)[3]
        except apsw.SQLError:
            # It may need what the statement before it makes.
            return True

    def _describe(
        self,
        sql: str,
        readonly: bool,
        bare: bool,
        alone: bool,
        actions: list[tuple[int, str | None, str | None, str | None]],
    ) -> Statement:
        reads: set[str] = set()
        writes: set[str] = set()
        unhooked: set[str] = set()
        fires_triggers = ddl = False
        # CREATE TABLE … AS SELECT writes rows, too.
        selects = any(action == apsw.SQLITE_SELECT for action, *_ in actions)
        for action, one, two, within in actions:
            if action == apsw.SQLITE_READ and one:
                reads.add(one)
            elif action in (apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE) and one:
                writes.add(one)
                fires_triggers = fires_triggers or within is not None
            elif action == apsw.SQLITE_DELETE and one:
                unhooked.add(one)
                fires_triggers = fires_triggers or within is not None
            elif action in _DDL_ACTIONS:
                ddl = True
                if action in _DROP_TABLE and one:
                    unhooked.add(one)
                elif action == apsw.SQLITE_ALTER_TABLE and two:
                    unhooked.add(two)
                    if (renamed := _RENAME.search(sql)) is not None:
                        unhooked.add(unquote_name(renamed[1]))
                elif action in _CREATE_TABLE and selects and one:
                    unhooked.add(one)
        if writes and not ddl:
            unhooked |= writes & self._without_rowids()
        return Statement(
            sql=sql,
            readonly=readonly,
            bare=bare,
            alone=alone,
            fires_triggers=fires_triggers,
            ddl=ddl,
            reads=frozenset(reads),
            unhooked=frozenset(unhooked),
            view=self._view_write(actions) if fires_triggers else None,
        )

    def _view_write(
        self, actions: list[tuple[int, str | None, str | None, str | None]]
    ) -> ViewWrite | None:
        """What a write through a view comes to; None: it writes to a table."""
        writes = [(action, one, within) for action, one, _, within in actions if action in _WRITES]
        operation, target, _ = writes[0]
        find = (
            "SELECT name FROM main.sqlite_master WHERE type = 'view' AND name = :name "
            "COLLATE NOCASE UNION ALL SELECT name FROM temp.sqlite_master "
            "WHERE type = 'view' AND name = :name COLLATE NOCASE"
        )
        view = self._connection.execute(find, {"name": target}).get
        if view is None:
            return None
        for _, table, within in writes[1:]:
            if within:
                schemas = within.startswith("ps_view_") and within.endswith(f"__{view}")
                return ViewWrite(within, operation, table if schemas else None)
        return None

    def _without_rowids(self) -> set[str]:
        rows = self._connection.execute(
            "SELECT name FROM pragma_table_list WHERE wr OR type = 'virtual'"
        )
        return {name for (name,) in rows}


def _sets(action: int, one: str | None, two: str | None) -> bool:
    """Whether an authorizer's action is a pragma that sets something."""
    return (
        action == apsw.SQLITE_PRAGMA
        and two is not None
        and (one or "").lower() not in _ASKING_PRAGMAS
    )


def _refusal(pragma: str | None, value: str | None) -> str:
    """Why a pragma must not run; "" if it may."""
    name = (pragma or "").lower()
    if name == "wal_checkpoint" or (value is not None and name in _REFUSED_PRAGMAS):
        return "is set by holdfast, which relies on it; it cannot be changed"
    if name == "busy_timeout" and value is not None:
        return (
            f"= {value} would make SQLite sleep, and the event loop with it, while what it waits "
            "for may be a task of that loop; pass busy_timeout=, in seconds, to holdfast.open()"
        )
    if name == "page_size" and value is not None:
        return (
            f"= {value} changes nothing in a database with a WAL, nor does VACUUM after it; set it "
            "in an exported copy, VACUUM that, and import it"
        )
    if name == "synchronous" and value is not None and value.lower() not in _SYNCHRONOUS:
        return f"= {value} would let a power cut damage what other tabs committed; use NORMAL"
    return ""
