"""Slopes and tests for every cell of a map: smcore against scipy and pymannkendall.

    pip install -r requirements.txt
    python benchmarks/trends.py

Annual means (86 years) and months (1032) of autocorrelated series with a trend, white noise and
rounding, for three numbers of cells. The peers take one series at a time: they are measured on
a sample of the cells, in turns with ours, and their time for all cells is extrapolated from
their time per cell. Ours is measured on all cells. Every number of cells runs in a process of
its own, so that the peak memory is its own; the import of Python's libraries is part of it.
Prints tables in Markdown, with the largest difference between ours and the peer on the sample.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
import pymannkendall
import xarray as xr
from scipy.stats import theilslopes

from smcore.trends import mann_kendall, theil_sen

CELLS = 144 * 264  # the fine grid
# name: (points, cells, cells for the peer)
CASES = {
    "theil_sen, years": (86, (CELLS // 4, CELLS // 2, CELLS), 1000),
    "theil_sen, months": (1032, (CELLS // 64, CELLS // 32, CELLS // 16), 20),
    "mann_kendall hamed_rao, years": (86, (CELLS // 4, CELLS // 2, CELLS), 200),
    "mann_kendall ar1, years": (86, (CELLS // 4, CELLS // 2, CELLS), 0),
}


def series(cells, points):
    """AR(1) with a lag-1 autocorrelation of 0.5 on a trend of a hundredth per point."""
    values = np.random.default_rng(0).normal(size=(cells, points))
    for i in range(1, points):
        values[:, i] += 0.5 * values[:, i - 1]
    values += 0.01 * np.arange(points)
    return xr.DataArray(values, {"year": np.arange(points)}, ("cell", "year"))


def ours(name, sample):
    if name.startswith("theil_sen"):
        return theil_sen(sample).to_array().values
    method = name.split()[1].rstrip(",")
    return mann_kendall(sample, method=method)[["p_value", "z", "score"]].to_array().values


def peer(name, sample):
    years = sample.year.values
    if name.startswith("theil_sen"):
        rows = [theilslopes(row, years, 0.95) for row in sample.values]
        return np.array([(row.slope, row.low_slope, row.high_slope) for row in rows]).T
    rows = [pymannkendall.hamed_rao_modification_test(row) for row in sample.values]
    return np.array([(row.p, row.z, row.s) for row in rows]).T


def seconds(call, *arguments):
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


def measure(name, cells, repeats):
    """Seconds of ours, of the peer, largest difference and peak memory in MiB, in this process."""
    points, _, sampled = CASES[name]
    data = series(cells, points)
    sample = data[:sampled]
    ours(name, data[:100])  # warms up
    times, peers = [], []
    for _ in range(repeats):
        taken, result = seconds(ours, name, data)
        times.append(taken)
        if sampled:
            taken, expected = seconds(peer, name, sample)
            peers.append(taken * cells / sampled)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if not sampled:
        return np.median(times), None, None, peak
    result = result[:, :sampled]
    both_undefined = np.isnan(result) & np.isnan(expected)
    difference = abs(result - expected)[~both_undefined].max()
    return np.median(times), np.median(peers), difference, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "CELLS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, cells = arguments.one
        print(json.dumps(measure(name, int(cells), arguments.repeats)))
        return

    print(
        f"{os.cpu_count()} cores, medians of {arguments.repeats}; seconds of the peer are "
        "extrapolated from a sample of the cells.\n\n"
        "| case | points | cells | ours (s) | ours (us a cell) | peer (s) | peer's sample (cells) "
        "| peer / ours | largest difference | peak RSS (MiB) |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for name, (points, sizes, sampled) in CASES.items():
        for cells in sizes:
            command = [sys.executable, __file__, "--one", name, str(cells)]
            command += ["--repeats", str(arguments.repeats)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            taken, other, difference, peak = json.loads(answer)
            row = f"| {name} | {points} | {cells} | {taken:.2f} | {1e6 * taken / cells:.1f} "
            if sampled:
                row += f"| {other:.1f} | {sampled} | {other / taken:.1f} | {difference:.1e} "
            else:
                row += "| | | | "
            print(f"{row}| {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
