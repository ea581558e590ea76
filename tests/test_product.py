import json
import re
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import smcore
from smcore.config import PROFILES, Study
from smcore.product import open_product, write


@pytest.fixture
def study(tmp_path):
    return Study.load("tiny", directory=str(tmp_path))


@pytest.fixture
def theta():
    """Two years on the fine grid of a box; one ocean cell."""
    rng = np.random.default_rng(0)
    coords = {
        "time": pd.date_range("2001-01-01", periods=24, freq="MS"),
        "lat": 20.25 + 0.5 * np.arange(4),
        "lon": 100.25 + 0.5 * np.arange(6),
    }
    values = rng.uniform(0.1, 0.4, (24, 4, 6)).astype("float32")
    values[:, 0, 0] = np.nan
    return xr.DataArray(values, coords, dims=("time", "lat", "lon"), attrs={"units": "m3 m-3"})


@pytest.fixture
def path(theta, study):
    path = study.product("historical")
    write(theta, path, study=study)
    return path


def check_cf(path, *options):
    script = Path(sys.executable).with_name("compliance-checker")
    command = [script, "-t", "cf:1.8", "-c", "strict", *options, path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("ensemble", [False, True])
def test_write_satisfies_the_cf_checker(theta, study, path, ensemble):
    if ensemble:
        study = study.model_copy(update={"seeds": (0, 1)})
        write(theta, path, study=study, std=0.1 * theta)
    result = check_cf(path)
    assert "Errors" not in result.stdout, result.stdout
    # The only doubt left is the checker's own: CF-1.8, 7.1, gives a scalar coordinate bounds
    # of one dimension.
    doubts = re.findall(r"^\* (.*)", result.stdout, re.MULTILINE)
    assert len(doubts) <= 1, result.stdout
    assert all("depth_bnds" in doubt for doubt in doubts), result.stdout


def test_cf_checker_finds_errors(path):
    # What the test above relies on.
    with netCDF4.Dataset(path, "a") as file:
        file["theta"].units = "kelvin"
    assert "Errors" in check_cf(path).stdout


def test_write_and_open_product_give_theta_back(theta, path):
    found = open_product(path)
    assert found.dims == ("time", "lat", "lon")
    xr.testing.assert_equal(found.load(), theta)
    assert found.dtype == np.float32
    assert found.attrs["units"] == "m3 m-3"
    assert found.attrs["network"] == "sound"
    assert set(found.coords) == {"time", "lat", "lon"}


def test_open_product_selects_years_by_name(path):
    assert open_product(path).sel(time="2002").sizes["time"] == 12


def test_open_product_accepts_a_string(path):
    assert open_product(str(path)).sizes["time"] == 24


def test_open_product_names_the_chapter_that_makes_it(study):
    with pytest.raises(FileNotFoundError, match="03_fused_product"):
        open_product(study.product("ssp585"))


def test_write_orders_the_dimensions(theta, study, path):
    other = path.with_name("other.nc")
    write(theta.transpose("lon", "time", "lat"), other, study=study)
    xr.testing.assert_identical(open_product(other).load(), open_product(path).load())


def test_write_describes_theta(path):
    with netCDF4.Dataset(path) as file:
        variable = file["theta"]
        assert variable.standard_name == "volume_fraction_of_condensed_water_in_soil"
        assert variable.units == "m3 m-3"
        assert variable.dtype == np.float32
        assert variable.filters()["zlib"]
        assert variable.chunking() == [12, 4, 6]  # one year
        assert np.ma.is_masked(variable[0, 0, 0])
        assert file.Conventions == "CF-1.8"


def test_only_fields_have_coordinates(path):
    with netCDF4.Dataset(path) as file:
        found = {
            name for name, variable in file.variables.items() if "coordinates" in variable.ncattrs()
        }
    assert found == {"theta"}  # CDO warns of bounds that have some


def test_write_gives_every_cell_its_bounds(path):
    with netCDF4.Dataset(path) as file:
        for axis, first, cells in [("lat", 20.0, 4), ("lon", 100.0, 6)]:
            edges = first + 0.5 * np.arange(cells + 1)
            bounds = file[file[axis].bounds]
            np.testing.assert_allclose(bounds, np.stack([edges[:-1], edges[1:]], axis=1))
            assert "_FillValue" not in file[axis].ncattrs() + bounds.ncattrs()
        assert file["lat"].units == "degrees_north"
        assert file["lon"].units == "degrees_east"


def test_write_bounds_a_month_by_the_first_of_the_next(path):
    with netCDF4.Dataset(path) as file:
        time, bounds = file["time"], file[file["time"].bounds]
        assert bounds.dtype == time.dtype == np.float64
        np.testing.assert_array_equal(bounds[:, 0], time[:])
        np.testing.assert_array_equal(bounds[1:, 0], bounds[:-1, 1])
        # 2001 has 28 days in February.
        np.testing.assert_array_equal(np.diff(bounds[:3], axis=1)[:, 0], [31, 28, 31])
        assert time.units.startswith("days since 1850-01-01")
        last = netCDF4.num2date(bounds[-1, 1], time.units, time.calendar)
        assert (last.year, last.month, last.day) == (2003, 1, 1)


@pytest.mark.parametrize(("depth", "bottom"), [("0-7cm", 0.07), ("0-10cm", 0.1)])
def test_write_says_for_which_depth(theta, tmp_path, depth, bottom):
    study = Study.load("tiny", directory=str(tmp_path), depth=depth)
    write(theta, tmp_path / "product.nc", study=study)
    with netCDF4.Dataset(tmp_path / "product.nc") as file:
        assert file["depth"].units == "m"
        assert file["depth"].positive == "down"
        assert file["depth"][...] == pytest.approx(bottom / 2)
        np.testing.assert_allclose(file[file["depth"].bounds], [0, bottom])
        assert "depth" in file["theta"].coordinates


def test_write_names_the_coordinate_reference_system(path):
    with netCDF4.Dataset(path) as file:
        crs = file[file["theta"].grid_mapping]
        assert crs.grid_mapping_name == "latitude_longitude"
        assert crs.semi_major_axis == 6378137.0  # WGS 84
        assert crs.inverse_flattening == 298.257223563


def test_write_keeps_the_provenance(theta, study, path):
    write(theta, path, study=study, provenance={"experiment_id": "ssp585", "best_epoch": 3})
    with xr.open_dataset(path) as product:
        attrs = product.attrs
    assert attrs["profile"] == "tiny"
    assert attrs["network"] == "sound"
    assert attrs["configuration"] == study.hash
    assert attrs["smcore_version"] == smcore.__version__
    assert json.loads(attrs["sources"]) == ["Alder", "Birch", "Cedar", "Hazel"]
    assert attrs["train_period"] == "1990 1999"
    assert attrs["seed"] == "0"
    assert attrs["experiment_id"] == "ssp585"
    assert attrs["best_epoch"] == 3


def test_write_gives_the_same_file_twice(theta, study, path):
    first = path.read_bytes()
    write(theta, path, study=study)
    assert path.read_bytes() == first


def test_write_calls_the_demo_world_synthetic(theta, tmp_path):
    for profile in ("tiny", "paper"):
        study = Study.load(profile, directory=str(tmp_path))
        write(theta, tmp_path / f"{profile}.nc", study=study)
        with xr.open_dataset(tmp_path / f"{profile}.nc") as product:
            assert product.attrs["summary"].startswith("SYNTHETIC") == (profile == "tiny")
            assert ("SYNTHETIC" in str(product.attrs)) == (profile == "tiny")


def test_write_counts_what_is_outside_the_physical_range(theta, study, path):
    theta[0, 1, 1], theta[5, 2, 2], theta[7, 3, 3] = -0.001, 0.77, 1.2  # outside
    theta[1, 1, 1], theta[2, 2, 2] = 0.0, 0.765  # inside
    assert write(theta, path, study=study) == 3
    with xr.open_dataset(path) as product:
        assert product.attrs["values_outside_physical_range"] == 3
        assert product["theta"][7, 3, 3] == np.float32(1.2)  # counted, not clipped


def test_write_leaves_its_input_alone(theta, study, path):
    before = theta.copy(deep=True)
    write(theta, path, study=study)
    xr.testing.assert_identical(theta, before)


def test_write_refuses_other_units(theta, study, path):
    with pytest.raises(ValueError, match="m3 m-3"):
        write((theta * 100).assign_attrs(units="%"), path, study=study)


def test_write_refuses_the_middle_of_the_month(theta, study, path):
    middle = theta.assign_coords(time=theta.time + np.timedelta64(14, "D"))
    with pytest.raises(ValueError, match="first of each month"):
        write(middle, path, study=study)


def test_product_of_a_study_is_named_by_profile_network_experiment_and_months():
    tiny = Study.load("tiny")
    assert tiny.product("historical").name == "smcore_theta_tiny_sound_historical_199001-201412.nc"
    paper = Study.load("paper")
    assert paper.product("ssp585").name == "smcore_theta_paper_paper_ssp585_201501-210012.nc"
    assert {path.stem for path in PROFILES.glob("*.yml")} >= {"tiny", "demo", "paper"}
