"""A test of the tests: break any one rule of the protocol, and they fail.

Each rule is a change of the VFS's source, applied to a copy of it (every text must be there exactly
once), or of the package; and the search that has to find out, in a process of its own.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import test_vfs
from simulated_opfs import Library

from faults import test_power
from faults.apart import finds_out
from faults.client import Client
from faults.disk import ERROR, FULL, Disk, crashes
from faults.schedule import Schedule
from faults.test_quota import every
from faults.workload import Run, allowed_after, check_recovery
from holdfast.storage.opfs import requests, wal
from holdfast.storage.opfs import storage as opfs
from holdfast.vfs import build

Search = Callable[[Library], None]


# -- searches --------------------------------------------------------------------------------------


def workload(library: Library) -> None:
    """Two tabs by turns, with nothing going wrong."""
    for keeps in (True, False):
        Run(library, Disk(), keeps=keeps).all()


def power_cuts(library: Library) -> None:
    run = Run(library, Disk()).all()
    for crash in crashes(run.disk, kills=False, power_seeds=2, stride=4):
        first, last = allowed_after(crash, durable=True)
        check_recovery(library, Disk(crash.files), run.states[first : last + 1])


def kills(library: Library) -> None:
    run = Run(library, Disk(), synchronous="NORMAL").all()
    for crash in crashes(run.disk, stride=4):
        first, last = allowed_after(crash, durable=True)
        check_recovery(library, Disk(crash.files), run.states[first : last + 1])


def quota(library: Library) -> None:
    every(library, 37, ("write",), 700, False)


def full(library: Library) -> None:
    every(library, 37, ("write",), FULL, False)


def failing_flushes(library: Library) -> None:
    every(library, 1, ("flush",), ERROR, False)


@dataclass(frozen=True)
class Schedules:
    shared: bool
    at_most: int = 60

    def __call__(self, library: Library) -> None:
        for seed in range(self.at_most):
            Schedule(library, seed, shared=self.shared).run()


def one_of_the_others(function: Callable[..., None], **arguments: Any) -> Search:
    """One of the other tests."""
    wanted = inspect.signature(function).parameters

    def search(library: Library) -> None:
        files = Disk()
        given = {"library": library, "files": files, **arguments}
        if "clients" in wanted:
            a = Client(library, files)
            a.write("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
            given["clients"] = a, Client(library, files)
        function(**{name: given[name] for name in wanted})

    return search


# -- rules -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What is broken, and what finds it."""

    broken: str
    search: Search
    source: dict[str, str] = field(default_factory=dict)
    """Texts of the VFS's source, and what they become."""
    package: Callable[[], AbstractContextManager[Any]] = nullcontext


class Granted:
    """A lock that nobody was asked for."""

    def release(self) -> None:
        """There is nothing to give back."""


def without_lock(what: str, exclusive: bool) -> AbstractContextManager[Any]:
    """That lease is taken without its lock."""
    ask = requests.Requests.ask

    async def granted(self: Any, asked: str, *, exclusive: bool, **rest: Any) -> Any:
        if (asked, exclusive) == (what, wanted):
            return Granted()
        return await ask(self, asked, exclusive=exclusive, **rest)

    async def granted_if_free(self: Any, asked: str) -> Any:
        return Granted() if exclusive and asked == what else await ask_if_free(self, asked)

    wanted, ask_if_free = exclusive, requests.Requests.ask_if_free
    return mock.patch.multiple(requests.Requests, ask=granted, ask_if_free=granted_if_free)


