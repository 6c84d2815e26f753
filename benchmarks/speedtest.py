"""`apsw.speedtest`, which comes with APSW, on the VFS over OPFS and on a database in memory."""

import contextlib
import io
import os
import re
from types import SimpleNamespace

import apsw
import apsw.speedtest as program

from holdfast.browser.files import DatabaseFiles, look
from holdfast.browser.host import vfs_functions
from holdfast.storage.opfs.node import load_extension

NAME = "speedtest.db"
EXCLUSIVE = 3
files = None


async def set_up():
    """Nobody else has the database, so the lease is the exclusive one: checkpoints are measured."""
    global files
    files = await DatabaseFiles.find(look(["bench"]), NAME)
    await files.open(5)
    connection = apsw.Connection(":memory:")
    load_extension(connection)
    connection.execute("SELECT holdfast_vfs_host(?, ?, ?, ?, ?)", vfs_functions()).fetchall()
    connection.execute("SELECT holdfast_vfs_add(?, ?, ?, ?)", (NAME, *files.numbers)).fetchall()
    connection.execute("SELECT holdfast_vfs_level(?, ?)", (NAME, EXCLUSIVE)).fetchall()
    connection.close()
    apsw.connection_hooks.append(stay_shared)


def stay_shared(connection):
    """The program asks for exclusive locking, which holdfast refuses: it is passed over."""

    def allow(operation, name, *_):
        exclusive = operation == apsw.SQLITE_PRAGMA and name == "locking_mode"
        return apsw.SQLITE_IGNORE if exclusive else apsw.SQLITE_OK

    def trace(cursor, sql, bindings):
        if "CREATE TABLE" in sql:
            connection.exec_trace = connection.authorizer = None
        return True

    connection.authorizer, connection.exec_trace = allow, trace


def begin_anew():
    """An empty database in WAL mode, where there was one."""
    files.empty()
    connection = apsw.Connection(NAME, vfs="holdfast")
    if connection.pragma("journal_mode", "wal") != "wal":
        raise RuntimeError("the database does not go into WAL mode")
    connection.close()


async def run(where, scale):
    """Seconds of each of two runs. where: "opfs" or "memory"."""
    if files is None:
        await set_up()
    arguments = ["--apsw", "--tests", "statements", "--iterations", "2", "--scale", str(scale)]
    if where == "opfs":
        arguments += ["--database", NAME, "--vfs", "holdfast"]
        # Before each run it removes what the one before left.
        program.os = SimpleNamespace(
            path=SimpleNamespace(exists=lambda name: True), remove=lambda name: begin_anew()
        )
    else:
        program.os = os
    program.options = program.parser.parse_args(arguments)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        program.doit()
    # One line for each run: the test, seconds elapsed, seconds of the processor.
    found = re.findall(r"^\tapsw_statements\s+([\d.]+) [\d.]+$", output.getvalue(), re.M)
    if len(found) != 2:
        raise RuntimeError(f"apsw.speedtest printed something else:\n{output.getvalue()}")
    return [float(seconds) for seconds in found]
