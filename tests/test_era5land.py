"""The reference as the Climate Data Store hands it out, in its old and its new forms."""

import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import dask
import eccodes
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore.era5land import find_files, open_invariant, open_swvl

ROOT = Path(__file__).resolve().parents[1]
# Descending latitudes, as in every file of the store.
LAT, LON = np.array([40.2, 40.1, 40.0]), np.array([0.0, 0.1, 179.9, 180.0, 359.9])


@pytest.fixture
def write(tmp_path):
    """A function that writes the months of some years: 0.1 m3 m-3, more each month and cell."""

    def write(year=2000, count=12, *, form="new", units="m**3 m**-3", layers=("swvl1",), **values):
        time = pd.date_range(f"{year}-01-01", periods=count, freq="MS")
        cells = 0.1 + 0.01 * np.arange(3)[:, None] + 0.001 * np.arange(5)
        field = cells + 1e-4 * np.arange(count)[:, None, None]
        names = ("valid_time" if form == "new" else "time", "latitude", "longitude")
        lon = LON if form == "old" else (LON + 180) % 360 - 180
        order = np.argsort(lon)
        axes = [time, LAT.astype("f4"), lon[order].astype("f4")]
        dataset = xr.Dataset(
            {
                layer: (names, values.get(layer, field)[:, :, order], {"units": units})
                for layer in layers
            },
            coords=dict(zip(names, axes)),
        )
        if form == "new":
            dataset = dataset.assign_coords(number=0, expver=("valid_time", np.full(count, "0001")))
        path = tmp_path / f"mine_swvl_{year}.nc"
        dataset.to_netcdf(path)
        return path

    return write


@pytest.mark.parametrize("form", ["new", "old"])
def test_open_swvl_reads_the_old_and_the_new_form(write, form):
    theta = open_swvl(write(form=form))
    assert theta.dims == ("time", "lat", "lon")
    assert set(theta.coords) == {"time", "lat", "lon"}
    assert (theta.name, theta.attrs["units"]) == ("theta", "m3 m-3")
    # rounding of single precision is gone: 40.1 and not 40.099998
    np.testing.assert_array_equal(theta["lat"], [40.0, 40.1, 40.2])
    np.testing.assert_array_equal(theta["lon"], [-180, -0.1, 0, 0.1, 179.9])
    assert list(theta.indexes["time"]) == list(pd.date_range("2000-01", "2000-12", freq="MS"))
    np.testing.assert_allclose(theta[0].sel(lat=40.0, lon=0.1), 0.121, rtol=1e-6)  # 0.1 + 2 x 0.01
    np.testing.assert_allclose(theta[3].sel(lat=40.2, lon=-0.1), 0.1043, rtol=1e-6)


def test_open_swvl_takes_a_folder_a_file_or_a_list(write, tmp_path):
    paths = [write(2000), write(2001)]
    both = open_swvl(tmp_path)
    assert both.sizes["time"] == 24
    xr.testing.assert_identical(open_swvl(paths), both)
    xr.testing.assert_identical(open_swvl(str(tmp_path)), both)
    xr.testing.assert_identical(open_swvl(paths[::-1]), both)
    assert open_swvl(paths[0]).sizes["time"] == 12
    assert open_swvl(str(paths[0])).sizes["time"] == 12


def test_open_swvl_weighs_two_layers_for_ten_centimetres(write):
    values = np.full((12, 3, 5), 0.2)
    path = write(layers=("swvl1", "swvl2"), swvl1=values, swvl2=values + 0.2)
    # (7 x 0.2 + 3 x 0.4) / 10 = 0.26
    np.testing.assert_allclose(open_swvl(path, depth="0-10cm"), 0.26, rtol=1e-6)
    np.testing.assert_allclose(open_swvl(path), 0.2, rtol=1e-6)
    assert "0-10cm" in open_swvl(path, depth="0-10cm").attrs["long_name"]


def test_open_swvl_is_missing_where_one_layer_is(write):
    upper, lower = np.full((12, 3, 5), 0.2), np.full((12, 3, 5), 0.2)
    upper[:, 0, 0] = lower[:, 2, 4] = np.nan
    theta = open_swvl(write(layers=("swvl1", "swvl2"), swvl1=upper, swvl2=lower), depth="0-10cm")
    assert int(theta[0].isnull().sum()) == 2
    assert bool(theta[0].sel(lat=40.2, lon=0).isnull())


def test_open_swvl_sets_the_slightly_negative_values_of_packing_to_zero(write):
    values = np.full((12, 3, 5), 0.2)
    values[0, 0, 0] = -1e-5
    theta = open_swvl(write(swvl1=values))
    assert float(theta[0].sel(lat=40.2, lon=0)) == 0
    assert float(theta.min()) == 0


