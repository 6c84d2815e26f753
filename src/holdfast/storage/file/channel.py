"""Messages among the processes of a machine that have one file open, as a BroadcastChannel.

Each end is a datagram socket in a folder of the file's own; who posts sends to every socket there.
An end whose process died refuses what is sent to it, and is removed. Like every announcement a
message may be lost (a reader that is too slow, a platform without such sockets): it saves waiting,
and nobody relies on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ...unique import unique

logger = logging.getLogger("holdfast")

# More than a message may have, in bytes; what is longer is not sent.
_LONGEST = 60_000

# A folder's time of change tells of every change that came so long after the one before, in ns.
_TICK = 100_000_000


class FileChannel:
    """One end; `on_message` is called, on the event loop, with each text that another end posts."""

    def __init__(
        self, folder: Path, end: socket.socket, name: str, on_message: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._path = str(folder)
        self._end = end
        self._name = name
        self._on_message = on_message
        # The other ends, and the folder's time of change with them; None: it has to be listed.
        self._others: list[str] = []
        self._changed: int | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end, self._read)

    @classmethod
    def open(cls, file: tuple[int, int], on_message: Callable[[str], None]) -> FileChannel | None:
        """On the file with this device and inode; None where the platform has nothing for it."""
        if not hasattr(socket, "AF_UNIX"):
            return None
        end: socket.socket | None = None
        try:
            end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            end.setblocking(False)
            name = unique()[:12]
            for last in (False, False, True):
                folder = _folder(file)
                try:
                    end.bind(str(folder / name))
                    break
                except FileNotFoundError:
                    # The last of the others left, with the folder, at this very moment.
                    if last:
                        raise
            return cls(folder, end, name, on_message)
        except (OSError, NotImplementedError) as error:
            # NotImplementedError: an event loop that cannot wait for sockets.
            if end is not None:
                end.close()
            logger.debug("other processes are not told of commits: %s", error)
            return None

    def others(self) -> list[str]:
        """The names of the other ends that there are now, those of dead processes too.

        OSError: it cannot be known, as without a free descriptor.
        """
        try:
            changed = os.stat(self._path).st_mtime_ns
            if changed != self._changed:
                self._others = [name for name in os.listdir(self._folder) if name != self._name]
                # It is the time of a clock that ticks, in whole seconds on some file systems; what
                # changes within a tick of another change is not told by it.
                settled = changed % 1_000_000_000 and abs(time.time_ns() - changed) > _TICK
                self._changed = changed if settled else None
        except FileNotFoundError:
            # It was cleaned away with this end's socket: it leads to no other process.
            self._others, self._changed = [], None
        return self._others

    def post(self, text: str) -> None:
        """Send it to every other end that there is now. OSError: as `others`."""
        data = text.encode()
        if len(data) > _LONGEST:
            return
        for name in self.others():
            path = self._folder / name
            try:
                self._end.sendto(data, str(path))
            except ConnectionRefusedError:
                # Its process is dead. A name is never used twice, so none that lives is removed.
                with contextlib.suppress(OSError):  # the next one tries again
                    path.unlink(missing_ok=True)
                self._changed = None
            except OSError as error:
                logger.debug("%s was not told of a commit: %s", path, error)

    def reaches_others(self) -> bool:
        """Whether there is another end now."""
        for name in self.others():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                try:
                    probe.connect(str(self._folder / name))
                except OSError:
                    continue  # its process is dead
                return True
        return False

    def close(self) -> None:
        """Remove this end: other processes no longer find it."""
        with contextlib.suppress(RuntimeError):  # its loop is closed, and the reader gone with it
            self._loop.remove_reader(self._end)
        self._end.close()
        (self._folder / self._name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are in it
            self._folder.rmdir()

    def _read(self) -> None:
        while True:
            try:
                data = self._end.recv(_LONGEST + 1)
            except BlockingIOError:
                return
            self._on_message(data.decode())


def _folder(file: tuple[int, int]) -> Path:
    """A folder for the sockets of this file: of this user alone, and with a short path.

    A socket's path may have some hundred bytes only (unix(7)), so it is not beside the file.
    """
    base = Path(tempfile.gettempdir(), f"holdfast-{os.getuid()}")
    base.mkdir(mode=0o700, exist_ok=True)
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{base} is not a folder of this user alone")
    folder = base / f"{file[0]:x}-{file[1]:x}"
    with contextlib.suppress(FileExistsError):  # not exist_ok, which would look for it once more
        folder.mkdir(mode=0o700)
    return folder
