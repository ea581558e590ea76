"""CMIP6 files as archives hold them, with the traps of real ones."""

import os
import re
import shutil
from pathlib import Path

import cftime
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore.cmip6 import QualityReport, find_sources, open_mrsos, read_series, select_files
from smcore.config import Domain

LAT, LON = [-30.0, 0.0, 45.0], [0.0, 90.0, 200.0, 355.0]
# Each cell holds another value: 10 kg m-2 and more, growing northward and eastward.
CELLS = 10 + 4 * np.arange(3)[:, None] + np.arange(4)[None, :]


def name(period, source_id="Oak", experiment_id="historical", member="r1i1p1f1", grid="gn"):
    return f"mrsos_Lmon_{source_id}_{experiment_id}_{member}_{grid}_{period}.nc"


def months(first, count):
    start = pd.Period(f"{first[:4]}-{first[4:]}", "M")
    return [(month.year, month.month) for month in start + np.arange(count + 1)]


@pytest.fixture
def write(tmp_path):
    """A function that writes one file; the value grows by 1 kg m-2 each month."""

    def write(
        first="200001",
        count=12,
        *,
        calendar="standard",
        lat=LAT,
        lon=LON,
        stamp="middle",
        bounds=True,
        units="kg m-2",
        variable="mrsos",
        values=None,
        fill=None,
        version="v20200101",
        file_name=None,
        depth=0.1,
        **facets,
    ):
        unit = "days since 1850-01-01"
        dates = [cftime.datetime(y, m, 1, calendar=calendar) for y, m in months(first, count)]
        edges = cftime.date2num(dates, unit, calendar).astype(float)
        weights = {"start": (1, 0), "middle": (0.5, 0.5), "end": (0, 1)}[stamp]
        field = CELLS + np.arange(count)[:, None, None] if values is None else values
        order = np.argsort(np.argsort(lat)), np.argsort(np.argsort(np.mod(lon, 360)))
        field = np.asarray(field, "f4")[:, order[0]][:, :, order[1]]
        dataset = xr.Dataset(
            {
                variable: (("time", "lat", "lon"), field, {"units": units}),
                "time_bnds": (("time", "bnds"), np.stack([edges[:-1], edges[1:]], -1)),
                "lat_bnds": (("lat", "bnds"), np.stack([lat, lat], -1)),
                "depth_bnds": (("bnds",), [0.0, depth]),
            },
            coords={
                "time": (
                    "time",
                    weights[0] * edges[:-1] + weights[1] * edges[1:],
                    {"units": unit, "calendar": calendar, "bounds": "time_bnds"},
                ),
                "lat": ("lat", lat, {"units": "degrees_north", "bounds": "lat_bnds"}),
                "lon": ("lon", lon, {"units": "degrees_east"}),
                "depth": ((), 0.05, {"bounds": "depth_bnds", "units": "m"}),
            },
            attrs={"tracking_id": f"hdl:21.14100/{first}"},
        )
        if not bounds:
            dataset = dataset.drop_vars("time_bnds")
            del dataset["time"].attrs["bounds"]
        last = "{:04d}{:02d}".format(*months(first, count)[-2])
        path = tmp_path / "archive" / version / (file_name or name(f"{first}-{last}", **facets))
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {key: {"_FillValue": None} for key in dataset.variables}
        dataset.to_netcdf(path, encoding=plain | {variable: {"_FillValue": fill}})
        return path

    return write


def opened(path, **options):
    return open_mrsos(path.parents[1], "Oak", "historical", **options)


def reported(path, **options):
    files = find_sources(path.parents[1])
    return read_series(files, "Oak", "historical", **options)[1]


def kinds(path, **options):
    return [kind for kind, _ in reported(path, **options).problems]


# --- finding -----------------------------------------------------------------------------


def test_find_sources_lists_files_by_their_facets(write, tmp_path):
    write("200001", version="v20190101")
    write("201501", experiment_id="ssp126", source_id="Ash-2", member="r2i1p1f3", grid="gr1")
    write("200001", file_name="tas_Amon_Oak_historical_r1i1p1f1_gn_200001-200012.nc")
    (tmp_path / "archive" / ".mrsos_Lmon_Oak_historical_r1i1p1f1_gn_200001-200012.nc.part").touch()
    files = find_sources(tmp_path / "archive").sort_values("source_id").reset_index(drop=True)
    assert list(files["source_id"]) == ["Ash-2", "Oak"]
    assert list(files["experiment_id"]) == ["ssp126", "historical"]
    assert list(files["variant_label"]) == ["r2i1p1f3", "r1i1p1f1"]
    assert list(files["grid_label"]) == ["gr1", "gn"]
    assert list(files["version"]) == ["v20200101", "v20190101"]
    assert list(files["first"]) == ["201501", "200001"]
    assert list(files["last"]) == ["201512", "200012"]


