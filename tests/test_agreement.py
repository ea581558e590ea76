from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import theilslopes

from smcore import agreement, claims, grids, ssmi, trends
from smcore.config import Domain, Region
from smcore.seasons import seasonal_mean
from smcore.trends import mann_kendall

CELLS = ("lat", "lon")


def monthly(first=2015, years=30, slopes=(0.001, -0.002), seed=0):
    """theta of one row of cells, each with its own trend per year, a season and noise."""
    time = pd.date_range(f"{first}-01", periods=12 * years, freq="MS")
    noise = np.random.default_rng(seed).normal(0, 0.01, (time.size, 1, len(slopes)))
    season = 0.05 * np.sin(2 * np.pi * time.month.values / 12)
    line = (time.year.values - first)[:, None, None] * np.array(slopes)
    return xr.DataArray(
        0.3 + line + season[:, None, None] + noise,
        coords={"time": time, "lat": [30.0], "lon": 70.0 + np.arange(len(slopes))},
        dims=("time", *CELLS),
        attrs={"units": "m3 m-3"},
    )


def field(values, **coords):
    shape = np.shape(values)[-2:]
    axes = {"lat": 30.0 + np.arange(shape[0]), "lon": 70.0 + np.arange(shape[1])}
    return xr.DataArray(values, coords={**coords, **axes}, dims=(*coords, *CELLS))


# the trend of a cell


def test_trend_of_the_water_content_is_the_slope_of_the_annual_means():
    theta = monthly()
    found = trends.trend(theta, ("2020", "2040"))
    annual = theta.values.reshape(30, 12, 2).mean(axis=1)[5:26]
    for cell in range(2):
        expected = 10 * theilslopes(annual[:, cell], np.arange(21))[0]
        np.testing.assert_allclose(found["slope"][0, cell], expected)
    assert found["slope"].attrs["units"] == "m3 m-3 decade-1"
    assert (found["p_value"] < 1e-3).all()
    assert "p_value" not in trends.trend(theta, ("2020", "2040"), test=False)


def test_trend_of_the_index_is_the_slope_of_the_standardised_months():
    theta = monthly()
    found = trends.trend(theta, ("2015", "2044"), baseline=("2015", "2029"))
    years = theta.values.reshape(30, 12, 2)
    index = (years - years[:15].mean(axis=0)) / years[:15].std(axis=0)
    expected = [10 * theilslopes(series, np.arange(30))[0] for series in index.mean(axis=1).T]
    np.testing.assert_allclose(found["slope"][0], expected)
    assert found["slope"].attrs["units"] == "decade-1"

    given = xr.DataArray(0.02)
    found = trends.trend(
        theta, ("2015", "2044"), baseline=("2015", "2029"), standard_deviation=given
    )
    water = trends.trend(theta, ("2015", "2044"))
    np.testing.assert_allclose(found["slope"], water["slope"] / 0.02)


def test_trend_keeps_sources_and_seasons():
    theta = xr.concat([monthly(seed=0), monthly(seed=1)], "source_id")
    found = trends.trend(theta, ("2015", "2044"), mean=seasonal_mean)
    assert dict(found.sizes) == {"season": 4, "source_id": 2, "lat": 1, "lon": 2}
    winters = theta.values[1].reshape(30, 12, 2)
    december, next_year = winters[:-1, 11], winters[1:, :2]
    winter = (december + next_year.sum(axis=1)) / 3
    expected = 10 * theilslopes(winter[:, 1], np.arange(29))[0]
    np.testing.assert_allclose(found["slope"].sel(season="DJF")[1, 0, 1], expected)


def test_trend_needs_a_baseline_for_a_standard_deviation():
    with pytest.raises(ValueError, match="give its `baseline`"):
        trends.trend(monthly(), ("2015", "2044"), standard_deviation=xr.DataArray(0.1))


# what the sources say


def test_agreement_counts_the_sources_of_the_majoritys_sign():
    slope = field(
        [[[1.0, 1, -1]], [[2.0, -1, -1]], [[-1.0, 1, -1]], [[1.0, -1, np.nan]]],
        source_id=list("abcd"),
    )
    p_value = field(
        [[[0.01, 0.01, 0.01]], [[0.20, 0.01, 0.04]], [[0.01, 0.01, 0.2]], [[0.03, 0.01, np.nan]]],
        source_id=list("abcd"),
    )
    found = agreement.agreement(xr.Dataset({"slope": slope, "p_value": p_value}))
    # 3 of 4 rise, two of them surely; a draw; all 3 that have a value fall, two of them surely
    np.testing.assert_array_equal(found["sign"], [[1, 0, -1]])
    np.testing.assert_allclose(found["same_sign"], [[0.75, 0.5, 1]])
    np.testing.assert_allclose(found["significant"], [[0.5, 0, 2 / 3]])


