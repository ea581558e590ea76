"""What a network sees: labelled inputs, their statistics in the training period, tensors."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from smcore.baselines import anomalies, with_climatology
from smcore.prepared import open_predictors, open_reference, open_static
from smcore.seasons import monthly_climatology

AUXILIARY = {"static": ["elevation", "land_fraction"], "climatology": ["climatology"], "none": []}


def open_inputs(study, experiment_id):
    """What the network sees in an experiment, and what its output is added to.

    Predictors (source_id, time, lat, lon) on the coarse grid: theta in m3 m-3 or, of an anchored
    network, its smoothed anomalies from the training period; a scenario continues the historical
    run of its source. The fields on the fine grid that the preset names. The anchor or None: the
    climatology of the reference plus the mean of these anomalies, (time, lat, lon) in m3 m-3.
    """
    preset, train = study.network, study.periods.train
    predictors, reference = open_predictors(study, experiment_id), open_reference(study)
    auxiliary = open_static(study)
    if preset.auxiliary == "climatology":
        auxiliary["climatology"] = monthly_climatology(reference.sel(time=slice(*train)))
    names = AUXILIARY[preset.auxiliary]
    auxiliary = auxiliary[names] if names else auxiliary.drop_vars(auxiliary.data_vars)
    if not preset.anchored:
        return predictors, auxiliary, None
    time = predictors["time"]
    if experiment_id != "historical":
        past = open_predictors(study, "historical")
        predictors = xr.concat([past, predictors], "time", join="exact")
    anomaly = anomalies(predictors, train_period=train, years=preset.smoothing).sel(time=time)
    anchor = with_climatology(anomaly, reference, train_period=train)
    return anomaly, auxiliary, anchor


@dataclass(frozen=True)
class Statistics:
    """What inputs and output are scaled with, of the training period; kept in the checkpoint."""

    predictor_mean: list  # one per source, m3 m-3
    predictor_std: list
    auxiliary_mean: dict  # by auxiliary field
    auxiliary_std: dict
    reference_mean: float  # m3 m-3
    reference_std: float

    @classmethod
    def fit(cls, predictors, reference, auxiliary, *, train_period, standardisation):
        """Statistics of the training period; ValueError if it holds no months.

        `standardisation` ``none`` leaves theta in m3 m-3, ``source`` scales each source.
        """
        if standardisation not in ("none", "source"):
            raise ValueError(f"`standardisation` must be none or source, got {standardisation!r}")
        train, target = (one.sel(time=slice(*train_period)) for one in (predictors, reference))
        if not train.sizes["time"] or not target.sizes["time"]:
            raise ValueError(
                f"`train_period` {train_period}: `predictors` has {train.sizes['time']} months of "
                f"it and `reference` {target.sizes['time']}; choose years that both have"
            )
        fields = {name: _mean_and_std(field) for name, field in auxiliary.items()}
        scaled = [*train.transpose("source_id", ...), target]
        unscaled = [(0.0, 1.0)] * len(scaled)
        pairs = unscaled if standardisation == "none" else map(_mean_and_std, scaled)
        (*means, reference_mean), (*stds, reference_std) = zip(*pairs, strict=True)
        return cls(
            predictor_mean=means,
            predictor_std=stds,
            auxiliary_mean={name: mean for name, (mean, _) in fields.items()},
            auxiliary_std={name: std for name, (_, std) in fields.items()},
            reference_mean=reference_mean,
            reference_std=reference_std,
        )

    def predictors(self, predictors):
        """Tensor (time, source, lat, lon), scaled."""
        values = predictors.transpose("time", "source_id", "lat", "lon").values.astype("float32")
        statistics = np.array([self.predictor_mean, self.predictor_std], "float32")
        mean, std = statistics[..., None, None]
        return torch.from_numpy((values - mean) / std)

    def auxiliary(self, auxiliary):
        """Tensor (month, field, s lat, s lon), scaled, zero where a field is missing.

        Of 12 months, or of one that stands for all where no field changes with the season.
        """
        months, fields = auxiliary.sizes.get("month", 1), len(self.auxiliary_mean)
        shape = (months, fields, auxiliary.sizes["lat"], auxiliary.sizes["lon"])
        values = np.zeros(shape, "float32")
        for number, name in enumerate(self.auxiliary_mean):
            field = (auxiliary[name] - self.auxiliary_mean[name]) / self.auxiliary_std[name]
            values[:, number] = field.transpose(..., "lat", "lon").fillna(0)
        return torch.from_numpy(values)

    def target(self, reference):
        """Tensors (time, 1, s lat, s lon): scaled, zero where missing; and the valid cells."""
        values = reference.transpose("time", "lat", "lon").values[:, None].astype("float32")
        valid = np.isfinite(values)
        scaled = np.where(valid, (values - self.reference_mean) / self.reference_std, 0)
        return torch.from_numpy(scaled.astype("float32")), torch.from_numpy(valid)

    def theta(self, output):
        """Array in m3 m-3 from the network's output."""
        mean, std = np.float32(self.reference_mean), np.float32(self.reference_std)
        return output.float().numpy() * std + mean


def month_index(time, auxiliary):
    """Tensor of positions along the first axis of `Statistics.auxiliary`, one for each step."""
    if len(auxiliary) == 1:
        return torch.zeros(time.size, dtype=torch.long)
    return torch.from_numpy(time.dt.month.values - 1).long()


def _mean_and_std(field):
    """Mean and standard deviation, in double precision."""
    field = field.astype(float)
    # A constant field carries nothing: with 1 it is scaled to zero, not to NaN.
    constant = field.max() == field.min()
    return float(field.mean()), 1.0 if constant else float(field.std())
