"""Claims about heads in the offline algorithms name their runs as a summary does; the faulty head is no option."""

import pytest

from experiments import heads_fault, heads_maze, offline_mbrl, options, reproduce
from experiments.heads_offline_claims import CLAIMS, SMALLER, runs
from jaxrl_suite.errors import UserError
from jaxrl_suite.values import heads


def test_settings_are_what_a_summary_will_say():
    """A claim whose settings are written in another order would find no rows, for ever."""
    for needed in {needed for claim in CLAIMS for needed in claim.needs}:
        if "one_sided" in needed.settings:
            continue
        words = reproduce.words_of(needed, "0:5", reproduce.Options())
        shared, entry, config = options.offline(words, "test", "")
        assert offline_mbrl._settings(shared, config, entry.presets["quick"]) == needed.settings


def test_heads_of_a_pair_differ_in_the_head_alone():
    for algo in SMALLER:
        words = [reproduce.words_of(runs(algo, head), "0:5", reproduce.Options()) for head in ("mse", "hl_gauss")]
        plain, swapped = (options.offline(each, "test", "")[2] for each in words)
        assert (plain.head, swapped.head) == ("mse", "hl_gauss")
        changed = {name for name, value in vars(plain).items() if value != getattr(swapped, name)}
        assert changed == {"head"}


def test_the_faulty_head_is_known_only_while_it_is_shown():
    config = heads.HeadConfig(heads_fault.FAULT, 101, 0.75, "0,101")
    with pytest.raises(UserError, match="unknown value head 'one_sided'"):
        heads.make(config)
    with pytest.raises(RuntimeError), heads_fault.registered():
        assert heads.HEADS[heads_fault.FAULT] is heads_maze.one_sided
        assert heads.make(config).size == 101
        raise RuntimeError
    assert heads_fault.FAULT not in heads.HEADS
