"""WebKit, a browser without synchronous access to files: Selenium drives WebKitGTK's MiniBrowser.

Python is on the pages' main threads, the databases are in a shared worker, in IndexedDB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded import Recording, scenarios
from selenium import webdriver
from selenium.webdriver.webkitgtk.options import Options
from selenium.webdriver.webkitgtk.service import Service
from selenium.webdriver.webkitgtk.webdriver import WebDriver

ROOT = Path(__file__).resolve().parent.parent.parent


def program(variable: str, name: str) -> str:
    found = os.environ.get(variable) or shutil.which(name)
    assert found, f"{name} is not on PATH. Install it, or set {variable} to its path."
    return found


@pytest.fixture(scope="module")
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where scripts/serve.py serves the pages."""
    dist = str(request.config.option.dist_dir)
    command = [sys.executable, str(ROOT / "scripts" / "serve.py"), "--pyodide", dist]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1].rstrip("/")
        server.terminate()


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A screen that nobody sees."""
    command = [program("XVFB", "Xvfb"), "-displayfd", "1", "-screen", "0", "800x600x24"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        yield f":{server.stdout.readline().strip()}"
        server.terminate()


@pytest.fixture(scope="module")
def driver(display: str, patient: Callable[[Any], Any]) -> Iterator[WebDriver]:
    options = Options()
    options.add_argument("--automation")
    if binary := os.environ.get("MINIBROWSER"):
        options.binary_location = binary
    environment = {**os.environ, "DISPLAY": display, "WEBKIT_DISABLE_COMPOSITING_MODE": "1"}
    service = Service(program("WEBKITWEBDRIVER", "WebKitWebDriver"), env=environment)
    driver = patient(webdriver.WebKitGTK(options=options, service=service))
    yield driver
    driver.quit()


class Tab:
    """A tab with Python in its page; `run` gives the code's last expression, as JSON has it."""

    def __init__(self, driver: WebDriver, address: str) -> None:
        self._driver = driver
        driver.switch_to.new_window("tab")
        self._handle = driver.current_window_handle
        driver.get(f"{address}/e2e/tab.html?thread=page")
        self._load()

    def _load(self) -> None:
        self._call({"load": {"packages": ["holdfast"], "scripts": []}})
        self.run("import asyncio, holdfast")

    def reload(self) -> None:
        self._driver.switch_to.window(self._handle)
        self._driver.refresh()
        self._load()

    def run(self, python: str) -> Any:
        return self._call({"python": python})

    def close(self) -> None:
        self._driver.switch_to.window(self._handle)
        self._driver.close()
        self._driver.switch_to.window(self._driver.window_handles[0])

    def _call(self, message: dict[str, Any]) -> Any:
        self._driver.switch_to.window(self._handle)
        # The page's script is a module: it may still be on its way.
        found = self._driver.execute_async_script(
            """
            const [message, done] = arguments;
            (async () => {
              while (!window.tab) await new Promise((resolve) => setTimeout(resolve, 10));
              return window.tab.call(message);
            })().then(
              (result) => done({ result: result ?? null }),
              (error) => done({ error: String(error.message ?? error) }),
            );
            """,
            message,
        )
        if "error" in found:
            raise RuntimeError(found["error"])
        return found["result"]


Open = Callable[[], Tab]


@pytest.fixture
def tab(driver: WebDriver, address: str) -> Iterator[Open]:
    """Opens a tab."""
    first = driver.current_window_handle

    yield lambda: Tab(driver, address)
    for handle in driver.window_handles:
        if handle != first:
            driver.switch_to.window(handle)
            driver.close()
    driver.switch_to.window(first)


def opened(options: str = "") -> str:
    return f"""
db = await holdfast.open("webkit.db", busy_timeout=60{options})
await db.execute("CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, text TEXT)")
[db.storage, db.persists_triggers]
"""


