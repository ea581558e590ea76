"""The reference: ERA5-Land soil water as the Climate Data Store hands it out."""

import shutil
import tempfile
import uuid
import zipfile
from functools import partial, reduce
from pathlib import Path

import dask.array
import numpy as np
import pandas as pd
import xarray as xr

from smcore import native
from smcore.grids import STANDARD_GRAVITY
from smcore.native import Problem, collecting, kind_of, shown

LAYERS = {"0-7cm": {"swvl1": 1.0}, "0-10cm": {"swvl1": 0.7, "swvl2": 0.3}}
UNITS = {  # the first is what the store writes
    "swvl1": ("m**3 m**-3", "m3 m-3"),
    "swvl2": ("m**3 m**-3", "m3 m-3"),
    "lsm": ("(0 - 1)", "0 - 1", "1", "dimensionless", None),
    "z": ("m**2 s**-2", "m2 s-2"),
}
# What lies outside is an undeclared fill value such as -9999 and 1e20, and missing.
LIMITS = {"swvl1": (-0.1, 1.5), "swvl2": (-0.1, 1.5), "lsm": (-0.1, 1.1), "z": (-5e3, 1e5)}
OCEAN = 1e-4  # m3 m-3; where ERA5 has no soil, packing leaves a constant of about 1.5e-5
SAME = 1e-3  # m3 m-3; packing changes a month that comes twice by less
CELLS_PER_CHUNK = 2**24  # 64 MiB
SUFFIXES = (".nc", ".grib", ".grib2", ".grb", ".grb2", ".zip")
PRODUCT = "ERA5-Land 'monthly averaged reanalysis'"


def open_swvl(paths, *, depth="0-7cm", period=None):
    """Monthly volumetric water content of the reference.

    Parameters
    ----------
    paths : Path or list of Path
        A folder, or files: NetCDF, GRIB, or zips of them (unpacked once into a hidden folder
        beside them). The content counts, not the name.
    depth : {"0-7cm", "0-10cm"}, default: "0-7cm"
        Layer 1, or ``(7 swvl1 + 3 swvl2) / 10`` for the depth of ``mrsos``.
    period : (str, str), optional
        First and last year, both included; every month must be there.

    Returns
    -------
    xr.DataArray
        theta(time, lat, lon) in m3 m-3, at least 0, loaded when it is used. ``time`` is the
        first of each month, ``lat`` ascends, ``lon`` ascends in -180..180; missing over the ocean.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no file, or one has other variables, units, grids or months: a line for each.

    Notes
    -----
    Of each file only the first and the last month are read here; a month between them without
    any value is refused when it is used. If a file has values everywhere and some are next to
    0, as those of ERA5, all months are read, and cells that never exceed 1e-4 m3 m-3 in a year
    or more are ocean. Fewer months do not tell the ocean from a desert that happens to be dry.
    """
    if depth not in LAYERS:
        raise ValueError(f"`depth` must be one of {', '.join(LAYERS)}, got {depth!r}")
    fields, problems = _read(paths, ("swvl1", "swvl2"))
    held, parts, layers = {field.name: field.path for field in fields}, [], {}
    for field in fields:
        if field.name in LAYERS[depth]:
            with collecting(problems, Path(field.path)):
                parts.append(_monthly(field))
    parts = native.on_one_grid(parts, problems)
    for name in LAYERS[depth]:
        if some := [part for part in parts if part.name == name]:
            layers[name] = native.join(some, problems, tolerance=SAME, limits=LIMITS[name])
        elif name not in held and (held or not problems):
            text = f"reference: no variable {name}, which depth {depth} needs, in {paths}"
            text += "".join(f"; {path} holds {other}" for other, path in held.items())
            problems.append(["variable", f"{text}: fetch it from {PRODUCT}"])

    months = pd.DatetimeIndex([]).append([layer.indexes["time"] for layer in layers.values()])
    months = native.month_range(period) if period else months.unique().sort_values()
    for name, layer in layers.items():
        if len(missing := months.difference(layer.indexes["time"])):
            text = f"reference: {name}: {len(missing)} of {len(months)} months are missing "
            text += f"({shown(missing)}): fetch them or shorten the period"
            problems.append(["missing_months", text])
    _refuse(problems)

    whole = slice(months[0], months[-1])
    theta = sum(layers[name].sel(time=whole) * weight for name, weight in LAYERS[depth].items())
    if len(months) >= 12 and any(part.values_over_ocean for part in parts):
        theta = theta.where((theta > OCEAN).any("time").compute())
    theta.attrs = {"long_name": f"volumetric water content, {depth}", "units": "m3 m-3"}
    return theta.rename("theta")