RULES = (
    Rule(
        "xSync does not flush",
        power_cuts,
        {"if (!host.flush(file->node->file[file->kind])) return SQLITE_OK;": "return SQLITE_OK;"},
    ),
    Rule(
        "a commit is acknowledged before the flush",
        power_cuts,
        {
            "  if (!host.flush(file->node->file[file->kind])) return SQLITE_OK;": "  "
            "static int late; if (late++ % 2) return SQLITE_OK;\n"
            "  if (!host.flush(file->node->file[file->kind])) return SQLITE_OK;"
        },
    ),
    Rule(
        "a deletion is not flushed",
        power_cuts,
        {"  if (host.flush(node->file[kind])) return SQLITE_IOERR_DELETE;\n": ""},
    ),
    Rule(
        "a survivor does not flush the deletion that it relies on",
        one_of_the_others(test_power.test_a_survivor_makes_sure_that_the_journal_stays_away),
        {"        host.flush(node->file[FILE_JOURNAL]))": "        0)"},
    ),
    Rule(
        "a commit frame waits, though no flush will come",
        kills,
        {"if (node->append_commit) return": "if (0) return"},
    ),
    Rule(
        "what was rolled back stays gathered",
        one_of_the_others(test_vfs.test_what_was_gathered_and_rolled_back_never_reaches_the_file),
        {"if (offset == LOCK_WRITE && (file->exclusive & 1)) append_forget(node);": ""},
    ),
    Rule(
        "what is read may still be gathered",
        workload,
        {"if (file->kind == FILE_WAL && node->append_length) {": "if (0) {"},
    ),
    Rule(
        "a short write is taken for a whole one",
        quota,
        {
            "return written == HOST_ERROR ? SQLITE_IOERR_WRITE : SQLITE_FULL;": (
                "return written == HOST_ERROR ? SQLITE_IOERR_WRITE : SQLITE_OK;"
            )
        },
    ),
    Rule(
        "after a failure the file is not asked",
        failing_flushes,
        {
            "static void wal_failed(Node *node) { node->current = 0; }": (
                "static void wal_failed(Node *node) { (void)node; }"
            )
        },
    ),
    Rule(
        "no catch-up",
        workload,
        {
            "  if (node->level == LEVEL_NONE) return SQLITE_BUSY;\n  if (node->current": (
                "  if (node->level != LEVEL_NONE) return SQLITE_OK;\n  if (node->current"
            )
        },
    ),
    Rule(
        "no catch-up before a write",
        Schedules(True),
        package=lambda: mock.patch.object(wal.Wal, "catch_up", return_value=None),
    ),
    Rule(
        "no catch-up when a connection opens",
        Schedules(False),
        package=lambda: mock.patch.object(opfs, "CATCH_UP", 0),
    ),
    Rule(
        "a lease that was given up and taken again counts as kept",
        workload,
        {
            "    node->header_checked = 0;\n    node->current = 0;\n  }\n"
            "  if (level < LEVEL_WRITE) node->current = 0;": "  }"
        },
    ),
    Rule(
        "what was read ahead outlives the lease",
        one_of_the_others(test_vfs.test_what_was_read_ahead_ends_with_the_lease),
        {"    ahead_forget(node);\n    node->header_checked = 0;": "    node->header_checked = 0;"},
    ),
    Rule(
        "what was read ahead outlives a write",
        one_of_the_others(test_vfs.test_what_was_read_ahead_ends_with_a_checkpoint_of_ones_own),
        {
            "if (file->kind == FILE_DB) ahead_forget(file->node);\n  return host_write": (
                "return host_write"
            ),
            # A checkpoint ends with one.
            "  if (file->kind == FILE_DB) ahead_forget(file->node);\n  return host.truncate": (
                "  return host.truncate"
            ),
        },
    ),
    Rule(
        "a WAL that restarted between two leases is not noticed",
        workload,
        {"    node->header_checked = 0;\n    node->current = 0;\n  }": "    node->current = 0; }"},
    ),
    Rule(
        "the salts of the WAL are not compared",
        workload,
        {"memcmp(wal_header + 16, published->salt, 8) != 0 || ": ""},
    ),
    Rule(
        "frames of an earlier generation are taken for new ones",
        workload,
        {
            "if (n < FRAME_HEADER || memcmp(data + 8, header.salt, 8) != 0) break;": (
                "if (n < FRAME_HEADER) break;"
            ),
            "if (after[0] != get32(data + 16) || after[1] != get32(data + 20)) break;": "",
        },
    ),
    Rule(
        "checksums are not compared",
        one_of_the_others(test_vfs.test_a_torn_frame_is_never_published),
        {"if (after[0] != get32(data + 16) || after[1] != get32(data + 20)) break;": ""},
    ),
    Rule(
        "frames without a commit are published",
        Schedules(True),
        {
            "    if (get32(data + 4)) { /*": "    if (1) { /*",
            "      header.pages = get32(data + 4);": (
                "      if (get32(data + 4)) header.pages = get32(data + 4);"
            ),
        },
    ),
    Rule(
        "the first frame is checked against an earlier header",
        one_of_the_others(
            test_vfs.test_a_restart_that_is_rolled_back_does_not_hide_what_others_write
        ),
        {"  if (header.max_frame == 0) {\n    /* The first": "  if (0) {\n    /* The first"},
    ),
    Rule(
        "slots of frames that were never committed are not cleaned",
        one_of_the_others(
            test_vfs.test_frames_that_are_rolled_back_again_and_again_leave_the_index_as_it_was
        ),
        {"} else if (entry[i - 1]) {": "} else if (0) {"},
    ),
    Rule(
        "catch-up beside a writer of the same tab",
        one_of_the_others(
            test_vfs.test_a_reader_beside_a_writer_after_a_restart_leaves_the_index_alone
        ),
        {" || node->exclusive[LOCK_WRITE]": ""},
    ),
    Rule(
        "pages of a WAL that vanished stay cached",
        one_of_the_others(test_vfs.test_a_wal_that_vanished_drops_every_cached_page),
        {
            "  sqlite3_randomness(sizeof header.salt, header.salt);\n": "",
            "  header->change++;\n": "",
        },
    ),
    Rule(
        "the WAL restarts while others read",
        workload,
        {"if (offset == LOCK_READERS && n == SHM_LOCKS - LOCK_READERS) return SQLITE_BUSY;": ""},
    ),
    Rule(
        "a WAL that is begun anew in place keeps its salts",
        workload,
        {"  memcpy(header + 16, published->salt, 8);\n": ""},
    ),
    Rule(
        "checkpoints while others read",
        Schedules(True),
        package=lambda: without_lock("read", True),
    ),
    Rule(
        "a writer may checkpoint",
        one_of_the_others(test_vfs.test_a_reader_cannot_write_and_a_writer_cannot_checkpoint),
        {"if (offset == LOCK_CHECKPOINT && n == 1) return SQLITE_BUSY;": ""},
    ),
    Rule(
        "a tab that did not catch up has locks",
        one_of_the_others(test_vfs.test_closing_does_not_checkpoint_by_a_wal_index_of_long_ago),
        {"node->stale = node->regions > 0;": "node->stale = 0;"},
    ),
    Rule(
        "two tabs write",
        Schedules(True),
        package=lambda: without_lock("write", True),
    ),
    Rule(
        "a reader may write",
        one_of_the_others(test_vfs.test_a_reader_cannot_write_and_a_writer_cannot_checkpoint),
        {
            ">level >= (file->kind == FILE_WAL ? LEVEL_WRITE : LEVEL_EXCLUSIVE);": (
                ">level >= LEVEL_READ;"
            )
        },
    ),
    Rule(
        "without a lease everything goes on",
        one_of_the_others(test_vfs.test_without_a_lease_nothing_is_read_or_written),
        {
            "if (node->level == LEVEL_NONE || node->stale) return SQLITE_BUSY;\n  if (flags": (
                "if (flags"
            ),
            "if (node->level == LEVEL_NONE || node->db_writer >=": "if (node->db_writer >=",
        },
    ),
)