@pytest.mark.parametrize("fill", [-9999.0, 1e20, 9.96921e36])
def test_open_swvl_takes_undeclared_fill_values_for_missing(write, fill):
    values = np.full((12, 3, 5), 0.2)
    values[:, 0, 0] = fill
    theta = open_swvl(write(swvl1=values))
    assert theta.sel(lat=40.2, lon=0).isnull().all()
    assert int(theta.isnull().sum()) == 12


def test_open_swvl_refuses_an_unknown_depth(write):
    with pytest.raises(ValueError, match="0-7cm, 0-10cm, got '0-5cm'"):
        open_swvl(write(), depth="0-5cm")


def test_open_swvl_refuses_other_units(write):
    path = write(units="kg m**-2")
    with pytest.raises(ValueError, match=r"swvl1 must be in 'm\*\*3 m\*\*-3', got 'kg") as error:
        open_swvl(path)
    assert str(path) in str(error.value)


def test_open_swvl_names_a_variable_that_is_missing(write):
    path = write()
    with pytest.raises(ValueError, match="no variable swvl2, which depth 0-10cm needs") as error:
        open_swvl(path, depth="0-10cm")
    assert str(path) in str(error.value) and "swvl1" in str(error.value)


def test_open_swvl_names_every_file_that_cannot_be_used(write):
    paths = [write(2000), write(2001), write(2002, units="mm"), write(2003)]
    paths[1].write_bytes(paths[1].read_bytes()[:3000])
    paths[3].write_text("<html>504 Gateway Time-out</html>")
    with pytest.raises(ValueError) as error:
        open_swvl(paths)
    message = str(error.value)
    assert [str(path) in message for path in paths] == [False, True, True, True]
    assert "fetch it again" in message


def test_open_swvl_names_the_months_that_are_missing(write):
    write(2000, 10)
    paths = [write(2000, 10), write(2002)]
    with pytest.raises(ValueError, match="14 of 36 months.*2000-11.*2001-12"):
        open_swvl(paths, period=("2000", "2002"))


def test_open_swvl_cuts_the_period(write):
    theta = open_swvl(write(2000, 36), period=("2001", "2001"))
    assert list(theta.indexes["time"]) == list(pd.date_range("2001-01", "2001-12", freq="MS"))
    np.testing.assert_allclose(theta[:, 2, 2], 0.1 + 1e-4 * np.arange(12, 24), rtol=1e-6)


def test_open_swvl_takes_a_repeated_month_from_the_first_file(write):
    # 2000 and 2001 in one file, 2001 and 2002 in the other; packing moves 2001 by 1e-4
    earlier, later = np.full((24, 3, 5), 0.2), np.full((24, 3, 5), 0.2001)
    theta = open_swvl([write(2000, 24, swvl1=earlier), write(2001, 24, swvl1=later)])
    assert list(theta.indexes["time"]) == list(pd.date_range("2000-01", "2002-12", freq="MS"))
    np.testing.assert_allclose(theta[:, 1, 2], np.repeat([0.2, 0.2001], [24, 12]), rtol=1e-6)


@pytest.mark.parametrize("other", [0.202, np.nan])
def test_open_swvl_names_files_that_disagree_on_a_month(write, other):
    earlier, later = np.full((24, 3, 5), 0.2), np.full((24, 3, 5), 0.2)
    later[4, 1, 2] = other
    paths = [write(2000, 24, swvl1=earlier), write(2001, 24, swvl1=later)]
    with pytest.raises(ValueError, match="disagree on 2001-05, by more than 0.001.*keep") as error:
        open_swvl(paths)
    assert all(str(path) in str(error.value) for path in paths)


