"""Time and memory of the chapters that read the product, at the paper's size.

    python benchmarks/chapters.py /tmp/chapters

Chapters 4 to 7 of the profile `paper`: 25 sources, 1950-2014 and four scenarios to 2100, 18 x 33
to 144 x 264. The prepared store and the products are written here (3 GB): a mean, a season, noise
and a trend, which mean nothing. Chapter 4 runs twice, since its first run also fits the baselines.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
import yaml

from smcore import product
from smcore.config import PROFILES, ROOT, Study
from smcore.grids import coarse_grid, fine_grid
from smcore.relief import cells_of
from smcore.store import write_dataset, write_json

CHAPTERS = (
    "04_validation",
    "04_validation",
    "05_future_trends",
    "06_seasonal_trends",
    "07_period_change",
)


def theta_on(grid, period, random, mask=None):
    """theta(time, lat, lon) in m3 m-3: mean, season, noise, and a trend."""
    time_axis = pd.date_range(f"{period[0]}-01", f"{period[1]}-12", freq="MS")
    shape = (grid.sizes["lat"], grid.sizes["lon"])
    values = random.standard_normal((time_axis.size, *shape), dtype="float32")
    values *= np.float32(0.03)
    values += random.uniform(0.15, 0.35, shape).astype("float32")
    years = (np.arange(time_axis.size) / 12 + int(period[0]) - 2000).astype("float32")
    season = (0.03 * np.sin(2 * np.pi * years)).astype("float32")
    values += (season - np.float32(1e-4) * years)[:, None, None]
    if mask is not None:
        values[:, ~mask] = np.nan
    coords = {"time": time_axis, "lat": grid["lat"].values, "lon": grid["lon"].values}
    return xr.DataArray(values, coords, tuple(coords), attrs={"units": "m3 m-3"}).rename("theta")


def make(study):
    """Prepared store and products of the study."""
    coarse, fine = coarse_grid(study.domain), fine_grid(study.domain)
    random = np.random.default_rng(0)
    land = cells_of(fine["lat"].values, fine["lon"].values)[1] > 0.5
    runs = ("historical", *study.experiments)
    names = ["reference.nc"]
    reference = theta_on(fine, study.periods.historical, random, land)
    write_dataset(reference.to_dataset(), study.prepared / names[0])
    fields = {"elevation": 4000 * land, "land_fraction": land, "land": land, "study_area": land}
    static = xr.Dataset({name: (("lat", "lon"), field * 1.0) for name, field in fields.items()})
    static = static.assign_coords(lat=fine["lat"].values, lon=fine["lon"].values)
    static["elevation"] = static["elevation"].where(static.lon < 100, 500)
    write_dataset(static, study.prepared / "static.nc")
    for run in runs:
        for source_id in study.sources:
            names.append(f"theta_{source_id}_{run}.nc")
            theta = theta_on(coarse, study.period(run), random)
            write_dataset(theta.to_dataset(), study.prepared / names[-1])
        theta = theta_on(fine, study.period(run), random, land)
        product.write(theta, study.product(run), study=study)
    write_json({"files": dict.fromkeys(names, "")}, study.prepared / "manifest.json")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="folder for the store; it is removed")
    parser.add_argument("--run", metavar="CHAPTER", help="one chapter on a store that is there")
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    profile = directory / "benchmark.yml"
    if arguments.run:
        start = time.perf_counter()
        command = [sys.executable, ROOT / "notebooks/run.py", arguments.run, "--profile", profile]
        subprocess.run([*command, "-o", directory / "page.ipynb"], check=True, capture_output=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the kernel, the largest of them
        wall = time.perf_counter() - start
        print(json.dumps({"seconds": wall, "peak_mib": used.ru_maxrss / 1024}))
        return

    directory.mkdir(parents=True, exist_ok=True)
    raw = yaml.safe_load((PROFILES / "paper.yml").read_text()) | {"compared": {}}
    profile.write_text(yaml.safe_dump(raw | {"directory": str(directory)}))
    make(Study.load(profile))
    print("| chapter | wall (s) | peak RSS (MiB) |\n|---|---:|---:|")
    for chapter in CHAPTERS:
        command = [sys.executable, __file__, str(directory), "--run", chapter]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        result = json.loads(output.splitlines()[-1])
        print(f"| {chapter} | {result['seconds']:.0f} | {result['peak_mib']:.0f} |", flush=True)
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