def open_invariant(paths):
    """Land fraction and elevation of the reference's grid.

    Parameters
    ----------
    paths : Path or list of Path
        A folder, or files (NetCDF, GRIB, or zips of them), with ``lsm`` (0..1) and ``z``
        (geopotential, m2 s-2). Of several files or times the first is taken.

    Returns
    -------
    xr.Dataset
        ``land_fraction`` (0..1) and ``elevation`` (m), dimensions lat and lon, both ascending.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no file, or a field cannot be had, or the two are on different grids.
    """
    fields, problems = _read(paths, ("lsm", "z"))
    static = {}
    for field in fields:
        if field.name not in static:
            with collecting(problems, Path(field.path)):
                one = _on_axes(field).isel(time=0, drop=True, missing_dims="ignore")
                static[field.name] = native.ascending(_load(one))
    if lacking := [name for name in ("lsm", "z") if name not in static]:
        text = f"reference: no invariant field {' and '.join(lacking)} in {paths}: "
        text += "fetch land_sea_mask and geopotential of ERA5-Land"
        problems.append(["variable", text])
    elif _is_folder(paths):
        problems = []  # both fields are there: what else the folder holds does not matter
    kept = {field.name: field for field in native.on_one_grid(static.values(), problems)}
    _refuse(problems)
    land_fraction, elevation = kept["lsm"].clip(0, 1), kept["z"] / STANDARD_GRAVITY
    land_fraction.attrs, elevation.attrs = {"units": "1"}, {"units": "m"}
    return xr.Dataset({"land_fraction": land_fraction, "elevation": elevation})


def find_files(folder):
    """The files of a folder that may hold the reference, by their suffix; sorted."""
    files = (p for p in Path(folder).iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in SUFFIXES)


def _refuse(problems):
    """ValueError with a line for each problem, of which equal months that come twice are none."""
    if lines := [text for kind, text in problems if kind != "repeated_months"]:
        raise ValueError("\n".join(lines))


def _is_folder(paths):
    return isinstance(paths, str | Path) and Path(paths).is_dir()


def _read(paths, names):
    """The fields called `names`, unread, with their ``path``, and the problems of the files."""
    files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    absent = [f"there is no file {path}" for path in files if not path.exists()]
    if _is_folder(paths):
        files = find_files(paths)
        absent = [] if files else [f"no file *{', *'.join(SUFFIXES)} in {paths}: fetch {PRODUCT}"]
    if absent:
        raise FileNotFoundError("\n".join(absent))
    members, fields, problems = [], [], []
    for path in files:
        with collecting(problems, path):
            members += _members(path) if kind_of(path) == "zip" else [path]
    for path in members:
        with collecting(problems, path):
            found, held = _open(path, names)
            fields += [field.assign_attrs(path=str(path)) for field in found]
            if not found and not _is_folder(paths):
                text = f"no variable {' or '.join(names)}; it holds {', '.join(held)}: fetch them "
                raise Problem("variable", f"{text}from {PRODUCT}")
    return fields, problems


def _members(path):
    """The NetCDF and GRIB files in a zip, unpacked once into a hidden folder beside it."""
    stat, prefix = path.stat(), f".{path.name}.unpacked-"
    folder = path.with_name(f"{prefix}{stat.st_size}-{stat.st_mtime_ns}")
    if not folder.is_dir():
        try:
            with (
                tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=path.parent) as part,
                zipfile.ZipFile(path) as archive,
            ):
                inside = [one for one in archive.namelist() if not one.endswith("/")]
                kinds = {name: kind_of(zipfile.Path(archive, name)) for name in inside}
                wanted = [name for name, kind in kinds.items() if kind not in (None, "zip")]
                (unpacked := Path(part, "all")).mkdir()
                archive.extractall(unpacked, wanted)
                for old in path.parent.iterdir():
                    if old.name.startswith(prefix):
                        shutil.rmtree(old)
                unpacked.rename(folder)
        except OSError as error:
            text = f"the zip cannot be unpacked beside itself ({error}): make room, or unpack it "
            raise Problem("unreadable", text + "into a folder of the data") from error
    return sorted(member for member in folder.rglob("*") if member.is_file())


