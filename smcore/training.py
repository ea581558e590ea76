"""One training loop, and checkpoints from which it goes on exactly."""

import hashlib
import json
import math
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from smcore.baselines import anomalies, monthly_climatology, with_climatology
from smcore.prepare import open_predictors, open_reference, open_static
from smcore.progress import duration, report
from smcore.store import replacing, sha256, write_json
from smcore.tensors import Statistics, month_index
from smcore.ynet import YNet, YNetConfig, initialise_he

AUXILIARY = {
    "static": ("elevation", "land_fraction"),
    "climatology": ("climatology",),
    "none": (),
}
WARM_UP = 0.05  # share of the steps over which the learning rate rises


@dataclass(frozen=True)
class Trained:
    """A trained network with all that its use needs."""

    network: YNet
    statistics: Statistics
    history: pd.DataFrame  # index epoch: train, validation in (m3 m-3)2, learning_rate, seconds
    best_epoch: int
    precision: str = "float32"  # of the training
    cores: int = 1  # threads that the training used


def precision(setting):
    """``bfloat16`` where it is to be chosen and the processor computes in it, else ``float32``.

    Without units for it, bfloat16 costs accuracy and gains no time.
    """
    path = Path("/proc/cpuinfo")
    flags = set(path.read_text().split()) if path.exists() else set()
    has_units = bool(flags & {"amx_bf16", "avx512_bf16"})
    return "bfloat16" if setting == "auto" and has_units else "float32"


def masked_mse(estimate, target, valid):
    """Mean squared error over the valid cells."""
    return ((estimate - target) ** 2 * valid).sum() / valid.sum()


def learning_rate(network, step, steps):
    """Learning rate of a step: constant, or a linear warm-up and a half cosine to zero."""
    if network.schedule == "constant":
        return network.learning_rate
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return network.learning_rate * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return network.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def open_inputs(study, experiment_id):
    """What the network sees in an experiment, and what its output is added to.

    Returns
    -------
    predictors : xr.DataArray
        (source_id, time, lat, lon) on the coarse grid: theta in m3 m-3 or, of an anchored
        network, its anomalies from the training period, smoothed over years. A scenario
        continues the historical run of its source.
    auxiliary : xr.Dataset
        The fields on the fine grid that the preset names.
    anchor : xr.DataArray or None
        Of an anchored network, (time, lat, lon) in m3 m-3 on the fine grid: the climatology of
        the reference in the training period plus the mean of these anomalies.
    """
    preset, train = study.network, study.periods.train
    predictors, reference = open_predictors(study, experiment_id), open_reference(study)
    auxiliary = open_static(study)[list(AUXILIARY["static"])]
    if preset.auxiliary != "static":
        auxiliary = auxiliary.drop_vars(AUXILIARY["static"])
    if preset.auxiliary == "climatology":
        auxiliary["climatology"] = monthly_climatology(reference.sel(time=slice(*train)))
    if not preset.anchored:
        return predictors, auxiliary, None
    time = predictors["time"]
    if experiment_id != "historical":
        past = open_predictors(study, "historical")
        predictors = xr.concat([past, predictors], "time", join="exact")
    anomaly = anomalies(predictors, train_period=train, years=preset.smoothing).sel(time=time)
    anchor = with_climatology(anomaly, reference, train_period=train)
    return anomaly, auxiliary, anchor


