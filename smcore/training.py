"""One training loop, and checkpoints from which it goes on exactly."""

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from smcore.prepare import open_predictors, open_reference, open_static
from smcore.progress import duration, report
from smcore.store import replacing, sha256, write_json
from smcore.tensors import AUXILIARY, Statistics
from smcore.ynet import YNet, YNetConfig, initialise_he

WARM_UP = 0.05  # share of the steps over which the learning rate rises


@dataclass(frozen=True)
class Trained:
    """A trained network with all that its use needs."""

    network: YNet
    statistics: Statistics
    history: pd.DataFrame  # index epoch: train, validation in (m3 m-3)2, learning_rate, seconds
    best_epoch: int


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


def fit(study, *, resume=True):
    """Train the study's network on its training period.

    Parameters
    ----------
    study : Study
        Its prepared store must exist.
    resume : bool, default: True
        Go on from the last finished epoch, if there is one that saw the same data.

    Returns
    -------
    Trained
        With the weights of the epoch whose validation loss is lowest.

    Raises
    ------
    FloatingPointError
        If a loss is not finite; the last good checkpoint is kept.
    """
    preset = study.network
    predictors = open_predictors(study, "historical")
    reference, static = open_reference(study), open_static(study)
    statistics = Statistics.fit(
        predictors,
        reference,
        static,
        train_period=study.periods.train,
        standardisation=preset.standardisation,
    )
    auxiliary = statistics.auxiliary(static)

    def months(period):
        x = statistics.predictors(predictors.sel(time=slice(*period)))
        return x, *statistics.target(reference.sel(time=slice(*period)))

    train_x, train_y, train_valid = months(study.periods.train)
    held_out = months(study.periods.validation)
    data = _digest(train_x, train_y, train_valid, *held_out, auxiliary)
    variance = statistics.reference_std**2  # brings losses to (m3 m-3)2

    torch.manual_seed(preset.seed)
    network = build(study)
    optimiser = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[preset.optimiser](
        network.parameters(), lr=preset.learning_rate, weight_decay=preset.weight_decay
    )
    history, best = [], math.inf
    last, final, finished = _files(study)
    finished.unlink(missing_ok=True)
    if resume and last.exists() and _metadata(last).get("data") == data:
        history = _restore(last, network, optimiser)
        best = min(row["validation"] for row in history)

    batches_per_epoch = math.ceil(len(train_x) / preset.batch_size)
    steps = preset.epochs * batches_per_epoch
    for epoch in range(len(history) + 1, preset.epochs + 1):
        if _patience_over(history, preset.patience):
            break
        start = time.monotonic()
        # Order and dropout depend on seed and epoch alone, so resuming needs no random state.
        torch.manual_seed(1_000_003 * preset.seed + epoch)
        network.train()
        losses = 0.0
        for number, batch in enumerate(torch.randperm(len(train_x)).split(preset.batch_size)):
            rate = learning_rate(preset, (epoch - 1) * batches_per_epoch + number, steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            estimate = network(train_x[batch], auxiliary.expand(len(batch), -1, -1, -1))
            loss = masked_mse(estimate, train_y[batch], train_valid[batch])
            _check_finite(loss.item(), f"loss of epoch {epoch}, batch {number + 1},", rate)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses += loss.item() * len(batch)
        validation = _validation_loss(network, *held_out, auxiliary, preset.batch_size) * variance
        _check_finite(validation, f"validation loss of epoch {epoch}", rate)
        row = {
            "epoch": epoch,
            "train": losses / len(train_x) * variance,
            "validation": validation,
            "learning_rate": rate,
            "seconds": time.monotonic() - start,
        }
        history.append(row)
        if validation < best:
            best = validation
            _save(final, study, network, statistics, data, history)
        _save(last, study, network, statistics, data, history, optimiser)
        report(
            f"epoch {epoch}/{preset.epochs}: loss {row['train']:.2e}, validation "
            f"{validation:.2e}, at most {duration(row['seconds'] * (preset.epochs - epoch))} left"
        )
    values = {"weights": sha256(final), "history": history, "network": preset.model_dump()}
    write_json(values, finished)
    return load(study)


def load(study):
    """The trained network of a study, as `fit` returned it.

    Raises
    ------
    FileNotFoundError
        If its training has not finished.
    """
    _, final, finished = _files(study)
    if not finished.exists():
        raise FileNotFoundError(f"{finished}: not trained yet; run chapter 02_ynet_training")
    network = build(study)
    network.load_state_dict(
        {key.removeprefix("network."): value for key, value in load_file(final).items()}
    )
    statistics = Statistics(**_metadata(final)["statistics"])
    history = pd.DataFrame(json.loads(finished.read_text())["history"]).set_index("epoch")
    return Trained(network.eval(), statistics, history, int(history["validation"].idxmin()))


def build(study):
    """The untrained network of a study; its weights depend on torch's seed."""
    preset = study.network
    network = YNet(
        YNetConfig(
            in_channels=len(study.sources),
            auxiliary_channels=len(AUXILIARY),
            features=preset.features,
            depth=preset.depth,
            scale_factor=study.scale_factor,
            dropout=preset.dropout,
            clip_features=preset.clip_features,
        )
    )
    if preset.initialisation == "he":
        initialise_he(network)
    return network.to(memory_format=torch.channels_last)


@torch.no_grad()
def _validation_loss(network, x, y, valid, auxiliary, batch_size):
    network.eval()
    squares = 0.0
    for batch in torch.arange(len(x)).split(batch_size):
        estimate = network(x[batch], auxiliary.expand(len(batch), -1, -1, -1))
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
    """The last epoch, the best one, and the history that is written when training has finished."""
    return [study.model / name for name in ("last.safetensors", "model.safetensors", "model.json")]


def _digest(*tensors):
    """Fingerprint of what the network is trained on."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _save(path, study, network, statistics, data, history, optimiser=None):
    """One file with everything; JSON in the metadata of the safetensors."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    if optimiser is not None:
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
    metadata = {
        "history": history,
        "statistics": asdict(statistics),
        "network_config": asdict(network.config),
        "preset": study.network.model_dump(),
        "sources": study.sources,
        "periods": study.periods.model_dump(),
        "data": data,
    }
    metadata = {key: json.dumps(value) for key, value in metadata.items()}
    with replacing(path) as part:
        save_file({key: value.contiguous() for key, value in tensors.items()}, part, metadata)


def _metadata(path):
    with safe_open(path, "pt") as file:
        return {key: json.loads(value) for key, value in file.metadata().items()}


def _restore(path, network, optimiser):
    """Put a checkpoint into network and optimiser; return its history."""
    tensors = load_file(path)
    network.load_state_dict(
        {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    )
    state = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return _metadata(path)["history"]
