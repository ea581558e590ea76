"""The reference: ERA5-Land soil water as the Climate Data Store hands it out."""

import os
import shutil
import uuid
import zipfile
import zlib
from functools import partial
from pathlib import Path

import dask.array
import numpy as np
import pandas as pd
import xarray as xr

STANDARD_GRAVITY = 9.80665  # m s-2
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
# By content, because the store has handed out zips and GRIB files that were named .nc.
KINDS = {b"\x89HDF": "NetCDF-4", b"CDF": "NetCDF-3", b"GRIB": "GRIB", b"PK": "zip"}
PRODUCT = "ERA5-Land 'monthly averaged reanalysis'"


class _Problem(ValueError):
    """What is wrong with one file, in our words."""


def open_swvl(paths, *, depth="0-7cm", period=None):
    """Monthly volumetric water content of the reference.

    Parameters
    ----------
    paths : Path or list of Path
        A folder, or files: NetCDF, GRIB, or zips of them, which are unpacked once into a
        hidden folder beside them. The content counts, ``swvl1`` (and ``swvl2`` for
        0-10 cm), not the name.
    depth : {"0-7cm", "0-10cm"}, default: "0-7cm"
        Layer 1, or ``(7 swvl1 + 3 swvl2) / 10`` for the depth of ``mrsos``.
    period : (str, str), optional
        First and last year, both included; every month must be there.

    Returns
    -------
    xr.DataArray
        theta(time, lat, lon) in m3 m-3, at least 0, loaded when it is used. ``time`` is the
        first of each month, ``lat`` ascends, ``lon`` ascends in -180..180; missing over
        the ocean.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If files, variables, units, grids or months are not as expected; a line for each.

    Notes
    -----
    Of each file only the first and the last month are read here; a month between them that
    has no value at all is refused when it is used. If a file has values everywhere and some
    are next to 0, as those of ERA5, cells that never exceed 1e-4 m3 m-3 in a year or more are
    ocean; for this all months are read, a chunk at a time. Fewer months do not tell the ocean
    from a desert that happens to be dry.
    """
    if depth not in LAYERS:
        raise ValueError(f"`depth` must be one of {', '.join(LAYERS)}, got {depth!r}")
    fields, problems = _read(paths, ("swvl1", "swvl2"))
    held = sorted({name for _, name, _ in fields})
    for name in LAYERS[depth]:
        if name not in held and (held or not problems):
            where = f"any file; {fields[0][0]} holds {held[0]}" if held else paths
            problems.append(
                f"reference: no variable {name}, which depth {depth} needs, in {where}: fetch it "
                f"from {PRODUCT}"
            )
    parts = []
    for path, name, field in fields:
        if name in LAYERS[depth]:
            field = _attempt(problems, path, _monthly, path, name, field)
            parts += [] if field is None else [(path, name, field)]
    layers = _join(_on_one_grid(parts, problems), problems)

    months = pd.DatetimeIndex([]).append([layer.indexes["time"] for layer in layers.values()])
    if period is None:
        months = months.unique().sort_values()
    else:
        months = pd.date_range(f"{period[0]}-01", f"{period[1]}-12", freq="MS")
    for name, layer in layers.items():
        missing = months.difference(layer.indexes["time"])
        if len(missing):
            problems.append(
                f"reference: {name}: {len(missing)} of {len(months)} months are missing, the "
                f"first {missing[0]:%Y-%m}, the last {missing[-1]:%Y-%m}: fetch them or shorten "
                "the period"
            )
    if problems:
        raise ValueError("\n".join(problems))

    whole, weights = slice(months[0], months[-1]), LAYERS[depth]
    theta = sum(layers[name].sel(time=whole) * weight for name, weight in weights.items())
    if len(months) >= 12 and any(field.attrs["values_over_ocean"] for _, _, field in parts):
        theta = theta.where((theta > OCEAN).any("time").compute())
    theta.attrs = {"long_name": f"volumetric water content, {depth}", "units": "m3 m-3"}
    return theta.rename("theta")


