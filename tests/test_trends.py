from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pymannkendall
import pytest
import xarray as xr
from scipy import stats

from smcore import trends
from smcore.seasons import seasonal_mean
from smcore.trends import false_discovery_rate, mann_kendall, theil_sen, trend

SIZES = pd.read_csv(Path(__file__).resolve().parents[1] / "data/test_size.csv")
YEARS = np.arange(2015, 2101)


def as_series(values):
    """Cells along x, years last."""
    return xr.DataArray(
        np.atleast_2d(values),
        dims=("x", "year"),
        coords={"year": YEARS[: np.shape(values)[-1]]},
    )


def autoregressive(cells, lag_1, length=86, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(cells, length))
    for i in range(1, length):
        values[:, i] = lag_1 * values[:, i - 1] + np.sqrt(1 - lag_1**2) * values[:, i]
    return values


def with_gaps(values, share=0.3, seed=1):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(values.shape) < share, np.nan, values)


SERIES = {
    "random": autoregressive(5, 0),
    "persistent": autoregressive(5, 0.8) + 0.01 * np.arange(86),
    "tied": np.round(autoregressive(5, 0.3)),
    "two values": (autoregressive(5, 0.3) > 1).astype(float),
    "heavy-tailed": np.random.default_rng(2).standard_cauchy((5, 86)),
    "step": autoregressive(5, 0) + 1000 * (np.arange(86) > 60),
    "short": autoregressive(5, 0, length=4),
    "odd": autoregressive(5, 0, length=7),
    "constant": np.full((2, 20), 0.3),
    "straight": np.arange(86.0)[None] * 0.5,
    "gappy": with_gaps(autoregressive(5, 0.5)),
    "gappy and tied": with_gaps(np.round(autoregressive(5, 0))),
    "gappy and short": with_gaps(autoregressive(5, 0, length=9), 0.4),
}


