"""Native files to the prepared store: theta on the nested grids, ready for the network.

The store holds a file per source and experiment on the coarse grid (ocean filled from the nearest
land), the reference and the static fields on the fine grid, and ``manifest.json`` with checksums
and the quality reports; there is one store for each way of regridding.
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
    files = cmip6.find_sources(study.cmip6_directory)
    pairs = [(s, e) for s in study.sources for e in ("historical", *study.experiments)]
    with xr.set_options(file_cache_maxsize=OPEN_FILES):
        series = [_prepare_source(study, files, *pair) for pair in track(pairs, "sources")]
        reports, paths = map(list, zip(*series, strict=True))
        table = QualityReport.table(reports)
        write_table(table, study.prepared / "quality.csv", recipe("prepare"), index=False)
        problems = [error for report in reports for error in report.errors]
        if problems and files.attrs["ignored"]:
            ignored = ", ".join(files.attrs["ignored"])
            problems.append(f"no monthly mrsos by name or attributes, not used: {ignored}")
        paths += _prepare_reference(study, problems)
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
    coarse = regrid(theta, grid, method=method, engine=engine).compute()
    try:
        dataset = fill_nearest(coarse).to_dataset(name="theta")
    except ValueError as error:
        report.add("missing_values", f"on the coarse grid, {error}")
        return report, path
    dataset["theta"].attrs = {"long_name": "volumetric water content, 0-10cm", "units": "m3 m-3"}
    dataset.attrs = {"quality": json.dumps(asdict(report))}
    write_dataset(dataset, path, made)
    return report, path


def _prepare_reference(study, problems):
    """Paths of the reference and the static fields; ValueError if there are or come `problems`."""
    folder, period, found = study.era5land_directory, study.periods.historical, {}
    readers = {
        "swvl": lambda: era5land.open_swvl(folder, depth=study.depth, period=period),
        "lsm and z": lambda: era5land.open_invariant(folder),
        "outline": lambda: study.outline,
    }
    for name, read in readers.items():
        try:
            found[name] = read()
            if name != "outline" and (outside := uncovered(found[name], study.domain)):
                problems.append(f"reference, {name}: {outside}")
        except (ValueError, FileNotFoundError) as error:
            problems += str(error).splitlines()
    problems = list(dict.fromkeys(problems))  # a broken file spoils both reads of the reference
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise ValueError(f"the archive of {study.name} has {len(problems)} problem(s):\n{lines}")

    reference, invariant, area = found.values()
    paths = [study.prepared / "reference.nc", study.prepared / "static.nc"]
    names = ("domain", "registration", "scale_factor", "depth", "study_area", "periods.historical")
    settings = study.settings(*names, "network.regridding")
    inputs = [*era5land.find_files(folder), ROOT / "data" / "countries.geojson"]
    made = recipe("prepare", settings=settings, inputs=inputs)
    if all(fresh(path, made) for path in paths):
        return paths
    factor, method = study.scale_factor, study.network.regridding
    grid = fine_grid(study.domain, scale_factor=factor, registration=study.registration)
    theta = regrid(reference, grid, method=method)
    # Some months at a time keep the memory small; in order, they give the same bytes each time.
    with dask.config.set(scheduler="synchronous"):
        write_dataset(theta.to_dataset(name="theta"), paths[0], made)

    static = invariant.map(regrid, args=(grid,), method=method, keep_attrs=True).astype("float32")
    with xr.open_dataset(paths[0], chunks={"time": 60}) as written:
        land = written["theta"].notnull().any("time").compute()
    shapely.prepare(area)
    inside = shapely.contains_xy(area, *np.meshgrid(grid["lon"], grid["lat"]))
    static["land"] = land.astype("int8").drop_attrs()
    static["study_area"] = static["land"] * inside
    write_dataset(static.fillna(0), paths[1], made)
    return paths