def test_open_swvl_needs_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file \*\.nc, \*\.grib.*fetch ERA5-Land"):
        open_swvl(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.nc\n.*none\.nc"):
        open_swvl([tmp_path / "nothing.nc", tmp_path / "none.nc"])


def test_open_swvl_refuses_files_on_different_grids(write):
    paths = [write(2000), write(2001)]
    moved = xr.load_dataset(paths[1])
    moved.assign_coords(latitude=moved["latitude"] + 0.05).to_netcdf(paths[1])
    with pytest.raises(ValueError, match="not on one grid") as error:
        open_swvl(paths)
    assert all(str(path) in str(error.value) for path in paths)
    assert "move the files of another area to another folder" in str(error.value)
    assert "lat differs, 3 from 40.05 to 40.25, expected 3 from 40 to 40.2" in str(error.value)


def test_open_swvl_keeps_the_data_on_disk_until_they_are_used(write):
    months = open_swvl(write(2000, 30, swvl1=values(30))).chunks[0]
    assert sum(months) == 30 and max(months) <= 12


def test_open_invariant_gives_land_fraction_and_metres(tmp_path):
    lsm = np.linspace(0, 1, 15).reshape(1, 3, 5)
    dataset = xr.Dataset(
        {
            "lsm": (("time", "latitude", "longitude"), lsm),
            "z": (("time", "latitude", "longitude"), 9.80665 * 1000 * lsm, {"units": "m**2 s**-2"}),
        },
        coords={"time": [pd.Timestamp("2000-01-01")], "latitude": LAT, "longitude": LON},
    )
    dataset[["lsm"]].to_netcdf(tmp_path / "mine_invariant_lsm.nc")
    with pytest.raises(
        ValueError, match="no invariant field z in .*fetch land_sea_mask and geopotential"
    ):
        open_invariant(tmp_path)
    dataset[["z"]].to_netcdf(tmp_path / "mine_invariant_z.nc")
    static = open_invariant(tmp_path)
    assert static["elevation"].dims == ("lat", "lon")
    assert static["elevation"].attrs["units"] == "m"
    np.testing.assert_allclose(static["elevation"], 1000 * static["land_fraction"], atol=1e-9)
    assert float(static["land_fraction"].sel(lat=40.2, lon=0)) == 0
    assert float(static["land_fraction"].sel(lat=40.0, lon=-0.1)) == 1


def test_open_invariant_needs_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file \*\.nc.*fetch ERA5-Land"):
        open_invariant(tmp_path)


# --- forms of the store ------------------------------------------------------------------


def values(count=12):
    """Of some months: 0.2 m3 m-3, 0.01 more each month, missing in the first cell."""
    field = np.full((count, 3, 5), 0.2) + 0.01 * np.arange(count)[:, None, None]
    field[:, 0, 0] = np.nan
    return field


def write_grib(path, fields, *, edition=1, first="2000-01", steps=12, freq="MS"):
    """Messages of `fields`, by short name, for each step; rows from north to south."""
    with open(path, "wb") as file:
        for k, time in enumerate(pd.date_range(first, periods=steps, freq=freq)):
            for name, field in fields.items():
                message = eccodes.codes_grib_new_from_samples(f"regular_ll_sfc_grib{edition}")
                keys = {
                    "centre": "ecmf",
                    "shortName": name,
                    "dataDate": int(f"{time:%Y%m%d}"),
                    "dataTime": int(f"{time:%H%M}"),
                    "Ni": 5,
                    "Nj": 3,
                    "latitudeOfFirstGridPointInDegrees": 40.2,
                    "latitudeOfLastGridPointInDegrees": 40.0,
                    "longitudeOfFirstGridPointInDegrees": 100.0,
                    "longitudeOfLastGridPointInDegrees": 100.4,
                    "iDirectionIncrementInDegrees": 0.1,
                    "jDirectionIncrementInDegrees": 0.1,
                    "bitsPerValue": 16,
                    "bitmapPresent": 1,
                    "missingValue": 9999,
                }
                for key, value in keys.items():
                    eccodes.codes_set(message, key, value)
                eccodes.codes_set_values(message, np.nan_to_num(field[k], nan=9999).ravel())
                eccodes.codes_write(message, file)
                eccodes.codes_release(message)
    return path


@pytest.mark.parametrize("edition", [1, 2])
def test_open_swvl_reads_grib(tmp_path, edition):
    # air temperature and the land-sea mask are on other types of level
    fields = {"swvl1": values(), "swvl2": values() + 0.1, "t": values() + 280, "lsm": values()}
    path = write_grib(tmp_path / "months.grib", fields, edition=edition)
    theta = open_swvl(tmp_path, depth="0-10cm", period=("2000", "2000"))
    np.testing.assert_array_equal(theta["lat"], [40.0, 40.1, 40.2])
    np.testing.assert_array_equal(theta["lon"], [100.0, 100.1, 100.2, 100.3, 100.4])
    # (7 x 0.2 + 3 x 0.3) / 10 = 0.23, and 0.01 more each month
    np.testing.assert_allclose(theta[:, 2, 1], 0.23 + 0.01 * np.arange(12), atol=1e-5)
    assert theta[:, 2, 0].isnull().all() and int(theta.isnull().sum()) == 12
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no index file


def test_open_swvl_reads_the_mixed_grib_of_the_store():
    if "SMCORE_REALDATA" not in os.environ:
        pytest.skip("SMCORE_REALDATA is not set")
    path = Path(os.environ["SMCORE_REALDATA"]) / "soil-surface-level-mix.grib"
    theta = open_swvl(path, depth="0-10cm")
    assert dict(theta.sizes) == {"time": 1, "lat": 6, "lon": 6}
    layers = {}
    with open(path, "rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            name = eccodes.codes_get(message, "shortName")
            layers[name] = eccodes.codes_get_values(message).reshape(6, 6)[::-1]
            eccodes.codes_release(message)
    expected = 0.7 * layers["swvl1"] + 0.3 * layers["swvl2"]
    found = theta[0].fillna(0)  # the file has small negative values
    np.testing.assert_allclose(found, expected.clip(min=0), atol=1e-4)


def test_open_swvl_masks_the_ocean_of_a_real_file_without_missing_values(tmp_path):
    if "SMCORE_REALDATA" not in os.environ:
        pytest.skip("SMCORE_REALDATA is not set")
    path = Path(os.environ["SMCORE_REALDATA"]) / "era5_31-12-2022.nc"
    theta = open_swvl(path)
    assert list(theta.indexes["time"]) == [pd.Timestamp("2022-12-01")]
    assert theta.notnull().all()  # one instant does not tell the ocean from a dry desert
    instant = xr.load_dataset(path).isel(latitude=slice(None, None, 4))
    for month in range(1, 13):  # let it stand for the months of a year
        stamp = pd.DatetimeIndex([f"2022-{month:02d}-01"])
        instant.assign_coords(time=stamp).to_netcdf(tmp_path / f"{month}.nc")
    theta = open_swvl(tmp_path)[0]
    assert bool(theta.sel(lat=30, lon=150).isnull())  # the Pacific
    assert 0.1 < float(theta.sel(lat=30, lon=110)) < 0.6  # China
    assert 0.6 < float(theta.isnull().mean()) < 0.75


def test_open_swvl_merges_era5_and_the_preliminary_era5t(write):
    path = write(form="old")
    dataset = xr.load_dataset(path)
    # ERA5 has 10 months, ERA5T the last 2; neither has the first cell.
    swvl1 = dataset["swvl1"].expand_dims(expver=[1, 5], axis=1).copy()
    swvl1[10:, 0], swvl1[:10, 1], swvl1[:, :, 0, 0] = np.nan, np.nan, np.nan
    dataset.drop_vars("swvl1").assign(swvl1=swvl1).to_netcdf(path)
    theta = open_swvl(path, period=("2000", "2000"))
    assert theta.dims == ("time", "lat", "lon")
    expected = 0.121 + 1e-4 * np.arange(12)  # as above, 0.1 + 2 x 0.01 + 0.001
    np.testing.assert_allclose(theta.sel(lat=40.0, lon=0.1), expected, rtol=1e-6)
    assert int(theta.isnull().sum()) == 12


@pytest.mark.parametrize("form", ["NETCDF3_64BIT_OFFSET", "NETCDF4"])
def test_open_swvl_reads_packed_integers(tmp_path, form):
    path = tmp_path / "packed.nc"
    with netCDF4.Dataset(path, "w", format=form) as file:
        for name, axis in (("time", [0, 744]), ("latitude", LAT), ("longitude", LON)):
            file.createDimension(name, len(axis))
            file.createVariable(name, "i4" if name == "time" else "f4", (name,))[:] = axis
        file["time"].units = "hours since 1900-01-01 00:00:00.0"
        swvl1 = file.createVariable(
            "swvl1", "i2", ("time", "latitude", "longitude"), fill_value=-32767
        )
        swvl1.set_auto_maskandscale(False)
        swvl1.setncatts({"scale_factor": 1e-5, "add_offset": 0.3, "units": "m**3 m**-3"})
        swvl1[:] = 5000  # 0.3 + 5000 x 1e-5 = 0.35
        swvl1[:, 0, 0] = -32767
        swvl1[0, 0, 1] = -30001  # 0.3 - 30001 x 1e-5 = -1e-5
    theta = open_swvl(path)
    assert [f"{month:%Y-%m}" for month in theta.indexes["time"]] == ["1900-01", "1900-02"]
    np.testing.assert_allclose(theta.sel(lat=40.0), 0.35, rtol=1e-6)
    assert theta.sel(lat=40.2, lon=0).isnull().all()
    assert float(theta[0].sel(lat=40.2, lon=0.1)) == 0


@pytest.mark.parametrize("everything", ["data.zip", "data.nc"])
def test_open_swvl_unpacks_a_zip_once(write, tmp_path, everything):
    paths = [write(2000, swvl1=values()), write(2001, swvl1=values())]
    grib = write_grib(tmp_path / "t.grib", {"t": values()})
    with zipfile.ZipFile(tmp_path / "part", "w") as archive:
        archive.write(paths[0], "data_stream-moda.nc")
        archive.write(paths[1], "second/data_stream-moda.nc")
        archive.write(grib, "other.grib")
        archive.writestr("readme.txt", "read me")
    for path in (*paths, grib):
        path.unlink()
    path = (tmp_path / "part").rename(tmp_path / everything)
    theta = open_swvl(tmp_path, period=("2000", "2001"))
    np.testing.assert_allclose(theta[:, 0, 0], np.tile(0.2 + 0.01 * np.arange(12), 2), rtol=1e-6)
    assert find_files(tmp_path) == [path]

    def unpacked():
        return {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p != path and p.is_file()}

    before = unpacked()
    assert sorted(p.name for p in before) == [*["data_stream-moda.nc"] * 2, "other.grib"]
    open_swvl(tmp_path).load()
    assert unpacked() == before
    os.utime(path, ns=(1, 1))  # another zip under the same name
    open_swvl(tmp_path)
    assert len(unpacked()) == 3 and not set(unpacked()) & set(before)


def test_open_swvl_names_a_damaged_zip(write, tmp_path):
    source = write()
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(source, "data.nc")
    whole = path.read_bytes()
    source.unlink()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + b"12345678" + whole[middle + 8 :]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is truncated or damaged.*fetch it again") as error:
            open_swvl(tmp_path)
        assert str(error.value).startswith(f"{path}: ")
        assert [p.name for p in tmp_path.iterdir()] == ["data.zip"]


def test_open_swvl_trusts_the_content_and_not_the_name(write, tmp_path):
    write_grib(tmp_path / "first.nc", {"swvl1": values()})
    theta = open_swvl(tmp_path)
    np.testing.assert_allclose(theta[:, 0, 1], 0.2 + 0.01 * np.arange(12), atol=1e-5)
    write(2000).rename(tmp_path / "first.nc")
    write(2001).rename(tmp_path / "second.grib")
    assert open_swvl(tmp_path).sizes["time"] == 24


def test_open_swvl_takes_layers_from_separate_files(write, tmp_path):
    one = write(2000, 24, layers=("swvl2",), swvl2=values(24) + 0.1).rename(tmp_path / "a.nc")
    two = [write(year, swvl1=values()) for year in (2000, 2001)]
    theta = open_swvl(tmp_path, depth="0-10cm")
    # 0.7 x (0.2 + 0.01) + 0.3 x (0.3 + 0.01 x 13) = 0.276 in February 2001
    np.testing.assert_allclose(theta[13].sel(lat=40.0), 0.276, rtol=1e-6)
    assert open_swvl([one, *two]).sizes["time"] == 24  # swvl2 is not needed and no mistake
    two[1].unlink()
    with pytest.raises(ValueError, match="swvl1: 12 of 24 months are missing.*2001-01.*2001-12"):
        open_swvl(tmp_path, depth="0-10cm")


def test_open_swvl_reads_a_file_that_cfgrib_converted(write):
    path = write(form="old", layers=("swvl1",))
    dataset = xr.load_dataset(path)
    middle = dataset["time"].values + np.timedelta64(3, "D")
    dataset = dataset.assign_coords(valid_time=("time", middle), step=0, surface=0.0)
    dataset["swvl1"] = dataset["swvl1"].expand_dims("depthBelowLandLayer", axis=1)
    dataset.to_netcdf(path)
    theta = open_swvl(path)
    assert theta.dims == ("time", "lat", "lon")
    assert list(theta.indexes["time"]) == list(pd.date_range("2000-01", "2000-12", freq="MS"))


@pytest.mark.parametrize("name", ["date", "time", "valid_time"])
def test_open_swvl_reads_dates_that_are_written_as_numbers(write, name):
    # monthly means of autumn 2024: date(date) = 20000101, 20000201, ..., without units
    path = write()
    dataset = xr.load_dataset(path).rename(valid_time=name)
    stamps = [20000001 + 100 * month for month in range(1, 13)]
    dataset.assign_coords({name: (name, stamps, {"long_name": "date"})}).to_netcdf(path)
    theta = open_swvl(path)
    assert theta.dims == ("time", "lat", "lon")
    assert set(theta.coords) == {"time", "lat", "lon"}
    assert list(theta.indexes["time"]) == list(pd.date_range("2000-01", "2000-12", freq="MS"))


@pytest.mark.parametrize("stamps", [[20000101, 20001301], [0, 31], [20000101, 20000115]])
def test_open_swvl_names_numbers_that_are_no_months(write, stamps):
    path = write(2000, 2)
    dataset = xr.load_dataset(path).rename(valid_time="date")
    dataset.assign_coords(date=("date", stamps)).to_netcdf(path)
    with pytest.raises(ValueError, match="time .*decoded|2 steps in 2000-01") as error:
        open_swvl(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("form", ["new", "old"])
@pytest.mark.parametrize("shift", ["0h", "6h", "15D 12h", "27D 23h"])
def test_open_swvl_tells_months_by_year_and_month_alone(write, form, shift):
    path = write(form=form)
    dataset = xr.load_dataset(path)
    axis = "valid_time" if form == "new" else "time"
    dataset.assign_coords({axis: dataset[axis] + pd.Timedelta(shift)}).to_netcdf(path)
    theta = open_swvl(path)
    assert list(theta.indexes["time"]) == list(pd.date_range("2000-01", "2000-12", freq="MS"))


def test_find_files_sorts_by_name_and_leaves_out_hidden_and_unfinished_files(tmp_path):
    names = ["b.nc", "a.zip", "c.GRIB", "d.grb2", ".e.nc", "f.nc.part", "g.txt"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "h.nc").mkdir()
    assert [path.name for path in find_files(tmp_path)] == ["a.zip", "b.nc", "c.GRIB", "d.grb2"]


def test_open_swvl_ignores_other_files_of_a_folder_but_not_those_named(write, tmp_path):
    path, other = write(), tmp_path / "relief.nc"
    xr.Dataset({"relief": ("x", [1.0]), "station": ("x", ["A"])}).to_netcdf(other)
    assert open_swvl(tmp_path).sizes["time"] == 12
    with pytest.raises(
        ValueError, match="no variable swvl1 or swvl2; it holds relief, station: fetch"
    ):
        open_swvl([path, other])
    path.unlink()
    with pytest.raises(ValueError, match="no variable swvl1, which depth 0-7cm needs"):
        open_swvl(tmp_path)


# --- the ocean ---------------------------------------------------------------------------


def test_open_swvl_takes_a_constant_next_to_zero_for_ocean(write):
    first, second = np.full((12, 3, 5), 0.2), np.full((12, 3, 5), 0.2)
    for field in (first, second):
        field[:, 0, 0] = 1.5e-5  # ocean
        field[:, 0, 1] = 0.0  # ocean
    first[:, 1, 1] = 0.0  # a desert: dry for a year
    second[3:, 1, 1] = 0.01
    theta = open_swvl([write(2000, swvl1=first), write(2001, swvl1=second)])
    assert theta.sel(lat=40.2, lon=[0, 0.1]).isnull().all()
    assert int(theta.isnull().sum()) == 2 * 24
    assert float(theta[0].sel(lat=40.1, lon=0.1)) == 0


def test_open_swvl_leaves_the_dry_land_of_a_file_with_a_mask_alone(write):
    field = np.full((12, 3, 5), 0.2)
    field[:, 0, 0], field[:, 1, 1] = np.nan, 0.0
    theta = open_swvl(write(swvl1=field))
    assert (theta.sel(lat=40.1, lon=0.1) == 0).all()
    assert int(theta.isnull().sum()) == 12


# --- problems ----------------------------------------------------------------------------


def test_open_swvl_names_a_month_without_any_value(write):
    last, between = np.full((24, 3, 5), 0.2), np.full((24, 3, 5), 0.2)
    last[23], between[14] = 1e20, np.nan
    path = write(2000, 24, swvl1=last)
    with pytest.raises(ValueError, match=rf"{path}: no value within .* in 2001-12: fetch it"):
        open_swvl(path)
    path = write(2000, 24, swvl1=between)
    theta = open_swvl(path)
    theta[:12].load()
    with pytest.raises(ValueError, match=rf"{path}: no value within .* in 2001-03: fetch it"):
        theta[12:].load()


@pytest.mark.parametrize("freq", ["D", "h"])
def test_open_swvl_refuses_daily_and_hourly_data(write, tmp_path, freq):
    path = write_grib(tmp_path / "x.grib", {"swvl1": values(30)}, steps=30, freq=freq)
    with pytest.raises(ValueError, match=f"{path}: 30 steps in 2000-01.*monthly averaged rean"):
        open_swvl(path)
    path = write()
    steps = pd.date_range("2000-01-01", periods=12, freq=freq)
    xr.load_dataset(path).assign_coords(valid_time=steps).to_netcdf(path)
    with pytest.raises(ValueError, match=f"{path}: 12 steps in 2000-01.*monthly averaged rean"):
        open_swvl(path)


@pytest.mark.parametrize("form", ["NETCDF3_64BIT", "NETCDF4", "GRIB"])
@pytest.mark.parametrize("share", [0.98, 0.53, 0.02])
def test_open_swvl_names_a_truncated_file(write, tmp_path, form, share):
    path = tmp_path / "reference.nc"
    if form == "GRIB":
        write_grib(path, {"swvl1": values()})
    else:
        dataset = xr.load_dataset(write(2000, 240, form="old", swvl1=values(240)))
        dataset.to_netcdf(path, format=form)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="truncated.*fetch it again") as error:
        open_swvl(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (
            b'{"type": "error"}',
            """is neither NetCDF nor GRIB but begins with b'{"type": "error"}'""",
        ),
    ],
)
def test_open_swvl_names_a_file_that_holds_no_data(tmp_path, content, words):
    path = tmp_path / "reference.nc"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        open_swvl(tmp_path)
    assert str(error.value) == f"{path}: {words}; fetch it again"


@pytest.mark.parametrize(
    ("stamps", "units"),
    [
        ([0, np.nan], "days since 2000-01-01"),
        ([0, 31], "months of grace"),
        ([0, 31], "none"),
        ([], "days since 2000-01-01"),
        ([0, 1e30], "days since 2000-01-01"),
    ],
)
def test_open_swvl_names_a_time_that_is_no_date(write, stamps, units):
    path = write(2000, 2)
    dataset = xr.load_dataset(path, decode_times=False).drop_vars(["number", "expver"])
    dataset = dataset.isel(valid_time=slice(len(stamps))).drop_encoding()
    time = ("valid_time", stamps, {"units": units})
    dataset.assign_coords(valid_time=time).to_netcdf(path)
    with pytest.raises(ValueError, match="time.*fetch it again") as error:
        open_swvl(path)
    assert str(error.value).startswith(f"{path}: time ")


def test_open_swvl_names_a_file_without_time_or_grid(write):
    paths = [write(2000), write(2001), write(2002)]
    dataset = xr.load_dataset(paths[0]).drop_vars("expver")
    dataset.isel(valid_time=0, drop=True).to_netcdf(paths[0])
    dataset.drop_vars("valid_time").to_netcdf(paths[1])
    dataset.drop_vars("latitude").to_netcdf(paths[2])
    with pytest.raises(ValueError) as error:
        open_swvl(paths)
    dimensions = "swvl1 has the dimensions valid_time 12, latitude 3, longitude 5"
    for line, path, words in zip(
        str(error.value).splitlines(),
        paths,
        ["swvl1 has no time", dimensions, dimensions.replace("valid_time", "time")],
        strict=True,
    ):
        assert line.startswith(f"{path}: {words}")


def test_open_swvl_lists_every_problem_at_once(write, tmp_path):
    paths = [write(year) for year in range(2000, 2004)]
    write(2001, units="mm")
    paths[2].write_bytes(b"")
    dataset = xr.load_dataset(paths[3])
    dataset.isel(latitude=slice(2)).to_netcdf(paths[3])
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError) as error:
        open_swvl(tmp_path, period=("2000", "2003"))
    lines = str(error.value).splitlines()
    assert "broken.zip: is truncated or damaged" in lines[0] and "is empty" in lines[1]
    assert "must be in" in lines[2] and "not on one grid" in lines[3]
    assert "36 of 48 months" in lines[4] and len(lines) == 5


