"""CMIP6 files as archives hold them, with the traps of real ones."""

import os
import shutil
from pathlib import Path

import cftime
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore.cmip6 import QualityReport, find_sources, limit, open_files, open_mrsos, select_files

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
                "depth_bnds": (("bnds",), [0.0, 0.05]),  # wrong, as in the ACCESS models
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


def test_open_mrsos_names_the_members_that_could_be_meant(write):
    write(member="r1i1p1f1", values=np.full((12, 3, 4), 10))
    path = write(member="r2i1p1f1", values=np.full((12, 3, 4), 20))
    with pytest.raises(ValueError, match=r"Oak historical.*'r1i1p1f1', 'r2i1p1f1'.*name one"):
        opened(path)
    np.testing.assert_allclose(opened(path, variant_label="r2i1p1f1"), 0.2, rtol=1e-6)
    with pytest.raises(FileNotFoundError, match="r3i1p1f1.*'r1i1p1f1', 'r2i1p1f1'"):
        opened(path, variant_label="r3i1p1f1")


def test_open_mrsos_names_the_grids_that_could_be_meant(write):
    write(grid="gn")
    path = write(grid="gr")
    with pytest.raises(ValueError, match="grid_label.*'gn', 'gr'"):
        opened(path)


def test_open_mrsos_names_what_is_not_there(write):
    path = write()
    with pytest.raises(FileNotFoundError, match="Elder ssp126"):
        open_mrsos(path.parents[1], "Elder", "ssp126")


# --- axes and months ---------------------------------------------------------------------


def test_open_mrsos_gives_volumes_on_standard_axes(write):
    theta = opened(write())
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
    assert theta.attrs["calendar"] == calendar
    np.testing.assert_allclose(theta.sel(time="2000-02")[0, 0, 2], 0.13, rtol=1e-6)


def test_open_mrsos_joins_files_whatever_their_names_say(write):
    write("200101", 12, values=CELLS + 12.0 + np.arange(12)[:, None, None])
    path = write("200001", 12, file_name=name("200201-200212"))
    theta = opened(path, period=("2000", "2001"))
    np.testing.assert_allclose(theta.sel(lat=-30, lon=0), 0.1 + 0.01 * np.arange(24), rtol=1e-6)
    assert sorted(theta.attrs["tracking_ids"]) == ["hdl:21.14100/200001", "hdl:21.14100/200101"]


def test_open_mrsos_takes_a_month_of_two_overlapping_files_once(write):
    write("200001", 18)
    path = write("200101", 12, values=CELLS + 12.0 + np.arange(12)[:, None, None])
    theta = opened(path, period=("2000", "2001"))
    assert theta.indexes["time"].is_unique
    np.testing.assert_allclose(theta.sel(lat=-30, lon=0), 0.1 + 0.01 * np.arange(24), rtol=1e-6)


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
    assert "2000-01, 2001-04, 2001-05, 2001-06, 2001-07, ..." in message
    assert name("200002-200012") in message and name("200101-200103") in message
    assert "fetch" in message


def test_open_mrsos_refuses_files_on_different_grids(write):
    write("200001", 12)
    path = write("200101", 12, lat=[-30.0, 1.0, 45.0])
    with pytest.raises(ValueError) as error:
        opened(path)
    assert name("200001-200012") in str(error.value) and "grid" in str(error.value)


def test_open_mrsos_keeps_the_data_on_disk_until_they_are_used(write):
    assert opened(write()).chunks is not None


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


def test_open_files_leaves_the_values_as_they_are_to_be_counted(write):
    values = np.full((12, 3, 4), 30.0)
    values[0, 0, 0], values[0, 0, 1] = -0.002, 196.0
    theta = open_files([write(values=values)])
    np.testing.assert_allclose(theta[0].sel(lat=-30, lon=[0, 90]), [-2e-5, 1.96], rtol=1e-5)
    assert (int((theta < 0).sum()), int((theta > 1).sum())) == (1, 1)
    assert float(limit(theta).max()) == 1


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


@pytest.mark.parametrize("content", ["truncated", "empty", "page"])
def test_open_mrsos_refuses_what_is_not_a_whole_file(write, content):
    path = write()
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "empty": b"",
            "page": b"<!DOCTYPE html><html><title>404 Not Found</title></html>",
        }[content]
    )
    with pytest.raises(ValueError, match="cannot be read as NetCDF.*fetch it again") as error:
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
    with pytest.raises(ValueError, match=r"\('time', 'i'\).*xESMF.*conda-forge"):
        open_mrsos(tmp_path, "Oak", "historical")


def test_open_mrsos_refuses_a_time_that_cannot_be_decoded(write):
    path = write()
    with netCDF4.Dataset(path, "a") as file:
        file["time"].units = "fortnights since the flood"
    with pytest.raises(ValueError, match="time cannot be decoded") as error:
        opened(path)
    assert str(path) in str(error.value)


