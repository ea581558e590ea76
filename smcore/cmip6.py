"""CMIP6 files: finding them, reading them, and a report of what they hold."""

import importlib.util
import re
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

import cftime
import netCDF4
import numpy as np
import pandas as pd
import xarray as xr

from smcore import native
from smcore.config import ACCEPTABLE
from smcore.grids import uncovered
from smcore.native import Problem, collecting, shown
from smcore.regrid import is_rectilinear
from smcore.soil import volumetric_water_content

FILE_NAME = re.compile(
    r"(?P<variable_id>[^_]+)_(?P<table_id>[^_]+)_(?P<source_id>[^_]+)_(?P<experiment_id>[^_]+)"
    r"_(?P<variant_label>[^_]+)_(?P<grid_label>[^_]+)_(?P<first>\d{6})-(?P<last>\d{6})\.nc"
)
FACETS = ["source_id", "experiment_id", "variant_label", "grid_label"]
FILL_LIMITS = (-0.01, 10.0)  # m3 m-3: no soil holds less or more, what lies beyond is no water
SAME = 1e-5  # m3 m-3; a month that comes twice differs by less
MARGIN = 6.0  # degrees around a region that regridding may need
DRY = 1e-4  # m3 m-3: a cell that never holds more is ocean or ice
MOST_CELLS = 0.95  # share of the cells with values that every month must have
# Problems that let a study go on. All others are errors, some of which a profile may accept.
WARNINGS = {"filled_month", "repeated_months", "undeclared_fill", "dry_cells", "clipped"}
WARNINGS |= {"changing_mask", "depth"}


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

    def add(self, kind, words, where=None):
        """Note a problem with a file, or with the series."""
        where = where or f"{self.source_id} {self.experiment_id}"
        self.problems.append([kind, f"{where}: {words}"])

    @property
    def errors(self):
        """Why the series cannot be used, and what of it a profile may accept."""
        accept = f"; or accept {{}} for {self.source_id} in the profile, to go by {{}}"
        hints = {kind: accept.format(kind, rule) for kind, rule in ACCEPTABLE.items()}
        allowed = WARNINGS.union(self.accepted)
        return [text + hints.get(kind, "") for kind, text in self.problems if kind not in allowed]

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
        table = pd.DataFrame([asdict(one) | {"verdict": one.verdict} for one in reports])
        table["problems"] = [list(map(": ".join, one.problems)) for one in reports]
        return table.map(lambda value: "; ".join(value) if isinstance(value, list) else value)


def find_sources(directory):
    """The files of monthly ``mrsos`` below a directory.

    Parameters
    ----------
    directory : str or Path
        Top of the archive. Of the folders below it only the last counts, as the version: a
        centre's scenarios may come from another institution.

    Returns
    -------
    pd.DataFrame
        One row per file: ``source_id``, ``experiment_id``, ``variant_label``, ``grid_label``,
        ``version``, ``first`` and ``last`` (YYYYMM), ``path``. A file of another name has the
        facets of its attributes and no months; ``attrs["ignored"]`` has those of another kind.

    Raises
    ------
    FileNotFoundError
        If the directory does not exist or holds no such file.
    """
    rows, ignored = [], []
    for path in sorted(Path(directory).glob("**/*mrsos*.nc*")):
        if path.name.startswith("."):  # unfinished
            continue
        match = FILE_NAME.fullmatch(path.name)
        facets = match.groupdict() if match else _facets_inside(path)
        facets["version"] = path.parent.name if re.fullmatch(r"v\d+", path.parent.name) else ""
        if (facets["variable_id"], facets["table_id"]) == ("mrsos", "Lmon"):
            rows.append(facets | {"path": path})
        else:
            ignored.append(str(path))
    if not rows:
        name = "mrsos_Lmon_<source>_<experiment>_<member>_<grid>_<YYYYMM>-<YYYYMM>.nc"
        others = f"; damaged, or of another kind: {', '.join(ignored)}" if ignored else ""
        text = f"no monthly mrsos below {directory}: expected files named {name}{others}"
        raise FileNotFoundError(text)
    files = pd.DataFrame(rows)[[*FACETS, "version", "first", "last", "path"]]
    files.attrs["ignored"] = ignored
    return files


