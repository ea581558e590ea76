"""What each choice of the network changes, on the demo world, where the truth is known.

    python benchmarks/ablations.py /tmp/ablations [name ...]

Trains the presets at their full size, and the network of the profile demo with single choices
changed, one after the other, and writes their scores to ``data/ablations.csv``, which chapter 2
shows. A training that was stopped goes on; names select rows. Two cores take about an hour.
"""

import argparse
import time
from pathlib import Path

import pandas as pd
import xarray as xr

import smcore
from smcore.baselines import climatology, delta_change, ensemble_mean
from smcore.config import NETWORKS, Study
from smcore.demo import make_archive, truth
from smcore.fusion import predict
from smcore.grids import cell_area
from smcore.metrics import rmsd
from smcore.prepare import open_predictors, open_reference, open_static, prepare
from smcore.training import fit, load, open_inputs
from smcore.ynet import count_parameters

FUTURE, LATE = "ssp585", ("2071", "2100")
TABLE = Path(__file__).resolve().parents[1] / "data/ablations.csv"
WHOLE = ("epochs", "features", "batch_size")  # of the preset, not of the profile
NETWORK = {  # name: (preset, changes of the training, of the profile)
    "sound": ("sound", {}, {}),
    "sound, paired within 10 years": ("sound", {"pairing": 10}, {}),
    # a hundred epochs, unless fifteen pass without a better one
    "paper": ("paper", {"patience": 15}, {}),
    "anchored": ("anchored", {}, {}),
    "anchored, paired within 10 years": ("anchored", {"pairing": 10}, {}),
}
DEMO = {  # of the network that the profile demo trains: sound, 32 features, 8 epochs
    "demo": ({}, {}),
    "demo, grids as the paper's": ({}, {"registration": "paper"}),
    "demo, climatology as input": ({"auxiliary": "climatology"}, {}),
    "demo, no auxiliary fields": ({"auxiliary": "none"}, {}),
    "demo, no skip connections": ({"skips": False}, {}),
    "demo, 16 features": ({"features": 16}, {}),
    "demo, depth 5": ({"depth": 5}, {}),
    "demo, paired within 10 years": ({"pairing": 10}, {}),
}
BASELINES = {
    "ensemble mean": ensemble_mean,
    "climatology": climatology,
    "delta change": delta_change,
    "delta change, 31 years": lambda *args, **options: delta_change(*args, years=31, **options),
}


def scores(study, estimate):
    """RMSD (m3 m-3) from the reference, and from the truth in the test years and in the future."""
    reference = open_reference(study)
    area = cell_area(reference.lat, reference.lon)

    def score(other, period):
        months = slice(*getattr(study.periods, period))
        return float(rmsd(estimate.sel(time=months), other.sel(time=months), weights=area))

    known = xr.concat([truth(study, name)["theta"] for name in ("historical", FUTURE)], "time")
    known = known.where(open_static(study)["land"])
    late = slice(*LATE)
    return {
        "validation": score(reference, "validation"),
        "test": score(reference, "test"),
        "test_truth": score(known, "test"),
        "future_truth": float(rmsd(estimate.sel(time=late), known.sel(time=late), weights=area)),
    }


def trained(study):
    """The row of a network: its scores, its size and its epochs."""
    fit(study)
    network = load(study)
    estimates = []
    for name, months in {
        "historical": slice(study.periods.validation[0], study.periods.test[1]),
        FUTURE: slice(*LATE),
    }.items():
        predictors, auxiliary, anchor = open_inputs(study, name)
        here = predictors.sel(time=months)
        theta = predict(network, here, auxiliary, land=open_static(study)["land"])
        estimates.append(theta if anchor is None else theta + anchor)
    estimate = xr.concat(estimates, "time")
    history = network.history.drop(0, errors="ignore")
    best = network.history["validation"].min()
    alone = history["validation"].idxmin()  # an anchor left out of the selection
    return scores(study, estimate) | {
        "weights": count_parameters(network.network),
        "epochs": history.index.max(),
        "best_epoch": network.best_epoch,
        "converged": int(network.history.index[network.history["validation"] <= 1.01 * best][0]),
        "best_trained": history.loc[alone, "validation"] ** 0.5,
        "last_trained": history["validation"].iloc[-1] ** 0.5,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="folder for the demo world and the networks")
    parser.add_argument("names", nargs="*", help="rows to compute; by default all")
    arguments = parser.parse_args()
    names = arguments.names or [*BASELINES, *NETWORK, *DEMO]
    table = pd.read_csv(TABLE, index_col="name") if TABLE.exists() else pd.DataFrame()
    for name in names:
        if name in NETWORK:
            preset, training, profile = NETWORK[name]
            values = NETWORKS[preset].model_dump()
            training = {key: values[key] for key in WHOLE} | training
        else:
            training, profile = DEMO.get(name, DEMO["demo"])
            preset = "sound"
        study = Study.load(
            "demo", network=preset, training=training, directory=str(arguments.directory), **profile
        )
        make_archive(study.directory / "archive", study)
        prepare(study)
        if name in BASELINES:
            runs = [open_predictors(study, run) for run in ("historical", FUTURE)]
            inputs = xr.concat(runs, "time"), open_reference(study)
            estimate = BASELINES[name](*inputs, train_period=study.periods.train)
            row = scores(study, estimate)
        else:
            row = trained(study)
        row |= {"smcore_version": smcore.__version__, "date": time.strftime("%Y-%m-%d")}
        table = pd.concat([table.drop(name, errors="ignore"), pd.DataFrame(row, index=[name])])
        known = [one for one in [*BASELINES, *NETWORK, *DEMO] if one in table.index]
        table.loc[known].to_csv(TABLE, index_label="name", float_format="%.6g")
        print(table.loc[name].to_string(), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
