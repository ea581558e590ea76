"""The trained network over an experiment: the fused, downscaled product."""

import json

import numpy as np
import torch
import xarray as xr

from smcore import product
from smcore.prepare import open_static
from smcore.progress import track
from smcore.store import sha256
from smcore.tensors import month_index
from smcore.training import load, open_inputs


def predict(trained, predictors, auxiliary, *, land, batch_size=12):
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
    trained.network.eval()
    batches = torch.arange(len(x)).split(batch_size)
    with torch.inference_mode():
        for batch in track(batches, "months"):
            output = trained.network(x[batch], fields[month[batch]])
            theta[batch] = trained.statistics.theta(output[:, 0])
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
        Name of the product, as `study.product` says: of an ensemble the mean of its networks,
        and their standard deviation.
    """
    path, networks = study.product(experiment_id), [load(member) for member in study.members]
    models = [member.model for member in study.members]
    provenance = {
        "experiment_id": experiment_id,
        "best_epoch": " ".join(str(trained.best_epoch) for trained in networks),
        "model": " ".join(model.name for model in models),
        "weights": " ".join(sha256(model / "model.safetensors") for model in models),
        "inputs": json.dumps(_inputs(study, experiment_id)),
    }
    if path.exists():
        with xr.open_dataset(path) as found:
            if all(found.attrs.get(name) == value for name, value in provenance.items()):
                return path
    predictors, auxiliary, anchor = open_inputs(study, experiment_id)
    land, std = open_static(study)["land"], None
    mean = predict(networks[0], predictors, auxiliary, land=land)
    if len(networks) > 1:
        squares = xr.zeros_like(mean)
        # One field at a time, after Welford (1962), https://doi.org/10.2307/1266577
        for count, trained in enumerate(networks[1:], 2):
            theta = predict(trained, predictors, auxiliary, land=land)
            deviation = theta - mean
            mean += deviation / count
            squares += deviation * (theta - mean)
        std = (squares / (count - 1)) ** 0.5
    if anchor is not None:
        mean += anchor
    product.write(mean, path, study=study, std=std, provenance=provenance)
    return path


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
