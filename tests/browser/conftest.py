"""Tests inside a real browser: pytest-pyodide drives Chromium through Selenium.

They run in a dedicated worker (fixture `selenium_worker`), the only place where OPFS has
synchronous access handles, and use the built wheel, never the source tree.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_pyodide import runner
from pytest_pyodide.config import get_global_config

# Of a call, in seconds: what takes longer hangs. The 20 that it would have are no more than a busy
# computer takes to load Pyodide.
HANGS = 900

ROOT = Path(__file__).resolve().parent.parent.parent


get_driver = runner.SeleniumChromeRunner.get_driver


def patient(driver: Any) -> Any:
    """That driver; of itself Selenium hears no answer that takes longer than two minutes."""
    driver.set_script_timeout(HANGS)
    driver.command_executor.client_config.timeout = HANGS + 60
    return driver


@pytest.fixture(scope="session", name="patient")
def patient_fixture() -> Callable[[Any], Any]:
    return patient


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """What would be typed on every command line otherwise; what is typed there still wins."""
    if config.option.dist_dir == Path("pyodide"):
        chosen = os.environ.get("HOLDFAST_PYODIDE", ".build/pyodide")
        config.option.dist_dir = (ROOT / chosen).resolve()
    if config.option.runtime == "node":
        config.option.runtime = "chrome"
    if not (config.option.dist_dir / "pyodide-lock.json").is_file():
        raise pytest.UsageError(
            f"{config.option.dist_dir} holds no Pyodide with holdfast's wheel beside it. "
            "Run `make test-browser`, which makes it first."
        )
    runner.SeleniumChromeRunner.script_timeout = HANGS
    runner.SeleniumChromeRunner.get_driver = lambda *options: patient(get_driver(*options))
    # Selenium's own manager would ask the network; the driver is one of the system's packages.
    os.environ["SE_OFFLINE"] = "true"
    driver = shutil.which("chromedriver")
    if driver and "SE_CHROMEDRIVER" not in os.environ:
        os.environ["SE_CHROMEDRIVER"] = driver


@pytest.fixture(scope="session", autouse=True)
def chromium_profile() -> Iterator[Path]:
    """A profile on disk: in a private one each OPFS call crosses processes, 100 times slower."""
    with tempfile.TemporaryDirectory(
        prefix="holdfast-profile-", ignore_cleanup_errors=True
    ) as profile:
        flags = get_global_config().get_flags("chrome")
        get_global_config().set_flags("chrome", [*flags, f"--user-data-dir={profile}"])
        yield Path(profile)
        get_global_config().set_flags("chrome", flags)


@pytest.fixture(scope="session")
def wheel_url(request: pytest.FixtureRequest, web_server_main: tuple[str, int, Path]) -> str:
    """The address of holdfast's wheel, for `micropip.install`."""
    host, port, _ = web_server_main
    (wheel,) = request.config.option.dist_dir.glob("holdfast-*.whl")
    return f"http://{host}:{port}/{wheel.name}"
