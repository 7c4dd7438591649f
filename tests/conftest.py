"""Set before JAX starts: compile for speed of compilation, not of execution, as most tests run a program once."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
