"""What users can mend is one line and exit code 2; what they cannot is a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrl_suite.errors import UserError, complaint, exits_cleanly

ROOT = Path(__file__).resolve().parents[1]
# In a process of its own: imports everything, then calls commands as the shell would, where JAX knows no such platform.
COMMANDS = """
import contextlib, importlib, io, json, pkgutil, sys
import experiments, paper_figs
for package in (experiments, paper_figs):
    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "__main__":
            importlib.import_module(f"{package.__name__}.{module.name}")
told = []
for name, *words in json.loads(sys.argv[1]):
    sys.argv, errors = ["command", *words], io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            importlib.import_module(f"experiments.{name}").main()
        except SystemExit as stop:
            told.append([name, stop.code, errors.getvalue()])
print(json.dumps(told))
"""


def test_without_devices_modules_can_be_imported_and_commands_say_so_in_one_line(tmp_path):
    commands = [
        ("offline_mbrl", "--preset=smoke", "--algo=bc", f"--out={tmp_path}"),
        ("sweep", "--algo=bc", "--preset=smoke", f"--out={tmp_path}"),
        ("value_heads", "--preset=smoke", "--only=targets", f"--out={tmp_path}"),
    ]
    called = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "nowhere", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert called.returncode == 0, called.stderr
    for name, code, error in json.loads(called.stdout.splitlines()[-1]):
        assert code == 2, name
        assert error.startswith("error: JAX finds no device with JAX_PLATFORMS=nowhere;"), name
        assert "extra gpu or tpu" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("a fault"), AssertionError(), KeyError("a fault")])
def test_a_fault_stays_a_traceback(error):
    def main():
        raise error

    assert complaint(error) == ""
    with pytest.raises(type(error)):
        exits_cleanly(main)()


def test_bad_input_is_one_line(capsys):
    def main():
        raise UserError("this\nis wrong")

    with pytest.raises(SystemExit) as stop:
        exits_cleanly(main)()
    assert (stop.value.code, capsys.readouterr().err) == (2, "error: this is wrong\n")
