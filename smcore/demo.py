"""A small world whose truth is known: a synthetic archive with the look of the real ones.

The truth and the sources are draws from one distribution of soils and climates, each on its own
grid and relief and with weather of its own; :mod:`smcore.world` is their physics. The reference
is the truth with one course of the weather, the truth the mean over many, both at 0.1 degrees.
"""

import json
import multiprocessing
import os
import re
import shutil
import uuid
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse
from scipy.ndimage import gaussian_filter

from smcore import world
from smcore.config import ROOT
from smcore.era5land import STANDARD_GRAVITY
from smcore.grids import fine_grid
from smcore.progress import track
from smcore.regrid import _edges, _interpolation_matrix, regrid
from smcore.store import recipe, replacing, sha256, whole, write_json

RELIEF = ROOT / "data" / "relief.nc"
MARGIN = 6  # degrees around the domain that a subsetting service leaves
GLOBAL = {"Alder"}  # whose files are not cut: the coarsest grid
SPIN_UP = 8  # years in which soil and snow forget how they began
VERSION = "v20260101"
FILL = np.float32(1e20)  # over the ocean
DRS = ("activity_id", "institution_id", "source_id", "experiment_id", "variant_label")
DRS += ("table_id", "variable_id", "grid_label", "version", "file")  # data reference syntax
KEYS = ("sources", "experiments", "periods", "domain", "demo")  # what the archive depends on
PACKED = {"zlib": True, "complevel": 1, "shuffle": True}
REFERENCE, TRUTH = ("reference",), ("truth",)  # what is written beside the sources
VARIABLES = {  # table and attributes
    "mrsos": (
        "Lmon",
        {
            "standard_name": "mass_content_of_water_in_soil_layer",
            "long_name": "Moisture in Upper Portion of Soil Column",
            "units": "kg m-2",
            "cell_methods": "area: mean where land time: mean",
        },
    ),
    "orog": ("fx", {"standard_name": "surface_altitude", "units": "m"}),
    "sftlf": ("fx", {"standard_name": "land_area_fraction", "units": "%"}),
}


