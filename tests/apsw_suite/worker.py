"""The VFS with files of OPFS as the suite's databases; in a worker, beside holdfast's wheel."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import js
from pyodide.code import run_js
from pyodide_js import FS
from suite import DATABASES, SUFFIXES, add, run

from holdfast.browser.files import DatabaseFiles, look
from holdfast.browser.host import vfs_functions
from holdfast.storage.opfs.node import load_extension

# In Pyodide's file system: see opfs_files.js.
FOLDER = "/opfs"
files: list[DatabaseFiles] = []


async def set_up() -> None:
    """Open the files, and tell the VFS and Pyodide's file system of them."""
    Path(FOLDER).mkdir()
    numbers = js.Map.new()
    connection = apsw.Connection(":memory:")
    load_extension(connection)
    connection.execute("SELECT holdfast_vfs_host(?, ?, ?, ?, ?)", vfs_functions()).fetchall()
    for name in DATABASES:
        found = await DatabaseFiles.find(look(["apsw-suite"]), name.replace("/", "-"))
        await found.open(5)
        files.append(found)
        for suffix, number in zip(SUFFIXES, found.numbers, strict=True):
            numbers.set(name + suffix, number)
        add(connection, f"{FOLDER}/{name}", found.numbers)
    connection.close()
    run_js(Path(__file__).with_name("opfs_files.js").read_text("utf-8"))(FS, FOLDER, numbers)


def clean() -> None:
    for each in files:
        each.empty()


def report(mode: str) -> str:
    clean()
    return json.dumps(run(FOLDER, "browser", mode, clean))
