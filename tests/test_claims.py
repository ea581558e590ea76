"""Words of judgement, each on numbers small enough to be judged by eye."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore.claims import (
    beside_range,
    best_and_median,
    between_sources,
    closer,
    direction,
    leader,
    level_with_best,
    listed,
    median_and_range,
    nearest_to_truth,
    verdict,
    winners,
    with_interval,
)


def test_the_range_over_sources_is_written_with_its_kind():
    values = xr.DataArray([41.2, 77.4, 60], dims="source_id")
    assert between_sources(values, "{:.0f} %") == "sources 41 to 77 %"
    two = xr.DataArray([[-0.02, 0.1], [0.05, 0.0]], dims=("source_id", "experiment_id"))
    assert between_sources(two) == "sources and scenarios -0.020 to +0.100"


def test_names_level_with_the_best_come_with_the_best_first():
    scores = pd.Series({"a": 0.70, "b": 0.50, "c": 0.72})
    assert level_with_best(scores, within=0.03) == ["c", "a"]
    assert level_with_best(scores, within=0.01) == ["c"]
    assert level_with_best(scores[[]], within=0.01) == []


def test_a_statistic_of_each_scenario_is_written_in_order():
    values = xr.DataArray(
        [0.01, -0.0201], coords={"experiment_id": ["ssp126", "ssp585"]}, dims="experiment_id"
    )
    assert listed(values) == "SSP1-2.6 +0.010, SSP5-8.5 -0.020"
    assert listed(values * 1000, "{:.0f} %") == "SSP1-2.6 10 %, SSP5-8.5 -20 %"
    assert listed(values[0], "{:.1f}") == "0.0"


def test_median_and_range_of_the_sources_are_written_together():
    values = xr.DataArray(
        [[3.0, 1], [10, 2], [4, 6]],
        coords={"region": ["a", "b"]},
        dims=("source_id", "region"),
    )
    found = median_and_range(values)
    assert found.sel(region="a").item() == "4 (3–10)"
    assert found.sel(region="b").item() == "2 (1–6)"
    assert median_and_range(values, "{:+.1f}").sel(region="b").item() == "+2.0 (+1.0–+6.0)"


@pytest.mark.parametrize(
    ("value", "word"), [(9.9, "below"), (10, "within"), (20, "within"), (21, "above")]
)
def test_beside_range_says_on_which_side_a_number_lies(value, word):
    assert beside_range(value, xr.DataArray([20, 10, 15])) == word


@pytest.mark.parametrize(
    ("skill", "other", "word"),
    [
        (0.50, 0.40, "closer"),
        (0.40, 0.50, "farther"),
        (0.42, 0.40, "level"),
        (0.40, 0.42, "level"),
        (-0.2, -0.9, "closer"),
        (None, 0.4, "not decided"),
        (0.4, np.nan, "not decided"),
    ],
)
def test_closer_compares_two_skills_and_calls_small_differences_level(skill, other, word):
    assert closer(skill, other) == word


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-2, -1, "closer"),
        (1, 2, "farther"),
        (-1, 1, "level"),
        (0, 1, "level"),
        (np.nan, 1, "not decided"),
    ],
)
def test_verdict_asks_on_which_side_of_zero_the_interval_lies(low, high, word):
    assert verdict({"low": low, "high": high}) == word


@pytest.mark.parametrize(
    ("rate", "share", "word"),
    [
        (3.0, 80, "wetter"),
        (-3.0, 95, "drier"),
        (3.0, 79, "undecided"),
        (0.0, 100, "undecided"),
    ],
)
def test_direction_needs_four_of_five_sources(rate, share, word):
    assert direction(rate, share) == word


def scores():
    coords = {"dataset": ["a", "b", "c"], "score": ["rmsd"]}
    dims = ("dataset", "score")
    parts = {"value": [0.02, 0.01, 0.03], "low": [0.01, 0.005, 0.02], "high": [0.03, 0.02, 0.04]}
    table = {name: (dims, np.transpose([one])) for name, one in parts.items()}
    return xr.Dataset(table | {"ahead": (dims, [[False], [True], [False]])}, coords)


def test_leader_is_the_lowest_and_says_whether_it_is_ahead():
    assert leader(scores()) == ("b", True, "a")
    assert leader(scores().assign(ahead=scores()["ahead"] & False)) == ("b", False, "a")


def test_with_interval_writes_thousandths_with_a_star_for_the_one_ahead():
    assert with_interval(scores())["rmsd"].tolist() == [
        "20.0 (10.0 to 30.0)",
        "10.0 (5.0 to 20.0) *",
        "30.0 (20.0 to 40.0)",
    ]
    assert with_interval(-scores()[["value", "low", "high"]], "{:+.2f}", 1)["rmsd"].iloc[0] == (
        "−0.02 (−0.01 to −0.03)"
    )


def test_best_and_median_take_the_lower_of_two_middles():
    assert best_and_median(pd.Series({"a": 4, "b": 1, "c": 3, "d": 2})) == ("b", "d")
    assert best_and_median(pd.Series({"a": 3, "b": 1, "c": 2})) == ("b", "c")


def test_winners_names_runs_of_the_same_methods():
    table = pd.DataFrame(
        {
            "method": ["ridge", "ensemble_mean"] * 3,
            "shared": [0.0, 0.0, 0.1, 0.1, 0.2, 0.2],
            "rmsd": [1.0, 1.005, 1.0, 1.009, 1.1, 1.0],  # within 1 %, within 1 %, then not
        }
    )
    assert (
        winners(table, "rmsd", "shared") == "ridge, ensemble mean at 0 to 0.1; ensemble mean at 0.2"
    )


def test_nearest_to_truth_ranks_by_distance_and_marks_level_networks():
    rates = xr.DataArray(
        [[2.0, -2.0], [1.0, -2.0], [2.0, 0.0], [2.0, -1.9]],
        coords={"dataset": ["truth", "ynet_a", "ynet_b", "ridge"], "part": ["x", "y"]},
        dims=("dataset", "part"),
    )
    found = nearest_to_truth(rates)
    assert found.index.tolist() == ["ridge", "ynet_a", "ynet_b"]
    # mean square of the truth 4; of the differences 0.5, 2 and 0.005
    np.testing.assert_allclose(found["distance"], [0.05, 0.5, 1.0])
    np.testing.assert_allclose(found["skill"], [1 - 0.005 / 4, 1 - 0.5 / 4, 1 - 2 / 4])
    assert found["level"].tolist() == ["–", "yes", "no"]
    assert nearest_to_truth(rates.drop_sel(dataset="truth")).empty


def test_nearest_to_truth_without_a_network_marks_nobody():
    rates = xr.DataArray(
        [[2.0, -2.0], [1.0, -2.0], [2.0, -1.9]],
        coords={"dataset": ["truth", "climatology", "ridge"], "part": ["x", "y"]},
        dims=("dataset", "part"),
    )
    found = nearest_to_truth(rates)
    assert found.index.tolist() == ["ridge", "climatology"]
    np.testing.assert_allclose(found["distance"], [0.05, 0.5])
    assert found["level"].tolist() == ["–", "–"]
    assert nearest_to_truth(rates.sel(dataset=["truth"])).empty
