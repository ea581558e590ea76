"""Bilinear regridding of 240 float32 steps: smcore against xarray-regrid, and xESMF if there.

    pip install -r benchmarks/requirements.txt
    python benchmarks/regridding.py

Grids as CMIP6 models and ERA5-Land use them, to 2 degrees and to 0.25 degrees. The programs
take turns in one process; times are medians over the repeats, weights and application together
unless named apart, and the result is a contiguous array. A third of the cells is missing.
Prints tables in Markdown and the largest difference between the programs.
"""

import importlib.util
import time
from functools import partial

import numpy as np
import xarray as xr
import xarray_regrid  # noqa: F401  (the accessor `regrid`)

from smcore.regrid import _weights, regrid

STEPS, REPEATS = 240, 7


def gaussian(rows):
    return np.degrees(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))


SOURCES = {
    "n48": (gaussian(96)[::-1], 1.875 * np.arange(192)),
    "ipsl": (np.linspace(-90, 90, 143), 2.5 * np.arange(144)),
    "cesm": (np.linspace(-90, 90, 192), 1.25 * np.arange(288)),
    "t42": (gaussian(64), 2.8125 * np.arange(128)),
    "era01": (np.round(60 - 0.1 * np.arange(501), 10), np.round(65 + 0.1 * np.arange(801), 10)),
}
TARGETS = {
    "2 deg": (18 + 2.0 * np.arange(18), 71 + 2.0 * np.arange(33)),
    "0.25 deg": (18 + 0.25 * np.arange(144), 71 + 0.25 * np.arange(264)),
}


def field_on(lat, lon):
    y, x = np.deg2rad(lat)[:, None], np.deg2rad(lon)[None, :]
    field = 0.25 + 0.1 * np.cos(2 * y) * np.sin(3 * x) + 0.05 * np.cos(5 * x)
    field = np.where(np.sin(3 * x) * np.cos(2 * y) > 0.3, np.nan, field).astype("float32")
    steps = field * np.linspace(0.9, 1.1, STEPS, dtype="float32")[:, None, None]
    return xr.DataArray(steps, {"lat": lat, "lon": lon}, ("time", "lat", "lon"))


def seconds(call):
    start = time.perf_counter()
    result = np.ascontiguousarray(call().transpose("time", "lat", "lon").values)
    return time.perf_counter() - start, result


def with_new_weights(field, target):
    _weights.cache_clear()
    return regrid(field, target)


def with_xesmf(field, target):
    import xesmf

    grid = field.isel(time=0, drop=True).to_dataset(name="field")
    return xesmf.Regridder(grid, target, "bilinear")


def measure(field, target):
    """Median seconds by program, and the largest difference between them."""
    calls = {
        "smcore": partial(with_new_weights, field, target),
        "application": partial(regrid, field, target),
        "xarray-regrid": partial(field.regrid.linear, target),
    }
    if importlib.util.find_spec("esmpy"):
        regridder = with_xesmf(field, target)
        calls["xESMF"] = lambda: with_xesmf(field, target)(field, skipna=True, na_thres=0.5)
        calls["xESMF application"] = partial(regridder, field, skipna=True, na_thres=0.5)
    times = {name: [] for name in calls}
    for repeat in range(REPEATS + 1):
        results = {}
        for name, call in calls.items():
            taken, results[name] = seconds(call)
            if repeat:  # the first one warms up
                times[name].append(taken)
    difference = np.nanmax(np.abs(results["smcore"] - results["xarray-regrid"]))
    return {name: float(np.median(taken)) for name, taken in times.items()}, difference


def main():
    esmf = importlib.util.find_spec("esmpy") is not None
    names = ["smcore", "xarray-regrid"] + ["xESMF"] * esmf
    print(
        f"Milliseconds, medians of {REPEATS}, {STEPS} steps.\n\n"
        f"| grid | to | smcore | of which weights | of which application | {' | '.join(names[1:])} "
        f"| {' | '.join(f'{name} / smcore' for name in names[1:])} | largest difference |\n"
        f"|---|---|{'---:|' * (2 + 2 * len(names))}"
    )
    for source, axes in SOURCES.items():
        field = field_on(*axes)
        for name, (lat, lon) in TARGETS.items():
            taken, difference = measure(field, xr.Dataset(coords={"lat": lat, "lon": lon}))
            weights = max(taken["smcore"] - taken["application"], 0)
            row = [taken["smcore"], weights, taken["application"]]
            row = [f"{1000 * value:.1f}" for value in row + [taken[other] for other in names[1:]]]
            row += [f"{taken[other] / taken['smcore']:.1f}" for other in names[1:]]
            print(f"| {source} | {name} | {' | '.join(row)} | {difference:.1e} |", flush=True)
    if not esmf:
        print("\nxESMF is not installed here (conda-forge has it): not measured.")


if __name__ == "__main__":
    main()
