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
from functools import lru_cache
from pathlib import Path

import cftime
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from scipy.ndimage import gaussian_filter

from smcore.config import ROOT, SCENARIOS
from smcore.grids import STANDARD_GRAVITY, fine_grid
from smcore.progress import track
from smcore.regrid import _interpolation_matrix, regrid
from smcore.store import recipe, replacing, sha256, whole, write_json

WORLD = {"south": -10, "north": 80, "west": 30, "east": 180}  # where this world has land
SUBSET = {"south": 0, "north": 75, "west": 40, "east": 170}  # what a subsetting service cuts
GLOBAL_FILES = {("Alder", "ssp126"), ("Elm", "ssp585")}
# Warming in K: historical since 1850, then by 2100 in each scenario.
WARMING_2014 = 1.0
WARMING_2100 = {"ssp126": 1.8, "ssp245": 2.7, "ssp370": 3.7, "ssp585": 4.5}
MEMORY = 0.75  # lag-1 autocorrelation of monthly weather
WEATHER_LAT = np.arange(-15, 85.1, 2.5)
WEATHER_LON = np.arange(25, 185.1, 2.5)
VERSION = "v20260101"
FILL = np.float32(1e20)  # over the ocean
DRS = ("activity_id", "institution_id", "source_id", "experiment_id", "variant_label")
DRS += ("table_id", "variable_id", "grid_label", "version", "file")  # data reference syntax
KEYS = ("sources", "experiments", "periods", "domain", "demo")  # what the archive depends on


def make_archive(directory, study, *, seed=0):
    """Write the archive of the demo world.

    Parameters
    ----------
    directory : Path
        New, empty or made by this function; receives ``CMIP6`` (data reference syntax) and
        ``ERA5-Land``. A whole archive that the same code made of the same study and seed is left as
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
    inputs = [ROOT / "data" / "land.geojson", study.model_table]
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
    for name in ("CMIP6", "ERA5-Land"):
        shutil.rmtree(directory / name, ignore_errors=True)

    # The reference first: it takes longest.
    tasks = [None, *study.sources]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count(), 4), mp_context=context) as pool:
        futures = [pool.submit(_write, source_id, directory, study, seed) for source_id in tasks]
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
    months = _month_starts(study.period(experiment_id))
    land = np.where(_land(lat, lon), 1, np.nan).astype("float32")
    expected = world["climatology"][months.month - 1] + world["response"][
        months.month - 1
    ] * _warming(experiment_id, months)[:, None, None].astype("float32")
    attributes = {"units": "m3 m-3"}
    return xr.Dataset(
        {
            "theta": (("time", "lat", "lon"), expected * land, attributes),
            "weather_std": (("lat", "lon"), world["weather_std"] * land, attributes),
        },
        coords={"time": months, "lat": grid["lat"], "lon": grid["lon"]},
    )


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
    random, waves = np.random.default_rng(1), 12
    number, direction, phase = random.uniform(
        [2 * np.pi / 2.2, 0, 0], [2 * np.pi / 1.4, np.pi, 2 * np.pi], (waves, 3)
    ).T
    texture = sum(
        np.sin(k * (np.cos(a) * x + np.sin(a) * y) + c)
        for k, a, c in zip(number, direction, phase, strict=True)
    ) / np.sqrt(waves)
    plateau = (
        step((y - 28.5) / 0.8) * step((37.5 - y) / 1.0) * step((x - 76) / 2) * step((103 - x) / 1.5)
    )
    ranges = bump(y, 43, 2.2) * bump(x, 82, 12) + bump(y, 49, 2.5) * bump(x, 92, 7)
    ranges = (
        ranges + 0.6 * bump(y, 26, 4) * bump(x, 103, 6) + 0.4 * bump(y, 52, 4) * bump(x, 112, 14)
    )
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
    weather_std = 0.014 + 0.055 * wet * (1 - wet) + 0.008 * wet
    fields = {
        "elevation": np.maximum(elevation, 0),
        "climatology": np.clip(mean + season, 0.03, 0.5),
        "response": response,
        "weather_std": weather_std,
    }
    return {name: field.astype("float32") for name, field in fields.items()}


@lru_cache(maxsize=1)
def _outline():
    collection = json.loads((ROOT / "data" / "land.geojson").read_text())
    features = collection.get("features", [collection])
    shapes = [shapely.geometry.shape(f.get("geometry", f)) for f in features]
    # Pieces of a few degrees make the test for a point many times faster.
    world = shapely.union_all(shapes)
    boxes = [
        shapely.box(x, y, x + 10, y + 10)
        for x in range(WORLD["west"], WORLD["east"], 10)
        for y in range(WORLD["south"], WORLD["north"], 10)
    ]
    return [(box.bounds, shapely.intersection(world, box)) for box in boxes]


def _land(lat, lon):
    y, x = np.meshgrid(lat, lon, indexing="ij")
    land = np.zeros(y.shape, bool)
    for (west, south, east, north), piece in _outline():
        here = (x >= west) & (x < east) & (y >= south) & (y < north)
        if here.any() and not piece.is_empty:
            shapely.prepare(piece)
            # On the edge of a piece is inside as well: there the next one begins.
            land[here] = shapely.intersects_xy(piece, x[here], y[here])
    return land


def _month_starts(period):
    return pd.date_range(f"{period[0]}-01", f"{period[1]}-12", freq="MS")


def _warming(experiment_id, months):
    """Warming since 1850 in K: quadratic to 2014, then smooth to the scenario's 2100 value."""
    year = months.year.to_numpy() + (months.month.to_numpy() - 0.5) / 12
    past = WARMING_2014 * ((year - 1850) / 165) ** 2
    if experiment_id == "historical":
        return past
    total = WARMING_2100[experiment_id] - WARMING_2014
    progress = (year - 2015) / 86
    slope = 2 * WARMING_2014 / 165 * 86 / total  # continues the historical slope
    return WARMING_2014 + total * (slope * progress + (1 - slope) * progress**2)