def fit(study, *, resume=True):
    """Train the study's network, or each of its ensemble, on its training period.

    Parameters
    ----------
    study : Study
        Its prepared store must exist.
    resume : bool, default: True
        Go on from the last finished epoch, if there is one that saw the same data.

    Returns
    -------
    Trained
        With the weights of the epoch whose validation loss is lowest; of an ensemble the first
        network.

    Raises
    ------
    FloatingPointError
        If a loss is not finite; the last good checkpoint is kept.
    ValueError
        If a checkpoint is of another configuration.
    """
    for member in study.members[1:]:
        fit(member, resume=resume)
    study = study.members[0]
    preset = study.network
    predictors, fields, anchor = open_inputs(study, "historical")
    reference = open_reference(study) if anchor is None else open_reference(study) - anchor
    statistics = Statistics.fit(
        predictors,
        reference,
        fields,
        train_period=study.periods.train,
        standardisation=preset.standardisation,
    )
    if anchor is not None:  # an output of zero is the anchor
        statistics = replace(statistics, reference_mean=0.0)
    auxiliary = statistics.auxiliary(fields)

    def months(period):
        here = predictors.sel(time=slice(*period))
        month = month_index(here["time"], auxiliary)
        target = statistics.target(reference.sel(time=slice(*period)))
        return statistics.predictors(here), month, *target

    x, month, y, valid = months(study.periods.train)
    held_out = months(study.periods.validation)
    data = _digest(x, y, valid, *held_out, auxiliary)
    variance = statistics.reference_std**2  # brings losses to (m3 m-3)2

    *checkpoints, final, finished = _files(study)
    finished.unlink(missing_ok=True)
    found = (_read(study, path) for path in checkpoints if resume)
    checkpoint = next((one for one in found if one and one.metadata["data"] == data), None)
    chosen = checkpoint.metadata["precision"] if checkpoint else precision(preset.precision)
    report(f"training in {chosen}")

    torch.manual_seed(preset.seed)
    network = build(study)
    if chosen == "bfloat16":  # in float32 this layout is slower
        network = network.to(memory_format=torch.channels_last)
    optimiser = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[preset.optimiser](
        network.parameters(),
        lr=preset.learning_rate,
        weight_decay=preset.weight_decay,
        fused=True,
    )
    history = _restore(checkpoint, network, optimiser) if checkpoint else []
    best = min((row["validation"] for row in history), default=math.inf)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=chosen == "bfloat16")

    def losses_of(*tensors):
        return _loss(network, *tensors, auxiliary, preset.batch_size) * variance

    if anchor is not None and not history:  # the anchor itself takes part in the selection
        best = losses_of(*held_out)
        row = {"epoch": 0, "train": losses_of(x, month, y, valid), "validation": best}
        history = [row | {"learning_rate": 0.0, "seconds": 0.0}]
        _save(final, study, network, statistics, data, history, chosen)

    batches_per_epoch = math.ceil(len(x) / preset.batch_size)
    steps = preset.epochs * batches_per_epoch
    for epoch in range(history[-1]["epoch"] + 1 if history else 1, preset.epochs + 1):
        if _patience_over(history, preset.patience):
            break
        start = time.monotonic()
        # Order and dropout depend on seed and epoch alone, so resuming needs no random state.
        torch.manual_seed(1_000_003 * preset.seed + epoch)
        network.train()
        losses = 0.0
        for number, batch in enumerate(torch.randperm(len(x)).split(preset.batch_size)):
            rate = learning_rate(preset, (epoch - 1) * batches_per_epoch + number, steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with autocast:
                estimate = network(x[batch], auxiliary[month[batch]])
            loss = masked_mse(estimate.float(), y[batch], valid[batch])
            _check_finite(loss.item(), f"loss of epoch {epoch}, batch {number + 1},", rate)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses += loss.item() * len(batch)
        validation = losses_of(*held_out)
        _check_finite(validation, f"validation loss of epoch {epoch}", rate)
        row = {
            "epoch": epoch,
            "train": losses / len(x) * variance,
            "validation": validation,
            "learning_rate": rate,
            "seconds": time.monotonic() - start,
        }
        history.append(row)
        if validation < best:
            best = validation
            _save(final, study, network, statistics, data, history, chosen)
        last, previous = checkpoints
        if last.exists():
            os.replace(last, previous)
        _save(last, study, network, statistics, data, history, chosen, optimiser)
        report(
            f"epoch {epoch}/{preset.epochs}: loss {row['train']:.2e}, validation "
            f"{validation:.2e}, at most {duration(row['seconds'] * (preset.epochs - epoch))} left"
        )
    values = {"weights": sha256(final), "history": history, "network": preset.model_dump()}
    values |= {"precision": chosen, "cores": torch.get_num_threads()}
    write_json(values, finished)
    return load(study)


def load(study):
    """The trained network of a study, as `fit` returned it.

    Raises
    ------
    FileNotFoundError
        If its training has not finished.
    """
    *_, final, finished = _files(study)
    if not finished.exists():
        raise FileNotFoundError(f"{finished}: not trained yet; run chapter 02_ynet_training")
    checkpoint = _read(study, final)
    if checkpoint is None:
        raise ValueError(
            f"{final} is damaged or missing: remove {finished} and run chapter 02_ynet_training"
        )
    network = build(study)
    network.load_state_dict(checkpoint.state("network"))
    statistics = Statistics(**checkpoint.metadata["statistics"])
    values = json.loads(finished.read_text())
    history = pd.DataFrame(values["history"]).set_index("epoch")
    best = int(history["validation"].idxmin())
    how = {key: values[key] for key in ("precision", "cores")}
    return Trained(network.eval(), statistics, history, best, **how)


def build(study):
    """The untrained network of a study; its weights depend on torch's seed."""
    preset = study.network
    network = YNet(
        YNetConfig(
            in_channels=len(study.sources),
            auxiliary_channels=len(AUXILIARY[preset.auxiliary]),
            features=preset.features,
            depth=preset.depth,
            scale_factor=study.scale_factor,
            dropout=preset.dropout,
            clip_features=preset.clip_features,
            skips=preset.skips,
        )
    )
    if preset.initialisation == "he":
        initialise_he(network)
    if preset.anchored:  # untrained it is the anchor
        torch.nn.init.zeros_(network.output.weight)
        torch.nn.init.zeros_(network.output.bias)
    return network


@torch.no_grad()
def _loss(network, x, month, y, valid, auxiliary, batch_size):
    network.eval()
    squares = 0.0
    for batch in torch.arange(len(x)).split(batch_size):
        estimate = network(x[batch], auxiliary[month[batch]])
        squares += ((estimate - y[batch]) ** 2 * valid[batch]).sum().item()
    return squares / valid.sum().item()


def _patience_over(history, patience):
    if patience is None or not history:
        return False
    losses = [row["validation"] for row in history]
    return len(losses) - 1 - losses.index(min(losses)) >= patience


def _check_finite(loss, name, rate):
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the {name} is {loss} at learning rate {rate:.2g}: lower training.learning_rate in "
            "the profile; the checkpoint of the epoch before, if any, is kept"
        )


