import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore.changes import change_rate
from smcore.seasons import (
    MONTHS,
    PARTS,
    annual_mean,
    monthly_climatology,
    monthly_statistics,
    months_covered,
    require_monthly,
    seasonal_mean,
    yearly_mean,
)


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


def test_parts_are_the_year_the_seasons_and_the_months_in_the_order_of_a_portrait():
    assert list(PARTS)[:6] == ["annual", "MAM", "JJA", "SON", "DJF", "Jan"]
    assert len(PARTS) == 17 and list(MONTHS)[-1] == "Dec"
    assert PARTS["DJF"] == (12, 1, 2) and PARTS["May"] == (5,)


@pytest.mark.parametrize(
    ("months", "years", "of_2016"),
    [
        ((6, 7, 8), [2015, 2016, 2017], ["2016-06", "2016-07", "2016-08"]),
        ((12, 1, 2), [2016, 2017], ["2015-12", "2016-01", "2016-02"]),
        ((1, 2, 11, 12), [2016, 2017], ["2015-11", "2015-12", "2016-01", "2016-02"]),
        ((1, 7, 12), [2016, 2017], ["2015-12", "2016-01", "2016-07"]),
        # without January there is no New Year to cross
        ((11, 12), [2015, 2016, 2017], ["2016-11", "2016-12"]),
        ((12,), [2015, 2016, 2017], ["2016-12"]),
    ],
)
def test_yearly_mean_counts_what_leads_up_to_new_year_for_the_january(months, years, of_2016):
    theta = monthly("2015-01", "2017-12")
    mean = yearly_mean(theta, months)
    assert mean.dims == ("year", "lat", "lon")
    assert mean.year.values.tolist() == years
    expected = theta.sel(time=[np.datetime64(month) for month in of_2016]).mean("time")
    np.testing.assert_allclose(mean.sel(year=2016), expected)


def test_yearly_mean_of_a_part_that_no_year_has_is_empty():
    assert yearly_mean(monthly("2015-04", "2015-05"), (6, 7, 8)).sizes["year"] == 0


@pytest.mark.parametrize("months", [[], [0], [6, 13]])
def test_yearly_mean_needs_months_of_the_calendar(months):
    with pytest.raises(ValueError, match="`months` must be numbers from 1 to 12"):
        yearly_mean(monthly("2015-01", "2015-12"), months)


def test_the_winter_of_changes_is_that_of_seasonal_mean():
    theta = monthly("1995-01", "2040-12", shape=(1, 1))
    winter = seasonal_mean(theta).sel(season="DJF").squeeze(drop=True)
    later = winter.sel(year=slice(2021, 2040)).mean()
    earlier = winter.sel(year=slice(1995, 2014)).mean()  # 19 winters: the first is that of 1996
    rate = change_rate(theta, period=("2021", "2040"), baseline=("1995", "2014"), months=(12, 1, 2))
    np.testing.assert_allclose(rate, 100 * (later / earlier - 1))


def test_annual_mean_takes_full_years_only():
    theta = monthly("2014-12", "2017-11", dtype="float32")
    mean = annual_mean(theta)
    assert mean.dims == ("year", "lat", "lon")
    assert mean.year.values.tolist() == [2015, 2016]
    assert mean.year.dtype.kind == "i"
    assert mean.dtype == "float32"
    assert mean.attrs["units"] == "m3 m-3"
    np.testing.assert_allclose(mean[0], theta.values[1:13].mean(axis=0), rtol=1e-6)


def test_annual_mean_needs_every_month_of_a_cell():
    theta = monthly("2015-01", "2016-12")
    theta[5, 0, 0] = np.nan
    mean = annual_mean(theta)
    assert np.isnan(mean[0, 0, 0])
    assert mean.isnull().sum() == 1


def test_annual_mean_needs_a_full_year():
    with pytest.raises(ValueError, match="full calendar year, got 2015-02 to 2016-11"):
        annual_mean(monthly("2015-02", "2016-11"))


def test_seasonal_mean_counts_winter_for_the_year_of_its_january():
    theta = monthly("2015-01", "2017-12")
    mean = seasonal_mean(theta)
    assert mean.dims == ("season", "year", "lat", "lon")
    assert mean.season.values.tolist() == ["MAM", "JJA", "SON", "DJF"]
    assert mean.year.values.tolist() == [2015, 2016, 2017]
    winter = theta.sel(time=["2015-12-01", "2016-01-01", "2016-02-01"]).mean("time")
    np.testing.assert_allclose(mean.sel(season="DJF", year=2016), winter)
    np.testing.assert_allclose(
        mean.sel(season="SON", year=2017), theta.sel(time=slice("2017-09", "2017-11")).mean("time")
    )
    assert mean.sel(season="DJF", year=2015).isnull().all()


