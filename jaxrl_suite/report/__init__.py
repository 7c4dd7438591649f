"""Statistics, tables and figures: functions of summary rows and evaluation curves, and of nothing else."""

from jaxrl_suite.report.association import pearson, spearman
from jaxrl_suite.report.bootstrap import Band, profile_band, stratified_bootstrap
from jaxrl_suite.report.multiplicity import holm
from jaxrl_suite.report.plots import run_figure
from jaxrl_suite.report.stats import Interval, difference, iqm, mean_interval, p_value, paired_difference
from jaxrl_suite.report.tables import Reference, run_table, to_markdown

__all__ = [
    "Band",
    "Interval",
    "Reference",
    "difference",
    "holm",
    "iqm",
    "mean_interval",
    "p_value",
    "paired_difference",
    "pearson",
    "profile_band",
    "run_figure",
    "run_table",
    "spearman",
    "stratified_bootstrap",
    "to_markdown",
]