def test_agreement_of_slopes_that_are_not_tested_has_no_significance():
    slope = field([[[1.0, -1]], [[2.0, 1]]], source_id=["a", "b"])
    found = agreement.agreement(slope.to_dataset(name="slope"))
    assert set(found) == {"sign", "same_sign"}
    assert found["same_sign"].values.tolist() == [[1, 0.5]]


def test_agreement_of_no_source_is_missing():
    slope = field([[[np.nan]], [[np.nan]]], source_id=list("ab"))
    found = agreement.agreement(xr.Dataset({"slope": slope, "p_value": slope}))
    assert all(found[name].isnull().all() for name in found)


def test_shares_count_the_area_before_and_after_correction():
    # cells of area 1, 1, 2, 4 and one without a value
    area = field([[1.0, 1, 2, 4, 8]])
    slope = field([[-1.0, -1, 1, -1, np.nan]])
    p_value = field([[0.001, 0.04, 0.03, 0.9, np.nan]])
    whole = slope.notnull()
    found = agreement.shares(
        xr.Dataset({"slope": slope, "p_value": p_value}),
        area,
        {"all": whole, "first three": whole & (slope.lon < 73)},
        alpha=0.02,
    )
    # 8 in all: drier on 1 + 1 + 4, with p < 0.02 on 1. At 0.04 over 4 tests the thresholds
    # are 0.01, 0.02, 0.03, 0.04: the third p-value, 0.04, exceeds 0.03, the second one, 0.03,
    # exceeds 0.02, so only the first is left
    assert found["drier"].values.tolist() == [75, 50]
    assert found["wetter"].values.tolist() == [25, 50]
    assert found["drier_significant"].values.tolist() == [12.5, 25]
    assert found["wetter_significant"].values.tolist() == [0, 0]
    assert found["drier_corrected"].values.tolist() == [12.5, 25]
    assert found["region"].values.tolist() == ["all", "first three"]


def test_shares_take_each_map_as_a_family_of_its_own():
    p_value = field([[[0.04, 0.9]], [[0.04, 0.04]]], source_id=["a", "b"])
    trends = xr.Dataset({"slope": p_value * 0 - 1, "p_value": p_value})
    found = agreement.shares(trends, field([[1.0, 1]]), {"all": field([[True, True]])}, alpha=0.025)
    # at 0.05 over 2 tests: 0.04 > 0.025 in the first map; 0.04 <= 0.05 twice in the second
    assert found["drier_corrected"].sel(region="all").values.tolist() == [0, 100]


@pytest.mark.parametrize("alpha", [0, 0.5, 5, -0.1, "five", [0.05]])
def test_a_level_out_of_range_is_refused_by_its_own_name(alpha):
    trends = xr.Dataset(
        {name: field([[[0.1, 0.2]]], source_id=["a"]) for name in ("slope", "p_value")}
    )
    with pytest.raises(ValueError, match="`alpha` must lie between 0 and 0.5"):
        agreement.agreement(trends, alpha=alpha)
    with pytest.raises(ValueError, match="`alpha` must lie between 0 and 0.5"):
        agreement.shares(trends, field([[1.0, 1]]), {}, alpha=alpha)


# product against ensemble or truth


def test_likeness_agrees_with_numpy():
    random = np.random.default_rng(4)
    x, y = random.normal(size=(2, 3, 5))
    x[0, 0] = np.nan
    weights = random.uniform(1, 2, (3, 5))
    mask = np.ones((3, 5), bool)
    mask[2, 4] = False
    found = agreement.likeness(field(x), field(y), field(weights), {"r": field(mask)}).sel(
        region="r"
    )
    use = mask & np.isfinite(x)
    a, b, w = x[use], y[use], weights[use]
    covariance = np.cov(a, b, aweights=w, ddof=0)
    np.testing.assert_allclose(found["same_sign"], 100 * w[a * b > 0].sum() / w.sum())
    expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    np.testing.assert_allclose(found["correlation"], expected)
    np.testing.assert_allclose(found["std_ratio"], np.sqrt(covariance[0, 0] / covariance[1, 1]))
    np.testing.assert_allclose(found["regression"], covariance[0, 1] / covariance[1, 1])
    np.testing.assert_allclose(found["median_ratio"], np.median(a / b))
    np.testing.assert_allclose(found["skill"], 1 - (w * (a - b) ** 2).sum() / (w * b**2).sum())