# --- large archives ----------------------------------------------------------------------


def test_open_swvl_reads_at_most_a_year_at_a_time(write, monkeypatch):
    theta = open_swvl(write(1950, 780, form="old", swvl1=values(780) % 0.5 + 0.1))
    assert theta.chunks[0] == (12,) * 65
    monkeypatch.setattr("smcore.era5land.CELLS_PER_CHUNK", 15 * 4)
    assert open_swvl(write(2000, 24)).chunks[0] == (4,) * 6


def test_open_swvl_names_a_file_that_is_damaged_inside(write):
    path = write(2000, 36, swvl1=np.random.default_rng(0).uniform(0.1, 0.4, (36, 3, 5)))
    with netCDF4.Dataset(path) as file:
        stored = file["swvl1"][:].tobytes()
    dataset = xr.load_dataset(path).drop_vars(["number", "expver"])
    chunks = {"zlib": True, "chunksizes": (12, 3, 5), "shuffle": False}
    dataset.to_netcdf(path, encoding={"swvl1": chunks})
    whole = path.read_bytes()
    middle = whole.index(zlib.compress(stored[1440:2880], 4))
    path.write_bytes(whole[:middle] + bytes(40) + whole[middle + 40 :])
    theta = open_swvl(path)
    theta[:12].load()
    with pytest.raises(ValueError, match=f"{path}: is truncated or damaged.*fetch it again"):
        theta[12:].load()


