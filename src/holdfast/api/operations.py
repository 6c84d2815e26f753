"""What a trigger is asked to record: operations, and the `when` of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from ..errors import InvalidWhenError
from ..sqlite.sqltext import lone_surrogate


class DiffOperation(StrEnum):
    """What happened to a row."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


When = Mapping[DiffOperation, str] | Mapping[str, str]

# Strings, quoted names and comments: whatever is in them means nothing to us.
_QUOTED = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/""", re.DOTALL
)


def check_when(when: When | None) -> dict[DiffOperation, str | None]:
    """The condition of each operation that is to be recorded; None: always.

    TypeError, ValueError: not a mapping from operations to SQL; InvalidWhenError: not one SQL
    expression. Whether SQLite takes it is for the source to find out.
    """
    if when is None:
        return dict.fromkeys(DiffOperation)
    if not isinstance(when, Mapping):
        raise TypeError(
            f"when must be a mapping from operations to SQL expressions, not {when!r}; for every "
            "change leave it out"
        )
    if not when:
        raise ValueError(
            'when names no operation, so nothing would ever be recorded; use {"INSERT": "TRUE"} '
            "or the like, or leave it out for every change"
        )
    found: dict[DiffOperation, str | None] = {}
    for key, text in when.items():
        if not isinstance(key, str):
            raise TypeError(f"an operation in when is a str, not {key!r}")
        try:
            operation = DiffOperation(key)
        except ValueError:
            raise ValueError(
                f"{key!r} in when is no operation; there are {', '.join(DiffOperation)}"
            ) from None
        if not isinstance(text, str):
            raise TypeError(
                f"when[{operation}] must be an SQL expression as a str, not {text!r}; for every "
                'change write "TRUE"'
            )
        found[operation] = _check_expression(operation, text)
    # In the order of the enumeration, whatever the mapping's was.
    return {operation: found[operation] for operation in DiffOperation if operation in found}


def without_quoted(text: str) -> str:
    """SQL with a space for each string, quoted name and comment."""
    return _QUOTED.sub(" ", text)


def invalid_when(operation: DiffOperation, text: str, why: object) -> InvalidWhenError:
    return InvalidWhenError(
        f"when[{operation}] is refused, because writes of the source would fail with it "
        f"(it is tried on a row that is there, if there is one): {why}. The expression was {text!r}"
    )


def _check_expression(operation: DiffOperation, text: str) -> str | None:
    plain = without_quoted(text)
    if plain.strip().upper() == "TRUE":
        return None
    if not plain.strip() and not text.strip():
        raise invalid_when(operation, text, 'it is empty; for every change write "TRUE"')
    if lone_surrogate(text) >= 0:
        raise invalid_when(operation, text, "it has a lone surrogate, which is no character")
    # It is put between brackets in a longer text, which it must not be able to leave.
    depth = 0
    for character in plain:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0 or character in "\0;'\"`":
            break
    if depth or character in "\0;'\"`":
        raise invalid_when(operation, text, "it is not one whole SQL expression")
    return text