def compiled(rule: Rule, folder: Path) -> Path:
    """The VFS with that rule broken."""
    folder.mkdir()
    for part in (build.SOURCE, *build.SOURCE.parent.glob("*.h")):
        shutil.copy(part, folder)
    for old, new in rule.source.items():
        found = [part for part in folder.iterdir() if old in part.read_text()]
        assert len(found) == 1, f"{old!r} is in {len(found)} files"
        text = found[0].read_text()
        assert text.count(old) == 1, f"{old!r} is in {found[0].name} {text.count(old)} times"
        found[0].write_text(text.replace(old, new))
    with mock.patch.object(build, "SOURCE", folder / build.SOURCE.name):
        build.build_native(folder / "mutated.so", ("-O0", "-w"))
    return folder / "mutated.so"


@contextlib.contextmanager
def broken(rule: Rule, vfs: Path) -> Iterator[Library]:
    mutant = Library(vfs)
    with rule.package():
        yield mutant


@pytest.mark.parametrize("rule", RULES, ids=[rule.broken for rule in RULES])
def test_a_broken_rule_is_found_out(rule: Rule, tmp_path: Path, library: Library) -> None:
    vfs = compiled(rule, tmp_path / "vfs") if rule.source else library.path
    assert finds_out(rule.search, broken(rule, vfs)), f"nobody noticed: {rule.broken}"


def test_nothing_is_found_out_where_no_rule_is_broken(tmp_path: Path, library: Library) -> None:
    """Nor does a search fail by itself, or by the process that it is in."""
    vfs = compiled(Rule("none", workload), tmp_path / "vfs")
    searches = {rule.search for rule in RULES if not isinstance(rule.search, Schedules)}
    for search in (*searches, Schedules(True, 1), Schedules(False, 1)):
        assert not finds_out(search, broken(Rule("none", search), vfs)), search
    Client(library, Disk()).write("CREATE TABLE t(v)")


# -- what finds out --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "bounds"),
    [
        (lambda _: pytest.fail("found"), {}),
        (lambda _: os.kill(os.getpid(), signal.SIGSEGV), {}),
        (lambda _: os.abort(), {}),
        (lambda _: all(itertools.repeat(True)), {"computing": 1}),
        (lambda _: threading.Event().wait(), {"waiting": 0.5}),
    ],
    ids=["raises", "crashes", "aborts", "computes for ever", "waits for ever"],
)
def test_it_is_found_out_by_a_search_that(
    search: Callable[[None], None], bounds: dict[str, Any]
) -> None:
    assert finds_out(search, nullcontext(), **bounds)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_who_ends_a_search_from_outside_finds_nothing_out(number: int) -> None:
    with pytest.raises(AssertionError, match="nothing was found out"):
        finds_out(lambda _: os.kill(os.getpid(), number), nullcontext())


def test_what_cannot_be_set_up_finds_nothing_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rule = Rule("none", workload)
    with pytest.raises(AssertionError, match="nothing was found out"):
        finds_out(rule.search, broken(rule, tmp_path / "missing.so"))
    assert "missing.so" in capfd.readouterr().err