def test_find_sources_says_what_a_file_is_called_when_there_is_none(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match="mrsos_Lmon_<source>_<experiment>"):
            find_sources(folder)


def test_select_files_takes_the_newest_version(write):
    write(version="v20190101", values=np.full((12, 3, 4), 10))
    path = write(version="v20200101", values=np.full((12, 3, 4), 20))
    write(version="v20181231", values=np.full((12, 3, 4), 30))
    files = select_files(find_sources(path.parents[1]), "Oak", "historical")
    assert list(files["path"]) == [path]
    np.testing.assert_allclose(opened(path), 0.2, rtol=1e-6)
    np.testing.assert_allclose(opened(path, version="v20181231"), 0.3, rtol=1e-6)
    with pytest.raises(ValueError, match="no version v1; there are.*v20190101"):
        opened(path, version="v1")


def test_open_mrsos_names_the_members_that_could_be_meant(write):
    write(member="r1i1p1f1", values=np.full((12, 3, 4), 10))
    path = write(member="r2i1p1f1", values=np.full((12, 3, 4), 20))
    with pytest.raises(ValueError, match=r"Oak historical.*'r1i1p1f1', 'r2i1p1f1'.*name one"):
        opened(path)
    np.testing.assert_allclose(opened(path, variant_label="r2i1p1f1"), 0.2, rtol=1e-6)
    with pytest.raises(ValueError, match="r3i1p1f1.*'r1i1p1f1', 'r2i1p1f1'"):
        opened(path, variant_label="r3i1p1f1")


def test_open_mrsos_names_the_grids_that_could_be_meant(write):
    write(grid="gn")
    path = write(grid="gr", values=np.full((12, 3, 4), 20))
    with pytest.raises(ValueError, match="grid_label.*'gn', 'gr'"):
        opened(path)
    np.testing.assert_allclose(opened(path, grid_label="gr"), 0.2, rtol=1e-6)
    with pytest.raises(ValueError, match="no grid_label gr1; there are.*'gn', 'gr'"):
        opened(path, grid_label="gr1")


def test_open_mrsos_names_what_is_not_there(write):
    path = write()
    with pytest.raises(ValueError, match="Elder ssp126.*fetch it or leave the source out"):
        open_mrsos(path.parents[1], "Elder", "ssp126")


# --- axes and months ---------------------------------------------------------------------


def test_open_mrsos_gives_volumes_on_standard_axes(write):
    theta = opened(write(depth=0.05))  # wrong bounds, as in the ACCESS models
    assert theta.dims == ("time", "lat", "lon")
    assert (theta.name, theta.attrs["units"]) == ("theta", "m3 m-3")
    assert list(theta["lat"]) == LAT
    assert list(theta["lon"]) == [-160, -5, 0, 90]
    assert list(theta.indexes["time"]) == list(pd.date_range("2000-01", "2000-12", freq="MS"))
    # 10 kg m-2 at the first cell in January, 1 more each month: 0.1 m3 m-3 and 0.01;
    # always by 0.1 m, whatever the depth bounds say
    np.testing.assert_allclose(theta.sel(lat=-30, lon=0), 0.1 + 0.01 * np.arange(12), rtol=1e-6)
    np.testing.assert_allclose(theta[0].sel(lat=45, lon=-5), 0.21, rtol=1e-6)
    assert set(theta.coords) == {"time", "lat", "lon"}


@pytest.mark.parametrize("lat", [LAT, LAT[::-1]])
@pytest.mark.parametrize("lon", [LON, [-160.0, -5.0, 0.0, 90.0], [200.0, 355.0, 360.0, 450.0]])
def test_open_mrsos_takes_any_order_of_latitudes_and_longitudes(write, lat, lon):
    theta = opened(write(lat=lat, lon=lon))
    xr.testing.assert_identical(
        theta["lat"].drop_attrs(), xr.DataArray(LAT, [("lat", LAT)], name="lat")
    )
    assert list(theta["lon"]) == [-160, -5, 0, 90]
    for y, south in enumerate(LAT):
        for x, east in enumerate([0, 90, -160, -5]):
            np.testing.assert_allclose(theta[0].sel(lat=south, lon=east), CELLS[y, x] / 100)


def test_open_mrsos_takes_rows_on_the_poles(write):
    theta = opened(write(lat=[90.0, 0.0, -90.0]))
    assert list(theta["lat"]) == [-90, 0, 90]


@pytest.mark.parametrize(
    "calendar", ["standard", "proleptic_gregorian", "noleap", "365_day", "360_day", "julian"]
)
@pytest.mark.parametrize(
    ("stamp", "bounds"), [("middle", True), ("start", True), ("end", True), ("middle", False)]
)
def test_open_mrsos_matches_months_by_year_and_month(write, calendar, stamp, bounds):
    path = write("199911", 16, calendar=calendar, stamp=stamp, bounds=bounds)
    theta = opened(path)
    assert list(theta.indexes["time"]) == list(pd.date_range("1999-11", "2001-02", freq="MS"))
    assert reported(path).calendar == calendar
    np.testing.assert_allclose(theta.sel(time="2000-02")[0, 0, 2], 0.13, rtol=1e-6)


