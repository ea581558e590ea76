"""The trained network over an experiment: the fused, downscaled product."""

import json

import numpy as np
import torch
import xarray as xr

from smcore import product
from smcore.machine import autocast_to, layout_of, precision
from smcore.prepared import open_static, stored
from smcore.progress import track
from smcore.store import fresh, recipe, sha256
from smcore.tensors import month_index, open_inputs
from smcore.training import load


def predict(trained, predictors, auxiliary, *, land, batch_size=12):
    """theta(time, lat, lon) in m3 m-3 on `land`, of what `smcore.tensors.open_inputs` gives.

    An anchor has still to be added.
    """
    x = trained.statistics.predictors(predictors)
    fields = trained.statistics.auxiliary(auxiliary)
    month = month_index(predictors["time"], fields)
    theta = np.empty((len(x), land.sizes["lat"], land.sizes["lon"]), "float32")
    chosen = _precision(trained)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    place = {"device": device, "memory_format": layout_of(chosen)}
    network, fields = trained.network.to(**place).eval(), fields.to(**place)
    with torch.inference_mode(), autocast_to(chosen):
        for batch in track(torch.arange(len(x)).split(batch_size), "months"):
            output = network(x[batch].to(device), fields[month[batch]])
            theta[batch] = trained.statistics.theta(output[:, 0].cpu())
    coords = {"time": predictors["time"], "lat": land["lat"], "lon": land["lon"]}
    attrs = {"units": "m3 m-3", "best_epoch": trained.best_epoch}
    return xr.DataArray(theta, coords, tuple(coords), "theta", attrs).where(land)


def sample(study, months, *, epoch=None):
    """Fused theta(time, lat, lon) in m3 m-3 for `months` of the historical run, missing off land.

    By the first network as it is kept, or was after `epoch`: the last or of `training.SHOWN`.
    """
    predictors, auxiliary, anchor = open_inputs(study, "historical")
    trained, land = load(study.members[0], epoch=epoch), open_static(study)["land"]
    theta = predict(trained, predictors.sel(time=months), auxiliary, land=land)
    return theta if anchor is None else theta + anchor.sel(time=months)


def fuse(study, experiment_id):
    """Write the product of one experiment; keep the one that the same network and input made.

    Parameters
    ----------
    study : Study
        With a trained network.
    experiment_id : str
        ``historical`` or a scenario of the study.

    Returns
    -------
    Path
        Name of the product, as `study.product` says: of an ensemble the mean of its networks,
        with their standard deviation beside it. A network or prepared store that is missing
        (FileNotFoundError), damaged or stale (ValueError) is named with the chapter to run.
    """
    path, networks = study.product(experiment_id), [load(member) for member in study.members]
    weights = [member.model / "model.safetensors" for member in study.members]
    runs = {"historical", experiment_id} if study.network.anchored else {experiment_id}
    names = [f"theta_{source_id}_{run}.nc" for run in sorted(runs) for source_id in study.sources]
    settings = study.settings("title", "network", "sources", "seeds", "periods.train")
    inputs = [stored(study, name) for name in ["reference.nc", "static.nc", *names]]
    made = recipe("fusion", "product", settings=settings, inputs=[*inputs, *weights])
    if fresh(path, made):
        return path
    predictors, auxiliary, anchor = open_inputs(study, experiment_id)
    land = open_static(study)["land"]
    fields = (predict(one, predictors, auxiliary, land=land) for one in networks)
    mean, squares = next(fields), 0
    # One field at a time, after Welford (1962), https://doi.org/10.2307/1266577
    for count, theta in enumerate(fields, 2):
        deviation = theta - mean
        mean += deviation / count
        squares += deviation * (theta - mean)
    std = (squares / (len(networks) - 1)) ** 0.5 if len(networks) > 1 else None
    if anchor is not None:
        mean += anchor
    provenance = {
        "experiment_id": experiment_id,
        "best_epoch": " ".join(str(trained.best_epoch) for trained in networks),
        "model": " ".join(member.model.name for member in study.members),
        "weights": " ".join(map(sha256, weights)),
        "precision": " ".join(map(_precision, networks)),
        "code": made["code"],
        "inputs": json.dumps(_inputs(study, experiment_id)),
    }
    product.write(mean, path, study=study, std=std, provenance=provenance, recipe=made)
    return path


def _precision(trained):
    """That of the training, if this machine has units for it, else float32."""
    return precision("auto" if trained.precision == "bfloat16" else "float32")


def _inputs(study, experiment_id):
    """Versions, tracking ids and checksum of the prepared series of every source."""
    manifest = json.loads(stored(study, "manifest.json").read_text())
    return {
        row["source_id"]: {
            "versions": row["versions"],
            "tracking_ids": row["tracking_ids"],
            "sha256": manifest["files"][f"theta_{row['source_id']}_{experiment_id}.nc"],
        }
        for row in manifest["quality"]
        if row["experiment_id"] == experiment_id
    }
