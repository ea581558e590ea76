"""What the readers of the two archives share."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore import native


def part(path, months, values, lat=(0.0, 1.0), lon=(5.0, 6.0, 7.0)):
    """theta of a file: the same value in every cell of a month."""
    cells = np.ones((1, len(lat), len(lon))) * np.asarray(values, float)[:, None, None]
    coords = {"time": pd.DatetimeIndex(months), "lat": list(lat), "lon": list(lon)}
    return xr.DataArray(cells, coords, name="theta", attrs={"path": path})


@pytest.mark.parametrize(
    ("values", "units", "calendar", "expected"),
    [
        # day 59 after the first of January: 1 March in a year of 365 days, 29 February 2000 in
        # the standard calendar, and in months of 30 days the last of February
        ([0, 59], "days since 2000-01-01", "noleap", ["2000-01-01", "2000-03-01"]),
        ([0, 59], "days since 2000-01-01", "standard", ["2000-01-01", "2000-02-01"]),
        ([0, 59], "days since 2000-01-01", "360_day", ["2000-01-01", "2000-02-01"]),
        ([24 * 31], "hours since 1999-12-01", "standard", ["2000-01-01"]),
        ([20241001, 20241131 - 30], None, None, ["2024-10-01", "2024-11-01"]),
    ],
)
def test_months_are_those_of_the_calendar_of_the_file(values, units, calendar, expected):
    attributes = {"units": units, "calendar": calendar} if units else {}
    found = native.months(xr.DataArray(values, dims="time", attrs=attributes))
    assert list(found) == list(pd.DatetimeIndex(expected))


@pytest.mark.parametrize(
    ("values", "units", "words"),
    [
        ([0, np.nan], "days since 2000-01-01", "1 of 2 time stamps are missing"),
        ([], "days since 2000-01-01", "0 of 0 time stamps are missing"),
        ([0.0], "days of yore", "cannot be decoded"),
        ([20241301], None, "cannot be decoded"),
        ([0.5], None, "cannot be decoded"),
    ],
)
def test_months_names_a_time_without_dates(values, units, words):
    time = xr.DataArray(values, dims="time", attrs={"units": units} if units else {})
    with pytest.raises(native.Problem, match=words) as error:
        native.months(time)
    assert error.value.kind == "time"


def test_shown_leaves_out_the_middle_of_a_long_list():
    months = pd.date_range("2000-01", periods=8, freq="MS")
    assert native.shown(months[:2]) == "2000-01, 2000-02"
    assert native.shown(months) == "2000-01, 2000-02, 2000-03, 2000-04, 2000-05, ..., 2000-08"


def test_on_axes_and_ascending_put_a_field_in_standard_order():
    field = xr.DataArray(
        np.arange(8.0).reshape(1, 1, 2, 4),
        {"time": [0], "height": [2], "latitude": [45.0, 0.0], "longitude": [0.0, 90, 200, 355]},
        name="mrsos",
    )
    found = native.ascending(native.on_axes(field))
    assert found.dims == ("time", "lat", "lon")
    assert list(found["lat"]) == [0, 45]
    assert list(found["lon"]) == [-160, -5, 0, 90]
    # the southern row is 4 5 6 7 at 0, 90, 200 and 355 degrees east
    assert found[0, 0].values.tolist() == [6, 7, 4, 5]


def test_on_axes_refuses_layers_and_impossible_latitudes():
    layers = part("a", ["2000-01-01"], [1]).expand_dims(depth=[0, 1])
    with pytest.raises(native.Problem, match="depth 2, time 1, lat 2, lon 3; .*one layer"):
        native.on_axes(layers)
    with pytest.raises(native.Problem, match="-90..90"):
        native.on_axes(part("a", ["2000-01-01"], [1], lat=(0, 100)))


def test_join_takes_each_month_from_the_part_that_begins_first():
    late = part("late", ["2000-03-01", "2000-02-01"], [3, 20])
    early = part("early", ["2000-01-01", "2000-02-01"], [1, 2])
    problems = []
    series = native.join([late, early], problems, tolerance=0.1, limits=(-1, 100))
    assert list(series.indexes["time"].month) == [1, 2, 3]
    assert series[:, 0, 0].values.tolist() == [1, 2, 3]
    ((kind, text),) = problems
    assert kind == "conflicting_months" and text.startswith("early, late: disagree on 2000-02, by")
    assert "2000-03" not in text


def test_join_takes_what_is_missing_or_a_fill_value_for_nothing():
    one = part("one", ["2000-01-01"], [0.0])
    for value in (np.nan, 1e20, -9999):
        other = part("two", ["2000-01-01"], [value])
        problems = []
        native.join([one, other], problems, tolerance=0.1, limits=(-1, 100))
        assert problems == [["repeated_months", "one, two: 2000-01 repeated, and equal"]]
    native.join([one], problems, tolerance=0.1, limits=(-1, 100))
    assert len(problems) == 1


def test_on_one_grid_names_the_part_that_lies_elsewhere():
    problems, months = [], ["2000-01-01"]
    parts = [
        part("one", months, [1]),
        part("near", months, [1], lat=(0.0, 1.0001)),
        part("elsewhere", months, [1], lon=(5.0, 6.0, 8.0)),
    ]
    kept = native.on_one_grid(parts, problems)
    assert [p.attrs["path"] for p in kept] == ["one", "near"]
    assert kept[1].indexes["lat"].equals(kept[0].indexes["lat"])
    ((kind, text),) = problems
    assert kind == "grid" and text.startswith("elsewhere: not on one grid with one: lon differs")
    assert "3 from 5 to 8, expected 3 from 5 to 7" in text


def test_collecting_goes_on_behind_a_problem(tmp_path):
    problems, path = [], tmp_path / "a.nc"
    path.write_text("<html>404</html>")
    with native.collecting(problems, "Oak ssp126"):
        raise native.Problem("units", "in mm")
    with native.collecting(problems, path):
        native.open_netcdf(path)
    assert problems == [
        ["units", "Oak ssp126: in mm"],
        ["unreadable", f"{path}: is a web page; fetch it again"],
    ]
    with pytest.raises(KeyError), native.collecting(problems, "Oak ssp126"):  # our own mistake
        raise KeyError("lat")


@pytest.mark.parametrize(("form", "kind"), [("NETCDF4", "NetCDF-4"), ("NETCDF3_64BIT", "NetCDF-3")])
def test_kind_of_looks_at_the_content(tmp_path, form, kind):
    path = tmp_path / "a.grib"
    part("a", ["2000-01-01"], [1]).to_netcdf(path, format=form, engine="netcdf4")
    assert native.kind_of(path) == kind
    path.write_text("no data")
    assert native.kind_of(path) is None
