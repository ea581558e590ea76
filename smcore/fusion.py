"""The trained network over an experiment: the fused, downscaled product."""

import numpy as np
import torch
import xarray as xr

from smcore import product
from smcore.prepare import open_predictors, open_static
from smcore.progress import track
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
    land = static["land"].values
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
    """Write the product of one experiment; keep it where it is that of the same configuration.

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
    path = study.product(experiment_id)
    if path.exists():
        with xr.open_dataset(path) as found:
            if found.attrs.get("model") == study.model.name:
                return path
    trained = load(study)
    theta = predict(trained, open_predictors(study, experiment_id), open_static(study))
    provenance = {"experiment_id": experiment_id, "best_epoch": trained.best_epoch}
    product.write(theta, path, study=study, provenance=provenance | {"model": study.model.name})
    return path
