"""The demo world beside the real models: regional soil moisture at 2 K of global warming.

    python benchmarks/world_facts.py [--sources 200] [--processes 1] [--dry]

Runs sources of the demo world on 2 degrees from 1850 under SSP5-8.5: 200 without kin, and the 25
of the profile `demo`. Beside them stand the 32 CMIP6 models of ``data/ar6_soil_moisture.csv``. Of
each source counts the mean over a region of the twenty years around its own 2 K, less that of
1850-1899, in standard deviations of the years 1850-1899. Writes ``data/world_facts.csv`` and prints
how well the truth is known and how fast the bucket is. One core takes five minutes.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from smcore import demo, relief, world
from smcore.config import Study

DATA = Path(__file__).resolve().parents[1] / "data"
PERIODS = {"historical": ["1850", "2014"], "future": ["2015", "2100"]}
BOXES = {  # the regions of AR6 (Iturbide et al. 2020) as boxes: south, north, west, east
    "EAS": (20, 42, 101, 137),
    "TIB": (28, 37.5, 75, 100),
    "ECA": (37.5, 50, 73, 110),
    "SAS": (18, 28, 71, 90),
}
LEVEL, YEARS = 2.0, 20  # K of global warming, years of the mean


@lru_cache(maxsize=1)
def place():
    return relief.Place(np.arange(19, 54, 2.0), np.arange(72, 137, 2.0))


def changes(task):
    """Change of every region at 2 K in standard deviations of 1850-1899, of one source."""
    name, seed = task
    study = Study.load("demo", experiments=["ssp585"], periods=PERIODS)
    here = place()
    if isinstance(name, int):
        normal = np.random.default_rng([seed, name]).standard_normal
    else:
        normal = demo.normals(seed, study, name)
        normal(())  # the land of its own grid
    traits = demo.draw(normal, here)
    runs = demo.simulate(here, traits, study, str(name), seed=seed)
    theta = np.concatenate([theta for _, theta in runs])
    yearly = theta.reshape(-1, 12, theta.shape[1]).mean(1)
    year = np.arange(1850, 2101)
    warmth = traits.sensitivity * world.warming("ssp585", year + 0.5)
    if warmth.max() < LEVEL:
        return None
    middle = int(np.argmax(warmth >= LEVEL))
    then = slice(middle - YEARS // 2, middle + YEARS // 2)
    found = {}
    for region, (south, north, west, east) in BOXES.items():
        inside = (here.lat > south) & (here.lat < north) & (here.lon > west) & (here.lon < east)
        series = np.average(yearly[:, inside], axis=1, weights=np.cos(np.deg2rad(here.lat[inside])))
        found[region] = (series[then].mean() - series[:50].mean()) / series[:50].std(ddof=1)
    return found


def error_of_truth(seed):
    """Root mean squares of the change of the truth and of its standard error, m3 m-3.

    Of SSP5-8.5, 2071-2100 less 1995-2014, in each calendar month and cell of 0.25 degrees; the
    standard error is that of the mean of the pairs of weather that the truth is made of.
    """
    study = Study.load("demo", experiments=["ssp585"])
    here = demo.Points(study).place
    traits = demo.draw(demo.normals(seed, study, "truth"), here)
    changes = []
    for pair in range(study.demo.draws // 2):
        runs = dict(demo.simulate(here, traits, study, f"truth {pair}", seed=seed, signs=(1, -1)))
        past = runs["historical"][45 * 12 :].reshape(20, 12, -1).mean(0)
        changes.append(runs["ssp585"][56 * 12 :].reshape(30, 12, -1).mean(0) - past)
    error = np.std(changes, axis=0, ddof=1) / np.sqrt(len(changes))
    return (np.sqrt(np.mean(np.square(one))) for one in (np.mean(changes, axis=0), error))


def speed(seed, repeats=10):
    """Million months of a cell that the bucket does in a second, at 0.25 degrees."""
    here = demo.Points(Study.load("demo")).place
    random = np.random.default_rng(seed)
    traits = demo.draw(random.standard_normal, here)
    weather = (random.standard_normal((12, here.cells.size), dtype="float32") for _ in range(2))
    falls = world.forcing(here.climate, traits, np.zeros(12), *weather)
    state = np.full(here.cells.size, 0.4, "float32"), np.zeros(here.cells.size, "float32")
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        *_, state = world.bucket(*falls, traits, state)
        took.append(time.perf_counter() - start)
    return 12 * here.cells.size / min(took) / 1e6


def summary(found):
    """Median, spread between models and share that dries, a row for each region."""
    rows = {
        "models": found.count(),
        "median": found.median(),
        "sd_between": found.std(),
        "drying_percent": 100 * (found < 0).mean(),
    }
    return pd.DataFrame(rows).rename_axis("region")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=int, default=200, help="drawn without kin")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print the table, write nothing")
    asked = parser.parse_args()
    print(f"bucket: {speed(asked.seed):.0f} million months of a cell in a second")
    change, error = error_of_truth(asked.seed)
    print(f"truth: rms of the change {change:.4f}, of its standard error {error:.4f} m3 m-3")
    tasks = {
        f"{asked.sources} draws": [(number, asked.seed) for number in range(asked.sources)],
        "demo": [(name, asked.seed) for name in Study.load("demo").sources],
    }
    real = pd.read_csv(DATA / "ar6_soil_moisture.csv").query("warming_K == @LEVEL")
    tables = {"AR6": real.set_index("region").loc[list(BOXES)]}
    with ProcessPoolExecutor(asked.processes) as pool:
        for name, one in tasks.items():
            found = [row for row in pool.map(changes, one) if row]
            tables[name] = summary(pd.DataFrame(found))
    columns = ["models", "median", "sd_between", "drying_percent"]
    table = pd.concat({name: one[columns] for name, one in tables.items()}, names=["world"])
    table = table.swaplevel().loc[list(BOXES)].round({"median": 2, "sd_between": 2})
    table["drying_percent"] = table["drying_percent"].round(0)
    print(table)
    if not asked.dry:
        table.to_csv(DATA / "world_facts.csv")


if __name__ == "__main__":
    main()