def test_open_mrsos_joins_files_whatever_their_names_say_if_that_is_accepted(write):
    write("200101", 12, values=CELLS + 12.0 + np.arange(12)[:, None, None])
    path = write("200001", 12, file_name=name("200201-200212"))
    with pytest.raises(ValueError, match="months 200001-200012.*accept file_name for Oak"):
        opened(path, period=("2000", "2001"))
    theta = opened(path, period=("2000", "2001"), accepted=("file_name",))
    np.testing.assert_allclose(theta.sel(lat=-30, lon=0), 0.1 + 0.01 * np.arange(24), rtol=1e-6)
    assert sorted(theta.attrs["tracking_ids"]) == ["hdl:21.14100/200001", "hdl:21.14100/200101"]


def test_open_mrsos_takes_a_month_of_two_overlapping_files_once(write):
    write("200001", 18)
    path = write("200101", 12, values=CELLS + 12.0 + np.arange(12)[:, None, None])
    theta = opened(path, period=("2000", "2001"))
    assert theta.indexes["time"].is_unique
    np.testing.assert_allclose(theta.sel(lat=-30, lon=0), 0.1 + 0.01 * np.arange(24), rtol=1e-6)
    assert kinds(path) == ["repeated_months"]


def test_open_mrsos_refuses_overlapping_files_that_disagree(write):
    one = write("200001", 18)
    path = write("200101", 12, values=CELLS + 20.0 + np.arange(12)[:, None, None])
    with pytest.raises(ValueError, match="disagree on 2001-01, 2001-02.*keep the right") as error:
        opened(path)
    assert str(one) in str(error.value) and str(path) in str(error.value)
    theta = opened(path, accepted=("conflicting_months",)).sel(lat=-30, lon=0)
    np.testing.assert_allclose(theta[:18], 0.1 + 0.01 * np.arange(18), rtol=1e-6)  # the first file
    np.testing.assert_allclose(theta[18:], 0.3 + 0.01 * np.arange(6, 12), rtol=1e-6)


def test_open_mrsos_fills_only_a_first_month_and_only_by_the_rule_that_is_asked_for(write):
    path = write("200002", 12 * 12 - 1)
    with pytest.raises(ValueError, match="2000-01.*missing_first_month: climatology"):
        opened(path, period=("2000", "2011"))
    theta = opened(path, period=("2000", "2011"), missing_first_month="climatology")
    assert theta.sizes["time"] == 144
    # February 2000 has 10 kg m-2, January of 2001, 2002, ... 2010 have 21, 33, ... 129, of which
    # the last three are limited to 100: mean(21, 33, 45, 57, 69, 81, 93, 100, 100, 100) = 69.9
    np.testing.assert_allclose(theta.sel(time="2000-01", lat=-30, lon=0), 0.699, rtol=1e-6)
    np.testing.assert_allclose(theta.sel(time="2000-02", lat=-30, lon=0), 0.10, rtol=1e-6)
    report = reported(path, period=("2000", "2011"), missing_first_month="climatology")
    assert (report.months_found, report.months_expected, report.months_filled) == (143, 144, 1)
    assert report.filled_by == "mean of January 2001-2010"
    assert report.verdict == "warning"


@pytest.mark.parametrize(("first", "count"), [("200003", 142), ("200002", 119)])
def test_open_mrsos_fills_no_second_month_and_from_no_shorter_run(write, first, count):
    path = write(first, count)
    end = "2011" if count == 142 else "2009"
    with pytest.raises(ValueError, match="months are missing"):
        opened(path, period=("2000", end), missing_first_month="climatology")


def test_open_mrsos_leaves_the_months_after_the_period(write):
    write("200001", 12)
    path = write("200101", 12 * 300)  # to the year 2300, as MRI-ESM2-0
    theta = opened(path, period=("2000", "2001"))
    assert list(theta.indexes["time"]) == list(pd.date_range("2000-01", "2001-12", freq="MS"))


def test_open_mrsos_takes_a_month_that_a_file_repeats_once(write):
    path = write("200001", 12)
    with xr.open_dataset(path, decode_times=False) as file:
        dataset = file.load().isel(time=[0, 1, 1, *range(2, 12)])
    dataset.to_netcdf(path)
    theta = opened(path)
    np.testing.assert_allclose(theta.sel(lat=-30, lon=0), 0.1 + 0.01 * np.arange(12), rtol=1e-6)
    assert kinds(path) == ["repeated_months"]


def test_open_mrsos_cuts_the_period(write):
    path = write("199901", 36)
    theta = opened(path, period=("2000", "2000"))
    assert list(theta.indexes["time"]) == list(pd.date_range("2000-01", "2000-12", freq="MS"))


