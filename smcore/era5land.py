"""The reference: ERA5-Land soil water as the Climate Data Store hands it out."""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

STANDARD_GRAVITY = 9.80665  # m s-2
LAYERS = {"0-7cm": {"swvl1": 1.0}, "0-10cm": {"swvl1": 0.7, "swvl2": 0.3}}
UNITS = ("m**3 m**-3", "m3 m-3")


def open_swvl(paths, *, depth="0-7cm", period=None):
    """Monthly volumetric water content of the reference.

    Parameters
    ----------
    paths : Path or list of Path
        NetCDF files with ``swvl1`` (and ``swvl2`` for 0-10 cm), or a folder of them.
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
        If a variable, its units or months are not as expected.
    """
    if depth not in LAYERS:
        raise ValueError(f"`depth` must be one of {', '.join(LAYERS)}, got {depth!r}")
    parts, problems = [], []
    for path in _files(paths, "*swvl*.nc"):
        try:
            parts.append(_open_layers(path, depth))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    try:
        theta = xr.concat(parts, "time", join="exact").sortby("time").drop_duplicates("time")
    except ValueError as error:
        raise ValueError(f"reference: the files are not on one grid ({error})") from error
    if period is not None:
        wanted = pd.date_range(f"{period[0]}-01", f"{period[1]}-12", freq="MS")
        missing = wanted.difference(theta.indexes["time"])
        if len(missing):
            raise ValueError(
                f"reference: {len(missing)} of {len(wanted)} months are missing, the first "
                f"{missing[0]:%Y-%m}, the last {missing[-1]:%Y-%m}: fetch them or shorten "
                "the period"
            )
        theta = theta.sel(time=slice(f"{period[0]}-01", f"{period[1]}-12"))
    # Packing leaves slightly negative values in deserts.
    theta = theta.clip(min=0)
    theta.attrs = {"long_name": f"volumetric water content, {depth}", "units": "m3 m-3"}
    return theta.rename("theta")


def _open_layers(path, depth):
    dataset = _standard(path)
    for name in LAYERS[depth]:
        if name not in dataset:
            raise ValueError(
                f"{path}: no variable {name}, which depth {depth} needs; "
                f"it holds {', '.join(dataset.data_vars)}"
            )
        units = dataset[name].attrs.get("units")
        if units not in UNITS:
            raise ValueError(f"{path}: {name} must be in 'm**3 m**-3', got {units!r}")
    return sum(
        # undeclared fill values such as -9999 and 1e20 are missing, not water
        dataset[name].where((dataset[name] > -0.1) & (dataset[name] < 1.5)) * weight
        for name, weight in LAYERS[depth].items()
    )


def open_invariant(paths):
    """Land fraction and elevation of the reference's grid.

    Parameters
    ----------
    paths : Path or list of Path
        Files with ``lsm`` (0..1) and ``z`` (geopotential, m2 s-2), or a folder of them.

    Returns
    -------
    xr.Dataset
        ``land_fraction`` (0..1) and ``elevation`` (m), dimensions lat and lon.
    """
    dataset = xr.merge([_standard(path) for path in _files(paths, "*invariant*.nc")])
    missing = {"lsm", "z"} - set(dataset.data_vars)
    if missing:
        raise ValueError(f"{paths}: the invariant fields lack {', '.join(sorted(missing))}")
    dataset = dataset.isel(time=0, drop=True) if "time" in dataset.dims else dataset
    return xr.Dataset(
        {
            "land_fraction": dataset["lsm"].assign_attrs(units="1"),
            "elevation": (dataset["z"] / STANDARD_GRAVITY).assign_attrs(units="m"),
        }
    )


def _files(paths, pattern):
    if isinstance(paths, str | Path):
        paths = sorted(Path(paths).glob(pattern)) if Path(paths).is_dir() else [Path(paths)]
        if not paths:
            raise FileNotFoundError(f"the reference needs files named {pattern}; there are none")
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path}")
    return paths


def _standard(path):
    """A file of the Climate Data Store, old or new, with our axes."""
    try:
        dataset = xr.open_dataset(
            path,
            chunks={},
            engine="netcdf4",
            # Strings: opening such a file again while it is open can crash netCDF4 1.7.5.
            drop_variables=["number", "expver"],
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be read as NetCDF ({error}): truncated or not a NetCDF file; "
            "fetch it again"
        ) from error
    names = {"valid_time": "time", "latitude": "lat", "longitude": "lon"}
    dataset = dataset.rename(
        {old: new for old, new in names.items() if old in dataset.variables or old in dataset.dims}
    )
    if "time" in dataset.dims:
        month = dataset["time"].values.astype("datetime64[M]").astype("datetime64[ns]")
        dataset = dataset.assign_coords(time=month)
    # Coordinates are multiples of 0.01 degrees, in single precision: noise of 1e-5 degrees.
    lon = np.round((dataset["lon"].astype(float) + 180) % 360 - 180, 4)
    dataset = dataset.assign_coords(lat=np.round(dataset["lat"].astype(float), 4), lon=lon)
    return dataset.sortby(["lat", "lon"])
