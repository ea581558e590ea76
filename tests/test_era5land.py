"""The reference as the Climate Data Store hands it out, in its old and its new form."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore.era5land import open_invariant, open_swvl

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


def test_open_swvl_cuts_the_period_and_takes_repeated_months_once(write, tmp_path):
    paths = [write(2000, 24), write(2001, 24)]
    theta = open_swvl(paths, period=("2001", "2001"))
    assert list(theta.indexes["time"]) == list(pd.date_range("2001-01", "2001-12", freq="MS"))
    np.testing.assert_allclose(theta[:, 2, 2], 0.1 + 1e-4 * np.arange(12, 24), rtol=1e-6)


def test_open_swvl_needs_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\*swvl\*\.nc"):
        open_swvl(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.nc"):
        open_swvl(tmp_path / "nothing.nc")


def test_open_swvl_refuses_files_on_different_grids(write):
    paths = [write(2000), write(2001)]
    moved = xr.load_dataset(paths[1])
    moved.assign_coords(latitude=moved["latitude"] + 0.05).to_netcdf(paths[1])
    with pytest.raises(ValueError, match="not on one grid"):
        open_swvl(paths)


def test_open_swvl_keeps_the_data_on_disk_until_they_are_used(write):
    assert open_swvl(write()).chunks is not None


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
    with pytest.raises(ValueError, match="lack z"):
        open_invariant(tmp_path)
    dataset[["z"]].to_netcdf(tmp_path / "mine_invariant_z.nc")
    static = open_invariant(tmp_path)
    assert static["elevation"].dims == ("lat", "lon")
    assert static["elevation"].attrs["units"] == "m"
    np.testing.assert_allclose(static["elevation"], 1000 * static["land_fraction"], atol=1e-9)
    assert float(static["land_fraction"].sel(lat=40.2, lon=0)) == 0
    assert float(static["land_fraction"].sel(lat=40.0, lon=-0.1)) == 1


def test_open_invariant_needs_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\*invariant\*\.nc"):
        open_invariant(tmp_path)
