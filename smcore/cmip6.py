"""CMIP6 files: finding them, reading them, and a report of what they hold."""

import importlib.util
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
LAYER = (0.0, 0.1)  # m, as CMIP6 defines mrsos
# Problems that let a study go on. Every other kind is an error: some a profile may accept
# (`config.ACCEPTABLE`), the rest nothing but another file cures.
WARNINGS = {
    *("filled_month", "repeated_months", "undeclared_fill", "dry_cells", "clipped"),
    *("changing_mask", "depth"),
}


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
        text = f"{where or f'{self.source_id} {self.experiment_id}'}: {words}"
        if kind in ACCEPTABLE:
            accepting = f"accept {kind} for {self.source_id} in the profile"
            text += f"; or {accepting}, to go by {ACCEPTABLE[kind]}"
        self.problems.append([kind, text])

    @property
    def errors(self):
        """Texts of the problems because of which the series cannot be used."""
        allowed = WARNINGS.union(self.accepted)
        return [text for kind, text in self.problems if kind not in allowed]

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
            rows.append({k: "; ".join(v) if isinstance(v, list) else v for k, v in row.items()})
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
        One row per file: ``source_id``, ``experiment_id``, ``variant_label``, ``grid_label``,
        ``version``, ``first`` and ``last`` (YYYYMM), ``path``. A file of another name has the
        facets of its attributes and no ``first`` and ``last``; those that hold no monthly
        ``mrsos`` are listed in ``attrs["ignored"]``.

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
        version = path.parent.name if re.fullmatch(r"v\d+", path.parent.name) else ""
        if (facets["variable_id"], facets["table_id"]) == ("mrsos", "Lmon"):
            rows.append(facets | {"version": version, "path": path})
        else:
            ignored.append(str(path))
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
    facets = dict.fromkeys(("variable_id", "table_id", *FACETS, "first", "last"), "")
    try:
        with netCDF4.Dataset(path) as file:
            return {name: str(getattr(file, name, "")) for name in facets}
    except OSError:
        return facets


def select_files(files, source_id, experiment_id, **facets):
    """The rows of `find_sources` that make up one series; a `Problem` says what there is instead.

    Of the `facets`, ``variant_label`` and ``grid_label`` may be left out where there is only one;
    ``version``, such as ``v20190815``, is by default the newest.
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

    `files` are from `find_sources`; only values in the `region` (a Domain) and `MARGIN` around it
    are read and checked; `accepted` kinds of error do no harm. With ``missing_first_month`` as
    "climatology" a first month that alone is missing in the `period` is the mean of that calendar
    month over the next ten years. Irregular grids keep their dimensions (xESMF must be there).
    """
    report, parts, theta = QualityReport(source_id, experiment_id, accepted=[*accepted]), [], None
    with collecting(report.problems, f"{source_id} {experiment_id}"):
        rows = select_files(files, source_id, experiment_id, **facets)
        report.files, report.versions = len(rows), sorted(set(rows["version"]) - {""})
        for row in rows.itertuples():
            with collecting(report.problems, row.path):
                parts.append(_read_file(row, region, report))
        if len(native.on_one_grid(parts, report.problems)) < len(rows) or report.errors:
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
    months = _months(dataset)
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
        needed = {"lat": (region.south - MARGIN, region.north + MARGIN)}
        needed["lon"] = (region.west - MARGIN, region.east + MARGIN)
        if needed["lon"][0] < -180 or needed["lon"][1] > 180:  # the margin crosses the date line
            del needed["lon"]
        for axis, (low, high) in needed.items():
            centres = theta[axis].values
            theta = theta.isel({axis: (low <= centres) & (centres <= high)})
    return native.ascending(theta)


def _months(dataset):
    """First days of the months of the time axis, by its bounds where they are possible."""
    time, daily = dataset["time"], False
    months = native.months(time)
    bounds = dataset.get(time.attrs.get("bounds"), time).values
    if bounds.shape == (time.size, 2) and np.isfinite(bounds).all():
        low, high = np.sort(bounds, axis=1).T
        length = {"d": 1, "h": 24, "m": 1440, "s": 86400}.get(time.attrs["units"][:1], np.nan)
        days = (high - low) / length
        holds = ((low <= time.values) & (time.values <= high)).all()
        daily = holds and (days > 0).all() and (days < 20).all()
        # The stamp may be any instant of the month, even its end: the middle is safe.
        middle = native.months(time.variable.copy(data=(low + high) / 2))
        if holds and (days > 20).all() and middle.nunique() >= months.nunique():
            months = middle
    if daily or months.nunique() * 2 < months.size:
        raise Problem("frequency", "more than one step a month: fetch monthly means, table Lmon")
    return months


