"""World models: ensembles and how they are fitted, the true dynamics, and how all are changed and rolled out."""

from jaxrl_suite.models import ensemble, fit, imagine, oracle, transforms, uncertainty, worlds

__all__ = ["ensemble", "fit", "imagine", "oracle", "transforms", "uncertainty", "worlds"]