def test_auto_is_one_connection_for_all_tabs(tab: Open) -> None:
    first, second = tab(), tab()
    assert first.run(opened()) == ["indexeddb", False]
    second.run(opened())
    assert second.run("(await db.status()).tabs") == 2
    first.run("""
found = asyncio.Queue()
async def follow():
    async for records in db.triggers.diffs("notes"):
        for r in records:
            found.put_nowait([r.operation, r.values, r.remote])
task = asyncio.ensure_future(follow())
while len(await db.fetch_all("SELECT 1 FROM temp.sqlite_master WHERE type = 'trigger'")) < 3:
    await asyncio.sleep(0.01)
""")
    second.run("""await db.execute("INSERT INTO notes(text) VALUES(?)", ("hello",))""")
    record = ["INSERT", {"id": 1, "text": "hello"}, True]
    assert first.run("await found.get()") == record

    # The tab that started the worker dies with a transaction open; what it had is disposed of.
    first.run("""
tx = db.write_transaction()
inside = await tx.__aenter__()
await inside.execute("INSERT INTO notes(text) VALUES('never')")
None
""")
    first.close()
    left = """
async with db.write_transaction() as tx:
    await tx.execute("INSERT INTO notes(text) VALUES('world')")
while await db.fetch_value("SELECT count(*) FROM temp.sqlite_master WHERE type = 'trigger'"):
    await asyncio.sleep(0.01)
[r[0] for r in await db.fetch_all("SELECT text FROM notes")]
"""
    assert second.run(left) == ["hello", "world"]
    third = tab()
    third.run(opened())
    assert third.run("(await db.status()).tabs") == 2
    data = "data = await db.export(); await db.close(); len(data) > 1000"
    assert third.run(data)
    second.close()
    third.run('await holdfast.import_database("copy.db", data)')
    assert third.run("await holdfast.databases()") == ["copy.db", "webkit.db"]
    assert third.run('await holdfast.delete_database("copy.db")') is True


def test_the_worker_is_found_when_the_page_that_made_it_was_reloaded(tab: Open) -> None:
    maker, other = tab(), tab()
    for page in (maker, other):
        page.run(opened())
    maker.reload()
    for page in (tab(), maker):
        page.run(opened())
    # As soon as the worker has heard that the page of before is gone.
    other.run("""
while (await db.status()).tabs != 3:
    await asyncio.sleep(0.01)
""")


def test_a_worker_that_dies_in_a_commit_loses_nothing(tab: Open) -> None:
    page = tab()
    page.run("""
from js import BroadcastChannel
weaken = BroadcastChannel.new("weaken")
told = 0
async def until_it_dies(n):
    global told
    async with holdfast.open("dies.db", busy_timeout=60, worker="/e2e/weak.mjs") as db:
        await db.execute("CREATE TABLE IF NOT EXISTS t(v)")
        found = await db.fetch_value("SELECT count(*) FROM t")
        assert found in (told * 2, told * 2 + 2), (found, told)
        assert await db.fetch_value("PRAGMA integrity_check") == "ok"
        told = found // 2
        weaken.postMessage(n)
        while n:
            async with db.write_transaction() as tx:
                await tx.execute("INSERT INTO t VALUES(randomblob(9000)), (randomblob(9000))")
            told += 1
""")
    for n in (2, 9):
        died = f"""
try:
    await until_it_dies({n})
except holdfast.DatabaseClosedError as error:
    found = str(error)
found
"""
        assert "died" in page.run(died)
    page.run("await until_it_dies(0)")


def test_holds_are_web_locks(tab: Open) -> None:
    one, other = tab(), tab()
    one.run('release = await holdfast.NavigatorTriggerHoldManager().obtain_hold("x")')
    held = 'await holdfast.NavigatorTriggerHoldManager().is_held("x")'
    assert other.run(held) is True
    taken = """
try:
    await holdfast.NavigatorTriggerHoldManager().obtain_hold("x")
except holdfast.HoldAlreadyTakenError as error:
    found = str(error)
found
"""
    assert "'x' is taken" in other.run(taken)
    one.close()
    gone = f"""
while {held}:
    await asyncio.sleep(0.01)
release = await holdfast.NavigatorTriggerHoldManager().obtain_hold("x")
await release()
{held}
"""
    assert other.run(gone) is False