# --- the report --------------------------------------------------------------------------


def test_quality_report_says_whether_a_source_can_be_used():
    assert QualityReport("Oak", "ssp126").verdict == "ok"
    assert QualityReport("Oak", "ssp126", clipped_low=1).verdict == "warning"
    assert QualityReport("Oak", "ssp126", clipped_high=3).verdict == "warning"
    assert QualityReport("Oak", "ssp126", clipped_high=3, problems=["a gap"]).verdict == "error"


def test_quality_report_makes_a_table_with_a_row_for_each_series():
    reports = [QualityReport("Oak", "ssp126", files=2, maximum=0.4), QualityReport("Ash", "ssp585")]
    table = QualityReport.table(reports)
    assert list(table["source_id"]) == ["Oak", "Ash"]
    assert list(table["files"]) == [2, 0]
    assert list(table["verdict"]) == ["ok", "ok"]
    assert table.loc[0, "maximum"] == 0.4


# --- real files --------------------------------------------------------------------------


@pytest.fixture
def realdata():
    folder = os.environ.get("SMCORE_REALDATA")
    if not folder:
        pytest.skip("SMCORE_REALDATA does not name the folder of real files")
    return Path(folder)


def test_open_files_reads_the_soil_moisture_of_hadgem2(realdata):
    theta = open_files([realdata / "mrsos_day_HadGEM2-ES_rcp85_r1i1p1_20051201.nc"])
    assert theta.sizes == {"time": 1, "lat": 145, "lon": 192}
    assert theta.indexes["time"][0] == pd.Timestamp("2005-12-01")
    assert theta.attrs["calendar"] == "360_day"
    assert (float(theta["lat"][0]), float(theta["lat"][-1])) == (-90, 90)
    assert -180 <= float(theta["lon"][0]) < float(theta["lon"][-1]) < 180
    # the description of the file: 0.59..45.4 kg m-2 in the domain, mean 22.6, 85.7 % valid
    domain = theta.sel(lat=slice(18, 54), lon=slice(71, 137))
    assert domain.sizes["lat"] == 29
    np.testing.assert_allclose(domain.min(), 0.0059, atol=5e-5)
    np.testing.assert_allclose(domain.max(), 0.454, atol=5e-4)
    np.testing.assert_allclose(domain.mean(), 0.226, atol=5e-4)
    np.testing.assert_allclose(domain.notnull().mean(), 0.857, atol=5e-4)


def test_open_mrsos_refuses_the_triangles_of_icon(realdata, tmp_path):
    icon = realdata / "cmip_grids" / "tas_Amon_ICON-ESM-LR_historical_r1i1p1f1_gn_185001.nc"
    with pytest.raises(ValueError, match="no variable mrsos; it holds .*tas"):
        open_files([icon])
    path = tmp_path / name("185001-185001", source_id="ICON-ESM-LR")
    shutil.copy(icon, path)
    path.chmod(0o644)
    with netCDF4.Dataset(path, "a") as file:
        file.renameVariable("tas", "mrsos")
    with pytest.raises(ValueError, match=r"\('time', 'i'\).*xESMF.*conda-forge"):
        open_mrsos(tmp_path, "ICON-ESM-LR", "historical")


@pytest.mark.parametrize(
    ("file", "lat", "first", "count"),
    [
        ("rlds_Amon_IPSL-CM6A-LR_historical_r1i1p1f1_gr_185001.nc", 143, "1850-01", 1),
        ("tas_Amon_FGOALS-g3_historical_r1i1p1f1_gn_185001.nc", 80, "1850-01", 1),
        # The name says 200701-200712.
        ("tas_Amon_CanESM2_rcp85_r1i1p1_200701-200712.nc", 64, "2006-12", 12),
        ("tas_Amon_HadGEM2-ES_rcp85_r1i1p1_200512-203011.nc", 2, "2005-12", 300),
        ("rlds_Amon_INM-CM5-0_ssp245_r1i1p1f1_gr1_201501-210012.nc", 2, "2015-01", 1032),
    ],
)
def test_open_files_reads_real_axes(realdata, tmp_path, file, lat, first, count):
    path = tmp_path / name("000001-000001")
    shutil.copy(realdata / "cmip_grids" / file, path)
    path.chmod(0o644)
    with netCDF4.Dataset(path, "a") as dataset:  # another variable, on the axes of the model
        variable = dataset.renameVariable(file.split("_")[0], "mrsos") or dataset["mrsos"]
        variable.units = "kg m-2"
    theta = open_files([path])
    assert theta.sizes["lat"] == lat
    assert np.all(np.diff(theta["lat"]) > 0) and np.all(np.diff(theta["lon"]) > 0)
    expected = pd.date_range(first, periods=count, freq="MS")
    assert list(theta.indexes["time"]) == list(expected)
