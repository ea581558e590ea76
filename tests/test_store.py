"""What stands under a final name is complete."""

import hashlib
import json
import signal
import subprocess
import sys

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore.config import ROOT
from smcore.store import replacing, sha256, write_dataset, write_json


@pytest.fixture
def dataset():
    """Thirty months on a small grid, with bounds and a missing cell."""
    time = pd.date_range("1999-07-01", periods=30, freq="MS")
    theta = np.random.default_rng(0).random((30, 3, 4))
    theta[:, 1, 2] = np.nan
    return xr.Dataset(
        {
            "theta": (("time", "lat", "lon"), theta, {"units": "m3 m-3"}),
            "land": (("lat", "lon"), np.ones((3, 4), "int8")),
            "time_bnds": (("time", "bnds"), np.stack([time, time + pd.offsets.MonthBegin()], -1)),
            "lat_bnds": (("lat", "bnds"), np.arange(6.0).reshape(3, 2)),
            "crs": ((), np.int32(0), {"grid_mapping_name": "latitude_longitude"}),
        },
        coords={
            "time": ("time", time, {"bounds": "time_bnds"}),
            "lat": ("lat", [0.5, 1.5, 2.5], {"bounds": "lat_bnds"}),
            "lon": ("lon", [0.5, 1.5, 2.5, 3.5]),
        },
    )


def test_replacing_gives_the_file_its_name_at_the_end(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with replacing(path) as part:
        part.write_text("whole")
        assert part.parent == path.parent  # a rename between file systems would copy
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_replacing_leaves_no_file_after_an_error(tmp_path):
    path = tmp_path / "file.txt"
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("ha")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_replacing_leaves_the_old_file_after_an_error(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_text("ha")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_needs_the_block_to_write_a_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_replacing_leaves_the_old_file_when_the_process_is_killed(tmp_path):
    path = tmp_path / "theta.nc"
    path.write_text("old")
    script = f"""
import os, signal
from smcore.store import replacing
with replacing({str(path)!r}) as part:
    part.write_text("ha")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert list(tmp_path.glob("*.nc")) == [path]  # what is left over has no name of ours
    with replacing(path) as part:  # running again finishes the work
        part.write_text("new")
    assert path.read_text() == "new"


def test_write_json_takes_numbers_of_numpy(tmp_path):
    path = tmp_path / "values.json"
    write_json({"a": np.float64(0.5), "b": np.arange(3), "c": path, "d": [np.int8(1)]}, path)
    assert json.loads(path.read_text()) == {"a": 0.5, "b": [0, 1, 2], "c": str(path), "d": [1]}


def test_write_dataset_gives_back_what_it_took(tmp_path, dataset):
    write_dataset(dataset, tmp_path / "theta.nc")
    with xr.open_dataset(tmp_path / "theta.nc") as found:
        xr.testing.assert_allclose(found.load(), dataset, rtol=1e-6)
        xr.testing.assert_equal(found["time"], dataset["time"])


def test_write_dataset_encodes_as_cf_wants_it(tmp_path, dataset):
    write_dataset(dataset, tmp_path / "theta.nc")
    with netCDF4.Dataset(tmp_path / "theta.nc") as file:
        for name in ("time", "lat", "lon", "time_bnds", "lat_bnds", "crs", "land"):
            assert "_FillValue" not in file[name].ncattrs(), name
        assert (file["time"].dtype, file["time_bnds"].dtype) == ("f8", "f8")
        assert file["time"].units == "days since 1850-01-01"
        assert file["time"].calendar in ("standard", "gregorian", "proleptic_gregorian")
        assert "units" not in file["time_bnds"].ncattrs()  # bounds take those of the coordinate
        np.testing.assert_array_equal(file["time_bnds"][:, 0], file["time"][:])
        # 1850-01-01 to 1999-07-01: 149 years of 365 days, 36 leap days (1900 has none), 181 days
        assert file["time"][0] == 149 * 365 + 36 + 181
        theta = file["theta"]
        assert theta.dtype == "f4"
        assert theta._FillValue == np.float32(9.96921e36)
        assert theta.filters()["zlib"] and theta.filters()["shuffle"]
        assert theta.chunking() == [12, 3, 4]
        assert theta[:].mask.sum() == 30


def test_write_dataset_does_not_depend_on_the_file_that_the_data_came_from(tmp_path, dataset):
    odd = {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -9999, "chunksizes": (1, 1, 1)}
    dataset.to_netcdf(
        tmp_path / "packed.nc",
        encoding={"theta": odd, "time": {"units": "hours since 1900-01-01"}},
    )
    with xr.open_dataset(tmp_path / "packed.nc") as packed:
        write_dataset(packed, tmp_path / "theta.nc")
    with netCDF4.Dataset(tmp_path / "theta.nc") as file:
        assert file["theta"].dtype == "f4"
        assert "scale_factor" not in file["theta"].ncattrs()
        assert file["theta"].chunking() == [12, 3, 4]
        assert file["time"].units == "days since 1850-01-01"
        np.testing.assert_array_equal(file["time_bnds"][:, 0], file["time"][:])


def test_write_dataset_leaves_the_old_file_after_an_error(tmp_path, dataset):
    path = tmp_path / "theta.nc"
    path.write_text("old")
    dataset["bad"] = ("lat", np.array([1, "a", None], object))
    with pytest.raises((TypeError, ValueError)):
        write_dataset(dataset, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_dataset_writes_the_same_bytes_again(tmp_path, dataset):
    for name in ("one.nc", "two.nc"):
        write_dataset(dataset, tmp_path / name)
    assert sha256(tmp_path / "one.nc") == sha256(tmp_path / "two.nc")


def test_sha256_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    assert sha256(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