def _files(study):
    """The last epoch, the one before, the best one, and the history of a finished training."""
    names = ("last.safetensors", "previous.safetensors", "model.safetensors", "model.json")
    return [study.model / name for name in names]


def _digest(*tensors, text=""):
    """Fingerprint of tensors and a text."""
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _identity(study):
    """What a checkpoint must have in common with the study that goes on from it."""
    identity = study.network.model_dump() | {"sources": study.sources}
    identity |= {key: getattr(study.periods, key) for key in ("train", "validation")}
    return json.loads(json.dumps(identity))


def _save(path, study, network, statistics, data, history, chosen, optimiser=None):
    """One file with everything; JSON in the metadata of the safetensors."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    if optimiser is not None:
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
    metadata = {
        "history": history,
        "statistics": asdict(statistics),
        "network_config": asdict(network.config),
        "study": _identity(study),
        "data": data,
        "precision": chosen,
    }
    metadata = {key: json.dumps(value) for key, value in metadata.items()}
    metadata["checksum"] = _checksum(tensors, metadata)
    with replacing(path) as part:
        save_file({key: value.contiguous() for key, value in tensors.items()}, part, metadata)


def _checksum(tensors, metadata):
    text = "".join(f"{key}{metadata[key]}" for key in sorted(metadata))
    return _digest(*(tensors[key] for key in sorted(tensors)), text=text)


@dataclass(frozen=True)
class _Checkpoint:
    tensors: dict
    metadata: dict

    def state(self, prefix):
        """The tensors below a prefix."""
        return {
            key.removeprefix(f"{prefix}."): value
            for key, value in self.tensors.items()
            if key.startswith(f"{prefix}.")
        }


def _read(study, path):
    """A checkpoint, or None if there is none or it is damaged."""
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata())
        whole = metadata.pop("checksum") == _checksum(tensors, metadata)
        metadata = {key: json.loads(value) for key, value in metadata.items()}
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError):
        whole = False
    if not whole:
        report(f"{path} is damaged and not used")
        return None
    wanted = _identity(study)
    differ = [
        f"{key} {metadata['study'].get(key)!r} instead of {value!r}"
        for key, value in wanted.items()
        if metadata["study"].get(key) != value
    ]
    if differ:
        raise ValueError(
            f"{path} is of another configuration: {'; '.join(differ)}. Remove it, or give the "
            "study its own directory"
        )
    return _Checkpoint(tensors, metadata)


def _restore(checkpoint, network, optimiser):
    """Put a checkpoint into network and optimiser; return its history."""
    network.load_state_dict(checkpoint.state("network"))
    state = {}
    parameters = list(network.parameters())
    for key, value in checkpoint.state("optimiser").items():
        index, name = int(key.split(".")[0]), key.split(".")[1]
        if value.ndim:  # the optimiser expects the layout of the weights
            value = torch.empty_like(parameters[index]).copy_(value)
        state.setdefault(index, {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return checkpoint.metadata["history"]
