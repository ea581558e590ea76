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
from itertools import count
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

from smcore import store
from smcore.config import Study
from smcore.machine import Workers, autocast_to, layout_of, precision
from smcore.prepared import open_reference, stored
from smcore.progress import duration, report
from smcore.tensors import AUXILIARY, Statistics, month_index, open_inputs
from smcore.ynet import YNet, YNetConfig, initialise_he

CHAPTER = "02_ynet_training"  # which trains
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

    A training that other code, settings or data have begun is set aside under another name.

    Parameters
    ----------
    study : Study
        Its prepared store must exist.
    resume : bool, default: True
        Go on from the last finished epoch, if there is one that saw the same data.

    Returns
    -------
    Trained
        With the weights of the lowest validation loss; of an ensemble the first network.

    Raises
    ------
    FloatingPointError
        If the loss is not finite or diverges; the last good checkpoint is kept.
    FileNotFoundError, ValueError
        If the prepared store is not there, or is damaged or out of date.
    """
    with Workers.gathered() as workers:
        for member in study.members:
            _fit(member, resume, workers)
    return load(study.members[0])


def _fit(study, resume, workers):
    preset, periods, writes = study.network, study.periods, workers.rank == 0
    say = report if writes else lambda text: None
    even, odd, final, finished = _files(study)
    made = _recipe(study)
    if writes:
        _set_aside(study, made, say)
        finished.unlink(missing_ok=True)
    workers.wait()
    checkpoint = _last([even, odd], made, say) if resume else {}
    how = {"precision": precision(preset.precision), "machine": workers.machine}
    how |= checkpoint.get("how", {})
    history = checkpoint.get("history", [])
    say(f"training in {how['precision']} on {workers.machine}")

    predictors, fields, anchor = open_inputs(study, "historical")
    reference = open_reference(study) if anchor is None else open_reference(study) - anchor
    if checkpoint:
        statistics = Statistics(**checkpoint["statistics"])
    else:
        options = {"train_period": periods.train, "standardisation": preset.standardisation}
        statistics = Statistics.fit(predictors, reference, fields, **options)
        if anchor is not None:  # an output of zero is the anchor
            statistics = replace(statistics, reference_mean=0.0)
    variance = statistics.reference_std**2  # brings losses to (m3 m-3)2
    auxiliary = statistics.auxiliary(fields)

    def months(period):
        here, target = (one.sel(time=slice(*period)) for one in (predictors, reference))
        inputs = statistics.predictors(here), month_index(here["time"], auxiliary)
        return [tensor.to(workers.device) for tensor in (*inputs, *statistics.target(target))]

    x, month, y, valid = months(periods.train)
    held_out = months(periods.validation)
    zero = masked_mse(torch.zeros_like(y), y, valid).item()
    layout, autocast = layout_of(how["precision"]), autocast_to(how["precision"])
    x, auxiliary = (one.to(workers.device, memory_format=layout) for one in (x, auxiliary))
    torch.manual_seed(preset.seed)
    network = build(study).to(workers.device, memory_format=layout)
    parallel = DistributedDataParallel(network) if workers.count > 1 else network
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[preset.optimiser]
    optimiser = kind(network.parameters(), weight_decay=preset.weight_decay, fused=True)
    if checkpoint:
        _restore(checkpoint, network, optimiser)

    def loss_over(*tensors):
        with autocast:
            return _loss(network, *tensors, auxiliary, preset.batch_size, workers) * variance

    def save(path, optimiser=None):
        if writes:
            _save(path, made, network, statistics, history, how, optimiser)

    if anchor is not None and not history:  # the anchor itself takes part in the selection
        row = {"train": loss_over(x, month, y, valid), "validation": loss_over(*held_out)}
        history.append({"epoch": 0, **row, "learning_rate": 0.0, "seconds": 0.0})
        save(final)

    nothing = {"epoch": 0, "validation": math.inf}
    batches_per_epoch = math.ceil(len(x) / preset.batch_size)
    steps = preset.epochs * batches_per_epoch
    for epoch in range((history or [nothing])[-1]["epoch"] + 1, preset.epochs + 1):
        best = min(history, key=lambda row: row["validation"], default=nothing)
        if epoch - 1 - best["epoch"] >= (preset.patience or math.inf):
            break
        start = time.monotonic()
        # Order and dropout depend on seed and epoch alone, so resuming needs no random state.
        torch.manual_seed(1_000_003 * preset.seed + epoch)
        order = torch.randperm(len(x))
        pairs = _paired(order, preset.pairing)
        batches = zip(order.split(preset.batch_size), pairs.split(preset.batch_size))
        torch.manual_seed(torch.initial_seed() + 500_009 * workers.rank)
        parallel.train()
        losses = 0.0
        for number, (batch, target) in enumerate(batches):
            rate = learning_rate(preset, (epoch - 1) * batches_per_epoch + number, steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            mine, aim = map(workers.share, (batch, target))
            share = valid[aim].sum() / valid[target].sum()
            if not len(mine):  # all must take part; this one counts nothing
                mine, aim = batch[:1], target[:1]
            with autocast:
                estimate = parallel(x[mine], auxiliary[month[mine]])
            loss = masked_mse(estimate.float(), y[aim], valid[aim]) * share
            total = workers.total(loss.item())
            name = f"loss of epoch {epoch}, batch {number + 1},"
            _check(total, name, rate, limit=DIVERGED * zero or math.inf)
            optimiser.zero_grad()
            (loss * workers.count).backward()  # the gradients are averaged
            optimiser.step()
            losses += total * len(batch)
        validation = loss_over(*held_out)
        _check(validation, f"validation loss of epoch {epoch}", rate)
        row = {"epoch": epoch, "train": losses / len(x) * variance, "validation": validation}
        row |= {"learning_rate": rate, "seconds": time.monotonic() - start}
        history.append(row)
        if validation < best["validation"]:
            save(final)
        if epoch in SHOWN:
            save(study.model / f"epoch{epoch}.safetensors")
        save(odd if epoch % 2 else even, optimiser)  # one of the two is always whole
        text = f"loss {row['train']:.2e}, validation {validation:.2e}"
        left = duration(row["seconds"] * (preset.epochs - epoch))
        say(f"epoch {epoch}/{preset.epochs}: {text}, at most {left} left")
    if writes:
        store.write_json({"history": history} | how, finished, _recipe(study, final))
    workers.wait()


def load(study, *, epoch=None):
    """The trained network of a study, or as it was after an epoch, the last or one of `SHOWN`.

    FileNotFoundError if the training has not finished, ValueError if what it left is damaged or
    out of date; both name the chapter to run.
    """
    even, odd, weights, finished = _files(study)
    path = store.checked(weights, CHAPTER, study=study)
    values = json.loads(store.checked(finished, CHAPTER, study=study).read_text())
    history = pd.DataFrame(values.pop("history")).set_index("epoch")
    if epoch is not None:
        last = odd if epoch % 2 else even
        path = last if epoch == history.index[-1] else study.model / f"epoch{epoch}.safetensors"
    checkpoint = _open(store.checked(path, CHAPTER, study=study))
    network = build(study)
    network.load_state_dict(checkpoint["network"])
    best = int(history["validation"].idxmin())
    return Trained(network.eval(), Statistics(**checkpoint["statistics"]), history, best, **values)


def build(study):
    """The untrained network of a study; its weights depend on torch's seed."""
    preset = study.network
    sizes = preset.model_dump(include={"features", "depth", "dropout", "clip_features", "skips"})
    channels = len(study.sources), len(AUXILIARY[preset.auxiliary])
    network = YNet(YNetConfig(*channels, scale_factor=study.scale_factor, **sizes))
    if preset.initialisation == "he":
        initialise_he(network)
    if preset.anchored:  # untrained it is the anchor
        torch.nn.init.zeros_(network.output.weight)
        torch.nn.init.zeros_(network.output.bias)
    return network


