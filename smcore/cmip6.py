"""CMIP6 files: finding them, opening them, and a report of what they hold."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from smcore.soil import volumetric_water_content

FILE_NAME = re.compile(
    r"(?P<variable_id>[^_]+)_(?P<table_id>[^_]+)_(?P<source_id>[^_]+)_(?P<experiment_id>[^_]+)"
    r"_(?P<variant_label>[^_]+)_(?P<grid_label>[^_]+)_(?P<first>\d{6})-(?P<last>\d{6})\.nc"
)
FACETS = ["source_id", "experiment_id", "variant_label", "grid_label", "version"]


@dataclass
class QualityReport:
    """What one source holds for one experiment, and what was done to it."""

    source_id: str
    experiment_id: str
    files: int = 0
    version: str = ""
    calendar: str = ""
    grid: str = ""  # "lat x lon"
    months_found: int = 0
    months_expected: int = 0
    clipped_low: int = 0  # values below 0 m3 m-3
    clipped_high: int = 0  # values above 1 m3 m-3
    minimum: float = np.nan  # m3 m-3, before clipping
    maximum: float = np.nan
    land_share: float = np.nan  # % of the cells used
    tracking_ids: list = field(default_factory=list)
    problems: list = field(default_factory=list)

    @property
    def verdict(self):
        """``error`` (cannot be used), ``warning`` (values were clipped) or ``ok``."""
        if self.problems:
            return "error"
        return "warning" if self.clipped_low or self.clipped_high else "ok"

    @staticmethod
    def table(reports):
        """The reports as a DataFrame, one row per source and experiment."""
        rows = [asdict(report) | {"verdict": report.verdict} for report in reports]
        return pd.DataFrame(rows)


def find_sources(directory):
    """The files of monthly ``mrsos`` below a directory.

    Parameters
    ----------
    directory : str or Path
        Top of the archive; below it any folders, best those of the data reference syntax,
        whose last folder is the version.

    Returns
    -------
    pd.DataFrame
        One row per file: ``source_id``, ``experiment_id``, ``variant_label``,
        ``grid_label``, ``version``, ``first`` and ``last`` (YYYYMM), ``path``.

    Raises
    ------
    FileNotFoundError
        If the directory does not exist or holds no such file.
    """
    directory = Path(directory)
    rows = []
    for path in sorted(directory.glob("**/mrsos_Lmon_*.nc")):
        match = FILE_NAME.fullmatch(path.name)
        if match:
            version = path.parent.name if re.fullmatch(r"v\d+", path.parent.name) else ""
            rows.append(match.groupdict() | {"version": version, "path": path})
    if not rows:
        raise FileNotFoundError(
            f"no monthly mrsos below {directory}: expected files named "
            "mrsos_Lmon_<source>_<experiment>_<member>_<grid>_<YYYYMM>-<YYYYMM>.nc"
        )
    return pd.DataFrame(rows)[[*FACETS, "first", "last", "path"]]


def select_files(files, source_id, experiment_id, *, variant_label=None):
    """The rows of `find_sources` that make up one series: one member, the newest version.

    Raises
    ------
    FileNotFoundError
        If there are none.
    ValueError
        If several members or grids could be meant.
    """
    here = files[(files["source_id"] == source_id) & (files["experiment_id"] == experiment_id)]
    if variant_label is not None:
        others = sorted(set(here["variant_label"]))
        here = here[here["variant_label"] == variant_label]
        if here.empty and others:
            raise FileNotFoundError(
                f"{source_id} {experiment_id}: no member {variant_label}; there are {others}"
            )
    if here.empty:
        raise FileNotFoundError(f"{source_id} {experiment_id}: no monthly mrsos in the archive")
    for facet in ("variant_label", "grid_label"):
        if here[facet].nunique() > 1:
            raise ValueError(
                f"{source_id} {experiment_id}: several values of {facet}, "
                f"{sorted(set(here[facet]))}: name one or keep one in the archive"
            )
    return here[here["version"] == here["version"].max()].sort_values("first")


def open_mrsos(directory, source_id, experiment_id, *, variant_label=None, period=None):
    """Monthly volumetric water content of the upper 10 cm of one source.

    Parameters
    ----------
    directory : str or Path
        The archive, as for `find_sources`.
    source_id, experiment_id : str
        As in the CMIP6 controlled vocabularies.
    variant_label : str, optional
        The member; may be left out where there is only one.
    period : (str, str), optional
        First and last year, both included; every month must be there. Where files overlap,
        the earlier one counts.

    Returns
    -------
    xr.DataArray
        theta(time, lat, lon) in m3 m-3 within 0..1, loaded when it is used. ``time`` is the
        first of each month in the standard calendar, ``lat`` ascends, ``lon`` ascends in
        -180..180; missing over the ocean.

    Raises
    ------
    FileNotFoundError
        If there is no such series.
    ValueError
        If units, grid or months are not as expected; the message names the files.
    """
    files = select_files(
        find_sources(directory), source_id, experiment_id, variant_label=variant_label
    )
    return limit(open_files(files["path"], period=period))


def open_files(paths, *, period=None):
    """As `open_mrsos`, from the paths of one series, without limits on the values."""
    parts, problems = [], []
    for path in paths:
        try:
            parts.append(_open_file(path))
        except ValueError as error:
            problems.append(f"{path}: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    names = ", ".join(Path(path).name for path in paths)
    try:
        theta = xr.concat(parts, "time", join="exact", combine_attrs="override")
    except ValueError as error:
        raise ValueError(f"{names}: the files are not on one grid ({error})") from error
    theta = theta.sortby("time").drop_duplicates("time")
    theta.attrs["tracking_ids"] = [part.attrs["tracking_ids"][0] for part in parts]
    if period is not None:
        wanted = pd.date_range(f"{period[0]}-01", f"{period[1]}-12", freq="MS")
        missing = wanted.difference(theta.indexes["time"])
        if len(missing):
            shown = ", ".join(f"{month:%Y-%m}" for month in missing[:5])
            raise ValueError(
                f"{names}: {len(missing)} of {len(wanted)} months are missing ({shown}"
                f"{', ...' if len(missing) > 5 else ''}): fetch the files, "
                "shorten the period or leave the source out"
            )
        theta = theta.sel(time=slice(f"{period[0]}-01", f"{period[1]}-12"))
    return theta


def limit(theta):
    """Volumetric water content limited to 0..1 m3 m-3."""
    return theta.clip(0, 1, keep_attrs=True)


def _open_file(path):
    try:
        dataset = xr.open_dataset(path, decode_times=False, chunks={"time": 120}, engine="netcdf4")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot be read as NetCDF ({error}): truncated or not a NetCDF file; fetch it again"
        ) from error
    if "mrsos" not in dataset:
        raise ValueError(f"no variable mrsos; it holds {', '.join(dataset.data_vars)}")
    mrsos = dataset["mrsos"]
    if mrsos.dims != ("time", "lat", "lon"):
        raise ValueError(
            f"mrsos has dimensions {mrsos.dims}, not (time, lat, lon): for unstructured and "
            "curvilinear grids install xESMF (conda-forge) and regrid the file first"
        )
    theta = volumetric_water_content(mrsos.where((mrsos < 1e4) & (mrsos > -1e3)))
    calendar = dataset["time"].attrs.get("calendar", "standard")
    theta = theta.reset_coords(drop=True).assign_coords(time=_months(dataset))
    theta.attrs |= {"calendar": calendar, "tracking_ids": [dataset.attrs.get("tracking_id", "")]}
    return _standard_axes(theta)


def _months(dataset):
    """First day of each month: calendars are matched by year and month only."""
    time = dataset["time"]
    bounds = dataset.get(time.attrs.get("bounds"))
    # The stamp may be any instant of the month, even its end: the middle of the bounds is safe.
    middle = time if bounds is None else bounds.mean(bounds.dims[-1]).assign_attrs(time.attrs)
    try:
        stamps = xr.decode_cf(
            xr.Dataset({"middle": ("time", middle.values, time.attrs | {"bounds": ""})}),
            decode_times=xr.coders.CFDatetimeCoder(use_cftime=True),
        )["middle"].values
    except (ValueError, OverflowError) as error:
        raise ValueError(f"time cannot be decoded: {error}") from error
    return pd.DatetimeIndex([f"{stamp.year:04d}-{stamp.month:02d}-01" for stamp in stamps])


def _standard_axes(theta):
    lon = (theta["lon"] + 180) % 360 - 180
    theta = theta.assign_coords(
        lat=theta["lat"].astype(float).assign_attrs(units="degrees_north"),
        lon=lon.astype(float).assign_attrs(units="degrees_east"),
    )
    return theta.sortby(["lat", "lon"])
