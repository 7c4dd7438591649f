"""List the commands: every module of this folder that has a main, with the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

WIDTH = 100


def commands(folder: Path) -> dict[str, str]:
    """Every module with a main, and the first sentence of its docstring."""
    # Read and not imported: with JAX that would take seconds.
    trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("[!_]*.py"))}
    return {name: sentence(ast.get_docstring(tree) or "") for name, tree in trees.items() if _has_main(tree)}


def sentence(text: str) -> str:
    """The first sentence of a docstring, in one line."""
    # A capital follows the end of a sentence, but not that of "et al.".
    first = re.split(r"(?<=[.!?])\s+(?=[A-Z`*-])|\n\s*\n", text, maxsplit=1)[0]
    return " ".join(first.split()).rstrip(":")


def _has_main(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


def main() -> None:
    """Print the commands; whatever arguments there are change nothing."""
    indent = "    "
    lines = ["Commands; each explains its options with --help:", ""]
    for name, said in commands(Path(__file__).parent).items():
        lines.append(f"python -m experiments.{name}")
        lines += textwrap.wrap(said, WIDTH, initial_indent=indent, subsequent_indent=indent)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
