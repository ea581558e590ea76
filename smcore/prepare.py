"""Native files to the prepared store: theta on the nested grids, ready for the network.

The store holds, for each way of regridding, one file per source and experiment on the coarse
grid (ocean filled from the nearest land), the reference and the static fields on the fine
grid, and ``manifest.json`` with the checksum of each file and the quality reports.
"""

import json
import os
from dataclasses import asdict

import dask
import numpy as np
import shapely
import xarray as xr

from smcore import cmip6, era5land
from smcore.cmip6 import QualityReport
from smcore.config import ROOT
from smcore.grids import coarse_grid, fine_grid, uncovered
from smcore.progress import track
from smcore.regrid import fill_nearest, is_rectilinear, regrid
from smcore.store import fresh, recipe, sha256, write_dataset, write_json, write_table

OPEN_FILES = 2  # each keeps up to 64 MB of chunks in memory


def prepare(study):
    """Write the prepared store of a study.

    Files that a previous call finished from the same input are kept. ``quality.csv`` in the
    store's folder has the table of the reports, whether the archive can be used or not.

    Returns
    -------
    list of QualityReport
        One per source and experiment.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no archive, or it cannot be used: a line for each problem of each file.
    """
    with xr.set_options(file_cache_maxsize=OPEN_FILES):
        return _prepare(study)


def _prepare(study):
    files = cmip6.find_sources(study.cmip6_directory)
    series = [(s, e) for s in study.sources for e in ("historical", *study.experiments)]
    prepared = [_prepare_source(study, files, *pair) for pair in track(series, "sources")]
    reports = [report for report, _ in prepared]
    table = QualityReport.table(reports)
    write_table(table, study.prepared / "quality.csv", recipe("prepare"), index=False)

    problems = [error for report in reports for error in report.errors]
    if problems and files.attrs["ignored"]:
        ignored = ", ".join(files.attrs["ignored"])
        problems.append(f"no monthly mrsos by name or attributes, not used: {ignored}")

    def attempt(read, *arguments, **options):
        try:
            return read(*arguments, **options)
        except (ValueError, FileNotFoundError) as error:
            problems.extend(str(error).splitlines())

    folder, period = study.era5land_directory, study.periods.historical
    reference = attempt(era5land.open_swvl, folder, depth=study.depth, period=period)
    invariant = attempt(era5land.open_invariant, folder)
    for name, field in (("swvl", reference), ("lsm and z", invariant)):
        if field is not None and (outside := uncovered(field, study.domain)):
            problems.append(f"reference, {name}: {outside}")
    area = attempt(lambda: study.outline)
    problems = list(dict.fromkeys(problems))  # a broken file spoils both reads of the reference
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise ValueError(f"the archive of {study.name} has {len(problems)} problem(s):\n{lines}")

    paths = [path for _, path in prepared]
    paths += _prepare_reference(study, reference, invariant, area)
    manifest = {"files": {path.name: sha256(path) for path in paths}}
    manifest["quality"] = [asdict(report) for report in reports]
    write_json(manifest, study.prepared / "manifest.json", recipe("prepare", inputs=paths))
    return reports


def _prepare_source(study, files, source_id, experiment_id):
    """The report of one series, and the path of its file on the coarse grid."""
    path = study.prepared / f"theta_{source_id}_{experiment_id}.nc"
    past = experiment_id == "historical"
    settings = study.settings(
        *("domain", "registration", "network.regridding", "missing_first_month"),
        *(f"versions.{source_id}.{experiment_id}", f"accepted.{source_id}"),
        *(f"periods.{'historical' if past else 'future'}", f"models.{source_id}.grid_label"),
        f"models.{source_id}.{'member_hist' if past else 'member_ssp'}",
    )
    here = files[(files["source_id"] == source_id) & (files["experiment_id"] == experiment_id)]
    # What cannot be read is reported where it is opened.
    inputs = [one for one in here["path"] if one.is_file() and os.access(one, os.R_OK)]
    made = recipe("prepare", settings=settings, inputs=inputs)
    if fresh(path, made):
        with xr.open_dataset(path) as found:
            return QualityReport(**json.loads(found.attrs["quality"])), path

    theta, report = cmip6.read_series(
        files,
        source_id,
        experiment_id,
        variant_label=study.variant_label(source_id, experiment_id),
        grid_label=study.models.loc[source_id, "grid_label"],
        version=study.versions.get(source_id, {}).get(experiment_id),
        period=study.period(experiment_id),
        region=study.domain,
        missing_first_month=study.missing_first_month,
        accepted=study.accepted.get(source_id, ()),
    )
    if theta is None:
        return report, path
    engine, method = "smcore", study.network.regridding
    if not is_rectilinear(theta):  # of these grids only the centres of the cells are known
        engine, method = "xesmf", "bilinear" if theta["lat"].ndim == 2 else "nearest"
    grid = coarse_grid(study.domain, registration=study.registration)
    coarse = regrid(theta, grid, method=method, engine=engine)
    try:
        dataset = fill_nearest(coarse.compute()).to_dataset(name="theta")
    except ValueError as error:
        report.add("missing_values", f"on the coarse grid, {error}")
        return report, path
    dataset["theta"].attrs = {"long_name": "volumetric water content, 0-10cm", "units": "m3 m-3"}
    dataset.attrs = {"quality": json.dumps(asdict(report))}
    write_dataset(dataset, path, made)
    return report, path


def _prepare_reference(study, reference, invariant, area):
    """Paths of the reference and of the static fields on the fine grid."""
    paths = [study.prepared / "reference.nc", study.prepared / "static.nc"]
    settings = study.settings(
        *("domain", "registration", "scale_factor", "depth", "study_area", "periods.historical"),
        "network.regridding",
    )
    inputs = [*era5land.find_files(study.era5land_directory), ROOT / "data" / "countries.geojson"]
    made = recipe("prepare", settings=settings, inputs=inputs)
    if all(fresh(path, made) for path in paths):
        return paths
    registration, method = study.registration, study.network.regridding
    grid = fine_grid(study.domain, scale_factor=study.scale_factor, registration=registration)
    theta = regrid(reference, grid, method=method)
    # Some months at a time keep the memory small; in order, they give the same bytes each time.
    with dask.config.set(scheduler="synchronous"):
        write_dataset(theta.to_dataset(name="theta"), paths[0], made)

    static = invariant.map(lambda field: regrid(field, grid, method=method), keep_attrs=True)
    static = static.astype("float32")
    with xr.open_dataset(paths[0], chunks={"time": 60}) as written:
        land = written["theta"].notnull().any("time").compute()
    shapely.prepare(area)
    inside = shapely.contains_xy(area, *np.meshgrid(grid["lon"], grid["lat"]))
    static["land"] = land.astype("int8").drop_attrs()
    static["study_area"] = static["land"] * inside
    write_dataset(static.fillna(0), paths[1], made)
    return paths