def test_open_mrsos_lists_the_months_that_are_missing(write):
    write("200002", 11)  # begins in February, as NorESM2 and TaiESM1 do
    path = write("200101", 3)
    with pytest.raises(ValueError) as error:
        opened(path, period=("2000", "2001"))
    message = str(error.value)
    assert "10 of 24 months are missing" in message
    assert "Oak historical" in message
    assert "2000-01, 2001-04, 2001-05, 2001-06, 2001-07, ..." in message
    assert "fetch" in message


def test_open_mrsos_refuses_files_on_different_grids(write):
    write("200001", 12)
    path = write("200101", 12, lat=[-30.0, 1.0, 45.0])
    with pytest.raises(ValueError) as error:
        opened(path)
    assert name("200001-200012") in str(error.value) and "lat differs" in str(error.value)


def test_open_mrsos_keeps_the_data_on_disk_until_they_are_used(write):
    months = opened(write("200001", 60)).chunks[0]
    assert sum(months) == 60 and max(months) <= 24


# --- values ------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [1e20, 9.969209968386869e36, -9999.0, np.nan, np.inf, -1e34])
@pytest.mark.parametrize("declared", [True, False])
def test_open_mrsos_takes_fill_values_as_missing(write, fill, declared):
    values = np.full((12, 3, 4), 30.0)
    values[:, 1, 2] = fill
    theta = opened(write(values=values, fill=np.float32(fill) if declared else None))
    missing = theta.isnull()
    assert bool(missing.sel(lat=0, lon=-160).all())
    assert int(missing.sum()) == 12
    np.testing.assert_allclose(theta.max(), 0.3, rtol=1e-6)


def test_open_mrsos_limits_values_to_what_a_soil_can_hold(write):
    values = np.full((12, 3, 4), 30.0)
    values[0, 0, 0], values[0, 0, 1], values[0, 0, 2] = -0.002, 196.0, 100.0
    theta = opened(write(values=values))
    assert list(theta[0].sel(lat=-30, lon=[0, 90, -160]).values) == [0, 1, 1]
    assert theta.attrs["units"] == "m3 m-3"


def test_read_series_counts_what_it_limits(write):
    values = np.full((12, 3, 4), 30.0)
    values[0, 0, 0], values[0, 0, 1] = -0.002, 196.0
    report = reported(write(values=values))
    assert (report.clipped_low, report.clipped_high) == (1, 1)
    np.testing.assert_allclose([report.minimum, report.maximum], [-2e-5, 1.96], rtol=1e-5)
    assert [kind for kind, _ in report.problems] == ["clipped"]


@pytest.mark.parametrize("residue", [0.0, 0.0015, -0.002])
def test_open_mrsos_takes_cells_that_never_hold_water_for_ocean(write, residue):
    values = np.full((12, 3, 4), 30.0)
    values[:, 1, 2] = residue
    values[:11, 0, 0] = 0.0  # a very dry land: once it rained
    path = write(values=values)
    theta = opened(path)
    assert theta.sel(lat=0, lon=-160).isnull().all()
    assert int(theta.isnull().sum()) == 12
    report = reported(path)
    assert report.dry_cells == 1
    np.testing.assert_allclose(report.land_share, 100 * 11 / 12)


def test_read_series_says_that_the_mask_changes(write):
    lat, lon = np.arange(-10.0, 10), np.arange(0.0, 20)
    values = np.full((12, 20, 20), 30.0)
    values[4, 0, 0] = np.nan
    report = reported(write(lat=lat, lon=lon, values=values))
    assert "399 to 400 cells" in dict(report.problems)["changing_mask"]
    assert report.verdict == "warning"


def test_open_mrsos_refuses_months_that_are_partly_lost_unless_that_is_accepted(write):
    values = np.full((12, 3, 4), 30.0)
    values[4, 0, 0] = np.nan
    path = write(values=values)
    with pytest.raises(ValueError, match=r"11 of 12 cells .*\(2000-05\).*accept partial_months"):
        opened(path)
    assert reported(path, accepted=("partial_months",)).verdict == "accepted"


def test_open_mrsos_takes_the_file_that_begins_first_whatever_its_name(write):
    later = write("200101", 12, file_name=name("200101-200112").replace(".nc", " (1).nc"))
    write("200001", 24, values=CELLS + 20.0 + np.arange(24)[:, None, None])
    theta = opened(later, accepted=("file_name", "conflicting_months"))
    np.testing.assert_allclose(theta.sel(lat=-30, lon=0), 0.3 + 0.01 * np.arange(24), rtol=1e-6)


def test_open_mrsos_refuses_a_file_of_another_experiment_under_this_name(write):
    path = write()
    with netCDF4.Dataset(path, "a") as file:
        file.experiment_id = "piControl"
    for accepted in ((), ("file_name",)):
        with pytest.raises(ValueError, match="attributes, experiment_id piControl"):
            opened(path, accepted=accepted)