def _note(row, dataset, months, report):
    """Note what a file says of itself, and where its name and its layer are not what they seem."""
    held = {name: str(value).strip() for name, value in dataset.attrs.items()}
    differ = [key for key in FACETS if held.get(key, "") not in ("", getattr(row, key))]
    text = "the name disagrees with {}: fetch it again, or give it the name of what it is"
    if differ:
        words = ", ".join(f"{key} {held[key]}" for key in differ)
        raise Problem("facets", text.format(f"the attributes, {words}"))
    inside = f"{months.min():%Y%m}-{months.max():%Y%m}"
    if f"{row.first}-{row.last}" != inside:
        report.add("file_name", text.format(f"what it holds, months {inside}"), row.path)

    report.calendar = dataset["time"].attrs.get("calendar", "standard")
    report.tracking_ids.append(held.get("tracking_id", ""))
    licence = held.get("license", "")
    short = re.search(r"Creative Commons (.+?) ?(\d\.\d)", licence)
    short = short or re.search(r"(CC[ -](?:BY[A-Z-]*|0))[ -]?(\d\.\d)", licence)
    report.licence = report.licence or (" ".join(short.groups()) if short else licence[:60])

    name = next((name for name in ("depth", "sdepth", "sdepth1") if name in dataset), None)
    bounds = dataset.get(dataset[name].attrs.get("bounds", f"{name}_bnds")) if name else None
    if bounds is not None and bounds.size >= 2:
        edges = np.ravel(bounds)[:2].astype(float).round(4)
        report.depth = "{:g}-{:g} m".format(*edges)
        if not np.allclose(edges, LAYER, atol=1e-3) and "depth" not in dict(report.problems):
            text = f"depth bounds {report.depth}; CMIP6 defines 0-0.1 m, which is used"
            report.add("depth", text, row.path)


def _series(parts, rows, period, missing_first_month, report):
    """theta of the months of the period; what is wrong with them goes into the report."""
    theta, repeats = native.join(parts, tolerance=SAME, limits=FILL_LIMITS)
    for kind, files, words in repeats:
        report.add(kind, words, files)
    first = None
    if period is not None:
        wanted = native.month_range(period)
        theta = theta.isel(time=theta.indexes["time"].isin(wanted))
        missing, report.months_expected = wanted.difference(theta.indexes["time"]), wanted.size
        first = wanted[0] if list(missing) == [wanted[0]] and wanted.size > 120 else None
        if missing.size and (first is None or missing_first_month != "climatology"):
            text = f"{missing.size} of {wanted.size} months are missing ({shown(missing)}): "
            if first is not None:
                text += "set missing_first_month: climatology in the profile, or "
            text += "fetch the files, shorten the period or leave the source out"
            if others := ", ".join(rows.attrs["other_versions"]):
                text += f"; of this series there are other versions, {others}"
            raise Problem("missing_months", text)
    report.months_found = theta.sizes["time"]
    if report.errors:
        return None
    theta = _check_values(theta, report)
    theta.attrs = {"long_name": "volumetric water content", "units": "m3 m-3"}
    theta.attrs["tracking_ids"] = report.tracking_ids
    if first is None:
        return theta
    following = [first + pd.DateOffset(years=number) for number in range(1, 11)]
    mean = theta.sel(time=following).mean("time").expand_dims(time=[first])
    report.months_filled = 1
    report.filled_by = f"mean of {first:%B} {following[0].year}-{following[-1].year}"
    report.add("filled_month", f"{first:%Y-%m} is missing; filled by the {report.filled_by}")
    return xr.concat([mean, theta], "time", combine_attrs="override").assign_attrs(theta.attrs)


def _check_values(theta, report):
    """theta without fill values and ocean, within 0..1; one pass over the values counts them."""
    water = native.within(theta, FILL_LIMITS)
    held, space = water.notnull(), [dim for dim in theta.dims if dim != "time"]
    wettest = theta.where(held, -np.inf).max("time")
    counted = xr.Dataset(
        {
            "undeclared_fills": theta.notnull().sum() - held.sum(),
            "dry_cells": (np.isfinite(wettest) & (wettest <= DRY)).sum(),
            "clipped_low": (water < 0).sum(),
            "clipped_high": (water > 1).sum(),
            "minimum": water.min(),
            "maximum": water.max(),
        }
    )
    survey = {"mean": water.mean(), "land": wettest > DRY, "valid": held.sum(space)}
    survey = counted.assign(survey).compute()
    months, valid = theta.indexes["time"], survey["valid"].values
    fewest, most = valid.min(), valid.max()
    if not fewest:
        empty = months[valid == 0]
        text = f"no value in {empty.size} of {valid.size} months ({shown(empty)}): fetch them again"
        raise Problem("missing_values", text)

    for name in counted:
        setattr(report, name, survey[name].item())
    report.land_share = 100 * float(survey["land"].mean())
    extremes = f"{report.minimum:.3g} to {report.maximum:.3g} m3 m-3"
    if fills := report.undeclared_fills:
        report.add("undeclared_fill", f"{fills} undeclared fill values, taken as missing")
    if dry := report.dry_cells:
        report.add("dry_cells", f"{dry} cells never hold water: ocean or ice, taken as missing")
    low, high = report.clipped_low, report.clipped_high
    if low or high:
        text = f"{low} values below 0 and {high} above 1 m3 m-3, {extremes}; set to the limit"
        report.add("clipped", text)
    if fewest < MOST_CELLS * most:
        partial = shown(months[valid < MOST_CELLS * most])
        text = f"only {fewest} of {most} cells have values in some months ({partial}): fetch again"
        report.add("partial_months", text)
    elif fewest < most:
        text = f"{fewest} to {most} cells have values, by month; neighbours fill the others"
        report.add("changing_mask", text)
    if not (report.maximum > 0.01 and survey["mean"] < 1):
        report.add("magnitude", f"{extremes}: are the units those of the attributes? Fetch again")
    return water.where(survey["land"]).clip(0, 1)
