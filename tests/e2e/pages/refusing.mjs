// holdfast.mjs as a page serves it itself, in a browser that refuses: see refuse.js.
import "./refuse.js";
import "/pyodide/holdfast.mjs";
