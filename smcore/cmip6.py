"""CMIP6 files: finding them, reading them, and a report of what they hold."""

import importlib.util
import re
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import xarray as xr

from smcore.config import ACCEPTABLE
from smcore.grids import uncovered
from smcore.regrid import is_rectilinear
from smcore.soil import volumetric_water_content

FILE_NAME = re.compile(
    r"(?P<variable_id>[^_]+)_(?P<table_id>[^_]+)_(?P<source_id>[^_]+)_(?P<experiment_id>[^_]+)"
    r"_(?P<variant_label>[^_]+)_(?P<grid_label>[^_]+)_(?P<first>\d{6})-(?P<last>\d{6})\.nc"
)
FACETS = ["source_id", "experiment_id", "variant_label", "grid_label"]
FILL_LIMITS = (-1.0, 1000.0)  # kg m-2: no soil holds less or more, what lies beyond is no water
MARGIN = 6.0  # degrees around a region that regridding may need
DRY = 1e-4  # m3 m-3: a cell that never holds more is ocean or ice
MOST_CELLS = 0.95  # share of the cells with values that every month must have
DAILY = "more than one step a month: fetch monthly means, table Lmon"
LAYER = (0.0, 0.1)  # m, as CMIP6 defines mrsos

# Problems that let a study go on. Every other kind is an error: some a profile may accept
# (`config.ACCEPTABLE`), the rest nothing but another file cures.
WARNINGS = (
    "filled_month",
    "repeated_months",
    "undeclared_fill",
    "dry_cells",
    "clipped",
    "changing_mask",
    "depth",
)


@dataclass
class QualityReport:
    """What one source holds for one experiment, and what was done to it."""

    source_id: str
    experiment_id: str
    files: int = 0
    versions: list = field(default_factory=list)
    tracking_ids: list = field(default_factory=list)
    months_found: int = 0
    months_expected: int = 0
    months_filled: int = 0
    filled_by: str = ""  # the rule
    undeclared_fills: int = 0  # values
    dry_cells: int = 0  # cells that never hold water, taken as missing
    clipped_low: int = 0  # values below 0 m3 m-3
    clipped_high: int = 0  # values above 1 m3 m-3
    minimum: float = np.nan  # m3 m-3, before clipping
    maximum: float = np.nan
    land_share: float = np.nan  # % of the cells used
    calendar: str = ""
    grid: str = ""  # "lat x lon", or the number of cells
    depth: str = ""  # of the layer, as the file has it
    licence: str = ""  # as the file has it
    accepted: list = field(default_factory=list)  # kinds of error that the study accepts
    problems: list = field(default_factory=list)  # pairs of kind and text

    def add(self, kind, text):
        if kind in ACCEPTABLE:
            text += (
                f"; or accept {kind} for {self.source_id} in the profile: what then counts is "
                f"{ACCEPTABLE[kind]}"
            )
        self.problems.append([kind, text])

    @property
    def errors(self):
        """Texts of the problems because of which the series cannot be used."""
        return [
            text
            for kind, text in self.problems
            if kind not in WARNINGS and kind not in self.accepted
        ]

    @property
    def verdict(self):
        """``error`` (cannot be used), ``accepted``, ``warning`` or ``ok``."""
        if self.errors:
            return "error"
        if any(kind in self.accepted for kind, _ in self.problems):
            return "accepted"
        return "warning" if self.problems else "ok"

    @staticmethod
    def table(reports):
        """The reports as a DataFrame, one row per source and experiment, lists as text."""
        rows = []
        for report in reports:
            row = asdict(report) | {"verdict": report.verdict}
            row["problems"] = [f"{kind}: {text}" for kind, text in report.problems]
            for name in ("versions", "tracking_ids", "accepted", "problems"):
                row[name] = "; ".join(row[name])
            rows.append(row)
        return pd.DataFrame(rows)


