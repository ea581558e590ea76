"""Findings by claim, worked by hand on few cells.

Those of the seasons and of the validation lie at 30 and 40 N, 95 and 105 E. Their areas are as the
cosines of their latitudes: of the whole each of the southern two has
cos 30 / (2 (cos 30 + cos 40)) = 26.53 %, each of the northern two 23.47 %.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore import findings
from smcore.claims import judged
from smcore.config import Region, paper_claims
from smcore.findings import (
    drying_belt,
    period_findings,
    phase_shift,
    season_findings,
    share_with_error,
    training_findings,
    trend_findings,
    validation_findings,
)
from smcore.grids import box_mask
from smcore.seasons import PARTS, SEASONS

LAT, LON = [30.0, 40.0], [95.0, 105.0]
STUDY = SimpleNamespace(
    study_area=SimpleNamespace(name="Here"),
    regions={
        "north": Region(south=35, north=54, west=100, east=137),
        "south": Region(south=18, north=35, west=100, east=137),
        "west": Region(south=18, north=54, west=71, east=100),
    },
)
STATIC = xr.Dataset(
    {
        "study_area": (("lat", "lon"), np.ones((2, 2), bool)),
        "elevation": (("lat", "lon"), [[500.0, 100.0], [4000.0, 800.0]]),
    },
    coords={"lat": LAT, "lon": LON},
)


@pytest.fixture
def claimed(monkeypatch):
    """A function that gives claims of the paper other values."""

    def change(**claims):
        changed = {name: one | claims.get(name, {}) for name, one in paper_claims().items()}
        monkeypatch.setattr(findings, "paper_claims", lambda: changed)

    return change


def agreement(found):
    return {name: one["agrees"] for name, one in found.items()}


# Training


def test_training_findings_name_the_first_epoch_within_one_percent_of_the_lowest_loss():
    # the lowest is 2.00 in epoch 4; 2.02 in epoch 2 is 1 % above it, 2.03 in epoch 1 is not
    history = pd.DataFrame({"validation": [2.03, 2.02, 2.5, 2.0, 2.01]}, index=[1, 2, 3, 4, 5])
    (name, found), *others = training_findings(history).items()
    assert (name, found["found"], found["agrees"]) == ("loss-converged", "epoch 2", None)
    assert not others and name in paper_claims()


def test_training_findings_count_epoch_0_of_an_anchored_network():
    history = pd.DataFrame({"validation": [1.0, 1.5]}, index=[0, 1])
    assert training_findings(history)["loss-converged"]["found"] == "epoch 0"


# Trends


ROWS, COLUMNS = [44.0, 38.0, 30.0, 24.0], [75.0, 81.0, 105.0, 111.0]


def annual_slopes(*scenarios, names=("ssp126", "ssp585")):
    """Maps of 4 by 4 cells: 44, 38 N are north, 30, 24 N south; 75, 81 E west, the others east."""
    coords = {"experiment_id": list(names), "lat": ROWS, "lon": COLUMNS}
    return xr.DataArray(np.array(scenarios, float), coords, ("experiment_id", "lat", "lon"))


WEAK = [[0.05, 0.03, 0.06, 0.06], [0.05, 0.02, 0.06, 0.02], [0, 0, -0.4, -0.2], [0, 0, -0.1, -0.1]]
STRONG = [[-0.05, 0.0, 0.01, 0.01], [-0.05, 0, 0.0, 0.02], [0, 0, -0.1, -0.1], [0, 0, -0.3, -0.5]]


def trends_of(product, *sources):
    both = xr.concat(
        sources or [product], xr.Variable("source_id", list("ab")[: len(sources) or 1])
    )
    area = xr.ones_like(product[0])
    return trend_findings(product, both, area, area > 0, STUDY, baseline=("2015", "2100"))


def test_trend_findings_worked_by_hand():
    product = annual_slopes(WEAK, STRONG)
    found = trends_of(product, product, -product)
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
    assert found["xinjiang-ssp585"]["note"].endswith("read as between 40 and 55 %")
    # the lowest parallel of the south moves from 30 to 24 N, and in the reverse the other way
    assert found["drying-belt-shifts"]["found"] == "SSP1-2.6 30.0N, SSP5-8.5 24.0N"
    assert found["drying-belt-shifts"]["agrees"] is True
    assert found["drying-belt-shifts"]["interval"] == "shift, sources -6 to +6 degrees"


def test_more_than_half_is_more_than_half_in_every_finding():
    """Half of the cells of the west and the south, half of the north and of southern Xinjiang."""
    southern = STATIC.assign(study_area=STATIC["study_area"] & (STATIC["lat"] == 30))
    one_of_two = [[[0.2, 0.05], [0.2, 0.2]]] * 2
    half = validation(southern, yearly(STATIC, ynet_x=one_of_two, ensemble_mean=one_of_two))
    assert (half["mae-ensemble"]["found"], half["mae-ensemble"]["agrees"]) == ("50.0 %", False)
    assert half["mae-ensemble"]["note"] == "counts as agreement: above 50 %"
    wet = [[0, 0, 0.06, 0.02], [0.05, 0.02, 0.06, 0.02], [0, 0, -0.4, -0.2], [0, 0, -0.1, -0.1]]
    found = trends_of(annual_slopes(wet, STRONG))
    for name in ("north-wetting", "xinjiang-ssp126"):
        assert (found[name]["found"], found[name]["agrees"]) == ("SSP1-2.6 50 %", False)
        assert found[name]["note"].endswith("read as above 50 %")


def test_trend_findings_of_the_opposite_world_differ():
    found = trends_of(-annual_slopes(WEAK, STRONG))
    assert not any(one["agrees"] for one in found.values())


def test_trend_findings_leave_out_claims_of_scenarios_that_are_missing():
    found = trends_of(annual_slopes(WEAK, names=["ssp245"]))
    assert set(found) == {"south-dry-north-wet", "northwest-turn"}
    assert found["northwest-turn"]["agrees"] is False  # one scenario cannot turn


@pytest.mark.parametrize(
    ("away", "open_claims"),
    [
        ("south", {"south-dry-north-wet", "drying-belt-shifts"}),
        ("north", {"south-dry-north-wet"}),
        ("west", {"northwest-turn"}),
    ],
)
def test_trend_findings_do_not_judge_a_box_without_cells(away, open_claims):
    product = annual_slopes(WEAK, STRONG)
    inside = ~box_mask(product, STUDY.regions[away])
    sources = product.expand_dims(source_id=["a"])
    area = xr.ones_like(product[0])
    found = trend_findings(product, sources, area, inside, STUDY, baseline=("2015", "2100"))
    assert open_claims == {name for name, one in found.items() if one["agrees"] is None}
    assert all(("no cells" in found[name]["reason"]) == (name in open_claims) for name in found)


def test_trend_findings_compare_with_the_numbers_of_the_claims(claimed):
    claimed(
        # above 0.01 both western cells of 38 N; below -0.06 none of four; 75 % is not above 80
        **{"xinjiang-ssp126": {"limit": 0.01}, "xinjiang-ssp585": {"limit": -0.06}},
        **{"north-wetting": {"agrees": [80, 100]}},
    )
    found = trends_of(annual_slopes(WEAK, STRONG))
    assert found["xinjiang-ssp126"]["found"] == "SSP1-2.6 100 %"
    assert found["xinjiang-ssp126"]["agrees"] is True
    assert found["xinjiang-ssp585"]["found"] == "SSP5-8.5 0 %"
    assert found["xinjiang-ssp585"]["agrees"] is False
    assert found["north-wetting"]["agrees"] is False


def test_drying_belt_takes_no_parallel_with_less_than_5_degrees_of_land():
    slope = xr.DataArray(
        [[-0.9, 0, 0], [-0.2, -0.2, -0.2]],
        coords={"lat": [33.0, 30.0], "lon": [100.0, 104, 108]},
        dims=("lat", "lon"),
    )
    part = xr.ones_like(slope, bool)
    assert float(drying_belt(slope, part)) == 33  # -0.3 against -0.2
    part[0, 1:] = False  # 4 degrees are left
    assert float(drying_belt(slope, part)) == 30


# Seasons


def slopes(sign):
    """Of a product, of a source that is the same, and of one with all signs turned."""
    spring = [[[-0.1, 0.1], [0.1, 0.1]], [[-0.1, -0.1], [-0.1, 0.1]]]
    summer = [[[0.04, 0.04], [0.04, -0.1]], [[0.04, 0.04], [0.04, -0.05]]]
    autumn = [[[-0.06, 0.01], [-0.06, 0.01]], [[-0.06, 0.01], [-0.06, 0.02]]]
    winter = np.full((2, 2, 2), -0.1)
    values = sign * np.stack([spring, summer, autumn, winter], axis=1)
    return xr.DataArray(
        np.stack([values, values, -values]),
        coords={
            "source_id": ["product", "same", "turned"],
            "experiment_id": ["ssp126", "ssp585"],
            "season": list(SEASONS),
            "lat": LAT,
            "lon": LON,
        },
        dims=("source_id", "experiment_id", "season", "lat", "lon"),
    )


def seasons_of(sign):
    return season_findings(slopes(sign), STATIC, STUDY, baseline=("2015", "2100"))


def test_season_findings_are_those_worked_by_hand():
    found = seasons_of(1)
    assert agreement(found) == {
        "spring-area": False,  # all but the north under SSP5-8.5: 76.5 %, not 62.4
        "winter-south": False,  # the one cell of the south: 100 %, not 47.91
        "summer-wettest": True,  # 23.5 % dry; spring has 26.5 and 76.5, autumn 50, winter 100
        "winter-driest": True,  # all dries, the south by 0.1
        "summer-wetting": True,  # 0.04 where it wets, above 0.028
        "autumn-slower": True,  # 0.01 / 0.04 under SSP1-2.6, below a half
        # of -0.1, 0.04, 0.04, 0.04 the lowest per cent is -0.1 + 0.03 * 0.14 = -0.0958
        "summer-drying": True,
        "autumn-west": True,  # -0.06, beyond -0.03
        # without the high land of the west: 26.53 of 76.53, then 53.06 of 76.53
        "spring-grows": True,
        "conclusion-north-autumn": True,  # the north: from -0.1 to -0.05, from 0.01 to 0.02
    }
    assert found["spring-area"]["found"] == "SSP5-8.5 76.5 %"
    assert found["spring-grows"]["found"] == "SSP1-2.6 35 %, SSP5-8.5 69 %"
    assert found["autumn-slower"]["found"] == "SSP1-2.6 0.25"
    assert found["summer-drying"]["found"] == "SSP1-2.6 -0.096, SSP5-8.5 -0.047"
    assert found["conclusion-north-autumn"]["found"] == "JJA +0.050, SON +0.010"
    assert found["spring-grows"]["interval"] == (
        "sources and scenarios 31 to 69 %; holds in 1 of 2 sources"
    )


def test_season_findings_turn_with_the_signs():
    assert agreement(seasons_of(-1)) == {
        "spring-area": False,  # 23.5 %
        "winter-south": False,  # none
        "summer-wettest": False,  # winter dries nowhere
        "winter-driest": False,
        "summer-wetting": True,  # the north: 0.1 and 0.05
        "autumn-slower": False,  # 0.06 / 0.1
        "summer-drying": False,  # nothing below -0.04
        "autumn-west": False,  # the west does not dry at all
        "spring-grows": False,  # from 65 to 31 %
        "conclusion-north-autumn": False,
    }


def test_season_findings_compare_with_the_numbers_of_the_claims(claimed):
    claimed(**{"spring-area": {"value": 75}, "winter-south": {"value": 99}})
    found = seasons_of(1)
    assert found["spring-area"]["agrees"] and found["winter-south"]["agrees"]
    claimed(
        **{"summer-wetting": {"limit": 0.05}, "summer-drying": {"value": -0.2}},
        **{"autumn-slower": {"limit": 0.2}, "autumn-west": {"value": -0.07}},
    )
    found = seasons_of(1)
    for name in ("summer-wetting", "summer-drying", "autumn-slower", "autumn-west"):
        assert not found[name]["agrees"], name


def test_season_findings_leave_out_what_one_scenario_cannot_say():
    found = season_findings(slopes(1)[:, :1], STATIC, STUDY, baseline=("2015", "2100"))
    assert not {"spring-grows", "conclusion-north-autumn"} & found.keys()
    assert "spring-area" not in found  # it is about SSP5-8.5


def test_season_findings_agree_with_the_shares_of_the_paper():
    """With two cells more, at 115 E: the shares of three columns are 17.69 and 15.64 % a cell."""
    more = slopes(1).sel(lon=[105.0]).assign_coords(lon=[115.0])
    more.loc[{"season": "MAM", "lat": 30.0}] = 0.1
    more.loc[{"season": "MAM", "lat": 40.0}] = -0.1
    more.loc[{"season": "DJF"}] = -0.01
    fill = {"study_area": True, "elevation": 100.0}
    static = STATIC.reindex(lon=[95.0, 105, 115], fill_value=fill)
    found = season_findings(
        xr.concat([slopes(1), more], "lon"), static, STUDY, baseline=("2015", "2100")
    )
    # two cells of each parallel dry in spring, 2 (17.69 + 15.64), within 5 points of 62.4; in
    # winter one of two in the south reaches -0.05, within 5 points of 47.91
    assert found["spring-area"]["found"] == "SSP5-8.5 66.7 %"
    assert found["winter-south"]["found"] == "SSP5-8.5 50.0 %"
    assert found["spring-area"]["agrees"] is found["winter-south"]["agrees"] is True
    assert found["winter-south"]["note"].startswith("margin 5 points; SSMI by its own standard")
    assert found["winter-south"]["region"] == "Here, 18–35 N, 100–137 E"
    # (-0.1 - 0.01) / 2
    assert (
        "mean winter slope, 18–35 N, 100–137 E: SSP1-2.6 -0.055" in found["winter-driest"]["note"]
    )


def test_winter_is_driest_only_if_the_south_dries_in_it():
    wet = slopes(1)
    wet.loc[{"season": "DJF", "lat": 30.0, "lon": 105.0, "experiment_id": "ssp585"}] = 0.01
    found = season_findings(wet, STATIC, STUDY, baseline=("2015", "2100"))["winter-driest"]
    # 73.5 % dry in winter, less than the 76.5 of spring under SSP5-8.5
    assert (found["found"], found["agrees"]) == ("SSP1-2.6 DJF, SSP5-8.5 MAM", False)
    wet.loc[{"season": "MAM"}] = 0.1
    found = season_findings(wet, STATIC, STUDY, baseline=("2015", "2100"))["winter-driest"]
    assert (found["found"], found["agrees"]) == ("SSP1-2.6 DJF, SSP5-8.5 DJF", False)


@pytest.mark.parametrize(
    ("claim", "season", "slope", "words"),
    [
        ("summer-wettest", "JJA", -0.04, "SSP1-2.6 MAM, SSP5-8.5 SON"),
        ("summer-wetting", "JJA", 0.02, "SSP1-2.6 0.020, SSP5-8.5 0.020"),
        ("summer-drying", "JJA", -0.07, "SSP1-2.6 -0.070, SSP5-8.5 -0.070"),
        ("autumn-slower", "SON", 0.03, "SSP1-2.6 0.75"),  # 0.03 / 0.04
        ("autumn-west", "SON", -0.02, "SSP5-8.5 -0.020"),
        ("spring-grows", "MAM", -0.01, "SSP1-2.6 100 %, SSP5-8.5 100 %"),  # no more than before
        ("conclusion-north-autumn", "SON", 0.01, "JJA +0.050, SON +0.000"),
    ],
)
def test_season_findings_differ_where_one_season_is_the_same_everywhere(
    claim, season, slope, words
):
    one = slopes(1)
    one.loc[{"season": season}] = slope
    found = season_findings(one, STATIC, STUDY, baseline=("2015", "2100"))[claim]
    assert (found["found"], found["agrees"]) == (words, False)


def test_season_findings_of_a_scenario_too_few_are_not_judged():
    found = judged(seasons_of(1), paper_claims().values(), ["ssp126", "ssp585"])
    # the others are about ssp126 with ssp245, ssp370 with ssp585, or all four
    assert {name for name, one in found.items() if one["agrees"] is not None} == {
        *("spring-area", "winter-south"),
    }
    assert found["autumn-west"]["found"] == "SSP5-8.5 -0.060"
    assert found["autumn-west"]["lacking"] == ["ssp370"]


@pytest.mark.parametrize(
    ("away", "open_claims"),
    [
        ("south", {"winter-south", "winter-driest"}),
        ("north", {"conclusion-north-autumn"}),
        ("west", {"autumn-west"}),
    ],
)
def test_season_findings_do_not_judge_a_box_without_cells(away, open_claims):
    static = STATIC.assign(study_area=~box_mask(STATIC, STUDY.regions[away]))
    found = season_findings(slopes(1), static, STUDY, baseline=("2015", "2100"))
    assert found.keys() == seasons_of(1).keys()
    assert open_claims == {name for name, one in found.items() if one["agrees"] is None}
    for name, one in found.items():
        assert ("no cells" in one["reason"]) == (name in open_claims)
        assert (one["interval"] == "") == (name in open_claims)


# Periods


def rates():
    """Change rates of one that fits every claim, and of one that fits none."""
    shape = {"region": ["north", "south"], "part": list(PARTS), "period": list("abc")}
    shape["experiment_id"] = ["ssp126", "ssp585"]
    fits = xr.DataArray(np.ones([len(one) for one in shape.values()]), shape, list(shape))
    other = fits.copy()

    def give(array, region, **parts):
        for part, value in parts.items():
            array.loc[{"region": region, "part": part}] = value

    growing = np.array([[1, -1], [2, -2], [3, -3.0]])  # period, experiment_id
    give(fits, "north", annual=growing, MAM=-5, JJA=6, SON=1, DJF=-2, May=-14, Aug=22)
    give(fits, "south", annual=growing, MAM=1, JJA=4, SON=-2, DJF=3)
    give(fits, "south", Jun=3, Jul=4, Aug=5, Dec=-1, Jan=-1)
    give(other, "north", annual=growing, MAM=5, JJA=6, SON=1, DJF=-2, May=-10, Aug=30)
    give(other, "south", annual=growing[::-1], MAM=1, JJA=4, SON=-5, DJF=3)
    give(other, "south", Jun=3, Jul=4, Aug=5, Dec=-1, Jan=-1, Apr=9)
    return fits, other


def together(*datasets):
    return xr.concat(datasets, xr.Variable("source_id", ["product", *"ab"][: len(datasets)]))


IDS = {"rate-grows", "north-may", "north-august", "north-seasons", "south-seasons", "south-months"}


def test_period_findings_are_those_worked_by_hand():
    fits, other = rates()
    found = period_findings(together(fits, fits, other), STUDY)
    assert found.keys() == IDS and all(agreement(found).values())
    assert found["rate-grows"]["found"] == "4 of 4"  # two regions, two scenarios
    assert found["north-may"]["found"] == "-14.0 %"  # within 3 of -14.85
    assert found["north-august"]["found"] == "+22.0 %"  # within 3 of 22.36
    assert found["north-seasons"]["found"] == "MAM -5.0 %, JJA +6.0 %, SON +1.0 %, DJF -2.0 %"
    assert "(MAM 5.0 %, JJA 6.0 %, SON 1.0 %, DJF 2.0 %)" in found["north-seasons"]["note"]
    assert found["south-seasons"]["found"] == "MAM +1.0 %, JJA +4.0 %, SON -2.0 %, DJF +3.0 %"
    assert all(one["interval"].endswith("holds in 1 of 2 sources") for one in found.values())


def test_period_findings_of_one_that_fits_none():
    fits, other = rates()
    found = period_findings(together(other, fits, fits), STUDY)
    assert found.keys() == IDS and not any(agreement(found).values())
    assert found["rate-grows"]["found"] == "2 of 4"  # the south shrinks
    assert all(one["interval"].endswith("holds in 2 of 2 sources") for one in found.values())


def test_period_findings_compare_with_the_numbers_of_the_claims(claimed):
    fits, other = rates()
    claimed(**{"north-may": {"value": -9.0}, "north-august": {"value": 29.0}})
    found = period_findings(together(other, fits), STUDY)
    assert found["north-may"]["agrees"] and found["north-august"]["agrees"]


def test_december_has_to_fall_below_the_past_in_each_later_period():
    fits, other = rates()
    fits.loc[{"region": "south", "part": "Dec", "period": "c", "experiment_id": "ssp126"}] = 0.5
    assert not period_findings(together(fits, other), STUDY)["south-months"]["agrees"]


@pytest.mark.parametrize("turned", ["MAM", "JJA"])
def test_north_seasons_need_the_sign_as_well_as_the_size(turned):
    fits, other = rates()
    fits.loc[{"region": "north", "part": turned}] *= -1
    found = period_findings(together(fits, other), STUDY)["north-seasons"]
    spring, summer = {"MAM": ("+5.0", "+6.0"), "JJA": ("-5.0", "-6.0")}[turned]
    assert found["found"] == f"MAM {spring} %, JJA {summer} %, SON +1.0 %, DJF -2.0 %"
    assert "(MAM 5.0 %, JJA 6.0 %, SON 1.0 %, DJF 2.0 %)" in found["note"]  # sizes, as before
    assert found["agrees"] is False


def test_the_sizes_of_seasons_are_means_of_absolute_changes():
    fits, other = rates()
    fits.loc[{"region": "south", "part": "SON"}] = [[4, -4], [1, -1], [1, -1]]  # mean size 2
    found = period_findings(together(fits, other), STUDY)["south-seasons"]
    assert found["found"] == "MAM +1.0 %, JJA +4.0 %, SON +0.0 %, DJF +3.0 %"  # with their signs
    assert "(MAM 1.0 %, JJA 4.0 %, SON 2.0 %, DJF 3.0 %)" in found["note"]
    assert found["agrees"] is True
    fits.loc[{"region": "south", "part": "SON"}] = [[4, -4], [4, -4], [1, -1]]  # equal to DJF
    found = period_findings(together(fits, other), STUDY)["south-seasons"]
    assert "SON 3.0 %" in found["note"] and found["agrees"] is False


def test_a_south_that_dries_is_printed_with_its_sign():
    fits, other = rates()
    falling = xr.where(fits["region"] == "south", -abs(fits), fits).transpose(*fits.dims)
    found = period_findings(together(falling, fits, other), STUDY)["south-seasons"]
    assert found["found"] == "MAM -1.0 %, JJA -4.0 %, SON -2.0 %, DJF -3.0 %"
    # of the sources the lowest is -5.0, SON of the second, the highest 4.0, JJA of both
    assert found["interval"] == "sources -5.0 to +4.0 %; holds in 1 of 2 sources"


def test_south_months_are_means_over_scenarios_and_periods():
    fits, other = rates()
    first = {"region": "south", "period": "a", "experiment_id": "ssp126"}
    fits.loc[{**first, "part": ["Dec", "Jan"]}] = 5  # (5 - 5) / 6; the first period may be wetter
    found = period_findings(together(fits, other), STUDY)["south-months"]
    assert found["found"].startswith("Jan +0.0 %, Feb +1.0 %")
    assert "Jun +3.0 %, Jul +4.0 %, Aug +5.0 %, Sep +1.0 %" in found["found"]
    assert found["agrees"] is True
    fits.loc[{"region": "south", "part": "Sep"}] = 3  # as high as June
    assert period_findings(together(fits, other), STUDY)["south-months"]["agrees"] is False


def test_may_and_august_are_the_extremes_over_scenarios_and_periods():
    fits, other = rates()
    at = {"region": "north", "period": "b", "experiment_id": "ssp126"}
    fits.loc[{**at, "part": "May"}] = -17.86  # 3.01 below the paper's
    fits.loc[{**at, "part": "Aug"}] = 25.35  # 2.99 above
    found = period_findings(together(fits, other, other), STUDY)
    assert (found["north-may"]["found"], found["north-may"]["agrees"]) == ("-17.9 %", False)
    assert (found["north-august"]["found"], found["north-august"]["agrees"]) == ("+25.4 %", True)
    assert found["north-may"]["interval"] == ("sources -10.0 to -10.0 %; holds in 0 of 2 sources")
    assert found["north-may"]["note"].startswith("margin 3 points; the lowest over")


def test_rates_that_grow_are_counted_by_region_and_scenario():
    fits, other = rates()
    # the south under SSP5-8.5 grows, then not: 3 of 4
    fits.loc[{"region": "south", "part": "annual", "experiment_id": "ssp585"}] = [-1, -2, 2]
    found = period_findings(together(fits, other), STUDY)["rate-grows"]
    assert (found["found"], found["agrees"]) == ("3 of 4", False)
    assert found["interval"] == "sources 2 to 2 of 4; holds in 0 of 1 sources"


def test_period_findings_leave_out_what_the_rates_lack():
    both = together(*rates())
    one = period_findings(both.isel(period=[0]), STUDY)
    assert one.keys() == IDS - {"rate-grows", "south-months"}
    assert period_findings(both.sel(experiment_id=["ssp585"]), STUDY).keys() == IDS - {
        "south-months"
    }
    north = period_findings(both.sel(region=["north"]), STUDY)
    assert north.keys() == {"north-may", "north-august", "north-seasons"}
    south = period_findings(both.sel(region=["south"]), STUDY)
    assert south.keys() == {"south-seasons", "south-months"}


def test_period_findings_of_two_scenarios_are_not_judged():
    found = judged(
        period_findings(together(*rates()), STUDY), paper_claims().values(), ["ssp126", "ssp585"]
    )
    assert found.keys() == IDS
    for one in found.values():
        assert (one["agrees"], one["lacking"]) == (None, ["ssp245", "ssp370"])


def test_period_findings_do_not_judge_a_region_without_cells():
    fits, other = rates()
    both = together(fits, other)
    found = period_findings(both.where(both["region"] != "south"), STUDY)
    assert {name for name, one in found.items() if one["agrees"] is None} == {
        *("rate-grows", "south-seasons", "south-months"),
    }
    assert "no cells" in found["south-months"]["reason"]


# Validation


def yearly(grid, **errors):
    """Mean absolute errors of 2008 and 2009 by dataset."""
    return xr.DataArray(
        np.array(list(errors.values())),
        coords={
            **{"dataset": list(errors), "year": [2008, 2009]},
            **{"lat": grid["lat"], "lon": grid["lon"]},
        },
        dims=("dataset", "year", "lat", "lon"),
    )


def validation(static=STATIC, annual=None, **changes):
    """Findings on a product that is better than everything, but for the `changes`."""
    if annual is None:
        of_product, of_mean = [[0.03, 0.05], [0.07, 0.05]], [[0.2, 0.2], [0.05, 0.05]]
        annual = yearly(STATIC, ynet_x=[of_product] * 2, ensemble_mean=[of_mean] * 2)
    names = ["ynet_x", "ensemble_mean", "A", "B"]
    table = {
        "correlation": [0.95, 0.85, 0.7, 0.6],
        "ubrmsd_ratio": [0.3, 0.5, 0.9, 0.8],
        "std_ratio": [1.0, 0.6, 1.05, 0.95],
    }
    table |= {name: changes[name] for name in table.keys() & changes.keys()}
    statistics = xr.Dataset({of: ("dataset", row) for of, row in table.items()}, {"dataset": names})
    four = [[0.05, 0.1], [0.06, 0.12], [0.05, 0.1], [changes.get("r", 0.9), 0.8]]
    scores = xr.Dataset(
        {"value": (("score", "dataset"), four)},
        coords={"score": ["mae", "rmsd", "ubrmsd", "correlation"], "dataset": names[:2]},
    )
    year = np.cos(2 * np.pi * np.arange(12) / 12)
    late = np.roll(year, changes.get("late", 0)) + 0.1
    cycles = xr.DataArray(
        [[year, year], [late, np.roll(year, 3)]],
        coords={
            "dataset": ["reference", "ensemble_mean"],
            "site": ["humid", "Tibetan Plateau"],
            "month": range(1, 13),
        },
        dims=("dataset", "site", "month"),
    )
    cycles = cycles.where(cycles["site"] != changes.get("no_series"))
    gap = xr.Dataset({"low": -0.06, "high": -0.04})
    return validation_findings(STUDY, "ynet_x", scores, statistics, annual, cycles, static, gap=gap)


def test_validation_findings_are_those_worked_by_hand():
    found = validation()
    assert agreement(found) == {
        "mae-area": False,  # one southern cell below 0.04: 26.5 %, not 70.14
        "mae-plateau": False,  # the one cell above 3000 m has 0.07: 100 %, not a few
        "mae-ensemble": True,  # of the west and the south 53.06 of 76.53: 69.3 %
        "mae-inner-mongolia": None,  # none of the four cells lies there
        "better-than-ensemble": True,
        "better-than-all": True,
        "taylor-r": True,  # the best source has 0.7
        "taylor-ubrmsd": True,  # the best has 0.8
        "taylor-second": True,
        "taylor-amplitude": False,  # 0.6 against the mean of 1.05 and 0.95
        "phase": True,
    }
    assert found["mae-area"]["found"] == "26.5 %"
    assert found["mae-area"]["interval"] == "years 26.5 to 26.5 %"
    assert found["mae-ensemble"]["found"] == "69.3 %"
    assert found["better-than-ensemble"]["interval"] == (
        "difference in MAE −60.00 to −40.00 10⁻³ m³ m⁻³ (years)"
    )
    assert found["taylor-r"]["interval"] == "sources 0.60 to 0.70"
    assert found["taylor-amplitude"]["found"] == "0.60 against 1.00"
    assert found["phase"]["found"] == "humid: shifted by 0 months, bias +0.100 m³ m⁻³"


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"r": 0.7}, "better-than-ensemble", "better in 3 of 4"),
        ({"std_ratio": [1.5, 0.6, 1.05, 0.9]}, "better-than-all", "YNet (x), YNet (x), A"),
        ({"correlation": [0.95, 0.85, 0.9, 0.6]}, "taylor-r", "0.90"),
        ({"ubrmsd_ratio": [0.3, 0.5, 0.9, 0.55]}, "taylor-ubrmsd", "0.55"),
        ({"correlation": [0.95, 0.85, 0.9, 0.6]}, "taylor-second", "1 of 2 sources are behind"),
        # behind the ensemble mean, but that is not behind the product
        ({"correlation": [0.8, 0.85, 0.7, 0.6]}, "taylor-second", "2 of 2 sources are behind"),
        ({"late": 2}, "phase", "humid: shifted by 2 months"),
    ],
)
def test_validation_findings_turn_with_one_number(changes, name, words):
    found = validation(**changes)[name]
    assert found["agrees"] is False and words in found["found"]


def test_validation_findings_compare_with_the_numbers_of_the_claims(claimed):
    box = {"south": 25, "north": 35, "west": 100, "east": 110}  # holds the cell with 0.05
    claimed(
        **{"mae-area": {"value": 30}, "mae-plateau": {"agrees": [90, np.inf]}},
        **{"mae-ensemble": {"agrees": [80, 100]}, "mae-inner-mongolia": {"boxes": {"here": box}}},
        **{"taylor-r": {"agrees": [-1, 0.65]}, "taylor-ubrmsd": {"agrees": [0.85, 9]}},
    )
    found = agreement(validation())
    assert found["mae-area"] and found["mae-plateau"] and found["mae-inner-mongolia"]
    assert not found["mae-ensemble"] and not found["taylor-r"] and not found["taylor-ubrmsd"]


@pytest.mark.parametrize("months", range(-5, 6))
def test_phase_shift_is_the_shift_that_was_made(months):
    year = np.exp(np.cos(2 * np.pi * np.arange(12) / 12))
    assert phase_shift(np.roll(year, months), year) == months


def test_phase_is_not_judged_without_a_series():
    found = validation(no_series="humid")["phase"]
    assert (found["found"], found["agrees"]) == ("", None)
    assert "no site" in found["reason"]
    # that of the plateau is none of the three of the claim
    assert validation(no_series="Tibetan Plateau")["phase"]["agrees"] is True


MAPS = xr.Dataset(
    {
        "study_area": (("lat", "lon"), [[True] * 4, [True, False, True, True]]),
        "elevation": (("lat", "lon"), [[4000.0, 0, 0, 0], [5000.0, 0, 0, 0]]),
    },
    coords={"lat": [36.0, 46.0], "lon": [102.0, 107.0, 112.0, 117.0]},
)
BOXES = {
    "north": Region(south=40, north=50, west=105, east=120),
    "south": Region(south=30, north=40, west=105, east=120),
    "west": Region(south=30, north=50, west=100, east=105),
}


def maps_of(monkeypatch, first, second, mean):
    """Findings on the maps of two years of a product and of one map of the ensemble mean.

    The cell at 46 N, 107 E is outside the study area, that at 46 N, 112 E has no value in one
    year: there are four of cos 36 = 0.8090 and two of cos 46 = 0.6947, together 4.6254.
    """
    monkeypatch.setattr(STUDY, "regions", BOXES)
    gap = [mean[0], [*mean[1][:2], np.nan, mean[1][3]]]
    annual = yearly(MAPS, ynet_x=[first, second], ensemble_mean=[mean, gap])
    return validation(MAPS, annual)


def test_validation_findings_on_maps_agree(monkeypatch):
    first = [[0.03, 0.03, 0.03, 0.022], [0.03, 9, 9, 0.05]]
    second = [[0.03, 0.03, 0.03, 0.082], [0.03, 9, 9, 0.05]]
    found = maps_of(monkeypatch, first, second, [[0.12, 0.12, 0.08, 0.08], [0.12, 9, 9, 0.0]])
    # of the mean of the years, 0.052 in the last cell of 36 N: (3 0.8090 + 0.6947) / 4.6254. Of
    # draws of the first year alone that cell is below 0.04: (4 0.8090 + 0.6947) / 4.6254
    assert found["mae-area"]["found"] == "67.5 %"
    assert found["mae-area"]["interval"] == "years 67.5 to 85.0 %"
    assert found["mae-area"]["note"] == "counts as agreement: between 65.14 and 75.14 %"
    assert found["mae-plateau"]["found"] == "0.0 %"
    # 46 N, 117 E; and the middle of 0.03 and 0.052 at 36 N, 112 and 117 E
    assert found["mae-inner-mongolia"]["found"] == (
        "eastern Inner Mongolia 0.050 m³ m⁻³; Henan and Hebei 0.041 m³ m⁻³"
    )
    # west or south: (2 0.8090 + 0.6947) / (4 0.8090 + 0.6947)
    assert found["mae-ensemble"]["found"] == "58.8 %"
    assert found["mae-ensemble"]["region"] == "west and south of Here"
    for name in ("mae-area", "mae-plateau", "mae-inner-mongolia", "mae-ensemble"):
        assert found[name]["agrees"] is True


def test_validation_findings_on_maps_differ(monkeypatch):
    errors = [[0.07, 0.05, 0.03, 0.03], [0.05, 9, 9, 0.05]]
    found = maps_of(monkeypatch, errors, errors, [[0.12, 0.1, 0.08, 0.08], [0.08, 9, 9, 0.9]])
    assert found["mae-area"]["found"] == "35.0 %"  # 2 0.8090 / 4.6254
    assert found["mae-plateau"]["found"] == "53.8 %"  # 0.8090 / (0.8090 + 0.6947)
    assert found["mae-ensemble"]["found"] == "20.6 %"  # 0.8090 / 3.9307; 0.1 is not above it
    assert "Henan and Hebei 0.030" in found["mae-inner-mongolia"]["found"]  # not from 0.04
    for name in ("mae-area", "mae-plateau", "mae-inner-mongolia", "mae-ensemble"):
        assert found[name]["agrees"] is False


def test_validation_findings_do_not_judge_a_region_without_cells():
    low = validation(STATIC.assign(elevation=STATIC["elevation"] * 0))["mae-plateau"]
    assert (low["agrees"], low["interval"]) == (None, "") and "no cells" in low["reason"]
    north = STATIC.assign(study_area=box_mask(STATIC, STUDY.regions["north"]))
    found = validation(north)
    for name in ("mae-ensemble", "mae-plateau", "mae-inner-mongolia"):
        assert found[name]["agrees"] is None and "no cells" in found[name]["reason"]
    assert found["mae-area"]["found"] == "0.0 %" and found["mae-area"]["agrees"] is False


def test_share_with_error_counts_years_drawn_by_themselves():
    errors = xr.DataArray(
        [[[0.01, 0.01]], [[0.01, 0.09]]],
        coords={"year": [1, 2], "lat": [0.0], "lon": [0.0, 1]},
        dims=("year", "lat", "lon"),
    )
    area, everywhere = xr.ones_like(errors[0]), errors[0].notnull()
    # means 0.01 and 0.05; of draws of one year twice 0.01 and 0.01, or 0.01 and 0.09
    below = share_with_error(errors, {"threshold": "< 0.04"}, area, everywhere)
    assert below == (50, 50, 100)
    above = share_with_error(errors, {"threshold": "> 0.04"}, area, everywhere)
    assert above == (50, 0, 50)
    nowhere = share_with_error(errors, {"threshold": "> 0.04"}, area, ~everywhere)
    assert np.isnan(nowhere).all()


def test_every_claim_of_the_paper_has_a_function_that_finds_it():
    fits, other = rates()
    found = [
        *training_findings(pd.DataFrame({"validation": [1.0]})),
        *trends_of(annual_slopes(WEAK, STRONG)),
        *seasons_of(1),
        *period_findings(together(fits, other), STUDY),
        *validation(),
    ]
    assert sorted(found) == sorted(paper_claims())
