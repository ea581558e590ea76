"""Labelled arrays to tensors: statistics of the training period, and splits by time."""

from dataclasses import dataclass

import numpy as np
import torch

AUXILIARY = ("elevation", "land_fraction")


@dataclass(frozen=True)
class Statistics:
    """Means and standard deviations that the network's inputs and output are scaled with.

    Fitted on the training period only; kept in the checkpoint.
    """

    predictor_mean: list  # one per source, m3 m-3
    predictor_std: list
    auxiliary_mean: list  # one per auxiliary field
    auxiliary_std: list
    reference_mean: float  # m3 m-3
    reference_std: float

    @classmethod
    def fit(cls, predictors, reference, static, *, train_period, standardisation):
        """Statistics of the training period.

        Parameters
        ----------
        predictors : xr.DataArray
            theta(source_id, time, lat, lon) on the coarse grid, m3 m-3.
        reference : xr.DataArray
            theta(time, lat, lon) on the fine grid, m3 m-3.
        static : xr.Dataset
            The auxiliary fields on the fine grid.
        train_period : (str, str)
            First and last year, both included.
        standardisation : {"none", "source"}
            ``none`` leaves theta in m3 m-3, ``source`` centres and scales each source.
        """
        auxiliary = [static[name] for name in AUXILIARY]
        scaled = {
            "auxiliary_mean": [float(field.mean()) for field in auxiliary],
            # A constant field carries nothing: it becomes zero, not NaN.
            "auxiliary_std": [float(field.std()) or 1.0 for field in auxiliary],
        }
        if standardisation == "none":
            sources = predictors.sizes["source_id"]
            return cls([0.0] * sources, [1.0] * sources, **scaled, reference_mean=0.0, reference_std=1.0)
        train = predictors.sel(time=slice(*train_period))
        target = reference.sel(time=slice(*train_period))
        return cls(
            train.mean(["time", "lat", "lon"]).values.tolist(),
            train.std(["time", "lat", "lon"]).values.tolist(),
            **scaled,
            reference_mean=float(target.mean()),
            reference_std=float(target.std()),
        )

    def predictors(self, predictors):
        """Tensor (time, source, lat, lon), scaled."""
        values = predictors.transpose("time", "source_id", "lat", "lon").values.astype("float32")
        mean, std = (
            np.asarray(values, "float32")[:, None, None]
            for values in (self.predictor_mean, self.predictor_std)
        )
        return torch.from_numpy((values - mean) / std)

    def auxiliary(self, static):
        """Tensor (1, field, s lat, s lon), scaled."""
        fields = [
            (static[name].transpose("lat", "lon").values - mean) / std
            for name, mean, std in zip(
                AUXILIARY, self.auxiliary_mean, self.auxiliary_std, strict=True
            )
        ]
        return torch.from_numpy(np.stack(fields)[None].astype("float32"))

    def target(self, reference):
        """Tensors (time, 1, s lat, s lon): scaled, zero where missing, and the mask of valid cells."""
        values = reference.transpose("time", "lat", "lon").values[:, None].astype("float32")
        valid = np.isfinite(values)
        scaled = np.where(valid, (values - self.reference_mean) / self.reference_std, 0)
        return torch.from_numpy(scaled.astype("float32")), torch.from_numpy(valid)

    def theta(self, output):
        """Array in m3 m-3 from the network's output."""
        return output.float().numpy() * np.float32(self.reference_std) + np.float32(
            self.reference_mean
        )