def test_open_swvl_loads_no_chunk_of_a_file_with_a_mask(write):
    path = write(1950, 780, form="old", swvl1=values(780) % 0.5 + 0.1)

    def refuse(*_, **__):
        raise AssertionError("a chunk was loaded")

    with dask.config.set(scheduler=refuse):
        theta = open_swvl(path, period=("1950", "2014"))
    assert theta.sizes["time"] == 780


# --- invariant fields --------------------------------------------------------------------


def write_invariant(path, names=("lsm", "z"), lat=LAT, **attrs):
    path.unlink(missing_ok=True)  # a file that was refused may still be open
    fields = {"lsm": np.linspace(0, 1, 15).reshape(3, 5), "z": np.full((3, 5), 9806.65)}
    units = {"lsm": "(0 - 1)", "z": "m**2 s**-2"} | attrs
    dims = ("latitude", "longitude")
    xr.Dataset(
        {name: (dims, fields[name].astype("f4"), {"units": units[name]}) for name in names},
        coords={"latitude": lat, "longitude": LON},
    ).to_netcdf(path)
    return path


def test_open_invariant_takes_fields_without_time_from_a_folder_of_all(write, tmp_path):
    write_invariant(tmp_path / "fixed.nc")
    write(2000)
    (tmp_path / "broken.nc").write_bytes(b"")  # no matter: both fields are there
    static = open_invariant(tmp_path)
    assert static["land_fraction"].dims == ("lat", "lon")
    np.testing.assert_allclose(static["elevation"], 1000, rtol=1e-6)
    with pytest.raises(ValueError, match=r"broken\.nc: is empty"):
        open_invariant([tmp_path / "fixed.nc", tmp_path / "broken.nc"])


