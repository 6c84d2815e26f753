"""Actors of the conformance scenarios, in the simulated browser; see tests/conformance/README.md.

A scenario gets a browser of its own, in virtual time, and so does each of its contexts a tab. What
a step causes has come to rest before the next one: nothing takes as long as SETTLED.
"""

from __future__ import annotations

import asyncio
import ctypes
import random
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote

import simulated_indexeddb
from faults.browser import CLOSED, Browser, Host, SimulatedTab, Unanswered, simulated
from faults.disk import Disk
from simulated_files import EXCLUSIVE, READ_ONLY, SHARED, Handle
from simulated_javascript import JsException
from simulated_opfs import Library

from holdfast.storage.indexeddb.blocks import BLOCK

# Of the simulated browser's seconds.
SETTLED = 1.0

LOCK = "holdfast:scenario"
FOLDER = "scenario"


class NoHandle(Exception):
    """The actor's opening failed."""


class Scenario:
    """One run of a scenario; `run` gives the answers, joined as they are recorded."""

    def __init__(self, library: Library, text: str, *, shared: bool, seed: int = 0) -> None:
        self.steps = [step.split(" ") for step in text.split(", ")]
        self.browser = Browser(library, Disk(), random.Random(seed), shared=shared)
        self.host = Host(self.browser)
        self.tabs: dict[str, SimulatedTab] = {}

    def run(self) -> str:
        with simulated(self.browser):
            self.begin()
            answers: list[str] = self.browser.loop.run(self._main())
        assert not self.browser.loop.errors, self.browser.loop.errors
        return "; ".join(answers)

    async def _main(self) -> list[str]:
        answers = []
        # Steps may be added while they are done.
        for actor, verb, *rest in self.steps:
            letter = actor[0]
            if letter not in self.tabs:
                self.tabs[letter] = self.browser.tab()
            answer = "" if verb == "dies" else await self._do(actor, verb, rest)
            if verb.startswith("dies"):
                self.browser.kill(self.tabs.pop(letter))
            await asyncio.sleep(SETTLED)
            answers.append(self.observe(answer))
        return answers

    async def _do(self, actor: str, verb: str, rest: list[str]) -> str:
        async def step() -> Any:
            try:
                return await self.act(actor, verb, *rest)
            except (JsException, NoHandle) as error:
                return error.args[0]

        answer = await self.tabs[actor[0]].run(step())
        if isinstance(answer, bool):
            return "true" if answer else "false"
        return "ok" if answer is None else str(answer)

    def letter(self, tab: SimulatedTab) -> str:
        return next((letter for letter, other in self.tabs.items() if other is tab), "?")

    def begin(self) -> None: ...

    async def act(self, actor: str, verb: str, *rest: str) -> Any:
        raise NotImplementedError

    def observe(self, answer: str) -> str:
        return answer


class Locks(Scenario):
    """Each request has a number; its owner is told whether it was granted."""

    def begin(self) -> None:
        self.numbers: dict[str, int] = {}
        self.granted: set[int] = set()
        self.refused = ""
        self.taken = 0
        self.left = len(self.steps)
        self.host.setOnAnswer(self._answered)

    def _answered(self, number: int, granted: bool, error: str) -> None:
        if granted:
            self.granted.add(number)
        else:
            self.refused = f" {error or 'refused'}"

    async def act(self, actor: str, verb: str, *rest: str) -> None:
        if verb == "off":
            number = self.numbers.pop(actor)
            self.granted.discard(number)
            self.host.release(number)
        else:
            self.taken += 1
            self.numbers[actor] = self.taken
            exclusive, if_available = verb.startswith("ex"), verb.endswith("?")
            self.host.request(self.taken, LOCK, exclusive, if_available)

    def observe(self, answer: str) -> str:
        held, waiting = (
            [
                self.letter(request.tab).upper() if request.exclusive else self.letter(request.tab)
                for request in requests.get(LOCK, ())
            ]
            for requests in (self.browser.locks.held, self.browser.locks.waiting)
        )
        alive = {actor: number for actor, number in self.numbers.items() if actor[0] in self.tabs}
        holding = sorted(actor for actor, number in alive.items() if number in self.granted)
        assert len(holding) == len(held), (holding, held)
        refused, self.refused = self.refused, ""
        self.left -= 1
        if self.left <= 0 and holding:
            self.steps.append([holding[0], "off"])
        return _joined(sorted(held)) + ("|" * bool(waiting)) + _joined(waiting) + refused


