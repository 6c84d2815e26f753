"""Exports, imports and deletions on CPython; killed at each step they leave the old or the new."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from patience import PATIENCE

import holdfast
from holdfast import (
    Column,
    DatabaseBusyError,
    NestedTransactionError,
    NotADatabaseError,
    Schema,
    StorageUnavailableError,
    Table,
)
from holdfast.storage.file import storage as file
from holdfast.storage.file.store import FileStore

pytestmark = pytest.mark.everywhere

ALL = {"INSERT": "TRUE", "UPDATE": "TRUE", "DELETE": "TRUE"}
LISTS = Schema([Table("lists", [Column.text("name")])])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a folder of its own as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image(*statements: str, rows: int = 0, mode: str = "delete") -> bytes:
    """The bytes of a database as another program makes it."""
    name = f"made-{random.getrandbits(64)}"
    with contextlib.closing(apsw.Connection(name)) as made:
        made.execute(f"PRAGMA journal_mode = {mode}")
        for statement in statements:
            made.execute(statement)
        if rows:
            made.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
            with made:
                made.executemany(
                    "INSERT INTO t(v) VALUES(?)", ((random.randbytes(1500),) for _ in range(rows))
                )
    data = Path(name).read_bytes()
    Path(name).unlink()
    return data


async def fill(name: str, mark: str, rows: int = 100, storage: str = "auto") -> holdfast.Database:
    db = await holdfast.open(name, storage=storage)
    await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, mark, pad)")
    await db.execute_many("INSERT INTO t(mark, pad) VALUES(?, zeroblob(2000))", [(mark,)] * rows)
    return db


async def marks(name: str) -> list[tuple[str, int]]:
    async with holdfast.open(name) as db:
        assert await db.fetch_value("PRAGMA integrity_check") == "ok"
        rows = await db.fetch_all("SELECT mark, count(*) FROM t GROUP BY 1")
        return [tuple(row) for row in rows]


def objects(data: bytes) -> set[str]:
    with contextlib.closing(sqlite3.connect(":memory:")) as plain:
        plain.deserialize(data)
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = {name for (name,) in plain.execute("SELECT name FROM sqlite_master")}
        # SQLite's own, which stays once there was an AUTOINCREMENT.
        return found - {"sqlite_sequence"}


# -- export ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["file", "memory"])
async def test_an_export_is_a_plain_sqlite_file(storage: str) -> None:
    async with await fill("a.db", "x", storage=storage) as db:
        data = await db.export()
        assert data[:20] == b"SQLite format 3\0\x10\x00\x01\x01"
        assert objects(data) == {"t"}
        with contextlib.closing(sqlite3.connect(":memory:")) as plain:
            plain.deserialize(data)
            found = plain.execute("SELECT mark, count(*), sum(length(pad)) FROM t").fetchall()
        assert found == [("x", 100, 200_000)]
        # It is the caller's: what is written later does not change it, nor the other way round.
        await db.execute("DELETE FROM t")
        assert objects(data) == {"t"}


@pytest.mark.parametrize("storage", ["file", "memory"])
@pytest.mark.parametrize("persist", [True, False])
async def test_an_export_has_nothing_of_managed_triggers(storage: str, persist: bool) -> None:
    async with holdfast.open("a.db", storage=storage, schema=LISTS) as db:
        await db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        await db.execute("CREATE TABLE log(v)")
        await db.execute(
            "CREATE TRIGGER own AFTER INSERT ON t BEGIN INSERT INTO log VALUES(1); END"
        )
        await db.execute("INSERT INTO lists(id, name) VALUES('1', 'errands')")
        for source in ("t", "lists"):
            await db.triggers.create_diff_trigger(
                source=source,
                destination=f"{source}_diff",
                when={"INSERT": "TRUE", "DELETE": "TRUE"},
                persist=persist,
            )
        await db.execute("INSERT INTO t(v) VALUES('a secret that was recorded')")
        await db.execute("DELETE FROM t")
        await db.execute("VACUUM")
        before = await db.fetch_all("SELECT name FROM sqlite_master ORDER BY 1")
        data = await db.export()
        assert await db.fetch_all("SELECT name FROM sqlite_master ORDER BY 1") == before

        found = objects(data)
        assert {"t", "log", "own", "lists", "ps_data__lists", "ps_crud"} <= found
        assert not {name for name in found if "diff" in name or name.startswith("holdfast_")}
        assert "ps_kv" not in found
        if persist:
            assert any(row[0].startswith("holdfast_") for row in before)
        # Neither is what they recorded to be read among the free pages.
        assert b"a secret that was recorded" not in data
        with contextlib.closing(sqlite3.connect(":memory:")) as plain:
            plain.deserialize(data)
            plain.execute("INSERT INTO t(v) VALUES(1)")
            plain.execute("INSERT INTO lists(id, name) VALUES('2', 'more')")
            assert plain.execute("SELECT count(*) FROM log").fetchone() == (2,)
            assert plain.execute("SELECT count(*) FROM ps_crud").fetchone() == (2,)


@pytest.mark.parametrize("storage", ["file", "memory"])
async def test_an_export_is_compact(storage: str) -> None:
    """Records of a tracker that came and went leave free pages behind."""
    async with holdfast.open("a.db", storage=storage) as db:
        await db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        await db.execute("CREATE TABLE keyless(v)")
        await db.execute_many("INSERT INTO keyless VALUES(?)", [("a",), ("b",), ("c",)])
        await db.execute("DELETE FROM keyless WHERE v = 'b'")
        await db.execute("PRAGMA user_version = 7")
        await db.triggers.create_diff_trigger(source="t", destination="t_diff", when=ALL)
        many = [("x" * 3000,)] * 500
        await db.execute_many("INSERT INTO t(v) VALUES(?)", many)
        await db.execute("DELETE FROM t WHERE id > 1")
        data = await db.export()
    assert len(data) < 50_000
    with contextlib.closing(sqlite3.connect(":memory:")) as plain:
        plain.deserialize(data)
        assert plain.execute("PRAGMA freelist_count").fetchone() == (0,)
        assert plain.execute("PRAGMA user_version").fetchone() == (7,)
        assert plain.execute("SELECT count(*) FROM t").fetchone() == (1,)
        # Rows without a key of their own keep their numbers.
        if storage == "file":
            found = plain.execute("SELECT rowid, v FROM keyless").fetchall()
            assert found == [(1, "a"), (3, "c")]


async def test_an_export_that_cannot_be_made_compact_is_made_all_the_same() -> None:
    made = apsw.Connection("a.db")
    made.create_collation("shouting", lambda a, b: (a > b) - (a < b))
    made.execute("CREATE TABLE c(x COLLATE shouting); CREATE INDEX i ON c(x)")
    made.execute("INSERT INTO c VALUES('b'), ('a')")
    made.close()
    async with await fill("a.db", "x", 500) as db:
        await db.execute("DELETE FROM t WHERE id > 1")
        data = await db.export()
    with contextlib.closing(sqlite3.connect(":memory:")) as plain:
        plain.deserialize(data)
        assert plain.execute("SELECT mark FROM t").fetchall() == [("x",)]


async def test_an_export_is_one_snapshot_beside_writers() -> None:
    async with await fill("a.db", "x", 2000) as db, holdfast.open("a.db") as other:

        async def write() -> None:
            while True:
                async with other.write_transaction() as tx:
                    for _ in range(2):
                        await tx.execute("INSERT INTO t(mark, pad) VALUES('y', zeroblob(5000))")
                await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        seen = set()
        for _ in range(5):
            data = await db.export()
            with contextlib.closing(sqlite3.connect(":memory:")) as plain:
                plain.deserialize(data)
                seen.add(plain.execute("SELECT count(*) FROM t WHERE mark = 'y'").fetchone()[0])
                assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not writing.done()
        writing.cancel()
        # Others wrote meanwhile, and nothing of theirs is there by half.
        assert len(seen) > 1
        assert {n % 2 for n in seen} == {0}


async def test_progress_is_told_of_and_ends_at_the_size() -> None:
    async with await fill("a.db", "x", 3000) as db:
        told: list[tuple[int, int | None]] = []
        data = await db.export(on_progress=lambda *each: told.append(each))
        assert told == sorted(told)
        assert told[-1] == (len(data), len(data))
        assert len(told) > 2 * len(data) / 2**21
        with pytest.raises(TypeError, match="on_progress"):
            await db.export(on_progress=1)  # type: ignore[arg-type]
    told.clear()
    await holdfast.import_database("b.db", data, on_progress=lambda *each: told.append(each))
    assert told == sorted(told)
    assert told[-1] == (len(data), len(data))
    assert len(told) > 2 * len(data) / 2**21


async def test_progress_of_a_compact_export_never_goes_back() -> None:
    async with holdfast.open("a.db") as db:
        await db.execute("CREATE TABLE t(v)")
        await db.execute_many("INSERT INTO t VALUES(zeroblob(50000))", [()] * 100)
        await db.execute("DELETE FROM t WHERE rowid > 30")
        told: list[tuple[int, int | None]] = []
        data = await db.export(on_progress=lambda *each: told.append(each))
    done = [each[0] for each in told]
    assert done == sorted(done)
    assert len(done) > 4
    assert told[-1] == (len(data), len(data))


async def test_an_export_in_parts_leaves_nothing_behind(folder: Path) -> None:
    async with await fill("a.db", "x", 3000) as db:
        whole = await db.export()
        before = set(os.listdir())
        async with contextlib.aclosing(db.export_chunks()) as chunks:  # type: ignore[type-var]
            parts = [chunk async for chunk in chunks]
        assert b"".join(parts) == whole
        assert {len(part) for part in parts[:-1]} == {2**20}
        async with contextlib.aclosing(db.export_chunks()) as chunks:  # type: ignore[type-var]
            await anext(chunks)
            assert set(os.listdir()) != before
        assert set(os.listdir()) == before


async def test_an_export_inside_a_transaction_would_wait_for_it() -> None:
    for storage in ("file", "memory"):
        async with await fill("a.db", "x", storage=storage) as db, db.write_transaction():
            with pytest.raises(NestedTransactionError):
                await db.export()


# -- import ---------------------------------------------------------------------------------------


async def parts_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        await asyncio.sleep(0)
        yield data[at : at + size]


@pytest.mark.parametrize(
    "form",
    [
        lambda data: data,
        bytearray,
        lambda data: memoryview(data)[:],
        io.BytesIO,
        lambda data: [data[:7], b"", data[7:100], data[100:]],
        lambda data: iter([data]),
        lambda data: parts_of(data, 3333),
    ],
    ids=["bytes", "bytearray", "memoryview", "file", "list", "iterator", "async iterator"],
)
async def test_what_an_import_takes(form: Any) -> None:
    data = image(rows=1000)
    await holdfast.import_database("a.db", form(data))
    async with holdfast.open("a.db") as db:
        assert await db.fetch_value("SELECT sum(length(v)) FROM t") == 1_500_000
    assert set(os.listdir()) == {"a.db"}


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("old", [None, 512, 65536])
async def test_an_import_replaces_all(mode: str, page_size: int, old: int | None) -> None:
    if old is not None:
        Path("a.db").write_bytes(image(f"PRAGMA page_size = {old}", "CREATE TABLE o(x)", rows=50))
        async with holdfast.open("a.db") as db:
            await db.execute("DELETE FROM t WHERE id > 40")
    data = image(f"PRAGMA page_size = {page_size}", "CREATE TABLE n(x)", rows=40, mode=mode)
    await holdfast.import_database("a.db", data)
    with contextlib.closing(sqlite3.connect("a.db")) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        names = [row[0] for row in plain.execute("SELECT name FROM sqlite_master ORDER BY 1")]
        assert (names, plain.execute("SELECT count(*) FROM t").fetchone()) == (["n", "t"], (40,))
    async with holdfast.open("a.db") as db:
        assert await db.fetch_value("SELECT count(*) FROM t") == 40


@pytest.mark.parametrize("new", ["UTF-8", "UTF-16le", "UTF-16be"])
@pytest.mark.parametrize("old", ["UTF-8", "UTF-16le", "UTF-16be"])
async def test_an_import_replaces_a_database_of_any_text_encoding(old: str, new: str) -> None:
    for encoding, text in ((old, "old"), (new, "é😀")):
        data = image(
            f"PRAGMA encoding = '{encoding}'",
            "CREATE TABLE t(v)",
            f"INSERT INTO t VALUES('{text}')",
        )
        await holdfast.import_database("a.db", data)
        assert os.listdir() == ["a.db"]
        async with holdfast.open("a.db") as db:
            assert await db.fetch_value("PRAGMA encoding") == encoding
            assert await db.fetch_value("SELECT v FROM t") == text
            assert await db.fetch_value("PRAGMA integrity_check") == "ok"


def damaged() -> Iterator[tuple[str, bytes]]:
    data = image(rows=200)
    page = bytearray(data)
    page[4096 * 20 : 4096 * 21] = random.Random(1).randbytes(4096)
    yield "empty", b""
    yield "one byte", b"S"
    yield "text", b"this is no database " * 500
    yield "header alone", data[:16]
    yield "a hundred bytes", data[:100]
    yield "cut short", data[:-4096]
    yield "cut inside a page", data[: len(data) // 2 + 100]
    yield "a page of noise", bytes(page)
    # Two indexes with each other's entries: each page by itself is sound.
    crossed = [
        f"CREATE TABLE {name}(x); CREATE INDEX {name}i ON {name}(x); "
        f"INSERT INTO {name} VALUES('{name}')"
        for name in "ab"
    ]
    crossing = (
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = "
        "(SELECT sum(rootpage) FROM sqlite_master WHERE name IN ('ai', 'bi')) - rootpage "
        "WHERE name IN ('ai', 'bi')"
    )
    yield "crossed indexes", image(*crossed, crossing)
    yield "later version", data[:18] + b"\x09\x09" + data[20:]
    yield (
        "a schema that is no SQL",
        image("CREATE TABLE f(x)").replace(b"CREATE TABLE f(x)", b"CREATE TABLE f(x "),
    )


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "one byte",
        "text",
        "header alone",
        "a hundred bytes",
        "cut short",
        "cut inside a page",
        "a page of noise",
        "crossed indexes",
        "later version",
        "a schema that is no SQL",
    ],
)
async def test_what_is_no_sound_database_changes_nothing(kind: str) -> None:
    data = dict(damaged())[kind]
    async with await fill("a.db", "old"):
        pass
    before = Path("a.db").read_bytes()
    for name in ("a.db", "new.db"):
        with pytest.raises(NotADatabaseError, match=f"'{name}'.*nothing was changed"):
            await holdfast.import_database(name, data)
    assert Path("a.db").read_bytes() == before
    assert set(os.listdir()) == {"a.db"}


def uncounted(data: bytes) -> bytes:
    """As a SQLite before 3.7.0 leaves it: the number of pages in the header is not valid."""
    return data[:92] + bytes(4) + data[96:]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE ps_kv(k, v)",
        "CREATE TABLE PS_KV(key, value, more NOT NULL)",
        "CREATE VIEW ps_kv AS SELECT 1 AS key, 2 AS value",
        "CREATE TABLE ps_tx(id INTEGER PRIMARY KEY, current_tx, next_tx)",
        "CREATE TABLE ps_crud(id, data)",
    ],
)
async def test_a_table_with_a_name_that_holdfast_needs_is_told_of(statement: str) -> None:
    data = image(statement)
    async with await fill("a.db", "old"):
        pass
    before = Path("a.db").read_bytes()
    with pytest.raises(NotADatabaseError, match=r"'a\.db'.*(?i:ps_\w+)\(.*rename.*nothing was ch"):
        await holdfast.import_database("a.db", data)
    assert Path("a.db").read_bytes() == before
    Path("b.db").write_bytes(data)
    with pytest.raises(ValueError, match=r"(?i:ps_\w+)\(.*rename"):
        await holdfast.open("b.db")
    assert objects(Path("b.db").read_bytes().replace(b"\2\2\0@", b"\1\1\0@", 1)) == objects(data)


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
async def test_data_that_ends_early_changes_nothing(page_size: int) -> None:
    """The last page is full of a BLOB, in which SQLite would not miss the end."""
    name = "made.db"
    with contextlib.closing(apsw.Connection(name)) as made:
        made.execute(f"PRAGMA page_size = {page_size}; CREATE TABLE t(v)")
        made.execute("INSERT INTO t VALUES(?)", (b"\xab" * page_size * 20,))
    data = Path(name).read_bytes()
    Path(name).unlink()
    await holdfast.import_database("a.db", uncounted(data))
    before = Path("a.db").read_bytes()
    for whole in (data, uncounted(data)):
        for missing in (1, 100, page_size - 1, page_size, 2 * page_size, 3 * page_size + 7):
            with pytest.raises(NotADatabaseError, match=r"'a\.db'.*nothing was changed"):
                await holdfast.import_database("a.db", whole[:-missing])
            assert Path("a.db").read_bytes() == before
    await holdfast.import_database("a.db", data)
    assert os.listdir() == ["a.db"]


async def test_a_file_that_gives_less_than_it_has_changes_nothing() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(size) if self.tell() < 2**20 else b""

    data = image(rows=1000)
    # What arrives is a database by itself.
    data = image("CREATE TABLE small(v)").ljust(2**20, b"\0") + data
    with pytest.raises(NotADatabaseError, match=rf"after {2**20} of {len(data)} bytes"):
        await holdfast.import_database("a.db", Failing(data))
    assert os.listdir() == []


async def test_a_database_that_needs_what_is_not_here_is_refused() -> None:
    made = apsw.Connection("made.db")
    made.create_collation("shouting", lambda a, b: (a > b) - (a < b))
    made.execute("CREATE TABLE t(x COLLATE shouting); CREATE INDEX i ON t(x)")
    made.execute("INSERT INTO t VALUES('b'), ('a')")
    made.close()

    class Source:
        def Create(self, *args: Any) -> Any:
            return "CREATE TABLE x(y)", self

        Connect = Create

        def Disconnect(self) -> None:
            """Nothing to give back."""

    module = apsw.Connection("module.db")
    module.create_module("foreign_module", Source())
    module.execute("CREATE VIRTUAL TABLE v USING foreign_module()")
    module.close()
    for name, missing in (("made.db", "shouting"), ("module.db", "foreign_module")):
        with pytest.raises(NotADatabaseError, match=rf"{missing}.*extension"):
            await holdfast.import_database("a.db", Path(name).read_bytes())


async def test_rows_that_violate_a_check_are_imported_if_that_is_asked_for() -> None:
    data = image(
        "CREATE TABLE c(x CHECK (x > 0))",
        "PRAGMA ignore_check_constraints = ON",
        "INSERT INTO c VALUES(-1), (1)",
    )
    with pytest.raises(NotADatabaseError, match=r"CHECK.* c.*ignore_check_constraints$"):
        await holdfast.import_database("a.db", data)
    assert os.listdir() == []
    await holdfast.import_database("a.db", data, ignore_check_constraints=True)
    async with holdfast.open("a.db") as db:
        assert [row[0] for row in await db.fetch_all("SELECT x FROM c")] == [-1, 1]
        # They are checked as ever from here on.
        with pytest.raises(apsw.ConstraintError):
            await db.execute("INSERT INTO c VALUES(-2)")
    # What is damaged is refused as ever.
    with pytest.raises(NotADatabaseError):
        await holdfast.import_database(
            "b.db", dict(damaged())["a page of noise"], ignore_check_constraints=True
        )


@pytest.mark.parametrize(
    "sql",
    [
        "VACUUM INTO 'b.db'",
        "vacuum main into 'b.db'",
        " /* all */ VACUUM -- into\n \"main\" INTO 'b.db';",
        "PRAGMA page_size = 512",
        "PRAGMA main.page_size(512)",
        "ATTACH 'b.db' AS b",
        "DETACH b",
    ],
)
async def test_what_would_need_another_file_or_do_nothing_is_refused(sql: str) -> None:
    async with await fill("a.db", "x") as db:
        with pytest.raises(ValueError, match=r"export|open the other"):
            await db.execute(sql)
        await db.execute("VACUUM /* into */ main")
        assert await db.fetch_value("PRAGMA page_size") == 4096
    assert os.listdir() == ["a.db"]


async def test_an_import_over_rubbish_replaces_it() -> None:
    sound = image(rows=500)
    for rubbish in (b"rubbish " * 1000, sound[:-200_000], b"x"):
        Path("a.db").write_bytes(rubbish)
        Path("a.db-wal").write_bytes(b"what belonged to it")
        await holdfast.import_database("a.db", image("CREATE TABLE n(x)"))
        async with holdfast.open("a.db") as db:
            assert await db.fetch_value("SELECT name FROM sqlite_master") == "n"


@pytest.mark.parametrize("content", [b"my novel\n" * 1000, b"x", bytes(8192), b"SQLite"])
async def test_a_file_of_something_else_is_left_alone(content: bytes) -> None:
    Path("novel.txt").write_bytes(content)
    # A text may be called like a journal.
    Path("novel.txt-journal").write_bytes(b"Monday: nothing written")
    os.symlink("novel.txt", "link.db")
    data = image("CREATE TABLE n(x)")
    for name in ("novel.txt", "link.db"):
        for call in (
            holdfast.delete_database(name),
            holdfast.import_database(name, data),
            # That is known before the data is read.
            holdfast.import_database(name, iter(lambda: pytest.fail("it was read"), 0)),
            holdfast.open(name)._open(),
        ):
            with pytest.raises(NotADatabaseError, match="left as it is"):
                await call
    assert Path("novel.txt").read_bytes() == content
    assert set(os.listdir()) == {"novel.txt", "novel.txt-journal", "link.db"}


async def test_what_was_a_database_can_be_replaced_and_deleted() -> None:
    data = image(rows=100)
    for content in (b"", data, data[:5000], data[:16] + b"\xff" * 8000):
        Path("a.db").write_bytes(content)
        await holdfast.import_database("a.db", data)
        async with holdfast.open("a.db") as db:
            assert await db.fetch_value("SELECT count(*) FROM t") == 100
        Path("a.db").write_bytes(content)
        assert await holdfast.delete_database("a.db") is True
        assert os.listdir() == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
async def test_what_is_no_file_is_left_alone() -> None:
    os.mkfifo("pipe")
    os.mkdir("folder")
    before = os.stat("pipe").st_ino
    for name in ("pipe", "folder"):
        for call in (
            holdfast.delete_database(name),
            holdfast.import_database(name, image("CREATE TABLE n(x)")),
            holdfast.open(name)._open(),
        ):
            with pytest.raises(StorageUnavailableError, match="not a file"):
                await call
    assert os.stat("pipe").st_ino == before
    assert set(os.listdir()) == {"pipe", "folder"}


async def test_a_name_that_is_too_long_is_refused() -> None:
    for name in ("x" * 300, "x" * 250, "ü" * 120, "folder/" * 1000 + "a.db"):
        for call in (
            holdfast.open(name)._open(),
            holdfast.import_database(name, image("CREATE TABLE n(x)")),
            holdfast.delete_database(name),
        ):
            with pytest.raises(ValueError, match=r"too long.*shorter"):
                await call
    assert os.listdir() == []
    # One that is taken can be used in every way.
    name = "x" * (255 - 49)
    async with await fill(name, "x") as db:
        await db.triggers.create_diff_trigger(source="t", destination="d", when=ALL)
        data = await db.export()
    await holdfast.import_database(name, data)
    assert await holdfast.delete_database(name) is True


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (":memory:", r'storage="memory"'),
        ("a.db/", "name of a folder; leave out"),
        ("a\ud800.db", "lone surrogate"),
        ("", "empty"),
        ("a\0.db", "NUL"),
    ],
)
async def test_a_name_that_no_file_has_is_refused(name: str, says: str) -> None:
    """Rather than made one that has: two names would be one database, or an odd file be there."""
    for call in (
        holdfast.open(name)._open(),
        holdfast.import_database(name, image("CREATE TABLE n(x)")),
        holdfast.delete_database(name),
    ):
        with pytest.raises(ValueError, match=says):
            await call
    assert os.listdir() == []
    async with holdfast.open(":memory:", storage="memory") as db:
        assert db.name == ":memory:"


async def test_a_name_may_be_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("folder") / "a.db"
    path.parent.mkdir()
    async with holdfast.open(path) as db:
        assert db.name == os.path.join("folder", "a.db")
        await db.execute("CREATE TABLE t(v)")
        data = await db.export()
    await holdfast.import_database(path, data)
    assert [Path(name) for name in await holdfast.databases(folder=path.parent)] == [path]
    assert await holdfast.delete_database(path) is True
    assert list(path.parent.iterdir()) == []
    for wrong in (b"a.db", 5, None):
        with pytest.raises(TypeError, match="name must be a str"):
            holdfast.open(wrong)  # type: ignore[arg-type]
    # In a browser a name is no path.
    monkeypatch.setattr("sys.platform", "emscripten")
    with pytest.raises(TypeError, match="name must be a str"):
        holdfast.open(path)


async def test_a_folder_that_cannot_be_listed_is_told_of() -> None:
    Path("file").touch()
    for folder in ("none", "file"):
        with pytest.raises(StorageUnavailableError, match=f"folder '{folder}' cannot be read"):
            await holdfast.databases(folder=folder)
    with pytest.raises(TypeError, match="folder"):
        await holdfast.databases(folder=0)  # type: ignore[arg-type]


@pytest.mark.here
async def test_triggers_of_where_it_came_from_are_not_imported() -> None:
    async with await fill("a.db", "x") as db:
        await db.triggers.create_diff_trigger(source="t", destination="t_diff", when=ALL)
        await db.execute("DELETE FROM t WHERE id < 10")
        async with db.read_transaction() as tx:
            copied = tx.connection.serialize("main")
        await holdfast.import_database("b.db", copied)
        with contextlib.closing(sqlite3.connect("b.db")) as plain:
            names = {name for (name,) in plain.execute("SELECT name FROM sqlite_master")}
            assert not {name for name in names if "diff" in name or "holdfast" in name}
        async with holdfast.open("b.db") as copy:
            assert await copy.triggers.tracked() == []
            assert await copy.fetch_value("SELECT count(*) FROM t") == 91


async def test_wrong_arguments_are_refused() -> None:
    data = image(rows=1)
    with pytest.raises(TypeError, match="data"):
        await holdfast.import_database("a.db", "text")
    with pytest.raises(TypeError, match="data"):
        await holdfast.import_database("a.db", 5)
    with pytest.raises(TypeError, match="part"):
        await holdfast.import_database("a.db", ["text"])
    for text in (io.StringIO("text"), io.TextIOWrapper(io.BytesIO(data))):
        with text, pytest.raises(TypeError, match="mode 'rb'"):
            await holdfast.import_database("a.db", text)
    with pytest.raises(TypeError, match="name"):
        await holdfast.import_database(5, data)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="wait"):
        await holdfast.import_database("a.db", data, wait="long")  # type: ignore[arg-type]
    for wait in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="wait"):
            await holdfast.delete_database("a.db", wait=wait)
    for name in ("", "a.db-wal", "a.db-shm", "a.db-journal", "a.db-scratch-" + "0" * 32, "a\0b"):
        with pytest.raises(ValueError, match="name"):
            await holdfast.import_database(name, data)
        with pytest.raises(ValueError, match="name"):
            await holdfast.delete_database(name)
        with pytest.raises(ValueError, match="name"):
            await holdfast.open(name)
    with pytest.raises(ValueError, match="storage"):
        await holdfast.databases("floppy")
    with pytest.raises(StorageUnavailableError, match="browser"):
        await holdfast.databases("opfs")
    for call in (
        holdfast.import_database("a.db", data, "memory"),
        holdfast.delete_database("a.db", "memory"),
    ):
        with pytest.raises(ValueError, match="memory"):
            await call
    assert await holdfast.databases("memory") == []
    with pytest.raises(StorageUnavailableError, match="folder") as refused:
        await holdfast.import_database("missing/a.db", data)
    # It names the database, and not what would have been put beside it.
    assert "'missing/a.db' cannot be written (No such file" in str(refused.value)
    assert "-holds" not in str(refused.value)
    assert os.listdir() == []


async def test_inside_of_its_own_transaction_it_is_refused_at_once() -> None:
    async with holdfast.open("a.db") as db:
        async with db.write_transaction():
            for name in ("a.db", os.path.abspath("a.db")):
                with pytest.raises(NestedTransactionError, match="delete_database"):
                    await holdfast.delete_database(name, wait=PATIENCE)
                with pytest.raises(NestedTransactionError, match="import_database"):
                    await holdfast.import_database(name, image(rows=1), "file", wait=PATIENCE)
            # Of another database it knows nothing.
            assert not await holdfast.delete_database("b.db")
        with pytest.raises(DatabaseBusyError):
            await holdfast.delete_database("a.db")


# -- open elsewhere --------------------------------------------------------------------------------

HOLDER = """
import asyncio, sys, holdfast
async def main():
    async with holdfast.open(sys.argv[1]) as db:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


