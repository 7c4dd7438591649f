"""A comparison as Markdown, LaTeX (booktabs) or csv. All end with a line break."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable

from jaxrl_suite.report.comparison import Cell, Comparison, task_name

CSV_COLUMNS = ("metric", "dataset", "preset", "algo", "mean", "low", "high", "n", "diverged", "missing", "best")
COLUMNS = ("algo", "dataset")  # what the columns of a table can be
NOTHING = "-"
LATEX = {symbol: f"\\{symbol}" for symbol in "&%$#_{}"} | {
    symbol: f"\\text{name}{{}}"
    for symbol, name in {
        "\\": "backslash",
        "~": "asciitilde",
        "^": "asciicircum",
        "<": "less",
        ">": "greater",
        "|": "bar",
    }.items()
}


def to_markdown(table: Comparison, columns: str = "algo") -> str:
    """A table with its caption below; `columns` says what the columns are, the rows are the other."""
    head, body = _grid(table, columns, _markdown_text, _markdown_cell)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{grid}\n\n{_markdown_text(table.caption)}\n"


def to_latex(table: Comparison, columns: str = "algo") -> str:
    """A table environment that needs \\usepackage{booktabs}; its label is tab:<metric>."""
    head, body = _grid(table, columns, _latex_text, _latex_cell)
    rows = [" & ".join(line) + r" \\" for line in body]
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(table.caption)}}}",
        rf"\label{{tab:{table.metric}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: Comparison, columns: str = "algo") -> str:
    """A line per cell under CSV_COLUMNS, numbers in full, empty where there is none; `columns` changes nothing."""
    del columns
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for (task, algo), cell in sorted(table.cells.items()):
        numbers = [repr(x) if math.isfinite(x) else "" for x in cell.interval[:3]]
        writer.writerow([table.metric, *task, algo, *numbers, cell.interval.n, *cell[1:]])
    return text.getvalue()


def _grid(
    table: Comparison, columns: str, text: Callable[[str], str], show: Callable[[Cell | None], str]
) -> tuple[list[str], list[list[str]]]:
    """Header and body of a table, as text."""
    if columns not in COLUMNS:
        raise ValueError(f"columns are one of {COLUMNS}, not {columns!r}")
    names = {task: text(task_name(task, table.tasks)) for task in table.tasks}
    if columns == "algo":
        head = ["data set", *map(text, table.algos)]
        return head, [[names[task], *(show(table.cells.get((task, a))) for a in table.algos)] for task in table.tasks]
    head = ["algorithm", *names.values()]
    return head, [[text(algo), *(show(table.cells.get((t, algo))) for t in table.tasks)] for algo in table.algos]


def _numbers(cell: Cell) -> tuple[str, str, str]:
    """Mean, interval and what is left out; the last two are empty where there is nothing to say."""
    mean, low, high, _ = cell.interval
    bounds = f"[{low:.1f}, {high:.1f}]" if cell.interval.bounded else ""
    return f"{mean:.1f}" if math.isfinite(mean) else NOTHING, bounds, left_out(cell)


def spanned(value: float, low: float, high: float) -> str:
    """`12.3 [4.5, 20.1]`: one digit after the point, two or three where half the interval is below 1 or 0.1; the number
    alone without bounds."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{value:,.1f}"
    half = (high - low) / 2.0
    digits = 1 if half >= 1.0 or half == 0.0 else 2 if half >= 0.1 else 3
    shown = (f"{round(x, digits) + 0.0:,.{digits}f}" for x in (value, low, high))  # + 0.0: no -0.0
    return "{} [{}, {}]".format(*shown)


def left_out(cell: Cell) -> str:
    """How many seeds a mean leaves out, and why; to be set after its n."""
    reasons = ((cell.diverged, "diverged"), (cell.missing, "without value"))
    return "".join(f", {number} {reason} left out" for number, reason in reasons if number)


def _markdown_cell(cell: Cell | None) -> str:
    if cell is None or (cell.interval.n, cell.diverged) == (0, 0):
        return NOTHING
    mean, bounds, lost = _numbers(cell)
    shown = f"**{mean}**" if cell.best else mean
    return f"{shown}{' ' * bool(bounds)}{bounds}, n={cell.interval.n}{lost}"


def _latex_cell(cell: Cell | None) -> str:
    """Numbers in math mode, where a hyphen is a minus sign."""
    if cell is None or (cell.interval.n, cell.diverged) == (0, 0):
        return NOTHING
    mean, bounds, lost = _numbers(cell)
    shown = rf"$\mathbf{{{mean}}}$" if cell.best else f"${mean}$" if mean != NOTHING else mean
    return f"{shown}{f' ${bounds}$' if bounds else ''}, $n={cell.interval.n}${lost}"


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\|*_`<\[\]])", r"\\\1", " ".join(text.split()))


def _latex_text(text: str) -> str:
    plain = " ".join(text.split())
    # A bracket at the start of a row would be an option of the line break before it.
    return "{}" * plain.startswith("[") + "".join(LATEX.get(symbol, symbol) for symbol in plain)


FORMATS: dict[str, tuple[str, Callable[[Comparison, str], str]]] = {
    "markdown": (".md", to_markdown),
    "latex": (".tex", to_latex),
    "csv": (".csv", to_csv),
}
