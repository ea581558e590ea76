from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore import demo, prepared, product
from smcore.changes import (
    amounts,
    change_rate,
    every_product,
    portrait,
    product_and_sources,
    regional_means,
    running_change,
    two_averages,
)

EAST = {"south": 0, "north": 90, "west": 95, "east": 180}


@pytest.fixture
def theta():
    time = pd.date_range("1995-01", "2040-12", freq="MS")
    rng = np.random.default_rng(0)
    field = xr.DataArray(
        0.3 + 0.05 * rng.normal(size=(time.size, 3, 4)),
        dims=("time", "lat", "lon"),
        coords={"time": time, "lat": [60.0, 40, 20], "lon": [80.0, 90, 100, 110]},
        attrs={"units": "m3 m-3"},
    )
    return field.where((field.lat != 60) | (field.lon != 110))  # one cell of ocean


def step(theta, *, before, after):
    return xr.where(theta.time.dt.year < 2015, before, after) * xr.ones_like(theta)


PERIODS = {"period": ("2021", "2040"), "baseline": ("1995", "2014")}


def test_change_rate_of_a_step(theta):
    rate = change_rate(step(theta, before=0.2, after=0.25), **PERIODS)
    np.testing.assert_allclose(rate, 25)
    assert rate.attrs["units"] == "%"
    np.testing.assert_allclose(change_rate(step(theta, before=0.2, after=0.17), **PERIODS), -15)


def test_change_rate_agrees_with_a_slow_loop(theta):
    sums = {"period": [], "baseline": []}
    for i, time in enumerate(pd.to_datetime(theta.time.values)):
        if time.month not in (5, 6):
            continue
        total = weight = 0
        for j, lat in enumerate(theta.lat.values):
            for k in (2, 3):  # 100 and 110 E
                if np.isfinite(theta.values[i, j, k]):
                    total += np.cos(np.deg2rad(lat)) * theta.values[i, j, k]
                    weight += np.cos(np.deg2rad(lat))
        if 2021 <= time.year <= 2040:
            sums["period"].append(total / weight)
        if 1995 <= time.year <= 2014:
            sums["baseline"].append(total / weight)
    expected = 100 * (np.mean(sums["period"]) / np.mean(sums["baseline"]) - 1)
    np.testing.assert_allclose(change_rate(theta, **PERIODS, months=[5, 6], region=EAST), expected)


def test_change_rate_is_a_ratio_of_means_not_a_mean_of_ratios():
    time = pd.date_range("2000-01", "2001-12", freq="MS")
    values = np.repeat([[[0.1, 0.3]], [[0.2, 0.3]]], 12, axis=0)  # one cell doubles, one stays
    theta = xr.DataArray(
        values, dims=("time", "lat", "lon"), coords={"time": time, "lat": [30.0], "lon": [80.0, 90]}
    )
    rate = change_rate(theta, period=("2001", "2001"), baseline=("2000", "2000"))
    np.testing.assert_allclose(rate, 25)  # 0.5 / 0.4, where the mean of ratios gives 50


def test_region_as_a_mask_and_as_bounds_agree(theta):
    mask = (theta.lon >= 95) & (theta.lat < 90)
    bounds = change_rate(theta, **PERIODS, region=EAST)
    np.testing.assert_allclose(change_rate(theta, **PERIODS, region=mask), bounds)


def test_neighbouring_regions_share_no_cell(theta):
    # the border runs through the cells at 40 N: they belong to the north
    wet = theta.where(theta.lat >= 40, 1.0)
    north = {"south": 40, "north": 90, "west": 0, "east": 180}
    south = north | {"south": 0, "north": 40}
    np.testing.assert_allclose(change_rate(wet, **PERIODS, region=south), 0, atol=1e-9)
    expected = change_rate(theta.sel(lat=[60, 40]), **PERIODS)
    np.testing.assert_allclose(change_rate(wet, **PERIODS, region=north), expected)


