"""One training loop, and checkpoints from which it goes on exactly.

    python -m smcore.training --profile demo
    torchrun --nproc-per-node 2 -m smcore.training --profile demo

The second shares each batch among processes, on processor cores (gloo) or graphics cards (nccl).
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, replace

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from smcore import store
from smcore.config import Study
from smcore.machine import Workers, autocast_to, layout_of, precision
from smcore.prepared import open_reference, stored
from smcore.progress import duration, report
from smcore.tensors import AUXILIARY, Statistics, month_index, open_inputs
from smcore.ynet import YNet, YNetConfig, initialise_he

WARM_UP = 0.05  # share of the steps over which the learning rate rises
DIVERGED = 100  # times the loss of an output of zero
SHOWN = (1, 5)  # epochs whose weights are kept beside the best, to show how the network learns


@dataclass(frozen=True)
class Trained:
    """A trained network with all that its use needs."""

    network: YNet
    statistics: Statistics
    history: pd.DataFrame  # index epoch: train, validation in (m3 m-3)2, learning_rate, seconds
    best_epoch: int
    precision: str  # of the training
    machine: str  # what it ran on


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
        If the loss is not finite or diverges; the last good checkpoint is kept.
    FileNotFoundError, ValueError
        If the prepared store is not there, or is damaged or out of date.

    Notes
    -----
    A training that other code, settings or data have begun is set aside under another name.
    """
    with Workers.gathered() as workers:
        for member in study.members:
            _fit(member, resume, workers)
    return load(study.members[0])


