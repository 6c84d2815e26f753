"""A database in blocks: what SQLite writes, how a commit is made in two steps, what readers see."""

from __future__ import annotations

import random
from collections.abc import Iterator

import apsw
import pytest

from holdfast.storage.indexeddb.blocks import BLOCK, JOURNAL, Blocks, joined, split


@pytest.fixture
def blocks() -> Iterator[Blocks]:
    blocks = Blocks("a.db", [], 0)
    yield blocks
    blocks.close()


def connect(blocks: Blocks, page_size: int = 4096) -> apsw.Connection:
    raw = blocks.connect_writer()
    raw.execute(f"{JOURNAL}; PRAGMA temp_store = MEMORY; PRAGMA page_size = {page_size}").fetchall()
    return raw


def commit(blocks: Blocks, raw: apsw.Connection) -> dict[int, bytes]:
    """What is written for it."""
    if not blocks.prepare(raw):
        return {}
    assert raw.in_transaction
    batch, size = dict(blocks.pending), blocks.size
    raw.execute("COMMIT")
    assert not raw.in_transaction
    assert (blocks.pending, blocks.size) == (batch, size), "the last step writes nothing"
    blocks.accept()
    return batch


def contents(image: bytes) -> list[tuple[object, ...]]:
    """All that is in a database, which is sound."""
    raw = apsw.Connection(":memory:")
    if image:
        raw.deserialize("main", image)
    assert raw.execute("PRAGMA integrity_check").get == "ok"
    schema = raw.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()
    return [
        *schema,
        *(
            row
            for kind, name, _ in schema
            if kind == "table"
            for row in raw.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()
        ),
    ]


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("seed", range(6))
def test_what_is_written_is_what_sqlite_has(blocks: Blocks, page_size: int, seed: int) -> None:
    """Any transactions, a small cache that spills, some of them undone at the last moment.

    `disk` gets nothing but each commit's batch and size.
    """
    chance = random.Random(seed)
    raw = connect(blocks, page_size)
    raw.execute(f"PRAGMA cache_size = 10; PRAGMA auto_vacuum = {seed % 3}").fetchall()
    plain = apsw.Connection(":memory:")
    disk: dict[int, bytes] = {}
    statements = [
        lambda: f"INSERT INTO t(v) VALUES(zeroblob({chance.randrange(9000)}))",
        lambda: "INSERT INTO t(v) SELECT hex(zeroblob(1000)) FROM t LIMIT 30",
        lambda: f"DELETE FROM t WHERE id % {chance.randrange(1, 9)} = 0",
        lambda: f"UPDATE t SET v = {chance.randrange(99)} WHERE id > {chance.randrange(50)}",
        lambda: "DROP TABLE IF EXISTS u",
        lambda: "CREATE TABLE IF NOT EXISTS u AS SELECT * FROM t",
        lambda: "DELETE FROM t",
    ]
    with plain:
        plain.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    raw.execute("BEGIN IMMEDIATE; CREATE TABLE t(id INTEGER PRIMARY KEY, v)").fetchall()
    disk |= commit(blocks, raw)
    for _ in range(60):
        chosen = [chance.choice(statements)() for _ in range(chance.randrange(1, 5))]
        kept = chance.random() < 0.8
        if chance.random() < 0.1:
            raw.execute("VACUUM")
            disk |= blocks.pending
            blocks.accept()
        raw.execute("BEGIN IMMEDIATE")
        for sql in chosen:
            raw.execute(sql)
            if kept:
                plain.execute(sql)
        if kept:
            disk |= commit(blocks, raw)
        else:
            # Half of them as a commit that could not be made durable.
            if chance.random() < 0.5:
                blocks.prepare(raw)
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            blocks.discard()
        count = -(-blocks.image.size // BLOCK)
        disk = {number: block for number, block in disk.items() if number < count}
        assert [disk[number] for number in range(count)] == blocks.image.blocks
    wanted = contents(plain.serialize("main"))
    assert contents(joined(blocks.image.size, blocks.image.blocks)) == wanted
    raw.close(True)
    plain.close(True)


def test_a_commit_that_is_undone_undoes_temporary_tables_too(blocks: Blocks) -> None:
    raw = connect(blocks)
    raw.execute(
        "CREATE TABLE t(v); CREATE TEMP TABLE d(v); "
        "CREATE TEMP TRIGGER record AFTER INSERT ON main.t BEGIN INSERT INTO d VALUES(NEW.v); END"
    ).fetchall()
    blocks.accept()
    raw.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES(1); CREATE TABLE u(v)").fetchall()
    assert blocks.prepare(raw) and raw.in_transaction
    raw.execute("ROLLBACK")
    blocks.discard()
    assert raw.execute("SELECT count(*) FROM t, d").get == 0
    assert raw.execute("SELECT count(*) FROM sqlite_master").get == 1
    raw.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES(2)").fetchall()
    assert commit(blocks, raw)
    assert raw.execute("SELECT t.v, d.v FROM t, d").get == (2, 2)
    raw.close(True)


def test_what_writes_nothing_to_the_database_is_committed_at_once(blocks: Blocks) -> None:
    raw = connect(blocks)
    raw.execute("CREATE TABLE t(v)")
    blocks.accept()
    raw.execute("CREATE TEMP TABLE d(v); BEGIN IMMEDIATE; INSERT INTO d VALUES(1)").fetchall()
    assert not blocks.prepare(raw)
    assert not raw.in_transaction and not blocks.changed
    raw.close(True)


def test_what_virtual_tables_write_as_they_are_synced_is_in_the_batch(blocks: Blocks) -> None:
    raw = connect(blocks)
    raw.execute("CREATE VIRTUAL TABLE f USING fts5(v)")
    blocks.accept()
    raw.execute("BEGIN IMMEDIATE; INSERT INTO f VALUES('hello')").fetchall()
    before = list(blocks.image.blocks)
    for number, block in commit(blocks, raw).items():
        before[number : number + 1] = [block]
    plain = apsw.Connection(":memory:")
    plain.deserialize("main", joined(blocks.size, before))
    assert plain.execute("SELECT count(*) FROM f('hello')").get == 1
    raw.close(True)


def test_an_error_of_the_commit_itself_is_not_taken_for_the_first_step(blocks: Blocks) -> None:
    raw = connect(blocks)
    raw.execute(
        "PRAGMA foreign_keys = ON; CREATE TABLE t(id INTEGER PRIMARY KEY); "
        "CREATE TABLE u(t REFERENCES t DEFERRABLE INITIALLY DEFERRED); "
        "BEGIN IMMEDIATE; INSERT INTO u VALUES(1)"
    ).fetchall()
    with pytest.raises(apsw.ConstraintError):
        blocks.prepare(raw)
    raw.execute("ROLLBACK")
    raw.close(True)


def test_a_reader_sees_what_was_committed_when_it_began(blocks: Blocks) -> None:
    raw = connect(blocks)
    raw.execute("BEGIN IMMEDIATE; CREATE TABLE t(v)").fetchall()
    commit(blocks, raw)
    old, new = blocks.connect_reader(), blocks.connect_reader()
    old.execute("BEGIN; SELECT * FROM t").fetchall()
    image = blocks.image
    raw.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES(1)").fetchall()
    assert blocks.prepare(raw)
    assert new.execute("SELECT count(*) FROM t").get == 0, "it is not durable yet"
    blocks.finish(raw)
    assert blocks.image is not image, "somebody reads the old one"
    assert old.execute("SELECT count(*) FROM t").get == 0
    assert new.execute("SELECT count(*) FROM t").get == 1
    old.execute("COMMIT")
    assert old.execute("SELECT count(*) FROM t").get == 1

    image = blocks.image
    raw.execute("BEGIN IMMEDIATE; DROP TABLE t").fetchall()
    commit(blocks, raw)
    assert blocks.image is image, "nobody reads, so nothing is copied"
    with pytest.raises(apsw.SQLError, match="no such table"):
        new.execute("SELECT * FROM t")
    with pytest.raises(apsw.ReadOnlyError):
        new.execute("CREATE TABLE u(v)")
    for connection in (raw, old, new):
        connection.close(True)


@pytest.mark.parametrize("seed", range(20))
def test_the_writers_file_is_a_file(blocks: Blocks, seed: int) -> None:
    """Any writes and truncations, as a bytearray has them."""
    chance = random.Random(seed)
    plain = bytearray()
    for _ in range(300):
        match chance.randrange(5):
            case 0:
                size = chance.randrange(5 * BLOCK)
                blocks.truncate(size)
                plain[:] = plain[:size].ljust(size, b"\0")
            case 1:
                blocks.accept()
            case _:
                at = chance.choice([chance.randrange(6 * BLOCK), chance.randrange(6) * BLOCK])
                data = chance.randbytes(chance.choice([BLOCK, chance.randrange(1, 3 * BLOCK)]))
                blocks.write(data, at)
                plain[:] = plain.ljust(at, b"\0")
                plain[at : at + len(data)] = data
        assert blocks.size == len(plain)
        at, n = chance.randrange(6 * BLOCK), chance.randrange(3 * BLOCK)
        assert blocks.read(at, n) == plain[at : at + n]
    blocks.accept()
    assert joined(blocks.image.size, blocks.image.blocks) == plain
    assert blocks.image.blocks == split(bytes(plain))
    assert blocks.image.read(5, 2 * BLOCK) == plain[5 : 5 + 2 * BLOCK]