def _open(path, names):
    """The fields called `names` in a file, unread, and the names of all that it holds."""
    if kind_of(path) != "GRIB":
        # Strings: opening such a file again while it is open can crash netCDF4 1.7.5.
        dataset = native.open_netcdf(path, cache=False, drop_variables=["number", "expver"])
        return [dataset[name] for name in names if name in dataset], list(dataset.data_vars)
    # Here, because who has NetCDF files needs no ecCodes. Each brings a copy of PROJ: where that of
    # ecCodes is loaded before that of pyproj (maps), the process crashes at its end.
    import pyproj  # noqa: F401, I001
    import eccodes

    held, fields = set(), []
    try:
        with open(path, "rb") as file:
            # Message by message, because cfgrib skips a truncated one and only logs it.
            while (message := eccodes.codes_grib_new_from_file(file)) is not None:
                held.add(eccodes.codes_get(message, "shortName"))
                eccodes.codes_release(message)
    except eccodes.CodesInternalError as error:
        raise EOFError(f"GRIB: {error}") from error
    for name in held.intersection(names):
        # One variable at a time, because different types of level make no dataset; no index file.
        one = {"filter_by_keys": {"shortName": name}, "time_dims": ("valid_time",), "indexpath": ""}
        dataset = xr.open_dataset(path, engine="cfgrib", cache=False, decode_times=False, **one)
        fields.append(dataset[name])
    return fields, sorted(held)


def _on_axes(field):
    """With the dimensions time (as stored), lat and lon, and expver where a file has it."""
    name, units = field.name, field.attrs.get("units")
    if units not in UNITS[name]:
        text = f"{name} must be in {UNITS[name][0]!r}, got {units!r}: fetch {PRODUCT}"
        raise Problem("units", text)
    stamps = [field[name] for name in ("valid_time", "time", "date") if name in field.coords]
    field = field.reset_coords(drop=True)
    if stamps:
        names = {dim: "time" for dim in stamps[0].dims}
        field = field.rename(names) if names else field.expand_dims("time")
        field = field.assign_coords(time=("time", stamps[0].values.ravel(), stamps[0].attrs))
    field = native.on_axes(field)
    # Coordinates are multiples of 0.01 degrees, in single precision: noise of 1e-5 degrees.
    return field.assign_coords({axis: field[axis].round(4) for axis in ("lat", "lon")})


def _load(field):
    """A field, read, without fill values; of ERA5 or else, in the last months, of ERA5T."""
    field = native.within(field.load(), LIMITS[field.name])
    if "expver" in field.dims:
        field = reduce(xr.DataArray.fillna, field.transpose("expver", ...))
    empty = field.isnull().all(["lat", "lon"])
    if empty.any():
        months = f" in {shown(field.indexes['time'][empty.values])}" if empty.ndim else ""
        text = f"no value within {LIMITS[field.name]}{months}: fetch it again"
        raise Problem("missing_values", text)
    return field.transpose(..., "lat", "lon")


def _monthly(field):
    """A layer in months, loaded when it is used."""
    field = _on_axes(field)
    if "time" not in field.coords:
        raise Problem("time", f"{field.name} has no time: fetch {PRODUCT}")
    months = native.months(field["time"])
    if (count := months.value_counts()).iloc[0] > 1:
        text = f"{count.iloc[0]} steps in {count.index[0]:%Y-%m}, expected one a month: fetch "
        raise Problem("frequency", text + PRODUCT)
    field = field.assign_coords(time=months)
    first, _ = (_load(field.isel(time=[k])) for k in (months.argmin(), months.argmax()))
    # A file of ERA5 has values over the ocean too, next to 0; one with a mask is left alone.
    over_ocean = bool(first.notnull().all() and (first <= OCEAN).any())

    step = int(np.clip(CELLS_PER_CHUNK // first.size, 1, 12))
    shape = (months.size, *first.shape[1:])
    values = dask.array.map_blocks(
        partial(_block, field),
        chunks=dask.array.core.normalize_chunks((step, -1, -1), shape),
        meta=np.empty((0, 0, 0), "float32"),
        name=f"{field.name}-{uuid.uuid4()}",
    )
    part = xr.DataArray(values, {dim: field[dim] for dim in first.dims}, name=field.name)
    part.attrs = {"path": field.path, "values_over_ocean": over_ocean}
    return native.ascending(part)


def _block(field, block_info):
    """The array of some months; an error names the file, however late they are read."""
    problems, (first, last) = [], block_info[None]["array-location"][0]
    with collecting(problems, Path(field.path)):
        # packing leaves small negatives
        return _load(field.isel(time=slice(first, last))).clip(min=0).values.astype("float32")
    return _refuse(problems)