def open_invariant(paths):
    """Land fraction and elevation of the reference's grid.

    Parameters
    ----------
    paths : Path or list of Path
        A folder or files, as for `open_swvl`, with ``lsm`` (0..1) and ``z`` (geopotential,
        m2 s-2). Of several files or times the first is taken.

    Returns
    -------
    xr.Dataset
        ``land_fraction`` (0..1) and ``elevation`` (m), dimensions lat and lon, which ascend as
        those of `open_swvl`.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If a field cannot be had or the two are on different grids; a line for each problem.
    """
    fields, problems = _read(paths, ("lsm", "z"))
    static = {}
    for path, name, field in fields:
        if name not in static:
            field = _attempt(problems, path, _fixed, name, field)
            static |= {} if field is None else {name: (path, name, field)}
    lacking = [name for name in ("lsm", "z") if name not in static]
    if lacking:
        problems.append(
            f"reference: no invariant field {' and '.join(lacking)} in {paths}: expected lsm "
            "(0..1) and z (m2 s-2); fetch land_sea_mask and geopotential of ERA5-Land"
        )
    elif _is_folder(paths):
        problems = []  # both fields are there: what else the folder holds does not matter
    _on_one_grid(static.values(), problems)
    if problems:
        raise ValueError("\n".join(problems))
    land_fraction, elevation = static["lsm"][2].clip(0, 1), static["z"][2] / STANDARD_GRAVITY
    return xr.Dataset(
        {
            "land_fraction": land_fraction.assign_attrs(units="1"),
            "elevation": elevation.assign_attrs(units="m"),
        }
    )


