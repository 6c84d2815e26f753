"""What is done to a database while faults happen, and what must be true of it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import apsw
from simulated_opfs import EXCLUSIVE, WRITE, Library

from faults.client import Client, dump
from faults.disk import Crash, Disk

State = tuple[object, ...]
NOTHING: State = ()


@dataclass(frozen=True)
class Step:
    """what: "write", "rollback", "checkpoint", "restart", "alone" (outside of transactions) or
    "reopen"."""

    what: str
    who: int
    statements: tuple[str, ...] = ()
    level: int = WRITE


def write(who: int, *statements: str, level: int = WRITE) -> Step:
    return Step("write", who, statements, level)


def fill(first: int, n: int, size: int) -> str:
    """`n` rows, the same ones each time."""
    return (
        f"WITH RECURSIVE i(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM i "
        f"WHERE n < {first + n - 1}) INSERT INTO t(id, v, pad) "
        f"SELECT n, n * 7 % 13, substr(printf('%0{size}d', n * 31), 1, {size}) FROM i"
    )


PASSIVE, TRUNCATE = str(apsw.SQLITE_CHECKPOINT_PASSIVE), str(apsw.SQLITE_CHECKPOINT_TRUNCATE)

# Tab 0 makes the database; both write by turns. The page cache has five pages, so whatever is more
# goes to the WAL before its transaction commits.
WORKLOAD: tuple[Step, ...] = (
    write(0, "CREATE TABLE t(id INTEGER PRIMARY KEY, v, pad)", "CREATE INDEX tv ON t(v)"),
    write(0, fill(1, 20, 150)),
    write(1, "UPDATE t SET v = 100 WHERE id = 3"),
    write(0, fill(100, 60, 500), "UPDATE t SET v = v + 1"),
    Step("rollback", 1, (fill(300, 70, 500), "UPDATE t SET pad = 'no', v = -1", "DELETE FROM t")),
    write(1, "UPDATE t SET v = 5 WHERE id = 4"),
    write(
        0,
        "SAVEPOINT outer",
        "UPDATE t SET pad = pad || 'x', v = 2",
        "ROLLBACK TO outer",
        fill(200, 20, 400),
        "UPDATE t SET v = 9 WHERE id % 3 = 0",
        "RELEASE outer",
    ),
    Step("checkpoint", 1, (PASSIVE,)),
    # On at the end of the WAL: without the exclusive lease it may not restart.
    write(1, "INSERT INTO t VALUES(1000, 1, 'a')"),
    Step("checkpoint", 0, (PASSIVE,)),
    # From here it restarts, shorter than it was: frames of the old generation lie behind.
    write(0, "INSERT INTO t VALUES(1001, 1, 'b')", level=EXCLUSIVE),
    write(1, "DELETE FROM t WHERE id = 1000"),
    write(0, "UPDATE t SET v = v + 1 WHERE id < 40"),
    # Begun anew in place, after which a writer needs no exclusive lease to go on from there.
    Step("restart", 1),
    write(0, "UPDATE t SET v = v + 1 WHERE id BETWEEN 5 AND 12"),
    write(1, "INSERT INTO t VALUES(1002, 1, zeroblob(1500))"),
    Step("restart", 1),
    # Pages of one long value: they are not read again, so that most were only gathered.
    Step("rollback", 0, (fill(400, 70, 500), "INSERT INTO t VALUES(900, 0, zeroblob(40000))")),
    write(1, "UPDATE t SET v = v + 1 WHERE id < 30"),
    write(0, "UPDATE t SET v = v + 1 WHERE id < 20"),
    write(1, "ALTER TABLE t ADD COLUMN more", "CREATE TABLE s(a PRIMARY KEY, b) WITHOUT ROWID"),
    write(1, "INSERT INTO s SELECT id, v FROM t", "DROP INDEX tv"),
    Step("reopen", 1),
    write(1, "DELETE FROM t WHERE id BETWEEN 100 AND 130"),
    Step("alone", 0, ("VACUUM",)),
    write(1, "UPDATE s SET b = 'after' WHERE a < 10"),
    Step("checkpoint", 1, (PASSIVE,)),
    # The restart is taken back with the transaction that made it.
    Step("rollback", 1, (fill(500, 70, 500), "UPDATE t SET pad = zeroblob(900)"), EXCLUSIVE),
    # It left the new header behind, from which another tab goes on.
    write(0, "UPDATE s SET b = 'begun by another' WHERE a < 7"),
    write(1, "UPDATE s SET b = 'then' WHERE a < 5"),
    Step("checkpoint", 0, (TRUNCATE,)),
    write(0, "INSERT INTO s VALUES(-1, 'begun anew')"),
    Step("reopen", 0),
    write(0, "INSERT INTO s VALUES(-2, 'the last')"),
)


class Model:
    """The same statements on a database in memory, where nothing goes wrong."""

    def __init__(self) -> None:
        self.connection = apsw.Connection(":memory:")
        self.state = NOTHING

    def begin(self, statements: Sequence[str]) -> State | None:
        """The state that they lead to; None if SQLite refuses one of them."""
        self.connection.execute("BEGIN")
        try:
            for statement in statements:
                self.connection.execute(statement)
        except apsw.SQLError:
            self.connection.execute("ROLLBACK")
            return None
        return dump(self.connection)

    def end(self, committed: bool) -> None:
        if self.connection.in_transaction:
            self.connection.execute("COMMIT" if committed else "ROLLBACK")
        self.state = dump(self.connection)


class Run:
    """A workload on a disk. The journal's marks are ("began" | "done", number of states)."""

    def __init__(
        self,
        library: Library,
        disk: Disk,
        *,
        synchronous: str = "FULL",
        page_size: int = 1024,
        keeps: bool = True,
        cache: int = 5,
    ) -> None:
        self.library = library
        self.disk = disk
        self.synchronous = synchronous
        self.page_size = page_size
        self.keeps = keeps
        self.cache = cache
        self.origin: list[Client] = []
        self.clients: dict[int, Client] = {}
        self.model = Model()
        self.states: list[State] = [NOTHING]

    def client(self, who: int) -> Client:
        if who not in self.clients:
            client = Client(
                self.library,
                self.disk,
                synchronous=self.synchronous,
                page_size=self.page_size,
                origin=self.origin,
                keeps=self.keeps,
            )
            client.connection.execute(f"PRAGMA cache_size = {self.cache}")
            self.clients[who] = client
        return self.clients[who]

    def step(self, step: Step) -> None:
        """Do it; what it raises is the caller's."""
        if step.what == "reopen":
            if step.who in self.clients:
                self.clients.pop(step.who).close()
            self.client(step.who)
        elif step.what == "checkpoint":
            self.client(step.who).checkpoint(int(step.statements[0]))
        elif step.what == "restart":
            self.client(step.who).restart()
        elif step.what == "alone":
            self.client(step.who).alone(*step.statements)
        elif step.what == "rollback":
            self.client(step.who).write(*step.statements, level=step.level, commit=False)
        else:
            self._write(step)

    def _write(self, step: Step) -> None:
        client = self.client(step.who)
        after = self.model.begin(step.statements)
        assert after is not None, step
        self.states.append(after)
        self.disk.mark(("began", len(self.states) - 1))
        client.write(*step.statements, level=step.level)
        self.disk.mark(("done", len(self.states) - 1))
        self.model.end(True)

    def all(self, steps: Sequence[Step] = WORKLOAD) -> Run:
        for step in steps:
            self.step(step)
            for client in list(self.origin):
                assert client.dump() == self.model.state, step
        self.close()
        return self

    def close(self) -> None:
        for client in list(self.origin):
            client.close()
        self.clients.clear()


