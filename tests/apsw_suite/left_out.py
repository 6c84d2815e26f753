"""What of `apsw.tests` is left out when SQLite runs on our VFS, and why.

A test that is named here with no statement must fail, and a statement that is named must raise:
what has begun to work has to be taken off. Where it would rather hang, or end the test, it is not
carried out at all (`skip`), and nothing can be told but that it is still there.

    places  "native": the VFS compiled for CPython, over files of the system
            "browser": in a worker of Chromium, over OPFS
    modes   "delete": all of the suite, on rollback journals, as SQLite begins
            "wal": the suite's main part, with its database in WAL mode
"""

from __future__ import annotations

from typing import NamedTuple

PLACES = frozenset({"native", "browser"})
MODES = frozenset({"delete", "wal"})
NATIVE, BROWSER = frozenset({"native"}), frozenset({"browser"})
DELETE, WAL = frozenset({"delete"}), frozenset({"wal"})


class LeftOut(NamedTuple):
    test: str
    why: str
    statement: str = ""
    """As its first line begins, with lines before it where that is not unique; "": the test."""
    skip: bool = False
    places: frozenset[str] = PLACES
    modes: frozenset[str] = MODES


NO_FOLDERS = "The VFS knows databases by name, and no folders: '.' does not exist in it."
NO_SYSTEM_CALLS = "System calls that can be exchanged are a feature of SQLite's unix VFS."
NO_SECTORS = (
    "SQLite never asks this VFS for the size of a sector, for overwriting one is safe; the URI "
    "parameter psow=0, which would say otherwise, is unix's."
)
NO_WAITING = (
    "Nobody can give a lock back while SQLite sleeps in a worker, so the VFS does not sleep: who "
    "would have to wait is told at once."
)
HOW_FAST = "It is about how fast a machine is, and one that is busy may be slower."
NO_EMPTY_FILES = (
    "A database without a page is no file yet: the VFS is given handles that were opened before, "
    "and goes by their size."
)
ONE_THREAD = (
    "A worker has one thread, and the VFS guards nothing against a second one; the test keeps 26 "
    "busy."
)
NO_THREADS = "There are no threads in a worker; the rest of the test needs none."
RUNS_HERE = "The test returns on this platform, whose file system it does not trust. Ours it can."
WAL_FILE_EXISTS = (
    "The test begins with a database that has no pages yet, and one in WAL mode has its first."
)
IS_IN_WAL_MODE = (
    "The test asks for the journal mode that it begins with, and this run begins in WAL mode."
)
SAME_IN_BOTH = (
    "It makes its own databases, in either mode, and is slow: the run in mode 'delete' has it."
)

LEFT_OUT = [
    LeftOut("APSW.testVFS", SAME_IN_BOTH, skip=True, modes=WAL),
    LeftOut("APSW.testVFSWithWAL", SAME_IN_BOTH, skip=True, modes=WAL),
    LeftOut("APSW.testIssue641", SAME_IN_BOTH, skip=True, modes=WAL),
    LeftOut("APSW.testVFS", NO_FOLDERS, 'self.assertEqual(True, vfs.xAccess(".", '),
    LeftOut("APSW.testVFS", NO_SYSTEM_CALLS, 'if "unix" in apsw.vfs_names():'),
    LeftOut(
        "APSW.testVFS",
        RUNS_HERE,
        'if sys.platform == "emscripten":',
        skip=True,
        places=BROWSER,
    ),
    LeftOut(
        "APSW.testBackup",
        NO_THREADS,
        "t = ThreadRunner(wt)\ntry:",
        skip=True,
        places=BROWSER,
    ),
    *(
        LeftOut(
            "APSW.testVFS",
            NO_SECTORS,
            f"TestFile.xSectorSize = TestFile.xSectorSize{n}\nself.assertRaises(",
        )
        for n in range(1, 5)
    ),
    LeftOut("APSW.testBusyHandling", NO_WAITING, "self.assertTrue(took >= TIMEOUT)"),
    LeftOut("APSW.testBusyHandling", HOW_FAST, "self.assertTrue(after - b4 < TIMEOUT)", skip=True),
    LeftOut("APSW.testIssue15", NO_WAITING, places=NATIVE, modes=DELETE),
    LeftOut("APSW.testIssue31", ONE_THREAD, skip=True, places=NATIVE),
    LeftOut("Shell.testShell", NO_EMPTY_FILES, "self.assertEqual(2, in_open_dbs(V))"),
    LeftOut("Shell.testShell", NO_EMPTY_FILES, "self.assertEqual(1, in_open_dbs(V))"),
    LeftOut("Shell.testShell", NO_EMPTY_FILES, "self.assertEqual(0, in_open_dbs(V))"),
    LeftOut("APSW.testAutovacuumPages", WAL_FILE_EXISTS, modes=WAL),
    LeftOut(
        "APSW.testExtDiskused",
        WAL_FILE_EXISTS,
        'self.assertRaisesRegex(ValueError, ".*empty database.*", ',
        modes=WAL,
    ),
    LeftOut(
        "APSW.testConnectionPragma",
        IS_IN_WAL_MODE,
        'self.assertEqual(self.db.pragma("journal_mode"), "delete")',
        modes=WAL,
    ),
]

# Tests that skip themselves or return early, by their own choice.
ENDS_EARLY = [
    LeftOut(test, why, places=BROWSER)
    for why, tests in {
        "It wants a thread.": (
            "APSW.testIssue15",
            "APSW.testIssue31",
            "APSW.testThreading",
            "Async.testAsyncIO",
            "Async.testNoIO",
            "Async.testOverwrite",
        ),
        "The suite says that it cannot run on this build.": (
            "APSW.testBlobIOBase",
            "APSW.testCursorReentrant",
        ),
    }.items()
    for test in tests
]