DELETER = """
import asyncio, sys, holdfast
asyncio.run(holdfast.delete_database(sys.argv[1]))
"""


@contextlib.contextmanager
def held_open(name: str, code: str = HOLDER) -> Iterator[subprocess.Popen[str]]:
    """Another process has the database open, until its stdin is closed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", code, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "open\n"
        yield holder
    finally:
        if not holder.stdin.closed:
            holder.stdin.close()
        holder.wait(PATIENCE)
        holder.stdout.close()


@pytest.mark.parametrize("where", ["this process", "another process", "a stopped process"])
async def test_an_open_database_is_left_alone(where: str) -> None:
    data = image("CREATE TABLE t(mark)", "INSERT INTO t VALUES('new')")
    async with await fill("a.db", "old"):
        pass
    async with contextlib.AsyncExitStack() as stack:
        if where == "this process":
            await stack.enter_async_context(holdfast.open("a.db"))
        else:
            holder = stack.enter_context(held_open("a.db"))
            if where == "a stopped process":
                holder.send_signal(signal.SIGSTOP)
                stack.callback(holder.send_signal, signal.SIGCONT)
        # A list of what there is must not take away the locks of this process.
        assert await holdfast.databases() == ["a.db"]

        def unread() -> Iterator[bytes]:
            raise AssertionError("the data was read before it was known that it can be used")
            yield b""

        refused = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", DELETER, "a.db"],
            capture_output=True,
            text=True,
        )
        assert "DatabaseBusyError" in refused.stderr
        os.symlink("a.db", "alias.db")
        for name in ("a.db", "alias.db"):
            for wait, advice in ((0.0, "or pass wait="), (0.05, "or pass a longer wait")):
                with pytest.raises(DatabaseBusyError, match=rf"open.*close it.*{advice}"):
                    await holdfast.import_database(name, unread(), wait=wait)
                with pytest.raises(DatabaseBusyError, match=rf"open.*close it.*{advice}"):
                    await holdfast.delete_database(name, wait=wait)
    assert await marks("a.db") == [("old", 100)]
    await holdfast.import_database("a.db", data)
    assert await marks("a.db") == [("new", 1)]
    assert os.path.islink("alias.db")


async def test_it_can_be_waited_for() -> None:
    data = image("CREATE TABLE t(mark)", "INSERT INTO t VALUES('new')")
    db = await fill("a.db", "old")
    importing = asyncio.create_task(holdfast.import_database("a.db", data, wait=60))
    async for _ in db.watch("SELECT 1"):
        break
    assert not importing.done()
    await db.close()
    await importing
    assert await marks("a.db") == [("new", 1)]
    with held_open("a.db") as holder:
        deleting = asyncio.create_task(holdfast.delete_database("a.db", wait=60))
        assert await holdfast.databases() == ["a.db"]
        assert holder.stdin is not None
        holder.stdin.close()
        assert await deleting
    assert await holdfast.databases() == []


async def test_one_that_opens_while_it_is_replaced_finds_the_new_one() -> None:
    async with await fill("a.db", "old", 4000):
        pass
    async with await fill("b.db", "new", 4000) as db:
        data = await db.export()
    opened: list[asyncio.Task[list[tuple[str, int]]]] = []

    def halfway(done: int, total: int | None) -> None:
        if not opened and total and done > total * 3 // 4:
            opened.append(asyncio.create_task(marks("a.db")))

    await holdfast.import_database("a.db", data, on_progress=halfway)
    assert await opened[0] == [("new", 4000)]


async def test_a_cancelled_import_changes_nothing(folder: Path) -> None:
    async with await fill("a.db", "old", 1000):
        pass
    async with await fill("b.db", "new", 4000) as db:
        data = await db.export()
    for part in (1, 40, 60, 90):
        task: list[asyncio.Task[None]] = []

        def stop(done: int, total: int | None, part: int = part, task: Any = task) -> None:
            if total and done * 100 > total * part:
                task[0].cancel()

        task.append(asyncio.create_task(holdfast.import_database("a.db", data, on_progress=stop)))
        with pytest.raises(asyncio.CancelledError):
            await task[0]
        assert await marks("a.db") == [("old", 1000)]

        def fail(done: int, total: int | None, part: int = part) -> None:
            if total and done * 100 > total * part:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await holdfast.import_database("n.db", data, on_progress=fail)
        assert set(os.listdir()) == {"a.db", "b.db"}


@pytest.mark.here
async def test_cancelled_work_has_ended_and_leaves_no_error_behind() -> None:
    loop = asyncio.get_running_loop()
    logged: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: logged.append(context))
    running = asyncio.Event()
    ended: list[str] = []

    def told() -> bool:
        loop.call_soon_threadsafe(running.set)
        return False

    with contextlib.closing(apsw.Connection(":memory:")) as raw:
        raw.set_progress_handler(told, 1000)

        def count() -> None:
            try:
                raw.execute(
                    "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
                ).fetchall()
            except apsw.InterruptError:
                ended.append("interrupted")
                raise

        task = asyncio.create_task(FileStore("a.db").work(raw, count))
        await running.wait()
        task.cancel()
        await asyncio.sleep(0)
        # A second time while it waits for the first to take effect.
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["interrupted"]
    del task
    gc.collect()
    await asyncio.sleep(0)
    assert logged == []


# -- delete, list ---------------------------------------------------------------------------------


async def test_a_deleted_database_leaves_nothing() -> None:
    for name in ("b.db", "a.db"):
        db = await fill(name, "x")
        await db.triggers.create_diff_trigger(source="t", destination="d", when=ALL)
        await db.close()
    with contextlib.closing(sqlite3.connect("plain.sqlite")) as plain:
        plain.execute("CREATE TABLE t(x)")
    Path("notes.txt").write_text("not a database")
    os.mkdir("folder.db")
    assert await holdfast.databases() == ["a.db", "b.db", "plain.sqlite"]
    assert await holdfast.databases(folder=os.curdir) == ["./a.db", "./b.db", "./plain.sqlite"]
    assert await holdfast.delete_database("a.db") is True
    assert await holdfast.delete_database("a.db") is False
    Path("rubbish.db").write_bytes(b"rubbish " * 1000)
    Path("rubbish.db-wal").write_bytes(b"more of it")
    assert await holdfast.delete_database("rubbish.db") is True
    assert set(os.listdir()) == {"b.db", "plain.sqlite", "notes.txt", "folder.db"}
    async with holdfast.open("a.db") as db:
        assert await db.fetch_value("SELECT count(*) FROM sqlite_master WHERE name = 't'") == 0


async def test_a_database_is_deleted_with_the_wal_of_a_dead_process() -> None:
    dead = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", DEAD, "a.db"], capture_output=True, text=True
    )
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert os.path.getsize("a.db-wal") > 0
    assert await holdfast.delete_database("a.db")
    assert os.listdir() == []


DEAD = """
import asyncio, os, signal, sys, holdfast
async def main():
    db = await holdfast.open(sys.argv[1])
    await db.execute("CREATE TABLE t(x)")
    await db.triggers.create_diff_trigger(source="t", destination="d", when={"INSERT": "TRUE"})
    await db.execute("INSERT INTO t VALUES(1)")
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_a_file_that_is_deleted_while_it_is_opened_is_opened_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with await fill("a.db", "old"):
        pass
    connect = file.RawConnection

    def late(path: str, **options: Any) -> file.RawConnection:
        monkeypatch.setattr(file, "RawConnection", connect)
        opened = connect(path, **options)
        os.unlink(path)
        return opened

    monkeypatch.setattr(file, "RawConnection", late)
    async with holdfast.open("a.db") as db:
        await db.execute("CREATE TABLE fresh(x)")
    with contextlib.closing(sqlite3.connect("a.db")) as plain:
        names = {name for (name,) in plain.execute("SELECT name FROM sqlite_master")}
    assert "fresh" in names
    assert "t" not in names


