"""Rows sharded over eight devices give the numbers of one device."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import jax, numpy as np
from support import random_data
from jaxrl_suite import mesh
from jaxrl_suite.algorithms import bc
from jaxrl_suite.envs import registry
from jaxrl_suite.train.memory import learn
assert jax.device_count() == 8
env = registry.make("pendulum")
data = random_data(env, 800)
sharded = mesh.shard_rows(data)
assert len({{s.device for s in sharded.transitions.obs.addressable_shards}}) == 8
assert sharded.transitions.obs.addressable_shards[0].data.shape[0] == 100
uneven = mesh.shard_rows(jax.tree.map(lambda x: x[:799], data))
assert uneven.transitions.obs.addressable_shards[0].data.shape[0] == 799
algorithm = bc.make(env.spec, bc.PRESETS["smoke"])
one, many = (learn(algorithm, rows).parameters for rows in (data, sharded))
for a, b in zip(jax.tree.leaves(one.weights), jax.tree.leaves(many.weights)):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
print("equal")
"""


def test_sharded_equals_single():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(tests=str(Path(__file__).parent))],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.stdout.strip().endswith("equal"), result.stderr[-2000:]
