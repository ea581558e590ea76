"""A small world whose truth is known: a synthetic archive with the look of the real ones.

The truth and the sources are draws from one distribution of soils and climates, each on its own
grid and relief and with weather of its own; :mod:`smcore.world` is their physics. The reference
is the truth with one course of the weather, the truth the mean over many.
"""

import multiprocessing
import os
import shutil
import uuid
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse

from smcore import world
from smcore.defects import DEFECTS, FILL, to_netcdf
from smcore.grids import fine_grid
from smcore.native import STANDARD_GRAVITY
from smcore.progress import track
from smcore.regrid import _edges, _interpolation_matrix, regrid
from smcore.relief import RELIEF, Place, cells_of
from smcore.store import fresh, recipe, sha256, write_table

MARGIN = 8  # degrees around the domain that a subsetting service leaves
GLOBAL = {"Ginkgo"}  # whose files are not cut: one of the coarsest grids
SPIN_UP = 8  # years in which soil and snow forget how they began
PATTERN = 8.0  # degrees; length of the patterns by which sources differ
VERSION = "v20260101"
KEYS = ("sources", "experiments", "periods", "domain", "demo")  # what the archive depends on
PACKED = {"zlib": True, "complevel": 1, "shuffle": True}
ABOUT = {
    "mrsos": {
        "standard_name": "mass_content_of_water_in_soil_layer",
        "long_name": "Moisture in Upper Portion of Soil Column",
        "units": "kg m-2",
        "cell_methods": "area: mean where land time: mean",
    },
    "orog": {"standard_name": "surface_altitude", "units": "m", "cell_methods": "area: mean"},
    "sftlf": {"standard_name": "land_area_fraction", "units": "%", "cell_methods": "area: mean"},
    "swvl1": {"units": "m**3 m**-3", "long_name": "Volumetric soil water layer 1"},
    "lsm": {"units": "(0 - 1)"},
    "z": {"units": "m**2 s**-2", "standard_name": "geopotential"},
}


def make_archive(directory, study, *, seed=0):
    """Write the archive of the demo world.

    Parameters
    ----------
    directory : Path
        New, empty or made by this function; receives ``CMIP6`` (data reference syntax),
        ``ERA5-Land`` and ``truth``. A whole archive that the same code made of the same study and
        seed is left as it is; any other one that this function made is replaced.
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
    listed, unfinished = directory / "demo.csv", directory / "demo.unfinished"
    settings = study.settings(*KEYS) | {"seed": seed}
    made = recipe("demo", settings=settings, inputs=[RELIEF, study.model_table])
    if fresh(listed, made):
        files = pd.read_csv(listed)
        paths = [directory / path for path in files["path"]]
        if all(map(Path.is_file, paths)) and [sha256(path) for path in paths] == [*files["sha256"]]:
            return files
    made_here = listed.exists() or unfinished.exists()
    if directory.exists() and any(directory.iterdir()) and not made_here:
        raise FileExistsError(f"{directory} holds other files: choose another folder")
    directory.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    listed.unlink(missing_ok=True)
    for name in ("CMIP6", "ERA5-Land", "truth"):
        shutil.rmtree(directory / name, ignore_errors=True)

    tasks = ["truth", "reference", *study.sources]  # the longest first
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count(), 4), mp_context=context) as pool:
        futures = [pool.submit(_write, task, directory, study, seed) for task in tasks]
        written = [future.result() for future in track(futures, "demo world")]
    files = pd.DataFrame(chain(*written), columns=["path", "bytes", "sha256"])
    files = files.sort_values("path", ignore_index=True)
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
        weights = sparse.kron(
            *map(_interpolation_matrix, (self.lat, self.lon), axes, ("lat", "lon")), format="csr"
        )[self.land.reshape(-1)]
        used = np.unique(weights.indices)
        self.weights, self.place = weights[:, used], Place(*axes, used)

    def see(self, theta):
        """theta (month, cell) at the points (month, lat, lon), missing over the ocean."""
        fields = np.full((len(theta), *self.land.shape), np.nan, "float32")
        fields[:, self.land] = (self.weights @ theta.T).T
        return fields


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

    Notes
    -----
    The spreads are such that regional means respond as differently as those of CMIP6 models, most
    of all where it is high and cold (``data/world_facts.csv``).
    """

    def around(middle, spread):
        return np.float32(middle * np.exp(spread * normal(())))

    def field(size):
        rows, columns = world.mesh(PATTERN)
        noise = np.asarray(normal((1, rows.size, columns.size)), "float32")
        kernels = (world.kernel(*pair, PATTERN, 360) for pair in zip(place.axes, (rows, columns)))
        return np.asarray(size * world.smooth(noise, *kernels)[0, place.cells], "float32")

    annual, season = world.response(place.lat, place.lon).astype("float32")
    cold = 1 + 5.5 * world.step((place.height - 2500) / 500)
    return world.Traits(
        sensitivity=around(1, 0.22),
        noise=around(0.42, 0.12),
        thirst=around(1, 0.12),
        critical=around(0.7, 0.15),
        runoff=around(0.3, 0.3),
        capacity=around(90, 0.3),
        residual=around(0.04, 0.25),
        porosity=around(0.49, 0.08),
        wetter=field(0.28),
        warmer=field(1.2),
        response=annual + field(0.022 * cold),
        season=season + field(0.018 * cold),
        heating=np.float32(1 + 0.012 * (abs(place.lat) - 30)) * (1 + field(0.10)),
    )


