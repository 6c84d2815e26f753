"""host.js, loaded once for each worker, and the VFS's functions in the function table."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import js
import pyodide_js
from pyodide.code import run_js
from pyodide.ffi import JsException

from ..errors import StorageUnavailableError
from ..version import __version__
from .interface import Host


@cache
def host() -> Host:
    """globalThis.holdfastHost.

    StorageUnavailableError: this page's policy keeps it out, or it is of another version.
    """
    found: Host | None = getattr(js.globalThis, "holdfastHost", None)
    if found is None:
        found = _load()
    else:
        _check_version(found)
    found.useModule(pyodide_js._module)
    return found


def _load() -> Host:
    try:
        run_js(Path(__file__).with_name("host.js").read_text("utf-8"))
    except JsException as error:
        raise StorageUnavailableError(
            "holdfast's JavaScript could not be run, which a Content-Security-Policy without "
            "'unsafe-eval' does; serve holdfast/browser/host.js yourself and load it in the "
            f"worker before importing holdfast ({error})"
        ) from error
    loaded: Host = js.globalThis.holdfastHost
    return loaded


def _check_version(found: Any) -> None:
    theirs, ours = getattr(found, "version", "unknown"), __version__
    if theirs != ours:
        raise StorageUnavailableError(
            f"this worker loaded a host.js of version {theirs}, and holdfast is of version "
            f"{ours}; serve the holdfast/browser/host.js that is inside holdfast's own wheel"
        )


@cache
def vfs_functions() -> tuple[int, ...]:
    """read, write, truncate, size and flush, as function pointers for the VFS."""
    return tuple(host().install())
