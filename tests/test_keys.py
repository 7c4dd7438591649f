"""Every draw has a key of its own: none is used twice, by JAX's own rules, and none is folded that is used as well."""

import ast
from pathlib import Path

import jax
import pytest
from jax.experimental.key_reuse import _core as key_reuse  # no public function asks a program that is not run
from support import random_data

from jaxrl_suite.algorithms import registry
from jaxrl_suite.envs.probes import PROBES

ENV = next(iter(PROBES.values())).env
SOURCES = Path(__file__).parents[1] / "jaxrl_suite"
# `fold_in(key, n)` is `split(key)[n]`: beside a use of the key it must be a number that the use does not take.
KNOWN = {("algorithms/rambo.py", "key")}  # which `dyna` splits into 0 to 3


def check(function, *arguments):
    key_reuse.check_key_reuse_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


@pytest.fixture(scope="module")
def data():
    return random_data(ENV, 64)


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_no_algorithm_uses_a_key_twice(name, data):
    entry = registry.get(name)
    algorithm = entry.make(ENV.spec, entry.presets["smoke"])
    rows, previous, key = None if entry.online else data, None, jax.random.key(0)
    for phase in algorithm.phases:
        given = (key, algorithm.hypers, rows, previous)
        check(phase.init, *given)
        state = jax.eval_shape(phase.init, *given)
        check(phase.update, state, rows)
        previous = jax.eval_shape(phase.result, state)


def test_a_key_that_is_used_twice_is_found():
    with pytest.raises(jax.errors.KeyReuseError):
        check(lambda key: jax.random.normal(key) + jax.random.uniform(key), jax.random.key(0))


def own(function):
    """The nodes of a function that are not those of a function inside it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def shared(function):
    """Names that a function gives to `fold_in`, and to something else."""
    calls = [node for node in own(function) if isinstance(node, ast.Call) and node.args]
    folds = {ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func).endswith("fold_in")}
    others = {
        ast.unparse(given) for call in calls if not ast.unparse(call.func).endswith("fold_in") for given in call.args
    }
    return folds & others


def test_no_key_is_folded_beside_another_use_of_it():
    found = {
        (path.relative_to(SOURCES).as_posix(), name)
        for path in SOURCES.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for name in shared(function)
    }
    assert found == KNOWN