def test_likeness_of_several_estimates_is_that_of_each():
    y = field(np.random.default_rng(6).normal(size=(2, 4, 3)), experiment_id=["a", "b"])
    noise = np.random.default_rng(7).normal(size=(2, 2, 4, 3))
    x = y + field(noise, estimate=["one", "other"], experiment_id=["a", "b"])
    where = {"all": y[0].notnull()}
    together = agreement.likeness(x, y, xr.ones_like(y[0]), where)
    for estimate in x.estimate.values:
        for experiment in "ab":
            pair = (
                x.sel(estimate=estimate, experiment_id=experiment),
                y.sel(experiment_id=experiment),
            )
            alone = agreement.likeness(*pair, xr.ones_like(y[0]), where)
            found = together.sel(estimate=estimate, experiment_id=experiment)
            xr.testing.assert_allclose(found.drop_vars(["estimate", "experiment_id"]), alone)


def test_a_damped_copy_is_like_its_original_in_all_but_size():
    y = field(np.random.default_rng(5).normal(size=(4, 3)))
    everywhere = {"all": y.notnull()}
    found = agreement.likeness(0.5 * y, y, xr.ones_like(y), everywhere).sel(region="all")
    assert float(found["same_sign"]) == 100
    for name, expected in {
        "correlation": 1,
        "std_ratio": 0.5,
        "regression": 0.5,
        "median_ratio": 0.5,
        "skill": 0.75,  # half of the slope is left: a quarter of its square
    }.items():
        np.testing.assert_allclose(found[name], expected)


def test_largest_patch_is_found_by_its_area_and_edges_connect():
    mask = field(np.array([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1.0]])) == 1
    area = xr.ones_like(mask, dtype=float)
    found = agreement.largest_patch(
        mask, area
    )  # the corners of three cells touch, two share an edge
    assert float(found["share"]) == pytest.approx(100 * 2 / 12)
    assert (float(found["centre_lat"]), float(found["centre_lon"])) == (30, 72.5)

    area[2, 3] = 5  # one large cell beats two small ones
    area[0, 1] = np.nan  # 15 are left
    found = agreement.largest_patch(mask.T, area)
    assert float(found["share"]) == pytest.approx(100 * 5 / 15)
    assert (float(found["centre_lat"]), float(found["centre_lon"])) == (32, 73)
    assert agreement.largest_patch(mask & False, area)["share"].isnull()


# what an index can show


def test_slopes_of_a_noisy_line_follow_the_formula_and_stay_below_the_bound():
    trends = [0.05, 0.2, 1]
    found = ssmi.slope_of_a_noisy_line(trends, draws=2000)
    bound = 10 * np.sqrt(12 / (86**2 - 1))
    assert (found < bound).all()
    # trend / sqrt(variance of the line + variance of the noise): 1 in a source, 1/25 in the mean,
    # 1/250 in its mean over ten years
    for name, noise, tolerance in [
        ("one source", 1, 0.02),
        ("ensemble mean", 1 / 25, 0.01),
        ("its running mean", 1 / 250, 0.02),
    ]:
        line = (np.array(trends) / bound) ** 2
        expected = np.array(trends) / np.sqrt(line + noise)
        np.testing.assert_allclose(found.sel(series=name), expected, rtol=tolerance)


def test_slopes_of_a_noisy_line_are_the_same_for_the_same_seed():
    xr.testing.assert_identical(*(ssmi.slope_of_a_noisy_line([0.1], draws=3) for _ in range(2)))


def test_rejections_are_those_of_each_test_on_the_running_mean_of_the_noise():
    found = agreement.rejections_of_smoothed_noise(years=40, window=5, draws=30, seed=3)
    noise = np.random.default_rng(3).normal(size=(30, 40))
    smooth = [[x[max(i - 2, 0) : i + 3].mean() for i in range(40)] for x in noise]
    series = xr.DataArray(np.array(smooth), {"year": range(40)}, ("draw", "year"))
    for method in ("ar1", "hamed_rao", "original"):
        p_value = mann_kendall(series, method=method)["p_value"]
        assert float(found.sel(test=method)) == pytest.approx(100 * (p_value < 0.05).mean())


def test_only_the_test_that_models_persistence_survives_a_running_mean():
    found = agreement.rejections_of_smoothed_noise(draws=500)
    assert found.sel(test="ar1") < 5
    assert 5 < found.sel(test="hamed_rao") < found.sel(test="original")


# what a reader may ask for

STUDY = SimpleNamespace(
    periods=SimpleNamespace(historical=("1990", "2014"), future=("2015", "2100")),
    domain=Domain(south=0, north=4, west=0, east=8),
    study_area=SimpleNamespace(name="Here"),
    regions={
        "north": Region(south=2, north=4, west=4, east=8),
        "south": Region(south=0, north=2, west=4, east=8),
        "west": Region(south=0, north=4, west=0, east=4),
    },
)