class Channels(Scenario):
    def begin(self) -> None:
        self.ends: dict[str, Any] = {}
        self.heard: dict[str, list[str]] = {}

    async def act(self, actor: str, verb: str, *messages: str) -> None:
        if verb == "join":
            heard = self.heard[actor] = []
            self.ends[actor] = self.host.channel("holdfast:scenario", heard.append)
        for message in messages:
            self.ends[actor].post(message)
        if verb.endswith("leave"):
            self.ends[actor].close()

    def observe(self, answer: str) -> str:
        told = {actor: _joined(heard) for actor, heard in sorted(self.heard.items()) if heard}
        for heard in self.heard.values():
            heard.clear()
        return " ".join(f"{actor}:{heard}" for actor, heard in told.items())


class Files(Scenario):
    """Handles are opened by the host, and used by the functions that the VFS calls."""

    def begin(self) -> None:
        self.numbers: dict[str, int] = {}
        self.others: dict[str, Handle] = {}
        c_int, c_double, c_void_p = ctypes.c_int, ctypes.c_double, ctypes.c_void_p
        types = (
            ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_int, c_double),
            ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_int, c_double),
            ctypes.CFUNCTYPE(c_int, c_int, c_double),
            ctypes.CFUNCTYPE(c_double, c_int),
            ctypes.CFUNCTYPE(c_int, c_int),
        )
        found = [
            type(address)
            for type, address in zip(types, self.browser.library.functions, strict=True)
        ]
        self.functions = dict(
            zip(("read", "write", "truncate", "size", "flush"), found, strict=True)
        )

    async def act(self, actor: str, verb: str, *rest: str) -> Any:
        files, ask = self.browser.files, self.tabs[actor[0]].ask
        path = [FOLDER, *(_name(each) for each in rest[0].split("/"))] if rest else [FOLDER]
        match verb:
            case "ex" | "sh" | "ro":
                return await self._open(actor, path, verb)
            case "ex!":
                while True:
                    try:
                        return await self._open(actor, path, "ex")
                    except JsException as error:
                        if error.name != "NoModificationAllowedError":
                            raise
                    await asyncio.sleep(0.01)
            case "sh-again":
                return await self._open_again(actor, self.numbers[actor])
            case "file" | "folder":
                make = files.file if verb == "file" else files.folder
                await ask(lambda: files.folder(path[:-1], create=True))
                await ask(lambda: make(path, create=True))
                return None
            case "remove" | "removeall":
                return await ask(lambda: files.remove(path, recursive=verb == "removeall"))
            case "list":
                names = await ask(lambda: files.names(path))
                return " ".join(sorted(quote(name, safe="!~*'()") for name in names)) or "nothing"
        if actor not in self.numbers:
            raise NoHandle("NoHandle")
        return self._use(self.numbers[actor], verb, *rest)

    async def _open(self, actor: str, path: list[str], verb: str) -> str:
        if verb == "ro":
            # The package has no use for it, so the host does not offer it.
            tab, files = self.tabs[actor[0]], self.browser.files
            await tab.ask(lambda: files.folder(path[:-1], create=True))
            await tab.ask(lambda: files.file(path, create=True))
            handle: Handle = await tab.ask(lambda: files.open(path, tab, READ_ONLY))
        else:
            looking = self.host.look(["holdfast", *path[:-1]])
            (number,) = await self.host.nameFiles(looking, path[-1:])
            await self.host.openFiles([number], verb == "sh")
            self.numbers[actor] = number
            handle = self.browser.handles[number]
        return _shown(handle)

    async def _open_again(self, actor: str, number: int) -> str:
        if self.browser.library.host[number] is CLOSED:
            await self.host.openFiles([number], True)
            return _shown(self.browser.handles[number])
        # The host has it open, and would leave it at that.
        tab, path = self.tabs[actor[0]], self.browser.names[number][1].split("/")
        return _shown(await tab.ask(lambda: self.browser.files.open(path, tab, SHARED)))

    def _use(self, number: int, verb: str, *rest: str) -> Any:
        if verb == "close":
            try:
                return self.host.closeFiles([number])
            except Unanswered:
                return "no answer"
        if self.browser.library.host[number] is CLOSED:
            # Which of its errors it is, the VFS does not ask.
            assert self._call(verb, number, *rest)[0] < 0
            return "InvalidStateError"
        result, content = self._call(verb, number, *rest)
        assert result >= 0
        match verb:
            case "read":
                return f"{result}:{content.decode('latin-1').replace(chr(0), '.')}"
            case "write" | "size":
                return int(result)
        return None

    def _call(self, verb: str, number: int, *rest: str) -> tuple[int, bytes]:
        call = self.functions[verb]
        match verb:
            case "read":
                at, n = map(int, rest)
                buffer = ctypes.create_string_buffer(max(n, 1))
                result = call(number, ctypes.addressof(buffer), n, at)
                return result, buffer.raw[:n]
            case "write":
                data = rest[1].encode()
                source = ctypes.create_string_buffer(data, len(data))
                return call(number, ctypes.addressof(source), len(data), int(rest[0])), b""
        return call(number, *map(int, rest)), b""


