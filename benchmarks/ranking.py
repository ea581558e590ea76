"""Where the ranking of the methods turns: the demo world with its two deciding assumptions varied.

    python benchmarks/ranking.py /tmp/ranking [shared_weather,bias_drift ...]

Sources have weather of their own and a constant bias in the demo world. Here they share more and
more of the reference's weather, or their bias grows; every method is scored in each world. The
scores go to ``data/ranking.csv``, which chapter 12 shows; rows that are there are not computed
again. Worlds are removed once they are scored; arguments such as 0.2,0 select some of them. Two
cores take about an hour.
"""

import argparse
import shutil
import time
from pathlib import Path

import pandas as pd
from ablations import FUTURE, of_baseline, trained

import smcore
from smcore.config import Study
from smcore.demo import make_archive
from smcore.prepare import prepare
from smcore.validation import BASELINES

TABLE = Path(__file__).resolve().parents[1] / "data/ranking.csv"
WORLDS = [  # shared_weather, bias_drift
    *((share, 0.0) for share in (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)),
    *((0.0, drift) for drift in (0.5, 1.0, 2.0)),
]
METHODS = [name for name in BASELINES if name != "bias_removed"]
NETWORKS = {"ynet_sound": "sound", "ynet_anchored": "anchored"}  # as the profile trains them
KEY = ["shared_weather", "bias_drift", "method"]
SCORES = ["test", "test_truth", "future_truth"]


def row(study, method):
    """The scores (m3 m-3) of a method in a world."""
    if method in NETWORKS:
        found = trained(study.presets[NETWORKS[method]])
    else:
        function, options = BASELINES[method]
        if method == "ridge":
            options = options | {"validation_period": study.periods.validation}
        found = of_baseline(study, function, **options)
    return {score: found[score] for score in SCORES} | {
        "seed": study.network.seed,
        "smcore_version": smcore.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def world(text):
    share, drift = (float(value) for value in text.split(","))
    return share, drift


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="folder for one world at a time")
    parser.add_argument("worlds", nargs="*", type=world, help="by default all")
    arguments = parser.parse_args()
    table = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame(columns=KEY)
    for share, drift in arguments.worlds or WORLDS:
        here = table[(table["shared_weather"] == share) & (table["bias_drift"] == drift)]
        missing = [name for name in [*METHODS, *NETWORKS] if name not in set(here["method"])]
        if not missing:
            continue
        study = Study.load(
            "demo",
            experiments=[FUTURE],
            demo={"shared_weather": share, "bias_drift": drift},
            directory=str(arguments.directory / f"{share:g}-{drift:g}"),
        )
        make_archive(study.directory / "archive", study)
        prepare(study)
        for method in missing:
            start = time.perf_counter()
            new = dict(zip(KEY, (share, drift, method), strict=True)) | row(study, method)
            table = pd.DataFrame([*table.to_dict("records"), new])
            table.to_csv(TABLE, index=False, float_format="%.6g")
            seconds = time.perf_counter() - start
            print(*(new[key] for key in [*KEY, *SCORES]), f"{seconds:.0f} s", flush=True)
        shutil.rmtree(study.directory)


if __name__ == "__main__":
    main()
