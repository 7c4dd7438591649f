"""JAX-native, functional benchmark suite for model-based and offline reinforcement learning."""

from typing import Any

__all__ = ["Run", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`jaxrl_suite.load` and `jaxrl_suite.Run`, imported when first asked for: the parts stay light on their own."""
    if name in __all__:
        from jaxrl_suite.train import session

        return getattr(session, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