def test_the_baseline_is_the_scenarios_own_unless_a_reader_asks():
    assert ssmi.index_baseline(STUDY) == ("2015", "2100")
    assert ssmi.index_baseline(STUDY, [1990, "2014"]) == ("1990", "2014")


@pytest.mark.parametrize(
    "years",
    [
        ["1985", "2014"],
        ["2014", "1990"],
        ["1990"],
        "1990",
        ["1990", "soon"],
        [1990, 2000, 2010],
        ["2015", "2200"],
        ["2000", "2000"],
        ["200", "2014"],  # as text it comes after "1990"
        ["2014", "20145"],
    ],
)
def test_a_baseline_that_makes_no_sense_is_refused_with_the_years_there_are(years):
    with pytest.raises(ValueError, match="`baseline_period` must be two years from 1990 to 2100"):
        ssmi.index_baseline(STUDY, years)


def test_index_options_tell_the_three_readings_apart():
    std = xr.DataArray(0.1)
    assert ssmi.index_options("theta", ("1990", "2014"), std) == {}
    own = ssmi.index_options("ssmi", ("1990", "2014"), std)
    assert own == {"baseline": ("1990", "2014"), "standard_deviation": None}
    assert ssmi.index_options("ssmi_sources", ("1990", "2014"), std)["standard_deviation"] is std
    with pytest.raises(
        ValueError, match="`index` must be one of ssmi, ssmi_sources, theta, got 'spi'"
    ):
        ssmi.index_options("spi", ("1990", "2014"), std)


def test_months_begin_with_the_historical_run_only_where_they_have_to():
    runs = {"historical": monthly(1990, 25), "ssp585": monthly(2015, 86)}
    options = {"study": STUDY}
    alone = ssmi.months_for(runs.get, "ssp585", baseline=("2015", "2100"), **options)
    both = ssmi.months_for(runs.get, "ssp585", baseline=("1990", "2014"), **options)
    assert alone.sizes["time"] == 12 * 86
    assert both.sizes["time"] == 12 * (25 + 86)
    assert both.indexes["time"].is_monotonic_increasing
    assert both.attrs["units"] == "m3 m-3"


def static():
    land = xr.DataArray(
        [[0, 1, 1, 0], [1, 1, 0, 1]],
        coords={"lat": [1.0, 3], "lon": [1.0, 3, 5, 7]},
        dims=CELLS,
    ).astype(bool)
    return xr.Dataset({"land": land, "study_area": land & (land.lon > 2)})


def test_region_masks_hold_land_and_the_east_joins_north_and_south():
    masks = grids.region_masks(static(), STUDY)
    assert list(masks) == ["all land", "Here", "east", "north", "south", "west"]
    assert masks["north"].values.astype(int).tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]
    assert masks["east"].values.astype(int).tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]
    assert masks["Here"].values.astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 0, 1]]


def test_a_region_without_land_is_refused_by_name():
    sea = STUDY.regions | {"upside down": Region(south=4, north=0, west=0, east=8)}
    with pytest.raises(ValueError, match="none in 'upside down'.*0–4 N, 0–8 E, south below north"):
        grids.region_masks(static(), SimpleNamespace(**vars(STUDY) | {"regions": sea}))


def test_a_fine_cell_has_the_value_of_the_coarse_cell_it_lies_in():
    coarse = xr.DataArray([[1.0, 2], [3, 4]], coords={"lat": [1, 3], "lon": [1, 3]}, dims=CELLS)
    fine = xr.DataArray(
        np.ones((4, 4), bool),
        coords={"lat": [0.5, 1.5, 2.5, 3.5], "lon": [0.5, 1.5, 2.5, 3.5]},
        dims=CELLS,
    )
    fine[0, 0] = False
    found = grids.on_cells_of(coarse, fine)
    expected = np.kron([[1.0, 2], [3, 4]], np.ones((2, 2)))
    expected[0, 0] = np.nan
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found.lat, fine.lat)


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


def test_the_test_of_the_trend_is_that_of_the_trends_module():
    theta = monthly(slopes=(0.0001, 0))
    found = trends.trend(theta, ("2015", "2044"))["p_value"]
    annual = theta.values.reshape(30, 12, 2).mean(axis=1)
    year = xr.DataArray(annual, coords={"year": range(2015, 2045)}, dims=("year", "lon"))
    np.testing.assert_allclose(found[0], mann_kendall(year)["p_value"])
