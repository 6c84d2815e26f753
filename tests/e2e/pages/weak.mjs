// holdfast.mjs as a page serves it itself, in a browser of less: see weaken.js.
import "./weaken.js";
import "/pyodide/holdfast.mjs";
