"""The one web server of demo, browser tests and benchmarks: static files, several folders.

    /            web/                          the demo
    /pyodide/    .build/pyodide/               Pyodide, its packages, the holdfast wheel
    /data/       node_modules/vega-datasets/data/
    /pyscript/   node_modules/@pyscript/core/dist/
    /e2e/        tests/e2e/pages/
    /e2e/cleared.html                          has the browser clear the site's data
    /strict/     tests/e2e/pages/              the same under a strict Content-Security-Policy
    /strict/pyodide/                           as /pyodide/, for workers that are to be under it
    /benchmarks/ benchmarks/

Sends no COOP and COEP headers on purpose: holdfast needs no cross-origin isolation, and whatever
began to need it would fail here first. Prints one line, "Serving on http://127.0.0.1:PORT/".
"""

from __future__ import annotations

import argparse
import errno
import posixpath
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent

FOLDERS = {
    "/pyodide/": ROOT / ".build" / "pyodide",
    "/data/": ROOT / "node_modules" / "vega-datasets" / "data",
    "/pyscript/": ROOT / "node_modules" / "@pyscript" / "core" / "dist",
    "/e2e/": ROOT / "tests" / "e2e" / "pages",
    "/strict/pyodide/": ROOT / ".build" / "pyodide",
    "/strict/": ROOT / "tests" / "e2e" / "pages",
    "/benchmarks/": ROOT / "benchmarks",
    "/": ROOT / "web",
}

# By the beginning of a path. A worker's policy is that of its script's answer, not its page's.
HEADERS = {
    "/strict/": ("Content-Security-Policy", "script-src 'self' 'wasm-unsafe-eval'"),
    "/e2e/cleared.html": ("Clear-Site-Data", '"storage"'),
}


class Handler(SimpleHTTPRequestHandler):
    """Maps a path to the folder of its longest prefix; nothing outside those folders is served."""

    protocol_version = "HTTP/1.1"  # keep-alive: a page of many small files loads twice as fast
    folders = FOLDERS
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".whl": "application/zip",
    }

    def translate_path(self, path: str) -> str:
        # normpath after unquote: an encoded ".." must not climb out of a folder.
        wanted = posixpath.normpath(unquote(urlsplit(path).path))
        if path.split("?")[0].endswith("/") and wanted != "/":
            wanted += "/"
        prefix = next(prefix for prefix in self.folders if wanted.startswith(prefix))
        return str(self.folders[prefix]) + "/" + wanted.removeprefix(prefix)

    def list_directory(self, path: object) -> None:
        self.send_error(404, "Not Found")

    def end_headers(self) -> None:
        # A changed file is seen at the next load; an unchanged one costs a 304.
        self.send_header("Cache-Control", "no-cache")
        for prefix, header in HEADERS.items():
            if self.path.startswith(prefix):
                self.send_header(*header)
        super().end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Successful requests are not worth a line; errors still get one."""


def serve(port: int) -> None:
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        print(f"Port {port} is taken; this one is free instead.", file=sys.stderr)
    with server:
        # One write, newline included: whoever waits for the line reads it in one piece.
        print(f"Serving on http://127.0.0.1:{server.server_port}/\n", end="", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes any free port")
    parser.add_argument(
        "--pyodide", type=Path, help="another folder made by pyodide_dist.py, for /pyodide/"
    )
    arguments = parser.parse_args()
    if arguments.pyodide is not None:
        FOLDERS["/pyodide/"] = FOLDERS["/strict/pyodide/"] = arguments.pyodide.resolve()
    serve(arguments.port)


if __name__ == "__main__":
    main()