def find_sources(directory):
    """The files of monthly ``mrsos`` below a directory.

    Parameters
    ----------
    directory : str or Path
        Top of the archive; below it any folders, best those of the data reference syntax,
        whose last folder is the version. Institutions are not looked at: a centre's scenarios
        may come from another one.

    Returns
    -------
    pd.DataFrame
        One row per file: ``source_id``, ``experiment_id``, ``variant_label``,
        ``grid_label``, ``version``, ``first`` and ``last`` (YYYYMM), ``path``. A file of
        another name has the facets of its attributes and no ``first`` and ``last``; those that
        hold no monthly ``mrsos`` are listed in ``attrs["ignored"]``.

    Raises
    ------
    FileNotFoundError
        If the directory does not exist or holds no such file.
    """
    rows, ignored = [], []
    for path in sorted(Path(directory).glob("**/*mrsos*.nc*")):
        if path.name.startswith("."):
            continue
        match = FILE_NAME.fullmatch(path.name)
        facets = match.groupdict() if match else _facets_inside(path)
        if (facets["variable_id"], facets["table_id"]) != ("mrsos", "Lmon"):
            ignored.append(str(path))
            continue
        version = path.parent.name if re.fullmatch(r"v\d+", path.parent.name) else ""
        rows.append(facets | {"version": version, "path": path})
    if not rows:
        raise FileNotFoundError(
            f"no monthly mrsos below {directory}: expected files named "
            "mrsos_Lmon_<source>_<experiment>_<member>_<grid>_<YYYYMM>-<YYYYMM>.nc"
            + (f"; damaged, or of another kind: {', '.join(ignored)}" if ignored else "")
        )
    files = pd.DataFrame(rows)[[*FACETS, "version", "first", "last", "path"]]
    files.attrs["ignored"] = ignored
    return files


def _facets_inside(path):
    """Facets from the attributes of a file whose name does not tell them."""
    names = ("variable_id", "table_id", *FACETS)
    try:
        with netCDF4.Dataset(path) as file:
            facets = {name: str(getattr(file, name, "")) for name in names}
    except OSError:
        facets = dict.fromkeys(names, "")
    return facets | {"first": "", "last": ""}


def select_files(
    files, source_id, experiment_id, *, variant_label=None, grid_label=None, version=None
):
    """The rows of `find_sources` that make up one series.

    Parameters
    ----------
    files : pd.DataFrame
        From `find_sources`.
    source_id, experiment_id, variant_label, grid_label : str
        Member and grid may be left out where there is only one.
    version : str, optional
        Such as ``v20190815``; by default the newest.

    Raises
    ------
    FileNotFoundError
        If there are none; the message names what there is.
    ValueError
        If several members or grids could be meant.
    """
    series = f"{source_id} {experiment_id}"
    here = files[(files["source_id"] == source_id) & (files["experiment_id"] == experiment_id)]
    if here.empty:
        raise FileNotFoundError(
            f"{series}: no monthly mrsos in the archive; fetch it or leave the source out"
        )
    for facet, value in (("variant_label", variant_label), ("grid_label", grid_label)):
        found = sorted(set(here[facet]))
        if value is None and len(found) > 1:
            raise ValueError(
                f"{series}: several values of {facet}, {found}: name one or keep one in the archive"
            )
        if value is not None and value not in found:
            raise FileNotFoundError(f"{series}: no {facet} {value}; there are {found}")
        here = here[here[facet] == (value or found[0])]
    versions = sorted(set(here["version"]))
    version = version or versions[-1]
    if version not in versions:
        raise FileNotFoundError(f"{series}: no version {version}; there are {versions}")
    return here[here["version"] == version]


