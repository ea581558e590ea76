"""A small world whose truth is known: a synthetic archive with the look of the real ones.

The truth is a climate (mean, season, relief), a forced response that grows with the warming
of a scenario, and weather with memory. The reference sees it at 0.1 degrees; each source sees
it through its own grid, bias, contrast, season, sensitivity and its own weather.
"""

import json
import multiprocessing
import os
import re
import shutil
import uuid
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import cftime
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from scipy.ndimage import gaussian_filter

from smcore.config import ROOT, SCENARIOS
from smcore.grids import STANDARD_GRAVITY, fine_grid
from smcore.native import month_range
from smcore.progress import track
from smcore.regrid import _edges, _interpolation_matrix, regrid
from smcore.store import FIELD, fresh, recipe, replacing, sha256, write_json

WORLD = {"south": -10, "north": 80, "west": 30, "east": 180}  # where this world has land
SUBSET = {"south": 0, "north": 75, "west": 40, "east": 170}  # what a subsetting service cuts
GLOBAL_FILES = {("Alder", "ssp126"), ("Elm", "ssp585")}
# Warming in K: historical since 1850, then by 2100 in each scenario.
WARMING_2014 = 1.0
WARMING_2100 = {"ssp126": 1.8, "ssp245": 2.7, "ssp370": 3.7, "ssp585": 4.5}
MEMORY = 0.75  # lag-1 autocorrelation of monthly weather
WEATHER_LAT = np.arange(-15, 85.1, 2.5)
WEATHER_LON = np.arange(25, 185.1, 2.5)
FILL = np.float32(1e20)  # over the ocean
DRS = ("activity_id", "institution_id", "source_id", "experiment_id", "variant_label")
DRS += ("table_id", "variable_id", "grid_label", "version", "file")  # data reference syntax
# What the archive depends on.
KEYS = ("sources", "experiments", "periods.historical", "periods.future", "domain", "demo")

# Attributes: of a file of a source, beside its facets, and its variable; of the reference and its.
SOURCE = {
    "Conventions": "CF-1.7 CMIP-6.2",
    "creation_date": "2026-01-01T00:00:00Z",
    "data_specs_version": "01.00.33",
    "frequency": "mon",
    "license": "CC0 1.0: synthetic data of the demo world, not a climate model",
    "mip_era": "CMIP6",
    "realm": "land",
}
MRSOS = {
    "standard_name": "mass_content_of_water_in_soil_layer",
    "long_name": "Moisture in Upper Portion of Soil Column",
    "units": "kg m-2",
    "cell_methods": "area: mean where land time: mean",
}
REFERENCE = {
    "Conventions": "CF-1.7",
    "institution": "demo world of smcore",
    "comment": "synthetic: not ERA5-Land",
}
SWVL1 = {"units": "m**3 m**-3", "long_name": "Volumetric soil water layer 1"}