@pytest.mark.parametrize(
    ("units", "days"), [("months", 30), ("minutes", 1 / 1440), ("s", 1 / 86400), ("hr", 1 / 24)]
)
def test_open_mrsos_reads_the_units_of_the_time_axis(write, units, days):
    path = write(calendar="360_day")
    with netCDF4.Dataset(path, "a") as file:
        file["time"].units = f"{units} since 1850-01-01"
        file["time_bnds"][:] = file["time_bnds"][:] / days
        file["time"][:] = file["time"][:] / days
    theta = opened(path)
    assert list(theta.indexes["time"]) == list(pd.date_range("2000-01", "2000-12", freq="MS"))


@pytest.mark.parametrize("kind", ["zero", "equal", "first zero", "shifted"])
def test_open_mrsos_does_not_trust_impossible_bounds(write, kind):
    path = write(stamp="start")
    with netCDF4.Dataset(path, "a") as file:
        bounds = file["time_bnds"]
        if kind == "zero":
            bounds[:] = 0
        elif kind == "equal":
            bounds[:, 1] = bounds[:, 0]
        elif kind == "first zero":
            bounds[0] = 0
        else:
            bounds[:] = bounds[:] + 400
    theta = opened(path)
    assert list(theta.indexes["time"]) == list(pd.date_range("2000-01", "2000-12", freq="MS"))


def test_open_mrsos_takes_layers_and_scalar_dimensions_for_what_they_are(write):
    path = write()
    dataset = xr.load_dataset(path, decode_times=False)
    dataset["mrsos"] = dataset["mrsos"].expand_dims(sdepth1=[0.05], axis=1)
    dataset.to_netcdf(path)
    assert opened(path).dims == ("time", "lat", "lon")
    dataset["mrsos"] = xr.concat([dataset["mrsos"].isel(sdepth1=0, drop=True)] * 2, "sdepth")
    dataset.to_netcdf(path)
    with pytest.raises(ValueError, match="sdepth 2.*expected time, .* one layer") as error:
        opened(path)
    assert str(path) in str(error.value)


def test_open_mrsos_takes_axes_of_other_names(write):
    path = write()
    dataset = xr.load_dataset(path, decode_times=False).drop_vars("lat_bnds")
    dataset = dataset.rename_dims(lat="y", lon="x").rename(lat="latitude", lon="longitude")
    dataset.to_netcdf(path)
    theta = opened(path)
    assert theta.dims == ("time", "lat", "lon")
    np.testing.assert_allclose(theta[0].sel(lat=45, lon=-5), 0.21, rtol=1e-6)


@pytest.mark.parametrize("damage", ["no steps", "short depth", "number as licence"])
def test_open_mrsos_names_files_with_odd_contents(write, damage):
    path = write()
    dataset = xr.load_dataset(path, decode_times=False)
    if damage == "no steps":
        dataset = dataset.isel(time=slice(0)).drop_encoding()
    elif damage == "short depth":
        dataset["depth_bnds"] = ("one", [0.0])
    else:
        dataset.attrs["license"] = 4.0
    dataset.to_netcdf(path)
    if damage != "no steps":
        assert opened(path).sizes["time"] == 12
        return
    with pytest.raises(ValueError, match="0 of 0 time stamps") as error:
        opened(path)
    assert str(path) in str(error.value)


def test_open_mrsos_names_the_version_that_holds_the_missing_months(write):
    write("200001", version="v20190101")
    path = write("200101", version="v20200101")
    with pytest.raises(ValueError, match="12 of 24 months.*other versions: v20190101"):
        opened(path, period=("2000", "2001"))


def test_find_sources_names_what_it_cannot_use(write, tmp_path):
    path = write(file_name="mrsos copy (1).nc")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(FileNotFoundError, match="damaged, or of another kind") as error:
        find_sources(path.parents[1])
    assert str(path) in str(error.value)


@pytest.mark.parametrize("factor", [1e-3, 10])
def test_open_mrsos_refuses_a_magnitude_that_belongs_to_other_units(write, factor):
    path = write(values=np.full((12, 3, 4), 30.0) * factor)
    with pytest.raises(ValueError, match="are the units those of the attributes.*accept magnitude"):
        opened(path)
    assert reported(path, accepted=("magnitude",)).verdict == "accepted"


def test_open_mrsos_refuses_a_month_without_values(write):
    values = np.full((12, 3, 4), 30.0)
    values[4] = np.nan
    with pytest.raises(ValueError, match=r"no value in 1 of 12 months \(2000-05\)"):
        opened(write(values=values))