def test_december_belongs_to_the_winter_of_the_following_year(theta):
    december = theta.time.dt.month == 12
    year = theta.time.dt.year
    # wet: December 2020; the winter of 2021 has it, the calendar year 2021 does not
    field = xr.ones_like(theta).where(~(december & (year == 2020)), 4.0)
    one = {"period": ("2021", "2021"), "baseline": ("1996", "1996")}
    np.testing.assert_allclose(change_rate(field, **one, months=[12, 1, 2]), 100)
    np.testing.assert_allclose(change_rate(field, **one, months=[12]), 0)
    np.testing.assert_allclose(change_rate(field, **one), 0)
    # likewise November, where the season begins with it
    field = xr.ones_like(theta).where(~((theta.time.dt.month == 11) & (year == 2020)), 5.0)
    np.testing.assert_allclose(change_rate(field, **one, months=[11, 12, 1, 2]), 100)


def test_an_incomplete_winter_is_left_out(theta):
    # the record begins in January 1995, so the first full winter is that of 1996
    field = theta.where(theta.time.dt.year > 1995, 9.0)
    field = field.where(field.time >= np.datetime64("1995-12-01"), 99.0)
    winter = change_rate(field, **PERIODS, months=[12, 1, 2])
    later = change_rate(
        field, period=("2021", "2040"), baseline=("1996", "2014"), months=[1, 12, 2]
    )
    np.testing.assert_allclose(winter, later)


def test_change_rate_keeps_further_dimensions_and_works_on_dask(theta):
    both = xr.concat([theta, 2 * theta], pd.Index(["ssp126", "ssp585"], name="experiment_id"))
    rate = change_rate(both.chunk(time=100), **PERIODS)
    assert rate.dims == ("experiment_id",)
    np.testing.assert_allclose(rate, float(change_rate(theta, **PERIODS)))


def test_change_rate_works_on_a_360_day_calendar(theta):
    time = xr.date_range(
        "1995-01", periods=theta.sizes["time"], freq="MS", calendar="360_day", use_cftime=True
    )
    expected = change_rate(theta, **PERIODS, months=[12, 1, 2])
    result = change_rate(theta.assign_coords(time=time), **PERIODS, months=[12, 1, 2])
    np.testing.assert_allclose(result, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"period": ("2071", "2100")}, "`period`.*2071 to 2100.*1995-01 to 2040-12"),
        ({"baseline": ("1980", "1990")}, "`baseline`.*1980 to 1990"),
        ({"baseline": ("1995", "1995"), "months": [12, 1, 2]}, "`baseline`.*all of the months"),
        ({"period": ("2021-06", "2040")}, "`period` must be a first and a last year"),
        ({"months": [0]}, "`months` must be numbers from 1 to 12"),
        ({"months": []}, "`months`"),
        ({"region": EAST | {"west": 120}}, "`region` must contain cells.*lon 80 to 110"),
        (
            {"region": {"south": 10, "north": 30}},
            "`region` must have the keys south, north, west, east",
        ),
        ({"region": {"south": 50, "north": 70, "west": 105, "east": 120}}, "`region`.*only NaN"),
    ],
)
def test_change_rate_says_what_is_wrong(theta, arguments, message):
    with pytest.raises(ValueError, match=message):
        change_rate(theta, **(PERIODS | arguments))


def test_region_mask_must_be_boolean_or_weights_and_on_the_same_grid(theta):
    first = theta.isel(time=0)
    with pytest.raises(ValueError, match="`region` must be a mask .bool. or weights .float."):
        change_rate(theta, **PERIODS, region=(first > 0).astype(int))
    with pytest.raises(ValueError, match="`region` must hold weights of at least 0, got NaN"):
        change_rate(theta, **PERIODS, region=first)  # missing over the ocean
    with pytest.raises(ValueError, match="`region` must contain cells.*got none"):
        change_rate(theta, **PERIODS, region=first > 9)
    shifted = (first > 0).assign_coords(lat=theta.lat + 1)
    for region in (shifted, shifted.astype(float)):
        with pytest.raises(ValueError, match="lat"):
            change_rate(theta, **PERIODS, region=region)