def make_archive(directory, study, *, seed=0):
    """Write the archive of the demo world.

    Parameters
    ----------
    directory : Path
        New, empty or made by this function; receives ``CMIP6`` and ``ERA5-Land``. A whole archive
        that the same code made of the same study and seed is left as it is, any other replaced.
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
    manifest = directory / "demo.json"
    inputs = [ROOT / "data" / "land.geojson", study.model_table]
    made = recipe("demo", settings=study.settings(*KEYS) | {"seed": seed}, inputs=inputs)
    if fresh(manifest, made):
        files = pd.DataFrame(json.loads(manifest.read_text()))
        paths = [directory / path for path in files["path"]]
        if all(path.is_file() for path in paths) and [*map(sha256, paths)] == [*files["sha256"]]:
            return files
    if any(directory.glob("*")) and not manifest.exists():
        text = "holds files that are not of the demo world: choose another folder"
        raise FileExistsError(f"{directory} {text}")
    directory.mkdir(parents=True, exist_ok=True)
    manifest.write_text("")  # the folder is ours, and what it holds is not finished
    archives = [directory / name for name in ("CMIP6", "ERA5-Land")]
    for archive in archives:
        shutil.rmtree(archive, ignore_errors=True)

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count(), 4), mp_context=context) as pool:
        tasks = [pool.submit(_write_reference, directory, study, seed)]  # it takes longest
        tasks += [pool.submit(_write_source, one, directory, study, seed) for one in study.sources]
        for task in track(tasks, "demo world"):
            task.result()
    paths = sorted(path for archive in archives for path in archive.rglob("*.nc"))
    rows = [(str(path.relative_to(directory)), path.stat().st_size, sha256(path)) for path in paths]
    files = pd.DataFrame(rows, columns=["path", "bytes", "sha256"])
    write_json(files.to_dict("records"), manifest, made)
    return files


def truth(study, experiment_id):
    """What the demo world would have been without weather.

    Parameters
    ----------
    study : Study
        A study with a `demo` section.
    experiment_id : str
        ``historical`` or a scenario.

    Returns
    -------
    xr.Dataset
        On the fine grid: ``theta`` (time, lat, lon), the climate with its forced change, and
        ``weather_std`` (lat, lon), both in m3 m-3; missing over the ocean.

    Raises
    ------
    ValueError
        If the study is not of the demo world.
    """
    _check(study)
    grid = fine_grid(study.domain, scale_factor=study.scale_factor, registration=study.registration)
    lat, lon = grid["lat"].values, grid["lon"].values
    world = _world(lat, lon)
    months = month_range(study.period(experiment_id))
    month = months.month - 1
    land = np.where(_land(lat, lon), 1, np.nan).astype("float32")
    change = world["response"][month] * _warming(experiment_id, months).astype("float32")
    theta = (world["climatology"][month] + change) * land
    fields = {
        "theta": (("time", "lat", "lon"), theta, {"units": "m3 m-3"}),
        "weather_std": (("lat", "lon"), world["weather_std"] * land, {"units": "m3 m-3"}),
    }
    return xr.Dataset(fields, {"time": months, "lat": grid["lat"], "lon": grid["lon"]})


def _check(study):
    if study.demo is None:
        raise ValueError(f"profile {study.name} has no demo section: it is not of the demo world")


# --- the world ---------------------------------------------------------------------------


def _world(lat, lon):
    """Elevation, climatology, response per K and weather at points; float32, NaN nowhere."""
    y, x = np.meshgrid(lat, lon, indexing="ij")

    def step(value):
        return 1 / (1 + np.exp(-value))

    def bump(value, centre, width):
        return np.exp(-(((value - centre) / width) ** 2))

    # Ridges and valleys of 1.4 to 2.2 degrees, which a grid of 2 degrees cannot see.
    low, high = (2 * np.pi / 2.2, 0, 0), (2 * np.pi / 1.4, np.pi, 2 * np.pi)
    waves = np.random.default_rng(1).uniform(low, high, (12, 3))
    number, direction, phase = waves.T[:, :, None, None]
    distance = np.cos(direction) * x + np.sin(direction) * y
    texture = np.sin(number * distance + phase).sum(axis=0) / np.sqrt(12)
    plateau = step((y - 28.5) / 0.8) * step(37.5 - y) * step((x - 76) / 2) * step((103 - x) / 1.5)
    ranges = bump(y, 43, 2.2) * bump(x, 82, 12) + bump(y, 49, 2.5) * bump(x, 92, 7)
    ranges += 0.6 * bump(y, 26, 4) * bump(x, 103, 6)
    ranges += 0.4 * bump(y, 52, 4) * bump(x, 112, 14)
    rough = np.clip(0.15 + 0.6 * plateau + 0.8 * ranges, 0, 1)
    elevation = 150 + 4300 * plateau + 1900 * ranges + 1000 * rough * texture

    east = step((x - 104) / 8 - (y - 36) / 5)
    monsoon = np.maximum(east, 0.9 * step((29 - y) / 1.2) * step((x - 66) / 3))
    boreal = 0.9 * step((y - 51) / 2.5)
    wet = 1 - (1 - monsoon) * (1 - boreal) * (1 - 0.25 * plateau)
    mean = 0.08 + 0.27 * wet + (0.005 + 0.06 * rough) * texture

    month = np.arange(1, 13)[:, None, None]
    summer = np.cos(2 * np.pi * (month - 7.7) / 12)
    spring = np.cos(2 * np.pi * (month - 3.5) / 12)
    season = 0.055 * monsoon * step((42 - y) / 4) * summer + 0.03 * (1 - monsoon) * spring
    season = season + 0.02 * monsoon * step((y - 38) / 4) * (summer - 0.5 * spring)

    south = bump(y, 29, 5) * step((x - 98) / 3)
    north = bump(y, 44, 6) * step((x - 100) / 4)
    west = step((97 - x) / 3) * bump(y, 41, 6)
    response = -0.0060 * south + 0.0045 * north + 0.0025 * west - 0.004 * boreal
    response = response + 0.006 * rough * texture - 0.002 * plateau
    response = response + 0.0050 * (north + 0.5 * south) * summer - 0.0045 * west * spring
    # Dry soil has little to lose.
    response *= 1.5 * np.clip((mean + season - 0.03) / 0.12, 0.1, 1)
    fields = {
        "elevation": np.maximum(elevation, 0),
        "climatology": np.clip(mean + season, 0.03, 0.5),
        "response": response,
        "weather_std": 0.014 + 0.055 * wet * (1 - wet) + 0.008 * wet,
    }
    return {name: field.astype("float32") for name, field in fields.items()}


def _land(lat, lon):
    """Whether points lie on land, (lat, lon)."""
    world = shapely.from_geojson((ROOT / "data" / "land.geojson").read_text()).geoms[0]
    shapely.prepare(world)
    return shapely.intersects_xy(world, *np.meshgrid(lon, lat))


def _warming(experiment_id, months):
    """Warming since 1850 in K, (time, 1, 1): quadratic to 2014, then smooth to the 2100 value."""
    year = (months.year.to_numpy() + (months.month.to_numpy() - 0.5) / 12)[:, None, None]
    if experiment_id == "historical":
        return WARMING_2014 * ((year - 1850) / 165) ** 2
    total = WARMING_2100[experiment_id] - WARMING_2014
    progress = (year - 2015) / 86
    slope = 2 * WARMING_2014 / 165 * 86 / total  # continues the historical slope
    return WARMING_2014 + total * (slope * progress + (1 - slope) * progress**2)


def _noise(count, *seed):
    """Smooth fields of unit variance (count, lat, lon) on the mesh of the weather."""
    shape = (count, WEATHER_LAT.size, WEATHER_LON.size)
    noise = np.random.default_rng(seed).standard_normal(shape, dtype="float32")
    smooth = gaussian_filter(noise, (0, 1.6, 1.6), mode="wrap")
    return smooth * np.float32(2 * np.sqrt(np.pi) * 1.6)  # restores unit variance


def _weather(seed, stream, study):
    """Noise with memory (time, lat, lon) by experiment; scenarios continue the historical run."""
    weather = {}
    for number, experiment_id in enumerate(("historical", *SCENARIOS)):
        if experiment_id in ("historical", *study.experiments):
            months = month_range(study.period(experiment_id))
            fields = _noise(1 + months.size, seed, stream, number)
            if number:
                fields[0] = weather["historical"][-1]
            fields[1:] *= (1 - MEMORY**2) ** 0.5
            for before, field in pairwise(fields):
                field += MEMORY * before
            weather[experiment_id] = fields[1:]
    return weather


def _at_points(fields, lat, lon):
    """Fields on the mesh of the weather, linearly interpolated; beyond its ends, their value."""
    to_lat, to_lon = (
        _interpolation_matrix(np.clip(points, mesh[0], mesh[-1]), mesh, "mesh")
        for points, mesh in ((lat, WEATHER_LAT), (lon % 360, WEATHER_LON))
    )
    return to_lat @ fields @ to_lon.T


# --- the files ---------------------------------------------------------------------------


def _write_reference(directory, study, seed):
    """Files of the reference: one a year, and one with land and geopotential."""
    domain, step = study.domain, study.demo.reference_resolution
    height, width = domain.north - domain.south, domain.east - domain.west
    lat = np.round(domain.north - step * np.arange(round(height / step) + 1), 6)
    lon = np.round(domain.west + step * np.arange(round(width / step) + 1), 6)
    world, land = _world(lat, lon), _land(lat, lon)
    weather = _weather(seed, 0, study)["historical"]

    dims = ("latitude", "longitude")
    axes = {
        "latitude": ("latitude", lat, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("longitude", lon, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    compressed = FIELD | {"_FillValue": np.float32(np.nan)}
    encoding = {
        "swvl1": compressed | {"chunksizes": (1, lat.size, lon.size)},
        "valid_time": {"units": "seconds since 1970-01-01", "dtype": "int64"},
    }
    months = month_range(study.periods.historical)
    for year in months.year.unique():
        here = months.year == year
        swvl1 = _at_points(weather[here], lat, lon) * world["weather_std"]
        swvl1 += world["climatology"]
        swvl1 += world["response"] * _warming("historical", months[here]).astype("f4")
        swvl1 = np.where(land, np.round(np.clip(swvl1, 0.005, 0.6), 4), np.float32(np.nan))
        expver = ("valid_time", np.full(12, "0001"))
        coords = {"valid_time": months[here], "number": np.int64(0), "expver": expver} | axes
        dataset = xr.Dataset({"swvl1": (("valid_time", *dims), swvl1, SWVL1)}, coords, REFERENCE)
        _to_netcdf(dataset, directory / "ERA5-Land" / f"demo_swvl_{year}.nc", encoding)

    z = world["elevation"] * np.float32(STANDARD_GRAVITY)
    fields = {
        "lsm": (dims, land.astype("f4"), {"units": "(0 - 1)"}),
        "z": (dims, z, {"units": "m**2 s**-2", "standard_name": "geopotential"}),
    }
    invariant, encoding = xr.Dataset(fields, axes, REFERENCE), dict.fromkeys(fields, compressed)
    _to_netcdf(invariant, directory / "ERA5-Land" / "demo_invariant.nc", encoding)


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


def _seen(source_id, study, seed):
    """The statics of the world as one source sees them, an xr.Dataset on its global grid."""
    random = np.random.default_rng([seed, 7, study.sources.index(source_id)])
    lat, lon = _native_axes(study.models.loc[source_id])
    y = np.arange(WORLD["south"] + 0.125, WORLD["north"], 0.25)
    x = np.arange(WORLD["west"] + 0.125, WORLD["east"], 0.25)
    world, land = _world(y, x), _land(y, x)
    dims, target = ("month", "lat", "lon"), xr.Dataset(coords={"lat": lat, "lon": lon})
    coastal = random.uniform(0.3, 0.7)  # land fraction from which a cell counts as land

    def seen(name):
        field = np.where(land, world[name], np.float32(np.nan))
        field = xr.DataArray(field, {"lat": y, "lon": x}, dims[-field.ndim :])
        return regrid(field, target, method="conservative", na_thres=1 - coastal).values

    def pattern():
        noise = _noise(1, seed, 11, int(random.integers(1 << 30)))[0]
        return _at_points(gaussian_filter(noise, 2.0, mode="wrap") * np.float32(1.9), lat, lon)

    climatology = seen("climatology")
    mean = climatology.mean(axis=0)
    shift = random.normal(0, 0.8)  # months
    turn = np.exp(-2j * np.pi * np.arange(7) * shift / 12)[:, None, None]
    season = np.fft.irfft(np.fft.rfft(climatology - mean, axis=0) * turn, 12, axis=0)
    contrast, swing = random.uniform(0.55, 1.15), random.uniform(0.5, 1.5)
    fields = {
        "mean": 0.22 + contrast * (mean - 0.22) + swing * season,
        "bias": random.normal(0, 0.03) + 0.035 * pattern(),
        "response": random.uniform(0.5, 1.6) * seen("response") + 0.0035 * pattern(),
        "weather_std": random.uniform(0.7, 1.4) * seen("weather_std"),
    }
    return target.assign({name: (dims[-field.ndim :], field) for name, field in fields.items()})


def _write_source(source_id, directory, study, seed):
    """Files of one source: two of the historical run, and one of each scenario."""
    seen = _seen(source_id, study, seed)
    lat, lon = seen["lat"], seen["lon"] % 360
    rows = (lat >= SUBSET["south"]) & (lat <= SUBSET["north"])
    subset = seen.isel(lat=rows, lon=(lon >= SUBSET["west"]) & (lon <= SUBSET["east"]))
    share = np.float32(study.demo.shared_weather)
    weather = _weather(seed, 1 + study.sources.index(source_id), study)
    common = _weather(seed, 0, study) if share else weather

    for experiment_id in ("historical", *study.experiments):
        local = seen if (source_id, experiment_id) in GLOBAL_FILES else subset
        statics = {name: variable.values for name, variable in local.variables.items()}
        own = np.sqrt(1 - share**2) * weather[experiment_id] + share * common[experiment_id]
        months = month_range(study.period(experiment_id))
        # Archives split long runs: the historical one lies in two files.
        cut = [len(months) // 24 * 12] if experiment_id == "historical" else []
        for here in np.split(np.arange(len(months)), cut):
            month, year = months.month[here] - 1, months.year[here].to_numpy()[:, None, None]
            warming = _warming(experiment_id, months[here])
            theta = statics["mean"][month] + statics["response"][month] * warming
            theta += _at_points(own[here], statics["lat"], statics["lon"]) * statics["weather_std"]
            theta += statics["bias"] * (1 + study.demo.bias_drift * (year - 1997) / 100)
            mrsos = np.round(100 * np.clip(theta, 0.005, 0.7), 2).astype("float32")
            coords = [months[here], local["lat"], local["lon"]]
            mrsos = xr.DataArray(mrsos, coords, ("time", "lat", "lon"))
            _write_mrsos(mrsos, source_id, experiment_id, directory, study, seed)

    for defect in study.demo.defects.get(source_id, ()):
        paths = directory.glob(f"CMIP6/*/*/{source_id}/**/*.nc")
        DEFECTS[defect](sorted(paths, key=lambda path: path.name))


def _write_mrsos(mrsos, source_id, experiment_id, directory, study, seed):
    """Write one file with the name, folders and attributes of the data reference syntax."""
    months, lat, lon = (mrsos.indexes[axis] for axis in mrsos.dims)
    model, member = study.models.loc[source_id], study.variant_label(source_id, experiment_id)
    calendar, grid_label = model["calendar"], model["grid_label"]
    period = f"{months[0]:%Y%m}-{months[-1]:%Y%m}"
    name = f"mrsos_Lmon_{source_id}_{experiment_id}_{member}_{grid_label}_{period}.nc"
    activity = "CMIP" if experiment_id == "historical" else "ScenarioMIP"
    path = directory / "CMIP6" / activity / "DEMO" / source_id / experiment_id / member
    path = path / "Lmon" / "mrsos" / grid_label / "v20260101" / name
    facets = dict(zip(DRS[:-2], path.parts[-len(DRS) : -2], strict=True))
    key = f"{json.dumps(study.settings(*KEYS))} {seed} {name}"
    facets["tracking_id"] = f"hdl:21.14100/{uuid.uuid5(uuid.NAMESPACE_URL, key)}"

    time = {"units": "days since 1850-01-01", "calendar": calendar, "bounds": "time_bnds"}
    span = {"start": str(months[0]), "periods": 1 + months.size, "freq": "MS"}
    starts = xr.date_range(**span, calendar=calendar, use_cftime=True)
    days = cftime.date2num(starts, time["units"], calendar).astype(float)
    edges = {"time": days, "lat": _edges(lat), "lon": _edges(lon)}
    bounds = {axis: np.stack([edge[:-1], edge[1:]], axis=1) for axis, edge in edges.items()}
    dataset = xr.Dataset(
        {"mrsos": (mrsos.dims, mrsos.values, MRSOS)}
        | {f"{axis}_bnds": ((axis, "bnds"), bounds[axis]) for axis in bounds}
        | {"depth_bnds": ("bnds", [0.0, 0.1])},
        coords={
            "time": ("time", bounds["time"].mean(axis=1), time),
            "lat": ("lat", lat, {"units": "degrees_north", "bounds": "lat_bnds"}),
            "lon": ("lon", lon, {"units": "degrees_east", "bounds": "lon_bnds"}),
            "depth": ((), 0.05, {"units": "m", "positive": "down", "bounds": "depth_bnds"}),
        },
        attrs=dict(sorted((SOURCE | facets).items())),
    )
    encoding = {variable: {"_FillValue": None} for variable in dataset.variables}
    chunks = {"chunksizes": (1, lat.size, lon.size)}
    encoding["mrsos"] = FIELD | {"_FillValue": FILL, "missing_value": FILL} | chunks
    _to_netcdf(dataset, path, encoding)


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
    dataset, encoding = dataset.drop_encoding(), {}
    for name, variable in dataset.variables.items():
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
DEFECTS = [late_start, overlap, other_institution, above_saturation, wrong_depth]
DEFECTS += [older_version, undeclared_fill]
DEFECTS = {defect.__name__: defect for defect in DEFECTS}
