"""The browser, for the rest of the package: the only place that imports `js` and `pyodide`.

host.js is the one piece of JavaScript. Import these modules only where `sys.platform` is
"emscripten".
"""
