"""A small world whose truth is known: a synthetic archive with the look of the real ones.

The truth and the sources are draws from one distribution of soils and climates, each on its own
grid and relief and with weather of its own; :mod:`smcore.world` is their physics. The reference
is the truth with one course of the weather, the truth the mean over many.
"""

import json
import os
import shutil
import uuid
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cftime
import numpy as np
import pandas as pd
import xarray as xr
import yaml
from scipy import sparse

from smcore import world
from smcore.config import ROOT
from smcore.defects import DEFECTS, DRS, FILL, to_netcdf
from smcore.grids import STANDARD_GRAVITY, fine_grid
from smcore.native import month_range
from smcore.progress import track
from smcore.regrid import _edges, _interpolation_matrix, regrid
from smcore.relief import RELIEF, Place, cells_of, on_grid
from smcore.store import fresh, recipe, sha256, write_table

MARGIN = 8  # degrees around the domain that a subsetting service leaves
GLOBAL = {"Ginkgo"}  # whose files are not cut: one of the coarsest grids
SPIN_UP = 8  # years in which soil and snow forget how they began
PATTERN = 8.0  # degrees; length of the patterns by which sources differ
VERSION = "v20260101"
# What the archive depends on.
KEYS = ("sources", "experiments", "periods.historical", "periods.future", "domain", "demo")
PACKED = {"zlib": True, "complevel": 1, "shuffle": True}
WORDS = ROOT / "data" / "demo_files.yml"
ABOUT, CMIP6, ERA5LAND = yaml.safe_load(WORDS.read_text(encoding="utf-8")).values()
# What differs between sources, and the truth: its middle, and the spread of its logarithm
SPREADS = {"sensitivity": (1, 0.22), "noise": (0.42, 0.12), "thirst": (1, 0.12)}
SPREADS |= {"critical": (0.7, 0.15), "runoff": (0.3, 0.3), "capacity": (90, 0.3)}
SPREADS |= {"residual": (0.04, 0.25), "porosity": (0.49, 0.08)}


def make_archive(directory, study, *, seed=0):
    """Write the archive of the demo world.

    Parameters
    ----------
    directory : Path
        New, empty or made by this function; receives ``CMIP6`` (data reference syntax),
        ``ERA5-Land`` and ``truth``. A whole archive that the same code made of the same study and
        seed is left as it is; any other one that this function made is replaced.
    study : Study
        A study with a `demo` section.
    seed : int, default: 0
        Same seed, same files.

    Returns
    -------
    pd.DataFrame
        ``path`` (relative), ``bytes`` and ``sha256`` of every file.

    Raises
    ------
    FileExistsError
        If the directory holds files that this function did not make.
    ValueError
        If the study is not of the demo world.
    """
    _check(study)
    listed, unfinished = directory / "demo.csv", directory / "demo.unfinished"
    settings = study.settings(*KEYS) | {"seed": seed}
    made = recipe("demo", settings=settings, inputs=[RELIEF, WORDS, study.model_table])
    if fresh(listed, made):
        files = pd.read_csv(listed)
        paths = [directory / path for path in files["path"]]
        if all(map(Path.is_file, paths)) and [sha256(path) for path in paths] == [*files["sha256"]]:
            return files
    found = {path.name for path in directory.glob("*")}
    if found and not found & {listed.name, unfinished.name}:
        raise FileExistsError(f"{directory} holds other files: choose another folder")
    directory.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    listed.unlink(missing_ok=True)
    for name in ("CMIP6", "ERA5-Land", "truth"):
        shutil.rmtree(directory / name, ignore_errors=True)

    tasks = ["truth", "reference", *study.sources]  # the longest first
    with ProcessPoolExecutor(min(os.cpu_count(), 4), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_write, task, directory, study, seed) for task in tasks]
        written = sorted(row for one in track(futures, "demo world") for row in one.result())
    files = pd.DataFrame(written, columns=["path", "bytes", "sha256"])
    write_table(files, listed, made, index=False)
    unfinished.unlink()
    return files


def truth(study, experiment_id):
    """What the demo world would have been in the mean over all weather.

    Parameters
    ----------
    study : Study
        A study with a `demo` section, whose archive is there.
    experiment_id : str
        ``historical`` or a scenario.

    Returns
    -------
    xr.Dataset
        ``theta`` (time, lat, lon) in m3 m-3 on the fine grid, missing over the ocean. It comes
        there as the reference does: by points of 0.1 degrees and the regridding of the network.

    Raises
    ------
    ValueError
        If the study is not of the demo world.
    FileNotFoundError
        If its archive has not been made.
    """
    _check(study)
    path = study.era5land_directory.parent / "truth" / f"truth_{experiment_id}.nc"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run chapter 01_data_preparation")
    grid = fine_grid(study.domain, scale_factor=study.scale_factor, registration=study.registration)
    grid, points, parts = grid.drop_vars(["lat_bnds", "lon_bnds"]), Points(study), []
    with xr.open_dataset(path) as file:
        for _, year in file["theta"].groupby("time.year"):
            coords = {"time": year["time"], "lat": points.lat, "lon": points.lon}
            field = xr.DataArray(points.see(year.values), coords)
            parts.append(regrid(field, grid, method=study.network.regridding))
    return xr.concat(parts, "time").rename("theta").assign_attrs(units="m3 m-3").to_dataset()


