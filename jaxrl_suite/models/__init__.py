"""World models: ensembles, how they are fitted, and how they are rolled out."""

from jaxrl_suite.models import ensemble, fit, imagine, transforms, uncertainty

__all__ = ["ensemble", "fit", "imagine", "transforms", "uncertainty"]
