"""The README files: links lead somewhere, commands exist, numbers are those of published rows."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import claims, findings, heads_offline_claims, publishing
from jaxrl_suite.errors import UserError
from jaxrl_suite.report import stats

RESULTS = publishing.RESULTS
ROOT = RESULTS.parent
DOCUMENTS = [ROOT / "README.md", *sorted(RESULTS.glob("*/README.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in DOCUMENTS}
NUMBER = r"-?[\d,]+(?:\.\d+)?"
INTERVAL = re.compile(rf"({NUMBER})\s+(?:[a-z]+\s+){{0,3}}\[({NUMBER}),\s+({NUMBER})\]")
OF_ROWS = ("return_last", "return_best", "score_last", "score_best")
# What neither a claim nor the mean of one arm's rows gives, and where it comes from.
ELSEWHERE = {
    "441 [76, 806]": "ravl-beats-bc, seeds 0 to 7",
    "-168 [-348, 12]": "ravl-beats-bc, seeds 8 to 15",
    "38 [-356, 431]": "ravl-beats-bc, seeds 16 to 23",
    "197 [-217, 612]": "ravl-beats-bc, seeds 24 to 31",
    "-10 [-100, 80]": "the difference of best returns on the same rows",
    "4.4 [1.4, 7.3]": "withdrawn rows of earlier code; the CHANGELOG tells of them",
    "1.4 [-1.1, 3.9]": "offline-hl-gauss-peaks-higher-cql on rows of earlier code",
    "11.4 [3.4, 19.4]": "a difference that no claim asks for; the text says so",
    "3.9 [1.6, 6.2]": "likewise",
    "85.6 [82.7, 88.6]": "heads-tasks-depth-costs-mse without its margin of 5",
    "10.0 [8.9, 11.0]": "heads-labels-gauss-near-optimal without its margin of 5",
}


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def known_intervals() -> np.ndarray:
    """Estimate and bounds of every claim, and of every arm's mean `[n, 3]`."""
    found = []
    for folder in sorted(path.parent for path in RESULTS.glob("*/claims.csv")):
        table = pd.read_csv(folder / "claims.csv")
        found += table[["estimate", "ci_low", "ci_high"]].to_numpy(float).tolist()
        rows = pd.read_csv(folder / "summary.csv", low_memory=False).fillna({"settings": ""})
        for _, arm in rows.groupby(["algo", "settings", "dataset", "preset"]):
            intervals = (stats.mean_interval(arm[name].to_numpy(float)) for name in OF_ROWS if name in arm)
            found += [(one.estimate, one.low, one.high) for one in intervals if one.bounded]
    return np.array(found)


@pytest.fixture(scope="module")
def intervals():
    return known_intervals()


def from_rows(shown: tuple[str, str, str], known: np.ndarray) -> bool:
    """Whether some interval, its contrary or its double (claims on half of something) rounds to what is shown.

    A text may say "3 [1, 5] below" of -3 [-5, -1].
    """
    digits = max(len(number.partition(".")[2]) for number in shown)
    numbers = np.array([float(number.replace(",", "")) for number in shown])
    contrary = -known[:, [0, 2, 1]]
    near = 0.5001 * 10.0**-digits + 0.0005 * (1 + (digits > 0))  # claims.csv is rounded, too
    return any(bool((np.abs(each - numbers) <= near).all(axis=1).any()) for each in (known, contrary, 2 * known))


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (folder / file).resolve() if file else ROOT / name
        assert path.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{name}: {target}"


def test_every_figure_is_shown_or_linked():
    linked = {
        ((ROOT / name).parent / target).resolve()
        for name, text in TEXTS.items()
        for target in re.findall(r"\(([^()\s]+\.png)\)", text)
    }
    assert not sorted(path.name for path in set(RESULTS.resolve().glob("*/*.png")) - linked)


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_is_left_to_be_written(name):
    assert "PLACEHOLDER" not in TEXTS[name]


@pytest.mark.parametrize("name", TEXTS)
def test_numbers_with_intervals_are_those_of_published_rows(name, intervals):
    text = re.sub(r"<!-- table:.*?<!-- /table -->", "", TEXTS[name], flags=re.DOTALL)  # compared whole, elsewhere
    shown = [match.groups() for match in INTERVAL.finditer(text)]
    assert shown or name.endswith("throughput/README.md")
    strange = [one for one in shown if "{} [{}, {}]".format(*one) not in ELSEWHERE and not from_rows(one, intervals)]
    assert not strange


def test_a_number_that_no_row_has_is_found_out(intervals):
    assert from_rows(("0.53", "0.33", "0.72"), intervals) and not from_rows(("0.53", "0.33", "0.73"), intervals)
    assert INTERVAL.search("1.1\n  points [0.5,\n 1.7]").groups() == ("1.1", "0.5", "1.7")


