"""Time and memory of the baselines at the paper's size.

    python benchmarks/baselines.py

25 sources and 780 months, 18 x 33 to 144 x 264, random values on all cells. Each baseline runs
in a process of its own; the first row, with no baseline, is what the inputs and libraries take.
`--baseline NAME` runs one of them.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import xarray as xr

from smcore import baselines
from smcore.grids import coarse_grid, fine_grid

SOURCES = 25
TIME = pd.date_range("1950-01", "2014-12", freq="MS")
TRAIN, VALIDATION = ("1950", "1999"), ("2000", "2007")
NAMES = (
    "none",
    "ensemble_mean",
    "bias_removed",
    "climatology",
    "delta_change",
    "mean_variance_scaling",
    "quantile_delta_mapping",
    "ridge",
)


def random_theta(grid, random, source_id):
    """theta(source_id, time, lat, lon) in m3 m-3, float32."""
    shape = (len(source_id), TIME.size, grid.sizes["lat"], grid.sizes["lon"])
    coords = {"source_id": source_id, "time": TIME, "lat": grid["lat"], "lon": grid["lon"]}
    values = random.random(shape, dtype="float32")
    return xr.DataArray(values, coords, tuple(coords), attrs={"units": "m3 m-3"})


def run(name):
    """One baseline in this process: seconds and peak memory."""
    random = np.random.default_rng(0)
    predictors = random_theta(coarse_grid(), random, [f"source {n}" for n in range(SOURCES)])
    reference = random_theta(fine_grid(), random, ["reference"]).isel(source_id=0, drop=True)
    start = time.perf_counter()
    if name != "none":
        options = {"validation_period": VALIDATION} if name == "ridge" else {}
        getattr(baselines, name)(predictors, reference, train_period=TRAIN, **options)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mib": peak}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baseline", choices=NAMES)
    name = parser.parse_args().baseline
    if name:
        print(json.dumps(run(name)))
        return

    print("| baseline | wall (s) | peak RSS (MiB) |\n|---|---:|---:|")
    for name in NAMES:
        command = [sys.executable, __file__, "--baseline", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        result = json.loads(output.splitlines()[-1])
        print(f"| {name} | {result['seconds']:.1f} | {result['peak_mib']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