def open_mrsos(directory, source_id, experiment_id, *, variant_label=None, period=None, **options):
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
        First and last year, both included; every month must be there.
    **options
        ``grid_label``, ``version``, ``region``, ``missing_first_month`` and ``accepted``, as
        in `read_series`.

    Returns
    -------
    xr.DataArray
        theta(time, lat, lon) in m3 m-3 within 0..1, loaded when it is used. ``time`` is the
        first of each month in the standard calendar, ``lat`` ascends, ``lon`` ascends in
        -180..180; missing over the ocean. ``attrs`` has ``tracking_ids``.

    Raises
    ------
    FileNotFoundError
        If the archive holds no monthly mrsos.
    ValueError
        If the series cannot be used; the message has a line for each problem of each file.
    """
    files = find_sources(directory)
    theta, report = read_series(
        files, source_id, experiment_id, variant_label=variant_label, period=period, **options
    )
    if report.errors:
        raise ValueError("\n".join(report.errors))
    return theta


def read_series(
    files,
    source_id,
    experiment_id,
    *,
    variant_label=None,
    grid_label=None,
    version=None,
    period=None,
    region=None,
    missing_first_month="refuse",
    accepted=(),
):
    """One series with a report of what it holds; bad files are reported, not raised.

    Parameters
    ----------
    files, source_id, experiment_id, variant_label, grid_label, version
        As in `select_files`.
    period : (str, str), optional
        First and last year, both included.
    region : Domain, optional
        Where the values are needed, in degrees: read and checked there and `MARGIN` around it.
        By default everywhere.
    missing_first_month : {"refuse", "climatology"}
        ``climatology``: if the first month of `period` is missing, and only this one, it is the
        mean of that calendar month over the following ten years.
    accepted : tuple of str
        Kinds of error that do no harm here, out of `config.ACCEPTABLE`.

    Returns
    -------
    theta : xr.DataArray or None
        As in `open_mrsos`, or None where the report has an error. On an unstructured or
        curvilinear grid, for which xESMF must be installed, the dimensions of the file.
    report : QualityReport
    """
    report = QualityReport(source_id, experiment_id, accepted=list(accepted))
    facets = {"variant_label": variant_label, "grid_label": grid_label, "version": version}
    try:
        rows = select_files(files, source_id, experiment_id, **facets)
    except (FileNotFoundError, ValueError) as error:
        report.add("archive", str(error))
        return None, report
    report.files, report.versions = len(rows), sorted(set(rows["version"]) - {""})

    parts = []
    for row in rows.itertuples():
        try:
            parts.append(_read_file(row, region, report))
        except (OSError, RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
            report.add(
                "unreadable", f"{row.path}: {_what_instead(row.path, error)}; fetch it again"
            )
    if report.errors or any(part is None for part in parts) or not _same_grid(parts, report):
        return None, report
    try:
        theta = _join(parts, report)
        fill = False
        if period is not None:
            same = (files["source_id"] == source_id) & (files["experiment_id"] == experiment_id)
            others = sorted(set(files.loc[same, "version"]) - set(rows["version"]))
            theta, fill = _select(theta, period, missing_first_month, others, report)
        report.months_found = theta.sizes["time"]
        if not report.errors:
            theta = _check_values(theta, report)
    except (OSError, RuntimeError):
        _name_damaged(parts, report)
        if not report.errors:  # it was not the files
            raise
    if report.errors:
        return None, report
    return (_fill_first(theta, period, report) if fill else theta), report


# --- one file ----------------------------------------------------------------------------


def _read_file(row, region, report):
    """theta of a file as it is, on standard axes, or None; what is wrong goes into the report."""
    path = row.path
    with warnings.catch_warnings():
        # _FillValue and missing_value that differ: both mean missing.
        warnings.simplefilter("ignore", xr.SerializationWarning)
        dataset = xr.open_dataset(path, decode_times=False, chunks={"time": 24}, engine="netcdf4")
    if "mrsos" not in dataset:
        held = ", ".join(map(str, dataset.data_vars)) or "nothing"
        return report.add(
            "variable", f"{path}: no variable mrsos; it holds {held}: fetch mrsos of table Lmon"
        )
    for old, new in (("latitude", "lat"), ("longitude", "lon")):
        if old in dataset.variables and new not in dataset.variables:
            dataset = dataset.rename({old: new})
    months = _months(dataset, path, report)
    if months is None:
        return None
    _check_name(row, dataset, months, report)
    mrsos = _horizontal(dataset["mrsos"], path, report)
    if mrsos is None:
        return None
    report.calendar = dataset["time"].attrs.get("calendar", "standard")
    space = [mrsos.sizes[dim] for dim in mrsos.dims if dim != "time"]
    report.grid = " x ".join(map(str, space)) + (" cells" if len(space) == 1 else "")
    try:
        theta = volumetric_water_content(mrsos)
    except ValueError as error:
        return report.add("units", f"{path}: {error}: fetch the file as the archive has it")

    report.tracking_ids.append(str(dataset.attrs.get("tracking_id", "")))
    report.licence = report.licence or _licence(str(dataset.attrs.get("license", "")))
    _check_depth(dataset, path, report)
    theta = theta.drop_vars(set(theta.coords) - {"lat", "lon"}).assign_coords(time=months)
    theta.attrs["path"] = str(path)
    return _standard_axes(theta, region, report)


def _what_instead(path, error):
    """What a file is that cannot be read as NetCDF."""
    try:
        head = path.open("rb").read(512).lstrip().lower()
    except OSError as problem:
        return f"cannot be read ({problem})"
    if not head:
        return "is empty"
    if head.startswith(b"<") or b"<html" in head:
        return "is a web page, not NetCDF"
    if head.startswith((b"cdf", b"\x89hdf")):
        return f"is truncated or damaged ({getattr(error, 'strerror', None) or error})"
    return f"cannot be read as NetCDF ({getattr(error, 'strerror', None) or error})"


def _months(dataset, path, report):
    """First day of each month: calendars are matched by year and month only."""
    if "time" not in dataset["mrsos"].dims or "time" not in dataset.variables:
        return report.add("time", f"{path}: mrsos has no time: fetch the file again")
    time = dataset["time"]
    attributes = {key: time.attrs[key] for key in ("units", "calendar") if key in time.attrs}
    stamps = time.values
    missing = int((~np.isfinite(stamps)).sum()) if stamps.dtype.kind == "f" else 0
    if missing or not stamps.size:
        return report.add(
            "time", f"{path}: {missing} of {stamps.size} time stamps are missing: fetch it again"
        )
    try:
        months = _decode(stamps, attributes)
        name = time.attrs.get("bounds")
        bounds = dataset[name].values if name in dataset.variables else np.empty(0)
        if bounds.shape == (stamps.size, 2) and np.isfinite(bounds).all():
            length = {"d": 1, "h": 24, "m": 1440, "s": 86400}.get(attributes["units"][:1], np.nan)
            days = np.ptp(bounds, axis=1) / length
            holds = ((bounds.min(axis=1) <= stamps) & (stamps <= bounds.max(axis=1))).all()
            if holds and (days > 0).all() and (days < 20).all():
                return report.add("frequency", f"{path}: {DAILY}")
            # The stamp may be any instant of the month, even its end: the middle is safe.
            middle = _decode(bounds.mean(axis=1), attributes)
            if holds and (days > 20).all() and middle.nunique() >= months.nunique():
                months = middle
    except (ValueError, OverflowError, AttributeError, KeyError) as error:
        return report.add(
            "time",
            f"{path}: time cannot be decoded ({error}); units such as 'days since 1850-01-01' and "
            "a CF calendar are expected: fetch the file again",
        )
    if months.nunique() * 2 < months.size:
        return report.add("frequency", f"{path}: {DAILY}")
    return months


def _decode(values, attributes):
    stamps = xr.decode_cf(
        xr.Dataset({"stamp": ("time", values, attributes)}),
        decode_times=xr.coders.CFDatetimeCoder(use_cftime=True),
    )["stamp"].values
    return pd.DatetimeIndex([f"{stamp.year:04d}-{stamp.month:02d}-01" for stamp in stamps])


def _check_name(row, dataset, months, report):
    held = {facet: str(dataset.attrs.get(facet, "")).strip() for facet in FACETS}
    differ = [
        f"{facet} {held[facet]}" for facet in FACETS if held[facet] not in ("", getattr(row, facet))
    ]
    if differ:
        report.add(
            "facets",
            f"{row.path}: the name disagrees with the attributes, {', '.join(differ)}: fetch it "
            "again, or give it the name of what it is",
        )
    held = f"{months.min():%Y%m}-{months.max():%Y%m}"
    if f"{row.first}-{row.last}" != held:
        report.add(
            "file_name",
            f"{row.path}: the name disagrees with what the file holds, months {held}: fetch it "
            "again or rename it",
        )


def _horizontal(mrsos, path, report):
    """mrsos with time and the dimensions of lat and lon, or None."""
    if not {"lat", "lon"} <= set(mrsos.coords):
        return report.add(
            "grid", f"{path}: mrsos has no coordinates lat and lon: fetch the file again"
        )
    lat, lon = mrsos["lat"], mrsos["lon"]
    others = set(mrsos.dims) - {"time", *lat.dims, *lon.dims}
    layers = [f"{dim} {mrsos.sizes[dim]}" for dim in sorted(others) if mrsos.sizes[dim] > 1]
    if layers:
        return report.add(
            "grid", f"{path}: mrsos has more than one layer, {', '.join(layers)}: fetch table Lmon"
        )
    if not (np.isfinite(lat).all() and np.isfinite(lon).all() and (abs(lat) <= 90.001).all()):
        return report.add(
            "grid", f"{path}: lat is not within -90..90 degrees, or lon missing: fetch it again"
        )
    mrsos = mrsos.squeeze(sorted(others), drop=True)
    if is_rectilinear(mrsos):
        return mrsos.swap_dims({lat.dims[0]: "lat", lon.dims[0]: "lon"})
    if importlib.util.find_spec("xesmf") and importlib.util.find_spec("esmpy"):
        return mrsos
    return report.add(
        "grid",
        f"{path}: mrsos has dimensions {mrsos.dims}, not (time, lat, lon): unstructured and "
        "curvilinear grids need xESMF (conda env create -f environment.yml); or leave the source "
        "out",
    )


def _check_depth(dataset, path, report):
    name = next((name for name in ("depth", "sdepth", "sdepth1") if name in dataset), None)
    bounds = dataset.get(dataset[name].attrs.get("bounds", f"{name}_bnds")) if name else None
    if bounds is None or bounds.size < 2:
        return
    top, bottom = (round(float(edge), 4) for edge in np.ravel(bounds)[:2])
    report.depth = f"{top:g}-{bottom:g} m"
    if not np.allclose((top, bottom), LAYER, atol=1e-3) and "depth" not in dict(report.problems):
        report.add(
            "depth", f"{path}: depth bounds {report.depth}; CMIP6 defines 0-0.1 m, which is used"
        )


def _licence(text):
    """Short form of a licence in the words of CMIP6."""
    match = re.search(r"Creative Commons (.+?) ?(\d\.\d)", text) or re.search(
        r"(CC[ -](?:BY[A-Z-]*|0))[ -]?(\d\.\d)", text
    )
    return " ".join(match.groups()) if match else text[:60]


def _standard_axes(theta, region, report):
    """lat and lon ascending, within a region and the margin that regridding may need."""
    lon = (theta["lon"].astype(float) + 180) % 360 - 180
    theta = theta.assign_coords(
        lat=theta["lat"].astype(float).assign_attrs(units="degrees_north"),
        lon=lon.assign_attrs(units="degrees_east"),
    )
    if not is_rectilinear(theta):
        return theta
    if region and (outside := uncovered(theta, region)):
        report.add("region", f"{theta.attrs['path']}: {outside}")
    order = {axis: np.unique(theta[axis], return_index=True)[1] for axis in ("lat", "lon")}
    edges = region and {"lat": (region.south, region.north), "lon": (region.west, region.east)}
    for axis, (low, high) in (edges or {}).items():
        centres = theta[axis].values[order[axis]]
        near = (centres >= low - MARGIN) & (centres <= high + MARGIN)
        if axis == "lat" or (low - MARGIN >= -180 and high + MARGIN <= 180):
            order[axis] = order[axis][near]  # else the margin lies beyond the date line
    return theta.transpose("time", "lat", "lon").isel(order)


# --- one series --------------------------------------------------------------------------


def _name_damaged(parts, report):
    for part in parts:
        try:
            part.count().compute()
        except (OSError, RuntimeError) as error:
            report.add("unreadable", f"{part.attrs['path']}: is damaged ({error}); fetch it again")


def _same_grid(parts, report):
    for part in parts[1:]:
        for axis in ("lat", "lon"):
            one, other = parts[0][axis], part[axis]
            if one.shape != other.shape or not np.allclose(one, other, atol=1e-3):
                report.add(
                    "grid",
                    f"{part.attrs['path']}: not on the grid of {parts[0].attrs['path']}: "
                    f"{axis} differs; fetch both again, of one version",
                )
                return False
    return True


def _join(parts, report):
    """The parts one after the other, each month once."""
    parts = sorted(parts, key=lambda part: (part.indexes["time"].min(), part.attrs["path"]))
    same = {"join": "override", "compat": "override", "coords": "minimal"}
    theta = xr.concat(parts, "time", combine_attrs="override", **same)
    origin = np.repeat([part.attrs["path"] for part in parts], [part.time.size for part in parts])
    months = theta.indexes["time"]
    again = np.flatnonzero(months.duplicated())
    if again.size:
        first = np.array([np.flatnonzero(months == month)[0] for month in months[again]])
        one, other = (_water(theta.isel(time=k).drop_vars("time")) for k in (first, again))
        equal = ((abs(one - other) < 1e-5) | (one.isnull() & other.isnull())).all(
            [dim for dim in theta.dims if dim != "time"]
        )
        differ = months[again][~equal.values]
        files = ", ".join(dict.fromkeys([*origin[first], *origin[again]]))
        if differ.size:
            report.add(
                "conflicting_months",
                f"{files}: disagree on {_shown(differ)}: keep the right one in the archive",
            )
        else:
            report.add("repeated_months", f"{files}: {_shown(months[again])} repeated, and equal")
    keep = np.flatnonzero(~months.duplicated())
    theta = theta.isel(time=keep[np.argsort(months[keep])])
    theta.attrs["tracking_ids"] = report.tracking_ids
    del theta.attrs["path"]
    return theta


def _select(theta, period, missing_first_month, others, report):
    """Exactly the months of the period, and whether the first one is to be filled."""
    wanted = pd.date_range(f"{period[0]}-01", f"{period[1]}-12", freq="MS")
    report.months_expected = wanted.size
    months = theta.indexes["time"]
    theta = theta.isel(time=(months >= wanted[0]) & (months <= wanted[-1]))
    missing = wanted.difference(theta.indexes["time"])
    first_only = list(missing) == [wanted[0]] and wanted.size > 120
    if first_only and missing_first_month == "climatology":
        return theta, True
    if missing.size:
        remedy = "fetch the files, shorten the period or leave the source out"
        if first_only:
            remedy = "set missing_first_month: climatology in the profile, or " + remedy
        if others:
            remedy += f"; of this series there are other versions, {', '.join(others)}"
        report.add(
            "missing_months",
            f"{report.source_id} {report.experiment_id}: {missing.size} of {wanted.size} months "
            f"are missing ({_shown(missing)}): {remedy}",
        )
    return theta, False


def _fill_first(theta, period, report):
    """With the first month of the period, the mean of that month in the next ten years."""
    first = pd.date_range(f"{period[0]}-01", periods=1, freq="MS")
    following = [first[0] + pd.DateOffset(years=number) for number in range(1, 11)]
    mean = theta.sel(time=following).mean("time").expand_dims(time=first)
    report.months_filled = 1
    report.filled_by = f"mean of {first[0]:%B} {following[0].year}-{following[-1].year}"
    report.add(
        "filled_month",
        f"{report.source_id} {report.experiment_id}: {first[0]:%Y-%m} is missing; filled by the "
        f"{report.filled_by}",
    )
    return xr.concat([mean, theta], "time", combine_attrs="override").assign_attrs(theta.attrs)


def _shown(months):
    shown = ", ".join(f"{month:%Y-%m}" for month in months[:5])
    return shown + (", ..." if len(months) > 5 else "")


def _water(theta):
    """theta without fill values that the file does not declare."""
    low, high = (limit / 100 for limit in FILL_LIMITS)  # m3 m-3 in a layer of 0.1 m
    return theta.where((theta > low) & (theta < high))


def _check_values(theta, report):
    """theta without fill values and ocean, within 0..1; one pass over the values counts them."""
    series = f"{report.source_id} {report.experiment_id}"
    water = _water(theta)
    held = water.notnull()
    space = [dim for dim in theta.dims if dim != "time"]
    survey = xr.Dataset(
        {
            "fills": theta.notnull().sum() - held.sum(),
            "valid": held.sum(space),
            "wettest": theta.where(held, -np.inf).max("time"),
            "driest": theta.where(held, np.inf).min("time"),
            "mean": water.mean(),
            "clipped_low": (water < 0).sum(),
            "clipped_high": (water > 1).sum(),
        }
    )
    survey = survey.compute()
    empty = theta.indexes["time"][survey["valid"].values == 0]
    if empty.size:
        report.add(
            "missing_values",
            f"{series}: no value in {empty.size} of {theta.time.size} months ({_shown(empty)}): "
            "fetch the files again or leave the source out",
        )
        return None

    land = survey["wettest"] > DRY
    report.dry_cells = int((np.isfinite(survey["wettest"]) & ~land).sum())
    for name in ("clipped_low", "clipped_high"):
        setattr(report, name, int(survey[name]))
    report.undeclared_fills = int(survey["fills"])
    report.minimum, report.maximum = float(survey["driest"].min()), float(survey["wettest"].max())
    report.land_share = 100 * float(land.mean())
    if report.undeclared_fills:
        report.add(
            "undeclared_fill",
            f"{series}: {report.undeclared_fills} undeclared fill values, taken as missing",
        )
    if report.dry_cells:
        report.add(
            "dry_cells",
            f"{series}: {report.dry_cells} cells never hold water: ocean or ice, taken as missing",
        )
    if report.clipped_low or report.clipped_high:
        report.add(
            "clipped",
            f"{series}: {report.clipped_low} values below 0 and {report.clipped_high} above 1 "
            f"m3 m-3, {report.minimum:.3g} to {report.maximum:.3g}; set to the limit",
        )
    fewest, most = int(survey["valid"].min()), int(survey["valid"].max())
    if fewest < MOST_CELLS * most:
        partial = theta.indexes["time"][survey["valid"].values < MOST_CELLS * most]
        report.add(
            "partial_months",
            f"{series}: only {fewest} of {most} cells have values in some months "
            f"({_shown(partial)}): fetch the files again",
        )
    elif fewest < most:
        report.add(
            "changing_mask",
            f"{series}: {fewest} to {most} cells have values, by month; those that lack one are "
            "taken from their neighbours",
        )
    if not (report.maximum > 0.01 and survey["mean"] < 1):
        report.add(
            "magnitude",
            f"{series}: {report.minimum:.3g} to {report.maximum:.3g} m3 m-3, mean "
            f"{float(survey['mean']):.3g}: are the units those of the attributes? Fetch the files "
            "again",
        )
    return water.where(land).clip(0, 1).assign_attrs(theta.attrs)