class ScriptTab:
    """A tab without Python in its page; `run` gives what the body of an async function returns."""

    def __init__(self, driver: WebDriver, address: str, wheel: str) -> None:
        self._driver = driver
        packages = [f"{address}/pyodide/{wheel}"]
        self._options = {"pyodide": "/pyodide/", "packages": packages, "busyTimeout": 60}
        driver.switch_to.new_window("tab")
        driver.get(f"{address}/e2e/javascript.html")

    def reload(self) -> None:
        self._driver.refresh()

    def run(self, javascript: str) -> Any:
        found = self._driver.execute_async_script(
            f"""
            const [options, done] = arguments;
            const run = async ({{ open }}) => {{ {javascript} }};
            import("/pyodide/holdfast.mjs").then(run).then(
              (result) => done({{ result: result ?? null }}),
              (error) => done({{ error: `${{error.name}}: ${{error.message}}` }}),
            );
            """,
            self._options,
        )
        if "error" in found:
            raise RuntimeError(found["error"])
        return found["result"]


@pytest.mark.usefixtures("tab")  # which closes the window afterwards
def test_javascript_has_it_too(
    driver: WebDriver, address: str, request: pytest.FixtureRequest
) -> None:
    (wheel,) = request.config.option.dist_dir.glob("holdfast-*.whl")
    page = ScriptTab(driver, address, wheel.name)
    written = page.run("""
        const db = await open("script.db", { ...options, storage: "indexeddb" });
        await db.execute("CREATE TABLE notes(id INTEGER PRIMARY KEY, text)");
        const handled = Promise.withResolvers();
        const tracker = await db.triggers.trackTableDiff({
          source: "notes",
          onChange: async (context) =>
            handled.resolve(await context.withExtractedDiff("SELECT text FROM DIFF")),
        });
        await db.transaction(async (tx) => {
          await tx.executeMany("INSERT INTO notes(text) VALUES(?)", [["hello"], ["world"]]);
        });
        const rows = await db.fetchAll("SELECT id, text FROM notes ORDER BY id");
        const found = [db.storage, rows, await handled.promise];
        await tracker.stop();
        return found;
    """)
    rows = [{"id": 1, "text": "hello"}, {"id": 2, "text": "world"}]
    assert written == ["indexeddb", rows, [{"text": "hello"}, {"text": "world"}]]
    page.reload()
    read = """
        const db = await open("script.db", options);
        const found = [db.storage, await db.fetchAll("SELECT id, text FROM notes ORDER BY id")];
        await db.close();
        return found;
    """
    assert page.run(read) == ["indexeddb", rows]


@pytest.mark.parametrize("subject", ["locks", "channels", "blocks"])
def test_the_browser_behaves_as_it_was_recorded(
    driver: WebDriver, address: str, subject: str
) -> None:
    """As conformance.spec.mjs has it of the others; there are no handles to ask about."""
    driver.get(f"{address}/e2e/conformance.html")
    found = driver.execute_async_script(
        """
        const [subject, texts, done] = arguments;
        import("./conformance.mjs").then(({ run }) => run(subject, texts)).then(
          (found) => done({ found }),
          (error) => done({ error: `${error.name}: ${error.message}` }),
        );
        """,
        subject,
        scenarios(subject),
    )
    assert "error" not in found, found
    found = {scenario: found["found"][scenario] for scenario in scenarios(subject)}
    version = driver.capabilities["browserVersion"]
    recording = Recording("webkit")
    if os.environ.get("CONFORMANCE") == "record":
        recording.write(version, subject, found)
    differences = recording.differences(subject, found)
    if recording.version == version:
        assert not differences, "\n".join(differences)
    elif differences:
        print(f"WebKit {version} differs from {recording.version}:", *differences, sep="\n")
