"""A task that ends as its options say, for tests of the sweep: a run directory and a row, but no training."""

import os
import signal
import sys
import time
from pathlib import Path

from jaxrl_suite.errors import exits_cleanly
from jaxrl_suite.train import rundir

EXPERIMENT = "fake"
EVALS = ("seed", "update", "episodes", "return_mean", "length_mean", "score")
EVALUATIONS = 3


@exits_cleanly
def main():
    given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
    out, group, behave = Path(given["out"]), given["group"], given["behave"]
    with rundir.open_run(out, EXPERIMENT, "fake", {"group": group}, group, False) as directory:
        started = {"group": group, "pid": os.getpid(), "found": directory.state}
        rundir.Log.csv(out / "starts.csv", list(started)).append(started)
        if directory.state == "finished":
            return 0  # by another sweep, since this task was sent out
        print(f"first words\nlast words of {group}", flush=True)
        first = directory.state == "new"
        if behave == "kill" or (behave == "kill-once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if behave == "save" or (behave == "save-once" and first):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
            (directory.path / "ready").touch()
            time.sleep(600)
        if behave == "slow":
            time.sleep(0.5)
        if behave in ("1", "2", "75"):
            return int(behave)
        for _ in evaluate(directory, given):
            time.sleep(0.05)
        leave_rows(directory, given)
        directory.finish("diverged" if behave == "diverge" else "finished")
    return 0


def evaluate(directory, given):
    """Evaluations of seeds 1000 and 1001 whose return grows with the setting x, one at a time; none without x."""
    log = rundir.Log.csv(directory.path / "eval.csv", EVALS)
    log.truncate(0)
    for update in range(1, EVALUATIONS + 1) if "x" in given else ():
        for seed in (1000, 1001):
            value = update * float(given["x"]) + seed - 1000
            log.append(dict(zip(EVALS, (seed, update, 5, value, 20.0, value / 10), strict=True)))
        yield update


def leave_rows(directory, given):
    """Rows of the summary: one, or one for each seed where there is a setting x."""
    group, summary = given["group"], directory.path.parent / "summary.csv"
    row = {"run_id": f"run-{group}", "group_id": group, "status": "finished"}
    if "x" in given:
        status = "diverged" if given["behave"] == "diverge" else "finished"
        last = EVALUATIONS * float(given["x"])
        values = {"group_id": group, "status": status, "return_best": last, "score_last": last / 10}
        for seed in (1000, 1001):
            row = {"run_id": f"run-{group}-{seed}", "seed": seed, "return_last": last + seed - 1000, **values}
            rundir.upsert_rows(summary, [row], list(row))
    else:
        rundir.upsert_rows(summary, [row], list(row))


if __name__ == "__main__":
    main()
