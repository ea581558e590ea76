"""Native files to the prepared store: theta on the nested grids, ready for the network.

The store holds, for each way of regridding, one file per source and experiment on the coarse
grid (ocean filled from the nearest land), the reference and the static fields on the fine
grid, and ``manifest.json`` with the checksum of each file and the quality reports.
"""

import json

import dask
import shapely
import xarray as xr

from smcore import cmip6, era5land
from smcore.cmip6 import QualityReport
from smcore.config import ROOT
from smcore.grids import coarse_grid, fine_grid
from smcore.progress import track
from smcore.regrid import fill_nearest, regrid
from smcore.store import sha256, write_dataset, write_json

MARGIN = 6.0  # degrees around the domain that regridding may need


def prepare(study):
    """Write the prepared store of a study.

    Files that a previous call finished from the same input are kept.

    Returns
    -------
    list of QualityReport
        One per source and experiment.

    Raises
    ------
    ValueError
        If the archive cannot be used; the message lists every problem of every file.
    """
    files = cmip6.find_sources(study.cmip6_directory)
    reports, fields, problems = [], {}, []
    for source_id in study.sources:
        for experiment_id in ("historical", *study.experiments):
            report = QualityReport(source_id, experiment_id)
            reports.append(report)
            try:
                fields[source_id, experiment_id] = _open(study, files, report)
            except (ValueError, FileNotFoundError) as error:
                report.problems += str(error).splitlines()
                problems += report.problems

    def attempt(read, *arguments, **options):
        try:
            return read(*arguments, **options)
        except (ValueError, FileNotFoundError) as error:
            problems.extend(str(error).splitlines())

    folder = study.era5land_directory
    period = study.periods.historical
    reference = attempt(era5land.open_swvl, folder, depth=study.depth, period=period)
    invariant = attempt(era5land.open_invariant, folder)
    area = attempt(study_area_geometry, study)
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise ValueError(f"the archive of {study.name} has {len(problems)} problem(s):\n{lines}")

    paths = [_prepare_reference(study, reference, invariant, area)]
    paths.append(study.prepared / "static.nc")
    for report in track(reports, "regridding"):
        raw = fields[report.source_id, report.experiment_id]
        paths.append(_prepare_source(study, raw, report))
    write_json(
        {
            "files": {path.name: sha256(path) for path in paths},
            "quality": QualityReport.table(reports).to_dict("records"),
        },
        study.prepared / "manifest.json",
    )
    return reports


def open_predictors(study, experiment_id):
    """theta(source_id, time, lat, lon) in m3 m-3 on the coarse grid, ocean filled."""
    fields = [
        xr.load_dataarray(study.prepared / f"theta_{source_id}_{experiment_id}.nc")
        for source_id in study.sources
    ]
    index = xr.Variable("source_id", list(study.sources))
    return xr.concat(fields, index, join="exact", combine_attrs="override").assign_coords(
        source_id=list(study.sources)
    )


def open_reference(study):
    """theta(time, lat, lon) in m3 m-3 of the reference on the fine grid."""
    return xr.open_dataset(study.prepared / "reference.nc")["theta"]


def open_static(study):
    """Static fields on the fine grid.

    Returns
    -------
    xr.Dataset
        ``elevation`` (m), ``land_fraction`` (0..1), and the booleans ``land`` (where the
        reference has a value) and ``study_area`` (land inside the study's polygons).
    """
    static = xr.load_dataset(study.prepared / "static.nc")
    return static.assign({name: static[name].astype(bool) for name in ("land", "study_area")})


def study_area_geometry(study):
    """The polygons of the study area as one shapely geometry, in degrees."""
    collection = json.loads((ROOT / "data" / "countries.geojson").read_text())
    shapes = {
        str(feature["properties"]["id"]): shapely.geometry.shape(feature["geometry"])
        for feature in collection["features"]
    }
    unknown = sorted(set(study.study_area.countries) - set(shapes))
    if unknown:
        raise ValueError(
            f"study_area.countries: {unknown}: no such codes in data/countries.geojson; "
            "ISO 3166-1 numeric codes such as '156' are expected"
        )
    return shapely.union_all([shapes[code] for code in study.study_area.countries])