def _check(study):
    if study.demo is None:
        raise ValueError(f"profile {study.name} has no demo section: it is not of the demo world")


class Points:
    """The points of the reference, and the cells of the world that they are interpolated from."""

    def __init__(self, study):
        domain, step, size = study.domain, study.demo.reference_resolution, study.demo.resolution
        self.lat = np.round(np.arange(domain.north, domain.south - 1e-6, -step), 6)
        self.lon = np.round(np.arange(domain.west, domain.east + 1e-6, step), 6)
        self.elevation, fraction = cells_of(self.lat, self.lon)
        self.land = fraction > 0.5
        ends = (domain.south, domain.north), (domain.west, domain.east)
        axes = [np.arange(low - size / 2, high + size, size) for low, high in ends]
        along = map(_interpolation_matrix, (self.lat, self.lon), axes, ("lat", "lon"))
        weights = sparse.kron(*along, format="csr")[self.land.reshape(-1)]
        used = np.unique(weights.indices)
        self.weights, self.place = weights[:, used], Place(*axes, used)

    def see(self, theta):
        """theta (month, cell) at the points (month, lat, lon), missing over the ocean."""
        return on_grid((self.weights @ theta.T).T, np.flatnonzero(self.land), self.land.shape)


def draw(normal, place):
    """The :class:`world.Traits` of one source, or of the truth, in a :class:`Place`.

    `normal` gives independent standard normal numbers of a shape. The spreads are such that
    regional means respond as differently as those of CMIP6 models, most of all where it is high
    and cold (``data/world_facts.csv``).
    """

    def field(size):
        rows, columns = world.kernels(*place.axes, PATTERN)
        noise = np.asarray(normal((1, rows.shape[1], columns.shape[1])), "float32")
        return np.asarray(size * world.smooth(noise, rows, columns)[0, place.cells], "float32")

    annual, season = world.response(place.lat, place.lon).astype("float32")
    cold = 1 + 5.5 * world.step((place.height - 2500) / 500)
    numbers = {}
    for name, (middle, spread) in SPREADS.items():
        numbers[name] = np.float32(middle * np.exp(spread * normal(())))
    return world.Traits(
        **numbers,
        wetter=field(0.28),
        warmer=field(1.2),
        response=annual + field(0.022 * cold),
        season=season + field(0.018 * cold),
        heating=np.float32(1 + 0.012 * (abs(place.lat) - 30)) * (1 + field(0.10)),
    )


def normals(seed, study, task):
    """Where the numbers of a source, or of the truth, come from: partly those of its kin."""
    if task in study.sources:
        kin, common = study.models.loc[task, "kin"], study.demo.kinship
        shares = {("source", task): 1 - common, ("kin", kin): common}  # of the variance
    else:
        shares = {("truth",): float(study.demo.paradigm != "centred")}
    randoms = [np.random.default_rng(_seed(seed, *names)) for names in shares]
    parts = [*zip(np.sqrt([*shares.values()]), randoms)]
    return lambda shape: sum(part * random.standard_normal(shape) for part, random in parts)


def _seed(seed, *names):
    return [seed, *(int.from_bytes(str(name).encode()) for name in names)]


def simulate(place, traits, study, task, *, seed=0, signs=(1,)):
    """Yield every experiment with its theta (month, cell); scenarios continue the historical run.

    `task` names a source, or is ``reference`` or ``truth`` and a number: each has weather of its
    own. With several `signs`, theta is the mean over the weather and its opposite.
    """
    box = [getattr(study.domain, end) for end in ("south", "north", "west", "east")]
    box, source = np.add(box, [-MARGIN, MARGIN] * 2), task in study.sources
    share = study.demo.shared_weather if source else 0.0
    shares = {task: np.float32(np.sqrt(1 - share**2))}
    shares |= {"reference": np.float32(share)} if share else {}
    here = *place.axes, place.cells, box
    past = {one: world.Weather(*here, _seed(seed, one, "past")) for one in shares}

    def run(experiment_id, years, weathers, states):
        for year in years:
            seen = [[shares[one] * field for field in weathers[one].months(12)] for one in shares]
            rain, heat = map(sum, zip(*seen))
            drift = study.demo.bias_drift * (year - 1997) / 100
            now = traits.drifted(1 + drift) if source and drift else traits
            warmth, theta = world.warming(experiment_id, year + (np.arange(12) + 0.5) / 12), 0
            for number, sign in enumerate(signs):
                falls = world.forcing(place.climate, now, warmth, sign * rain, sign * heat)
                saturation, _, _, states[number] = world.bucket(*falls, now, states[number])
                theta = theta + world.theta(saturation, now) / np.float32(len(signs))
            yield theta

    none = np.zeros(place.cells.size, "float32")
    states, (first, last) = [(none + 0.4, none)] * len(signs), map(int, study.periods.historical)
    years = [*run("historical", range(first - SPIN_UP, last + 1), past, states)]
    yield "historical", np.concatenate(years[SPIN_UP:])
    first, last = map(int, study.periods.future)
    for experiment_id in study.experiments:
        future = {one: past[one].branch(_seed(seed, one, experiment_id)) for one in shares}
        years = run(experiment_id, range(first, last + 1), future, [*states])
        yield experiment_id, np.concatenate([*years])