def _fit(study, resume, workers):
    preset, say = study.network, report if workers.first else lambda text: None
    even, odd, final, finished = _files(study)
    made = _recipe(study)
    if workers.first:
        _set_aside(study, made, say)
    workers.wait()
    found = [_read(path, made, say) for path in (even, odd) if resume]
    checkpoint = max(filter(None, found), key=lambda one: one.epoch, default=None)
    how = {"precision": precision(preset.precision), "machine": workers.machine}
    if checkpoint:
        how = checkpoint.metadata["how"]
    chosen = how["precision"]
    if workers.first:
        finished.unlink(missing_ok=True)
    say(f"training in {chosen} on {workers.machine}")

    predictors, fields, anchor = open_inputs(study, "historical")
    reference = open_reference(study) if anchor is None else open_reference(study) - anchor
    if checkpoint:
        statistics = Statistics(**checkpoint.metadata["statistics"])
    else:
        statistics = Statistics.fit(
            predictors,
            reference,
            fields,
            train_period=study.periods.train,
            standardisation=preset.standardisation,
        )
        if anchor is not None:  # an output of zero is the anchor
            statistics = replace(statistics, reference_mean=0.0)
    variance = statistics.reference_std**2  # brings losses to (m3 m-3)2
    auxiliary = statistics.auxiliary(fields)

    def months(period):
        here = predictors.sel(time=slice(*period))
        month = month_index(here["time"], auxiliary)
        target = statistics.target(reference.sel(time=slice(*period)))
        return statistics.predictors(here), month, *target

    train, held_out = months(study.periods.train), months(study.periods.validation)

    layout = layout_of(chosen)
    auxiliary = auxiliary.to(workers.device, memory_format=layout)
    x, month, y, valid = (tensor.to(workers.device) for tensor in train)
    held_out = [tensor.to(workers.device) for tensor in held_out]
    zero = masked_mse(torch.zeros_like(y), y, valid).item()
    x = x.to(memory_format=layout)
    torch.manual_seed(preset.seed)
    network = build(study).to(workers.device, memory_format=layout)
    parallel = workers.together(network)
    optimiser = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[preset.optimiser](
        network.parameters(),
        lr=preset.learning_rate,
        weight_decay=preset.weight_decay,
        fused=True,
    )
    history = _restore(checkpoint, network, optimiser) if checkpoint else []
    best = min((row["validation"] for row in history), default=math.inf)
    autocast = autocast_to(chosen)

    def loss_over(*tensors):
        with autocast:
            return _loss(network, *tensors, auxiliary, preset.batch_size, workers) * variance

    def save(path, **more):
        if workers.first:
            _save(path, made, network, statistics, history, how, **more)

    if anchor is not None and not history:  # the anchor itself takes part in the selection
        best = loss_over(*held_out)
        row = {"epoch": 0, "train": loss_over(x, month, y, valid), "validation": best}
        history = [row | {"learning_rate": 0.0, "seconds": 0.0}]
        save(final)

    batches_per_epoch = math.ceil(len(x) / preset.batch_size)
    steps = preset.epochs * batches_per_epoch
    for epoch in range(history[-1]["epoch"] + 1 if history else 1, preset.epochs + 1):
        if _patience_over(history, preset.patience):
            break
        start = time.monotonic()
        # Order and dropout depend on seed and epoch alone, so resuming needs no random state.
        torch.manual_seed(1_000_003 * preset.seed + epoch)
        order = torch.randperm(len(x))
        orders = order, _paired(order, preset.pairing)
        batches = zip(*(months.split(preset.batch_size) for months in orders), strict=True)
        torch.manual_seed(torch.initial_seed() + 500_009 * workers.rank)
        parallel.train()
        losses = 0.0
        for number, (batch, target) in enumerate(batches):
            rate = learning_rate(preset, (epoch - 1) * batches_per_epoch + number, steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            mine, aim = workers.share(batch), workers.share(target)
            share = valid[aim].sum() / valid[target].sum()
            if not len(mine):  # all must take part; this one counts nothing
                mine, aim = batch[:1], target[:1]
            with autocast:
                estimate = parallel(x[mine], auxiliary[month[mine]])
            loss = masked_mse(estimate.float(), y[aim], valid[aim]) * share
            name = f"loss of epoch {epoch}, batch {number + 1},"
            total = workers.total(loss.item())
            _check(total, name, rate, limit=DIVERGED * zero or math.inf)
            optimiser.zero_grad()
            (loss * workers.count).backward()  # the gradients are averaged
            optimiser.step()
            losses += total * len(batch)
        validation = loss_over(*held_out)
        _check(validation, f"validation loss of epoch {epoch}", rate)
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
            save(final)
        if epoch in SHOWN:
            save(_shown(study, epoch))
        save(odd if epoch % 2 else even, optimiser=optimiser)  # one of the two is always whole
        say(
            f"epoch {epoch}/{preset.epochs}: loss {row['train']:.2e}, validation "
            f"{validation:.2e}, at most {duration(row['seconds'] * (preset.epochs - epoch))} left"
        )
    if workers.first:
        values = {
            "weights": store.sha256(final),
            "history": history,
            "network": preset.model_dump(),
        }
        store.write_json(values | how, finished, _recipe(study, final))
    workers.wait()


def load(study, *, epoch=None):
    """The trained network of a study, as `fit` returned it.

    Parameters
    ----------
    study : Study
        Of an ensemble one of its members.
    epoch : int, optional
        The network as it was after this epoch, the last one or one of `SHOWN`.

    Raises
    ------
    FileNotFoundError
        If its training has not finished.
    ValueError
        If its weights are damaged, or older than the code, the settings or the data.
    """
    even, odd, path, finished = _files(study)
    chapter = "02_ynet_training"
    values = json.loads(store.checked(finished, chapter, study=study).read_text())
    history = pd.DataFrame(values["history"]).set_index("epoch")
    if epoch is not None:
        last = odd if epoch % 2 else even
        path = last if epoch == history.index[-1] else _shown(study, epoch)
    checkpoint = _Checkpoint.load(store.checked(path, chapter, study=study))
    network = build(study)
    network.load_state_dict(checkpoint.state("network"))
    statistics = Statistics(**checkpoint.metadata["statistics"])
    best = int(history["validation"].idxmin())
    how = {key: values[key] for key in ("precision", "machine")}
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
def _loss(network, x, month, y, valid, auxiliary, batch_size, workers):
    network.eval()
    squares = 0.0
    for batch in workers.share(torch.arange(len(x))).split(batch_size):
        estimate = network(x[batch], auxiliary[month[batch]]).float()
        squares += ((estimate - y[batch]) ** 2 * valid[batch]).sum().item()
    return workers.total(squares) / valid.sum().item()


def _paired(months, years):
    """For each month the same one of another year, at most so many years away.

    `months` are positions in whole years, each once. Free-running models and the reference share
    the season and the slow change but no weather: such a pair is as good as that of one date.
    """
    year = months // 12
    first, last = (year - years).clamp(min=0), (year + years).clamp(max=len(months) // 12 - 1)
    other = first + (torch.rand(months.shape) * (last - first + 1)).long()
    return months + 12 * (other - year)


def _patience_over(history, patience):
    if patience is None or not history:
        return False
    losses = [row["validation"] for row in history]
    return len(losses) - 1 - losses.index(min(losses)) >= patience


def _check(loss, name, rate, limit=math.inf):
    if not loss < limit:
        raise FloatingPointError(
            f"the {name} is {loss:.3g} at learning rate {rate:.2g}, and the training diverges: "
            "lower training.learning_rate in the profile; the checkpoint of the epoch before, if "
            "any, is kept"
        )


def _files(study):
    """The last even epoch, the last odd one, the best, and the history of a finished training."""
    names = ("even.safetensors", "odd.safetensors", "model.safetensors", "model.json")
    return [study.model / name for name in names]


def _shown(study, epoch):
    return study.model / f"epoch{epoch}.safetensors"


def _recipe(study, *more):
    """What a training depends on: the prepared months, its settings, and the code."""
    names = ["reference.nc", "static.nc", *(f"theta_{one}_historical.nc" for one in study.sources)]
    settings = study.settings("sources", "network", "periods.train", "periods.validation")
    inputs = [*(stored(study, name) for name in names), *more]
    return store.recipe("training", settings=settings, inputs=inputs)


def _set_aside(study, made, say):
    """Give another name to the folder of a training that this one cannot go on from."""
    checkpoints, wanted = _files(study)[:3], store.beside(made, study.model / "any")
    found = [store.recorded(path)["recipe"] for path in checkpoints if store.whole(path)]
    differ = [store.differences(one, wanted) for one in found if one != wanted]
    if found and not differ and not store.whole(checkpoints[2]):
        differ = ["its best weights, which are damaged"]
    if not differ:
        return
    number = 1
    while (aside := study.model.with_name(f"{study.model.name}.{number}")).exists():
        number += 1
    study.model.rename(aside)
    say(f"{study.model} differs in {differ[0]}: set aside as {aside.name}, training starts anew")


def _save(path, made, network, statistics, history, how, optimiser=None):
    """One file with everything; JSON in the metadata of the safetensors."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    if optimiser is not None:
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
    tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
    metadata = {
        "history": history,
        "statistics": asdict(statistics),
        "network_config": asdict(network.config),
        "settings": made["settings"],
        "how": how,
    }
    with store.keeping(path, made) as part:
        save_file(tensors, part, {key: json.dumps(value) for key, value in metadata.items()})


@dataclass(frozen=True)
class _Checkpoint:
    tensors: dict
    metadata: dict

    @classmethod
    def load(cls, path):
        with safe_open(path, "pt") as file:
            metadata = {key: json.loads(value) for key, value in file.metadata().items()}
        return cls(load_file(path), metadata)

    @property
    def epoch(self):
        return self.metadata["history"][-1]["epoch"]

    def state(self, prefix):
        """The tensors below a prefix."""
        return {
            key.removeprefix(f"{prefix}."): value
            for key, value in self.tensors.items()
            if key.startswith(f"{prefix}.")
        }


def _read(path, made, say):
    """A checkpoint, or None if there is none or it is damaged."""
    if store.fresh(path, made):
        return _Checkpoint.load(path)
    if path.exists():
        say(f"{path} is damaged and not used")
    return None


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the network of a study.")
    parser.add_argument("--profile", default="demo", help="name of a profile, or a .yml file")
    fit(Study.load(parser.parse_args().profile))
