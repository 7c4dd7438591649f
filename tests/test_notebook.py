"""The notebook is stored without outputs and machine traces, and runs from top to bottom."""

import os
import warnings
from pathlib import Path

import nbformat
import pytest

PATH = Path(__file__).resolve().parents[1] / "experiments" / "explore.ipynb"
# Third parties: jupyter_client warns of its own coming changes, and closes its sockets late.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:Jupyter is migrating its paths:DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore:.*unclosed.*zmq:ResourceWarning"),
]


@pytest.fixture
def notebook():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return nbformat.read(PATH, as_version=nbformat.NO_CONVERT)


def test_stored_without_outputs_and_traces_of_a_machine(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for index, cell in enumerate(notebook.cells):
        assert (cell.id, cell.metadata) == (f"cell-{index:02d}", {})
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_sizes_are_read_from_the_environment_in_one_cell(notebook):
    readers = [cell for cell in notebook.cells if cell.cell_type == "code" and "os.environ" in cell.source]
    assert len(readers) == 1
    assert "JAXRL_SUITE_EXPLORE" in readers[0].source


def test_installs_in_colab_only(notebook):
    installers = [cell.source for cell in notebook.cells if cell.cell_type == "code" and "%pip" in cell.source]
    assert len(installers) == 1
    before, _, inside = installers[0].partition('if "google.colab" in sys.modules:\n')
    assert "%pip" not in before
    assert all(line.startswith("    ") for line in inside.splitlines())


def test_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("JAXRL_SUITE_EXPLORE", "tiny")
    monkeypatch.setenv("MPLBACKEND", "Agg")  # as on machines without a screen: the figures must show all the same
    monkeypatch.setenv("PYTHONPATH", str(PATH.parents[1]) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert list(tmp_path.iterdir()) == []
