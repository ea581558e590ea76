"""Native files: what the readers of CMIP6 and of ERA5-Land share.

What makes a file or a series useless raises `Problem`; these are collected as pairs of kind and
text, so that a user learns of every file at once. A part is the field of one file: a DataArray with
the name of the file in ``attrs["path"]``.
"""

import warnings
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import cftime
import numpy as np
import pandas as pd
import xarray as xr

from smcore.regrid import is_rectilinear

# What the libraries raise where a file is damaged.
DAMAGE = (EOFError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError)
DAMAGE += (zipfile.BadZipFile, zlib.error)
# By content, because archives have handed out zips and GRIB files that were named .nc.
KINDS = {b"\x89HDF": "NetCDF-4", b"CDF": "NetCDF-3", b"GRIB": "GRIB", b"PK": "zip"}
SAME_PLACE = 1e-3  # degrees; two writings of one grid differ by less


class Problem(ValueError):
    """What is wrong and what helps, in words; `kind` says it in one."""

    def __init__(self, kind, words):
        super().__init__(words)
        self.kind = kind


@contextmanager
def collecting(problems, where):
    """Run a block, and go on behind it after a `Problem`, which is added to the list `problems`.

    Its text begins with `where`: the name of a series, or the Path of a file, which may be damaged.
    """
    try:
        yield
    except Problem as problem:
        problems.append([problem.kind, f"{where}: {problem}"])
    except DAMAGE as error:
        if not isinstance(where, Path):
            raise
        problems.append(["unreadable", f"{where}: {_damage(where, error)}; fetch it again"])


def kind_of(path):
    """``NetCDF-4``, ``NetCDF-3``, ``GRIB``, ``zip``, or None for a file of another content."""
    with path.open("rb") as file:
        head = file.read(4)
    return next((kind for magic, kind in KINDS.items() if head.startswith(magic)), None)


def _damage(path, error):
    """What a file is that cannot be read, in words."""
    if kind_of(path):
        return f"is truncated or damaged ({' '.join(str(error).split())})"
    with path.open("rb") as file:
        head = file.read(40)
    if head.lstrip().startswith(b"<"):
        return "is a web page"
    return f"is neither NetCDF nor GRIB but begins with {head!r}" if head else "is empty"


def open_netcdf(path, **options):
    """The dataset in a file, unread, times as they are stored; `options` of `xr.open_dataset`."""
    with warnings.catch_warnings():
        # _FillValue and missing_value that differ: both mean missing.
        warnings.simplefilter("ignore", xr.SerializationWarning)
        dataset = xr.open_dataset(path, engine="netcdf4", decode_times=False, **options)
    if kind_of(path) == "NetCDF-3":  # where its end is missing, the library reads zeros
        held = dataset.variables.values()
        needed = sum(variable.size * variable.encoding["dtype"].itemsize for variable in held)
        if path.stat().st_size < needed:
            raise EOFError(f"expected {needed} bytes")
    return dataset


def months(time):
    """The first day of the month of each step of an axis as it is stored, a DatetimeIndex.

    Of a calendar only year and month count; numbers without units are such as 20241001.
    """
    values, units = time.values, time.attrs.get("units")
    if (lost := pd.isna(values).sum()) or not values.size:
        text = f"time has gaps, {lost} of {values.size} time stamps are missing: fetch it again"
        raise Problem("time", text)
    try:
        if values.dtype.kind == "i" and units is None:
            stamps = pd.to_datetime(values.astype(str), format="%Y%m%d")
        else:
            stamps = cftime.num2date(values, units, time.attrs.get("calendar", "standard"))
        return pd.DatetimeIndex([f"{stamp.year:04d}-{stamp.month:02d}-01" for stamp in stamps])
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        text = f"time cannot be decoded ({' '.join(str(error).split())}); expected a CF calendar "
        text += "and units such as 'days since 1850-01-01': fetch it again"
        raise Problem("time", text) from error


def month_range(period):
    """First days of the months of a pair of years, both included."""
    return pd.date_range(f"{period[0]}-01", f"{period[1]}-12", freq="MS")


def shown(months):
    """Months in words: at most the first five and the last."""
    words = [f"{month:%Y-%m}" for month in months]
    return ", ".join(words if len(words) < 7 else [*words[:5], "...", words[-1]])