def _write(task, directory, study, seed):
    """Paths, sizes and checksums of the files of the truth, the reference, or one source."""
    writers = {"truth": _write_truth, "reference": _write_reference}
    writers.get(task, _write_source)(task, directory, study, seed)
    folder = directory / {"truth": "truth", "reference": "ERA5-Land"}.get(task, "CMIP6")
    inner = f"*/*/{task}/**/" if task in study.sources else ""
    for defect in study.demo.defects.get(task, ()):
        DEFECTS[defect](sorted(folder.glob(f"{inner}mrsos*.nc"), key=lambda path: path.name))
    paths = folder.glob(f"{inner}*.nc")
    return [(str(p.relative_to(directory)), p.stat().st_size, sha256(p)) for p in paths]


def _write_truth(_, directory, study, seed):
    """A file for each experiment, on the cells of the world."""
    place, total, pairs = Points(study).place, {}, study.demo.draws // 2
    traits = draw(normals(seed, study, "truth"), place)
    for pair in range(pairs):
        # All that is linear in the weather has gone from the mean of a pair.
        runs = simulate(place, traits, study, f"truth {pair}", seed=seed, signs=(1, -1))
        for experiment_id, theta in runs:
            total[experiment_id] = total.get(experiment_id, 0) + theta / np.float32(pairs)
    for experiment_id, theta in total.items():
        about = {"units": "m3 m-3", "comment": f"synthetic: mean over {2 * pairs} weathers"}
        coords = {"lat": ("cell", place.lat), "lon": ("cell", place.lon)}
        coords["time"] = month_range(study.period(experiment_id))
        dataset = xr.Dataset({"theta": (("time", "cell"), theta, about)}, coords)
        packed = {"dtype": "uint16", "scale_factor": 1e-5, "_FillValue": 65535} | PACKED
        packed["chunksizes"] = (12, place.cells.size)
        to_netcdf(dataset, directory / f"truth/truth_{experiment_id}.nc", {"theta": packed})


def _write_reference(_, directory, study, seed):
    """A file for each year, and one of what does not change."""
    points, months = Points(study), month_range(study.periods.historical)
    traits = draw(normals(seed, study, "truth"), points.place)
    _, theta = next(simulate(points.place, traits, study, "reference", seed=seed))
    folder, dims = directory / "ERA5-Land", ("valid_time", "latitude", "longitude")
    axes = {name: (name, one, ABOUT[name]) for name, one in zip(dims[1:], (points.lat, points.lon))}
    packed = PACKED | {"_FillValue": np.float32(np.nan)}
    encoding = {"swvl1": packed | {"chunksizes": (1, *points.land.shape)}}
    encoding["valid_time"] = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    for year in (slice(first, first + 12) for first in range(0, len(months), 12)):
        swvl1 = dims, np.round(points.see(theta[year]), 5), ABOUT["swvl1"]
        more = {"valid_time": months[year], "number": np.int64(0)}
        more["expver"] = "valid_time", np.full(12, "0001")
        dataset = xr.Dataset({"swvl1": swvl1}, axes | more, ERA5LAND)
        to_netcdf(dataset, folder / f"demo_swvl_{months[year][0]:%Y}.nc", encoding)
    fixed = {"lsm": points.land.astype("f4")}
    fixed["z"] = points.elevation * np.float32(STANDARD_GRAVITY)
    fixed = {name: (dims[1:], field, ABOUT[name]) for name, field in fixed.items()}
    dataset = xr.Dataset(fixed, axes, ERA5LAND)
    to_netcdf(dataset, folder / "demo_invariant.nc", dict.fromkeys(fixed, packed))


