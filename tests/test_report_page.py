"""The results page: a function of the rows, refusals, and what it does in a browser (`pytest -m browser`)."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser

import pytest

from experiments import claims, curves, page, publishing, report
from jaxrl_suite.report import mean_interval
from jaxrl_suite.train import identity, rundir, session

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "input", "link", "br"}
CONFIG = {"algo": "bc", "note": f"</script>{EVIL}"}


class Reader(HTMLParser):
    """Tags, texts and table rows of a page; fails on a tag that is not closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.rows, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [tag] * (tag not in VOID)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th", "button", "strong") and self.rows:
            self.rows[-1].append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def write(folder, rows, found):
    rundir.upsert_rows(folder / "summary.csv", rows, session.SUMMARY_COLUMNS)
    rundir.upsert_rows(folder / "claims.csv", found, claims.COLUMNS, key="id")


@pytest.fixture
def results(tmp_path):
    """A results folder of one experiment whose data set has a strange name -> its path."""
    rows = [
        {
            **dict.fromkeys(session.SUMMARY_COLUMNS, 1),
            **{"experiment": "made-up", "algo": algo, "dataset": EVIL, "preset": "quick", "seed": seed},
            "settings": "x=1",
            **{"run_id": identity.run_id(CONFIG | {"algo": algo}, seed), "group_id": f"group-{algo}"},
            **{"return_last": base + seed**2, "q_last": float("nan"), "status": "finished"},
            **{"schema_version": rundir.SCHEMA_VERSION, "git_commit": f"c0ffee-{algo}", "wall_seconds": 12.5},
        }
        for algo, base in (("ravl", 100.0), ("bc", 1.0))
        for seed in (10, 9, 2)
    ]
    found = [
        {
            **dict.fromkeys(claims.COLUMNS, f"words & {EVIL}"),
            **{"id": verdict, "statement": f"statement of {verdict}", "verdict": verdict, "n": 3, "adjusted_p": 0.01},
            **{"estimate": 5.25, "ci_low": 1.5, "ci_high": 9.0},
        }
        for verdict in report.VERDICTS
    ]
    write(tmp_path / "results" / "made-up", rows, found)
    return tmp_path / "results"


@pytest.fixture
def runs(tmp_path):
    """A folder with a run directory of BC, one seed of which has a value missing -> its path."""
    folder = tmp_path / "runs" / "made-up" / "bc-run"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": CONFIG, "seeds": [2, 9]}))
    (folder / "provenance.json").write_text(json.dumps({"command": ["python", EVIL]}))
    rows = [
        f"{seed},{update},{update * seed},{'nan' if update == 10 else 1.5}" for update in (0, 10) for seed in (9, 2)
    ]
    (folder / "eval.csv").write_text("\n".join(["seed,update,return_mean,score", *rows, ""]))
    return tmp_path / "runs"