async def test_status_and_persist() -> None:
    assert await holdfast.persist() is True
    async with await fill("a.db", "x") as db:
        status = await db.status()
        assert status.persisted is True
        assert status.usage is not None
        assert status.usage > 200_000


# -- killed at every step --------------------------------------------------------------------------

# Counts each call that changes a file, SQLite's and the scratch file's, and dies at the n-th.
KILLED = """
import asyncio, os, signal, sys, apsw, holdfast
n = int(sys.argv[1])
calls = 0
def count(what):
    global calls
    if calls == n:
        os.kill(os.getpid(), signal.SIGKILL)
    calls += 1

class VFS(apsw.VFS):
    def __init__(self):
        super().__init__("counting", "unix", makedefault=True)
    def xOpen(self, name, flags):
        count("open")
        return File("unix", name, flags)
    def xDelete(self, name, sync):
        count("delete")
        super().xDelete(name, sync)

class File(apsw.VFSFile):
    def xWrite(self, data, at):
        count("write")
        # Half of it, as when a process dies inside the call.
        super().xWrite(data[: len(data) // 2], at)
        count("write")
        super().xWrite(data, at)
    def xTruncate(self, size):
        count("truncate")
        super().xTruncate(size)
    def xSync(self, flags):
        count("sync")
        super().xSync(flags)
    def xLock(self, level):
        count("lock")
        super().xLock(level)
    def xUnlock(self, level):
        count("unlock")
        super().xUnlock(level)

vfs = VFS()
for name in ("unlink", "fsync"):
    def call(*args, original=getattr(os, name)):
        count("os")
        return original(*args)
    setattr(os, name, call)

def parts(data):
    for at in range(0, len(data), 30_000):
        count("part")
        yield data[at:at + 30_000]

async def main():
    if sys.argv[2] == "delete":
        await holdfast.delete_database("a.db")
    else:
        with open("new", "rb") as file:
            await holdfast.import_database("a.db", parts(file.read()))
asyncio.run(main())
print(calls)
"""