def test_what_comes_from_elsewhere_is_still_said():
    spoken = " ".join(" ".join(text.split()) for text in TEXTS.values())
    assert not [number for number in ELSEWHERE if number not in spoken]


@pytest.mark.parametrize("name", TEXTS)
def test_claims_that_commands_name_exist(name):
    text = " ".join(TEXTS[name].split())
    named = re.findall(r"experiments\.reproduce --only=([\w,.-]+)", text)
    assert {one for names in named for one in names.split(",")} <= {claim.id for claim in claims.CLAIMS}


def test_step_sizes_are_shown_as_they_were_tried():
    text, rates = TEXTS["results/offline_mbrl/README.md"], heads_offline_claims.RATES
    scores = pd.read_csv(heads_offline_claims.TUNING).groupby(["algo", "head", "critic_lr"])["score_last"].mean()
    for (algo, head), tried in scores.groupby(level=["algo", "head"]):
        best = heads_offline_claims.rates()[algo, head]
        shown = (f"{tried[algo, head, rate]:.1f}" for rate in rates)
        cells = [f"**{cell}**" if rate == best else cell for cell, rate in zip(shown, rates, strict=True)]
        first = f"{findings.NAMES[algo]} | squared error" if head == "mse" else " | HL-Gauss"
        assert f"| {first} | {' | '.join(cells)} |" in text


def test_modules_that_commands_name_exist():
    named = set(re.findall(r"python -m (experiments\.\w+|paper_figs)", " ".join(" ".join(TEXTS.values()).split())))
    assert "experiments.sweep" in named
    lacking = [name for name in named if not list(ROOT.glob(f"{name.replace('.', '/')}*"))]
    assert lacking == ["experiments.NAME"]


# --- Grids of claims ---
def test_grids_name_claims_that_exist():
    known = {claim.id for claim in claims.CLAIMS}
    for name, grid in findings.GRIDS.items():
        named = [one for ids in grid.rows.values() for one in ids if one]
        assert named and len(named) == len(set(named)), name
        assert {len(ids) for ids in grid.rows.values()} == {len(grid.columns)}
        assert not set(named) - known, name


@pytest.mark.parametrize("name", TEXTS)
def test_documents_show_the_published_claims(name):
    path = ROOT / name
    if path.parent == ROOT or not (path.parent / "claims.csv").exists():
        return
    assert findings.renewed(TEXTS[name], path.parent / "claims.csv", publishing.PRESET) == TEXTS[name]


def test_every_grid_stands_in_a_document():
    shown = list(itertools.chain(*(re.findall(r"<!-- table:(\S+) -->", text) for text in TEXTS.values())))
    assert sorted(shown) == sorted([*findings.GRIDS, *publishing.TABLES])


def test_a_grid_marks_verdicts(tmp_path):
    grid = findings.Grid("", ("a", "b"), {"one": ("x", "y"), "two": ("z", "")})
    base = {"estimate": 2.0, "ci_low": 0.5, "ci_high": 3.5}
    verdicts = {"x": "supported", "y": "not supported", "z": "inconclusive"}
    lines = findings.markdown(grid, {name: {**base, "verdict": verdict} for name, verdict in verdicts.items()})
    assert "| one | **2.0 [0.5, 3.5]** | *2.0 [0.5, 3.5]* |" in lines
    assert "| two | 2.0 [0.5, 3.5] | - |" in lines


@pytest.mark.parametrize(
    ("text", "said"),
    [("<!-- table:nothing -->\n<!-- /table -->", "nothing"), ("<!-- table:layer-norm -->\n", "lacks the markers")],
)
def test_a_document_with_a_wrong_marker_is_refused(text, said, tmp_path):
    with pytest.raises(UserError, match=said):
        findings.renewed(text, RESULTS / "offline_mbrl" / "claims.csv", "quick")


def test_publishing_renews_the_tables_and_nothing_else(tmp_path):
    folder = tmp_path / "offline_mbrl"
    folder.mkdir()
    for name in ("summary.csv", "curves.csv"):
        (folder / name).write_bytes((Path(RESULTS) / "offline_mbrl" / name).read_bytes())
    text = "Words.\n\n<!-- table:layer-norm -->\n<!-- /table -->\n\nMore.\n"
    (folder / "README.md").write_text(text, encoding="utf-8")
    publishing.publish([], "offline_mbrl", tmp_path)
    shown = (folder / "README.md").read_text(encoding="utf-8")
    assert shown.startswith("Words.\n\n<!-- table:layer-norm -->\n| ") and shown.endswith("<!-- /table -->\n\nMore.\n")
    assert "| SAC-N | *-2.7 [-4.4, -1.0]* |" in shown
