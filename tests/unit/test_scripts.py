"""The scripts that tests and demo stand on: what they must never get wrong silently."""

from __future__ import annotations

import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

import run_tests
import serve


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    (tmp_path / "secret").write_text("not to be served")
    web, data = tmp_path / "web", tmp_path / "data"
    for folder in (web, data):
        folder.mkdir()
    (web / "index.html").write_text("the demo")
    (web / "app.mjs").write_text("1")
    (data / "movies.json").write_text("[]")
    monkeypatch.setattr(serve.Handler, "folders", {"/data/": data, "/": web})
    with ThreadingHTTPServer(("127.0.0.1", 0), serve.Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def get(port: int, path: str) -> tuple[int, str, str]:
    # http.client sends the path as it is; urllib and browsers would tidy it first.
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, response.headers["Content-Type"] or "", body


def test_the_server_maps_folders_and_types(port: int) -> None:
    assert get(port, "/") == (200, "text/html", "the demo")
    assert get(port, "/app.mjs?v=1")[:2] == (200, "text/javascript")
    assert get(port, "/data/movies.json")[2] == "[]"
    assert get(port, "/data/")[0] == 404
    assert get(port, "/nothing")[0] == 404


@pytest.mark.parametrize(
    "path", ["/../secret", "/data/../../secret", "/%2e%2e/secret", "/data/%2e%2e%2fsecret"]
)
def test_the_server_stays_inside_its_folders(port: int, path: str) -> None:
    assert get(port, path)[0] == 404


def test_the_server_isolates_nothing(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
        assert not [name for name in response.headers if name.startswith("Cross-Origin")]


def command(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    monkeypatch.setattr(run_tests, "RESULTS", tmp_path)
    commands: dict[str, tuple[str, ...]] = {}
    monkeypatch.setattr(run_tests, "SUITES", commands)
    return commands


WRITE = "import sys; open(sys.argv[1].removeprefix('--junitxml='), 'w').write({!r}); sys.exit({})"


@pytest.mark.parametrize(
    ("report", "status", "counted"),
    [
        ('<testsuite tests="5" failures="1" errors="1" skipped="1"/>', 1, "2 passed, 2 failed, 1"),
        (
            '<testsuites tests="3"><testsuite tests="1"/><testsuite tests="2"/></testsuites>',
            0,
            "3 passed, 0 failed",
        ),
        # A runner that broke down after its tests has failed.
        ('<testsuite tests="5"/>', 3, "5 passed, 1 failed"),
        ('<testsuite tests="0"/>', 5, "0 passed, 1 failed"),
        # Nothing but skipped tests is no test.
        ('<testsuite tests="2" skipped="2"/>', 0, "0 passed, 1 failed, 2 skipped"),
    ],
)
def test_a_suite_is_counted(
    suite: dict[str, tuple[str, ...]], report: str, status: int, counted: str
) -> None:
    suite["fake"] = command(WRITE.format(report, status))
    assert str(run_tests.run("fake", [])).startswith(counted)


def test_a_suite_that_reports_nothing_has_failed(suite: dict[str, tuple[str, ...]]) -> None:
    suite["fake"] = command("")
    assert str(run_tests.run("fake", [])) == "0 passed, 1 failed"


def test_an_old_report_is_not_taken_for_a_new_one(
    suite: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    (tmp_path / "fake.xml").write_text('<testsuite tests="5"/>')
    suite["fake"] = command("raise SystemExit(1)")
    assert str(run_tests.run("fake", [])) == "0 passed, 1 failed"


def test_what_failed_is_said_again_at_the_end(
    suite: dict[str, tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = (
        '<testsuite tests="2" failures="1"><testcase name="good"/><testcase name="bad">'
        '<failure message="short">\nTarget crashed\n\nat line 5\n</failure></testcase></testsuite>'
    )
    suite["fake"] = command(WRITE.format(report, 1))
    monkeypatch.setattr(sys, "argv", ["run_tests.py", "fake"])
    assert run_tests.main() == 1
    last = capsys.readouterr().out.splitlines()[-4:]
    assert [line.strip() for line in last] == [
        "fake: bad",
        "Target crashed",
        "at line 5",
        "1 passed, 1 failed",
    ]