def _facets_inside(path):
    """Facets from the attributes of a file whose name does not tell them."""
    names = ("variable_id", "table_id", *FACETS, "first", "last")
    try:
        with netCDF4.Dataset(path) as file:
            return {name: str(getattr(file, name, "")) for name in names}
    except OSError:
        return dict.fromkeys(names, "")


def select_files(files, source_id, experiment_id, **facets):
    """The rows of `find_sources` that make up one series; a `Problem` says what there is instead.

    Of the `facets` the version is by default the newest; any other needs no value if it has one.
    """
    here = files[(files["source_id"] == source_id) & (files["experiment_id"] == experiment_id)]
    if here.empty:
        raise Problem("archive", "no monthly mrsos is there: fetch it or leave the source out")
    for facet in ("variant_label", "grid_label", "version"):
        found, value = sorted(set(here[facet])), facets.get(facet)
        if value is None and len(found) > 1 and facet != "version":
            raise Problem("archive", f"{facet} is one of {found}: name one, or keep only one")
        if value not in (None, *found):
            raise Problem("archive", f"no {facet} {value}; there are {found}")
        value = value or found[-1]
        here = here[here[facet] == value]
    here.attrs["other_versions"] = [version for version in found if version != value]
    return here


def open_mrsos(directory, source_id, experiment_id, *, variant_label=None, period=None, **options):
    """Monthly volumetric water content of the upper 10 cm of one source.

    Parameters
    ----------
    directory : str or Path
        Top of the archive.
    source_id, experiment_id, variant_label : str
        As in the CMIP6 vocabularies. The member may be left out where there is only one.
    period : (str, str), optional
        First and last year, both included; every month must be there.
    **options
        ``grid_label`` and ``version`` of the files, the ``region`` needed (a Domain), the kinds of
        error ``accepted`` (of `config.ACCEPTABLE`), ``missing_first_month="climatology"``.

    Returns
    -------
    xr.DataArray
        theta(time, lat, lon) in m3 m-3 within 0..1, loaded when it is used. ``time`` is the
        first of each month in the standard calendar, ``lat`` ascends, ``lon`` ascends in
        -180..180; missing over the ocean. ``attrs`` has ``tracking_ids``.

    Raises
    ------
    FileNotFoundError, ValueError
        If the archive holds no monthly mrsos, or the series has problems: a line for each.
    """
    options |= {"variant_label": variant_label, "period": period}
    theta, report = read_series(find_sources(directory), source_id, experiment_id, **options)
    if report.errors:
        raise ValueError("\n".join(report.errors))
    return theta


def read_series(
    files,
    source_id,
    experiment_id,
    *,
    period=None,
    region=None,
    missing_first_month="refuse",
    accepted=(),
    **facets,
):
    """theta(time, lat, lon) in m3 m-3 of one series, None if it has errors, and its QualityReport.

    Read is the `region` (a Domain) with `MARGIN`; irregular grids keep their dimensions (time, i).
    ``missing_first_month="climatology"`` puts the mean of that month over the next ten years where
    the first month of the `period`, and no other, is missing.
    """
    report, parts, theta = QualityReport(source_id, experiment_id, accepted=[*accepted]), [], None
    with collecting(report.problems, f"{source_id} {experiment_id}"):
        rows = select_files(files, source_id, experiment_id, **facets)
        report.files, report.versions = len(rows), sorted(set(rows["version"]) - {""})
        for row in rows.itertuples():
            with collecting(report.problems, row.path):
                parts.append(_read_file(row, region, report))
        parts = native.on_one_grid(parts, report.problems)
        if report.errors:
            return None, report
        try:
            theta = _series(parts, rows, period, missing_first_month, report)
        except (OSError, RuntimeError):  # a file that opens and has a damaged block
            for part in parts:
                with collecting(report.problems, Path(part.attrs["path"])):
                    part.count().compute()
            if not report.errors:
                raise
    return (None if report.errors else theta), report