@pytest.mark.parametrize("name", SERIES)
def test_theil_sen_agrees_with_scipy(name):
    series = as_series(SERIES[name])
    result = theil_sen(series)
    for i, values in enumerate(series.values):
        valid = np.isfinite(values)
        assert valid.sum() >= 3
        expected = stats.theilslopes(values[valid], series.year.values[valid], 0.95)
        np.testing.assert_allclose(result.slope[i], expected.slope, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(result.low[i], expected.low_slope, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(result.high[i], expected.high_slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("round_to", [10, 0])
def test_theil_sen_of_many_values_agrees_with_scipy(round_to):
    # 44,850 pairs; gaps give every cell ranks of its own
    values = np.round(with_gaps(autoregressive(3, 0.6, length=300), 0.1), round_to)
    series = xr.DataArray(values, {"year": np.arange(300)}, ("x", "year"))
    result = theil_sen(series).to_array().transpose("x", "variable")
    for found, row in zip(result.values, values, strict=True):
        valid = np.isfinite(row)
        expected = stats.theilslopes(row[valid], series.year.values[valid], 0.95)
        expected = expected.slope, expected.low_slope, expected.high_slope
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_theil_sen_is_the_median_and_ignores_one_outlier():
    # slopes 1, 1, 1, 100, 149.5, 298 and six pairs: (1 + 100) / 2; then 1 in six of ten pairs
    assert theil_sen(as_series([0.0, 1, 2, 300])).slope[0] == 50.5
    assert theil_sen(as_series([0.0, 1, 2, 3, 300])).slope[0] == 1


def test_theil_sen_is_per_unit_of_the_coordinate():
    series = as_series(np.arange(10.0)).assign_coords(year=np.arange(10) * 5 + 2000)
    np.testing.assert_allclose(theil_sen(series).slope, 0.2)


def test_theil_sen_takes_any_layout_and_keeps_coordinates():
    values = autoregressive(3 * 4, 0).reshape(3, 4, 86)
    field = xr.DataArray(
        np.moveaxis(values, -1, 0).astype("float32"),
        dims=("year", "lat", "lon"),
        coords={"year": YEARS, "lat": [40.0, 30, 20], "lon": [70.0, 80, 90, 100]},
        attrs={"units": "m3 m-3"},
    )
    result = theil_sen(field)
    assert result.slope.dims == ("lat", "lon")
    assert result.slope.attrs["units"] == "m3 m-3 year-1"
    assert set(result.coords) == {"lat", "lon"}
    alone = theil_sen(field.isel(lat=2, lon=1))
    xr.testing.assert_allclose(result.isel(lat=2, lon=1), alone)
    np.testing.assert_allclose(
        alone.slope, stats.theilslopes(field.values[:, 2, 1], YEARS).slope, rtol=1e-5
    )
    assert alone.slope.ndim == 0


def test_theil_sen_and_mann_kendall_need_three_values():
    values = np.full((3, 10), np.nan)
    values[1, :2] = 1, 2
    values[2, [0, 4, 9]] = 1, 2, 4
    for result in (theil_sen(as_series(values)).slope, mann_kendall(as_series(values)).p_value):
        assert result.isnull().values.tolist() == [True, True, False]


def test_theil_sen_and_mann_kendall_take_infinite_values_as_missing():
    missing, infinite = SERIES["gappy"].copy(), SERIES["gappy"].copy()
    infinite[np.isnan(infinite)] = -np.inf
    for function in (theil_sen, mann_kendall):
        xr.testing.assert_identical(function(as_series(infinite)), function(as_series(missing)))


def test_many_cells_give_the_same_as_few(monkeypatch):
    monkeypatch.setattr(trends, "BLOCK", 2000)  # 600 cells in 60 blocks of 10
    values = with_gaps(autoregressive(600, 0.4, length=20))
    values[10] = np.nan
    many, few = theil_sen(as_series(values)), theil_sen(as_series(values[520:523]))
    np.testing.assert_array_equal(many.slope[520:523], few.slope)
    many, few = mann_kendall(as_series(values)), mann_kendall(as_series(values[520:523]))
    np.testing.assert_array_equal(many.p_value[520:523], few.p_value)


def test_trends_work_on_dask_arrays():
    series = as_series(autoregressive(6, 0.2))
    lazy = series.chunk(x=2, year=30)
    xr.testing.assert_allclose(theil_sen(lazy).compute(), theil_sen(series))
    xr.testing.assert_allclose(mann_kendall(lazy).compute(), mann_kendall(series))


def test_trends_need_a_numeric_ascending_coordinate():
    time = pd.date_range("2015", periods=10, freq="YS")
    dated = xr.DataArray(np.arange(10.0), dims="time", coords={"time": time})
    with pytest.raises(ValueError, match="`time` must be numeric.*annual"):
        theil_sen(dated, dim="time")
    with pytest.raises(ValueError, match="`dim` must be a dimension of `series`, got 'year'"):
        mann_kendall(dated)
    with pytest.raises(ValueError, match="`year` must be numeric and ascending"):
        theil_sen(as_series(np.arange(10.0)).isel(year=slice(None, None, -1)))
    with pytest.raises(ValueError, match="evenly spaced.*reindex"):
        mann_kendall(as_series(np.arange(10.0)).isel(year=[0, 1, 2, 5]))


COMPLETE = [name for name in SERIES if "gappy" not in name and name not in ("constant", "straight")]


@pytest.mark.parametrize("name", COMPLETE)
@pytest.mark.parametrize("method", ["original", "hamed_rao"])
def test_mann_kendall_agrees_with_pymannkendall(name, method):
    peer = {
        "original": pymannkendall.original_test,
        "hamed_rao": pymannkendall.hamed_rao_modification_test,
    }[method]
    series = as_series(SERIES[name])
    result = mann_kendall(series, method=method)
    for i, values in enumerate(series.values):
        expected = peer(values)
        np.testing.assert_allclose(result.p_value[i], expected.p, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(result.z[i], expected.z, rtol=1e-9)
        np.testing.assert_allclose(result.tau[i], expected.Tau)
        assert result.score[i] == expected.s


def test_mann_kendall_leaves_out_missing_values():
    values = SERIES["gappy and tied"]
    result = mann_kendall(as_series(values), method="original")
    for i, row in enumerate(values):
        expected = pymannkendall.original_test(row[np.isfinite(row)])
        np.testing.assert_allclose(result.p_value[i], expected.p)


def test_hamed_rao_ignores_gaps_at_the_ends():
    values = np.full((1, 86), np.nan)
    values[:, 10:70] = autoregressive(1, 0.7, length=60)
    expected = pymannkendall.hamed_rao_modification_test(values[0, 10:70])
    result = mann_kendall(as_series(values), method="hamed_rao")
    np.testing.assert_allclose(result.p_value, expected.p)


def test_hamed_rao_of_every_second_year_is_that_of_the_shorter_series():
    values = np.full((3, 86), np.nan)
    values[:, ::2] = autoregressive(3, 0.7, length=43)
    result = mann_kendall(as_series(values), method="hamed_rao")
    for i in range(3):
        expected = pymannkendall.hamed_rao_modification_test(values[i, ::2])
        np.testing.assert_allclose(result.p_value[i], expected.p)


def test_hamed_rao_counts_lags_in_years_not_in_values():
    # persistent, with a gap of 40 years in the middle: the two halves are no neighbours
    values = autoregressive(1, 0.8)
    values[:, 23:63] = np.nan
    closed = pymannkendall.hamed_rao_modification_test(values[0, np.isfinite(values[0])])
    result = mann_kendall(as_series(values), method="hamed_rao")
    assert abs(result.p_value[0] - closed.p) > 1e-6


def ar1_by_hand(row):
    """p and z of one series, pair by pair."""
    years = [int(year) for year in np.flatnonzero(np.isfinite(row))]
    n = len(years)
    pairs = [(i, j) for i in years for j in years if i < j]
    score = sum(np.sign(row[j] - row[i]) for i, j in pairs)
    groups = np.unique(row[years], return_counts=True)[1]
    variance = n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in groups)

    slope = stats.theilslopes(row[years], years).slope
    rest = {year: row[year] - slope * year for year in years}
    mean = sum(rest.values()) / n
    square = sum((value - mean) ** 2 for value in rest.values()) / n
    spans = [j - i for i, j in pairs]
    number = Counter(spans)
    lag = min(span for span in number if number[span] >= max(number.values()) / 2)
    products = [(rest[i] - mean) * (rest[j] - mean) for i, j in pairs if j - i == lag]
    r = sum(products) / len(products) / square
    rho = min(max((n * r + 2) / (n - 4), 0), 1) ** (1 / lag)
    factor = 1 + 2 / n * sum(rho**span for span in spans)

    z = (score - np.sign(score)) / np.sqrt(variance / 18 * factor)
    freedom = n / factor - 3
    return 2 * stats.t.sf(abs(z), freedom) if freedom > 0 else 1, z


@pytest.mark.parametrize(
    "name", ["random", "persistent", "tied", "odd", "gappy", "gappy and tied", "sparse"]
)
def test_ar1_agrees_with_a_loop_over_the_pairs(name):
    sparse = with_gaps(autoregressive(5, 0.5), 0.8)  # 9 to 26 of 86 values
    values = sparse if name == "sparse" else SERIES[name]
    result = mann_kendall(as_series(values), method="ar1")
    expected = np.array([ar1_by_hand(row) for row in values])
    np.testing.assert_allclose(result.p_value, expected[:, 0], rtol=1e-9)
    np.testing.assert_allclose(result.z, expected[:, 1], rtol=1e-9)


def test_ar1_worked_by_hand():
    # later is above earlier in 6 pairs of 28, below in 10, equal in 12: S = -4 and slope 0, so
    # there is nothing to detrend. Mean 0, mean square 1; of the 7 products of neighbours 4 are
    # 1 and 3 are -1: r = 1/7, and rho = (8/7 + 2) / 4 = 11/14
    values = np.array([1.0, 1, -1, -1, -1, 1, 1, -1])
    rho = 11 / 14
    factor = 1 + 2 / 8 * sum((8 - lag) * rho**lag for lag in range(1, 8))
    # two groups of 4 equal values
    variance = (8 * 7 * 21 - 2 * 4 * 3 * 13) / 18
    result = mann_kendall(as_series(values), method="ar1")
    assert result.score[0] == -4
    np.testing.assert_allclose(result.z[0], -3 / np.sqrt(variance * factor))
    assert factor > 8 / 3  # fewer than three effective values: nothing can be rejected
    assert result.p_value[0] == 1


def test_ar1_ignores_gaps_at_the_ends():
    values = np.full((4, 86), np.nan)
    values[:, 10:70] = autoregressive(4, 0.7, length=60)
    result = mann_kendall(as_series(values), method="ar1")
    alone = mann_kendall(as_series(values[:, 10:70]), method="ar1")
    xr.testing.assert_allclose(result, alone)


def test_ar1_of_every_second_year_is_that_of_the_shorter_series():
    values = np.full((4, 86), np.nan)
    values[:, ::2] = autoregressive(4, 0.7, length=43)
    result = mann_kendall(as_series(values), method="ar1")
    shorter = mann_kendall(as_series(values[:, ::2]), method="ar1")
    xr.testing.assert_allclose(result, shorter)


def test_ar1_is_the_default_and_holds_its_level_in_the_table():
    series = as_series(SERIES["persistent"])
    xr.testing.assert_identical(mann_kendall(series), mann_kendall(series, method="ar1"))
    # standard error of 10,000 series: 0.22 %
    sizes = SIZES[SIZES.test == "ar1"]
    assert (SIZES.series == 10_000).all()
    assert sizes.rejected_percent.max() < 5.5


def running_mean(values, window):
    """Of the years that are there: `window` of them, the middle one the later of two."""
    first, last = -(window // 2), window - window // 2
    years = range(values.shape[1])
    return np.stack([values[:, max(i + first, 0) : i + last].mean(axis=1) for i in years], axis=1)


@pytest.mark.parametrize("method", ["ar1", "hamed_rao", "original"])
@pytest.mark.parametrize(
    ("n", "lag_1", "window"),
    [(n, lag_1, 1) for n in (86, 30) for lag_1 in (0, 0.3, 0.6, 0.9)] + [(86, 0, 10)],
)
def test_mann_kendall_rejects_as_often_as_the_table_says(method, n, lag_1, window):
    expected = SIZES.set_index(["test", "n", "lag_1", "window"]).loc[(method, n, lag_1, window)]
    noise = running_mean(autoregressive(1000, lag_1, length=n, seed=3), window)
    with_trend = noise + 2 * np.arange(n) / (n - 1)
    columns = {"rejected_percent": noise, "rejected_with_trend_percent": with_trend}
    for column, values in columns.items():
        share = float((mann_kendall(as_series(values), method=method).p_value <= 0.05).mean())
        p = expected[column] / 100
        assert abs(share - p) < 4 * np.sqrt(max(p * (1 - p), 1e-3) / 1000)


def test_only_the_test_that_models_persistence_survives_a_running_mean():
    size = SIZES[SIZES.window == 10].set_index("test").rejected_percent
    assert size["ar1"] < 5 < size["hamed_rao"] < size["original"]


def test_mann_kendall_of_a_constant_series_is_one():
    for method in ("ar1", "original", "hamed_rao"):
        result = mann_kendall(as_series(SERIES["constant"]), method=method)
        assert (result.p_value == 1).all()


def test_mann_kendall_finds_a_straight_line():
    assert mann_kendall(as_series(SERIES["straight"]), method="original").p_value < 1e-15
    # a step of 0.1 rounds: what is left of such a line is no autocorrelated noise
    rounded = as_series(300 + 0.1 * np.arange(86))
    for series in (as_series(SERIES["straight"]), rounded):
        assert mann_kendall(series, method="ar1").p_value < 1e-15


def test_mann_kendall_lists_its_methods():
    with pytest.raises(ValueError, match="ar1.*hamed_rao.*original.*got 'yue_wang'"):
        mann_kendall(as_series(SERIES["random"]), method="yue_wang")


def test_original_test_holds_its_size_on_noise_and_loses_it_on_persistent_series():
    noise = mann_kendall(as_series(autoregressive(2000, 0)), method="original")
    persistent = mann_kendall(as_series(autoregressive(2000, 0.6)), method="original")
    # standard error of the share: 0.5 %
    assert abs(float((noise.p_value < 0.05).mean()) - 0.05) < 0.015
    assert (persistent.p_value < 0.05).mean() > 0.2


def test_hamed_rao_rejects_as_often_as_its_docstring_says():
    # figures from the plan, 9 and 19 %; standard error 0.6 and 0.9 %
    for lag_1, expected in ((0, 0.09), (0.6, 0.19)):
        series = as_series(autoregressive(2000, lag_1))
        p_value = mann_kendall(series, method="hamed_rao").p_value
        assert abs(float((p_value < 0.05).mean()) - expected) < 0.03


def test_false_discovery_rate_worked_by_hand():
    # thresholds 0.1 * i / 4 = 0.025, 0.05, 0.075, 0.1: the third passes, and with it the second
    p_value = xr.DataArray([[0.074, 0.5], [0.01, np.nan], [0.06, np.nan]], dims=("lat", "lon"))
    result = false_discovery_rate(p_value)
    assert result.dtype == bool
    assert result.values.tolist() == [[True, False], [True, False], [True, False]]


def test_false_discovery_rate_agrees_with_scipy():
    p_value = np.random.default_rng(0).random(400) ** 2
    for alpha in (0.05, 0.1, 0.3):
        expected = stats.false_discovery_control(p_value) <= alpha
        result = false_discovery_rate(xr.DataArray(p_value, dims="x"), alpha=alpha)
        np.testing.assert_array_equal(result, expected)


def test_false_discovery_rate_of_nothing():
    assert not false_discovery_rate(xr.DataArray([np.nan, np.nan], dims="x")).any()
    assert not false_discovery_rate(xr.DataArray([0.9, 0.8], dims="x")).any()


def test_false_discovery_rate_refuses_what_is_no_p_value():
    with pytest.raises(ValueError, match="`p_value` must lie in 0 to 1"):
        false_discovery_rate(xr.DataArray([0.1, 1.2], dims="x"))
    with pytest.raises(ValueError, match="`alpha`"):
        false_discovery_rate(xr.DataArray([0.1], dims="x"), alpha=10)


def monthly(first=2015, years=30, slopes=(0.001, -0.002), seed=0):
    """theta of one row of cells, each with its own trend per year, a season and noise."""
    time = pd.date_range(f"{first}-01", periods=12 * years, freq="MS")
    noise = np.random.default_rng(seed).normal(0, 0.01, (time.size, 1, len(slopes)))
    season = 0.05 * np.sin(2 * np.pi * time.month.values / 12)
    line = (time.year.values - first)[:, None, None] * np.array(slopes)
    return xr.DataArray(
        0.3 + line + season[:, None, None] + noise,
        coords={"time": time, "lat": [30.0], "lon": 70.0 + np.arange(len(slopes))},
        dims=("time", "lat", "lon"),
        attrs={"units": "m3 m-3"},
    )


def test_trend_of_the_water_content_is_the_slope_of_the_annual_means():
    theta = monthly()
    found = trend(theta, ("2020", "2040"))
    annual = theta.values.reshape(30, 12, 2).mean(axis=1)[5:26]
    for cell in range(2):
        expected = 10 * stats.theilslopes(annual[:, cell], np.arange(21))[0]
        np.testing.assert_allclose(found["slope"][0, cell], expected)
    assert found["slope"].attrs["units"] == "m3 m-3 decade-1"
    assert (found["p_value"] < 1e-3).all()
    assert "p_value" not in trend(theta, ("2020", "2040"), test=False)


def test_trend_of_the_index_is_the_slope_of_the_standardised_months():
    theta = monthly()
    found = trend(theta, ("2015", "2044"), baseline=("2015", "2029"))
    years = theta.values.reshape(30, 12, 2)
    index = (years - years[:15].mean(axis=0)) / years[:15].std(axis=0)
    expected = [10 * stats.theilslopes(series, np.arange(30))[0] for series in index.mean(axis=1).T]
    np.testing.assert_allclose(found["slope"][0], expected)
    assert found["slope"].attrs["units"] == "decade-1"

    given = xr.DataArray(0.02)
    found = trend(theta, ("2015", "2044"), baseline=("2015", "2029"), standard_deviation=given)
    water = trend(theta, ("2015", "2044"))
    np.testing.assert_allclose(found["slope"], water["slope"] / 0.02)


def test_trend_keeps_sources_and_seasons():
    theta = xr.concat([monthly(seed=0), monthly(seed=1)], "source_id")
    found = trend(theta, ("2015", "2044"), mean=seasonal_mean)
    assert dict(found.sizes) == {"season": 4, "source_id": 2, "lat": 1, "lon": 2}
    winters = theta.values[1].reshape(30, 12, 2)
    december, next_year = winters[:-1, 11], winters[1:, :2]
    winter = (december + next_year.sum(axis=1)) / 3
    expected = 10 * stats.theilslopes(winter[:, 1], np.arange(29))[0]
    np.testing.assert_allclose(found["slope"].sel(season="DJF")[1, 0, 1], expected)


def test_trend_needs_a_baseline_for_a_standard_deviation():
    with pytest.raises(ValueError, match="give its `baseline`"):
        trend(monthly(), ("2015", "2044"), standard_deviation=xr.DataArray(0.1))


def test_trend_is_tested_as_mann_kendall_tests_the_annual_means():
    theta = monthly(slopes=(0.0001, 0))
    found = trend(theta, ("2015", "2044"))["p_value"]
    annual = theta.values.reshape(30, 12, 2).mean(axis=1)
    year = xr.DataArray(annual, coords={"year": range(2015, 2045)}, dims=("year", "lon"))
    np.testing.assert_allclose(found[0], mann_kendall(year)["p_value"])