def make_archive(directory, study, *, seed=0):
    """Write the archive of the demo world.

    Parameters
    ----------
    directory : Path
        New, empty or made by this function; receives ``CMIP6`` (data reference syntax),
        ``ERA5-Land`` and ``truth``. A whole archive that the same code made of the same study and seed is left as
        it is; any other one that this function made is replaced.
    study : Study
        Its model table, sources, experiments, periods, domain and `demo` switches.
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
    directory = Path(directory)
    manifest, unfinished = directory / "demo.json", directory / "demo.unfinished"
    inputs = [RELIEF, study.model_table]
    made = {"seed": seed} | recipe("demo", settings=study.settings(*KEYS), inputs=inputs)
    made["inputs"] = sorted(made["inputs"].values())
    if whole(manifest):
        found = json.loads(manifest.read_text())
        files = pd.DataFrame(found.pop("files"))
        if found == made and _complete(directory, files):
            return files
    made_here = manifest.exists() or unfinished.exists()
    if directory.exists() and any(directory.iterdir()) and not made_here:
        raise FileExistsError(
            f"{directory} holds files that are not of the demo world: choose another folder"
        )
    directory.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    manifest.unlink(missing_ok=True)
    for name in ("CMIP6", "ERA5-Land", "truth"):
        shutil.rmtree(directory / name, ignore_errors=True)

    # The truth first: it takes longest.
    tasks = [TRUTH, REFERENCE, *(("source", source_id) for source_id in study.sources)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count(), 4), mp_context=context) as pool:
        futures = [pool.submit(_write, task, directory, study, seed) for task in tasks]
        written = [future.result() for future in track(futures, "demo world")]
    files = pd.DataFrame([file for files in written for file in files]).sort_values("path")
    write_json(made | {"files": files.to_dict("records")}, manifest, recipe("demo"))
    unfinished.unlink()
    return files.reset_index(drop=True)


def _complete(directory, files):
    """Whether every file of an archive is there, with the content that was written."""
    return all(
        (directory / file.path).is_file() and sha256(directory / file.path) == file.sha256
        for file in files.itertuples()
    )


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
        ``theta`` (time, lat, lon) in m3 m-3 on the fine grid, missing over the ocean. It has come
        there as the reference does, by the same points of 0.1 degrees and the same regridding.

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
        raise FileNotFoundError(f"{path} is not there: run chapter 01_data_preparation first")
    grid = fine_grid(study.domain, scale_factor=study.scale_factor, registration=study.registration)
    grid = grid.drop_vars(["lat_bnds", "lon_bnds"])
    points = Reference(study)
    parts = []
    with xr.open_dataset(path) as file:
        for _, year in file["theta"].groupby("time.year"):
            coords = {"time": year["time"], "lat": points.lat, "lon": points.lon}
            field = xr.DataArray(points.see(year.values), coords)
            parts.append(regrid(field, grid, method=study.network.regridding))
    theta = xr.concat(parts, "time").rename("theta").assign_attrs(units="m3 m-3")
    return theta.to_dataset()


def _check(study):
    if study.demo is None:
        raise ValueError(f"profile {study.name} has no demo section: it is not of the demo world")


# --- places ------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _globe():
    """Heights (sea: 0) and land at 1/12 degree; at 1 degree what lies around and the fetches."""
    with xr.open_dataset(RELIEF) as file:
        field = file["elevation"].astype("float32").load()
    lat, lon, land = field["lat"].values, field["lon"].values, field.notnull().values
    fine = lat, lon, np.maximum(field.fillna(0).values, 0), land.astype("float32")
    lat, lon = np.arange(-89.5, 90), np.arange(-179.5, 180)
    height, land = _cell_means(fine, lat, lon)
    smooth = [
        gaussian_filter(one, 1.3, mode=("nearest", "wrap"))
        for one in (height, *world.fetch(land, lat))
    ]
    return fine, (lat, lon, smooth)


def _cell_means(fine, lat, lon):
    """Means over the cells of another grid of the fields of a fine one, by area."""

    def overlap(source, target):
        start, end = np.sort([target[:-1], target[1:]], axis=0)[:, :, None]
        common = np.clip(np.minimum(source[1:], end) - np.maximum(source[:-1], start), 0, None)
        return common / (end - start)

    y, x, *fields = fine
    rows = overlap(*(np.sin(np.deg2rad(_edges(axis, limit=90))) for axis in (y, lat)))
    columns = sum(overlap(_edges(x) + turn, _edges(lon)) for turn in (-360, 0, 360))
    rows, columns = (sparse.csr_array(weights.astype("float32")) for weights in (rows, columns))
    return [(columns @ (rows @ field).T).T for field in fields]


class Place:
    """The land cells of a grid and their climate.

    `cells` are the positions in the flat grid for which the physics runs; by default those of
    which more than `least` is land.
    """

    def __init__(self, lat, lon, cells=None, least=0.5):
        self.lat_axis, self.lon_axis = lat, lon
        fine, (y, x, smooth) = _globe()
        self.elevation, self.land_fraction = _cell_means(fine, lat, lon)
        self.cells = np.flatnonzero(self.land_fraction > least) if cells is None else cells
        east = (lon + 180) % 360 - 180
        rows = _interpolation_matrix(np.clip(lat, y[0], y[-1]), y, "lat")
        columns = _interpolation_matrix(np.clip(east, x[0], x[-1]), x, "lon")
        around = [self.at(rows @ field @ columns.T) for field in smooth]
        self.lat, self.lon = map(self.at, np.meshgrid(lat, east, indexing="ij"))
        self.height = self.at(self.elevation)
        self.climate = world.climate(self.lat, self.lon, self.height, *around)

    def at(self, field):
        """The values (cell) of a field (lat, lon)."""
        return field.reshape(-1)[self.cells]

    def on_grid(self, values):
        """A field (..., lat, lon) with these values (..., cell), missing elsewhere."""
        shape = (self.lat_axis.size, self.lon_axis.size)
        field = np.full((*values.shape[:-1], shape[0] * shape[1]), np.nan, "float32")
        field[..., self.cells] = values
        return field.reshape(*values.shape[:-1], *shape)

    def pattern(self, normal, scale):
        """A smooth random field (cell) of unit variance with patterns of some degrees."""
        rows, columns = world.mesh(scale)
        noise = normal((rows.size, columns.size)).astype("float32")
        across = world.kernel(self.lon_axis, columns, scale, 360)
        return self.at(world.kernel(self.lat_axis, rows, scale) @ noise @ across.T)


# --- draws -------------------------------------------------------------------------------


def draw(normal, place):
    """One source, or the truth: its soil, the biases of its climate, its response to warming.

    Parameters
    ----------
    normal : callable
        Gives independent standard normal numbers of a shape.
    place : Place

    Returns
    -------
    world.Traits
    """

    def around(middle, spread):
        return float(middle * np.exp(spread * normal(())))

    annual, season = world.response(place.lat, place.lon, place.height)
    cold = 1 + 5 * world.step((place.height - 2500) / 500)
    return world.Traits(
        sensitivity=around(1, 0.22),
        noise=around(0.42, 0.12),
        thirst=around(1, 0.12),
        critical=around(0.7, 0.15),
        runoff=around(0.3, 0.3),
        capacity=around(90, 0.3),
        residual=around(0.04, 0.25),
        porosity=around(0.49, 0.08),
        wetter=0.28 * place.pattern(normal, 8.0),
        warmer=1.2 * place.pattern(normal, 8.0),
        response=annual + 0.024 * cold * place.pattern(normal, 8.0),
        season=season + 0.020 * cold * place.pattern(normal, 8.0),
        heating=(1 + 0.012 * (abs(place.lat) - 30)) * (1 + 0.10 * place.pattern(normal, 8.0)),
    )


def _normal(seed, study, source_id=None):
    """Where the numbers of a source come from, part of them those of its kin; or of the truth."""
    if source_id is None:
        own = np.random.default_rng([seed, 1])
        middle = study.demo.paradigm == "centred"
        return lambda shape: own.standard_normal(shape) * (not middle)
    own = np.random.default_rng([seed, 2, *source_id.encode()])
    kin = np.random.default_rng([seed, 3, *str(study.models.loc[source_id, "kin"]).encode()])
    common = study.demo.kinship
    return lambda shape: (
        np.sqrt(1 - common) * own.standard_normal(shape)
        + np.sqrt(common) * kin.standard_normal(shape)
    )


def _simulate(place, traits, study, seed, stream, *, signs=(1,)):
    """Yield each experiment and its theta (month, cell); scenarios continue the historical run.

    With several `signs` theta is the mean over the weather and its opposite, in which all that is
    linear in the weather has gone.
    """
    domain, demo = study.domain, study.demo
    box = (domain.south - MARGIN, domain.north + MARGIN, domain.west - MARGIN, domain.east + MARGIN)
    step = abs(place.lat_axis[1] - place.lat_axis[0])
    shares = {stream: 1.0}
    if demo.shared_weather and stream[0] == "source":
        shares = {stream: np.sqrt(1 - demo.shared_weather**2), REFERENCE: demo.shared_weather}
    weathers = {one: world.Weather(box, step, [seed, *_digits(one)]) for one in shares}
    sky = world.Sky(place.lat_axis, place.lon_axis, place.cells, weathers[stream])
    drift = demo.bias_drift if stream[0] == "source" else 0.0
    month, none = np.arange(12), np.zeros(place.cells.size, "float32")

    def run(experiment_id, years, weathers, states):
        for year in years:
            noise = {one: weather.months(12) for one, weather in weathers.items()}
            total = {
                key: sum(shares[one] * noise[one][key] for one in noise) for key in noise[stream]
            }
            wet, hot = sky.see(total)
            now = traits.drifted(1 + drift * (year - 1997) / 100)
            warmth = world.warming(experiment_id, year + (month + 0.5) / 12)
            theta = 0
            for number, sign in enumerate(signs):
                falls = world.forcing(place.climate, now, month, warmth, sign * wet, sign * hot)
                saturation, _, _, states[number] = world.bucket(*falls, now, states[number])
                theta = theta + world.theta(saturation, now) / len(signs)
            yield theta

    first, last = map(int, study.periods.historical)
    states = [(none + 0.4, none)] * len(signs)
    theta = [*run("historical", range(first - SPIN_UP, last + 1), weathers, states)][SPIN_UP:]
    yield "historical", np.concatenate(theta)
    first, last = map(int, study.periods.future)
    for experiment_id in study.experiments:
        branches = {
            one: weather.branch([seed, *_digits(one), *_digits((experiment_id,))])
            for one, weather in weathers.items()
        }
        theta = run(experiment_id, range(first, last + 1), branches, list(states))
        yield experiment_id, np.concatenate([*theta])


def _digits(names):
    """Whole numbers that stand for names, to seed a generator with."""
    return [int.from_bytes(str(name).encode()) for name in names]


# --- the files ---------------------------------------------------------------------------


def _write(task, directory, study, seed):
    """Files of the reference, of the truth, or of one source."""
    writers = {REFERENCE: _write_reference, TRUTH: _write_truth}
    paths = writers.get(task, _write_source)(task, directory, study, seed)
    for defect in study.demo.defects.get(task[-1], ()):
        DEFECTS[defect](
            sorted((p for p in paths if "_fx_" not in p.name), key=lambda path: path.name)
        )
        paths = list(directory.glob(f"CMIP6/*/*/{task[-1]}/**/*.nc"))
    return [
        {
            "path": str(path.relative_to(directory)),
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in paths
    ]


class Reference:
    """The points of the reference, and the cells of the world that they are interpolated from."""

    def __init__(self, study):
        domain, step, size = study.domain, study.demo.reference_resolution, study.demo.resolution
        self.lat = np.round(np.arange(domain.north, domain.south - 1e-6, -step), 6)
        self.lon = np.round(np.arange(domain.west, domain.east + 1e-6, step), 6)
        self.elevation, fraction = _cell_means(_globe()[0], self.lat, self.lon)
        self.land = fraction > 0.5
        edges = (domain.south, domain.north), (domain.west, domain.east)
        lat, lon = (np.arange(low - size / 2, high + size, size) for low, high in edges)
        rows, columns = (
            _interpolation_matrix(fine, coarse, "points")
            for fine, coarse in ((self.lat, lat), (self.lon, lon))
        )
        weights = sparse.kron(sparse.csr_array(rows), sparse.csr_array(columns), "csr")
        weights = weights[self.land.reshape(-1)]
        used = np.unique(weights.indices)
        self.weights, self.place = weights[:, used], Place(lat, lon, used)

    def see(self, theta):
        """theta (month, cell) at the points (month, lat, lon), missing over the ocean."""
        field = np.full((len(theta), *self.land.shape), np.nan, "float32")
        field[:, self.land] = (self.weights @ theta.T).T
        return field


def _write_reference(_, directory, study, seed):
    points = Reference(study)
    traits = draw(_normal(seed, study), points.place)
    _, theta = next(_simulate(points.place, traits, study, seed, REFERENCE))
    months = _month_starts(study.periods.historical)
    axes = {
        "latitude": (
            "latitude",
            points.lat,
            {"units": "degrees_north", "standard_name": "latitude"},
        ),
        "longitude": (
            "longitude",
            points.lon,
            {"units": "degrees_east", "standard_name": "longitude"},
        ),
    }
    attributes = {"Conventions": "CF-1.7", "institution": "demo world of smcore"}
    attributes |= {"comment": "synthetic: not ERA5-Land"}
    packed = PACKED | {"_FillValue": np.float32(np.nan)}
    chunks = {"chunksizes": (1, points.lat.size, points.lon.size)}
    paths = []
    for year in sorted(set(months.year)):
        here = np.flatnonzero(months.year == year)
        swvl1 = np.round(points.see(theta[here]), 4)
        about = {"units": "m**3 m**-3", "long_name": "Volumetric soil water layer 1"}
        dataset = xr.Dataset(
            {"swvl1": (("valid_time", "latitude", "longitude"), swvl1, about)},
            coords={
                "valid_time": months[here],
                "number": np.int64(0),
                "expver": ("valid_time", np.full(here.size, "0001")),
                **axes,
            },
            attrs=attributes,
        )
        time = {"units": "seconds since 1970-01-01", "dtype": "int64"}
        paths.append(directory / "ERA5-Land" / f"demo_swvl_{year}.nc")
        _to_netcdf(dataset, paths[-1], {"swvl1": packed | chunks, "valid_time": time})

    geopotential = points.elevation * np.float32(STANDARD_GRAVITY)
    about = {"units": "m**2 s**-2", "standard_name": "geopotential"}
    invariant = xr.Dataset(
        {
            "lsm": (("latitude", "longitude"), points.land.astype("f4"), {"units": "(0 - 1)"}),
            "z": (("latitude", "longitude"), geopotential, about),
        },
        coords=axes,
        attrs=attributes,
    )
    paths.append(directory / "ERA5-Land" / "demo_invariant.nc")
    _to_netcdf(invariant, paths[-1], {"lsm": packed, "z": packed})
    return paths


def _write_truth(_, directory, study, seed):
    """The mean over the weather, on the cells of the world, a file for each experiment."""
    points, total, pairs = Reference(study), {}, study.demo.draws // 2
    place = points.place
    traits = draw(_normal(seed, study), place)
    for pair in range(pairs):
        runs = _simulate(place, traits, study, seed, (*TRUTH, pair), signs=(1, -1))
        for experiment_id, theta in runs:
            total[experiment_id] = total.get(experiment_id, 0) + theta / pairs
    paths = []
    for experiment_id, theta in total.items():
        about = {
            "units": "m3 m-3",
            "comment": f"synthetic: mean over {2 * pairs} draws of the weather",
        }
        dataset = xr.Dataset(
            {"theta": (("time", "cell"), theta, about)},
            coords={"time": _month_starts(study.period(experiment_id))},
        )
        for name, values in {"lat": place.lat, "lon": place.lon}.items():
            dataset[name] = (
                "cell",
                values,
                {"units": f"degrees_{'north' if name == 'lat' else 'east'}"},
            )
        chunks = {"chunksizes": (12, place.cells.size), "dtype": "uint16", "scale_factor": 1e-5}
        paths.append(directory / "truth" / f"truth_{experiment_id}.nc")
        _to_netcdf(dataset, paths[-1], {"theta": PACKED | chunks | {"_FillValue": 65535}})
    return paths


def _month_starts(period):
    return pd.date_range(f"{period[0]}-01", f"{period[1]}-12", freq="MS")


def _native_axes(model):
    """Latitude and longitude of a source's global grid, in its own order."""
    nlat, nlon = int(model["nlat"]), int(model["nlon"])
    kind = model["latitudes"]
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