def test_a_region_can_be_the_weights_of_its_cells(theta):
    mask = (theta.lon >= 95) & (theta.lat < 90)
    # the exact area of evenly spaced cells is proportional to cos(lat), as a mask is weighted
    south, north = (np.sin(np.deg2rad(theta.lat + half)) for half in (-10, 10))
    area = 6.4e6**2 * (north - south) * mask
    expected = change_rate(theta, **PERIODS, region=mask)
    np.testing.assert_allclose(change_rate(theta, **PERIODS, region=area), expected)
    # two cells, one with three times the weight: (3 * 0.1 + 0.3) / 4 becomes (3 * 0.2 + 0.3) / 4
    two = step(theta, before=0.1, after=0.2).where(theta.lon < 95, 0.3).isel(lat=[1])
    weights = (two.isel(time=0) * 0).where(two.lon < 95, 1.0)
    weights = weights.where(two.lon != 80, 3.0).where(two.lon != 110, 0.0)
    np.testing.assert_allclose(change_rate(two, **PERIODS, region=weights), 50)


def test_regional_means_are_those_of_a_slow_loop(theta):
    mask = (theta.lat > 30) & (theta.lon > 85)
    both = xr.concat([theta, 2 * theta], pd.Index(["a", "b"], name="source_id"))
    means = regional_means(both.chunk(time=100), regions={"part": mask, "east": EAST})
    assert means.dims == ("source_id", "region", "time")
    assert means.region.values.tolist() == ["part", "east"]
    assert means.attrs["units"] == "m3 m-3"
    cells = [(60, 90), (60, 100), (40, 90), (40, 100), (40, 110)]  # 60 N, 110 E is ocean
    for month in (0, 7):
        values = [float(theta.isel(time=month).sel(lat=lat, lon=lon)) for lat, lon in cells]
        expected = np.average(values, weights=[np.cos(np.deg2rad(lat)) for lat, _ in cells])
        np.testing.assert_allclose(means.sel(source_id="b", region="part")[month], 2 * expected)


def test_regional_means_name_the_region_that_is_wrong(theta):
    with pytest.raises(ValueError, match="region 'nowhere' must contain cells"):
        regional_means(theta, regions={"east": EAST, "nowhere": EAST | {"west": 150}})


@pytest.fixture
def two_cells():
    """A dry cell that doubles from 0.1, a wet one that stays at 0.3."""
    time = pd.date_range("2000-01", "2001-12", freq="MS")
    values = np.repeat([[[0.1, 0.3]], [[0.2, 0.3]]], 12, axis=0)
    coords = {"time": time, "lat": [30.0], "lon": [80.0, 90]}
    return xr.DataArray(values, coords, ("time", "lat", "lon"))


def test_two_averages_worked_by_hand(two_cells):
    found = two_averages(two_cells, period=("2001", "2001"), baseline=("2000", "2000"))
    expected = {
        "ratio_of_means": 25,  # 0.5 / 0.4
        "mean_of_ratios": 50,  # of 100 and 0
        "drier_half": 100,
        "wetter_half": 0,
        "drier_half_water": 25,  # 0.1 of 0.4
    }
    assert {name: pytest.approx(float(value)) for name, value in found.items()} == expected


def test_two_averages_differ_by_the_covariance_of_water_and_ratio(theta):
    summer = {"months": [6, 7, 8], "region": EAST}
    found = two_averages(theta, **PERIODS, **summer)
    np.testing.assert_allclose(found.ratio_of_means, change_rate(theta, **PERIODS, **summer))

    season = theta.isel(time=theta.time.dt.month.isin([6, 7, 8]), lon=[2, 3])
    earlier = season.sel(time=slice("1995", "2014")).mean("time").values
    ratio = 100 * (season.sel(time=slice("2021", "2040")).mean("time").values / earlier - 1)
    weight = np.cos(np.deg2rad(theta.lat.values))[:, None] * np.isfinite(ratio)
    weight, ratio, earlier = weight / weight.sum(), np.nan_to_num(ratio), np.nan_to_num(earlier)
    mean = (weight * ratio).sum()
    water = (weight * earlier).sum()
    covariance = (weight * (ratio - mean) * (earlier - water)).sum()
    np.testing.assert_allclose(found.mean_of_ratios, mean)
    np.testing.assert_allclose(found.ratio_of_means, mean + covariance / water)


def test_two_averages_weigh_the_halves_with_their_water(theta):
    found = two_averages(theta, **PERIODS)
    dry = found.drier_half_water / 100
    sum_of_both = dry * found.drier_half + (1 - dry) * found.wetter_half
    np.testing.assert_allclose(sum_of_both, found.ratio_of_means)