def normals(seed, study, task):
    """Where the numbers of a source, or of the truth, come from: partly those of its kin."""
    if task in study.sources:
        own, common = np.random.default_rng(_seed(seed, "source", task)), study.demo.kinship
        kin = np.random.default_rng(_seed(seed, "kin", study.models.loc[task, "kin"]))
        parts = (np.sqrt(1 - common), own), (np.sqrt(common), kin)
    else:
        size = 0.0 if study.demo.paradigm == "centred" else 1.0
        parts = ((size, np.random.default_rng(_seed(seed, "truth"))),)
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


# --- the files ---------------------------------------------------------------------------


def _write(task, directory, study, seed):
    """Paths, sizes and checksums of the files of the truth, the reference, or one source."""
    writers = {"truth": _write_truth, "reference": _write_reference}
    paths = writers.get(task, _write_source)(task, directory, study, seed)
    for defect in study.demo.defects.get(task, ()):
        DEFECTS[defect](sorted((p for p in paths if "_Lmon_" in p.name), key=lambda p: p.name))
        paths = [*directory.glob(f"CMIP6/*/*/{task}/**/*.nc")]
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
        coords["time"] = _month_starts(study.period(experiment_id))
        dataset = xr.Dataset({"theta": (("time", "cell"), theta, about)}, coords)
        packed = {"dtype": "uint16", "scale_factor": 1e-5, "_FillValue": 65535} | PACKED
        packed["chunksizes"] = (12, place.cells.size)
        to_netcdf(dataset, directory / f"truth/truth_{experiment_id}.nc", {"theta": packed})
    return [*directory.glob("truth/*.nc")]


def _write_reference(_, directory, study, seed):
    points = Points(study)
    traits = draw(normals(seed, study, "truth"), points.place)
    _, theta = next(simulate(points.place, traits, study, "reference", seed=seed))
    axes = {
        "latitude": ("latitude", points.lat, {"units": "degrees_north"}),
        "longitude": ("longitude", points.lon, {"units": "degrees_east"}),
    }
    attributes = {"Conventions": "CF-1.7", "comment": "synthetic, of smcore: not ERA5-Land"}
    packed = PACKED | {"_FillValue": np.float32(np.nan)}

    def write(name, fields, encoding, **coords):
        dims = ("valid_time", "latitude", "longitude")
        fields = {key: (dims[-one.ndim :], one, ABOUT[key]) for key, one in fields.items()}
        dataset = xr.Dataset(fields, axes | coords, attributes)
        to_netcdf(dataset, directory / f"ERA5-Land/demo_{name}.nc", encoding)

    time = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    chunks = {"chunksizes": (1, *points.land.shape)}
    months = _month_starts(study.periods.historical)
    for first in range(0, len(months), 12):
        year = slice(first, first + 12)
        write(
            f"swvl_{months[first]:%Y}",
            {"swvl1": np.round(points.see(theta[year]), 5)},
            {"swvl1": packed | chunks, "valid_time": time},
            valid_time=months[year],
            number=np.int64(0),
            expver=("valid_time", np.full(12, "0001")),
        )
    geopotential = points.elevation * np.float32(STANDARD_GRAVITY)
    fixed = {"lsm": points.land.astype("f4"), "z": geopotential}
    write("invariant", fixed, {"lsm": packed, "z": packed})
    return [*directory.glob("ERA5-Land/*.nc")]