def test_open_invariant_reads_the_global_files_of_the_documentation(tmp_path):
    # lsm_1279l4_0.1x0.1.grb_v4_unpack.nc and geo_...: lat 90..-90, lon 0..359.9, one time
    lat, lon = np.arange(90, -90.5, -10.0), np.arange(0, 360, 7.5)
    coords = {"time": ("time", [0], {"units": "hours since 1900-01-01"})}
    coords |= {"latitude": lat.astype("f4"), "longitude": lon.astype("f4")}
    # the value tells the place: lat / 200 + 0.5, and lon in metres
    fields = {"lsm": lat[:, None] / 200 + 0.5 + 0 * lon, "z": 9.80665 * lon + 0 * lat[:, None]}
    for name, units in (("lsm", "(0 - 1)"), ("z", "m**2 s**-2")):
        field = (("time", "latitude", "longitude"), fields[name][None], {"units": units})
        xr.Dataset({name: field}, coords=coords).to_netcdf(tmp_path / f"{name}_1279l4.nc")
    static = open_invariant(tmp_path)
    assert (static.sizes["lat"], static.sizes["lon"]) == (19, 48)
    assert (static["lat"].diff("lat") > 0).all()
    assert (static["lon"].diff("lon") > 0).all() and float(static["lon"][0]) == -180
    np.testing.assert_allclose(static["land_fraction"].sel(lat=40, lon=105), 0.7)
    np.testing.assert_allclose(static["elevation"].sel(lat=40, lon=105), 105, rtol=1e-6)
    np.testing.assert_allclose(static["elevation"].sel(lat=-90, lon=-7.5), 352.5, rtol=1e-6)


