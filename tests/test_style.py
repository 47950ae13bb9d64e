"""The conventions of CONTRIBUTING.md that a program can check, room by room."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("detrex", "tools", "demo", "benchmarks", "detectron2-pure/detectron2")
LONGEST_FILE = 400  # lines
LONGEST_FUNCTION = 60  # lines without its signature and docstring

BARE_ARXIV = re.compile(r"(?<!arXiv:)(?<![\d.])\d{4}\.\d{5}(?![\d.])")
SINGLE_BACKTICK = re.compile(r"(?<!`)`(?!`)[^`]+(?<!`)`(?!`)")
ENDINGS = (".", "?", "!")  # the last one in sentences that the full detectron2 has, too
ROLE = re.compile(r":\w+:`[^`]*`")
LEGEND = re.compile(
    r"^\W*(?:shapes?|shape letters|legend|notation)\b.*:.*\b[A-Z] [a-z]", re.I | re.M
)


def room(path: Path) -> str:
    """The part of the code that a file is in, as its tests are named."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    depth = (
        2
        if parts[0] in ("tools", "demo", "benchmarks")
        else 3
        if parts[0] == "detectron2-pure"
        else 2
    )
    if parts[:2] == ("detrex", "modeling"):
        depth = 3
    return "/".join(parts[:depth])


@cache
def rooms() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "configs" in path.parts:
                continue  # LazyConfig reads relative imports anew for each config
            found.setdefault(room(path), []).append(path)
    return found


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef))


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings, strings below values (which document them) and comments, with their lines."""
    for node in ast.walk(parse(path)):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.lineno, value.value
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def without_examples(path: Path, text: str) -> str:
    """The text without code blocks, and of a script without its help, which is shown as it is."""
    is_help = "__doc__" in path.read_text() and text == ast.get_docstring(parse(path), clean=False)
    return "" if is_help else re.sub(r"(?m)^(?: {4,}[$>]|    .*::).*$", "", text)


def last_piece(node: ast.expr) -> str | None:
    """How the first argument of an error ends: its last literal piece; None if that is a value."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return last_piece(node.values[-1]) if node.values else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return last_piece(node.right)
    return None  # a value: it ends the sentence as it ends itself


def faults_of_init(path: Path) -> Iterator[str]:
    for node in functions(path):
        returns = node.returns
        nothing = isinstance(returns, ast.Constant) and returns.value is None
        if node.name == "__init__" and not nothing:
            yield f"{place(path, node.lineno)} __init__ without -> None"


def faults_of_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{place(path, node.lineno)} relative import"


def faults_of_papers(path: Path) -> Iterator[str]:
    for line, text in texts(path):
        for match in BARE_ARXIV.finditer(text):
            yield f"{place(path, line)} {match[0]} is to be arXiv:{match[0]}"


def faults_of_code_in_text(path: Path) -> Iterator[str]:
    for line, text in texts(path):
        text = ROLE.sub("", without_examples(path, text))
        for match in SINGLE_BACKTICK.finditer(text):
            yield f"{place(path, line)} {match[0]} is to have double backticks"


def faults_of_legends(path: Path) -> Iterator[str]:
    for line, text in texts(path):
        if LEGEND.search(text):
            yield f"{place(path, line)} the legend of shapes is to begin with 'Letters:'"


def faults_of_errors(path: Path) -> Iterator[str]:
    for node in ast.walk(parse(path)):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
            continue
        arguments = node.exc.args
        piece = last_piece(arguments[0]) if arguments else None
        if piece is not None and " " in piece.strip() and not piece.rstrip().endswith(ENDINGS):
            yield f"{place(path, node.lineno)} an error without a full stop: ...{piece[-30:]!r}"


def faults_of_length(path: Path) -> Iterator[str]:
    lines = len(path.read_text().splitlines())
    if lines > LONGEST_FILE:
        yield f"{path.relative_to(ROOT)} has {lines} lines"
    for node in functions(path):
        first = node.body[0]
        documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
        length = (node.end_lineno or 0) - first.lineno + 1 - docstring
        if length > LONGEST_FUNCTION:
            yield f"{place(path, node.lineno)} {node.name} has {length} lines"


RULES = {
    "init": faults_of_init,
    "imports": faults_of_imports,
    "papers": faults_of_papers,
    "code in text": faults_of_code_in_text,
    "legends": faults_of_legends,
    "errors": faults_of_errors,
    "length": faults_of_length,
}


@pytest.mark.parametrize("name", rooms())
@pytest.mark.parametrize("rule", RULES)
def test_style(name, rule):
    faults = [fault for path in rooms()[name] for fault in RULES[rule](path)]
    assert not faults, "\n".join(faults)


BAD = '''
from .x import y  # see 2005.12872

class A:
    """Takes `x`.

    Shape letters: B batch, C channels.
    """

    def __init__(self, x):
        raise ValueError(f"{x} is wrong " "and has no way out")
'''

GOOD = '''
from a.x import y  # see arXiv:2005.12872 and :func:`y`

class A:
    """Takes ``x``.

    Letters: B batch, C channels.
    """

    def __init__(self, x) -> None:
        if x:
            raise ValueError(f"{x} is wrong; take another.")
        raise ValueError(f"x is wrong: {x}")
'''


@pytest.mark.parametrize("rule", [name for name in RULES if name != "length"])
def test_the_rules_see_faults_and_nothing_else(tmp_path, monkeypatch, rule):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    for name, text, count in (("bad.py", BAD, 1), ("good.py", GOOD, 0)):
        path = tmp_path / name
        path.write_text(text)
        assert len(list(RULES[rule](path))) == count, name


def test_long_files_and_functions_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "long.py"
    path.write_text("def f():\n" + "    pass\n" * 500)
    assert len(list(faults_of_length(path))) == 2
