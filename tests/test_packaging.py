"""The wheel stands alone: package, bundled data and licence inside, and usable far from the clone."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = "jaxrl_suite/data/bundled"
# Runs in another folder. The clone is hidden even where it is installed in editable mode, by path or by import hook.
USE = """
import sys
from pathlib import Path
clone, target = (Path(argument).resolve() for argument in sys.argv[1:])
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != clone]
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in f"{finder!r} {finder.__module__}"]
import jaxrl_suite
from jaxrl_suite import data
dataset, info = data.load("hopper-medium-replay-mini")
files = [Path(m.__file__) for n, m in list(sys.modules.items()) if n.split(".")[0] == "jaxrl_suite" and m.__file__]
assert files and all(target in file.resolve().parents for file in files), files
assert "experiments" not in sys.modules
print("loaded", info.rows, dataset.transitions.obs.shape[0])
"""


def run(*command: object, cwd: Path, **env: str) -> str:
    """Run a command; its output becomes the message of a failure."""
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1", "JAX_PLATFORMS": "cpu", **env}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(words[:5])} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built without network from a copy, so that nothing is left in the tree."""
    installed = importlib.metadata.version("setuptools")
    if int(installed.split(".")[0]) < 77:
        pytest.fail(f'setuptools {installed} cannot build this package; run `pip install -e ".[dev]"` first')
    folder = tmp_path_factory.mktemp("wheel")
    clone = folder / "clone"
    clone.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("jaxrl_suite", "experiments", "paper_figs", "tests"):
        shutil.copytree(ROOT / name, clone / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone / name)
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, clone, cwd=folder)
    (built,) = folder.glob("jaxrl_suite-*.whl")
    return built


def test_wheel_holds_the_package_with_its_data_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    source = {path.relative_to(ROOT).as_posix() for path in (ROOT / "jaxrl_suite").rglob("*.py")}
    data = {path.relative_to(ROOT).as_posix() for path in (ROOT / BUNDLED).iterdir() if path.suffix != ".py"}
    assert any(name.endswith(".hdf5") for name in data), "the bundled data set is missing from the clone"
    assert (source | data | {"jaxrl_suite/py.typed"}) - names == set()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"jaxrl_suite"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installed_wheel_works_in_another_folder(wheel, tmp_path):
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", target, wheel, cwd=elsewhere)
    output = run(sys.executable, "-c", USE, ROOT, target, cwd=elsewhere, PYTHONPATH=str(target))
    word, rows, loaded = output.split()
    assert word == "loaded" and int(rows) == int(loaded) > 0