def test_two_averages_leave_out_cells_without_a_ratio(two_cells):
    # 70 E has no water in the baseline, 100 E lacks a month of it
    empty = two_cells.isel(lon=[0]).assign_coords(lon=[70.0]) * 0
    gap = two_cells.isel(lon=[0]).assign_coords(lon=[100.0])
    gap = gap.where(gap.time != np.datetime64("2000-05-01"))
    more = xr.concat([empty, two_cells, gap], "lon")
    found = two_averages(more, period=("2001", "2001"), baseline=("2000", "2000"))
    assert float(found.mean_of_ratios) == pytest.approx(50)
    assert float(found.ratio_of_means) == pytest.approx(25)
    with pytest.raises(ValueError, match="`region` must contain values"):
        two_averages(gap, period=("2001", "2001"), baseline=("2000", "2000"))


def test_two_averages_take_one_field_only(theta):
    both = theta.expand_dims(source_id=["a"])
    with pytest.raises(ValueError, match="`theta` must have the dimensions time, lat, lon"):
        two_averages(both, **PERIODS)


def test_portrait_holds_the_change_rates(theta):
    regions = {"east": EAST, "all": None, "south": (theta.lat < 50) & (theta.lon > 0)}
    periods = [("2021", "2030"), ("2031", "2040")]
    means = regional_means(theta, regions=regions)
    result = portrait(means, periods=periods, baseline=("1995", "2014"))
    assert result.dims == ("region", "part", "period")
    assert result.sizes == {"region": 3, "part": 17, "period": 2}
    assert result.part.values.tolist()[:6] == ["annual", "MAM", "JJA", "SON", "DJF", "Jan"]
    assert result.attrs["units"] == "%"
    for label, months in {"annual": None, "DJF": [12, 1, 2], "May": [5]}.items():
        expected = change_rate(
            theta, period=("2031", "2040"), baseline=("1995", "2014"), months=months, region=EAST
        )
        cell = result.sel(region="east", part=label, period="2031-2040")
        np.testing.assert_allclose(cell, expected)


def test_amounts_are_those_worked_by_hand(theta):
    summer = theta.time.dt.month.isin([6, 7, 8])
    series = xr.where(theta.time.dt.year < 2015, 0.2, xr.where(summer, 0.29, 0.25))
    found = amounts(series.expand_dims(dataset=["a", "b"]), **PERIODS)
    np.testing.assert_allclose(found.sel(quantity="baseline"), 0.2)
    # 0.05 more, in summer 0.09: of the year (9 0.05 + 3 0.09) / 12
    later = {"annual": 60, "MAM": 50, "JJA": 90, "SON": 50, "DJF": 50}
    assert list(found["part"].values) == list(later)
    for part, value in later.items():
        np.testing.assert_allclose(found.sel(part=part, quantity="change"), [value, value])


def test_portrait_puts_further_dimensions_first(theta):
    both = xr.concat([theta, theta], pd.Index(["ssp126", "ssp585"], name="experiment_id"))
    means = regional_means(both, regions={"all": None})
    result = portrait(means, periods=[("2021", "2040")], baseline=("1995", "2014"))
    assert result.dims == ("experiment_id", "region", "part", "period")


def test_running_change_parts_the_historical_run_from_the_scenarios_that_continue_it():
    time = pd.date_range("1995-01", "2029-12", freq="MS")
    year = xr.DataArray(time.year, {"time": time})
    # in % of the baseline's mean, which is that of 2004.5: straight on, or twice as steep from 2010
    straight = year - 2004.5
    steeper = straight + (year - 2009).clip(0)
    both = xr.concat([straight, steeper], pd.Index(["ssp126", "ssp585"], name="experiment_id"))
    series = 0.2 * (1 + both / 100)
    periods = SimpleNamespace(baseline=("2000", "2009"), future=("2010", "2029"))
    found = running_change(series, periods)
    assert found.attrs == {"units": "%", "long_name": "change from 2000-2009"}
    past, low, high = (one.dropna("year") for one in found)
    assert found["experiment_id"].values.tolist() == ["historical", "ssp126", "ssp585"]
    assert (past.year[0], past.year[-1], low.year[0], low.year[-1]) == (2000, 2004, 2004, 2024)
    np.testing.assert_allclose(past, past.year - 2004.5)
    np.testing.assert_allclose(low, low.year - 2004.5)
    # the mean about 2005 is the first that holds a year of the future: 1 % more in one of eleven
    np.testing.assert_allclose(
        high.sel(year=[2004, 2005, 2006]), [-0.5, 0.5 + 1 / 11, 1.5 + 3 / 11]
    )