def allowed_after(crash: Crash, *, durable: bool) -> tuple[int, int]:
    """The first and the last state that may be found: the last acknowledged, the last begun.

    durable: False where what was acknowledged may be lost: synchronous=normal after a power cut.
    """
    began = max((n for what, n in crash.marks if what == "began"), default=0)  # type: ignore[misc]
    done = max((n for what, n in crash.marks if what == "done"), default=0)  # type: ignore[misc]
    return (done if durable else 0), began


def check_recovery(library: Library, disk: Disk, allowed: Sequence[State]) -> State:
    """Two new tabs find one of the allowed states, whole, and go on from there."""
    origin: list[Client] = []
    try:
        first = Client(library, disk, origin=origin)
        assert first.read("PRAGMA integrity_check") == [("ok",)]
        found = first.dump()
        assert found in allowed, describe(found, allowed)
        second = Client(library, disk, origin=origin, keeps=True)
        assert second.dump() == found
        first.write("CREATE TABLE after(x)", "INSERT INTO after VALUES(1)")
        assert second.dump() == (expected := first.dump()) != found
        assert second.checkpoint()[0] >= 0
        second.write("INSERT INTO after VALUES(2), (zeroblob(9000))", level=EXCLUSIVE)
        assert first.read("SELECT count(*) FROM after") == [(3,)]
        first.write("DELETE FROM after WHERE x <> 1")
        assert second.dump() == expected
        assert second.read("PRAGMA integrity_check") == [("ok",)]
        second.close()
        first.close()
        return found
    finally:
        for client in list(origin):
            client.die()


def describe(found: State, allowed: Sequence[State]) -> str:
    """What an assertion says: states are long."""
    return f"found {str(found)[:400]}, which is none of {[str(state)[:200] for state in allowed]}"