def _read_file(row, region, report):
    """theta of a file as it is, on ascending axes; what the file says goes into the report."""
    dataset = native.open_netcdf(row.path, chunks={"time": 24})
    if "mrsos" not in dataset:
        held = ", ".join(map(str, dataset.data_vars)) or "nothing"
        raise Problem("variable", f"no variable mrsos; it holds {held}: fetch mrsos of table Lmon")
    if "time" not in dataset["mrsos"].coords:
        raise Problem("time", "mrsos has no time: fetch the file again")
    months = months_held(dataset)
    mrsos = native.on_axes(dataset["mrsos"])
    if not is_rectilinear(mrsos) and not all(map(importlib.util.find_spec, ("xesmf", "esmpy"))):
        text = f"mrsos has dimensions {mrsos.dims}: unstructured and curvilinear grids need xESMF "
        raise Problem("grid", text + "(environment.yml has it); or leave the source out")
    try:
        theta = volumetric_water_content(mrsos)
    except ValueError as error:
        raise Problem("units", f"{error}: fetch the file as the archive has it") from error
    _note(row, dataset, months, report)
    space = [str(size) for dim, size in mrsos.sizes.items() if dim != "time"]
    report.grid = " x ".join(space) + (" cells" if len(space) == 1 else "")

    theta = theta.drop_vars(set(theta.coords) - {"lat", "lon"}).assign_coords(time=months)
    theta.attrs["path"] = str(row.path)
    if not is_rectilinear(theta):
        return theta
    if region is not None:
        if outside := uncovered(theta, region):
            raise Problem("region", outside)
        lat, lon = theta["lat"].values, theta["lon"].values
        west, east = region.west - MARGIN, region.east + MARGIN
        around = west < -180 or east > 180  # the margin crosses the date line
        rows = (region.south - MARGIN <= lat) & (lat <= region.north + MARGIN)
        theta = theta.isel(lat=rows, lon=around | ((west <= lon) & (lon <= east)))
    return native.ascending(theta)


def months_held(dataset):
    """First days of the months of the time axis, by its bounds where they are possible."""
    time, daily = dataset["time"], False
    months = native.months(time)
    bounds = dataset.get(time.attrs.get("bounds"), time).values
    if bounds.shape == (time.size, 2) and np.isfinite(bounds).all():
        low, high = np.sort(bounds, axis=1).T
        calendar = time.attrs.get("calendar", "standard")
        zero, one = cftime.num2date([0, 1], time.attrs["units"], calendar)
        days = (high - low) * ((one - zero) / timedelta(days=1))
        days[(time.values < low) | (high < time.values)] = np.nan  # such bounds mean nothing
        daily = ((days > 0) & (days < 20)).all()
        # The stamp may be any instant of the month, even its end: the middle is safe.
        middle = native.months(time.variable.copy(data=(low + high) / 2))
        if (days > 20).all() and middle.nunique() >= months.nunique():
            months = middle
    if daily or months.nunique() * 2 < months.size:
        raise Problem("frequency", "more than one step a month: fetch monthly means, table Lmon")
    return months


def _note(row, dataset, months, report):
    """Note what a file says of itself, and where its name and its layer are not what they seem."""
    held = {name: str(value).strip() for name, value in dataset.attrs.items()}
    text = "the name disagrees with {}: fetch it again, or give it the name of what it is"
    if differ := [key for key in FACETS if held.get(key, "") not in ("", getattr(row, key))]:
        words = ", ".join(f"{key} {held[key]}" for key in differ)
        raise Problem("facets", text.format(f"the attributes, {words}"))
    inside = f"{months.min():%Y%m}-{months.max():%Y%m}"
    if f"{row.first}-{row.last}" != inside:
        report.add("file_name", text.format(f"what it holds, months {inside}"), row.path)

    report.calendar = dataset["time"].attrs.get("calendar", "standard")
    report.tracking_ids.append(held.get("tracking_id", ""))
    licence = held.get("license", "")
    short = re.search(r"(?:Creative Commons (.+?)|(CC[ -](?:BY[A-Z-]*|0)))[ -]?(\d\.\d)", licence)
    words = filter(None, short.groups()) if short else [licence[:60]]
    report.licence = report.licence or " ".join(words)

    name = next((name for name in ("depth", "sdepth", "sdepth1") if name in dataset), None)
    bounds = dataset.get(dataset[name].attrs.get("bounds", f"{name}_bnds")) if name else None
    if bounds is not None and bounds.size >= 2:
        edges = np.ravel(bounds)[:2].astype(float).round(4)
        report.depth = "{:g}-{:g} m".format(*edges)
        if not np.allclose(edges, (0, 0.1), atol=1e-3) and "depth" not in dict(report.problems):
            text = f"depth bounds {report.depth}; CMIP6 defines 0-0.1 m, which is used"
            report.add("depth", text, row.path)


