"""What each choice of the network changes, on the demo world, where the truth is known.

    python benchmarks/ablations.py /tmp/ablations [name ...]

Trains every network below at its full size, one after the other, and writes its scores to
``data/ablations.csv``, which chapter 2 shows. A training that was stopped goes on; names select
rows. Two cores take about an hour.
"""

import argparse
import time
from pathlib import Path

import pandas as pd

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

TABLE = Path(__file__).resolve().parents[1] / "data/ablations.csv"
WHOLE = {key: None for key in ("epochs", "features", "batch_size")}  # of the preset
NETWORK = {  # name: (preset, changes of the training, of the profile)
    "sound": ("sound", {}, {}),
    # a hundred epochs, unless fifteen pass without a better one
    "paper": ("paper", {"patience": 15}, {}),
    "anchored": ("anchored", {}, {}),
    "anchored, paired within 10 years": ("anchored", {"pairing": 10}, {}),
    "anchored, as large as sound": ("anchored", {"features": 64, "depth": 15}, {}),
    "sound, paired within 10 years": ("sound", {"pairing": 10}, {}),
    "sound, grids as the paper's": ("sound", {}, {"registration": "paper"}),
    "sound, climatology as input": ("sound", {"auxiliary": "climatology"}, {}),
    "sound, no auxiliary fields": ("sound", {"auxiliary": "none"}, {}),
    "sound, no skip connections": ("sound", {"skips": False}, {}),
    "sound, 16 features": ("sound", {"features": 16}, {}),
    "sound, depth 5": ("sound", {"depth": 5}, {}),
}
BASELINES = {
    "ensemble mean": ensemble_mean,
    "climatology": climatology,
    "delta change": delta_change,
    "delta change, 31 years": lambda *args, **options: delta_change(*args, years=31, **options),
}


def scores(study, estimate):
    """RMSD (m3 m-3) in the validation years, and in the test years also against the truth."""
    reference = open_reference(study)
    area = cell_area(reference.lat, reference.lon)

    def score(other, period):
        months = slice(*getattr(study.periods, period))
        return float(rmsd(estimate.sel(time=months), other.sel(time=months), weights=area))

    known = truth(study, "historical")["theta"].where(open_static(study)["land"])
    return {
        "validation": score(reference, "validation"),
        "test": score(reference, "test"),
        "test_truth": score(known, "test"),
    }


def trained(study):
    """The row of a network: its scores, its size and what it cost."""
    fit(study)
    network = load(study)
    predictors, auxiliary, anchor = open_inputs(study, "historical")
    months = slice(study.periods.validation[0], study.periods.test[1])
    estimate = predict(
        network, predictors.sel(time=months), auxiliary, land=open_static(study)["land"]
    )
    if anchor is not None:
        estimate = estimate + anchor
    history = network.history.drop(0, errors="ignore")
    best = network.history["validation"].min()
    alone = history["validation"].idxmin()  # an anchor left out of the selection
    until = history["seconds"].loc[: max(network.best_epoch, 1)].sum()
    return scores(study, estimate) | {
        "weights": count_parameters(network.network),
        "epochs": history.index.max(),
        "best_epoch": network.best_epoch,
        "converged": int(network.history.index[network.history["validation"] <= 1.01 * best][0]),
        "best_trained": history.loc[alone, "validation"] ** 0.5,
        "last_trained": history["validation"].iloc[-1] ** 0.5,
        "seconds_per_epoch": history["seconds"].median(),
        "seconds_to_best": until,
        "precision": network.precision,
        "machine": network.machine,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="folder for the demo world and the networks")
    parser.add_argument("names", nargs="*", help="rows to compute; by default all")
    arguments = parser.parse_args()
    names = arguments.names or [*BASELINES, *NETWORK]
    table = pd.read_csv(TABLE, index_col="name") if TABLE.exists() else pd.DataFrame()
    for name in names:
        preset, training, profile = NETWORK.get(name, ("sound", {}, {}))
        values = NETWORKS[preset].model_dump()
        training = {key: values[key] for key in WHOLE} | training
        study = Study.load(
            "demo", network=preset, training=training, directory=str(arguments.directory), **profile
        )
        make_archive(study.directory / "archive", study)
        prepare(study)
        if name in BASELINES:
            inputs = open_predictors(study, "historical"), open_reference(study)
            estimate = BASELINES[name](*inputs, train_period=study.periods.train)
            row = scores(study, estimate)
        else:
            row = trained(study)
        row |= {"smcore_version": smcore.__version__, "date": time.strftime("%Y-%m-%d")}
        table = pd.concat([table.drop(name, errors="ignore"), pd.DataFrame(row, index=[name])])
        known = [one for one in [*BASELINES, *NETWORK] if one in table.index]
        table.loc[known].to_csv(TABLE, index_label="name", float_format="%.6g")
        print(table.loc[name].to_string(), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