def killed_at(n: int, what: str) -> int | None:
    """How many calls there were; None: it was killed."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(n), what], capture_output=True, text=True, check=False
    )
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def steps(calls: int, most: int) -> list[int]:
    """All, or as many of them by a fixed choice."""
    if calls <= most:
        return list(range(calls))
    return sorted(random.Random(7).sample(range(calls), most))


async def leave_old_behind(old: str) -> None:
    """The database that an import or a deletion finds."""
    for left in os.listdir():
        if left.startswith("a.db"):
            os.unlink(left)
    if old == "none":
        return
    if old == "rolled back":
        Path("a.db").write_bytes(
            image(
                "CREATE TABLE t(mark, pad)", *["INSERT INTO t VALUES('old', zeroblob(2000))"] * 60
            )
        )
        return
    # Another one has died with a WAL that is not checkpointed.
    code = (
        DEAD.replace('"CREATE TABLE t(x)"', '"CREATE TABLE t(mark, pad)"')
        .replace(
            '"INSERT INTO t VALUES(1)"',
            '"WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60) '
            "INSERT INTO t SELECT 'old', zeroblob(2000) FROM n\"",
        )
        .replace("    await db.triggers", "    0 and await db.triggers")
    )
    dead = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, "a.db"], capture_output=True, text=True
    )
    assert dead.returncode == -signal.SIGKILL, dead.stderr


OLD = {"none": [], "rolled back": [("old", 60)], "wal": [("old", 60)]}


def what_is_there() -> list[tuple[str, int]]:
    """As any program that knows SQLite finds it."""
    if not os.path.exists("a.db"):
        return []
    with contextlib.closing(sqlite3.connect("a.db")) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not plain.execute("SELECT 1 FROM sqlite_master WHERE name = 't'").fetchone():
            return []
        return plain.execute("SELECT mark, count(*) FROM t GROUP BY 1").fetchall()


@pytest.mark.here
@pytest.mark.parametrize("old", list(OLD))
async def test_an_import_killed_at_any_step_leaves_the_old_or_the_new(old: str) -> None:
    new = image("CREATE TABLE t(mark, pad)", *["INSERT INTO t VALUES('new', zeroblob(2000))"] * 90)
    Path("new").write_bytes(new)
    await leave_old_behind(old)
    calls = killed_at(10**9, "import")
    assert calls is not None
    assert calls > 40
    found = []
    for n in steps(calls, 60):
        await leave_old_behind(old)
        assert killed_at(n, "import") is None
        listed = await holdfast.databases()
        state = what_is_there()
        assert state in (OLD[old], [("new", 90)])
        assert ("a.db" in listed) == bool(state)
        found.append(state)
        # The next who opens it removes the scratch file. What may stay is an empty journal, which
        # SQLite passes over, and the folder of holds with that of the dead process.
        async with holdfast.open("a.db"):
            pass
        assert what_is_there() == state
        assert set(os.listdir()) <= {"a.db", "a.db-journal", "a.db-holds", "new"}
        await holdfast.delete_database("a.db")
        assert os.listdir() == ["new"]
    # Not mixed: the old one until the commit, the new one from then on.
    assert found == sorted(found, key=lambda state: state == [("new", 90)])
    assert {str(state) for state in found} == {str(OLD[old]), str([("new", 90)])}


@pytest.mark.here
async def test_a_deletion_killed_at_any_step_leaves_the_old_or_nothing() -> None:
    await leave_old_behind("wal")
    calls = killed_at(10**9, "delete")
    assert calls is not None
    found = []
    for n in steps(calls, 60):
        await leave_old_behind("wal")
        assert killed_at(n, "delete") is None
        state = what_is_there()
        # All of it, while there is any file of that name.
        assert state == (OLD["wal"] if os.path.exists("a.db") else [])
        found.append(state)
        # A new one of that name begins empty.
        if not state:
            async with await fill("a.db", "fresh", 1):
                pass
            assert what_is_there() == [("fresh", 1)]
    assert found == sorted(found, key=lambda state: state == [])
    assert OLD["wal"] in found
    assert [] in found


@pytest.mark.here
async def test_the_copy_of_a_killed_export_is_discarded() -> None:
    async with await fill("a.db", "x", 2000):
        pass
    code = HOLDER.replace(
        '        print("open", flush=True)\n',
        "        chunks = db.export_chunks()\n        await anext(chunks)\n"
        '        print("open", flush=True)\n',
    )
    with held_open("a.db", code) as holder:
        assert any("-scratch-" in name for name in os.listdir())
        # Not while its owner lives.
        async with holdfast.open("a.db"):
            assert await holdfast.databases() == ["a.db"]
            await holdfast.import_database("b.db", image(rows=1))
        assert any("-scratch-" in name for name in os.listdir())
        holder.kill()
        holder.wait()
    async with holdfast.open("a.db"):
        assert not any("-scratch-" in name for name in os.listdir())


async def test_a_file_that_is_laid_over_a_database_with_a_wal_is_refused() -> None:
    for old in ("wal", "none"):
        await leave_old_behind(old)
        if old == "none":  # of the very same database, and older than its WAL
            async with await fill("a.db", "x", 3) as db:
                data = await db.export()
                await db.execute("DELETE FROM t")
                wal = Path("a.db-wal").read_bytes()
            Path("a.db-wal").write_bytes(wal)
        else:
            data = image("CREATE TABLE mine(x)", rows=3)
        Path("a.db").write_bytes(data)
        before = {name: Path(name).read_bytes() for name in ("a.db", "a.db-wal")}
        with pytest.raises(NotADatabaseError, match=r"WAL beside 'a\.db'.*another database"):
            await holdfast.open("a.db")
        assert {name: Path(name).read_bytes() for name in before} == before
        # As soon as that is away, it is opened.
        os.unlink("a.db-wal")
        async with holdfast.open("a.db") as db:
            assert await db.fetch_value("SELECT count(*) FROM t") == 3
