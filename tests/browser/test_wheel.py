"""The wheel in a worker: it installs with nothing beside it but apsw, and its module loads."""

from __future__ import annotations

from typing import Any

from pytest_pyodide import run_in_pyodide


@run_in_pyodide(packages=["micropip"])
async def test_micropip_installs_the_wheel_with_apsw_alone(
    selenium_worker: Any, wheel_url: str
) -> None:
    import micropip

    await micropip.install(wheel_url)
    testing = {"micropip", "pytest", "pluggy", "iniconfig", "packaging", "pygments", "tblib"}
    assert set(micropip.list()) - testing == {"holdfast", "apsw"}

    import holdfast

    assert holdfast.__name__ == "holdfast"


@run_in_pyodide(packages=["micropip"])
async def test_apsw_loads_the_module_of_the_wheel(selenium_worker: Any, wheel_url: str) -> None:
    import micropip

    await micropip.install(wheel_url)

    from importlib.metadata import files

    import apsw

    modules = [file for file in files("holdfast") or [] if file.name == "holdfast_vfs.wasm"]
    assert len(modules) == 1
    connection = apsw.Connection(":memory:")
    connection.enable_load_extension(True)
    connection.load_extension(str(modules[0].locate()), "sqlite3_holdfastvfs_init")
    # Registered with SQLite itself, so it outlives the connection that loaded it.
    connection.close()
    assert any(name.startswith("holdfast") for name in apsw.vfs_names())
