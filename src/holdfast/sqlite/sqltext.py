"""SQL text for what is stored in a database and runs in other programs too.

Views and triggers are kept in the database file, so whatever opens it runs them: they use nothing
but functions that every SQLite with JSON has. JSON is put together by `||`, in a balanced tree,
because the arguments of a function and the depth of an expression are limited and the columns of a
table go far beyond.
"""

from __future__ import annotations

import json
from collections.abc import Sequence


def quote_name(name: str) -> str:
    """An identifier, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def unquote_name(text: str) -> str:
    """The name that an identifier in SQL stands for, quoted in any of SQLite's ways or not."""
    return text[1:-1] if text[:1] in ('"', "'", "`", "[") else text


def quote_text(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def check_name(name: object, what: str) -> str:
    """`name`, if it can be written in SQL. TypeError, ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, not {type(name).__name__}")
    if not name:
        raise ValueError(f"{what} is empty; give it a name")
    check_text(name, what)
    return name


def check_text(text: str, what: str) -> None:
    """ValueError: no SQL can have that in it."""
    if (at := text.find("\0")) >= 0:
        why = "a NUL character, which SQL text cannot hold"
    elif (at := lone_surrogate(text)) >= 0:
        why = "a lone surrogate, which is no character"
    else:
        return
    shown = text if len(text) <= 100 else f"…{text[max(0, at - 50) : at + 50]}…"
    raise ValueError(f"{what} {shown!r} has {why}, at {at}")


def lone_surrogate(text: str) -> int:
    """Where the first one is, which UTF-8 has no bytes for; -1: there is none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return -1


def fold(name: str) -> str:
    """What SQLite compares names by: ASCII letters without case, others as they are."""
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in name)


def json_path(column: str) -> str:
    """The literal of the JSON path to a member of that name."""
    return quote_text("$." + json.dumps(column, ensure_ascii=False))


def concatenate(pieces: Sequence[str]) -> str:
    """The pieces joined by `||`; the depth of the expression is the logarithm of their number."""
    if len(pieces) == 1:
        return pieces[0]
    middle = len(pieces) // 2
    return f"({concatenate(pieces[:middle])}||{concatenate(pieces[middle:])})"


def json_object(members: Sequence[tuple[str, str]]) -> str:
    """An expression for a JSON object: (member's name, expression for its value as JSON)."""
    if not members:
        return "'{}'"
    pieces = []
    for index, (name, value) in enumerate(members):
        start = "," if index else "{"
        label = quote_text(f"{start}{json.dumps(name, ensure_ascii=False)}:")
        pieces.append(f"{label}||{value}")
    return f"{concatenate(pieces)}||'}}'"


def json_array(values: Sequence[str]) -> str:
    """An expression for a JSON array of values that are expressions for JSON."""
    pieces = [f"'{',' if index else '['}'||{value}" for index, value in enumerate(values)]
    return f"{concatenate(pieces)}||']'"


def json_object_of(members: Sequence[tuple[str, str]]) -> str:
    """As `json_object`, but the expression of a member that is left out is NULL."""
    if not members:
        return "'{}'"
    return f"'{{'||{_members(members)}||'}}'"


def json_updated(data: str, members: Sequence[tuple[str, str]]) -> str:
    """`data`, a JSON object, with those members: one that is NULL is left out, others stay.

    data: an expression; where it is no JSON object, the result has these members alone.
    """
    others = data
    paths = [json_path(name) for name, _ in members]
    # By itself, a SQLite of another program takes 100 arguments.
    for start in range(0, len(paths), 99):
        others = f"json_remove({others},{','.join(paths[start : start + 99])})"
    # Without its braces: the characters left of the last one, from the second on.
    inner = f"substr(substr({others},-1,-{_EVERYTHING}),2)"
    # First what is new: of a name that is there twice, the first counts.
    both = f"{_members(members)}||','||{inner}" if members else inner
    return (
        f"CASE CASE WHEN json_valid({data}) THEN json_type({data}) END WHEN 'object' "
        f"THEN '{{'||trim({both},',')||'}}' ELSE {json_object_of(members)} END"
    )


_EVERYTHING = 2**31 - 1


def _members(members: Sequence[tuple[str, str]]) -> str:
    """What stands between the braces; NULL members are left out."""
    pieces = [
        f"ifnull({quote_text(',' + json.dumps(name, ensure_ascii=False) + ':')}||{value},'')"
        for name, value in members
    ]
    return f"substr({concatenate(pieces)},2)"


def json_real(value: str) -> str:
    """A REAL as JSON that reads back to the same bits; infinities as 9e999, which JSON allows.

    The text that SQLite gives by itself is the short one, and enough unless it reads back to
    something else; 18 digits always are. (-0.0 becomes 0.0: only the functions of
    SQLITE_ENABLE_MATH_FUNCTIONS tell them apart, and without those no program could write.)
    """
    return (
        f"CASE WHEN CAST({value}||'' AS REAL)={value} THEN {value}||'' "
        f"ELSE replace(printf('%!.18g',{value}),'Inf','9e999') END"
    )


def json_text(value: str) -> str:
    """A TEXT as JSON.

    One that comes straight from a JSON function json_quote would take for JSON, even through a
    column; joined to '' it is plain text.
    """
    return f"json_quote({value}||'')"


def json_value(value: str) -> str:
    """A value of any type as JSON: NULL, numbers, text, and a BLOB as {"blob": "<hex>"}."""
    return (
        f"CASE typeof({value}) WHEN 'text' THEN {json_text(value)} WHEN 'integer' THEN {value} "
        f"WHEN 'null' THEN 'null' WHEN 'real' THEN {json_real(value)} "
        f"ELSE '{{\"blob\":\"'||hex({value})||'\"}}' END"
    )
