"""Download D4RL's data sets by name: `python -m experiments.fetch hopper-medium-v2 walker2d-medium-replay-v2`.

A download that breaks off goes on where it stopped, now and at the next call. No checksums are published for these
files: that of the first download is recorded beside the file and holds from then on; --sha256, or a SHA256SUMS in the
folder, states the right one. Runs fetch what they need by themselves; JAXRL_SUITE_OFFLINE=1 forbids that. The
environment variable JAXRL_SUITE_D4RL_URL names another folder of the same files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column, Table

from experiments import options
from jaxrl_suite.data import d4rl
from jaxrl_suite.data.fetch import Limits, recorded
from jaxrl_suite.errors import UserError, exits_cleanly, unknown
from jaxrl_suite.train.display import make_console


@dataclass(frozen=True)
class Options:
    """What to download, and where to."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of data sets, such as hopper-medium-v2."""
    folder: Path | None = None
    """Folder for the files; by default where --dataset=NAME looks for them."""
    sha256: str = ""
    """Expected checksum, with one name."""
    fresh: bool = False
    """Download files again that are there."""
    minutes: float = 240.0
    """Give a file up after so long."""
    list: bool = False
    """Show the names, and which files are there, and stop."""


def known(folder: Path) -> Table:
    """The data sets that can be had."""
    table = Table(Column("name", no_wrap=True), "environment", "MB", "sha256", "address")
    for remote in d4rl.REMOTES.values():
        path = folder / remote.file
        size = f"{path.stat().st_size / 1e6:.1f}" if path.exists() else "-"
        table.add_row(remote.name, remote.env, size, (recorded(path) or "-")[:12], remote.url)
    return table


@exits_cleanly
def main() -> int:
    """Download what the command line names."""
    chosen = options.parse(Options, options.arguments(), Options(), "python -m experiments.fetch", __doc__ or "")
    console = make_console()
    folder = chosen.folder.expanduser() if chosen.folder else d4rl.cache_folder()
    if chosen.list:
        console.print(known(folder))
        return 0
    if not chosen.names:
        raise UserError("name a data set, such as hopper-medium-v2 (see --list)")
    if chosen.sha256 and len(chosen.names) > 1:
        raise UserError(f"--sha256 is of one file, but {len(chosen.names)} are named; fetch them one by one")
    if not chosen.minutes > 0:
        raise UserError(f"--minutes={chosen.minutes} must be above 0")
    for name in chosen.names:
        d4rl.refuse_old(name)
        if name not in d4rl.REMOTES:
            raise unknown("data set", name, d4rl.REMOTES, "(see --list)")
    for name in chosen.names:
        one(d4rl.REMOTES[name], chosen, folder, console)
    return 0


def one(remote: d4rl.Remote, chosen: Options, folder: Path, console: Console) -> None:
    """Download one data set under a progress bar, and say where it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        bar = bars.add_task(remote.name, total=None)
        path = d4rl.download(
            remote,
            folder=folder,
            sha256=chosen.sha256 or None,
            progress=lambda done, total: bars.update(bar, completed=done, total=total),
            limits=Limits(deadline=60.0 * chosen.minutes),
            fresh=chosen.fresh,
        )
    console.print(f"{remote.name}: {path}, {path.stat().st_size / 1e6:.1f} MB, sha256 {recorded(path)}")


if __name__ == "__main__":
    main()
