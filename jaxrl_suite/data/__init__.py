"""Data sets: registry, readers of D4RL HDF5, Minari and npz files, episodes in memory, the rules of episodes."""

from jaxrl_suite.data.episodes import stats, summary
from jaxrl_suite.data.hdf5 import write
from jaxrl_suite.data.info import DatasetInfo
from jaxrl_suite.data.memory import from_episodes
from jaxrl_suite.data.minari import write_minari
from jaxrl_suite.data.registry import REGISTRY, Entry, catalogue, load, names

__all__ = [
    "REGISTRY",
    "DatasetInfo",
    "Entry",
    "catalogue",
    "from_episodes",
    "load",
    "names",
    "stats",
    "summary",
    "write",
    "write_minari",
]
