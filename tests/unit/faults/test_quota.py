"""No space at every write, an error at every call: told, and nothing lost; then it goes on."""

from __future__ import annotations

import apsw
import pytest
from simulated_opfs import Library

from faults.disk import ERROR, FULL, Disk
from faults.workload import WORKLOAD, Run, check_recovery


class At:
    """A fault at the `nth` call of some kinds, and at all that follow while it `lasts`."""

    def __init__(self, nth: int, kinds: tuple[str, ...], answer: int, lasts: bool) -> None:
        self.nth, self.kinds, self.answer, self.lasts = nth, kinds, answer, lasts
        self.calls = 0
        self.struck = False

    def __call__(self, what: str, name: str, n: int) -> int | None:
        if what not in self.kinds or (self.struck and not self.lasts):
            return None
        self.calls += 1
        if self.calls <= self.nth:
            return None
        self.struck = True
        # Some of it may have been written before the space ended.
        return min(self.answer, n - 1) if what == "write" else self.answer


def run_with(library: Library, fault: At, *, keeps: bool, synchronous: str = "FULL") -> bool:
    """The workload, with that fault somewhere; whether it struck.

    Whoever is told of an error finds the state before or after the transaction, the same one as
    every other tab, and goes on.
    """
    run = Run(library, Disk(), keeps=keeps, synchronous=synchronous)
    state = run.model.state
    for step in WORKLOAD:
        after = run.model.begin(step.statements) if step.what == "write" else None
        refused = step.what == "write" and after is None
        outcomes = [state] if after is None else [state, after]
        failed: Exception | None = None
        run.disk.fault = fault
        try:
            run.client(step.who).dump()
            if step.what == "write":
                run.client(step.who).write(*step.statements, level=step.level)
            else:
                run.step(step)
            assert not refused, step
        except (apsw.Error, AssertionError) as error:
            if isinstance(error, AssertionError) and not refused:
                raise
            failed = error
        run.disk.fault = lambda what, name, n: None
        struck, fault.lasts = fault.struck, fault.lasts and not fault.struck
        assert failed is None or struck or refused, failed
        if failed is None and after is not None:
            outcomes = [after]
        elif isinstance(failed, apsw.FullError):
            # It was said to be rolled back, so it is.
            outcomes = [state]
        for client in [run.client(0), *run.origin]:
            if client.connection.in_transaction:
                client.connection.execute("ROLLBACK")
            state = client.dump()
            assert state in outcomes, (step, failed)
            outcomes = [state]
        run.model.end(after is not None and state == after)
        assert run.model.state == state
    run.close()
    check_recovery(library, run.disk, [state])
    return fault.struck


def every(library: Library, stride: int, kinds: tuple[str, ...], answer: int, lasts: bool) -> int:
    """Strike at every `stride`th call until there are no more; how many times it did."""
    nth = struck = 0
    while True:
        fault = At(nth, kinds, answer, lasts)
        try:
            if not run_with(library, fault, keeps=bool(struck % 2)):
                return struck
        except Exception as error:
            raise AssertionError(f"{fault.__dict__}: {error!r}") from error
        struck += 1
        nth += stride


@pytest.mark.parametrize("lasts", [False, True], ids=["once", "for a while"])
@pytest.mark.parametrize("written", [FULL, 0, 700], ids=["4294967288", "nothing", "short"])
def test_no_space_at_every_write(
    library: Library, thorough: bool, written: int, lasts: bool
) -> None:
    stride = 1 if thorough else 37
    assert every(library, stride, ("write",), written, lasts) > 800 // stride


@pytest.mark.parametrize("what", ["write", "flush", "truncate", "size", "read"])
def test_an_error_at_every_call(library: Library, thorough: bool, what: str) -> None:
    stride = 1 if thorough else {"read": 151, "write": 41, "size": 13}.get(what, 1)
    assert every(library, stride, (what,), ERROR, False) > 2