def _write_source(task, directory, study, seed):
    source_id, domain, normal = task[-1], study.domain, _normal(seed, study, task[-1])
    lat, lon = _native_axes(study.models.loc[source_id])
    if source_id not in GLOBAL:
        eastward = (lon - domain.west + MARGIN) % 360
        lat = lat[(lat >= domain.south - MARGIN) & (lat <= domain.north + MARGIN)]
        lon = lon[np.argsort(eastward)][
            : np.sum(eastward <= domain.east - domain.west + 2 * MARGIN)
        ]
        lon = np.unwrap(lon, period=360)  # across the seam of the grid
    least = np.clip(0.5 + 0.08 * normal(()), 0.3, 0.7)  # land in a cell that counts as land
    place = Place(lat, lon, least=least)
    traits = draw(normal, place)

    def write(variable_id, values, experiment_id, months=None):
        return _write_cmip6(
            variable_id, values, place, source_id, experiment_id, months, study, directory, seed
        )

    fixed = {"orog": place.elevation, "sftlf": 100 * place.land_fraction}
    paths = [write(variable_id, values, "historical") for variable_id, values in fixed.items()]
    for experiment_id, theta in _simulate(place, traits, study, seed, task):
        mrsos = np.round(100 * np.clip(theta, 0.005, 0.7), 2)
        months = _month_starts(study.period(experiment_id))
        # Archives split long runs: the historical one lies in two files.
        split = len(months) // 24 * 12 if experiment_id == "historical" else 0
        for part in filter(None, (slice(split), slice(split, None)) if split else (slice(None),)):
            values = place.on_grid(mrsos[part])
            paths.append(write("mrsos", values, experiment_id, months[part]))
    return paths


