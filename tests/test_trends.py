import numpy as np
import pandas as pd
import pymannkendall
import pytest
import xarray as xr
from scipy import stats

from smcore.trends import false_discovery_rate, mann_kendall, theil_sen

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


def test_many_cells_give_the_same_as_few():
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
    np.testing.assert_allclose(mann_kendall(as_series(values)).p_value, expected.p)


def test_hamed_rao_of_every_second_year_is_that_of_the_shorter_series():
    values = np.full((3, 86), np.nan)
    values[:, ::2] = autoregressive(3, 0.7, length=43)
    result = mann_kendall(as_series(values))
    for i in range(3):
        expected = pymannkendall.hamed_rao_modification_test(values[i, ::2])
        np.testing.assert_allclose(result.p_value[i], expected.p)


def test_hamed_rao_counts_lags_in_years_not_in_values():
    # persistent, with a gap of 40 years in the middle: the two halves are no neighbours
    values = autoregressive(1, 0.8)
    values[:, 23:63] = np.nan
    closed = pymannkendall.hamed_rao_modification_test(values[0, np.isfinite(values[0])])
    assert abs(mann_kendall(as_series(values)).p_value[0] - closed.p) > 1e-6


def test_mann_kendall_of_a_constant_series_is_one():
    for method in ("original", "hamed_rao"):
        result = mann_kendall(as_series(SERIES["constant"]), method=method)
        assert (result.p_value == 1).all()


def test_mann_kendall_finds_a_straight_line():
    assert mann_kendall(as_series(SERIES["straight"]), method="original").p_value < 1e-15


def test_mann_kendall_lists_its_methods():
    with pytest.raises(ValueError, match="hamed_rao.*original.*got 'yue_wang'"):
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
        p_value = mann_kendall(as_series(autoregressive(2000, lag_1))).p_value
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
