"""Runs the test functions of CPython in a worker: pytest, with async tests on the worker's loop.

`main(files, arguments, report, fixtures, names)`: files are written to a folder (name -> text) and
run there; `report` is called with each result as it comes. Tests that take one of `fixtures`, or
have one of `names`, are left out.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from pyodide.ffi import run_sync

ROOT = Path("/tests")


class Worker:
    """A plugin in place of pytest-asyncio: a worker has one event loop, which runs already."""

    def __init__(
        self,
        report: Callable[[dict[str, Any]], None],
        fixtures: Iterable[str],
        names: Iterable[str],
    ) -> None:
        self._report = report
        self._fixtures, self._names = frozenset(fixtures), frozenset(names)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        left_out = [
            item
            for item in items
            if item.originalname in self._names or self._fixtures.intersection(item.fixturenames)
        ]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> None:
        made = fixturedef.func
        if inspect.isasyncgenfunction(made):

            @functools.wraps(made)
            def generator(*args: Any, **kwargs: Any) -> Any:
                values = made(*args, **kwargs)
                yield run_sync(anext(values))
                assert run_sync(anext(values, "the end")) == "the end"

            fixturedef.func = generator
        elif inspect.iscoroutinefunction(made):
            fixturedef.func = functools.wraps(made)(lambda *a, **k: run_sync(made(*a, **k)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: Any) -> bool | None:
        if not inspect.iscoroutinefunction(pyfuncitem.obj):
            return None
        names = pyfuncitem._fixtureinfo.argnames
        run_sync(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
        return True

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._report(
                {"test": report.nodeid, "outcome": report.outcome, "why": report.longreprtext}
            )


def main(
    files: dict[str, str],
    arguments: list[str],
    report: Callable[[dict[str, Any]], None],
    fixtures: Iterable[str],
    names: Iterable[str],
) -> int:
    """pytest's exit code."""
    for name, text in files.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (ROOT / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    options = ["-q", "-s", "--import-mode=importlib", "--rootdir", str(ROOT)]
    options += ["-p", "no:cacheprovider", "-p", "no:faulthandler"]
    places = [str(ROOT / argument) for argument in arguments]
    return int(pytest.main([*options, *places], plugins=[Worker(report, fixtures, names)]))
