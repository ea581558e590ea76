"""Defects of real files, planted in the polite files of the demo world."""

import re
from pathlib import Path

import numpy as np
import xarray as xr

from smcore.store import replacing

FILL = np.float32(1e20)  # over the ocean
DRS = ("activity_id", "institution_id", "source_id", "experiment_id", "variant_label")
DRS += ("table_id", "variable_id", "grid_label", "version", "file")  # data reference syntax


def to_netcdf(dataset, path, encoding):
    unlimited = [dim for dim in ("time", "valid_time") if dim in dataset.dims]
    with replacing(path) as part:
        dataset.to_netcdf(part, engine="netcdf4", encoding=encoding, unlimited_dims=unlimited)


def stored(path):
    """The dataset in a file, loaded, with the values as they are stored."""
    return xr.load_dataset(path, engine="netcdf4", decode_times=False, mask_and_scale=False)


def store(dataset, path):
    """Write a dataset whose values are those to be stored."""
    dataset, encoding = dataset.drop_encoding(), {}
    for name, variable in dataset.variables.items():
        encoding[name] = {} if "_FillValue" in variable.attrs else {"_FillValue": None}
        encoding[name] |= {"zlib": True, "complevel": 1} if variable.ndim == 3 else {}
    to_netcdf(dataset, path, encoding)


def with_parts(path, **parts):
    """The path of a file with other parts of the data reference syntax."""
    names = dict(zip(DRS, path.parts[-len(DRS) :], strict=True)) | parts
    return Path(*path.parts[: -len(DRS)], *names.values())


def with_span(path, first, last):
    """The path of a file with other months, YYYYMM, in its name."""
    return path.with_name(re.sub(r"\d{6}-\d{6}", f"{first}-{last}", path.name))


def inland(dataset):
    """Position of a cell that is land in every source."""
    lat, lon = abs(dataset["lat"].values - 35), abs(dataset["lon"].values % 360 - 105)
    return lat.argmin(), lon.argmin()


def late_start(paths):
    """The scenarios lack January of their first year, as those of NorESM2 and TaiESM1."""
    for path in paths[2:]:
        first, last = path.stem.split("_")[-1].split("-")
        store(stored(path).isel(time=slice(1, None)), with_span(path, f"{first[:4]}02", last))
        path.unlink()


def overlap(paths, change=lambda year: year):
    """The second historical file repeats the last year of the first, as `change` gives it."""
    first, last = paths[1].stem.split("_")[-1].split("-")
    parts = change(stored(paths[0]).isel(time=slice(-12, None))), stored(paths[1])
    same = {"compat": "override", "coords": "minimal", "join": "override", "data_vars": "minimal"}
    joined = xr.concat(parts, "time", combine_attrs="override", **same)
    store(joined, with_span(paths[1], f"{int(first[:4]) - 1}01", last))
    paths[1].unlink()


def other_institution(paths):
    """Another institution ran the scenarios, as for MPI-ESM1-2-HR."""
    for path in paths[2:]:
        to = with_parts(path, institution_id="OTHER")
        to.parent.mkdir(parents=True)
        path.rename(to)


def above_saturation(paths):
    """A soil that holds more water than it has volume, and a slightly negative value."""
    dataset = stored(paths[-1])
    y, x = inland(dataset)
    dataset["mrsos"][:5, y, x], dataset["mrsos"][6, y, x] = 196.0, -0.002
    store(dataset, paths[-1])


def wrong_depth(paths):
    """Depth bounds of another layer, as in the ACCESS models."""
    for path in paths:
        store(stored(path).assign(depth_bnds=("bnds", [0.0, 0.022])), path)


def older_version(paths):
    """A version that the centre has replaced, with half the water."""
    for path in paths:
        dataset = stored(path)
        half = dataset["mrsos"].where(dataset["mrsos"] == FILL, dataset["mrsos"] / 2)
        store(dataset.assign(mrsos=half), with_parts(path, version="v20190101"))


def undeclared_fill(paths):
    """9.97e36 over the ocean and -9999 on one land cell, and no attribute that says so."""
    dataset = stored(paths[-1])
    values, (y, x) = dataset["mrsos"].values, inland(dataset)
    values[values == FILL], values[:, y, x] = 9.969209968386869e36, -9999
    del dataset["mrsos"].attrs["_FillValue"], dataset["mrsos"].attrs["missing_value"]
    store(dataset, paths[-1])


# Each takes the files of one source, two of the historical run and then one for each scenario.
DEFECTS = (late_start, overlap, other_institution, above_saturation, wrong_depth)
DEFECTS = {one.__name__: one for one in (*DEFECTS, older_version, undeclared_fill)}
