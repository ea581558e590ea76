"""Time and memory of `prepare` on an archive as large as the real one.

    python benchmarks/preparation.py /somewhere/with/5/GB

makes the archive in that folder (once; minutes), runs every part in a process of its own with
the files in the page cache, and prints a table in Markdown. `--part NAME` runs one part.

The archive has the grids, calendars and members of ``data/cmip6_models.csv``: the 25 sources of
the paper with ``historical`` 1950-2014, one of them with the four scenarios 2015-2100, and a
reference like ERA5-Land at 0.1 degree. The values mean nothing: a season, weather of low rank
and white noise over land, so that they compress as badly as real ones.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cftime
import netCDF4
import numpy as np

from smcore.config import SCENARIOS, Study
from smcore.prepare import prepare
from smcore.relief import cells_of

SCENARIO_SOURCE = "MRI-ESM2-0"  # 320 x 160: of all sources the closest to the mean grid
# The five largest grids, so that the peak of 5 and of 25 sources has the same largest field.
LARGEST = ("EC-Earth3", "EC-Earth3-Veg", "MPI-ESM1-2-HR", "CESM2-WACCM", "CMCC-CM2-SR5")
YEARS_PER_FILE = (65, 50, 25, 20, 10)  # centres split their runs differently
FILL = np.float32(1e20)
RANK = 12  # patterns of weather


def benchmark_study(directory, **overrides):
    """The profile `paper` on the archive of the benchmark."""
    archive = directory / "archive"
    return Study.load(
        "paper",
        directory=str(directory),
        cmip6_directory=str(archive / "CMIP6"),
        era5land_directory=str(archive / "ERA5-Land"),
        **overrides,
    )


# --- the archive -------------------------------------------------------------------------


def native_axes(model):
    """Latitude and longitude of a source's global grid.

    Gaussian latitudes where there are twice as many longitudes as latitudes (spectral models);
    else evenly spaced, with the poles where their number is odd and in the family of CESM.
    FGOALS-g3 is evenly spaced here and irregular in truth; FGOALS-f3-L, whose grid the table
    does not know, gets 288 x 180.
    """
    nlon, nlat = int(model["nlon"] or 288), int(model["nlat"] or 180)
    if nlon == 2 * nlat:
        lat = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(nlat)[0]))
    elif nlat % 2 or model["family"] == "CESM/CLM":
        lat = np.linspace(-90, 90, nlat)
    else:
        lat = -90 + 180 / nlat * (np.arange(nlat) + 0.5)
    return lat, 360 / nlon * np.arange(nlon)


def months_of_theta(months, cells, random):
    """theta(month, cell) in m3 m-3, float32."""
    mean = random.uniform(0.1, 0.35, cells).astype("f4")
    season = random.normal(0, 0.03, cells).astype("f4")
    patterns = random.normal(0, 0.02 / np.sqrt(RANK), (RANK, cells)).astype("f4")
    weather = random.standard_normal((months, RANK), dtype="f4") @ patterns
    theta = random.standard_normal((months, cells), dtype="f4")
    theta *= np.float32(0.01)
    theta += mean + weather
    theta += np.sin(2 * np.pi * np.arange(months) / 12).astype("f4")[:, None] * season
    return np.clip(theta, 0.01, 0.6, out=theta)


def write_source(study, source_id, experiment_id):
    """The files of one run, in the folders of the data reference syntax."""
    model, number = study.models.loc[source_id], study.sources.index(source_id)
    member, grid_label = study.variant_label(source_id, experiment_id), model["grid_label"]
    lat, lon = native_axes(model)
    land = cells_of(lat, lon)[1] > 0.5
    random = np.random.default_rng([number, ("historical", *SCENARIOS).index(experiment_id)])

    activity = "CMIP" if experiment_id == "historical" else "ScenarioMIP"
    facets = [activity, "BENCH", source_id, experiment_id, member, "Lmon", "mrsos", grid_label]
    folder = study.cmip6_directory.joinpath(*facets, "v20260101")
    folder.mkdir(parents=True, exist_ok=True)
    first, last = (int(year) for year in study.period(experiment_id))
    step = YEARS_PER_FILE[number % len(YEARS_PER_FILE)]
    for begin in range(first, last + 1, step):
        end = min(begin + step - 1, last)
        name = f"mrsos_Lmon_{source_id}_{experiment_id}_{member}_{grid_label}"
        path = folder / f"{name}_{begin}01-{end}12.nc"
        mrsos = np.full((12 * (end - begin + 1), *land.shape), FILL)
        mrsos[:, land] = 100 * months_of_theta(len(mrsos), int(land.sum()), random)
        attributes = {
            "Conventions": "CF-1.7 CMIP-6.2",
            "activity_id": activity,
            "experiment_id": experiment_id,
            "frequency": "mon",
            "grid_label": grid_label,
            "institution_id": "BENCH",
            "license": "CC0 1.0: random numbers, not a climate model",
            "mip_era": "CMIP6",
            "realm": "land",
            "source_id": source_id,
            "table_id": "Lmon",
            "tracking_id": f"hdl:21.14100/{uuid.uuid5(uuid.NAMESPACE_URL, path.name)}",
            "variable_id": "mrsos",
            "variant_label": member,
        }
        write_mrsos(path, mrsos, lat, lon, begin, model["calendar"], 1 + number % 4, attributes)


def write_mrsos(path, mrsos, lat, lon, first_year, calendar, level, attributes):
    """One file of a source."""
    starts = [(first_year + m // 12, m % 12 + 1) for m in range(len(mrsos) + 1)]
    dates = [cftime.datetime(*start, 1, calendar=calendar) for start in starts]
    edges = cftime.date2num(dates, "days since 1850-01-01", calendar).astype(float)
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts(attributes)
        file.createDimension("time", None)
        file.createDimension("bnds", 2)
        time_axis = {"units": "days since 1850-01-01", "calendar": calendar, "bounds": "time_bnds"}
        for axis, values, units, cell_edges in [
            ("time", (edges[1:] + edges[:-1]) / 2, time_axis, edges),
            ("lat", lat, {"units": "degrees_north"}, None),
            ("lon", lon, {"units": "degrees_east"}, None),
        ]:
            if axis != "time":
                file.createDimension(axis, values.size)
            file.createVariable(axis, "f8", (axis,))[:] = values
            file[axis].setncatts(units)
            if cell_edges is not None:
                bounds = np.stack([cell_edges[:-1], cell_edges[1:]], axis=1)
                file.createVariable(f"{axis}_bnds", "f8", (axis, "bnds"))[:] = bounds
        write_field(file, "mrsos", ("time", "lat", "lon"), mrsos, level)
        file["mrsos"].setncatts(
            {
                "standard_name": "mass_content_of_water_in_soil_layer",
                "units": "kg m-2",
                "cell_methods": "area: mean where land time: mean",
                "missing_value": FILL,
            }
        )


def write_field(file, name, dimensions, values, level):
    variable = file.createVariable(
        name,
        "f4",
        dimensions,
        fill_value=FILL if name == "mrsos" else np.float32(np.nan),
        compression="zlib",
        complevel=level,
        shuffle=True,
        chunksizes=(1, *values.shape[1:]) if values.ndim == 3 else None,
    )
    variable.set_auto_mask(False)
    variable[:] = values


def write_reference(study):
    """Yearly files and the invariants, as the Climate Data Store hands them out."""
    domain, folder = study.domain, study.era5land_directory
    folder.mkdir(parents=True, exist_ok=True)
    lat = np.round(np.arange(domain.north, domain.south - 0.05, -0.1), 4)
    lon = np.round(np.arange(domain.west, domain.east + 0.05, 0.1), 4)
    land = cells_of(lat, lon)[1] > 0.5

    def create(name):
        file = netCDF4.Dataset(folder / name, "w")
        for axis, values, units in [
            ("latitude", lat, "degrees_north"),
            ("longitude", lon, "degrees_east"),
        ]:
            file.createDimension(axis, values.size)
            file.createVariable(axis, "f8", (axis,))[:] = values
            file[axis].units = units
        return file

    first, last = (int(year) for year in study.periods.historical)
    for year in range(first, last + 1):
        random = np.random.default_rng(year)
        swvl1 = np.full((12, *land.shape), np.nan, "f4")
        # GRIB packs in 16 bits: the noise below that is gone.
        theta = months_of_theta(12, int(land.sum()), random)
        swvl1[:, land] = np.round(theta * 2**17) / np.float32(2**17)
        months = np.arange(f"{year}-01", f"{year + 1}-01", dtype="datetime64[M]")
        with create(f"bench_swvl_{year}.nc") as file:
            file.createDimension("valid_time", None)
            seconds = months.astype("datetime64[s]").astype("int64")
            file.createVariable("valid_time", "i8", ("valid_time",))[:] = seconds
            units = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
            file["valid_time"].setncatts(units)
            write_field(file, "swvl1", ("valid_time", "latitude", "longitude"), swvl1, 1)
            file["swvl1"].units = "m**3 m**-3"
    with create("bench_invariant.nc") as file:
        for name, units, values in [("lsm", "(0 - 1)", land), ("z", "m**2 s**-2", 5000.0 * land)]:
            write_field(file, name, ("latitude", "longitude"), values.astype("f4"), 1)
            file[name].units = units


def make_archive(directory):
    """Write the archive unless it is there; seconds taken and bytes."""
    done = directory / "archive" / "done.json"
    if not done.exists():
        study, start = benchmark_study(directory), time.perf_counter()
        runs = [(source_id, "historical") for source_id in study.sources]
        runs += [(SCENARIO_SOURCE, experiment_id) for experiment_id in SCENARIOS]
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            jobs = [pool.submit(write_reference, study)]
            jobs += [pool.submit(write_source, study, *run) for run in runs]
            for job in jobs:
                job.result()
        files = list((directory / "archive").glob("**/*.nc"))
        size = sum(path.stat().st_size for path in files)
        seconds = time.perf_counter() - start
        done.write_text(json.dumps({"files": len(files), "bytes": size, "seconds": seconds}))
    return json.loads(done.read_text())


# --- the measurement ---------------------------------------------------------------------

PARTS = {  # sources, first year of historical, scenarios
    "25 sources, historical": (None, "1950", ()),
    "5 sources, historical": (LARGEST, "1950", ()),
    "5 sources, historical from 1995": (LARGEST, "1995", ()),
    "1 source, all experiments": ((SCENARIO_SOURCE,), "1950", SCENARIOS),
}


def run(directory, part):
    """`prepare` of one part in this process: seconds and peak memory."""
    sources, first, experiments = PARTS[part]
    study = benchmark_study(directory, sources=sources)
    periods = study.periods.model_copy(update={"historical": (first, "2014")})
    # past the checks of a profile, which wants at least one scenario
    changes = {"directory": directory / "out", "experiments": experiments, "periods": periods}
    study = study.model_copy(update=changes)
    for path in study.prepared.glob("*"):
        path.unlink()
    start = time.perf_counter()
    reports = prepare(study)
    seconds = time.perf_counter() - start
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": seconds,
        "cpu": sum(each.ru_utime + each.ru_stime for each in usage),
        "peak_mib": max(each.ru_maxrss for each in usage) / 1024,
        "months": sum(report.months_found for report in reports),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--part", choices=PARTS)
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    made = make_archive(directory)
    if arguments.part:
        print(json.dumps(run(directory, arguments.part)))
        return

    print(
        f"Archive: {made['files']} files, {made['bytes'] / 2**30:.2f} GiB, "
        f"made in {made['seconds']:.0f} s with two processes.\n"
    )
    for path in (directory / "archive").glob("**/*.nc"):
        path.read_bytes()  # into the page cache
    print("| part | months | wall (s) | CPU (s) | peak RSS (MiB) |\n|---|---:|---:|---:|---:|")
    found = {}
    for part in PARTS:
        command = [sys.executable, __file__, str(directory), "--part", part]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[part] = result = json.loads(output.splitlines()[-1])
        print(
            f"| {part} | {result['months']} | {result['seconds']:.1f} | {result['cpu']:.1f} "
            f"| {result['peak_mib']:.0f} |",
            flush=True,
        )
    # What 20 more sources cost, by grid cell and month, is what the scenarios will cost.
    models = benchmark_study(directory).models
    cells = {name: np.prod([a.size for a in native_axes(row)]) for name, row in models.iterrows()}
    twenty = sum(cells.values()) - sum(cells[name] for name in LARGEST)
    whole, five = (found[f"{count} sources, historical"] for count in (25, 5))
    by_cell = (whole["seconds"] - five["seconds"]) / (twenty * five["months"] / 5)
    months = found["1 source, all experiments"]["months"] - five["months"] / 5
    total = whole["seconds"] + by_cell * sum(cells.values()) * months
    print(f"\nExtrapolated to 25 sources with all experiments: {total / 60:.1f} min.")


if __name__ == "__main__":
    main()
