"""The trained network over an experiment: the fused, downscaled product."""

import json

import numpy as np
import torch
import xarray as xr

from smcore import product
from smcore.prepared import open_static
from smcore.progress import track
from smcore.store import sha256
from smcore.tensors import month_index
from smcore.training import autocast_to, layout_of, load, open_inputs, precision


def predict(trained, predictors, auxiliary, *, land, batch_size=12, dropout_seed=None):
    """Fused and downscaled theta for every month of the predictors.

    Parameters
    ----------
    trained : Trained
        From `smcore.training`.
    predictors, auxiliary : xr.DataArray, xr.Dataset
        From `smcore.training.open_inputs`.
    land : xr.DataArray
        Boolean, (lat, lon) on the fine grid.
    batch_size : int, default: 12
        Months at a time.
    dropout_seed : int, optional
        Keep the dropout of the training, drawn with this seed: one sample of Monte-Carlo dropout
        (Gal and Ghahramani 2016, https://doi.org/10.48550/arXiv.1506.02142).

    Returns
    -------
    xr.DataArray
        theta(time, lat, lon) in m3 m-3 on the fine grid, missing outside `land`; of an anchored
        network what it adds to its anchor.
    """
    x = trained.statistics.predictors(predictors)
    fields = trained.statistics.auxiliary(auxiliary)
    month = month_index(predictors["time"], fields)
    theta = np.empty((len(x), land.sizes["lat"], land.sizes["lon"]), "float32")
    chosen = _precision(trained)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = trained.network.to(device, memory_format=layout_of(chosen)).eval()
    fields = fields.to(device, memory_format=layout_of(chosen))
    if dropout_seed is not None:
        torch.manual_seed(dropout_seed)
        network.dropout.train()
    batches = torch.arange(len(x)).split(batch_size)
    with torch.inference_mode(), autocast_to(chosen):
        for batch in track(batches, "months"):
            output = network(x[batch].to(device), fields[month[batch]])
            theta[batch] = trained.statistics.theta(output[:, 0].cpu())
    return xr.DataArray(
        theta,
        dims=("time", "lat", "lon"),
        coords={"time": predictors["time"], "lat": land["lat"], "lon": land["lon"]},
        name="theta",
        attrs={"units": "m3 m-3", "best_epoch": trained.best_epoch},
    ).where(land)


def fuse(study, experiment_id):
    """Write the product of one experiment; keep the one that the same network and input made.

    Parameters
    ----------
    study : Study
        Its network must have been trained.
    experiment_id : str
        ``historical`` or a scenario of the study.

    Returns
    -------
    Path
        Name of the product, as `study.product` says: of an ensemble or of samples of dropout
        their mean and standard deviation.
    """
    path, networks = study.product(experiment_id), [load(member) for member in study.members]
    models = [member.model for member in study.members]
    provenance = {
        "experiment_id": experiment_id,
        "best_epoch": " ".join(str(trained.best_epoch) for trained in networks),
        "model": " ".join(model.name for model in models),
        "weights": " ".join(sha256(model / "model.safetensors") for model in models),
        "precision": " ".join(_precision(trained) for trained in networks),
        "dropout_samples": study.dropout_samples or 0,
        "inputs": json.dumps(_inputs(study, experiment_id)),
    }
    if path.exists():
        with xr.open_dataset(path) as found:
            if all(found.attrs.get(name) == value for name, value in provenance.items()):
                return path
    predictors, auxiliary, anchor = open_inputs(study, experiment_id)
    land, std = open_static(study)["land"], None
    seeds = range(study.dropout_samples) if study.dropout_samples else [None]
    (network, seed), *others = [(network, seed) for network in networks for seed in seeds]
    mean = predict(network, predictors, auxiliary, land=land, dropout_seed=seed)
    if others:
        squares = xr.zeros_like(mean)
        # One field at a time, after Welford (1962), https://doi.org/10.2307/1266577
        for count, (network, seed) in enumerate(others, 2):
            theta = predict(network, predictors, auxiliary, land=land, dropout_seed=seed)
            deviation = theta - mean
            mean += deviation / count
            squares += deviation * (theta - mean)
        std = (squares / (count - 1)) ** 0.5
    if anchor is not None:
        mean += anchor
    product.write(mean, path, study=study, std=std, provenance=provenance)
    return path


def _precision(trained):
    """That of the training, if this machine has units for it, else float32."""
    return precision("auto" if trained.precision == "bfloat16" else "float32")


def _inputs(study, experiment_id):
    """Versions, tracking ids and checksum of the prepared series of every source."""
    manifest = json.loads((study.prepared / "manifest.json").read_text())
    return {
        row["source_id"]: {
            "versions": row["versions"],
            "tracking_ids": row["tracking_ids"],
            "sha256": manifest["files"][f"theta_{row['source_id']}_{experiment_id}.nc"],
        }
        for row in manifest["quality"]
        if row["experiment_id"] == experiment_id
    }
