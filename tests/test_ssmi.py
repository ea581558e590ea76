from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore.seasons import annual_mean
from smcore.ssmi import index_baseline, interannual_std, ssmi


def monthly(first, last, dtype=float, shape=(2, 3)):
    time = pd.date_range(first, last, freq="MS")
    rng = np.random.default_rng(0)
    return xr.DataArray(
        (0.3 + 0.02 * rng.normal(size=(time.size, *shape))).astype(dtype),
        dims=("time", "lat", "lon"),
        coords={"time": time, "lat": [30.0, 20][: shape[0]], "lon": np.arange(shape[1]) + 70.0},
        attrs={"units": "m3 m-3"},
        name="theta",
    )


def test_ssmi_agrees_with_a_slow_loop():
    theta = monthly("2015-01", "2024-12")
    index = ssmi(theta, baseline=("2016", "2020"))
    for i, time in enumerate(theta.time.values):
        month = pd.Timestamp(time).month
        same = [
            j
            for j, other in enumerate(pd.to_datetime(theta.time.values))
            if other.month == month and 2016 <= other.year <= 2020
        ]
        sample = theta.values[same, 1, 2]
        expected = (theta.values[i, 1, 2] - sample.mean()) / sample.std()
        np.testing.assert_allclose(index.values[i, 1, 2], expected)


def test_ssmi_has_mean_zero_and_standard_deviation_one_in_the_baseline():
    index = ssmi(monthly("2015-01", "2044-12", dtype="float32"), baseline=("2015", "2044"))
    march = index.sel(time=index.time.dt.month == 3).astype(float)
    assert index.dtype == "float32"
    np.testing.assert_allclose(march.mean("time"), 0, atol=1e-4)
    np.testing.assert_allclose(march.std("time"), 1, rtol=1e-4)


def test_ssmi_of_a_straight_line_reaches_the_bound_however_steep_it_is():
    theta = monthly("2015-01", "2100-12")
    for rate in (1e-5, 1e-3):
        line = theta * 0 + rate * (theta.time.dt.year - 2015)
        annual = annual_mean(ssmi(line)).isel(lat=0, lon=0)
        slope = np.polyfit(annual.year, annual, 1)[0]
        np.testing.assert_allclose(slope, np.sqrt(12 / (86**2 - 1)))


def test_ssmi_of_the_population_is_at_most_the_bound_for_any_series():
    annual = annual_mean(ssmi(monthly("2015-01", "2100-12").cumsum("time"))).isel(lat=1, lon=1)
    assert abs(np.polyfit(annual.year, annual, 1)[0]) <= np.sqrt(12 / (86**2 - 1))


def test_ssmi_takes_a_given_standard_deviation():
    theta = monthly("2015-01", "2020-12")
    by_month = xr.DataArray(
        np.full((12, 2), 0.05),
        dims=("month", "lat"),
        coords={"month": range(1, 13), "lat": theta.lat},
    )
    by_month[6] = 0.1  # July
    index = ssmi(theta, standard_deviation=by_month)
    july = theta.sel(time="2017-07") - theta.sel(time=theta.time.dt.month == 7).mean("time")
    np.testing.assert_allclose(index.sel(time="2017-07"), july / 0.1)
    june = theta.sel(time="2017-06") - theta.sel(time=theta.time.dt.month == 6).mean("time")
    np.testing.assert_allclose(index.sel(time="2017-06"), june / 0.05)
    assert index.dims == theta.dims

    everywhere = ssmi(theta, standard_deviation=xr.DataArray(0.05))
    np.testing.assert_allclose(everywhere.sel(time="2017-06"), june / 0.05)