def fillable(missing, wanted):
    """Whether only the first month is missing, and ten years follow to fill it from."""
    return list(missing) == [wanted[0]] and wanted.size > 120


def _series(parts, rows, period, missing_first_month, report):
    """theta of the months of the period; what is wrong with them goes into the report."""
    theta, filled = native.join(parts, report.problems, tolerance=SAME, limits=FILL_LIMITS), False
    if period is not None:
        wanted = native.month_range(period)
        theta = theta.isel(time=theta.indexes["time"].isin(wanted))
        missing, report.months_expected = wanted.difference(theta.indexes["time"]), wanted.size
        may_fill = fillable(missing, wanted)
        filled = may_fill and missing_first_month == "climatology"
        if missing.size and not filled:
            text = f"{missing.size} of {wanted.size} months are missing ({shown(missing)}): "
            text += "set missing_first_month: climatology in the profile, or " if may_fill else ""
            text += "fetch the files, shorten the period or leave the source out (other versions: "
            others = ", ".join(rows.attrs["other_versions"]) or "none"
            raise Problem("missing_months", f"{text}{others})")
    report.months_found = theta.sizes["time"]
    if report.errors:
        return None
    theta = _check_values(theta, report)
    if filled:
        first = wanted[0]
        following = theta.isel(time=slice(11, 120, 12))  # the same month of ten years
        theta = xr.concat([following.mean("time").expand_dims(time=[first]), theta], "time")
        report.months_filled = 1
        report.filled_by = f"mean of {first:%B} {first.year + 1}-{first.year + 10}"
        report.add("filled_month", f"{first:%Y-%m} is missing; filled by the {report.filled_by}")
    theta.attrs = {"long_name": "volumetric water content", "units": "m3 m-3"}
    return theta.assign_attrs(tracking_ids=report.tracking_ids)


def _check_values(theta, report):
    """theta without fill values and ocean, within 0..1; one pass over the values counts them."""
    water = native.within(theta, FILL_LIMITS)
    held, space = water.notnull(), [dim for dim in theta.dims if dim != "time"]
    wettest = theta.where(held, -np.inf).max("time")
    survey = {
        "undeclared_fills": theta.notnull().sum() - held.sum(),
        "dry_cells": (np.isfinite(wettest) & (wettest <= DRY)).sum(),
        "clipped_low": (water < 0).sum(),
        "clipped_high": (water > 1).sum(),
        "minimum": water.min(),
        "maximum": water.max(),
        "land_share": 100 * (wettest > DRY).mean(),
    }
    more = {"mean": water.mean(), "land": wettest > DRY, "valid": held.sum(space)}
    found = xr.Dataset(survey | more).compute()
    months, valid = theta.indexes["time"], found["valid"].values
    fewest, most = valid.min(), valid.max()
    if not fewest:
        empty = months[valid == 0]
        text = f"no value in {empty.size} of {valid.size} months ({shown(empty)}): fetch them again"
        raise Problem("missing_values", text)

    for name in survey:
        setattr(report, name, found[name].item())
    extremes = f"{report.minimum:.3g} to {report.maximum:.3g} m3 m-3"
    if fills := report.undeclared_fills:
        report.add("undeclared_fill", f"{fills} undeclared fill values, taken as missing")
    if dry := report.dry_cells:
        report.add("dry_cells", f"{dry} cells never hold water: ocean or ice, taken as missing")
    low, high = report.clipped_low, report.clipped_high
    if low or high:
        report.add(
            "clipped", f"{low} values below 0 and {high} above 1 m3 m-3, {extremes}: limited"
        )
    if fewest < MOST_CELLS * most:
        partial = shown(months[valid < MOST_CELLS * most])
        text = f"only {fewest} of {most} cells have values in some months ({partial}): fetch again"
        report.add("partial_months", text)
    elif fewest < most:
        report.add("changing_mask", f"{fewest} to {most} cells have values; neighbours fill in")
    if not (report.maximum > 0.01 and found["mean"] < 1):
        report.add("magnitude", f"{extremes}: are the units those of the attributes? Fetch again")
    return water.where(found["land"]).clip(0, 1)