def find_files(folder):
    """The files of a folder that may hold the reference, by their suffix; sorted."""
    return sorted(
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


# --- from files to fields ------------------------------------------------------------------


def _is_folder(paths):
    return isinstance(paths, str | Path) and Path(paths).is_dir()


def _read(paths, names):
    """The fields called `names`, as (path, name, field), and the problems of the files."""
    if _is_folder(paths):
        files = find_files(paths)
        absent = [] if files else [f"no file *{', *'.join(SUFFIXES)} in {paths}: fetch {PRODUCT}"]
    else:
        files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
        absent = [f"there is no file {path}" for path in files if not path.is_file()]
    if absent:
        raise FileNotFoundError("\n".join(absent))
    fields, problems = [], []
    for path in files:
        for member in _attempt(problems, path, _members, path) or []:
            found, held = _attempt(problems, member, _open, member, names) or ({}, None)
            fields += [(member, name, field) for name, field in found.items()]
            if held is not None and not found and not _is_folder(paths):
                problems.append(
                    f"{member}: no variable {' or '.join(names)}; it holds {', '.join(held)}: "
                    f"fetch them from {PRODUCT}"
                )
    return fields, problems


def _attempt(problems, path, read, *arguments):
    """What `read` returns, or None and a line of `problems`."""
    try:
        return read(*arguments)
    except _Problem as error:
        problems.append(f"{path}: {error}")
    except (OSError, ValueError, RuntimeError, EOFError, KeyError) as error:
        words = " ".join(str(error).split())
        problems.append(f"{path}: cannot be read ({words}): truncated or damaged; fetch it again")


def _kind(head):
    return next((kind for magic, kind in KINDS.items() if head.startswith(magic)), None)


def _members(path):
    """The NetCDF and GRIB files in a zip, unpacked once; of another file, the file."""
    with open(path, "rb") as file:
        if _kind(file.read(4)) != "zip":
            return [path]
    stat = path.stat()
    prefix = f".{path.name}.unpacked-"
    folder = path.with_name(f"{prefix}{stat.st_size}-{stat.st_mtime_ns}")
    if not folder.is_dir():
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.mkdir(exist_ok=True)
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    with archive.open(member) as file:
                        wanted = _kind(file.read(4)) not in (None, "zip")
                    if wanted:
                        archive.extract(member, part)
            for old in path.parent.iterdir():
                if old.name.startswith(prefix):
                    shutil.rmtree(old)
            part.rename(folder)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise _Problem(f"the zip is damaged ({error}): fetch it again") from error
        except OSError as error:
            raise _Problem(
                f"the zip cannot be unpacked beside itself ({error}): make room or unpack it by "
                "hand into a folder of the data"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return sorted(member for member in folder.rglob("*") if member.is_file())


def _open(path, names):
    """The fields called `names` in a file, unread, and the names of all that it holds."""
    with open(path, "rb") as file:
        head = file.read(40)
    kind = _kind(head)
    if kind is None:
        what = f"it begins with {head!r}" if head else "it is empty"
        raise _Problem(f"neither NetCDF nor GRIB nor zip, {what}: fetch it again")
    if kind == "GRIB":
        return _open_grib(path, names)
    dataset = xr.open_dataset(
        path,
        engine="netcdf4",
        cache=False,
        decode_times=False,
        # Strings: opening such a file again while it is open can crash netCDF4 1.7.5.
        drop_variables=["number", "expver"],
    )
    if kind == "NetCDF-3":  # where its end is missing, the library reads zeros
        variables = dataset.variables.values()
        needed = sum(variable.size * variable.encoding["dtype"].itemsize for variable in variables)
        if path.stat().st_size < needed:
            raise _Problem(f"truncated, at least {needed} bytes are expected: fetch it again")
    return {name: dataset[name] for name in names if name in dataset}, list(dataset.data_vars)


def _open_grib(path, names):
    # Here, because who has NetCDF files needs no ecCodes. Each brings a copy of PROJ: where that of
    # ecCodes is loaded before that of pyproj (maps), the process crashes at its end.
    import pyproj  # noqa: F401, I001
    import eccodes

    held = set()
    try:
        # Message by message, because cfgrib skips a truncated one and only logs it.
        with open(path, "rb") as file:
            while (message := eccodes.codes_grib_new_from_file(file)) is not None:
                held.add(eccodes.codes_get(message, "shortName"))
                eccodes.codes_release(message)
    except eccodes.CodesInternalError as error:
        raise _Problem(f"truncated or damaged GRIB ({error}): fetch it again") from error
    fields = {}
    for name in [name for name in names if name in held]:
        # One variable at a time, because different types of level make no dataset.
        options = {"filter_by_keys": {"shortName": name}, "time_dims": ("valid_time",)}
        options["indexpath"] = ""  # leaves no index file beside the data
        fields[name] = xr.open_dataset(
            path, engine="cfgrib", cache=False, decode_times=False, backend_kwargs=options
        )[name]
    return fields, sorted(held)


# --- from fields to months -----------------------------------------------------------------


def _on_axes(name, field):
    """With the dimensions time (as stored), lat and lon, and expver where a file has it."""
    units = field.attrs.get("units")
    if units not in UNITS[name]:
        raise _Problem(f"{name} must be in {UNITS[name][0]!r}, got {units!r}: fetch {PRODUCT}")
    stored = ", ".join(f"{dim} {size}" for dim, size in field.sizes.items())
    stamp = next((field[n] for n in ("valid_time", "time", "date") if n in field.coords), None)
    names = {"latitude": "lat", "longitude": "lon"}
    if stamp is not None and stamp.ndim:
        names[stamp.dims[0]] = "time"
    field = field.reset_coords(drop=True)
    field = field.rename({old: new for old, new in names.items() if old in field.dims})
    others = [dim for dim in field.dims if dim not in ("time", "lat", "lon", "expver")]
    if not {"lat", "lon"} <= set(field.coords) or any(field.sizes[dim] > 1 for dim in others):
        raise _Problem(
            f"{name} has the dimensions {stored}; expected time, latitude and longitude, a regular "
            f"grid: fetch {PRODUCT}"
        )
    field = field.isel({dim: 0 for dim in others}, drop=True)
    if stamp is not None:
        field = field if "time" in field.dims else field.expand_dims("time")
        field = field.assign_coords(time=("time", stamp.values.ravel(), stamp.attrs))
    # Coordinates are multiples of 0.01 degrees, in single precision: noise of 1e-5 degrees.
    lon = np.round((field["lon"].astype(float) + 180) % 360 - 180, 4)
    return field.assign_coords(lat=np.round(field["lat"].astype(float), 4), lon=lon)


def _values(name, field):
    """Without fill values; of ERA5 or else, in the last months, of the preliminary ERA5T."""
    low, high = LIMITS[name]
    field = field.where((field > low) & (field < high))
    if "expver" not in field.dims:
        return field
    merged, *others = (field.isel(expver=k) for k in range(field.sizes["expver"]))
    for other in others:
        merged = merged.fillna(other)
    return merged


def _ascending(field):
    # np.unique, because a global grid may have its first meridian twice
    order = {axis: np.unique(field[axis], return_index=True)[1] for axis in ("lat", "lon")}
    return field.isel(order).transpose(..., "lat", "lon")


def _fixed(name, field):
    """A field without time."""
    field = _on_axes(name, field)
    field = _values(name, (field.isel(time=0, drop=True) if "time" in field.dims else field).load())
    if field.isnull().all():
        raise _Problem(f"{name} has no value within {LIMITS[name]}: fetch it again")
    return _ascending(field)


def _monthly(path, name, field):
    """A layer in months, loaded when it is used."""
    field = _on_axes(name, field)
    months = _months(name, field)
    field = field.assign_coords(time=months)
    _load(name, field.isel(time=[months.argmax()]))
    first = _load(name, field.isel(time=[months.argmin()]))

    lat, lon = field.sizes["lat"], field.sizes["lon"]
    step = int(np.clip(CELLS_PER_CHUNK // (lat * lon), 1, 12))
    steps = [min(step, len(months) - start) for start in range(0, len(months), step)]
    values = dask.array.map_blocks(
        partial(_block, path, name, field),
        chunks=(tuple(steps), (lat,), (lon,)),
        dtype="float32",
        meta=np.empty((0, 0, 0), "float32"),
        name=f"{name}-{uuid.uuid4()}",
    )
    coords = {axis: field[axis] for axis in ("time", "lat", "lon")}
    layer = _ascending(xr.DataArray(values, coords)).sortby("time")
    # A file of ERA5 has values over the ocean too, next to 0; one with a mask is left alone.
    layer.attrs = {"values_over_ocean": bool(first.notnull().all() and (first <= OCEAN).any())}
    return layer


def _block(path, name, field, block_info):
    """The array of some months; an error names the file, however late they are read."""
    first, last = block_info[None]["array-location"][0]
    problems = []
    loaded = _attempt(problems, path, _load, name, field.isel(time=slice(first, last)))
    if problems:
        raise ValueError(problems[0])
    return loaded.values


def _load(name, field):
    """Some months, read, without fill values and without the small negatives of packing."""
    field = _values(name, field.load()).transpose("time", "lat", "lon")
    empty = field.indexes["time"][field.isnull().all(["lat", "lon"]).values]
    if len(empty):
        months = ", ".join(f"{month:%Y-%m}" for month in empty)
        raise _Problem(f"no value within {LIMITS[name]} m3 m-3 in {months}: fetch it again")
    return field.clip(min=0).astype("float32")


def _months(name, field):
    """The first of the month of each step, once each."""
    if "time" not in field.coords:
        raise _Problem(f"{name} has no time: fetch {PRODUCT}")
    stamp = field["time"].variable
    try:
        if stamp.dtype.kind == "i" and "units" not in stamp.attrs:  # 20241001, in autumn 2024
            decoded = pd.to_datetime(stamp.values.astype(str), format="%Y%m%d").values
        else:
            decoded = xr.decode_cf(xr.Dataset({"stamp": stamp}))["stamp"].values
    except (ValueError, OverflowError) as error:
        words = " ".join(str(error).split())
        raise _Problem(f"time cannot be decoded ({words}): fetch it again") from error
    if decoded.dtype.kind != "M" or np.isnat(decoded).any() or not decoded.size:
        raise _Problem(
            f"time has no dates or steps without one, units {stamp.attrs.get('units')!r}; expected "
            "such as 'seconds since 1970-01-01' in the standard calendar: fetch it again"
        )
    months, steps = np.unique(decoded.astype("datetime64[M]"), return_counts=True)
    if steps.max() > 1:
        raise _Problem(
            f"{steps.max()} steps in {months[steps.argmax()]}, expected one a month: fetch "
            f"{PRODUCT}, not hourly or daily data"
        )
    return decoded.astype("datetime64[M]").astype("datetime64[ns]")


# --- from months to series -----------------------------------------------------------------


def _on_one_grid(parts, problems):
    """The parts on the grid of the first; the others become lines of `problems`."""

    def words(field):
        axes = [field.indexes[axis] for axis in ("lat", "lon")]
        return " and ".join(f"{a.size} from {a[0]:g} to {a[-1]:g}" for a in axes)

    kept = []
    for path, name, field in parts:
        expected_path, _, expected = (kept or [(path, name, field)])[0]
        if all(field.indexes[axis].equals(expected.indexes[axis]) for axis in ("lat", "lon")):
            kept.append((path, name, field))
        else:
            problems.append(
                f"{path}: {name} is not on one grid with {expected_path}: latitudes and longitudes "
                f"are {words(field)}, expected {words(expected)}; fetch the same area, or "
                "move the files of another area to another folder"
            )
    return kept


def _join(parts, problems):
    """All months of each layer, each from the first file that has it."""
    pieces, owners = {}, {}
    for k, (path, name, field) in enumerate(parts):
        own, repeated = [], {}
        for month in field.indexes["time"]:
            owner = owners.setdefault((name, month), k)
            (own if owner == k else repeated.setdefault(owner, [])).append(month)
        for owner, months in repeated.items():
            differ = _differ(field.sel(time=months), parts[owner][2].sel(time=months))
            if differ:
                problems.append(
                    f"{path}: {name} is not that of {parts[owner][0]} in {', '.join(differ)}, more "
                    f"than {SAME} m3 m-3 apart: keep one of them"
                )
        if own:
            pieces.setdefault(name, []).append(field.sel(time=own) if repeated else field)
    return {
        name: xr.concat(some, "time", join="exact").sortby("time") for name, some in pieces.items()
    }


def _differ(field, other):
    """The months in which two fields differ; what is missing counts as 0, as over the ocean."""
    apart = abs(field.fillna(0) - other.fillna(0)) > SAME
    apart = apart.any(["lat", "lon"]).compute()
    return [f"{month:%Y-%m}" for month in apart.indexes["time"][apart.values]]
