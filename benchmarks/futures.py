"""Cost of the maps of chapters 5, 6 and 10: slopes and tests of a product and of its sources.

    python benchmarks/futures.py

Random months of 86 years. Cells are those of a product on the fine grid, sources are all on the
coarse grid; both in three sizes. Slope and test of the annual index, `smcore.trends.trend`; the
last row has the 20 fields of chapters 5 and 6, four scenarios by the year and the four seasons, on
the paper's grid. Every row runs in a process of its own; the import of Python's libraries is part
of its peak memory. Beside the wall time stands that of the processors, which other jobs on the
machine change less.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import xarray as xr

from smcore.seasons import annual_mean, seasonal_mean
from smcore.trends import trend

PERIOD = ("2015", "2100")
COARSE, FINE = (18, 33), (144, 264)
# name: sources, rows, columns, scenarios and means
CASES = {
    "product, a quarter": (1, FINE[0] // 2, FINE[1] // 2, 1, [annual_mean]),
    "product, half": (1, FINE[0] // 2, FINE[1], 1, [annual_mean]),
    "product": (1, *FINE, 1, [annual_mean]),
    "8 sources": (8, *COARSE, 1, [annual_mean]),
    "16 sources": (16, *COARSE, 1, [annual_mean]),
    "32 sources": (32, *COARSE, 1, [annual_mean]),
    "20 fields of a product": (1, *FINE, 4, [annual_mean, seasonal_mean]),
}


def months(sources, rows, columns):
    time_axis = pd.date_range("2015-01", "2100-12", freq="MS")
    shape = (sources, time_axis.size, rows, columns)
    values = np.random.default_rng(0).normal(0.3, 0.02, shape).astype("float32")
    coords = {"time": time_axis, "lat": np.arange(rows), "lon": np.arange(columns)}
    dims = ("source_id", "time", "lat", "lon")
    return xr.DataArray(values, coords, dims, attrs={"units": "m3 m-3"})


def measure(name):
    sources, rows, columns, scenarios, means = CASES[name]
    theta = months(sources, rows, columns)
    trend(theta[..., :1, :1], PERIOD, baseline=PERIOD)  # warms up
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(scenarios):
        for mean in means:
            trend(theta, PERIOD, baseline=PERIOD, mean=mean)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return wall, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    if name := parser.parse_args().one:
        print(json.dumps(measure(name)))
        return
    print(f"{os.cpu_count()} cores.\n")
    print("| case | series | wall (s) | processors (s) | us a series | peak RSS (MiB) |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (sources, rows, columns, scenarios, means) in CASES.items():
        series = sources * rows * columns * scenarios * (1 if len(means) == 1 else 5)
        command = [sys.executable, __file__, "--one", name]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        wall, processor, peak = json.loads(answer)
        each = 1e6 * processor / series
        print(f"| {name} | {series} | {wall:.1f} | {processor:.1f} | {each:.0f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