def _write_cmip6(
    variable_id, values, place, source_id, experiment_id, months, study, directory, seed
):
    """One file with the name, folders and attributes of the data reference syntax."""
    model, member = study.models.loc[source_id], study.variant_label(source_id, experiment_id)
    table_id, about = VARIABLES[variable_id]
    facets = {
        "activity_id": "CMIP" if experiment_id == "historical" else "ScenarioMIP",
        "institution_id": "DEMO",
        "source_id": source_id,
        "experiment_id": experiment_id,
        "variant_label": member,
        "table_id": table_id,
        "variable_id": variable_id,
        "grid_label": model["grid_label"],
    }
    name = "_".join(facets[key] for key in (*DRS[6:4:-1], *DRS[2:5], DRS[7]))
    name += "" if months is None else f"_{months[0]:%Y%m}-{months[-1]:%Y%m}"
    path = directory.joinpath("CMIP6", *facets.values(), VERSION, f"{name}.nc")

    def axis_bounds(axis):
        edges = _edges(axis, limit=90 if axis is place.lat_axis else np.inf)
        return np.stack([edges[:-1], edges[1:]], axis=1)

    dims = ("time", "lat", "lon")[-values.ndim :]
    axes = {"lat": (place.lat_axis, "degrees_north"), "lon": (place.lon_axis, "degrees_east")}
    dataset = xr.Dataset(
        {variable_id: (dims, np.where(np.isnan(values), FILL, values.astype("float32")), about)},
        attrs=facets
        | {
            "Conventions": "CF-1.7 CMIP-6.2",
            "creation_date": "2026-01-01T00:00:00Z",
            "data_specs_version": "01.00.33",
            "frequency": "fx" if months is None else "mon",
            "license": "CC0 1.0: synthetic data of the demo world, not a climate model",
            "mip_era": "CMIP6",
            "realm": "land",
        },
    )
    key = f"{study.fingerprint(*KEYS)} {seed} {path.name}"
    dataset.attrs["tracking_id"] = f"hdl:21.14100/{uuid.uuid5(uuid.NAMESPACE_URL, key)}"
    for axis, (points, units) in axes.items():
        dataset[f"{axis}_bnds"] = ((axis, "bnds"), axis_bounds(points))
        dataset.coords[axis] = (axis, points, {"units": units, "bounds": f"{axis}_bnds"})
    if months is not None:
        calendar = model["calendar"]
        units = "days since 1850-01-01"
        starts = [*months, months[-1] + pd.DateOffset(months=1)]
        dates = [cftime.datetime(day.year, day.month, 1, calendar=calendar) for day in starts]
        edges = cftime.date2num(dates, units, calendar).astype(float)
        bounds = np.stack([edges[:-1], edges[1:]], axis=1)
        dataset["time_bnds"] = (("time", "bnds"), bounds)
        time = {"units": units, "calendar": calendar, "bounds": "time_bnds"}
        dataset.coords["time"] = ("time", bounds.mean(axis=1), time)
        dataset["depth_bnds"] = ("bnds", [0.0, 0.1])
        depth = {"units": "m", "positive": "down", "bounds": "depth_bnds"}
        dataset.coords["depth"] = ((), 0.05, depth)
    plain = {variable: {"_FillValue": None} for variable in dataset.variables}
    chunks = {"chunksizes": (1, *values.shape[1:])} if months is not None else {}
    filled = {"_FillValue": FILL, "missing_value": FILL}
    _to_netcdf(dataset, path, plain | {variable_id: PACKED | chunks | filled})
    return path


