"""One training loop, and checkpoints from which it goes on exactly."""

import json
import math
import time
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from smcore.prepare import open_predictors, open_reference, open_static
from smcore.progress import duration, report
from smcore.store import replacing, write_json
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
        Go on from the last finished epoch, if there is one.

    Returns
    -------
    Trained
        With the weights of the epoch whose validation loss is lowest.

    Raises
    ------
    FloatingPointError
        If the loss is not finite; the last good checkpoint is kept.
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
    variance = statistics.reference_std**2  # brings losses to (m3 m-3)2

    torch.manual_seed(preset.seed)
    network = build(study)
    optimiser = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[preset.optimiser](
        network.parameters(), lr=preset.learning_rate, weight_decay=preset.weight_decay
    )
    history, best = [], math.inf
    last, final = study.model / "last.safetensors", study.model / "model.safetensors"
    if resume and last.exists():
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
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss.item()} in epoch {epoch}, batch {number + 1}, at learning "
                    f"rate {rate:.2g}: lower training.learning_rate; {last} holds the epoch before"
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses += loss.item() * len(batch)
        validation = _validation_loss(network, *held_out, auxiliary, preset.batch_size) * variance
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
            _save(final, study, network, statistics, history)
        _save(last, study, network, statistics, history, optimiser)
        report(
            f"epoch {epoch}/{preset.epochs}: loss {row['train']:.2e}, validation "
            f"{validation:.2e}, at most {duration(row['seconds'] * (preset.epochs - epoch))} left"
        )
    write_json({"history": history, "network": preset.model_dump()}, study.model / "model.json")
    return load(study)


def load(study):
    """The trained network of a study, as `fit` returned it.

    Raises
    ------
    FileNotFoundError
        If it has not been trained.
    """
    path, last = study.model / "model.safetensors", study.model / "last.safetensors"
    if not path.exists() or not last.exists():
        raise FileNotFoundError(f"{path}: not trained yet; run chapter 02_ynet_training")
    network = build(study)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        network.load_state_dict(
            {key.removeprefix("network."): file.get_tensor(key) for key in file.keys()}
        )
    with safe_open(last, "pt") as file:
        history = pd.DataFrame(json.loads(file.metadata()["history"])).set_index("epoch")
    statistics = Statistics(**json.loads(metadata["statistics"]))
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


def _save(path, study, network, statistics, history, optimiser=None):
    """One file with everything; JSON in the metadata of the safetensors."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    if optimiser is not None:
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
    metadata = {
        "history": json.dumps(history),
        "statistics": json.dumps(asdict(statistics)),
        "network_config": json.dumps(asdict(network.config)),
        "preset": study.network.model_dump_json(),
        "sources": json.dumps(study.sources),
        "periods": study.periods.model_dump_json(),
    }
    with replacing(path) as part:
        save_file({key: value.contiguous() for key, value in tensors.items()}, part, metadata)


def _restore(path, network, optimiser):
    """Put a checkpoint into network and optimiser; return its history."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        history = json.loads(file.metadata()["history"])
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
    return history
