"""One apsw connection, as the rest of the package uses it: analysed statements, rows, changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import apsw

from . import interrupts
from .parameters import BINDING_ERRORS, explain, plain_many, plain_parameters
from .rows import ExecuteResult, Parameters, Row
from .settings import RawConnection, Settings
from .statements import Statement, Statements, ViewWrite

# What a transaction wrote: table (its real name) -> smallest rowid inserted, None where nothing
# was inserted or the table has no rowids.
Touched = dict[str, int | None]

# Results whose column names are remembered.
_KEPT = 500


class HookedChanges:
    """Collects what a connection wrote by SQLite's update hook, called for each row.

    What the hook says nothing of is `Statement.unhooked`.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._touched: Touched = {}
        self._rows: dict[tuple[str, int], int] = {}
        connection.set_update_hook(self._row)

    def _row(self, action: int, _db: str, table: str, rowid: int) -> None:
        self._rows[table, action] = self._rows.get((table, action), 0) + 1
        first = self._touched.get(table)
        if action == apsw.SQLITE_INSERT and (first is None or rowid < first):
            self._touched[table] = rowid
        elif first is None:
            self._touched[table] = None

    def take(self) -> Touched:
        """What was written since this was last asked."""
        touched, self._touched = self._touched, {}
        self._rows.clear()
        return touched

    def rows(self, table: str, operation: int) -> int:
        """How many rows of a table were written by that operation since `take`."""
        return self._rows.get((table, operation), 0)