def _to_netcdf(dataset, path, encoding):
    unlimited = [dim for dim in ("time", "valid_time") if dim in dataset.dims]
    with replacing(path) as part:
        dataset.to_netcdf(part, engine="netcdf4", encoding=encoding, unlimited_dims=unlimited)


# --- defects of real files ---------------------------------------------------------------


def stored(path):
    """The dataset in a file, loaded, with the values as they are stored."""
    return xr.load_dataset(path, engine="netcdf4", decode_times=False, mask_and_scale=False)


def store(dataset, path):
    """Write a dataset whose values are those to be stored."""
    encoding = {}
    for name, variable in dataset.variables.items():
        variable.encoding = {}
        encoding[name] = {} if "_FillValue" in variable.attrs else {"_FillValue": None}
        encoding[name] |= {"zlib": True, "complevel": 1} if variable.ndim == 3 else {}
    _to_netcdf(dataset, path, encoding)


def with_parts(path, **parts):
    """The path of a file with other parts of the data reference syntax."""
    names = dict(zip(DRS, path.parts[-len(DRS) :], strict=True)) | parts
    return Path(*path.parts[: -len(DRS)], *names.values())


def with_span(path, first, last):
    """The path of a file with other months, YYYYMM, in its name."""
    return path.with_name(re.sub(r"\d{6}-\d{6}", f"{first}-{last}", path.name))


