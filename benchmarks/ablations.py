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
from smcore.config import Study
from smcore.demo import make_archive, truth
from smcore.fusion import predict
from smcore.grids import cell_area
from smcore.metrics import rmsd
from smcore.prepare import prepare
from smcore.prepared import open_predictors, open_reference, open_static
from smcore.profile import NETWORKS
from smcore.training import fit, load, open_inputs
from smcore.ynet import count_parameters

FUTURE, LATE = "ssp585", ("2071", "2100")
TABLE = Path(__file__).resolve().parents[1] / "data/ablations.csv"
WHOLE = ("epochs", "features", "batch_size")  # of the preset, not of the profile
NETWORK = {  # name: (preset, changes of the training, of the profile)
    "sound": ("sound", {}, {}),
    # a hundred epochs, unless fifteen pass without a better one
    "paper": ("paper", {"patience": 15}, {}),
    "anchored": ("anchored", {}, {}),
    "anchored, own dates only": ("anchored", {"pairing": 0}, {}),
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
    reference, periods = open_reference(study), study.periods
    known = xr.concat([truth(study, name)["theta"] for name in ("historical", FUTURE)], "time")
    known = known.where(open_static(study)["land"])
    return {
        "validation": score(study, estimate, reference, periods.validation),
        "test": score(study, estimate, reference, periods.test),
        "test_truth": score(study, estimate, known, periods.test),
        "future_truth": score(study, estimate, known, LATE),
    }


def score(study, estimate, other, period):
    """RMSD (m3 m-3) over a period, weighted by area."""
    area, months = cell_area(estimate.lat, estimate.lon), slice(*period)
    return float(rmsd(estimate.sel(time=months), other.sel(time=months), weights=area))


def fused(study, network, experiment_id, months):
    """theta in m3 m-3, as `smcore.fusion.fuse` makes it."""
    predictors, auxiliary, anchor = open_inputs(study, experiment_id)
    land = open_static(study)["land"]
    theta = predict(network, predictors.sel(time=months), auxiliary, land=land)
    return theta if anchor is None else theta + anchor


def of_baseline(study, baseline, **options):
    """The scores of a baseline; the scenario continues the historical run."""
    runs = [open_predictors(study, name) for name in ("historical", FUTURE)]
    options |= {"train_period": study.periods.train}
    past, whole = (
        baseline(predictors, open_reference(study), **options)
        for predictors in (runs[0], xr.concat(runs, "time"))
    )
    return scores(study, xr.concat([past, whole.sel(time=slice(*LATE))], "time"))


def trained(study):
    """The row of a network: its scores, its size and its epochs."""
    network = fit(study)
    held_out, tested = (getattr(study.periods, name) for name in ("validation", "test"))
    past, late = slice(held_out[0], tested[1]), slice(*LATE)
    estimate = xr.concat(
        [fused(study, network, "historical", past), fused(study, network, FUTURE, late)], "time"
    )
    losses = network.history["validation"]
    last = int(losses.index[-1])
    at_last = fused(study, load(study, epoch=last), "historical", slice(*held_out))
    return scores(study, estimate) | {
        "last_epoch": score(study, at_last, open_reference(study), held_out),
        "weights": count_parameters(network.network),
        "epochs": last,
        "best_epoch": network.best_epoch,
        "seed": study.network.seed,
        "precision": network.precision,
        "machine": network.machine,
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
            row = of_baseline(study, BASELINES[name])
        else:
            row = trained(study)
        row |= {"smcore_version": smcore.__version__, "date": time.strftime("%Y-%m-%d")}
        table = pd.concat([table.drop(name, errors="ignore"), pd.DataFrame(row, index=[name])])
        known = [one for one in [*BASELINES, *NETWORK, *DEMO] if one in table.index]
        counts = ["weights", "epochs", "best_epoch", "seed"]
        written = table.loc[known].astype(
            dict.fromkeys(table.columns.intersection(counts), "Int64")
        )
        written.to_csv(TABLE, index_label="name", float_format="%.6g")
        print(table.loc[name].to_string(), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
