"""Statistics, tables and figures: functions of summary rows and evaluation curves, and of nothing else."""

from jaxrl_suite.report.plots import run_figure
from jaxrl_suite.report.stats import Interval, difference, iqm, mean_interval, paired_difference
from jaxrl_suite.report.tables import Reference, run_table, to_markdown

__all__ = [
    "Interval",
    "Reference",
    "difference",
    "iqm",
    "mean_interval",
    "paired_difference",
    "run_figure",
    "run_table",
    "to_markdown",
]
