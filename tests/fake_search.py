"""A search over `fake_task`, in this process or as a command: for tests."""

import sys
from pathlib import Path

import pandas as pd
from fake_task import evaluate, leave_rows

from jaxrl_suite.errors import UserError
from jaxrl_suite.sweep import executors, schedule, search, studies, tasks
from jaxrl_suite.sweep.space import Range
from jaxrl_suite.train import identity, rundir

WHERE = {"x": Range(0.1, 10.0, True), "n": Range(2, 5)}


def design(where=None, objective="return_last", sampler="tpe", seed=1, pruner="none"):
    return studies.Design(where or WHERE, objective, sampler, seed, pruner)


def maker(out, **fixed):
    """Texts of settings -> a run of `fake_task`."""

    def make(texts):
        given = {"behave": "ok", **fixed, **texts}
        if given["behave"] == "refuse":
            raise UserError("not this one")
        group = identity.digest(given)
        return tasks.Run(
            task=tasks.Task("fake_task", {"out": str(out), "group": group, **given}),
            algo="fake",
            dataset="none",
            preset="smoke",
            settings=given,
            seeds=(1000, 1001),
            out=out,
            experiment="fake",
            label="fake",
            group=group,
            run_ids=(f"run-{group}-1000", f"run-{group}-1001"),
        )

    return make


def base(out):
    return maker(out)({})


class Steps:
    """A job of this process."""

    def __init__(self, task, log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        self.work, self.code = self._work(task.options), None

    def _work(self, given):
        out, group = Path(given["out"]), given["group"]
        with rundir.open_run(out, "fake", "fake", {"group": group}, group, False) as directory:
            rundir.Log.csv(out / "starts.csv", ["group"]).append({"group": group})
            yield from evaluate(directory, given)
            if given["behave"] in ("1", "2"):
                return int(given["behave"])
            leave_rows(directory, given)
            directory.finish("diverged" if given["behave"] == "diverge" else "finished")
        return 0

    def poll(self):
        if self.code is None:
            try:
                next(self.work)
            except StopIteration as stop:
                self.code = stop.value
        return self.code

    def terminate(self):
        self.work.close()
        self.code = 75

    kill = terminate


def searched(out, trials, chosen=None, places=1, start=Steps, notify=lambda board: None):
    """A whole search -> its rows."""
    chosen = chosen or design()
    with studies.open_folder(base(out), chosen) as folder:
        driver = search.Driver(folder.path, chosen, maker(out), trials, places, lambda line: None)

        def look(board):
            driver.look(board)
            notify(board)

        executor = executors.local(1)._replace(places=places, start=start)
        board = schedule.work_off(driver.begin(), executor, lambda: False, look)
        assert not driver.live
        assert not board.stopped
        driver.write()
        written = pd.read_csv(driver.file)
        rows = driver.results()
    assert list(written["trial"]) == [row["trial"] for row in rows]
    return rows


if __name__ == "__main__":
    searched(Path(sys.argv[1]), int(sys.argv[2]), start=executors.local(1).start)