def on_axes(field):
    """A field with coordinates ``lat`` and ``lon`` (-180..180 degrees), in the order of the file.

    In the file they may be latitude and longitude, of one dimension each or of two. Other
    dimensions than these, ``time`` and ``expver`` (of ERA5) must have length 1, and go.
    """
    stored = ", ".join(f"{dim} {size}" for dim, size in field.sizes.items())
    names = {"latitude": "lat", "longitude": "lon"}.items()
    field = field.rename({old: new for old, new in names if old in field.coords})
    axes = [field[axis] for axis in ("lat", "lon") if axis in field.coords]
    others = set(field.dims) - {"time", "expver"}.union(*(axis.dims for axis in axes))
    if len(axes) < 2 or any(field.sizes[dim] > 1 for dim in others):
        text = f"{field.name} has the dimensions {stored}; expected time, latitude and longitude "
        raise Problem("grid", text + "with coordinates, and one layer: fetch the file again")
    lat, lon = (axis.astype(float) for axis in axes)
    if not (np.isfinite(lat).all() and np.isfinite(lon).all() and (abs(lat) <= 90.001).all()):
        raise Problem("grid", "lat is not within -90..90 degrees, or lon missing: fetch it again")
    field = field.squeeze(sorted(others), drop=True)
    field = field.assign_coords(lat=lat.variable, lon=(lon.variable + 180) % 360 - 180)
    if is_rectilinear(field):
        field = field.swap_dims({lat.dims[0]: "lat", lon.dims[0]: "lon"})
    return field


def ascending(field):
    """A field with lat and lon that ascend, each meridian once, as the last dimensions."""
    order = {axis: np.unique(field[axis], return_index=True)[1] for axis in ("lat", "lon")}
    return field.isel(order).transpose(..., "lat", "lon")


def on_one_grid(parts, problems):
    """The parts on the grid of the first; each other one adds to the pairs in `problems`."""
    kept = []
    for part in parts:
        first = (kept or [part])[0]
        with collecting(problems, part.attrs["path"]):
            for axis in ("lat", "lon"):
                one, other = part[axis].values, first[axis].values
                if one.shape != other.shape or not np.allclose(one, other, atol=SAME_PLACE):
                    extents = [f"{x.size} from {x.min():g} to {x.max():g}" for x in (one, other)]
                    text = f"not on one grid with {first.attrs['path']}: {axis} differs, "
                    text += f"{', expected '.join(extents)}; fetch the same area, or move the "
                    raise Problem("grid", text + "files of another area to another folder")
            kept.append(part.assign_coords(lat=first["lat"], lon=first["lon"]))
    return kept


def within(field, limits):
    """The values between two limits; what lies beyond is a fill value that no attribute names."""
    return field.where((field > limits[0]) & (field < limits[1]))


def join(parts, problems, *, tolerance, limits):
    """One series of parts on one grid, in order, each month from the part that begins first.

    Months that come twice are a problem: ``conflicting_months`` where values differ by more than
    `tolerance` (what is missing or beyond `limits` counts as 0), else ``repeated_months``.
    """
    parts = sorted(parts, key=lambda part: (part.indexes["time"].min(), part.attrs["path"]))
    same = {"join": "override", "compat": "override", "coords": "minimal"}
    series = xr.concat(parts, "time", combine_attrs="override", **same)
    again = series.indexes["time"].duplicated()
    if again.any():
        months = series.indexes["time"][again]
        water = within(series, limits).fillna(0)
        first = water.drop_duplicates("time").sel(time=months)
        differ = abs(water.isel(time=again) - first) > tolerance
        apart = differ.any([dim for dim in differ.dims if dim != "time"]).values
        files = [part.attrs["path"] for part in parts if part.indexes["time"].isin(months).any()]
        kind, words = "repeated_months", f"{shown(months)} repeated, and equal"
        if apart.any():
            kind, words = "conflicting_months", f"disagree on {shown(months[apart])}, by more than "
            words += f"{tolerance:g} m3 m-3: keep the right one"
        problems.append([kind, f"{', '.join(files)}: {words}"])
    return series.drop_duplicates("time").sortby("time")