class _Weather:
    """Correlated noise with memory, unit variance, on a mesh of 2.5 degrees."""

    def __init__(self, *seed):
        self.random = np.random.default_rng(seed)
        self.state = self._draw(1)[0]

    def _draw(self, count):
        shape = (count, WEATHER_LAT.size, WEATHER_LON.size)
        noise = self.random.standard_normal(shape, dtype="float32")
        smooth = gaussian_filter(noise, (0, 1.6, 1.6), mode="wrap")
        return smooth * np.float32(2 * np.sqrt(np.pi) * 1.6)  # restores unit variance

    def months(self, count):
        fields = np.float32(np.sqrt(1 - MEMORY**2)) * self._draw(count)
        for field in fields:
            field += np.float32(MEMORY) * self.state
            self.state = field
        return fields


def _weather(seed, stream, study):
    """Weather of every experiment, scenarios continuing the historical run."""
    weather = _Weather(seed, stream)
    fields = {"historical": weather.months(len(_month_starts(study.periods.historical)))}
    for number, experiment_id in enumerate(SCENARIOS):
        branch = _Weather(seed, stream, 1 + number)
        branch.state = weather.state
        if experiment_id in study.experiments:
            fields[experiment_id] = branch.months(len(_month_starts(study.periods.future)))
    return fields


def _interpolation(mesh, points):
    """Matrix that interpolates linearly from a mesh to points; beyond its ends, their value."""
    return _interpolation_matrix(np.clip(points, mesh[0], mesh[-1]), mesh, "mesh")


# --- the files ---------------------------------------------------------------------------


