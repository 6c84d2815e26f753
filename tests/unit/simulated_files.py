"""The origin private file system: entries, and who has which file open.

As browsers have it, and with the names of their errors: tests/conformance says what they do.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from faults.disk import Disk
from simulated_javascript import JsException

_numbers = itertools.count()
# Where the contents are that have no name.
_CLEARED = "cleared "

EXCLUSIVE, SHARED, READ_ONLY = "readwrite", "readwrite-unsafe", "read-only"


@dataclass(eq=False)
class Handle:
    """A synchronous access handle that is open."""

    path: str
    owner: object
    mode: str
    cleared: bool = False


class Files:
    """modes: whether the browser knows modes of handles; else all of them are exclusive.

    A path is the names from the root on. The contents are the disk's, by path, joined by "/".
    """

    def __init__(self, disk: Disk, *, modes: bool) -> None:
        self.disk, self.modes = disk, modes
        self.handles: list[Handle] = []
        self._folders = {""}

    def _is_folder(self, at: str) -> bool:
        inside = f"{at}/"
        return at in self._folders or any(name.startswith(inside) for name in self.disk.content)

    def folder(self, path: Sequence[str], create: bool = False) -> str:
        """A folder, and those that it is in."""
        at = ""
        for name in path:
            self._check(name)
            at = f"{at}/{name}" if at else name
            if at in self.disk.content:
                raise JsException("TypeMismatchError", f"{at} is a file")
            if not self._is_folder(at):
                if not create:
                    raise JsException("NotFoundError", f"there is no folder {at}")
                self._folders.add(at)
        return at

    def file(self, path: Sequence[str], create: bool = False) -> str:
        """A file in a folder that is there."""
        at = self._entry(path)
        if self._is_folder(at):
            raise JsException("TypeMismatchError", f"{at} is a folder")
        if at not in self.disk.content:
            if not create:
                raise JsException("NotFoundError", f"there is no file {at}")
            self.disk.add(at)
        return at

    def _entry(self, path: Sequence[str]) -> str:
        self.folder(path[:-1])
        self._check(path[-1])
        return "/".join(path)

    def _check(self, name: str) -> None:
        # Firefox, which knows no modes, takes a backslash.
        if name in ("", ".", "..") or "/" in name or ("\\" in name and self.modes):
            raise JsException("TypeError", f"Name is not allowed: {name!r}")

    def names(self, path: Sequence[str]) -> list[str]:
        """What is in a folder."""
        at = self.folder(path)
        inside = f"{at}/" if at else ""
        within = [each for each in (*self._contents(), *self._folders) if each.startswith(inside)]
        return sorted({each.removeprefix(inside).split("/")[0] for each in within} - {""})

    def remove(self, path: Sequence[str], *, recursive: bool = False) -> None:
        at = self._entry(path)
        inside = f"{at}/"
        if at not in self.disk.content and not self._is_folder(at):
            raise JsException("NotFoundError", f"there is nothing at {at}")
        if any(handle.path == at or handle.path.startswith(inside) for handle in self.handles):
            raise JsException("NoModificationAllowedError", f"{at} is open")
        if not recursive and self._is_folder(at) and self.names(path):
            raise JsException("InvalidModificationError", f"{at} is not empty")
        for each in list(self.disk.content):
            if each == at or each.startswith(inside):
                self.disk.remove(each)
        self._folders -= {each for each in self._folders if f"{each}/".startswith(inside)}

    # -- handles -----------------------------------------------------------------------------------

    def open(self, path: Sequence[str], owner: object, mode: str) -> Handle:
        at = self.file(path)
        if not self.modes:
            mode = EXCLUSIVE
        others = [handle.mode for handle in self.handles if handle.path == at]
        if others and (mode == EXCLUSIVE or others[0] != mode):
            raise JsException("NoModificationAllowedError", f"{at} is open")
        self.handles.append(Handle(at, owner, mode))
        return self.handles[-1]

    def close(self, handle: Handle) -> None:
        if handle in self.handles:
            self.handles.remove(handle)

    def clear(self) -> None:
        """The site's data: nothing has a name any more.

        Open handles work on in Chromium, into files that nobody else will see; Firefox closes them.
        """
        kept: dict[str, str] = {}
        for handle in self.handles:
            if self.modes and not handle.cleared:
                handle.cleared = True
                new = kept.setdefault(handle.path, f"{_CLEARED}{next(_numbers)}/{handle.path}")
                self.disk.content[new] = bytearray(self.disk.content[handle.path])
                handle.path = new
        if not self.modes:
            self.handles.clear()
        for at in self._contents():
            self.disk.remove(at)
        self._folders = {""}

    def _contents(self) -> list[str]:
        return [at for at in self.disk.content if not at.startswith(_CLEARED)]

    def close_all(self, owner: object) -> None:
        """It died."""
        self.handles = [handle for handle in self.handles if handle.owner is not owner]
