"""What a learner did, thinned to whole episodes."""

import numpy as np
import pytest

from jaxrl_suite.errors import UserError
from jaxrl_suite.train import record


def fake(lengths_of_envs):
    """Environments that stepped together, each with episodes of these lengths -> (arrays, tick of each row).

    A reset step lies between two episodes. The observation is the number of the episode in the file.
    """
    ends, ticks = [], []
    for lengths in lengths_of_envs:
        start = 0
        for length in lengths:
            ends += [False] * (length - 1) + [True]
            ticks += range(start, start + length)
            start += length + 1
    ends = np.array(ends)
    flags = {"terminals": ends & (np.arange(len(ends)) % 2 == 0), "timeouts": ends & (np.arange(len(ends)) % 2 == 1)}
    return {"observations": np.cumsum(ends) - ends, "rewards": np.arange(len(ends)), **flags}, np.array(ticks)


def starts_and_lengths(arrays, ticks):
    numbers, first, length = np.unique(arrays["observations"], return_index=True, return_counts=True)
    return numbers, ticks[first], length


@pytest.mark.parametrize("rows", [10, 37, 100, 300, 599])
def test_thinning_keeps_whole_episodes_evenly_spaced(rows):
    rng = np.random.default_rng(rows)
    arrays, ticks = fake([rng.integers(1, 11, 40) for _ in range(3)])
    thin = record.thin(arrays, ticks, rows)
    numbers, starts, length = starts_and_lengths(arrays, ticks)
    kept = np.unique(thin["observations"])
    # Whole and untouched: what is kept is the rows of these episodes in their old order.
    for name in arrays:
        np.testing.assert_array_equal(thin[name], arrays[name][np.isin(arrays["observations"], kept)])
    assert 0 < len(thin["rewards"]) <= rows
    # Evenly: in the order in which the episodes began, each of `kept` equal stretches gives one.
    place = {number: index for index, number in enumerate(sorted(numbers, key=lambda n: (starts[n], n)))}
    stretch = sorted((2 * place[number] + 1) * len(kept) // (2 * len(numbers)) for number in kept)
    assert stretch == list(range(len(kept)))
    # As many as fit: one more would exceed the rows.
    more = len(kept) + 1
    ordered = sorted(place, key=place.get)
    assert sum(length[ordered[(2 * j + 1) * len(ordered) // (2 * more)]] for j in range(more)) > rows


def test_thinning_does_not_prefer_short_episodes():
    """Trap: filling up rows skips long episodes until there is room, and so lowers the returns of what is left."""
    rng = np.random.default_rng(0)
    lengths = [np.where(rng.random(200) < 0.1, 500, 10) for _ in range(8)]
    arrays, ticks = fake(lengths)
    thin = record.thin(arrays, ticks, 40_000)
    _, _, kept = starts_and_lengths(thin, np.zeros(len(thin["rewards"])))
    assert abs((kept == 500).mean() - (np.concatenate(lengths) == 500).mean()) < 0.02


def test_rows_beyond_all_keep_all_and_too_few_are_refused():
    arrays, ticks = fake([[5, 6], [7]])
    for name, column in record.thin(arrays, ticks, 18).items():
        np.testing.assert_array_equal(column, arrays[name])
    with pytest.raises(UserError, match="--rows=4 holds no whole episode"):
        record.thin(arrays, ticks, 4)


def test_a_thinned_replay_is_part_of_the_whole():
    actions = np.random.default_rng(0).uniform(-1, 1, (120, 4, 3)).astype(np.float32)
    whole, thin = (record.replay("Hopper-v4", 3, actions, rows) for rows in (None, 200))
    every = record.replay("Hopper-v4", 3, actions, 10_000)
    ends = whole["terminals"] | whole["timeouts"]
    episode = np.cumsum(ends) - ends
    place = {row.tobytes(): index for index, row in enumerate(whole["next_observations"])}
    rows = np.array([place[row.tobytes()] for row in thin["next_observations"]])
    assert 100 < len(rows) <= 200
    for name in whole:
        np.testing.assert_array_equal(every[name], whole[name])
        np.testing.assert_array_equal(thin[name], whole[name][np.isin(episode, episode[rows])])
