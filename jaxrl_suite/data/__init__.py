"""Data sets: registry, D4RL HDF5 files, the rules of episodes."""

from jaxrl_suite.data.episodes import stats, summary
from jaxrl_suite.data.hdf5 import DatasetInfo, write
from jaxrl_suite.data.registry import REGISTRY, Entry, catalogue, load, names

__all__ = ["REGISTRY", "DatasetInfo", "Entry", "catalogue", "load", "names", "stats", "summary", "write"]
