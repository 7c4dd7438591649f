"""A task that ends as its options say, for tests of the sweep: a run directory and a row, but no training."""

import os
import signal
import sys
import time
from pathlib import Path

from jaxrl_suite.errors import exits_cleanly
from jaxrl_suite.train import rundir

EXPERIMENT = "fake"


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
        if behave == "save":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
            (directory.path / "ready").touch()
            time.sleep(600)
        if behave == "slow":
            time.sleep(0.5)
        if behave in ("1", "2", "75"):
            return int(behave)
        row = {"run_id": f"run-{group}", "group_id": group, "status": "finished"}
        rundir.upsert_rows(directory.path.parent / "summary.csv", [row], list(row))
        directory.finish("diverged" if behave == "diverge" else "finished")
    return 0


if __name__ == "__main__":
    main()