def inland(dataset):
    """Position of a cell that is land in every source."""
    lat, lon = abs(dataset["lat"].values - 35), abs(dataset["lon"].values % 360 - 105)
    return lat.argmin(), lon.argmin()


def late_start(paths):
    """The scenarios lack January of their first year, as those of NorESM2 and TaiESM1."""
    for path in paths[2:]:
        first, last = path.stem.split("_")[-1].split("-")
        store(stored(path).isel(time=slice(1, None)), with_span(path, f"{first[:4]}02", last))
        path.unlink()


def overlap(paths, change=lambda year: year):
    """The second historical file repeats the last year of the first, as `change` gives it."""
    first, last = paths[1].stem.split("_")[-1].split("-")
    parts = change(stored(paths[0]).isel(time=slice(-12, None))), stored(paths[1])
    same = {"compat": "override", "coords": "minimal", "join": "override", "data_vars": "minimal"}
    joined = xr.concat(parts, "time", combine_attrs="override", **same)
    store(joined, with_span(paths[1], f"{int(first[:4]) - 1}01", last))
    paths[1].unlink()


def other_institution(paths):
    """Another institution ran the scenarios, as for MPI-ESM1-2-HR."""
    for path in paths[2:]:
        to = with_parts(path, institution_id="OTHER")
        to.parent.mkdir(parents=True)
        path.rename(to)


