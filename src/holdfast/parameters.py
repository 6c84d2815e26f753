"""What the parameters of a statement mean: the same wherever the database lives.

A sequence gives its values in order, a mapping its values by name, whatever class it is of. A value
is None, int, float, str or bytes, or what is one of these in another class: an enumeration, a
numpy-like scalar, anything with `__index__`, anything that has a buffer, whatever its layout.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Set
from typing import Any

import apsw

from .rows import Parameters

Plain = tuple[Any, ...] | dict[str, Any]

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
# Names that may be parameters. More than there are does no harm.
_NAME = re.compile(r"[:@$](\w+)")


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


def plain_many(many: Iterable[Parameters], sql: str) -> Iterable[Plain]:
    """The parameters of `execute_many`, one after the other."""
    if isinstance(many, (str, bytes, bytearray, Mapping)) or not hasattr(many, "__iter__"):
        raise TypeError(
            "seq_of_params must be a sequence of parameters, each a sequence or a mapping, not "
            f"{type(many).__name__}"
        )
    return (plain_parameters(params, sql) for params in many)


def check_parameters(params: Any) -> None:
    """TypeError for what is neither a sequence nor a mapping."""
    if isinstance(params, (str, bytes, bytearray, memoryview, Set)) or not (
        hasattr(params, "__getitem__") or hasattr(params, "__iter__")
    ):
        raise TypeError(
            f"params must be a sequence or a mapping, not {type(params).__name__}; "
            f"for one value write ({params!r},)"
        )


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