def _open(study, files, report):
    """One series cut to the surroundings of the domain; fills in the report."""
    source_id, experiment_id = report.source_id, report.experiment_id
    rows = cmip6.select_files(
        files,
        source_id,
        experiment_id,
        variant_label=study.variant_label(source_id, experiment_id),
    )
    period = study.period(experiment_id)
    theta = cmip6.open_files(rows["path"], period=period)
    report.files, report.version = len(rows), rows["version"].iloc[0]
    report.calendar = theta.attrs["calendar"]
    report.grid = f"{theta.sizes['lat']} x {theta.sizes['lon']}"
    report.months_found = theta.sizes["time"]
    report.months_expected = 12 * (int(period[1]) - int(period[0]) + 1)
    report.tracking_ids = theta.attrs["tracking_ids"]
    domain = study.domain
    theta = theta.sel(
        lat=slice(domain.south - MARGIN, domain.north + MARGIN),
        lon=slice(domain.west - MARGIN, domain.east + MARGIN),
    )
    # What the result depends on: the files as they are, and the way to the coarse grid.
    stamps = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in rows["path"]]
    theta.attrs["key"] = json.dumps([stamps, period, study.fingerprint("domain")])
    return theta


def _prepare_source(study, raw, report):
    path = study.prepared / f"theta_{report.source_id}_{report.experiment_id}.nc"
    counts = ("clipped_low", "clipped_high", "minimum", "maximum", "land_share")
    if path.exists():
        with xr.open_dataset(path) as found:
            if found.attrs.get("key") == raw.attrs["key"]:
                for name, value in json.loads(found.attrs["quality"]).items():
                    setattr(report, name, value)
                return path
    coarse = regrid(
        cmip6.limit(raw),
        coarse_grid(study.domain, registration=study.registration),
        method=study.network.regridding,
    )
    values = [(raw < 0).sum(), (raw > 1).sum(), raw.min(), raw.max(), 100 * raw.notnull().mean()]
    coarse, *values = dask.compute(coarse, *values)
    for name, value in zip(counts, values, strict=True):
        setattr(report, name, round(value.item(), 6))
    theta = fill_nearest(coarse).rename("theta")
    theta.attrs = {"long_name": "volumetric water content, 0-10cm", "units": "m3 m-3"}
    dataset = theta.to_dataset().drop_vars(["lat_bnds", "lon_bnds"], errors="ignore")
    dataset.attrs = {
        "key": raw.attrs["key"],
        "quality": json.dumps({name: getattr(report, name) for name in counts}),
    }
    write_dataset(dataset, path)
    return path


def _prepare_reference(study, reference, invariant, area):
    path, static_path = study.prepared / "reference.nc", study.prepared / "static.nc"
    folder = study.era5land_directory
    stamps = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(folder.glob("*.nc"))]
    keys = ("domain", "scale_factor", "depth", "study_area")
    key = json.dumps([stamps, study.periods.historical, study.fingerprint(*keys)])
    if path.exists() and static_path.exists():
        with xr.open_dataset(path) as found:
            if found.attrs.get("key") == key:
                return path
    grid = fine_grid(
        study.domain, scale_factor=study.scale_factor, registration=study.registration
    ).drop_vars(["lat_bnds", "lon_bnds"])
    method = study.network.regridding
    theta = regrid(reference, grid, method=method)
    years = [  # a year at a time keeps the memory small
        theta.isel(time=slice(first, first + 12)).compute()
        for first in track(range(0, theta.sizes["time"], 12), "reference")
    ]
    theta = xr.concat(years, "time").rename("theta").assign_attrs(reference.attrs)

    static = xr.Dataset(
        {
            name: regrid(field.compute(), grid, method=method).astype("float32")
            for name, field in invariant.items()
        }
    )
    land = theta.notnull().any("time")
    lat, lon = xr.broadcast(grid["lat"], grid["lon"])
    shapely.prepare(area)
    inside = shapely.contains_xy(area, lon.values, lat.values)
    static["land"] = land.astype("int8").drop_attrs()
    static["study_area"] = static["land"] * inside.astype("int8")
    write_dataset(static.fillna(0), static_path)
    write_dataset(theta.to_dataset().assign_attrs(key=key), path)
    return path