def _write(source_id, directory, study, seed):
    """Files of one source, or of the reference where `source_id` is None."""
    write = _write_reference if source_id is None else _write_source
    paths = write(source_id, directory, study, seed)
    for defect in study.demo.defects.get(source_id, ()):
        DEFECTS[defect](sorted(paths, key=lambda path: path.name))
        paths = list(directory.glob(f"CMIP6/*/*/{source_id}/**/*.nc"))
    return [
        {
            "path": str(path.relative_to(directory)),
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in paths
    ]


def _write_reference(_, directory, study, seed):
    domain, step = study.domain, study.demo.reference_resolution
    lat = np.round(
        domain.north - step * np.arange(round((domain.north - domain.south) / step) + 1), 6
    )
    lon = np.round(domain.west + step * np.arange(round((domain.east - domain.west) / step) + 1), 6)
    world, land = _world(lat, lon), _land(lat, lon)
    months = _month_starts(study.periods.historical)
    warming = _warming("historical", months)
    weather = _weather(seed, 0, study)["historical"]
    to_lat, to_lon = _interpolation(WEATHER_LAT, lat), _interpolation(WEATHER_LON, lon)

    axes = {
        "latitude": ("latitude", lat, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("longitude", lon, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    attributes = {
        "Conventions": "CF-1.7",
        "institution": "demo world of smcore",
        "comment": "synthetic: not ERA5-Land",
    }
    compressed = {"zlib": True, "complevel": 1, "shuffle": True, "_FillValue": np.float32(np.nan)}
    folder = directory / "ERA5-Land"
    paths = []
    for year in sorted(set(months.year)):
        here = np.flatnonzero(months.year == year)
        swvl1 = np.stack([to_lat @ weather[i] @ to_lon.T for i in here]) * world["weather_std"]
        swvl1 += world["climatology"][months.month[here] - 1]
        swvl1 += world["response"][months.month[here] - 1] * warming[here, None, None].astype("f4")
        swvl1 = np.where(land, np.round(np.clip(swvl1, 0.005, 0.6), 4), np.float32(np.nan))
        dataset = xr.Dataset(
            {
                "swvl1": (
                    ("valid_time", "latitude", "longitude"),
                    swvl1,
                    {"units": "m**3 m**-3", "long_name": "Volumetric soil water layer 1"},
                )
            },
            coords={
                "valid_time": months[here],
                "number": np.int64(0),
                "expver": ("valid_time", np.full(here.size, "0001")),
                **axes,
            },
            attrs=attributes,
        )
        chunks = {"chunksizes": (1, lat.size, lon.size)}
        time = {"units": "seconds since 1970-01-01", "dtype": "int64"}
        paths.append(folder / f"demo_swvl_{year}.nc")
        _to_netcdf(dataset, paths[-1], {"swvl1": compressed | chunks, "valid_time": time})

    invariant = xr.Dataset(
        {
            "lsm": (("latitude", "longitude"), land.astype("f4"), {"units": "(0 - 1)"}),
            "z": (
                ("latitude", "longitude"),
                world["elevation"] * np.float32(STANDARD_GRAVITY),
                {"units": "m**2 s**-2", "standard_name": "geopotential"},
            ),
        },
        coords=axes,
        attrs=attributes,
    )
    paths.append(folder / "demo_invariant.nc")
    _to_netcdf(invariant, paths[-1], {"lsm": compressed, "z": compressed})
    return paths


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


def _seen(source_id, model, seed, study):
    """The statics of the world as one source sees them, on its global grid."""
    random = np.random.default_rng([seed, 7, study.sources.index(source_id)])
    lat, lon = _native_axes(model)
    target = xr.Dataset(coords={"lat": lat, "lon": lon})
    y = np.arange(WORLD["south"] + 0.125, WORLD["north"], 0.25)
    x = np.arange(WORLD["west"] + 0.125, WORLD["east"], 0.25)
    world = _world(y, x)
    land = _land(y, x)
    coastal = random.uniform(0.3, 0.7)  # land fraction from which a cell counts as land

    def seen(field):
        field = xr.DataArray(
            np.where(land, field, np.float32(np.nan)),
            dims=("month", "lat", "lon")[-field.ndim :],
            coords={"lat": y, "lon": x},
        )
        return regrid(field, target, method="conservative", na_thres=1 - coastal).values

    def pattern():
        weather = _Weather(seed, 11, int(random.integers(1 << 30)))
        field = gaussian_filter(weather.state, 2.0, mode="wrap") * np.float32(1.9)
        return _interpolation(WEATHER_LAT, lat) @ field @ _interpolation(WEATHER_LON, lon % 360).T

    climatology = seen(world["climatology"])
    mean = climatology.mean(axis=0)
    season = climatology - mean
    shift = random.normal(0, 0.8)  # months
    phase = np.fft.rfft(season, axis=0) * np.exp(-2j * np.pi * np.arange(7) * shift / 12).reshape(
        -1, 1, 1
    )
    season = np.fft.irfft(phase, 12, axis=0)
    contrast, swing = random.uniform(0.55, 1.15), random.uniform(0.5, 1.5)
    bias = random.normal(0, 0.03) + 0.035 * pattern()
    return {
        "lat": lat,
        "lon": lon,
        "mean": 0.22 + contrast * (mean - 0.22) + swing * season,  # (month, lat, lon)
        "bias": bias,
        "response": random.uniform(0.5, 1.6) * seen(world["response"]) + 0.0035 * pattern(),
        "weather_std": random.uniform(0.7, 1.4) * seen(world["weather_std"]),
    }


def _write_source(source_id, directory, study, seed):
    model = study.models.loc[source_id]
    seen = _seen(source_id, model, seed, study)
    weather = _weather(seed, 1 + study.sources.index(source_id), study)
    common = _weather(seed, 0, study) if study.demo.shared_weather else weather
    share = np.float32(study.demo.shared_weather)

    paths = []
    for experiment_id in ("historical", *study.experiments):
        months = _month_starts(study.period(experiment_id))
        y, x = np.arange(seen["lat"].size), np.arange(seen["lon"].size)
        if (source_id, experiment_id) not in GLOBAL_FILES:
            lon = seen["lon"] % 360
            y = y[(seen["lat"] >= SUBSET["south"]) & (seen["lat"] <= SUBSET["north"])]
            x = x[(lon >= SUBSET["west"]) & (lon <= SUBSET["east"])]
        cut = np.ix_(range(12), y, x)
        lat, lon = seen["lat"][y], seen["lon"][x]
        to_lat, to_lon = _interpolation(WEATHER_LAT, lat), _interpolation(WEATHER_LON, lon % 360)
        mean, response = seen["mean"][cut], seen["response"][cut]
        bias, std = seen["bias"][np.ix_(y, x)], seen["weather_std"][np.ix_(y, x)]
        warming = _warming(experiment_id, months)
        drift = 1 + study.demo.bias_drift * (months.year.to_numpy() - 1997) / 100
        own = np.sqrt(1 - share**2) * weather[experiment_id] + (
            share * common[experiment_id] if share else 0
        )

        # Archives split long runs: the historical one lies in two files.
        split = {"historical": [0, len(months) // 24 * 12, len(months)]}
        edges = split.get(experiment_id, [0, len(months)])
        for first, last in zip(edges[:-1], edges[1:], strict=True):
            here = np.arange(first, last)
            month = months.month[here] - 1
            theta = mean[month] + response[month] * warming[here, None, None]
            theta += np.stack([to_lat @ own[i] @ to_lon.T for i in here]) * std
            theta += bias * drift[here, None, None]
            mrsos = np.round(100 * np.clip(theta, 0.005, 0.7), 2).astype("float32")
            paths.append(
                _write_mrsos(
                    mrsos, months[here], lat, lon, model, experiment_id, study, directory, seed
                )
            )
    return paths


def _write_mrsos(mrsos, months, lat, lon, model, experiment_id, study, directory, seed):
    """One file with the name, folders and attributes of the data reference syntax."""
    source_id, calendar, grid_label = model.name, model["calendar"], model["grid_label"]
    member = study.variant_label(source_id, experiment_id)
    period = f"{months[0]:%Y%m}-{months[-1]:%Y%m}"
    name = f"mrsos_Lmon_{source_id}_{experiment_id}_{member}_{grid_label}_{period}.nc"
    activity = "CMIP" if experiment_id == "historical" else "ScenarioMIP"
    folder = directory / "CMIP6" / activity / "DEMO" / source_id / experiment_id / member
    folder = folder / "Lmon" / "mrsos" / grid_label / VERSION

    key = f"{study.fingerprint(*KEYS)} {seed} {name}"
    units = "days since 1850-01-01"
    starts = [(m.year, m.month) for m in months]
    starts.append((months[-1].year + months[-1].month // 12, months[-1].month % 12 + 1))
    dates = [cftime.datetime(year, month, 1, calendar=calendar) for year, month in starts]
    edges = cftime.date2num(dates, units, calendar).astype(float)
    bounds = np.stack([edges[:-1], edges[1:]], axis=1)

    def axis_bounds(axis):
        middle = (axis[1:] + axis[:-1]) / 2
        edge = np.concatenate([[2 * axis[0] - middle[0]], middle, [2 * axis[-1] - middle[-1]]])
        return np.stack([edge[:-1], edge[1:]], axis=1)

    dataset = xr.Dataset(
        {
            "mrsos": (
                ("time", "lat", "lon"),
                mrsos,
                {
                    "standard_name": "mass_content_of_water_in_soil_layer",
                    "long_name": "Moisture in Upper Portion of Soil Column",
                    "units": "kg m-2",
                    "cell_methods": "area: mean where land time: mean",
                },
            ),
            "time_bnds": (("time", "bnds"), bounds),
            "lat_bnds": (("lat", "bnds"), axis_bounds(lat)),
            "lon_bnds": (("lon", "bnds"), axis_bounds(lon)),
            "depth_bnds": (("bnds",), [0.0, 0.1]),
        },
        coords={
            "time": (
                "time",
                bounds.mean(axis=1),
                {"units": units, "calendar": calendar, "bounds": "time_bnds"},
            ),
            "lat": ("lat", lat, {"units": "degrees_north", "bounds": "lat_bnds"}),
            "lon": ("lon", lon, {"units": "degrees_east", "bounds": "lon_bnds"}),
            "depth": ((), 0.05, {"units": "m", "positive": "down", "bounds": "depth_bnds"}),
        },
        attrs={
            "Conventions": "CF-1.7 CMIP-6.2",
            "activity_id": activity,
            "creation_date": "2026-01-01T00:00:00Z",
            "data_specs_version": "01.00.33",
            "experiment_id": experiment_id,
            "frequency": "mon",
            "grid_label": grid_label,
            "institution_id": "DEMO",
            "license": "CC0 1.0: synthetic data of the demo world, not a climate model",
            "mip_era": "CMIP6",
            "realm": "land",
            "source_id": source_id,
            "table_id": "Lmon",
            "tracking_id": f"hdl:21.14100/{uuid.uuid5(uuid.NAMESPACE_URL, key)}",
            "variable_id": "mrsos",
            "variant_label": member,
        },
    )
    compressed = {"zlib": True, "complevel": 1, "shuffle": True, "_FillValue": FILL}
    chunks = {"chunksizes": (1, lat.size, lon.size), "missing_value": FILL}
    plain = {variable: {"_FillValue": None} for variable in dataset.variables}
    _to_netcdf(dataset, folder / name, plain | {"mrsos": compressed | chunks})
    return folder / name


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
