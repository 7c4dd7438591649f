"""Stored results spare work and never cost any: a damaged one is reported and made anew."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_suite.train.checkpoint import cached, store


def small(value=0.0):
    return {"w": jnp.full(5, float(value)), "n": jnp.int32(3)}


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_stored_results_come_back(tmp_path):
    assert cached(tmp_path / "models", "key", small()) is None
    store(tmp_path / "models", "key", small(3))
    assert_same(cached(tmp_path / "models", "key", small()), small(3))
    assert cached(tmp_path / "models", "other", small()) is None
    assert names(tmp_path / "models") == ["key"]


def test_a_damaged_entry_is_reported_and_replaced(tmp_path):
    store(tmp_path, "key", small(3))
    (tmp_path / "key" / "step_0" / "manifest.json").write_text("{}")
    reports = []
    assert cached(tmp_path, "key", small(), reports.append) is None
    assert len(reports) == 1 and "not used" in reports[0] and "damaged" in reports[0]
    store(tmp_path, "key", small(4))
    assert_same(cached(tmp_path, "key", small()), small(4))
    written = names(tmp_path / "key")
    store(tmp_path, "key", small(4))
    assert names(tmp_path / "key") == written  # an intact entry is not written again


def test_an_entry_of_another_shape_is_reported_and_replaced(tmp_path, capsys):
    store(tmp_path, "key", {"w": jnp.zeros(3)})
    assert cached(tmp_path, "key", small()) is None
    assert "holds another tree" in capsys.readouterr().err
    store(tmp_path, "key", small(4))
    assert_same(cached(tmp_path, "key", small()), small(4))


def test_a_result_that_cannot_be_stored_stops_nobody(tmp_path):
    (tmp_path / "models").write_text("")
    reports = []
    store(tmp_path / "models", "key", small(), reports.append)
    assert len(reports) == 1 and "not stored" in reports[0]
