"""`python -m experiments`: the commands that there are."""

import importlib
import subprocess
import sys

import pytest

from experiments import __main__ as main
from experiments import publishing, tables


def test_every_command_is_listed_with_what_it_does(capsys):
    main.main()
    shown = capsys.readouterr().out
    names = [line.removeprefix("python -m experiments.") for line in shown.splitlines() if line.startswith("python")]
    assert {"offline_mbrl", "reproduce", "tables"} <= set(names) and names == sorted(names)
    folder = publishing.RESULTS.parent / "experiments"
    guarded = [path.stem for path in folder.glob("[!_]*.py") if '__name__ == "__main__"' in path.read_text("utf-8")]
    assert sorted(guarded) == names
    assert all(callable(importlib.import_module(f"experiments.{name}").main) for name in names)
    first = " ".join(tables.__doc__.split()).partition(". ")[0]
    assert first in " ".join(shown.split())


def test_arguments_change_nothing_and_jax_is_not_imported():
    program = "import runpy, sys; runpy.run_module('experiments', run_name='__main__'); sys.exit('jax' in sys.modules)"
    command = [sys.executable, "-c", program, "--whatever"]
    ran = subprocess.run(command, cwd=publishing.RESULTS.parent, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "") and "python -m experiments.sweep\n" in ran.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Compare what\nthere is. Then more.", "Compare what there is."),
        ("Heads of Farebrother et al. 2024 (x): here.\n\nMore.", "Heads of Farebrother et al. 2024 (x): here."),
        ("One or two? `--only` says.", "One or two?"),
        ("Compile it:\n\n    python -m x", "Compile it"),
        ("", ""),
    ],
)
def test_a_sentence_ends_where_the_next_begins(text, expected):
    assert main.sentence(text) == expected
