"""Every order of a few requests for one lock; prints the lines of locks-orders.txt.

    python tests/conformance/orders.py > tests/conformance/locks-orders.txt

Each line is as short as it can be: contexts come in by the alphabet, one dies at most, nothing is
asked again once nobody wants the lock, and of two lines that begin alike the longer one tells what
the shorter would. A request that does not wait comes last, for it leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterator

CONTEXTS = "abcd"
LENGTH = 5


def orders(
    length: int, done: tuple[str, ...] = (), live: str = "", used: str = "", dead: str = ""
) -> Iterator[tuple[str, ...]]:
    if len(done) == length:
        yield done
        return
    fresh = CONTEXTS[len(used) : len(used) + 1]
    for context in used + fresh:
        known = used if context in used else used + context
        if context in dead:
            continue
        if context not in live:
            for mode in ("sh", "ex"):
                step = f"{context} {mode}"
                yield from orders(length, (*done, step), live + context, known, dead)
            continue
        left = live.replace(context, "")
        if not left and len(done) < length - 1:
            continue
        yield from orders(length, (*done, f"{context} off"), left, known, dead)
        if not dead:
            yield from orders(length, (*done, f"{context} dies"), left, known, context)


def probed(length: int) -> Iterator[tuple[str, ...]]:
    """Requests that do not wait, by one more context."""
    for steps in orders(length):
        for mode in ("sh?", "ex?"):
            yield (*steps, f"e {mode}")


def main() -> None:
    for steps in (*orders(LENGTH), *probed(LENGTH - 1)):
        print(", ".join(steps))


if __name__ == "__main__":
    main()
