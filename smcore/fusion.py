"""The trained network over an experiment: the fused, downscaled product."""

import json

import numpy as np
import torch
import xarray as xr

from smcore import product
from smcore.prepare import open_predictors, open_static
from smcore.progress import track
from smcore.store import sha256
from smcore.training import load


def predict(trained, predictors, static, *, batch_size=12):
    """Fused and downscaled theta for every month of the predictors.

    Parameters
    ----------
    trained : Trained
        From `smcore.training`.
    predictors : xr.DataArray
        theta(source_id, time, lat, lon) in m3 m-3 on the coarse grid, without missing values.
    static : xr.Dataset
        Static fields on the fine grid with ``land``.
    batch_size : int, default: 12
        Months at a time.

    Returns
    -------
    xr.DataArray
        theta(time, lat, lon) in m3 m-3 on the fine grid, missing outside ``land``.
    """
    x = trained.statistics.predictors(predictors)
    auxiliary = trained.statistics.auxiliary(static)
    land = static["land"].transpose("lat", "lon").values
    theta = np.empty((len(x), *land.shape), "float32")
    trained.network.eval()
    batches = torch.arange(len(x)).split(batch_size)
    with torch.inference_mode():
        for batch in track(batches, "months"):
            output = trained.network(x[batch], auxiliary.expand(len(batch), -1, -1, -1))
            theta[batch] = trained.statistics.theta(output[:, 0])
    theta[:, ~land] = np.nan
    return xr.DataArray(
        theta,
        dims=("time", "lat", "lon"),
        coords={"time": predictors["time"], "lat": static["lat"], "lon": static["lon"]},
        name="theta",
        attrs={"units": "m3 m-3", "best_epoch": trained.best_epoch},
    )


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
        Name of the product, as `study.product` says.
    """
    path, trained = study.product(experiment_id), load(study)
    provenance = {
        "experiment_id": experiment_id,
        "best_epoch": trained.best_epoch,
        "model": study.model.name,
        "weights": sha256(study.model / "model.safetensors"),
        "inputs": json.dumps(_inputs(study, experiment_id)),
    }
    if path.exists():
        with xr.open_dataset(path) as found:
            if all(found.attrs.get(name) == value for name, value in provenance.items()):
                return path
    theta = predict(trained, open_predictors(study, experiment_id), open_static(study))
    product.write(theta, path, study=study, provenance=provenance)
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
