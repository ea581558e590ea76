from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore import claims, findings
from smcore.config import Region


def test_the_range_over_sources_is_written_with_its_kind():
    values = xr.DataArray([41.2, 77.4, 60], dims="source_id")
    assert claims.between_sources(values, "{:.0f} %") == "sources 41 to 77 %"
    two = xr.DataArray([[-0.02, 0.1], [0.05, 0.0]], dims=("source_id", "experiment_id"))
    assert claims.between_sources(two) == "sources and scenarios -0.020 to +0.100"


def test_names_level_with_the_best_come_with_the_best_first():
    scores = pd.Series({"a": 0.70, "b": 0.50, "c": 0.72})
    assert claims.level_with_best(scores, within=0.03) == ["c", "a"]
    assert claims.level_with_best(scores, within=0.01) == ["c"]


def test_a_statistic_of_each_scenario_is_written_in_order():
    values = xr.DataArray(
        [0.01, -0.0201], coords={"experiment_id": ["ssp126", "ssp585"]}, dims="experiment_id"
    )
    assert claims.by_scenario(values) == "SSP1-2.6 +0.010, SSP5-8.5 -0.020"
    assert claims.by_scenario(values * 1000, "{:.0f} %") == "SSP1-2.6 10 %, SSP5-8.5 -20 %"


def test_median_and_range_of_the_sources_are_written_together():
    values = xr.DataArray(
        [[3.0, 1], [10, 2], [4, 6]],
        coords={"region": ["a", "b"]},
        dims=("source_id", "region"),
    )
    found = claims.median_and_range(values)
    assert found.sel(region="a").item() == "4 (3–10)"
    assert found.sel(region="b").item() == "2 (1–6)"
    assert claims.median_and_range(values, "{:+.1f}").sel(region="b").item() == "+2.0 (+1.0–+6.0)"


@pytest.mark.parametrize(
    ("value", "word"), [(9.9, "below"), (10, "within"), (20, "within"), (21, "above")]
)
def test_beside_range_says_on_which_side_a_number_lies(value, word):
    assert claims.beside_range(value, xr.DataArray([20, 10, 15])) == word


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
    assert claims.closer(skill, other) == word


LAT, LON = [44.0, 38.0, 30.0, 24.0], [75.0, 81.0, 105.0, 111.0]


def slopes(*scenarios, names=("ssp126", "ssp585")):
    """Maps of 4 by 4 cells: 44, 38 N are north, 30, 24 N south; 75, 81 E west, the others east."""
    coords = {"experiment_id": list(names), "lat": LAT, "lon": LON}
    return xr.DataArray(np.array(scenarios, float), coords, ("experiment_id", "lat", "lon"))


STUDY = SimpleNamespace(
    study_area=SimpleNamespace(name="Here"),
    regions={
        "north": Region(south=35, north=54, west=100, east=137),
        "south": Region(south=18, north=35, west=100, east=137),
        "west": Region(south=18, north=54, west=71, east=100),
    },
)
WEAK = [[0.05, 0.03, 0.06, 0.06], [0.05, 0.02, 0.06, 0.02], [0, 0, -0.4, -0.2], [0, 0, -0.1, -0.1]]
STRONG = [[-0.05, 0.0, 0.01, 0.01], [-0.05, 0, 0.0, 0.02], [0, 0, -0.1, -0.1], [0, 0, -0.3, -0.5]]


def found_in(product, *sources):
    both = xr.concat(
        sources or [product], xr.Variable("source_id", list("ab")[: len(sources) or 1])
    )
    area = xr.ones_like(product[0])
    return findings.trend_findings(product, both, area, area > 0, STUDY, baseline=("2015", "2100"))


def test_trend_findings_worked_by_hand():
    product = slopes(WEAK, STRONG)
    found = found_in(product, product, -product)
    # 4 cells each: the south (-0.4 - 0.2 - 0.1 - 0.1) / 4 and (-0.1 - 0.1 - 0.3 - 0.5) / 4, the
    # north (3 0.06 + 0.02) / 4 and (2 0.01 + 0.02) / 4
    one = found["south-dry-north-wet"]
    assert one["found"] == (
        "south: SSP1-2.6 -0.200, SSP5-8.5 -0.250; north: SSP1-2.6 +0.050, SSP5-8.5 +0.010"
    )
    assert one["agrees"] is True
    assert "south: sources and scenarios -0.250 to +0.250" in one["interval"]
    assert one["region"] == "south: Here, 18–35 N, 100–137 E; north: Here, 35–54 N, 100–137 E"
    # west, 8 cells: 0.15 / 8 and -0.1 / 8
    assert found["northwest-turn"]["found"] == "SSP1-2.6 +0.019, SSP5-8.5 -0.013"
    assert found["northwest-turn"]["agrees"] is True
    # above 0.05 in 3 of 4 cells of the north
    assert found["north-wetting"]["found"] == "SSP1-2.6 75 %"
    assert found["north-wetting"]["agrees"] is True
    # southern Xinjiang has the two western cells of 38 N: one above 0.04, which is not more than
    # half; all of Xinjiang has four, of which two are below -0.04, nearly half
    assert found["xinjiang-ssp126"]["found"] == "SSP1-2.6 50 %"
    assert found["xinjiang-ssp126"]["agrees"] is False
    assert found["xinjiang-ssp126"]["interval"] == "sources 0 to 50 %"
    assert found["xinjiang-ssp585"]["found"] == "SSP5-8.5 50 %"
    assert found["xinjiang-ssp585"]["agrees"] is True
    assert found["xinjiang-ssp585"]["note"].startswith(
        "SSMI by its own standard deviation over 2015"
    )
    assert found["xinjiang-ssp585"]["note"].endswith("read as 40 to 55 %")
    # the lowest parallel of the south moves from 30 to 24 N, and in the reverse the other way
    assert found["drying-belt-shifts"]["found"] == "SSP1-2.6 30.0N, SSP5-8.5 24.0N"
    assert found["drying-belt-shifts"]["agrees"] is True
    assert found["drying-belt-shifts"]["interval"] == "shift, sources -6 to +6 degrees"


def test_trend_findings_of_the_opposite_world_differ():
    found = found_in(-slopes(WEAK, STRONG))
    assert not any(one["agrees"] for one in found.values())


def test_trend_findings_leave_out_claims_of_scenarios_that_are_missing():
    found = found_in(slopes(WEAK, names=["ssp245"]))
    assert set(found) == {"south-dry-north-wet", "northwest-turn"}
    assert found["northwest-turn"]["agrees"] is False  # one scenario cannot turn


def test_drying_belt_takes_no_parallel_with_less_than_5_degrees_of_land():
    slope = xr.DataArray(
        [[-0.9, 0, 0], [-0.2, -0.2, -0.2]],
        coords={"lat": [33.0, 30.0], "lon": [100.0, 104, 108]},
        dims=("lat", "lon"),
    )
    part = xr.ones_like(slope, bool)
    assert float(findings.drying_belt(slope, part)) == 33  # -0.3 against -0.2
    part[0, 1:] = False  # 4 degrees are left
    assert float(findings.drying_belt(slope, part)) == 30
