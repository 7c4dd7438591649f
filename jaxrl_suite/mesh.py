"""Devices as a mesh, and data sets sharded over its rows."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrl_suite.types import Dataset


def make() -> Mesh:
    """All devices along the axis `data`; the axis `seed` has one place."""
    devices = np.array(jax.devices()).reshape(1, -1)
    return Mesh(devices, ("seed", "data"), axis_types=(AxisType.Auto, AxisType.Auto))


def layout() -> str:
    """The device layout in words: a part of what a run's numbers depend on."""
    return f"{jax.device_count()} {jax.devices()[0].platform}"


def shard_rows(dataset: Dataset) -> Dataset:
    """The data set on the devices, an equal share of its rows on each; whole on each where the rows do not divide.

    Global indexing inside jit gives the numbers of a single device, for one all-reduce of the batch.
    """
    mesh = make()
    divides = len(dataset.episode) % mesh.shape["data"] == 0
    return jax.device_put(dataset, NamedSharding(mesh, PartitionSpec("data" if divides else None)))