def _month_starts(period):
    return pd.date_range(f"{period[0]}-01", f"{period[1]}-12", freq="MS")


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
    whole = {"orog": place.elevation, "sftlf": 100 * place.land_fraction}
    fixed = [("historical", None, variable_id, field) for variable_id, field in whole.items()]

    def monthly():
        for experiment_id, theta in simulate(place, traits, study, source_id, seed=seed):
            months = _month_starts(study.period(experiment_id))
            # Archives split long runs: the historical one lies in two files.
            half = len(months) // 24 * 12 if experiment_id == "historical" else len(months)
            for part in (slice(half), slice(half, None)):
                if len(months[part]):
                    mrsos = np.round(100 * np.clip(theta[part], 0.005, 0.7), 3)
                    yield experiment_id, months[part], "mrsos", place.on_grid(mrsos)

    mine = directory, study, seed, place, source_id
    return [_write_cmip6(*mine, *one) for one in chain(fixed, monthly())]


def _write_cmip6(
    directory, study, seed, place, source_id, experiment_id, months, variable_id, values
):
    """One file with the name, folders and attributes of the data reference syntax."""
    model, monthly = study.models.loc[source_id], months is not None
    facets = {
        "activity_id": "CMIP" if experiment_id == "historical" else "ScenarioMIP",
        "institution_id": "DEMO",
        "source_id": source_id,
        "experiment_id": experiment_id,
        "variant_label": study.variant_label(source_id, experiment_id),
        "table_id": "Lmon" if monthly else "fx",
        "variable_id": variable_id,
        "grid_label": model["grid_label"],
    }
    order = ("variable_id", "table_id", "source_id", "experiment_id", "variant_label", "grid_label")
    name = [*map(facets.get, order), *([f"{months[0]:%Y%m}-{months[-1]:%Y%m}"] if monthly else [])]
    path = directory.joinpath("CMIP6", *facets.values(), VERSION, "_".join(name) + ".nc")
    key = f"{study.fingerprint(*KEYS)} {seed} {path.name}"
    dataset = xr.Dataset(
        {variable_id: (("time", "lat", "lon")[-values.ndim :], values, ABOUT[variable_id])},
        attrs=facets
        | {
            "Conventions": "CF-1.7 CMIP-6.2",
            "creation_date": "2026-01-01T00:00:00Z",
            "data_specs_version": "01.00.33",
            "frequency": "mon" if monthly else "fx",
            "license": "CC0 1.0: synthetic data of the demo world, not a climate model",
            "mip_era": "CMIP6",
            "realm": "land",
            "tracking_id": f"hdl:21.14100/{uuid.uuid5(uuid.NAMESPACE_URL, key)}",
        },
    )

    def add(axis, points, edges, **about):
        about["bounds"] = f"{axis}_bnds"
        dataset[about["bounds"]] = (axis, "bnds")[-edges.ndim :], edges
        dataset.coords[axis] = (axis,) * np.ndim(points), points, about

    for axis, points, way in zip(("lat", "lon"), place.axes, ("north", "east")):
        edges = _edges(points, limit=90 if axis == "lat" else np.inf)
        add(axis, points, np.stack([edges[:-1], edges[1:]], -1), units=f"degrees_{way}")
    if monthly:
        about = {"units": "days since 1850-01-01", "calendar": model["calendar"]}
        starts = [*months, months[-1] + pd.DateOffset(months=1)]
        dates = [cftime.datetime(d.year, d.month, 1, calendar=model["calendar"]) for d in starts]
        edges = cftime.date2num(dates, *about.values()).astype(float)
        edges = np.stack([edges[:-1], edges[1:]], -1)
        add("time", edges.mean(1), edges, **about)
        add("depth", 0.05, np.array([0.0, 0.1]), units="m", positive="down")
    packed = PACKED | {"_FillValue": FILL, "missing_value": FILL}
    packed |= {"chunksizes": (1, *values.shape[1:])} if monthly else {}
    plain = {variable: {"_FillValue": None} for variable in dataset.variables}
    to_netcdf(dataset, path, plain | {variable_id: packed})
    return path
