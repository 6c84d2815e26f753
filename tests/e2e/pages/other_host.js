// What a page may still serve after an update of the wheel: a host.js of another version.
globalThis.holdfastHost = { version: "0.0.1" };