COARSE = {"lat": [31.0, 33], "lon": [71.0, 73, 75]}
FINE = {"lat": np.arange(30.5, 34), "lon": np.arange(70.5, 76)}
MASKS = {"two columns": xr.DataArray(np.isin(FINE["lon"], [72.5, 73.5]), {"lon": FINE["lon"]})}
MASKS["two columns"] = MASKS["two columns"].expand_dims(lat=FINE["lat"])


def twice(value, run, cells):
    """Months of one value in 2000 to 2009, of twice that in 2010 to 2029."""
    first, last = ("2000", "2010") if run == "historical" else ("2010", "2030")
    time = pd.date_range(first, last, freq="MS", inclusive="left")
    field = xr.DataArray(value * (1 + (time.year > 2009)), {"time": time}, ["time"])
    return field * xr.DataArray(1.0, cells, ("lat", "lon"))


@pytest.fixture
def study(monkeypatch):
    """A product of 0.3, two sources whose interpolated mean over the columns is 0.12 and 0.24."""

    def predictors(_, run):
        field = twice(0.1, run, COARSE)
        field = field * (1 + 0.1 * (field.lon - 71))  # 0.1 at 71 E, 0.14 at 75 E
        return xr.concat([field, 2 * field], xr.Variable("source_id", ["A", "B"]))

    def reference(_):
        field = twice(0.2, "historical", FINE)
        return field + 0.01 * field.time.dt.month

    monkeypatch.setattr(prepared, "open_predictors", predictors)
    monkeypatch.setattr(prepared, "open_reference", reference)
    monkeypatch.setattr(product, "open_product", lambda run: twice(0.3, run, FINE))
    monkeypatch.setattr(demo, "truth", lambda _, run: {"theta": twice(0.4, run, FINE)})
    study = SimpleNamespace(experiments=["ssp126", "ssp585"], product=str, synthetic=True)
    study.periods = SimpleNamespace(train=("2000", "2009"))
    study.presets = {"sound": study}
    return study


def test_product_and_sources_are_regional_means_of_the_same_cells(study):
    found = product_and_sources(study, regions=MASKS)
    assert found.dims == ("source_id", "experiment_id", "region", "time")
    assert found["source_id"].values.tolist() == ["product", "A", "B"]
    assert found["experiment_id"].values.tolist() == ["ssp126", "ssp585"]
    for year, factor in (("2009", 1), ("2010", 2)):
        for name, value in {"product": 0.3, "A": 0.12, "B": 0.24}.items():
            here = found.sel(source_id=name, time=year)
            assert here.size == 24
            np.testing.assert_allclose(here, factor * value, rtol=1e-6)


def test_every_product_has_networks_truth_delta_change_and_ensemble_mean(study):
    series = product_and_sources(study, regions=MASKS)
    found = every_product(study, series, regions=MASKS)
    assert found.dims == ("dataset", "region", "time")
    here = found.sel(region="two columns")
    for name, value in {"ynet_sound": 0.3, "truth": 0.4, "ensemble_mean": 0.18}.items():
        np.testing.assert_allclose(here.sel(dataset=name, time="2009"), value, rtol=1e-6)
        np.testing.assert_allclose(here.sel(dataset=name, time="2010"), 2 * value, rtol=1e-6)
    # 0.21 in a January of the reference; of the 26 Januaries within 15 years of 2010 in the record
    # 16 are of the scenario, 0.18 above those before, and so are all of those of 2029
    delta = here.sel(dataset="delta_change_31", time=["2010-01-01", "2029-01-01"])
    np.testing.assert_allclose(delta, [0.21 + 0.18 * 16 / 26, 0.39], rtol=1e-6)
    study.synthetic = False
    names = every_product(study, series, regions=MASKS)["dataset"].values.tolist()
    assert names == ["ynet_sound", "delta_change_31", "ensemble_mean"]
