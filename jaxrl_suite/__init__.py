"""JAX-native, functional benchmark suite for model-based and offline reinforcement learning."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl_suite.data import from_episodes
    from jaxrl_suite.data import load as load_dataset
    from jaxrl_suite.data import names as datasets
    from jaxrl_suite.data import summary as episodes
    from jaxrl_suite.envs import names as environments
    from jaxrl_suite.envs import spec
    from jaxrl_suite.models.ensemble import EnsembleConfig
    from jaxrl_suite.models.fit import FitConfig
    from jaxrl_suite.models.imagine import imagine
    from jaxrl_suite.train.memory import Fitted, Trained, algorithm, fit, learn
    from jaxrl_suite.train.session import Run, load

__all__ = [
    "EnsembleConfig",
    "FitConfig",
    "Fitted",
    "Run",
    "Trained",
    "algorithm",
    "datasets",
    "environments",
    "episodes",
    "fit",
    "from_episodes",
    "imagine",
    "learn",
    "load",
    "load_dataset",
    "spec",
]
__version__ = "0.1.0"

# name: (module, its name there). A name of a subpackage (train, data, ...) would be hidden once that is imported.
_HOMES = {
    "EnsembleConfig": ("models.ensemble", "EnsembleConfig"),
    "FitConfig": ("models.fit", "FitConfig"),
    "Fitted": ("train.memory", "Fitted"),
    "Run": ("train.session", "Run"),
    "Trained": ("train.memory", "Trained"),
    "algorithm": ("train.memory", "algorithm"),
    "datasets": ("data", "names"),
    "environments": ("envs", "names"),
    "episodes": ("data", "summary"),
    "fit": ("train.memory", "fit"),
    "from_episodes": ("data", "from_episodes"),
    "imagine": ("models.imagine", "imagine"),
    "learn": ("train.memory", "learn"),
    "load": ("train.session", "load"),
    "load_dataset": ("data", "load"),
    "spec": ("envs", "spec"),
}


def __getattr__(name: str) -> Any:
    """The public names, each imported when first asked for: `import jaxrl_suite` alone stays quick."""
    if name in _HOMES:
        module, there = _HOMES[name]
        return getattr(importlib.import_module(f"{__name__}.{module}"), there)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
