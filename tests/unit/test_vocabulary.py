"""What Python says in its errors of its own methods and options has a word in JavaScript."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import holdfast
from holdfast import Database, DiffContext, DiffTracker, Transaction, TriggerManager

PACKAGE = Path(holdfast.__file__).parent
SCRIPT = (PACKAGE / "javascript" / "vocabulary.mjs").read_text()

# These have no page of JavaScript at the other end, or no such thing is there to be named.
ELSEWHERE = {
    "storage/file/channel.py",
    "storage/file/storage.py",
    "storage/file/store.py",
    "vfs/build.py",
}
NOT_THERE = {
    "hold_id", "hold_manager", "is_held", "held", "obtain_hold", "read_only", "row_factory",
    "run_sql", "on_commit", "on_rollback", "is_open", "check_ended", "close_cursors",
}  # fmt: skip


def vocabulary() -> dict[str, str]:
    """The words of vocabulary.mjs."""
    body = SCRIPT[SCRIPT.index("const WORDS = {") : SCRIPT.index("};")]
    return {
        (quoted or plain): said
        for quoted, plain, said in re.findall(r'^  (?:"([\w.]+)"|(\w+)): "([\w.]+)",$', body, re.M)
    }


def public_names() -> set[str]:
    """Names with an underscore inside, of methods and of their arguments."""
    found: set[str] = set()
    functions = [holdfast.open, holdfast.import_database, holdfast.delete_database]
    kinds: list[type] = [Database, Transaction, TriggerManager, DiffTracker, DiffContext]
    for kind in kinds:
        for name, member in vars(kind).items():
            if not name.startswith("_"):
                found.add(name)
                if inspect.isfunction(member):
                    functions.append(member)
    for function in functions:
        found |= set(inspect.signature(function).parameters)
    return {name for name in found if "_" in name}


def texts() -> dict[str, str]:
    """Each module's string literals."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name not in ELSEWHERE:
            # Without docstrings and comments, which nobody is told.
            source = re.sub(r'"""(?:[^"]|"(?!""))*"""|#[^\n]*', "", path.read_text())
            found[name] = "\n".join(re.findall(r'"((?:[^"\\\n]|\\.)* (?:[^"\\\n]|\\.)*)"', source))
    return found


def test_each_name_that_an_error_may_tell_has_a_word() -> None:
    known = vocabulary()
    names = public_names()
    assert {"execute_many", "busy_timeout", "on_change"} <= names
    missing = {
        (name, module)
        for module, text in texts().items()
        for name in names - NOT_THERE
        if re.search(rf"(?<!\w){name}(?!\w)", text) and name not in known
    }
    assert missing == set()


def test_functions_of_the_package_are_those_of_the_module() -> None:
    known = vocabulary()
    said = {name for text in texts().values() for name in re.findall(r"holdfast\.(\w+)\(", text)}
    assert said
    for name in said - {"close_all"}:
        assert f"holdfast.{name}" in known, f"holdfast.{name}() is told to JavaScript"


def test_every_word_is_a_name_of_the_types() -> None:
    types = (PACKAGE / "javascript" / "holdfast.d.mts").read_text()
    for name, word in vocabulary().items():
        if "_" in name.removeprefix("holdfast."):
            assert re.search(rf"\b{word.rpartition('.')[2]}\b", types), f"{name}: {word}"


def test_each_option_that_is_taken_has_a_type_to_be_checked() -> None:
    folder = PACKAGE / "javascript"
    options = (folder / "options.mjs").read_text()
    kinds = options[options.index("const KINDS = {") :]
    checked = set(re.findall(r"^  (\w+):", kinds[: kinds.index("};")], re.M))
    taken: set[str] = set()
    for path in folder.glob("*.mjs"):
        script = path.read_text()
        lists = re.findall(r"^(?:export )?const [A-Z_]+ = \[([^\]]*)\];", script, re.M)
        lists += re.findall(r"\bnames = \[([^\]]*)\]", script)
        lists += re.findall(r"(?:checkOptions|new Stream)\([^\[\]{}]*\[([^\]]*)\]", script)
        for names in lists:
            taken |= set(re.findall(r'"(\w+)"', names))
    assert {"busyTimeout", "wait", "throttle", "net", "signal", "viewName"} <= taken
    assert taken <= checked