def test_read_series_cuts_the_region_and_a_margin(write):
    lat, lon = np.arange(-88.0, 89, 4), np.arange(0.0, 360, 4)
    path = write(lat=lat, lon=lon, values=np.full((12, lat.size, lon.size), 30.0))
    files = find_sources(path.parents[1])
    domain = Domain(south=18, north=54, west=71, east=137)
    theta, _ = read_series(files, "Oak", "historical", region=domain)
    assert (float(theta["lat"][0]), float(theta["lat"][-1])) == (12, 60)  # 6 degrees around it
    assert (float(theta["lon"][0]), float(theta["lon"][-1])) == (68, 140)
    # at the date line the margin lies on the other side
    theta, _ = read_series(
        files, "Oak", "historical", region=domain.model_copy(update={"east": 179})
    )
    assert (float(theta["lon"][0]), float(theta["lon"][-1])) == (-180, 176)


def test_read_series_refuses_files_that_do_not_cover_the_region(write):
    lat, lon = np.arange(10.0, 47, 4), np.arange(60.0, 150, 4)
    path = write(lat=lat, lon=lon, values=np.full((12, lat.size, lon.size), 30.0))
    report = reported(path, region=Domain())
    assert [kind for kind, _ in report.problems] == ["region"]
    assert "lat 10 to 46 does not cover the domain, 18 to 54" in report.errors[0]


# --- files that cannot be used -----------------------------------------------------------


@pytest.mark.parametrize("units", ["m3 m-3", "mm", "kg/m2", ""])
def test_open_mrsos_refuses_other_units(write, units):
    path = write(units=units)
    with pytest.raises(ValueError, match="'kg m-2'") as error:
        opened(path)
    assert str(path) in str(error.value) and repr(units) in str(error.value)


def test_open_mrsos_refuses_a_file_of_another_variable(write):
    path = write(variable="mrso")
    with pytest.raises(ValueError, match="no variable mrsos; it holds mrso") as error:
        opened(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("truncated", "truncated or damaged"), ("empty", "is empty"), ("page", "is a web page")],
)
def test_open_mrsos_refuses_what_is_not_a_whole_file(write, content, reason):
    path = write()
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "empty": b"",
            "page": b"<!DOCTYPE html><html><title>404 Not Found</title></html>",
        }[content]
    )
    with pytest.raises(ValueError, match=f"{reason}.*fetch it again") as error:
        opened(path)
    assert str(path) in str(error.value)


def test_open_mrsos_names_every_file_that_cannot_be_read(write):
    paths = [write("200001"), write("200101"), write("200201")]
    for path in paths[1:]:
        path.write_bytes(b"")
    with pytest.raises(ValueError) as error:
        opened(paths[0])
    assert [str(path) in str(error.value) for path in paths] == [False, True, True]


def test_open_mrsos_refuses_an_unstructured_grid_and_says_what_helps(tmp_path):
    path = tmp_path / "v1" / name("200001-200012")
    path.parent.mkdir()
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", 12)
        file.createDimension("i", 20)
        file.createVariable("mrsos", "f4", ("time", "i")).units = "kg m-2"
        file["mrsos"].coordinates = "lat lon"
        time = file.createVariable("time", "f8", ("time",))
        time.units, time[:] = "days since 2000-01-01", 15 + 30.4 * np.arange(12)
        for axis in ("lat", "lon"):
            file.createVariable(axis, "f8", ("i",))[:] = np.arange(20.0)
    with pytest.raises(ValueError, match=r"\('time', 'i'\).*xESMF.*environment.yml"):
        open_mrsos(tmp_path, "Oak", "historical")


def test_open_mrsos_refuses_a_time_that_cannot_be_decoded(write):
    path = write()
    with netCDF4.Dataset(path, "a") as file:
        file["time"].units = "fortnights since the flood"
    with pytest.raises(ValueError, match="time cannot be decoded") as error:
        opened(path)
    assert str(path) in str(error.value)


