"""Lines of code by package: without docstrings, comments and blank lines.

Run as ``python detectron2-pure/size.py``; README.md has the table that it prints.
"""

import ast
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent / "detectron2"
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
NO_CODE |= {tokenize.ENCODING, tokenize.ENDMARKER}


def code_lines(path: Path) -> int:
    """Lines of the file that hold a token of code."""
    with tokenize.open(path) as f:
        tokens = [t for t in tokenize.generate_tokens(f.readline) if t.type not in NO_CODE]
    lines = {n for token in tokens for n in range(token.start[0], token.end[0] + 1)}
    return len(lines - docstring_lines(ast.parse(path.read_text(encoding="utf-8"))))


def docstring_lines(tree: ast.AST) -> set[int]:
    """Lines of texts that stand as statements: docstrings, also those of attributes."""
    texts = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    return {n for text in texts for n in range(text.lineno, (text.end_lineno or 0) + 1)}


def main() -> None:
    sizes: Counter[str] = Counter()
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        sizes[parts[0] if len(parts) > 1 else "(top)"] += code_lines(path)
    print("| package | lines |\n|---|---|")
    for name, size in sizes.items():
        print(f"| `{name}` | {size:,} |")
    print(f"| **all** | **{sum(sizes.values()):,}** |")


if __name__ == "__main__":
    main()