def _shown(handle: Handle) -> str:
    return f"open {'exclusive' if handle.mode == EXCLUSIVE else handle.mode}"


def _name(escaped: str) -> str:
    letter, _, times = escaped.partition("*")
    return "" if escaped == "''" else letter * int(times) if times else unquote(escaped)


class Blocks(Scenario):
    """Each context has a host of its own, of one origin."""

    def begin(self) -> None:
        self.origin = simulated_indexeddb.Origin()
        self.hosts: dict[str, simulated_indexeddb.Host] = {}
        self.databases: dict[str, Any] = {}

    async def act(self, actor: str, verb: str, *rest: str) -> Any:
        host = self.hosts.setdefault(actor[0], simulated_indexeddb.Host(self.origin))
        database = self.databases.get(actor)
        match verb:
            case "open" | "find":
                self.databases[actor] = await host.openBlocks("x", verb == "open")
                return "ok" if self.databases[actor] else "none"
            case "close":
                return database.close()
            case "delete":
                return await host.deleteBlocks("x")
            case "names":
                return "x" in await host.namesOfBlocks()
            case "read":
                size = await host.sizeOf(database)
                content = await host.readBlocks(database, 0)
                return f"{size // BLOCK}:{content[::BLOCK].decode()}"
            case "either":
                found = await Blocks.act(self, actor, "read")
                return "ok" if found in [f"{len(each)}:{each}" for each in rest] else found
            case "is-open":
                return host.blocksAreOpen(database)
            case "dies-in-write":
                self._write(host, database, rest[0])
                return None
            case "fail":
                return await host.writeBlocks(database, BLOCK, 0, _fail, "strict")
            case "put":
                start, letters, size = rest
                return await self._write(host, database, letters, int(start), int(size))
            case "write-write":
                writing = [self._write(host, database, letters) for letters in rest]
                await asyncio.gather(*writing)
                return None
            case "write-close":
                writing = [self._write(host, database, rest[0])]
                database.close()
                await asyncio.gather(*writing)
                return None
        return await self._write(host, database, rest[0])

    def _write(
        self, host: Any, database: Any, letters: str, start: int = 0, size: int | None = None
    ) -> Any:
        content = b"".join(letter.encode() * BLOCK for letter in letters)
        parts = iter([(range(start, start + len(letters)), content)])
        size = len(letters) if size is None else size
        return host.writeBlocks(database, size * BLOCK, size, lambda: next(parts, None), "strict")


class Cleared(Files, Blocks):
    """Both, and what clears them."""

    def begin(self) -> None:
        Files.begin(self)
        Blocks.begin(self)
        self.taken = 0

    async def act(self, actor: str, verb: str, *rest: str) -> Any:
        if verb == "lock?":
            self.taken += 1
            answer = asyncio.get_running_loop().create_future()
            self.host.setOnAnswer(lambda number, granted, error: answer.set_result(granted))
            self.host.request(self.taken, LOCK, True, True)
            return "held" if await answer else "refused"
        if verb == "clear":
            self.browser.clear()
            self.origin.clear()
            return None
        if verb.startswith("db-"):
            return await Blocks.act(self, actor, verb.removeprefix("db-"), *rest)
        return await Files.act(self, actor, verb, *rest)


def _fail() -> None:
    raise JsException("RangeError", "asked for")


def _joined(texts: Iterable[str]) -> str:
    return "".join(texts)
