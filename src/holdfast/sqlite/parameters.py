"""What the parameters of a statement mean: the same wherever the database lives.

A sequence gives its values in order, a mapping its values by name, whatever class it is of. A value
is None, int, float, str or bytes, or what is one of these in another class: an enumeration, a
numpy-like scalar, anything with `__index__`, anything that has a buffer, whatever its layout.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import apsw

from .rows import Parameters
from .sqltext import lone_surrogate

Plain = tuple[Any, ...] | dict[str, Any]

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
# Names that may be parameters. More than there are does no harm.
_NAME = re.compile(r"[:@$](\w+)")

# What apsw raises for parameters that do not fit their statement.
BINDING_ERRORS = (apsw.BindingsError, KeyError, OverflowError, UnicodeEncodeError)
# So much of a statement is shown in an error, in characters.
_SHOWN = 300


def plain_parameters(params: Parameters, sql: str) -> Plain:
    """As plain values. TypeError: not a sequence or mapping, or of something else.

    A `str` is no sequence here, and a set has no order.
    sql: the statement, for mappings that give what is missing.
    """
    if params.__class__ is not tuple:
        check_parameters(params)
        if isinstance(params, Mapping):
            return _by_name(params, sql)
        params = tuple(params)
    for value in params:
        if value.__class__ not in _PLAIN:
            return tuple(_plain(one, number) for number, one in enumerate(params, 1))
    return params


class Many:
    """The parameters of `execute_many`, one after the other; made by `plain_many`."""

    def __init__(self, many: Iterable[Parameters], sql: str) -> None:
        self._many = many
        self._sql = sql
        # The last ones that were given, and their number, from 1 on.
        self.params: Plain = ()
        self.number = 0

    def __iter__(self) -> Iterator[Plain]:
        for params in self._many:
            self.number += 1
            self.params = plain_parameters(params, self._sql)
            yield self.params


def plain_many(many: Iterable[Parameters], sql: str) -> Many:
    """As plain values. TypeError: not a sequence of parameters."""
    if isinstance(many, (str, bytes, bytearray, Mapping)) or not hasattr(many, "__iter__"):
        raise TypeError(
            "seq_of_params must be a sequence of parameters, each a sequence or a mapping, not "
            f"{type(many).__name__}"
        )
    return Many(many, sql)


def check_parameters(params: Any) -> None:
    """TypeError for what is neither a sequence nor a mapping."""
    if isinstance(params, (str, bytes, bytearray, memoryview, Set)) or not (
        hasattr(params, "__getitem__") or hasattr(params, "__iter__")
    ):
        raise TypeError(
            f"params must be a sequence or a mapping, not {type(params).__name__}; "
            f"for one value write ({params!r},)"
        )


def explain(
    error: Exception, raw: apsw.Connection, sql: str, params: Plain, number: int = 0
) -> None:
    """Raise what is wrong with `params`, if that is why apsw raised `error`, one of BINDING_ERRORS.

    Returns otherwise: a function of the application may raise such an error, too.
    number: which of the parameters of `execute_many` they are.
    """
    names = _names(raw, sql)
    given = f"params number {number}" if number else "params"
    shown = repr(sql if len(sql) <= _SHOWN else f"{sql[:_SHOWN]}…")
    items = params.items() if isinstance(params, dict) else enumerate(params, 1)
    if isinstance(error, UnicodeEncodeError):
        for name, value in items:
            if isinstance(value, str) and (at := lone_surrogate(value)) >= 0:
                raise ValueError(
                    f"parameter {name!r} has a lone surrogate, {value[at]!r} at {at}, which is no "
                    "character and has no place in a TEXT. If the text came from bytes that are "
                    'not UTF-8, store those: value.encode(errors="surrogateescape"); the '
                    f"statement is {shown}"
                ) from None
    elif isinstance(error, OverflowError):
        for name, value in items:
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise OverflowError(
                    f"parameter {name!r} is {value}; SQLite's integers have 64 bits; the "
                    f"statement is {shown}"
                ) from None
    elif not isinstance(params, dict):
        if isinstance(error, apsw.BindingsError):
            raise apsw.BindingsError(
                f"the statement has {_count(len(names), 'parameter')} and {given} has "
                f"{_count(len(params), 'value')}; the statement is {shown}"
            ) from None
    elif None in names:
        raise ValueError(
            f"{given} gives values by name, and parameter {names.index(None) + 1} of the "
            "statement has no name; give the values in order, or write :name; the statement is "
            f"{shown}"
        ) from None
    elif missing := [name for name in names if name not in params]:
        there = ", ".join(map(repr, params))
        raise ValueError(
            f"{given} has no value for the parameter{'s' if len(missing) > 1 else ''} "
            f"{', '.join(map(repr, missing))}; it has "
            f"{f'values for {there}' if there else 'none'}; the statement is {shown}"
        ) from None


def _names(raw: apsw.Connection, sql: str) -> tuple[str | None, ...]:
    """The names of a statement's parameters, without what marks them; None: it has none."""
    found: tuple[str | None, ...] = ()

    def stop(cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        nonlocal found
        found = cursor.bindings_names
        return False

    cursor = raw.cursor()
    cursor.exec_trace = stop
    try:
        cursor.execute(sql, apsw._null_bindings)  # type: ignore[attr-defined]
    except apsw.ExecTraceAbort:
        pass
    finally:
        cursor.close(True)
    return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _by_name(params: Mapping[Any, Any], sql: str) -> dict[str, Any]:
    plain = {}
    for name, value in params.items():
        if not isinstance(name, str):
            raise TypeError(f"the name of a parameter must be a str, not {name!r}")
        plain[str.__str__(name)] = _plain(value, name)
    # A defaultdict and its like have a value for every name.
    if hasattr(params, "__missing__") and isinstance(sql, str):
        for name in _NAME.findall(sql):
            if name not in plain:
                try:
                    value = params[name]
                except KeyError:
                    continue
                plain[name] = _plain(value, name)
    return plain


def _plain(value: Any, name: object) -> Any:
    if value.__class__ in _PLAIN:
        return value
    for kind in (str, int, float):
        # Enumerations and the like; their plain value is what SQLite would store.
        if isinstance(value, kind):
            return kind.__str__(value) if kind is str else kind(value)
    if isinstance(value, apsw.zeroblob):
        return bytes(value.length())
    # Of an array's library. Its buffer would be taken for a BLOB.
    if hasattr(value, "dtype") and getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
        if value.__class__ in _PLAIN:
            return value
    try:
        return memoryview(value).tobytes()
    except TypeError:
        pass
    if hasattr(type(value), "__index__"):
        return operator.index(value)
    raise TypeError(
        f"parameter {name!r} is a {type(value).__name__}; SQLite stores None, int, float, str "
        "and bytes"
    )