def test_open_mrsos_refuses_a_time_stamp_that_is_not_a_number(write):
    path = write(bounds=False)
    with netCDF4.Dataset(path, "a") as file:
        file["time"][3] = np.nan
    with pytest.raises(ValueError, match="1 of 12 time stamps are missing.*fetch") as error:
        opened(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(("lat", "reason"), [(500.0, "-90..90"), (np.nan, "-90..90")])
def test_open_mrsos_refuses_latitudes_that_are_none(write, lat, reason):
    path = write()
    with netCDF4.Dataset(path, "a") as file:
        file["lat"][2] = lat
    with pytest.raises(ValueError, match=reason) as error:
        opened(path)
    assert str(path) in str(error.value)


def test_open_mrsos_lists_what_is_wrong_with_every_file(write):
    wrong = write("200001", units="mm")
    page = write("200101")
    page.write_text("<html>404</html>")
    other = write("200201", variable="mrso")
    with pytest.raises(ValueError) as error:
        opened(wrong)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    for line, path, reason in zip(
        lines, (wrong, page, other), ("'mm'", "web page", "it holds mrso"), strict=True
    ):
        assert str(path) in line and reason in line


# --- the report --------------------------------------------------------------------------


def test_quality_report_says_whether_a_source_can_be_used():
    def verdict(*kinds, accepted=()):
        problems = [[kind, "text"] for kind in kinds]
        return QualityReport("Oak", "ssp126", accepted=list(accepted), problems=problems).verdict

    assert verdict() == "ok"
    assert verdict("clipped") == "warning"
    assert verdict("clipped", "units") == "error"
    assert verdict("file_name") == "error"
    assert verdict("clipped", "file_name", accepted=["file_name"]) == "accepted"
    assert verdict(accepted=["file_name"]) == "ok"


def test_quality_report_makes_a_table_with_a_row_for_each_series():
    reports = [
        QualityReport("Oak", "ssp126", files=2, maximum=0.4, tracking_ids=["a", "b"]),
        QualityReport("Ash", "ssp585", problems=[["depth", "0-1 m"], ["units", "mm"]]),
    ]
    table = QualityReport.table(reports)
    assert list(table["source_id"]) == ["Oak", "Ash"]
    assert list(table["files"]) == [2, 0]
    assert list(table["verdict"]) == ["ok", "error"]
    assert table.loc[0, "maximum"] == 0.4
    assert table.loc[0, "tracking_ids"] == "a; b"
    assert table.loc[1, "problems"] == "depth: 0-1 m; units: mm"


def test_read_series_reports_what_the_files_say_of_themselves(write):
    path = write(depth=0.05)
    with netCDF4.Dataset(path, "a") as file:
        file.license = (
            "CMIP6 model data produced by Oak is licensed under a Creative Commons "
            "Attribution-ShareAlike 4.0 International License (https://creativecommons.org)."
        )
    report = reported(path, period=("2000", "2000"))
    assert report.licence == "Attribution-ShareAlike 4.0"
    assert (report.files, report.versions, report.grid) == (1, ["v20200101"], "3 x 4")
    assert (report.depth, report.calendar) == ("0-0.05 m", "standard")
    assert report.tracking_ids == ["hdl:21.14100/200001"]
    assert (report.months_found, report.months_expected) == (12, 12)
    assert [kind for kind, _ in report.problems] == ["depth"]


# --- real files --------------------------------------------------------------------------


@pytest.fixture
def realdata():
    folder = os.environ.get("SMCORE_REALDATA")
    if not folder:
        pytest.skip("SMCORE_REALDATA does not name the folder of real files")
    return Path(folder)


@pytest.fixture
def as_mrsos(realdata, tmp_path):
    """A function that copies a real file: its axes, with its variable called mrsos."""

    def copy(file, variable, source_id, experiment_id, period, grid="gn"):
        path = tmp_path / "real" / "v1" / name(period, source_id, experiment_id, grid=grid)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(realdata / file, path)
        path.chmod(0o644)
        with netCDF4.Dataset(path, "a") as dataset:
            if variable != "mrsos":
                dataset.renameVariable(variable, "mrsos")
            dataset["mrsos"].units = "kg m-2"
        return path

    return copy


def real(path, source_id, experiment_id, **options):
    # tas and rlds have other magnitudes than soil water, and nothing is wrong with their axes
    options = {"accepted": ("magnitude",)} | options
    return read_series(find_sources(path.parents[1]), source_id, experiment_id, **options)


def test_read_series_refuses_a_real_daily_file(as_mrsos):
    file = "mrsos_day_HadGEM2-ES_rcp85_r1i1p1_20051201.nc"
    path = as_mrsos(file, "mrsos", "HadGEM2-ES", "rcp85", "200512-200512")
    theta, report = real(path, "HadGEM2-ES", "rcp85")
    assert theta is None
    assert [kind for kind, _ in report.problems] == ["frequency"]


def test_read_series_reads_the_soil_moisture_of_hadgem2(as_mrsos):
    file = "mrsos_day_HadGEM2-ES_rcp85_r1i1p1_20051201.nc"
    path = as_mrsos(file, "mrsos", "HadGEM2-ES", "rcp85", "200512-200512")
    with netCDF4.Dataset(path, "a") as dataset:  # let the day stand for its month
        bounds = dataset[dataset["time"].bounds]
        bounds[0] = [bounds[0, 0], bounds[0, 0] + 30]
    theta, report = real(path, "HadGEM2-ES", "rcp85", accepted=())
    assert theta.sizes == {"time": 1, "lat": 145, "lon": 192}
    assert theta.indexes["time"][0] == pd.Timestamp("2005-12-01")
    assert (report.calendar, report.grid, report.verdict) == ("360_day", "145 x 192", "warning")
    assert report.dry_cells == 3270  # Greenland and Antarctica hold 0
    assert (float(theta["lat"][0]), float(theta["lat"][-1])) == (-90, 90)
    assert -180 <= float(theta["lon"][0]) < float(theta["lon"][-1]) < 180
    # the description of the file: 0.59..45.4 kg m-2 in the domain, mean 22.6, 85.7 % valid
    domain = theta.sel(lat=slice(18, 54), lon=slice(71, 137))
    assert domain.sizes["lat"] == 29
    np.testing.assert_allclose(domain.min(), 0.0059, atol=5e-5)
    np.testing.assert_allclose(domain.max(), 0.454, atol=5e-4)
    np.testing.assert_allclose(domain.mean(), 0.226, atol=5e-4)
    np.testing.assert_allclose(domain.notnull().mean(), 0.857, atol=5e-4)


def test_read_series_refuses_the_triangles_of_icon(as_mrsos, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    file = "cmip_grids/tas_Amon_ICON-ESM-LR_historical_r1i1p1f1_gn_185001.nc"
    path = as_mrsos(file, "tas", "ICON-ESM-LR", "historical", "185001-185001")
    theta, report = real(path, "ICON-ESM-LR", "historical")
    assert theta is None
    assert re.search(r"\('time', 'i'\).*need xESMF.*leave the source out", report.errors[0])


@pytest.mark.parametrize(
    ("file", "source_id", "experiment_id", "period", "grid", "shape"),
    [
        ("rlds_Amon_IPSL-CM6A-LR_historical_r1i1p1f1_gr_185001.nc",
         "IPSL-CM6A-LR", "historical", "185001-185001", "gr", (1, 143, 144)),
        ("tas_Amon_FGOALS-g3_historical_r1i1p1f1_gn_185001.nc",
         "FGOALS-g3", "historical", "185001-185001", "gn", (1, 80, 180)),
        ("tas_Amon_AWI-ESM-1-1-LR_1pctCO2_r1i1p1f1_gn_185501.nc",
         "AWI-ESM-1-1-LR", "1pctCO2", "185501-185501", "gn", (1, 96, 192)),
        ("tas_Amon_CanESM2_rcp85_r1i1p1_200701-200712.nc",
         "CanESM2", "rcp85", "200612-200711", "gn", (12, 64, 128)),
        ("tas_Amon_HadGEM2-ES_rcp85_r1i1p1_200512-203011.nc",
         "HadGEM2-ES", "rcp85", "200512-203011", "gn", (300, 2, 2)),
        ("rlds_Amon_INM-CM5-0_ssp245_r1i1p1f1_gr1_201501-210012.nc",
         "INM-CM5-0", "ssp245", "201501-210012", "gr1", (1032, 2, 2)),
    ],
)  # fmt: skip
def test_read_series_reads_real_axes(as_mrsos, file, source_id, experiment_id, period, grid, shape):
    variable = file.split("_")[0]
    path = as_mrsos(f"cmip_grids/{file}", variable, source_id, experiment_id, period, grid)
    if source_id not in ("CanESM2", "HadGEM2-ES"):  # those of CMIP5 have no such attributes
        with netCDF4.Dataset(path, "a") as dataset:
            dataset.variant_label = "r1i1p1f1"
    theta, report = real(path, source_id, experiment_id)
    assert report.verdict == "accepted"  # of the magnitude, and nothing else is wrong
    assert [kind for kind, _ in report.problems if kind not in ("clipped", "magnitude")] == []
    assert theta.shape == shape
    assert np.all(np.diff(theta["lat"]) > 0) and np.all(np.diff(theta["lon"]) > 0)
    first, last = (f"{month[:4]}-{month[4:]}" for month in period.split("-"))
    assert list(theta.indexes["time"]) == list(pd.date_range(first, last, freq="MS"))


def test_read_series_notices_that_a_real_name_disagrees_with_its_axis(as_mrsos):
    # The name says 200701-200712, the axis 2006-12 to 2007-11.
    file = "cmip_grids/tas_Amon_CanESM2_rcp85_r1i1p1_200701-200712.nc"
    path = as_mrsos(file, "tas", "CanESM2", "rcp85", "200701-200712")
    _, report = real(path, "CanESM2", "rcp85")
    assert "months 200612-200711" in dict(report.problems)["file_name"]
    theta, report = real(path, "CanESM2", "rcp85", accepted=("magnitude", "file_name"))
    assert theta.indexes["time"].equals(pd.date_range("2006-12-01", "2007-11-01", freq="MS"))
    _, report = real(path, "CanESM2", "rcp85", accepted=("file_name",), period=("2007", "2007"))
    assert "1 of 12 months are missing (2007-12)" in report.errors[0]


def test_read_series_joins_the_real_chunks_of_a_360_day_calendar(as_mrsos):
    for period in ("200512-203011", "203012-205511"):
        file = f"cmip_grids/tas_Amon_HadGEM2-ES_rcp85_r1i1p1_{period}.nc"
        path = as_mrsos(file, "tas", "HadGEM2-ES", "rcp85", period)
    theta, report = real(path, "HadGEM2-ES", "rcp85", period=("2006", "2054"))
    assert (report.calendar, report.files) == ("360_day", 2)
    assert theta.indexes["time"].equals(pd.date_range("2006-01-01", "2054-12-01", freq="MS"))