@torch.no_grad()
def _loss(network, x, month, y, valid, auxiliary, batch_size, workers):
    """Mean squared error over all valid cells, in the units of `y`."""
    network.eval()
    squares = 0.0
    for batch in workers.share(torch.arange(len(x))).split(batch_size):
        estimate = network(x[batch], auxiliary[month[batch]]).float()
        squares += ((estimate - y[batch]) ** 2 * valid[batch]).sum().item()
    return workers.total(squares) / valid.sum().item()


def _paired(months, years):
    """For each position of a month in whole years the same month of a year at most `years` away.

    Free-running models share no weather with the reference: such a pair is as good as of one date.
    """
    year = months // 12
    first, last = (year - years).clamp(min=0), (year + years).clamp(max=len(months) // 12 - 1)
    other = first + (torch.rand(months.shape) * (last - first + 1)).long()
    return months + 12 * (other - year)


def _check(loss, name, rate, limit=math.inf):
    if not loss < limit:
        text = f"the {name} is {loss:.3g} at learning rate {rate:.2g}, and the training diverges"
        remedy = "lower training.learning_rate in the profile; what earlier epochs left is kept"
        raise FloatingPointError(f"{text}: {remedy}")


def _files(study):
    """The last even epoch, the last odd one, the best, and the history of a finished training."""
    names = ("even.safetensors", "odd.safetensors", "model.safetensors", "model.json")
    return [study.model / name for name in names]


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
    if not differ and any(map(Path.exists, checkpoints)) and not store.whole(checkpoints[2]):
        differ = ["its best weights, which are damaged or without a record"]
    if differ:
        model = study.model
        names = (model.with_name(f"{model.name}.{number}") for number in count(1))
        aside = model.rename(next(name for name in names if not name.exists()))
        say(f"{model} differs in {differ[0]}: set aside as {aside.name}, training starts anew")


def _save(path, made, network, statistics, history, how, optimiser=None):
    """One file with everything: tensors, and JSON in the metadata of the safetensors."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    for index, state in (optimiser.state_dict()["state"] if optimiser else {}).items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
    tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
    metadata = {"history": history, "how": how, "settings": made["settings"]}
    metadata |= {"statistics": asdict(statistics), "network_config": asdict(network.config)}
    with store.keeping(path, made) as part:
        save_file(tensors, part, {key: json.dumps(value) for key, value in metadata.items()})


def _open(path):
    """What `_save` has written: the metadata, and the tensors in ``network`` and ``optimiser``."""
    found = {"network": {}, "optimiser": {}}
    with safe_open(path, "pt") as file:
        for name in file.offset_keys():
            kind, key = name.split(".", 1)
            found[kind][key] = file.get_tensor(name)
        return found | {key: json.loads(value) for key, value in file.metadata().items()}


def _last(paths, made, say):
    """The checkpoint of the latest epoch that is whole, empty if there is none."""
    found = []
    for path in paths:
        if store.fresh(path, made):
            found.append(_open(path))
        elif path.exists():
            say(f"{path} is damaged and not used")
    return max(found, key=lambda one: one["history"][-1]["epoch"], default={})


def _restore(checkpoint, network, optimiser):
    """Put a checkpoint into network and optimiser."""
    network.load_state_dict(checkpoint["network"])
    state, parameters = {}, list(network.parameters())
    for key, value in checkpoint["optimiser"].items():
        index, name = key.split(".")
        if value.ndim:  # the optimiser expects the layout of the weights
            value = torch.empty_like(parameters[int(index)]).copy_(value)
        state.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the network of a study.")
    parser.add_argument("--profile", default="demo", help="name of a profile, or a .yml file")
    fit(Study.load(parser.parse_args().profile))
