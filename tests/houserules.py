"""Checks that files and functions stay small enough to be read."""

import ast
import sys
from pathlib import Path

MAX_FILE, MAX_FUNCTION = 400, 40


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    docstring = ast.get_docstring(node, clean=False)
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    return length - (docstring.count("\n") + 1 if docstring else 0)


def violations(root: Path) -> list[str]:
    """What is too long below a folder."""
    found = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > MAX_FILE:
            found.append(f"{path}: more than {MAX_FILE} lines")
        for node in ast.walk(ast.parse(text)):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and code_lines(node) > MAX_FUNCTION:
                found.append(f"{path}:{node.lineno} {node.name}: more than {MAX_FUNCTION} lines")
    return found


if __name__ == "__main__":
    too_long = [line for folder in ("autopeft", "benchmarks") for line in violations(Path(folder))]
    sys.exit("\n".join(too_long) or None)
