"""Parameters mean the same here and across a port."""

from __future__ import annotations

import array
import collections
import decimal
import enum
import types
from collections.abc import Mapping, Sequence
from typing import Any

import apsw
import pytest

import holdfast

pytestmark = pytest.mark.everywhere


class Number(enum.IntEnum):
    THREE = 3


class Word(enum.StrEnum):
    NOTE = "note"


class Real(float):
    pass


class Index:
    def __index__(self) -> int:
        return 5


class Scalar:
    """As numpy's: it has a buffer too, on Python 3.12 and newer."""

    dtype = "int64"
    shape = ()

    def __init__(self, value: Any) -> None:
        self.value = value

    def item(self) -> Any:
        return self.value

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(b"the bytes of it")


class Pair(Sequence[Any]):
    def __init__(self, *values: Any) -> None:
        self.values = values

    def __getitem__(self, at: Any) -> Any:
        return self.values[at]

    def __len__(self) -> int:
        return len(self.values)


class Named(Mapping[str, Any]):
    def __init__(self, **values: Any) -> None:
        self.values_ = values

    def __getitem__(self, name: str) -> Any:
        return self.values_[name]

    def __iter__(self) -> Any:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


class Default(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return f"no {name}"


VALUES = {
    "None": (None, None),
    "bool": (True, 1),
    "large int": (2**63 - 1, 2**63 - 1),
    "float": (0.1, 0.1),
    "int enumeration": (Number.THREE, 3),
    "str enumeration": (Word.NOTE, "note"),
    "float of another class": (Real(1.5), 1.5),
    "index": (Index(), 5),
    "bytes": (b"ab", b"ab"),
    "bytearray": (bytearray(b"ab"), b"ab"),
    "memoryview": (memoryview(b"abcd")[1:3], b"bc"),
    "memoryview with gaps": (memoryview(b"abcd")[::2], b"ac"),
    "memoryview of numbers": (memoryview(array.array("h", [1, 2, 3]))[::2], b"\1\0\3\0"),
    "array": (array.array("B", [1, 2]), b"\1\2"),
    "integer scalar": (Scalar(7), 7),
    "real scalar": (Scalar(0.5), 0.5),
    "truth scalar": (Scalar(False), 0),
}


@pytest.mark.parametrize("name", VALUES)
async def test_values(name: str) -> None:
    value, stored = VALUES[name]
    async with holdfast.open("a", storage="memory") as db:
        assert await db.fetch_value("SELECT ?", (value,)) == stored
        assert await db.fetch_value("SELECT :it", {"it": value}) == stored
        await db.execute("CREATE TABLE t(x)")
        await db.execute("INSERT INTO t VALUES(?)", [value])
        await db.execute_many("INSERT INTO t VALUES(?)", [(value,), [value]])
        async with db.write_transaction() as tx:
            assert await tx.fetch_value("SELECT ?", (value,)) == stored
            await tx.execute("INSERT INTO t VALUES(:it)", {"it": value})
        found = {(type(row[0]), row[0]) for row in await db.fetch_all("SELECT x FROM t")}
        assert found == {(type(await db.fetch_value("SELECT ?", (stored,))), stored)}


COLLECTIONS = {
    "list": ([1, 2], "SELECT ?, ?"),
    "sequence": (Pair(1, 2), "SELECT ?, ?"),
    "deque": (collections.deque([1, 2]), "SELECT ?, ?"),
    "named tuple": (collections.namedtuple("Two", "a b")(1, 2), "SELECT ?, ?"),
    "iterator": (iter([1, 2]), "SELECT ?, ?"),
    "range": (range(1, 3), "SELECT ?, ?"),
    "dict": ({"a": 1, "b": 2}, "SELECT :a, :b"),
    "more than needed": ({"a": 1, "b": 2, "c": 3}, "SELECT $a, @b"),
    "mapping": (Named(a=1, b=2), "SELECT :a, :b"),
    "proxy": (types.MappingProxyType({"a": 1, "b": 2}), "SELECT :a, :b"),
    "chain": (collections.ChainMap({"a": 1}, {"b": 2}), "SELECT :a, :b"),
    "defaultdict": (collections.defaultdict(lambda: 2, a=1), "SELECT :a, :b"),
    "ordered": (collections.OrderedDict(a=1, b=2), "SELECT :a, :b"),
    "user's": (collections.UserDict(a=1, b=2), "SELECT :a, :b"),
}


@pytest.mark.parametrize("name", COLLECTIONS)
async def test_collections(name: str) -> None:
    params, sql = COLLECTIONS[name]
    if name == "iterator":
        params = iter([1, 2])
    async with holdfast.open("a", storage="memory") as db:
        row = await db.fetch_one(sql, params)
        assert row is not None
        assert tuple(row) == (1, 2)


async def test_what_is_missing_is_asked_for() -> None:
    async with holdfast.open("a", storage="memory") as db:
        row = await db.fetch_one("SELECT :a, ':c', @b, $d", Default(a=1))
        assert row is not None
        assert tuple(row) == (1, ":c", "no b", "no d")
        with pytest.raises(ValueError, match="no value for the parameter 'b'"):
            await db.fetch_one("SELECT :a, :b", {"a": 1})


@pytest.mark.parametrize(
    "params",
    ["text", b"ab", bytearray(b"ab"), memoryview(b"ab"), {1, 2}, 5, None],
    ids=lambda params: type(params).__name__,
)
async def test_what_are_no_parameters(params: Any) -> None:
    async with holdfast.open("a", storage="memory") as db:
        with pytest.raises(TypeError, match="params must be"):
            await db.fetch_all("SELECT ?, ?", params)
        with pytest.raises(TypeError, match="must be a sequence of parameters"):
            await db.execute_many("CREATE TABLE t(x)", 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [decimal.Decimal(1), object(), [1], {"a": 1}, 1j])
async def test_what_is_no_value(value: Any) -> None:
    async with holdfast.open("a", storage="memory") as db:
        with pytest.raises(TypeError, match=r"parameter 2 is a .*SQLite stores"):
            await db.fetch_all("SELECT ?, ?", (1, value))
        with pytest.raises(TypeError, match=r"parameter 'it' is a .*SQLite stores"):
            await db.fetch_all("SELECT :it", {"it": value})
        with pytest.raises(TypeError, match="name of a parameter"):
            await db.fetch_all("SELECT ?", {1: 1})


# What does not fit its statement, and the error that says so.
MISTAKES: dict[str, tuple[str, Any, type[Exception], str]] = {
    "another name": (
        "SELECT :a",
        {"b": 2},
        ValueError,
        "{} has no value for the parameter 'a'; it has values for 'b'; ",
    ),
    "nothing": (
        "SELECT @a, $b",
        {},
        ValueError,
        "{} has no value for the parameters 'a', 'b'; it ",
    ),
    "number as name": ("SELECT ?1", {"a": 2}, ValueError, "{} has no value for the parameter '1'"),
    "names for none": (
        "SELECT :a, ?",
        {"a": 2},
        ValueError,
        "{} gives values by name, and parameter 2 of the statement has no name",
    ),
    "too many": (
        "SELECT ?",
        (1, 2),
        apsw.BindingsError,
        "the statement has 1 parameter and {} has 2 values; ",
    ),
    "too few": (
        "SELECT :a, ?",
        [1],
        apsw.BindingsError,
        "the statement has 2 parameters and {} has 1 value; ",
    ),
    "large": (
        "SELECT ?, ?",
        [1, 2**70],
        OverflowError,
        f"parameter 2 is {2**70}; SQLite's integers have 64 bits; ",
    ),
    "large by name": (
        "SELECT :a",
        {"a": -(2**63) - 1},
        OverflowError,
        f"parameter 'a' is {-(2**63) - 1}; SQLite's integers have 64 bits; ",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
async def test_what_does_not_fit_its_statement(name: str) -> None:
    sql, params, kind, said = MISTAKES[name]
    insert = sql.replace("SELECT", "INSERT INTO t SELECT")
    good = (1,) * insert.count(",") + (1,)
    async with holdfast.open("a", storage="memory") as db:
        await db.execute(f"CREATE TABLE t({', '.join('xy'[: len(good)])})")

        async def refused(call: Any, sql: str, params: Any, given: str = "params") -> None:
            with pytest.raises(kind) as caught:
                await call(sql, params)
            assert type(caught.value) is kind
            assert str(caught.value).startswith(said.format(given))
            assert str(caught.value).endswith(f"the statement is {sql!r}")

        async def refused_by(on: Any) -> None:
            await refused(on.execute, insert, params)
            await refused(on.execute_many, insert, [good, params], "params number 2")
            for fetch in (on.execute, on.fetch_all, on.fetch_one, on.fetch_value):
                await refused(fetch, sql, params)

        await refused_by(db)
        async with db.write_transaction() as tx:
            await refused_by(tx)
            await tx.execute("DELETE FROM t")
        async with db.read_transaction() as tx:
            await refused(tx.fetch_all, sql, params)
        assert await db.fetch_all("SELECT * FROM t") == []


@pytest.mark.here
async def test_an_error_of_a_function_of_the_application_is_its_own() -> None:
    def fails(error: Exception) -> Any:
        raise error

    errors: list[Exception] = [KeyError("a"), OverflowError("too much")]
    async with holdfast.open("a", storage="memory") as db, db.write_transaction() as tx:
        tx.connection.create_scalar_function("fails", lambda at: fails(errors[at]))
        for at, error in enumerate(errors):
            for sql, params in (("SELECT fails(?)", (at,)), ("SELECT fails(:at)", {"at": at})):
                for call in (tx.execute, tx.fetch_all):
                    with pytest.raises(type(error)) as caught:
                        await call(sql, params)
                    assert caught.value is error