class Connection:
    """A connection with its statements; every method is synchronous and takes no lease."""

    def __init__(
        self,
        connection: apsw.Connection,
        take_changes: Callable[[], Touched] | None = None,
        rows_written: Callable[[str, int], int] | None = None,
    ) -> None:
        self.raw = connection
        self.settings: Settings | None = None
        self.statements = Statements(connection)
        if take_changes is None or rows_written is None:
            hooked = HookedChanges(connection)
            take_changes, rows_written = hooked.take, hooked.rows
        self._take_changes, self._rows_written = take_changes, rows_written
        # Where the temporary triggers of this connection put their records.
        self.temporary_destinations: set[str] = set()
        # What has to be done around a statement that changes the schema.
        self.around_ddl: Callable[[str], AbstractContextManager[None]] = lambda _sql: nullcontext()
        self._columns: dict[Any, tuple[str, ...]] = {}
        self._unhooked: set[str] = set()
        interrupts.watch(connection)

    def share(self, settings: Settings | None) -> None:
        """From here on its settings and functions are those of the other connections, too."""
        self.settings = settings
        if isinstance(self.raw, RawConnection):
            self.raw.settings = settings

    def bring_up(self) -> None:
        """Have what was set on the other connections; under a lease."""
        if self.settings is not None and isinstance(self.raw, RawConnection):
            self.settings.bring_up(self.raw)

    def statement(self, sql: str) -> Statement:
        return self.statements.get(sql)

    def run(self, sql: str, params: Parameters = ()) -> list[tuple[Any, ...]]:
        """Straight to SQLite: several statements allowed, nothing checked."""
        cursor = self.raw.execute(sql, params)
        try:
            return cursor.fetchall()
        except UnicodeDecodeError as error:
            cursor.close(True)
            return self._decode(sql, params, error)

    run_sql = run

    def fetch(self, sql: str, params: Parameters, one: bool = False) -> list[Row]:
        """The rows, or the first one only."""
        params = plain_parameters(params, sql)
        try:
            cursor = self.raw.execute(sql, params)
        except BINDING_ERRORS as error:
            explain(error, self.raw, sql, params)
            raise
        try:
            try:
                description = cursor.get_description()
            except apsw.ExecutionCompleteError:
                return []
            columns = self._columns.get(description)
            if columns is None:
                columns = tuple(column[0] for column in description)
                if len(self._columns) > _KEPT:
                    self._columns.clear()
                self._columns[description] = columns
            try:
                if not one:
                    return [Row(columns, values) for values in cursor]
                first = cursor.fetchone()
                return [] if first is None else [Row(columns, first)]
            except UnicodeDecodeError as error:
                cursor.close(True)
                rows = self._decode(sql, params, error)
                return [Row(columns, values) for values in (rows[:1] if one else rows)]
        finally:
            # A statement that is left in the middle, by an error too, would keep its read open.
            cursor.close(True)

    def _decode(
        self, sql: str, params: Parameters, error: UnicodeDecodeError
    ) -> list[tuple[Any, ...]]:
        """The rows of a query some of whose texts are not UTF-8.

        Their other bytes are lone surrogates, as `bytes.decode(errors="surrogateescape")` has it,
        so nothing is lost, and what is read cannot be taken for a text and written back. Other
        programs store such texts, and CAST makes them. apsw reads one as a BLOB only, so the
        query is asked again, inside of another. `error` is raised for what cannot stand there, such
        as a statement that writes.
        """
        inner = sql.rstrip("; \t\r\n")
        try:
            width = len(self.raw.execute(f"SELECT * FROM (\n{inner}\n)", params).get_description())
            names = [f"c{number}" for number in range(width)]
            text = "typeof({0}) = 'text', iif(typeof({0}) = 'text', CAST({0} AS BLOB), {0})"
            texts = ", ".join(text.format(name) for name in names)
            rows: list[tuple[Any, ...]] = self.raw.execute(
                f"WITH found({', '.join(names)}) AS MATERIALIZED (\n{inner}\n) "
                f"SELECT {texts} FROM found",
                params,
            ).fetchall()
        except (apsw.SQLError, apsw.ExecutionCompleteError):
            raise error from None
        return [
            tuple(
                value.decode(errors="surrogateescape") if is_text else value
                for is_text, value in zip(row[::2], row[1::2], strict=True)
            )
            for row in rows
        ]

    def execute(self, statement: Statement, params: Parameters) -> ExecuteResult:
        """Run it to its end."""
        params = plain_parameters(params, statement.sql)
        try:
            if statement.ddl:
                with self.around_ddl(statement.sql):
                    return self._execute(statement, params)
            return self._execute(statement, params)
        except BINDING_ERRORS as error:
            explain(error, self.raw, statement.sql, params)
            raise

    def _execute(self, statement: Statement, params: Parameters) -> ExecuteResult:
        if statement.view is not None:
            with self._counting_view(statement.view) as written:
                for _ in self.raw.execute(statement.sql, params):
                    pass
            return ExecuteResult(written(), self.raw.last_insert_rowid())
        before = self.raw.total_changes()
        for _ in self.raw.execute(statement.sql, params):
            pass
        return self._result(statement, before, None)

    def execute_many(self, statement: Statement, many: Iterable[Parameters]) -> ExecuteResult:
        """Run it once for each of `many`."""
        plain = plain_many(many, statement.sql)
        try:
            if statement.ddl:
                with self.around_ddl(statement.sql):
                    return self._execute_many(statement, plain)
            return self._execute_many(statement, plain)
        except BINDING_ERRORS as error:
            explain(error, self.raw, statement.sql, plain.params, plain.number)
            raise

    def _execute_many(self, statement: Statement, many: Iterable[Parameters]) -> ExecuteResult:
        if statement.view is not None:
            with self._counting_view(statement.view) as written:
                for _ in self.raw.executemany(statement.sql, many):
                    pass
            return ExecuteResult(written(), self.raw.last_insert_rowid())
        before = self.raw.total_changes()
        counted: list[int] | None = None
        if statement.fires_triggers:
            counted = [0]
            many = self._counting(many, counted)
        for _ in self.raw.executemany(statement.sql, many):
            pass
        if counted is not None:
            counted[0] += self.raw.changes()
        return self._result(statement, before, counted, many=True)

    @contextmanager
    def _counting_view(self, view: ViewWrite) -> Iterator[Callable[[], int]]:
        """Around a write through a view: SQLite counts no rows of a view."""
        raw = self.raw
        if view.base is not None:
            base, operation = view.base, view.operation
            before = self._rows_written(base, operation)
            yield lambda: self._rows_written(base, operation) - before
            return
        # A view of the application's own: its trigger runs once for each row, and what it writes
        # is its own affair. A row that led to any write at all is counted.
        written, total = 0, raw.total_changes()

        def look() -> int:
            nonlocal written, total
            if raw.total_changes() != total:
                total = raw.total_changes()
                written += 1
            return written

        def entered(event: dict[str, Any]) -> None:
            if event["sql"] == f"TRIGGER {view.trigger}":
                look()

        raw.trace_v2(apsw.SQLITE_TRACE_STMT, entered, id=self)
        try:
            yield look
        finally:
            raw.trace_v2(0, None, id=self)

    def _counting(self, many: Iterable[Parameters], counted: list[int]) -> Iterator[Parameters]:
        # Between two rows, changes() is what the row before changed by itself.
        first = True
        for params in many:
            if not first:
                counted[0] += self.raw.changes()
            first = False
            yield params

    def _result(
        self, statement: Statement, before: int, counted: list[int] | None, many: bool = False
    ) -> ExecuteResult:
        raw = self.raw
        difference = raw.total_changes() - before
        if difference or statement.ddl:
            self.note_unhooked(statement)
        if counted is not None:
            changes = counted[0] if difference else 0
        elif many:
            changes = difference
        else:
            changes = raw.changes() if difference else 0
        return ExecuteResult(changes, raw.last_insert_rowid())

    def note_unhooked(self, statement: Statement) -> None:
        """`statement` changed something that the update hook may not have told."""
        self._unhooked |= statement.unhooked

    def take_touched(self) -> Touched:
        """What was written since this was last asked."""
        touched = self._take_changes()
        for table in self._unhooked:
            touched.setdefault(table, None)
        self._unhooked.clear()
        return touched

    def close(self) -> None:
        self.raw.close(True)
