"""The host interface: host.js offers it as it is written down, and so do its simulations."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import faults.browser
import pytest
import simulated_indexeddb
import test_tasks

import holdfast.browser
from holdfast.browser.interface import (
    BlocksHost,
    FilesHost,
    FlagsHost,
    Host,
    JsChannel,
    LocksHost,
    StorageHost,
    TasksHost,
)

FOLDER = Path(holdfast.browser.__path__[0])


def calls(*protocols: Any) -> dict[str, Any]:
    """The calls of some protocols, by name."""
    return {
        name: call
        for protocol in protocols
        for name, call in inspect.getmembers(protocol, inspect.isfunction)
        if not name.startswith("_")
    }


def waits(call: Any) -> bool:
    return str(inspect.signature(call).return_annotation).startswith("Awaitable")


def takes(call: Any) -> int:
    """How many arguments, without itself."""
    return len(inspect.signature(call).parameters) - 1


SIMULATED = [
    (faults.browser.Host, calls(FilesHost, StorageHost, LocksHost, TasksHost)),
    (faults.browser.Channel, calls(JsChannel)),
    (simulated_indexeddb.Host, calls(BlocksHost, StorageHost, TasksHost)),
    (simulated_indexeddb.Host, {n: c for n, c in calls(LocksHost).items() if n != "channel"}),
    (test_tasks.Browser, calls(TasksHost)),
]


@pytest.mark.parametrize(("simulation", "declared"), SIMULATED)
def test_simulations_implement_it(simulation: type, declared: dict[str, Any]) -> None:
    assert declared
    for name, call in declared.items():
        made = getattr(simulation, name)
        # What a promise is made of, see `promise`.
        method = made.__wrapped__ if hasattr(made, "__wrapped__") else made
        assert takes(method) == takes(call), name
        # Any: a promise that another method makes.
        gives = inspect.signature(method).return_annotation
        assert inspect.iscoroutinefunction(method) or gives == "Any" or not waits(call), name
        assert waits(call) or not inspect.iscoroutinefunction(method), name


def test_all_of_it_is_simulated() -> None:
    simulated = {name for _, declared in SIMULATED for name in declared}
    # The VFS's functions are simulated elsewhere, and there is no module, nor a service worker.
    left = {"install", "useModule", *calls(FlagsHost)}
    assert calls(Host).keys() - simulated == left


def test_host_js_offers_it_and_no_more() -> None:
    source = (FOLDER / "host.js").read_text("utf-8")
    offered = re.findall(
        r"^    (\w+)(?:: (\w+)\((\w+)\))?,$", source[source.rindex("  return {") :], re.M
    )
    names = [name for name, _, _ in offered]
    assert len(set(names)) == len(names)
    assert set(names) == calls(Host).keys() | Host.__annotations__.keys()
    for name, wrapped, function in offered:
        if name in Host.__annotations__:
            continue
        call = getattr(Host, name)
        certain = hasattr(call, "certain")
        assert wrapped == ("answering" if waits(call) else "" if certain else "raising"), name
        assert function in ("", name)
        start = rf"^  (?:(?:async )?function {name}\(|const {name} = (?:async )?\(?)([^)=]*)"
        declared = re.search(start, source, re.M)
        assert declared is not None
        assert len([*filter(None, declared[1].split(","))]) == takes(call), name