def test_open_invariant_reads_grib(tmp_path):
    lsm, z = np.linspace(0, 1, 15).reshape(1, 3, 5), np.full((1, 3, 5), 9806.65)
    write_grib(tmp_path / "fixed.grb2", {"lsm": lsm, "z": z, "swvl1": lsm}, edition=2, steps=1)
    static = open_invariant(tmp_path)
    np.testing.assert_allclose(static["land_fraction"].sel(lat=40.2), lsm[0, 0], atol=1e-4)
    np.testing.assert_allclose(static["elevation"], 1000, rtol=1e-4)


def test_open_invariant_names_other_units_and_another_grid(tmp_path):
    first = write_invariant(tmp_path / "lsm.nc", ["lsm"], lsm="%")
    second = write_invariant(tmp_path / "z.nc", ["z"], z="m")
    with pytest.raises(ValueError) as error:
        open_invariant(tmp_path)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{first}: lsm must be in '(0 - 1)', got '%'")
    assert lines[1].startswith(f"{second}: z must be in 'm**2 s**-2', got 'm'")
    assert "no invariant field lsm and z" in lines[2] and len(lines) == 3
    write_invariant(first, ["lsm"])
    write_invariant(second, ["z"], lat=LAT + 1)
    with pytest.raises(ValueError, match=r"(lsm|z)\.nc: not on one grid with .*\.nc"):
        open_invariant(tmp_path)


def test_maps_can_be_drawn_after_a_grib_file_was_read(tmp_path):
    """A crash of the libraries when Python ends, where they are loaded in the wrong order."""
    path = write_grib(tmp_path / "x.grib", {"swvl1": values()})
    code = (
        "import sys; from smcore.era5land import open_swvl; open_swvl(sys.argv[1]).load();"
        "import cartopy.crs as crs; crs.LambertConformal().transform_point(1, 2, crs.PlateCarree())"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