def test_ssmi_refuses_a_standard_deviation_of_another_grid_or_unit():
    theta = monthly("2015-01", "2020-12")
    spread = theta.std("time", keep_attrs=True)
    with pytest.raises(ValueError, match="lat"):
        ssmi(theta, standard_deviation=spread.assign_coords(lat=spread.lat + 1))
    with pytest.raises(ValueError, match="`standard_deviation` must have the units"):
        ssmi(theta, standard_deviation=spread.assign_attrs(units="kg m-2"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ssmi_of_a_constant_or_missing_cell_is_nan(dtype):
    theta = monthly("2015-01", "2021-12", dtype=dtype)
    theta[:, 0, 1] = 0.3
    theta[:, 1, 0] = np.nan
    index = ssmi(theta)
    assert index[:, 0, 1].isnull().all()
    assert index[:, 1, 0].isnull().all()
    assert index[:, 0, 0].notnull().all()


def test_ssmi_leaves_out_missing_months():
    theta = monthly("2015-01", "2021-12")
    gappy = theta.where(theta.time != theta.time[14])
    expected = theta.isel(time=[2, 26, 38, 50, 62, 74])  # the other Marches
    index = ssmi(gappy)
    assert index[14].isnull().all()
    np.testing.assert_allclose(
        index[26], (theta[26] - expected.mean("time")) / expected.std("time")
    )


def test_ssmi_names_the_period_that_theta_has():
    with pytest.raises(ValueError, match="`baseline`.*1990-01 to 2014-12"):
        ssmi(monthly("1990-01", "2014-12"))


def test_ssmi_says_what_it_used_and_keeps_coordinates():
    theta = monthly("2015-02", "2020-12")  # some sources start in February
    index = ssmi(theta)
    assert index.attrs["baseline"] == "2015-02 to 2020-12"
    assert index.attrs["units"] == "1"
    assert set(index.coords) == {"time", "lat", "lon"}


def test_ssmi_works_on_dask_arrays_and_other_calendars():
    theta = monthly("2015-01", "2020-12")
    lazy = ssmi(theta.chunk(time=10))
    assert lazy.chunks
    xr.testing.assert_allclose(lazy, ssmi(theta))
    days = theta.assign_coords(
        time=xr.date_range("2015-01", periods=72, freq="MS", calendar="360_day", use_cftime=True)
    )
    np.testing.assert_allclose(ssmi(days), ssmi(theta))


def test_ssmi_refuses_a_repeated_month():
    theta = monthly("2015-01", "2016-12")
    with pytest.raises(ValueError, match="one value per month"):
        ssmi(xr.concat([theta, theta.isel(time=[3])], "time"))


def sources():
    """Three sources that vary by 1, 2 and 5 times the same noise, each about its own mean."""
    one = monthly("1980-01", "1999-12")
    several = [0.1 * k + scale * one for k, scale in enumerate((1, 2, 5))]
    return xr.concat(several, xr.Variable("source_id", list("abc"))).assign_attrs(one.attrs)


def test_interannual_std_is_the_median_over_the_sources_of_each_calendar_month():
    predictors = sources()
    found = interannual_std(predictors, ("1985", "1994"))
    assert found.dims == ("month", "lat", "lon")
    assert found.month.values.tolist() == list(range(1, 13))
    assert found.attrs["units"] == "m3 m-3"
    assert found.attrs["period"] == "1985-1994"
    years = predictors.values.reshape(3, 20, 12, 2, 3)[:, 5:15]
    np.testing.assert_allclose(found, np.median(years.std(axis=1), axis=0))


def test_interannual_std_leaves_out_a_source_that_does_not_vary_or_has_no_value():
    predictors = sources()
    predictors[0, :, 0, 0] = 0.2
    predictors[0, :, 1, 2] = np.nan
    predictors[:, :, 0, 1] = 0.2
    found = interannual_std(predictors, ("1980", "1999"))
    years = predictors.values.reshape(3, 20, 12, 2, 3)
    for cell in ((0, 0), (1, 2)):
        expected = years[1:, :, :, *cell].std(axis=1).mean(axis=0)  # the median of two
        np.testing.assert_allclose(found[:, *cell], expected)
    assert found[:, 0, 1].isnull().all()


def test_interannual_std_needs_sources_and_years():
    with pytest.raises(ValueError, match="must have the dimension source_id"):
        interannual_std(monthly("1980-01", "1999-12"), ("1980", "1999"))
    with pytest.raises(ValueError, match="two or more years.*2050.*1980-01 to 1999-12"):
        interannual_std(sources(), ("2050", "2060"))
    with pytest.raises(ValueError, match="two or more years"):
        interannual_std(sources(), ("1990", "1990"))


def test_divided_by_the_sources_the_index_does_not_grow_with_the_smoothness_of_a_product():
    # a straight line and weather, of which a product keeps a tenth
    theta = monthly("2015-01", "2100-12")
    line = 0.0005 * (theta.time.dt.year - 2057.5)
    source = (theta + line).expand_dims(source_id=["a"])
    product = 0.3 + line + 0.1 * (theta - 0.3)
    std = interannual_std(theta.expand_dims(source_id=["a"]), ("2015", "2100"))

    def slope(field, **options):
        annual = annual_mean(ssmi(field, **options)).isel(lat=0, lon=0)
        return 10 * np.polyfit(annual.year, annual, 1)[0]

    assert slope(product) > 1.5 * slope(source[0])
    divided = slope(product, standard_deviation=std), slope(source[0], standard_deviation=std)
    np.testing.assert_allclose(*divided, rtol=0.05)


def test_ssmi_of_two_years_is_plus_and_minus_one_and_of_one_year_missing():
    theta = monthly("2015-01", "2016-12")
    np.testing.assert_allclose(abs(ssmi(theta)), 1)
    assert ssmi(theta, baseline=("2015", "2015")).isnull().all()


PERIODS = SimpleNamespace(historical=("1990", "2014"), future=("2015", "2100"))
STUDY = SimpleNamespace(periods=PERIODS)


def test_the_baseline_is_the_scenarios_own_unless_a_reader_asks():
    assert index_baseline(STUDY) == ("2015", "2100")
    assert index_baseline(STUDY, [1990, "2014"]) == ("1990", "2014")


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
        index_baseline(STUDY, years)
