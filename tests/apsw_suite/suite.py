"""Runs `apsw.tests`, which come with APSW, with SQLite's default VFS being ours.

Nothing of the suite is changed but what left_out.py names. Every database that it opens by name
is one that the VFS was told of beforehand, by whoever calls `run`; nobody else has it, so the lease
is the exclusive one.

Native: `python suite.py LIBRARY HOST MODE` prints a report as JSON. In a browser: see
tests/browser/test_apsw_suite.py.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import importlib
import inspect
import itertools
import json
import os
import sys
import tempfile
import threading
import unittest
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import apsw
from left_out import ENDS_EARLY, LEFT_OUT, LeftOut

EXCLUSIVE = 3
SUFFIXES = ("", "-wal", "-journal")

# The databases that the suite opens by name, below its folder.
DATABASES = (
    "testdb",
    "testdb2",
    "testdb2x",
    "testdbx",
    "testdb3",
    "testfile",
    "testfile2",
    "gunk-errcode-test",
    "apsw-atestStr0/abc",
    "apsw-atestStr0/def",
    "apsw-atestStr0/hij",
    "apsw-atestStr0/klmn",
    "apsw-extra-√π⁷≤∞-test0/√π⁷≤∞.db",
    "apsw-extra-√π⁷≤∞-test0/dest.db",
    "apsw-shell-test-0/sentinel-jhdgfsfjdskh-1",
    "apsw-test-shell-dbinfo-0/newdb",
)
# This one it opens from inside its folder.
RELATIVE = "sentinel-jhdgfsfjdskh-1"


def run(folder: str, place: str, mode: str, clean: Callable[[], None]) -> dict[str, Any]:
    """The suite in `folder`; `clean` removes what a test left there.

    Gives the names of the tests that "passed", and of those that were "left_out" (the whole test);
    "skipped" by themselves, or "cut_short" because there are no threads; and what is "wrong":
    {name: why}, a failure or a line of the list that is not true any more.
    """
    left_out = [each for each in LEFT_OUT if place in each.places and mode in each.modes]
    os.environ["APSWTESTPREFIX"] = folder + "/"
    # Seconds for tests that do something in several threads for as long as that.
    os.environ["APSW_HEAVY_DURATION"] = "0.2" if place == "native" else "0"
    # Folders for temporary files get the same names in every run.
    tempfile.tempdir = folder
    tempfile._get_candidate_names = lambda: map(str, itertools.count())  # type: ignore[attr-defined]

    # Anew, for the changes of the run before are in it.
    for name in [name for name in sys.modules if name.startswith("apsw.tests")]:
        del sys.modules[name]
    suite = importlib.import_module("apsw.tests.__main__")
    suite.setup()
    # The suite's own figures for a run that is to be short.
    suite.MEMLEAKITERATIONS, suite.PROFILESTEPS = 5, 1000
    wrong: dict[str, str] = {}
    for name in {each.test: None for each in left_out}:
        try:
            leave_out(suite, name, [each for each in left_out if each.test == name])
        except LookupError as error:
            wrong[name] = str(error)
    begin_each(suite, mode, clean)

    result = Result()
    loaded = flatten(unittest.defaultTestLoader.loadTestsFromModule(suite))
    # Nothing but the tests of this class has a database in WAL mode then.
    tests = {name_of(t): t for t in loaded if mode == "delete" or isinstance(t, suite.APSW)}
    whole = {each.test: each for each in left_out if not each.statement}
    with thread_starts(result):
        for name, test in tests.items():
            if not (name in whole and whole[name].skip):
                test.run(result)
    for name in whole:
        if name in tests and not whole[name].skip and not result.errors_of.pop(name, ""):
            wrong[name] = "is on the list, and passes"
    wrong |= result.errors_of
    ended = result.skipped_tests | result.cut_short
    for name in ended ^ {each.test for each in ENDS_EARLY if place in each.places} & tests.keys():
        wrong.setdefault(name, "ends early, or not, against what the list says")
    counted = {*wrong, *whole, *ended}
    return {
        "passed": sorted(tests.keys() - counted),
        "skipped": sorted(result.skipped_tests),
        "cut_short": sorted(result.cut_short - result.skipped_tests),
        "left_out": sorted(whole),
        "wrong": wrong,
    }


def flatten(tests: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def name_of(test: unittest.TestCase) -> str:
    return f"{type(test).__name__}.{test._testMethodName}"


class Result(unittest.TestResult):
    def __init__(self) -> None:
        super().__init__()
        self.errors_of: dict[str, str] = {}
        self.skipped_tests: set[str] = set()
        self.cut_short: set[str] = set()
        self.now = ""
        # Some tests ask whether the runner is a talkative one.
        self.showAll = False

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.now = name_of(test)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        # Not of a test: a class's or module's set-up.
        name = self.now if isinstance(test, unittest.TestCase) else str(test)
        self.errors_of[name] = self.errors_of.get(name, "") + self._exc_info_to_string(err, test)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.addError(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.addError(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.skipped_tests.add(self.now)


def begin_each(suite: Any, mode: str, clean: Callable[[], None]) -> None:
    """Before each test: our VFS is the default one, and in mode "wal" its database is in WAL mode.

    The suite shuts SQLite down once, and unix is the default VFS when it comes back.
    """
    original = suite.APSW.setUp, suite.APSW.tearDown

    def setUp(self: Any) -> None:
        apsw.set_default_vfs("holdfast")
        original[0](self)
        if self.db.vfsname("main") != "holdfast":
            raise AssertionError(f"the database is on the VFS {self.db.vfsname('main')!r}")
        if mode == "wal" and self.db.pragma("journal_mode", "wal") != "wal":
            raise AssertionError("the database is not in WAL mode")

    def tearDown(self: Any) -> None:
        original[1](self)
        clean()

    suite.APSW.setUp, suite.APSW.tearDown = setUp, tearDown


@contextlib.contextmanager
def thread_starts(result: Result) -> Iterator[None]:
    """Note which tests wanted a thread where none can be begun; mostly they return then."""
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        try:
            start(thread)
        except RuntimeError:
            # The suite's own check at the end of every test does without.
            if sys._getframe(1).f_code.co_name != "check_db_mutex":
                result.cut_short.add(result.now)
            raise

    threading.Thread.start = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]


# -- statements that are left out ------------------------------------------------------------------


def leave_out(suite: Any, name: str, left_out: Sequence[LeftOut]) -> None:
    """Compile a test anew, with the statements expected to raise, or not there at all."""
    statements = [each for each in left_out if each.statement]
    case, _, method = name.partition(".")
    case = getattr(suite, case, None)
    function: FunctionType | None = getattr(case, method, None)
    if function is None:
        raise LookupError("is on the list, and there is no such test")
    if not statements:
        return
    source = Path(inspect.getfile(function))
    text = source.read_text("utf-8")
    tree: ast.AST = next(
        method
        for case in ast.parse(text).body
        if isinstance(case, ast.ClassDef) and case.name == function.__qualname__.split(".")[0]
        for method in case.body
        if isinstance(method, ast.FunctionDef) and method.name == function.__name__
    )
    for each in statements:
        edit = Edit(each, text.splitlines())
        tree = edit.visit(tree)
        if edit.found != 1:
            raise LookupError(f"{each.statement!r} is on the list, and there {edit.found} times")
    module = ast.fix_missing_locations(ast.Module([tree], []))
    function.__globals__[expects_an_error.__name__] = expects_an_error
    space: dict[str, Any] = {}
    exec(compile(module, source, "exec"), function.__globals__, space)
    setattr(case, method, space[method])


class Edit(ast.NodeTransformer):
    def __init__(self, each: LeftOut, lines: Sequence[str]) -> None:
        self.each = each
        self.lines = lines
        self.found = 0

    def visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, ast.stmt) or not self.begins(node):
            return self.generic_visit(node)
        self.found += 1
        if self.each.skip:
            return ast.copy_location(ast.Pass(), node)
        (guarded,) = ast.parse(f"with {expects_an_error.__name__}(): pass").body
        assert isinstance(guarded, ast.With)
        guarded.body = [node]
        return ast.copy_location(guarded, node)

    def begins(self, node: ast.stmt) -> bool:
        *before, first = self.each.statement.splitlines()
        line = self.lines[node.lineno - 1].encode()[node.col_offset :].decode()
        lines = self.lines[node.lineno - 1 - len(before) : node.lineno - 1]
        return line.startswith(first) and [line.strip() for line in lines] == before


@contextlib.contextmanager
def expects_an_error() -> Iterator[None]:
    try:
        yield
    except Exception:
        return
    raise AssertionError("a statement is on the list of what is left out, and works")


# -- on CPython ------------------------------------------------------------------------------------


def set_up_native(library: str, host: str, folder: Path) -> None:
    """The VFS with the files of `folder` as its databases."""
    files = ctypes.CDLL(host)
    functions = [
        ctypes.cast(getattr(files, f"host_{name}"), ctypes.c_void_p).value
        for name in ("read", "write", "truncate", "size", "flush")
    ]
    connection = apsw.Connection(":memory:")
    connection.enable_load_extension(True)
    connection.load_extension(library, "sqlite3_holdfastvfs_init")
    connection.execute("SELECT holdfast_vfs_host(?, ?, ?, ?, ?)", functions).fetchall()
    for name in DATABASES:
        path = f"{folder}/{name}"
        numbers = [files.host_name(os.fsencode(path + suffix)) for suffix in SUFFIXES]
        if min(numbers) < 0:
            raise RuntimeError("the host has no room for so many files")
        add(connection, path, numbers)
    connection.close()


def add(connection: apsw.Connection, name: str, numbers: Sequence[int]) -> None:
    """Tell the VFS of a database that nobody else has."""
    if name.endswith("/" + RELATIVE):
        name = RELATIVE
    connection.execute("SELECT holdfast_vfs_add(?, ?, ?, ?)", (name, *numbers)).fetchall()
    connection.execute("SELECT holdfast_vfs_level(?, ?)", (name, EXCLUSIVE)).fetchall()


def main() -> None:
    library, host, mode = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="holdfast-apsw-") as folder:
        os.chdir(folder)
        set_up_native(library, host, Path(folder))

        def clean() -> None:
            for name, suffix in itertools.product(DATABASES, SUFFIXES):
                Path(folder, name + suffix).unlink(missing_ok=True)

        with contextlib.redirect_stdout(sys.stderr):
            report = run(folder, "native", mode, clean)
        os.chdir("/")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
