"""Settings as text, and which configs share a program."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_suite.algorithms import registry
from jaxrl_suite.envs import registry as envs
from jaxrl_suite.errors import UserError
from jaxrl_suite.train import settings

RAVL = registry.get("ravl").presets["smoke"]
TRACED = ("gamma", "tau", "actor_lr", "critic_lr", "alpha_lr", "diversity")
NUMBERS = st.floats(1e-6, 1.0)


def test_traced_are_the_numbers_that_config_and_hypers_share():
    algorithm = registry.get("ravl").make(envs.spec("Hopper-v4"), RAVL)
    assert settings.traced(algorithm, RAVL) == TRACED
    assert settings.traced(algorithm._replace(hypers=()), RAVL) == ()


def test_differences_are_the_fields_that_were_changed():
    changed = dataclasses.replace(RAVL, critics=7, hidden=(8, 4), tau=0.25, fit=dataclasses.replace(RAVL.fit, steps=9))
    text = settings.differences(settings.fields(changed), settings.fields(RAVL))
    assert set(text.split()) == {"critics=7", "hidden=8x4", "tau=0.25", "fit.steps=9"}
    assert settings.differences(settings.fields(RAVL), settings.fields(RAVL)) == ""


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_from_its_text(number):
    assert float(settings.shown(number)) == number


@given(st.sampled_from(TRACED), NUMBERS, NUMBERS)
def test_traced_numbers_share_a_program_and_zero_does_not(name, a, b):
    def program(value):
        return settings.program(dataclasses.replace(RAVL, **{name: value}), TRACED)

    assert program(a) == program(b)
    assert program(0.0) != program(a)


def test_what_is_not_traced_needs_another_program():
    assert settings.program(dataclasses.replace(RAVL, critics=9), TRACED) != settings.program(RAVL, TRACED)


def test_variants_change_what_they_name():
    found = settings.variants(RAVL, TRACED, ["diversity=0.5,tau=1e-3", "critic-lr=1"])
    assert found == (dataclasses.replace(RAVL, diversity=0.5, tau=0.001), dataclasses.replace(RAVL, critic_lr=1.0))
    assert settings.variants(RAVL, TRACED, []) == (RAVL,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["critics=3"], "unknown traced setting 'critics'.*sweep --grid"),
        (["tua=3"], "did you mean tau"),
        (["tau"], "expected name=number"),
        (["tau=a"], "expected name=number"),
        (["tau=0.5", "tau=.5"], "the same variant twice"),
        (["diversity=0", "diversity=1"], "0 leaves a term out"),
    ],
)
def test_variants_that_cannot_be_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        settings.variants(RAVL, TRACED, words)