def above_saturation(paths):
    """A soil that holds more water than it has volume, and a slightly negative value."""
    dataset = stored(paths[-1])
    y, x = inland(dataset)
    dataset["mrsos"][:5, y, x], dataset["mrsos"][6, y, x] = 196.0, -0.002
    store(dataset, paths[-1])


def wrong_depth(paths):
    """Depth bounds of another layer, as in the ACCESS models."""
    for path in paths:
        store(stored(path).assign(depth_bnds=("bnds", [0.0, 0.022])), path)


def older_version(paths):
    """A version that the centre has replaced, with half the water."""
    for path in paths:
        dataset = stored(path)
        half = dataset["mrsos"].where(dataset["mrsos"] == FILL, dataset["mrsos"] / 2)
        store(dataset.assign(mrsos=half), with_parts(path, version="v20190101"))


def undeclared_fill(paths):
    """9.97e36 over the ocean and -9999 on one land cell, and no attribute that says so."""
    dataset = stored(paths[-1])
    values, (y, x) = dataset["mrsos"].values, inland(dataset)
    values[values == FILL], values[:, y, x] = 9.969209968386869e36, -9999
    del dataset["mrsos"].attrs["_FillValue"], dataset["mrsos"].attrs["missing_value"]
    store(dataset, paths[-1])


# Those that a profile may name; each takes the files of one source, two of the historical run and
# then one for each scenario.
DEFECTS = {
    defect.__name__: defect
    for defect in (
        *(late_start, overlap, other_institution, above_saturation),
        *(wrong_depth, older_version, undeclared_fill),
    )
}