def _native_axes(model):
    """Latitude and longitude of a source's global grid, in its own order."""
    nlat, nlon, kind = int(model["nlat"]), int(model["nlon"]), model["latitudes"]
    if "gaussian" in kind:
        lat = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(nlat)[0]))
    elif "poles" in kind:
        lat = np.linspace(-90, 90, nlat)
    else:
        lat = -90 + 180 / nlat * (np.arange(nlat) + 0.5)
    lon = 360 / nlon * np.arange(nlon)
    if model["longitudes"] == "-180..180":
        lon = np.roll((lon + 180) % 360 - 180, nlon // 2)
    return (lat[::-1] if "descending" in kind else lat), lon


def _write_source(source_id, directory, study, seed):
    """Relief and land of its grid, and mrsos of every experiment."""
    domain, normal = study.domain, normals(seed, study, source_id)
    lat, lon = _native_axes(study.models.loc[source_id])
    if source_id not in GLOBAL:
        lat = lat[(lat >= domain.south - MARGIN) & (lat <= domain.north + MARGIN)]
        eastward = (lon - domain.west + MARGIN) % 360
        order = np.argsort(eastward)[: np.sum(eastward <= domain.east - domain.west + 2 * MARGIN)]
        lon = np.unwrap(lon[order], period=360)  # across the seam of the grid
    least = np.clip(0.5 + 0.08 * normal(()), 0.3, 0.7)  # land in a cell that counts as land
    place = Place(lat, lon, least=least)
    traits = draw(normal, place)
    mine = directory, study, seed, source_id, lat, lon
    _write_cmip6(*mine, "historical", "orog", place.elevation)
    _write_cmip6(*mine, "historical", "sftlf", 100 * place.land_fraction)
    for experiment_id, theta in simulate(place, traits, study, source_id, seed=seed):
        months = month_range(study.period(experiment_id))
        # Archives split long runs: the historical one lies in two files.
        half = len(months) // 24 * 12 if experiment_id == "historical" else 0
        for part in (slice(half), slice(half, None)):
            if len(months[part]):
                mrsos = np.round(100 * np.clip(theta[part], 0.005, 0.7), 3)
                mrsos = on_grid(mrsos, place.cells, place.elevation.shape)
                _write_cmip6(*mine, experiment_id, "mrsos", mrsos, months[part])


def _write_cmip6(
    directory, study, seed, source_id, lat, lon, experiment_id, variable_id, values, months=None
):
    """One file with the name, folders and attributes of the data reference syntax."""
    model, monthly = study.models.loc[source_id], months is not None
    table_id, frequency = ("Lmon", "mon") if monthly else ("fx", "fx")
    activity_id = "CMIP" if experiment_id == "historical" else "ScenarioMIP"
    member, grid_label = study.variant_label(source_id, experiment_id), model["grid_label"]
    parts = activity_id, "DEMO", source_id, experiment_id, member, table_id, variable_id, grid_label
    name = [variable_id, table_id, source_id, experiment_id, member, grid_label]
    name += [f"{months[0]:%Y%m}-{months[-1]:%Y%m}"] if monthly else []
    path = directory.joinpath("CMIP6", *parts, VERSION, "_".join(name) + ".nc")
    key = f"{json.dumps(study.settings(*KEYS))} {seed} {path.name}"
    unique = uuid.uuid5(uuid.NAMESPACE_URL, key)
    own = {"frequency": frequency, "tracking_id": f"hdl:21.14100/{unique}"}
    field = ("time", "lat", "lon")[-values.ndim :], values, ABOUT[variable_id]
    dataset = xr.Dataset({variable_id: field}, attrs=dict(zip(DRS, parts)) | CMIP6 | own)

    def add(axis, points, edges, **about):
        dims, about["bounds"] = (axis,) * np.ndim(points), f"{axis}_bnds"
        bounds = np.stack([edges[:-1], edges[1:]], -1).reshape(*np.shape(points), 2)
        dataset[about["bounds"]] = (*dims, "bnds"), bounds
        dataset.coords[axis] = dims, points, about

    add("lat", lat, _edges(lat, limit=90), units="degrees_north")
    add("lon", lon, _edges(lon), units="degrees_east")
    if monthly:
        about = {"units": "days since 1850-01-01", "calendar": model["calendar"]}
        starts = [*months, months[-1] + pd.DateOffset(months=1)]
        dates = [cftime.datetime(d.year, d.month, 1, calendar=model["calendar"]) for d in starts]
        edges = cftime.date2num(dates, *about.values()).astype(float)
        add("time", (edges[:-1] + edges[1:]) / 2, edges, **about)
        add("depth", 0.05, np.array([0.0, 0.1]), units="m", positive="down")
    packed = PACKED | {"_FillValue": FILL, "missing_value": FILL}
    packed |= {"chunksizes": (1, *values.shape[1:])} if monthly else {}
    plain = {variable: {"_FillValue": None} for variable in dataset.variables}
    to_netcdf(dataset, path, plain | {variable_id: packed})
