"""One training loop, and checkpoints from which it goes on exactly.

    python -m smcore.training --profile demo
    torchrun --nproc-per-node 2 -m smcore.training --profile demo

The second shares each batch among processes, on processor cores (gloo) or graphics cards (nccl).
"""

import argparse
import contextlib
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
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from smcore.baselines import anomalies, with_climatology
from smcore.config import Study
from smcore.prepared import open_predictors, open_reference, open_static
from smcore.progress import duration, report
from smcore.seasons import monthly_climatology
from smcore.store import replacing, sha256, write_json
from smcore.tensors import Statistics, month_index
from smcore.ynet import YNet, YNetConfig, initialise_he

AUXILIARY = {
    "static": ("elevation", "land_fraction"),
    "climatology": ("climatology",),
    "none": (),
}
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


def precision(setting):
    """``bfloat16`` where it is to be chosen and the machine computes in it, else ``float32``.

    Without units for it, bfloat16 costs accuracy and gains no time.
    """
    if torch.cuda.is_available():
        has_units = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        path = Path("/proc/cpuinfo")
        flags = set(path.read_text().split()) if path.exists() else set()
        has_units = bool(flags & {"amx_bf16", "avx512_bf16"})
    return "bfloat16" if setting == "auto" and has_units else "float32"


def layout_of(chosen):
    """Layout of images in memory that is fast in this precision: in float32 channels come first."""
    return torch.channels_last if chosen == "bfloat16" else torch.contiguous_format


def autocast_to(chosen):
    """Context that computes in this precision."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=chosen == "bfloat16")


@dataclass(frozen=True)
class _Workers:
    """The processes that share a training, each with its device."""

    rank: int
    count: int
    device: torch.device

    @classmethod
    @contextlib.contextmanager
    def gathered(cls):
        """This process alone, or all that torchrun started."""
        rank, local, count = (
            int(os.environ.get(name, default))
            for name, default in [("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1)]
        )
        on_cards = torch.cuda.is_available()
        device = torch.device("cuda", local) if on_cards else torch.device("cpu")
        if on_cards:
            torch.cuda.set_device(device)
            torch.backends.cudnn.allow_tf32 = False  # float32 shall mean float32
        if count > 1:
            distributed.init_process_group("nccl" if on_cards else "gloo")
        try:
            yield cls(rank, count, device)
        finally:
            if count > 1:
                distributed.destroy_process_group()

    @property
    def first(self):
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    @property
    def machine(self):
        """What they compute on, in words."""
        if self.device.type == "cuda":
            return f"{self.count} x {torch.cuda.get_device_name(self.device)}"
        cores = self.count * torch.get_num_threads()
        return f"{cores} processor core{'s' if cores > 1 else ''}"

    def together(self, network):
        """The network with gradients averaged over the processes."""
        return DistributedDataParallel(network) if self.count > 1 else network

    def share(self, indices):
        """Those of the indices that are for this process."""
        return indices[self.rank :: self.count]

    def total(self, value):
        """Sum of a number over the processes."""
        if self.count == 1:
            return value
        value = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(value)
        return value.item()

    def wait(self):
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()


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
        If the loss is not finite or diverges; the last good checkpoint is kept.
    ValueError
        If a checkpoint is of another configuration.
    """
    with _Workers.gathered() as workers:
        for member in study.members:
            _fit(member, resume, workers)
    return load(study.members[0])


def _fit(study, resume, workers):
    preset, say = study.network, report if workers.first else lambda text: None
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

    train, held_out = months(study.periods.train), months(study.periods.validation)
    data = _digest(*train, *held_out, auxiliary)
    variance = statistics.reference_std**2  # brings losses to (m3 m-3)2

    *checkpoints, final, finished = _files(study)
    found = (_read(study, path) for path in checkpoints if resume)
    checkpoint = next((one for one in found if one and one.metadata["data"] == data), None)
    how = {"precision": precision(preset.precision), "machine": workers.machine}
    if checkpoint:
        how = checkpoint.metadata["how"]
    chosen = how["precision"]
    if workers.first:
        finished.unlink(missing_ok=True)
    say(f"training in {chosen} on {workers.machine}")

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
            _save(path, study, network, statistics, data, history, how, **more)

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
        last, previous = checkpoints
        if workers.first and last.exists():
            os.replace(last, previous)
        save(last, optimiser=optimiser)
        say(
            f"epoch {epoch}/{preset.epochs}: loss {row['train']:.2e}, validation "
            f"{validation:.2e}, at most {duration(row['seconds'] * (preset.epochs - epoch))} left"
        )
    if workers.first:
        values = {"weights": sha256(final), "history": history, "network": preset.model_dump()}
        write_json(values | how, finished)
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
        If its weights are damaged or missing.
    """
    last, _, path, finished = _files(study)
    if not finished.exists():
        raise FileNotFoundError(f"{finished}: not trained yet; run chapter 02_ynet_training")
    values = json.loads(finished.read_text())
    history = pd.DataFrame(values["history"]).set_index("epoch")
    if epoch is not None:
        path = last if epoch == history.index[-1] else _shown(study, epoch)
    checkpoint = _read(study, path)
    if checkpoint is None:
        raise ValueError(
            f"{path} is damaged or missing: remove {finished.parent} and run chapter "
            "02_ynet_training"
        )
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
    """The last epoch, the one before, the best one, and the history of a finished training."""
    names = ("last.safetensors", "previous.safetensors", "model.safetensors", "model.json")
    return [study.model / name for name in names]


def _shown(study, epoch):
    return study.model / f"epoch{epoch}.safetensors"


def _digest(*tensors, text=""):
    """Fingerprint of tensors and a text."""
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _identity(study):
    """What a checkpoint must have in common with the study that goes on from it."""
    identity = study.network.model_dump() | {"sources": study.sources}
    identity |= {key: getattr(study.periods, key) for key in ("train", "validation")}
    return json.loads(json.dumps(identity))


def _save(path, study, network, statistics, data, history, how, optimiser=None):
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
        "study": _identity(study),
        "data": data,
        "how": how,
    }
    metadata = {key: json.dumps(value) for key, value in metadata.items()}
    metadata["checksum"] = _checksum(tensors, metadata)
    with replacing(path) as part:
        save_file(tensors, part, metadata)


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the network of a study.")
    parser.add_argument("--profile", default="demo", help="name of a profile, or a .yml file")
    fit(Study.load(parser.parse_args().profile))