def test_seasonal_mean_has_85_winters_in_a_scenario():
    mean = seasonal_mean(monthly("2015-01", "2100-12", shape=(1, 1)))
    valid = mean.notnull().sum("year").squeeze()
    assert mean.sizes["year"] == 86
    assert mean.year.dtype.kind == "i"
    assert dict(zip(mean.season.values, valid.values, strict=True)) == {
        "MAM": 86,
        "JJA": 86,
        "SON": 86,
        "DJF": 85,
    }


def test_seasonal_mean_drops_what_is_incomplete():
    mean = seasonal_mean(monthly("2015-04", "2015-09", shape=(1, 1)))
    assert mean.year.values.tolist() == [2015]
    assert mean.notnull().squeeze().values.tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match="full season"):
        seasonal_mean(monthly("2015-04", "2015-05"))


@pytest.mark.parametrize("function", [annual_mean, seasonal_mean])
def test_means_need_one_value_per_month(function):
    theta = monthly("2015-01", "2016-12")
    with pytest.raises(ValueError, match="one value per month"):
        function(xr.concat([theta, theta.isel(time=[3])], "time"))


def test_means_work_on_dask_arrays_and_other_calendars():
    theta = monthly("2015-01", "2020-12")
    xr.testing.assert_allclose(annual_mean(theta.chunk(time=10)), annual_mean(theta))
    days = theta.assign_coords(
        time=xr.date_range("2015-01", periods=72, freq="MS", calendar="360_day", use_cftime=True)
    )
    xr.testing.assert_allclose(seasonal_mean(days), seasonal_mean(theta))


def test_monthly_climatology_is_the_mean_of_each_calendar_month():
    theta = monthly("2015-01", "2018-12", dtype="float32")
    cycle = monthly_climatology(theta)
    assert cycle.dims == ("month", "lat", "lon")
    assert cycle.month.values.tolist() == list(range(1, 13))
    assert cycle.dtype == "float32"
    by_year = theta.values.reshape(4, 12, 2, 3)
    np.testing.assert_allclose(cycle, by_year.mean(axis=0), rtol=1e-6)


def test_monthly_statistics_are_mean_and_standard_deviation_of_each_calendar_month():
    theta = monthly("2015-02", "2018-10", dtype="float32")
    mean, spread = monthly_statistics(theta)
    assert mean.dims == spread.dims == ("month", "lat", "lon")
    assert mean.dtype == spread.dtype == float
    marches = theta.values[1::12].astype(float)
    np.testing.assert_allclose(mean.sel(month=3), marches.mean(axis=0))
    np.testing.assert_allclose(spread.sel(month=3), marches.std(axis=0))
    novembers = theta.values[9::12].astype(float)
    np.testing.assert_allclose(spread.sel(month=11), novembers.std(axis=0))


def test_monthly_statistics_have_no_spread_of_what_does_not_vary_or_is_not_there():
    theta = monthly("2015-01", "2018-12")
    theta[:, 0, 0] = 0.3
    mean, spread = monthly_statistics(theta.sel(time=theta.time.dt.month != 7))
    assert mean.month.values.tolist() == list(range(1, 13))
    assert mean.sel(month=7).isnull().all() and spread.sel(month=7).isnull().all()
    assert spread[:, 0, 0].isnull().all()
    assert spread.sel(month=6)[0, 1] > 0


def test_require_monthly_refuses_a_repeated_month_and_another_order():
    theta = monthly("2015-01", "2015-12")
    require_monthly(theta, "theta")
    for wrong in (theta.isel(time=[0, 1, 1]), theta.isel(time=[1, 0])):
        with pytest.raises(ValueError, match="`theta` must hold one value per month"):
            require_monthly(wrong, "theta")


def test_months_covered_are_the_first_and_the_last():
    theta = monthly("2015-02", "2016-11")
    assert months_covered(theta) == "2015-02 to 2016-11"
    days = xr.date_range("2015-02", periods=22, freq="MS", calendar="360_day", use_cftime=True)
    assert months_covered(theta.assign_coords(time=days)) == "2015-02 to 2016-11"
