"""Environments: pure ones, the bridge to envpool, termination rules and reference scores."""

from jaxrl_suite.envs.registry import is_pure, make, names, pure, spec

__all__ = ["is_pure", "make", "names", "pure", "spec"]