@pytest.fixture
def command(monkeypatch, capsys):
    """Call the command as the shell would -> exit code, output, errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["report", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            report.main()
        return stop.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(command, results):
    """The one line of a refusal, which leaves an existing page as it was."""

    def run(*words):
        there = results / "index.html"
        if results.is_dir():
            there.write_text("the page of yesterday")
        code, output, errors = command(f"--results={results}", *words)
        assert (code, output) == (2, "") and errors.startswith("error: ")
        assert errors.count("\n") == 1 and "Traceback" not in errors
        assert not results.is_dir() or there.read_text() == "the page of yesterday"
        return errors

    return run


def built(results, *runs):
    return page.build(report.experiments_of(results), [run for folder in runs for run in report.runs_of(folder)])


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- content ---
def test_names_and_configurations_are_only_texts(results, runs):
    text = built(results, runs)
    reader = Reader(text)
    assert len(reader.named("script")) == 2 and text.count("</script") == 2
    assert "alert" not in "".join(tag + "".join(map(str, attributes)) for tag, attributes in reader.tags)
    assert any(EVIL in shown for shown in reader.texts)
    assert not set("<>&") & set(page.embedded([EVIL, "</script>", "<!--", "&amp;"]))
    assert json.loads(page.embedded([EVIL, "<!--", "&amp;"])) == [EVIL, "<!--", "&amp;"]


def test_placeholders_in_names_are_not_filled_in(results):
    rewrite(results / "made-up" / "claims.csv", "statement of supported", "costs $data and $overview")
    assert "costs $data and $overview" in built(results)


def test_equal_rows_give_equal_bytes_in_whatever_order_they_stand(results, runs):
    first = built(results, runs)
    summary = results / "made-up" / "summary.csv"
    header, *lines = summary.read_text().splitlines()
    summary.write_text("\n".join([header, *reversed(lines)]) + "\n")
    assert built(results, runs) == first == built(results, runs)


def test_every_row_and_claim_is_there_in_order(results):
    reader = Reader(built(results))
    cells = [row for row in reader.rows if len(row) == len(session.SUMMARY_COLUMNS)][1:]
    place = [session.SUMMARY_COLUMNS.index(name) for name in ("algo", "seed")]
    assert [[row[i] for i in place] for row in cells] == [[a, s] for a in ("bc", "ravl") for s in ("2", "9", "10")]
    for verdict, sign in page.SIGNS.items():
        assert f"statement of {verdict}" in reader.texts and f"{sign} {verdict}" in reader.texts


def test_aggregates_are_means_with_t_intervals(results):
    mean, low, high, n = mean_interval([105.0 - 1, 181.0, 200.0])
    (row,) = [row for row in Reader(built(results)).rows if row[:1] == ["ravl x=1"]]
    assert "".join(row[3:]).startswith(f"{mean:,.1f} [{low:,.1f}, {high:,.1f}], n={n}")


def test_rows_that_share_no_mean_say_so(results):
    rewrite(results / "made-up" / "summary.csv", ",quick,x=1,9,", ",quick,x=1,2,")
    text = built(results)
    assert "No aggregate: " in text and "several rows for seed 2" in text


def test_runs_bring_curves_configuration_and_command(results, runs):
    reader = Reader(built(results, runs))
    data = next(json.loads(shown) for shown in reader.texts if shown.startswith('[{"name"'))
    assert data == [
        {
            "name": "bc-run, seeds 2, 9",
            "seeds": [
                {"seed": s, "return_mean": [[0, 0], [10, 10 * s]], "score": [[0, 1.5], [10, None]]} for s in (2, 9)
            ],
        }
    ]
    assert f"python {EVIL}" in reader.texts and any('"note"' in shown for shown in reader.texts)
    assert "bc-run (no row above)" not in reader.texts  # it was matched with its rows by run id


def test_a_run_without_published_rows_is_listed(results, runs):
    rewrite(runs / "made-up" / "bc-run" / "config.json", '"algo": "bc"', '"algo": "other"')
    assert "bc-run (no row above)" in Reader(built(results, runs)).texts


def test_the_page_is_accessible_and_asks_nobody(results, runs):
    text = built(results, runs)
    reader = Reader(text)
    assert all(head.get("scope") in ("row", "col") for head in reader.named("th"))
    columns = [head for head in reader.named("th") if head["scope"] == "col"]
    assert len(columns) == len(reader.named("button")) and all(head["aria-sort"] == "none" for head in columns)
    labelled = {label["for"] for label in reader.named("label")}
    assert {field["id"] for tag in ("input", "select") for field in reader.named(tag)} == labelled
    identifiers = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert not [a for _, a in reader.tags if "src" in a or not a.get("href", "#").startswith("#")]
    assert not re.search(r"@import|url\(|fetch\(|https?://(?!www\.w3\.org/2000/svg)", text)
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text


def test_the_published_page_is_that_of_the_published_rows():
    committed = (publishing.RESULTS / "index.html").read_text(encoding="utf-8")
    assert committed == built(publishing.RESULTS), "python -m experiments.report writes it anew"


# --- the command ---
def test_the_command_writes_the_page(command, results, runs, tmp_path):
    code, output, errors = command(f"--results={results}", f"--out={tmp_path / 'new' / 'a.html'}", f"--runs={runs}")
    assert (code, errors) == (0, "") and "a.html" in output
    assert (tmp_path / "new" / "a.html").read_text(encoding="utf-8") == built(results, runs)
    assert command(f"--results={results}")[0] == 0 and (results / "index.html").exists()


def test_results_without_rows_are_refused(refused, results):
    shutil.rmtree(results / "made-up")
    assert "summary.csv" in refused()
    shutil.rmtree(results)
    assert "not a folder" in refused()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("summary.csv", lambda t: "", "empty"),
        ("summary.csv", lambda t: t[: t.index("\n") + 1], "no rows"),
        ("summary.csv", lambda t: t[:-30], "cells"),
        ("summary.csv", lambda t: t[:-2], "half written"),
        ("summary.csv", lambda t: t.replace("wall_seconds", "wall"), "wall_seconds"),
        ("summary.csv", lambda t: t.replace("group-bc,2,", "group-bc,3,"), "schema 3"),
        ("summary.csv", lambda t: t.replace("group-bc,2,", "group-bc,0,"), "schema 0"),
        ("summary.csv", lambda t: t.replace("201.0", "many").replace("200.0", "many"), "return_last is 'many'"),
        ("claims.csv", lambda t: "", "empty"),
        ("claims.csv", lambda t: t[: len(t) - 40], "cells"),
        ("claims.csv", lambda t: t[:-5], "half written"),
        ("claims.csv", lambda t: t.replace("ci_low,", "low,"), "ci_low"),
        ("claims.csv", lambda t: t.replace(",inconclusive,", ",perhaps,"), "perhaps"),
        ("claims.csv", lambda t: t.replace("5.25", "high"), "estimate is 'high'"),
    ],
)
def test_damaged_results_are_refused(refused, results, name, change, words):
    path = results / "made-up" / name
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    assert words in refused()


def test_claims_without_their_rows_are_refused(refused, results):
    (results / "made-up" / "summary.csv").unlink()
    assert "summary.csv" in refused()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.json", "{", "config.json"),
        ("config.json", "[]", "config.json"),
        ("config.json", '{"config": 1, "seeds": []}', "config and seeds"),
        ("provenance.json", "[", "provenance.json"),
        ("eval.csv", "seed,update\n1,2\n", "return_mean"),
        ("eval.csv", "seed,update,return_mean,score\n1,2,x,0\n", "return_mean is 'x'"),
        ("eval.csv", "seed,update,return_mean,score\n", "evaluations"),
    ],
)
def test_damaged_runs_are_refused(refused, runs, name, text, words):
    (runs / "made-up" / "bc-run" / name).write_text(text)
    assert words in refused(f"--runs={runs}")


def test_folders_without_runs_and_other_targets_are_refused(refused, results, tmp_path):
    assert "evaluations" in refused(f"--runs={tmp_path / 'nowhere'}")
    assert ".html" in refused(f"--out={results / 'made-up' / 'summary.csv'}")
    assert ".html" in refused(f"--out={tmp_path}")
    assert "did you mean --results" in refused("--result=x")


# --- in a browser ---
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium with an empty profile."""
    webdriver = pytest.importorskip("selenium.webdriver", reason='needs selenium: pip install -e ".[browser]"')
    driver = shutil.which("chromedriver")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if driver is None or chromium is None:
        pytest.skip("needs Chromium and its driver: chromium and chromedriver are not both on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(switch)
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_published_curves_are_drawn_and_rows_filtered_by_settings(browser, results, tmp_path, width):
    folder = results / "made-up"
    rows = rundir.read_rows(folder / "summary.csv")
    varied = [row | {"settings": "tau=1", "run_id": f"other-{row['run_id']}"} for row in rows if row["algo"] == "bc"]
    rundir.upsert_rows(folder / "summary.csv", varied, session.SUMMARY_COLUMNS)
    log = rundir.Log.csv(folder / curves.CURVES, curves.COLUMNS)
    for row in [*rows, *varied]:
        for update in (0, 50, 100):
            value = update * (1 + row["seed"]) + 400 * (row["settings"] == "tau=1")
            point = dict.fromkeys(curves.VALUES, value) | {"run_id": row["run_id"], "seed": row["seed"]}
            log.append(point | {"update": update, "schema_version": curves.SCHEMA_VERSION})
    (tmp_path / "page.html").write_text(built(results), encoding="utf-8")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get((tmp_path / "page.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    labels = [label.text for label in browser.find_elements("css selector", "#runs label")]
    assert [label.partition(" on ")[0] for label in labels] == [
        f"made-up: {n}" for n in ("bc tau=1", "bc x=1", "ravl x=1")
    ]
    assert len(browser.find_elements("css selector", "#chart path.seed")) == 9
    assert len(browser.find_elements("css selector", "#chart path.mean")) == 3
    browser.find_element("css selector", "#experiment-0-rows-filter").send_keys("tau=1")
    assert browser.find_element("css selector", "#experiment-0-rows-count").text == "3 of 9 rows"
    assert browser.get_log("browser") == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_sorts_filters_and_draws(browser, results, runs, tmp_path, width):
    (tmp_path / "page.html").write_text(built(results, runs), encoding="utf-8")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get((tmp_path / "page.html").as_uri())

    def find(selector):
        return browser.find_elements("css selector", selector)

    def shown(column):
        place = session.SUMMARY_COLUMNS.index(column) + 1
        return [cell.text for cell in find(f"#experiment-0-rows tbody tr:not([hidden]) > :nth-child({place})")]

    def press(column):
        head = find("#experiment-0-rows thead th")[session.SUMMARY_COLUMNS.index(column)]
        browser.execute_script("arguments[0].click()", head.find_element("css selector", "button"))
        return head.get_attribute("aria-sort")

    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # sorting: by value (10 after 9), both ways, and by text
    assert press("seed") == "ascending" and shown("seed") == ["2", "2", "9", "9", "10", "10"]
    assert press("seed") == "descending" and shown("seed") == ["10", "10", "9", "9", "2", "2"]
    assert press("algo") == "ascending" and shown("algo") == ["bc"] * 3 + ["ravl"] * 3
    assert [head.get_attribute("aria-sort") for head in find("#experiment-0-rows thead th")].count("none") == len(
        session.SUMMARY_COLUMNS
    ) - 1
    # filtering
    find("#experiment-0-rows-filter")[0].send_keys("group-ravl")
    assert shown("algo") == ["ravl"] * 3 and find("#experiment-0-rows-count")[0].text == "3 of 6 rows"
    # curves: a line per seed and their mean; none without a chosen run
    lines = [path.get_attribute("d") for path in find("#chart path")]
    assert len(lines) == 3 and all(re.fullmatch(r"M[-\d. ]+L[-\d. ]+", line) for line in lines)
    browser.execute_script("document.querySelector('#runs input').click()")
    assert find("#chart path") == [] and "No run" in find("#chart")[0].text
    assert browser.get_log("browser") == []
