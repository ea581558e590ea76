import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from smcore import store, training
from smcore.baselines import delta_change
from smcore.config import PROFILES, Study
from smcore.machine import Workers, precision
from smcore.prepared import open_predictors, open_reference, open_static
from smcore.profile import NETWORKS
from smcore.store import recorded, write_dataset
from smcore.tensors import Statistics, month_index
from smcore.training import build, fit, learning_rate, load, masked_mse, open_inputs
from smcore.ynet import YNet, YNetConfig

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "features": 4,
    "depth": 2,
    "epochs": 4,
    "batch_size": 30,
    "precision": "float32",
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small networks are slower on two threads when something else runs beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_study(prepared_study, tmp_path):
    """The prepared study with a smaller network; each call has a directory of its own."""

    def make_study(folder="study", **network):
        directory = tmp_path / folder
        directory.mkdir(exist_ok=True)
        if not (directory / "prepared").exists():
            (directory / "prepared").symlink_to(prepared_study.prepared.parent)
        network = prepared_study.network.model_copy(update=SMALL | network)
        return prepared_study.model_copy(update={"directory": directory, "network": network})

    return make_study


def copy_prepared(study):
    """Give a study a prepared store that a test may change."""
    link = study.directory / "prepared"
    target = link.resolve()
    link.unlink()
    shutil.copytree(target, link)


def made_as(path):
    """The recipe in the record of a file, as it was given to the function that wrote it."""
    made = recorded(path)["recipe"]
    return made | {"inputs": {path.parent / name: value for name, value in made["inputs"].items()}}


def change_reference(study, years):
    path = study.prepared / "reference.nc"
    reference = xr.load_dataset(path)
    inside = (reference.time.dt.year >= int(years[0])) & (reference.time.dt.year <= int(years[1]))
    reference["theta"] = xr.where(inside, 0.6 - reference.theta, reference.theta, keep_attrs=True)
    write_dataset(reference.transpose("time", "lat", "lon"), path, made_as(path))


def assert_same_weights(one, other):
    one, other = (trained.network.state_dict() for trained in (one, other))
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def same_weights(one, other):
    one, other = (trained.network.state_dict().values() for trained in (one, other))
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def assert_same_run(one, other):
    assert_same_weights(one, other)
    assert one.statistics == other.statistics
    assert one.best_epoch == other.best_epoch
    pd.testing.assert_frame_equal(
        one.history.drop(columns="seconds"), other.history.drop(columns="seconds"), check_exact=True
    )


def test_masked_mse_averages_over_the_valid_cells():
    estimate = torch.tensor([[1.0, 2.0], [3.0, 9.0]])
    target = torch.tensor([[0.0, 4.0], [3.0, 0.0]])
    valid = torch.tensor([[True, True], [True, False]])
    # (1 + 4 + 0) / 3; the fourth cell, 9 off, has no reference
    assert masked_mse(estimate, target, valid).item() == pytest.approx(5 / 3)


def test_masked_mse_is_that_of_numpy():
    rng = np.random.default_rng(0)
    estimate, target = rng.normal(size=(2, 3, 1, 4, 5))
    target[rng.random(target.shape) < 0.3] = np.nan
    valid = np.isfinite(target)
    expected = np.nanmean((estimate - target) ** 2)
    arrays = estimate, np.nan_to_num(target), valid
    assert masked_mse(*map(torch.from_numpy, arrays)).item() == pytest.approx(expected)


def test_masked_mse_has_no_gradient_where_the_reference_is_missing():
    estimate = torch.tensor([1.0, 2.0], requires_grad=True)
    masked_mse(estimate, torch.zeros(2), torch.tensor([True, False])).backward()
    assert estimate.grad.tolist() == [2.0, 0.0]  # d(x^2)/dx at 1


def test_learning_rate_is_constant_in_the_paper_preset():
    assert [learning_rate(NETWORKS["paper"], step, 40) for step in (0, 1, 20, 39)] == [1e-4] * 4


def test_learning_rate_warms_up_and_falls_along_a_half_cosine():
    network = NETWORKS["sound"].model_copy(update={"learning_rate": 1.0})
    # 40 steps: 5 % of them, two, to warm up; then a half cosine over 38.
    expected = {0: 0.5, 1: 1.0, 2: 1.0, 21: 0.5, 39: (1 + math.cos(math.pi * 37 / 38)) / 2}
    for step, value in expected.items():
        assert learning_rate(network, step, 40) == pytest.approx(value)
    rates = [learning_rate(network, step, 40) for step in range(2, 40)]
    assert all(a > b > 0 for a, b in zip(rates[:-1], rates[1:], strict=True))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_learning_rate_is_finite_however_short_the_training(steps):
    sound = NETWORKS["sound"]
    rates = [learning_rate(sound, step, steps) for step in range(steps)]
    assert all(0 < rate <= sound.learning_rate for rate in rates)


def test_fit_lowers_the_loss(make_study):
    history = fit(make_study(batch_size=8)).history
    assert list(history.index) == [1, 2, 3, 4]
    assert history["train"].is_monotonic_decreasing
    assert history["validation"].iloc[-1] < history["validation"].iloc[0]
    assert (history["seconds"] > 0).all()


def test_fit_reports_losses_in_units_of_theta(make_study):
    # With no learning the He-initialised network says the mean of the training years throughout.
    study = make_study(learning_rate=1e-12, weight_decay=0.0, epochs=1, dropout=0.0)
    history = fit(study).history
    reference = open_reference(study)
    train = reference.sel(time=slice(*study.periods.train)).values.astype(float)
    held_out = reference.sel(time=slice(*study.periods.validation)).values.astype(float)
    assert history["train"].item() == pytest.approx(np.nanvar(train), rel=1e-4)
    expected = np.nanmean((held_out - np.nanmean(train)) ** 2)
    assert history["validation"].item() == pytest.approx(expected, rel=1e-4)


def test_fit_takes_the_learning_rate_of_the_schedule(make_study):
    study = make_study()
    history = fit(study).history
    # 120 months in batches of 30: the last of four steps of each epoch
    expected = [learning_rate(study.network, 4 * epoch - 1, 16) for epoch in (1, 2, 3, 4)]
    assert history["learning_rate"].tolist() == expected


def test_fit_gives_the_same_weights_for_the_same_seed(make_study):
    one, same = fit(make_study("one")), fit(make_study("same"))
    assert_same_run(one, same)
    assert not same_weights(one, fit(make_study("other", seed=1)))


def test_fit_sees_all_months_in_another_order_every_epoch(make_study, monkeypatch):
    orders = []
    randperm = torch.randperm

    def noted(size):
        orders.append(randperm(size))
        return orders[-1]

    monkeypatch.setattr(torch, "randperm", noted)
    fit(make_study(epochs=2))
    assert [sorted(order.tolist()) for order in orders] == [list(range(120))] * 2
    assert orders[0].tolist() != orders[1].tolist()


def test_fit_sees_nothing_of_the_reference_after_the_validation_years(make_study):
    study, changed = make_study("one"), make_study("changed")
    copy_prepared(changed)
    change_reference(changed, study.periods.test)
    assert not open_reference(study).identical(open_reference(changed))
    assert_same_run(fit(study), fit(changed))


def test_fit_lets_the_validation_years_choose_the_epoch_and_nothing_else(make_study):
    study, changed = make_study("one"), make_study("changed")
    copy_prepared(changed)
    change_reference(changed, study.periods.validation)
    one, other = fit(study), fit(changed)
    assert one.statistics == other.statistics
    assert one.history["train"].tolist() == other.history["train"].tolist()
    assert (one.history["validation"] != other.history["validation"]).all()
    # The last epoch's weights, whichever was best.
    networks = [build(study), build(changed)]
    for variant, network in zip((study, changed), networks, strict=True):
        optimiser = torch.optim.AdamW(network.parameters())
        checkpoint = training._open(variant.model / "even.safetensors")
        training._restore(checkpoint, network, optimiser)
    for a, b in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(a, b)


def test_fit_starts_anew_when_the_data_have_changed(make_study):
    study, fresh = make_study("study", epochs=2), make_study("fresh", epochs=2)
    before = fit(study)
    copy_prepared(study)
    change_reference(study, study.periods.train)
    copy_prepared(fresh)
    change_reference(fresh, fresh.periods.train)
    after = fit(study)
    assert not same_weights(before, after)
    assert_same_run(after, fit(fresh))


class Stop(BaseException):
    """Ends a training as a signal would."""


@pytest.fixture
def fit_until(monkeypatch):
    """A function that trains until an epoch is done, and gives back what was reported."""

    def fit_until(study, epoch, **options):
        def stop(text):
            said.append(text)
            if text.startswith(f"epoch {epoch}/"):
                raise Stop

        said = []
        with monkeypatch.context() as patch:
            patch.setattr(training, "report", stop)
            with pytest.raises(Stop):
                fit(study, **options)
        return said

    return fit_until


@pytest.mark.parametrize("epochs_done", [1, 2, 3])
def test_fit_goes_on_exactly_after_a_stop(make_study, fit_until, epochs_done):
    whole = fit(make_study("whole"))

    study = make_study("stopped")
    fit_until(study, epochs_done)
    with pytest.raises(FileNotFoundError, match="02_ynet_training"):
        load(study)  # half a training is none
    assert_same_run(fit(study), whole)


@pytest.mark.parametrize("moment", ["before", "written", "recorded"])
def test_fit_goes_on_exactly_after_a_stop_while_a_checkpoint_is_saved(
    make_study, monkeypatch, moment
):
    whole, study = fit(make_study("whole")), make_study("stopped")
    keeping, replace = store.keeping, os.replace

    def halt(*paths):
        if paths[1].name == "even.safetensors":
            raise Stop  # the record is there, and the file is not
        replace(*paths)

    with monkeypatch.context() as patch:

        @contextlib.contextmanager
        def stop(path, made):
            now = path.name == "even.safetensors"
            if now and moment == "before":
                raise Stop
            with keeping(path, made) as part:
                yield part
                if now and moment == "written":
                    raise Stop
                patch.setattr(os, "replace", halt if moment == "recorded" else replace)

        patch.setattr(store, "keeping", stop)
        with pytest.raises(Stop):
            fit(study)
    assert_same_run(fit(study), whole)


def test_fit_remembers_the_best_epoch_over_a_stop(make_study, fit_until, monkeypatch):
    losses = iter([5.0, 3.0, 4.0, 4.5])
    monkeypatch.setattr(training, "_loss", lambda *args: next(losses))

    study = make_study("stopped", schedule="constant")
    fit_until(study, 2)
    trained = fit(study)
    assert trained.best_epoch == 2
    losses = iter([5.0, 3.0])
    assert_same_weights(trained, fit(make_study("two", schedule="constant", epochs=2)))


@pytest.mark.slow
def test_fit_goes_on_exactly_after_a_kill_at_any_moment(make_study):
    network = {"epochs": 10}
    whole = fit(make_study("whole", **network))
    study = make_study("killed", **network)
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from smcore.config import Study; from smcore.training import fit\n"
        "fit(Study.model_validate_json(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, study.model_dump_json()], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not (study.model / "odd.safetensors").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(random.uniform(0, 5 * whole.history["seconds"].median()))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (study.model / "model.json").exists(), "killed too late to show anything"
    assert_same_run(fit(study), whole)


def test_fit_does_nothing_when_it_has_finished(make_study, monkeypatch):
    study = make_study()
    trained = fit(study)
    files = {path: path.stat().st_mtime_ns for path in study.model.glob("*.safetensors")}
    json_before = (study.model / "model.json").read_bytes()
    again = fit(study)
    assert_same_run(trained, again)
    assert {path: path.stat().st_mtime_ns for path in study.model.glob("*.safetensors")} == files
    assert (study.model / "model.json").read_bytes() == json_before


def test_fit_starts_anew_without_resume(make_study):
    study = make_study(epochs=2)
    first = fit(study)
    again = fit(study, resume=False)
    assert_same_run(first, again)
    assert first.history["seconds"].tolist() != again.history["seconds"].tolist()


def test_load_refuses_a_training_that_was_started_anew_and_stopped(make_study, fit_until):
    study = make_study(epochs=2)
    fit(study)
    fit_until(study, 1, resume=False)
    with pytest.raises(FileNotFoundError, match="02_ynet_training"):
        load(study)


def test_fit_returns_the_weights_of_the_best_epoch(make_study, monkeypatch):
    losses = iter([5.0, 3.0, 4.0, 4.0])
    monkeypatch.setattr(training, "_loss", lambda *args: next(losses))
    trained = fit(make_study("four", schedule="constant"))
    assert trained.best_epoch == 2
    losses = iter([5.0, 3.0])
    assert_same_weights(trained, fit(make_study("two", schedule="constant", epochs=2)))


def test_fit_stops_when_patience_is_over(make_study, monkeypatch):
    losses = iter([5.0, 3.0, 4.0, 3.0, 3.5, 1.0])
    monkeypatch.setattr(training, "_loss", lambda *args: next(losses))
    study = make_study(epochs=6, patience=3)
    trained = fit(study)
    # Epoch 2 is the best; 3, 4 and 5 are not better, an equal loss included.
    assert list(trained.history.index) == [1, 2, 3, 4, 5]
    assert trained.best_epoch == 2
    assert list(fit(study).history.index) == [1, 2, 3, 4, 5]


def test_fit_without_patience_runs_to_the_end(make_study, monkeypatch):
    losses = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(training, "_loss", lambda *args: next(losses))
    assert len(fit(make_study(patience=None)).history) == 4


def test_fit_names_the_step_where_it_diverges(make_study):
    study = make_study(learning_rate=1e6, schedule="constant", depth=5)
    with pytest.raises(FloatingPointError, match=r"epoch 1, batch \d.* 1e\+06"):
        fit(study)
    assert not (study.model / "model.json").exists()


def test_fit_keeps_the_last_good_checkpoint_when_it_diverges(make_study, monkeypatch):
    whole, study = fit(make_study("whole")), make_study("diverged")

    def diverging(network, step, steps):
        return learning_rate(network, step, steps) if step < 8 else 1e30

    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", diverging)
        with pytest.raises(FloatingPointError, match=r"epoch 3, batch \d.* 1e\+30"):
            fit(study)
    last = study.model / "even.safetensors"
    assert len(training._open(last)["history"]) == 2
    assert all(torch.isfinite(value).all() for value in load_file(last).values())
    assert_same_run(fit(study), whole)


def test_fit_stops_where_the_loss_diverges_without_an_overflow(make_study, monkeypatch):
    study = make_study()
    monkeypatch.setattr(training, "learning_rate", lambda network, step, steps: 1e-3 + 3 * step)
    with pytest.raises(FloatingPointError, match=r"loss of epoch 1.* is \d.*diverges.* lower"):
        fit(study)


def test_load_gives_the_network_of_an_early_epoch(make_study, fit_until):
    study, stopped = make_study(), make_study("stopped")
    fit(study)
    fit_until(stopped, 1)
    expected = load_file(stopped.model / "odd.safetensors")
    early = load(study, epoch=1).network.state_dict()
    for name, value in early.items():
        assert torch.equal(value, expected[f"network.{name}"]), name
    fit_until(stopped, 4)
    expected = load_file(stopped.model / "even.safetensors")["network.output.weight"]
    assert torch.equal(load(study, epoch=4).network.output.weight, expected)
    (study.model / "epoch1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"epoch1\.safetensors: there is no.*02_ynet"):
        load(study, epoch=1)


def test_fit_keeps_no_network_whose_validation_loss_is_not_finite(make_study):
    # One batch per epoch: the training loss is taken before the step that goes astray.
    study = make_study(learning_rate=1e30, schedule="constant", batch_size=120)
    with pytest.raises(FloatingPointError, match="validation loss of epoch 1"):
        fit(study)
    assert not list(study.model.glob("*"))


def test_fit_leaves_safetensors_and_json_only(make_study):
    study = make_study(epochs=1)
    fit(study)
    names = sorted(path.name for path in study.model.glob("[!.]*"))
    assert names == [
        "epoch1.safetensors",
        "model.json",
        "model.safetensors",
        "odd.safetensors",
    ]

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    json.loads((study.model / "model.json").read_text(), parse_constant=refuse)
    for name in ("odd.safetensors", "model.safetensors"):
        with safe_open(study.model / name, "np") as file:  # reads no pickle
            for value in file.metadata().values():
                json.loads(value, parse_constant=refuse)


def test_checkpoint_stands_alone(make_study):
    study = make_study()
    trained = fit(study)
    with safe_open(study.model / "model.safetensors", "pt") as file:
        metadata = dict(file.metadata())
    metadata = {key: json.loads(value) for key, value in metadata.items()}
    weights = load_file(study.model / "model.safetensors")
    weights = {key.removeprefix("network."): value for key, value in weights.items()}
    network = YNet(YNetConfig(**metadata["network_config"])).eval()
    network.load_state_dict(weights)
    statistics = Statistics(**metadata["statistics"])
    x = statistics.predictors(open_predictors(study, "historical").isel(time=slice(2)))
    auxiliary = statistics.auxiliary(open_static(study)).expand(2, -1, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(network(x, auxiliary), trained.network(x, auxiliary))
    assert metadata["settings"]["sources"] == list(study.sources)
    assert metadata["settings"]["network"]["seed"] == study.network.seed
    assert metadata["settings"]["periods.train"] == list(study.periods.train)


def test_load_gives_what_fit_returned(make_study):
    study = make_study()
    trained, loaded = fit(study), load(study)
    assert_same_run(trained, loaded)
    assert not loaded.network.training


def test_load_names_the_chapter_that_trains(make_study):
    with pytest.raises(FileNotFoundError, match="02_ynet_training"):
        load(make_study())


@pytest.mark.parametrize("initialisation", ["default", "he"])
def test_build_initialises_as_the_preset_says(make_study, initialisation):
    torch.manual_seed(0)
    network = build(make_study(initialisation=initialisation))
    assert (network.output.weight == 0).all().item() == (initialisation == "he")


def test_build_takes_its_sizes_from_the_study(make_study):
    config = build(make_study(dropout=0.2)).config
    expected = YNetConfig(
        in_channels=4,
        auxiliary_channels=2,
        features=4,
        depth=2,
        scale_factor=4,
        dropout=0.2,
        clip_features=False,
    )
    assert config == expected


# Damage, other configurations


@pytest.mark.parametrize("damage", ["truncated", "flipped", "history", "empty"])
def test_fit_goes_on_from_the_checkpoint_before_a_damaged_one(
    make_study, fit_until, monkeypatch, damage
):
    whole = fit(make_study("whole"))

    study = make_study("stopped")
    fit_until(study, 3)
    last = study.model / "odd.safetensors"
    content = bytearray(last.read_bytes())
    if damage == "flipped":
        content[-100] ^= 1
    elif damage == "history":
        assert content.count(b'\\"epoch\\": 3') == 1
        content = content.replace(b'\\"epoch\\": 3', b'\\"epoch\\": 4')
    last.write_bytes(content[: {"truncated": 1000, "empty": 0}.get(damage)])
    said = []
    monkeypatch.setattr(training, "report", said.append)
    assert_same_run(fit(study), whole)
    assert said[0] == f"{last} is damaged and not used"
    assert said[1] == "training in float32 on 1 processor core"
    assert said[2].startswith("epoch 3/")


def test_fit_sets_a_checkpoint_of_another_configuration_aside(make_study, monkeypatch):
    study, other = make_study("one", epochs=1), make_study("two", epochs=1, dropout=0.4)
    fit(study)
    shutil.copytree(study.model, other.model)
    said = []
    monkeypatch.setattr(training, "report", said.append)
    fit(other)
    aside = other.model.with_name(f"{other.model.name}.1")
    assert said[0] == (
        f"{other.model} differs in network: set aside as {aside.name}, training starts anew"
    )
    assert (aside / "model.safetensors").read_bytes() == (
        study.model / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("harm", ["cut", "no record"])
def test_fit_starts_anew_where_the_best_weights_cannot_be_trusted(make_study, fit_until, harm):
    whole, study = fit(make_study("whole")), make_study("stopped")
    fit_until(study, 3)
    path = study.model / "model.safetensors"
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        for record in study.model.glob(".*.made"):
            record.unlink()
    assert_same_run(fit(study), whole)
    assert study.model.with_name(f"{study.model.name}.1").exists()


def test_load_names_a_damaged_network(make_study):
    study = make_study(epochs=1)
    fit(study)
    path = study.model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=f"{path} is damaged.*run chapter 02_ynet_training"):
        load(study)


# Ablations


@pytest.mark.parametrize(
    ("auxiliary", "names"),
    [
        ("static", ["elevation", "land_fraction"]),
        ("climatology", ["climatology"]),
        ("none", []),
    ],
)
def test_open_inputs_gives_the_fields_that_the_preset_names(make_study, auxiliary, names):
    study = make_study(auxiliary=auxiliary, epochs=1)
    _, fields, anchor = open_inputs(study, "ssp126")
    assert list(fields) == names and anchor is None
    assert build(study).config.auxiliary_channels == len(names)
    assert fit(study).best_epoch == 1


def test_the_climatology_as_auxiliary_field_is_that_of_the_training_period(make_study):
    study = make_study(auxiliary="climatology", epochs=1)
    fields = open_inputs(study, "historical")[1]
    reference = open_reference(study).sel(time=slice(*study.periods.train))
    july = reference.values[6::12].mean(axis=0)
    np.testing.assert_allclose(fields["climatology"].sel(month=7), july, atol=1e-6)
    statistics = fit(study).statistics
    tensor = statistics.auxiliary(fields)
    assert tensor.shape[0] == 12
    time = xr.DataArray(pd.date_range("2001-06-01", periods=3, freq="MS"), dims="time")
    assert month_index(time, tensor).tolist() == [5, 6, 7]


# The anchored network


@pytest.fixture
def anchored(make_study):
    return make_study("anchored", anchored=True, smoothing=5, batch_size=8, learning_rate=3e-3)


def test_an_untrained_anchored_network_is_the_delta_change(anchored):
    trained = fit(anchored)
    reference = open_reference(anchored)
    predictors = open_predictors(anchored, "historical")
    baseline = delta_change(predictors, reference, train_period=anchored.periods.train, years=5)
    held_out = slice(*anchored.periods.validation)
    expected = float(((baseline - reference).sel(time=held_out) ** 2).mean())
    assert trained.history.loc[0, "validation"] == pytest.approx(expected, rel=1e-4)
    assert list(trained.history.index) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("initialisation", ["default", "he"])
def test_an_anchored_network_starts_as_its_anchor(make_study, initialisation):
    network = build(make_study(anchored=True, initialisation=initialisation)).eval()
    with torch.no_grad():
        output = network(torch.randn(2, 4, 6, 11), torch.randn(2, 2, 24, 44))
    assert (output == 0).all()


def test_an_anchored_network_is_never_worse_than_its_anchor_on_validation(anchored):
    trained = fit(anchored)
    best = trained.history.loc[trained.best_epoch, "validation"]
    assert best == trained.history["validation"].min() <= trained.history.loc[0, "validation"]


def test_an_anchored_network_goes_on_exactly_after_a_stop(anchored, make_study, fit_until):
    whole = fit(anchored)

    (anchored.directory / "again").mkdir()
    study = anchored.model_copy(update={"directory": anchored.directory / "again"})
    (study.directory / "prepared").symlink_to((anchored.directory / "prepared").resolve())
    fit_until(study, 2)
    assert_same_run(fit(study), whole)


def test_a_scenario_continues_the_smoothed_anomalies_of_its_source(anchored):
    predictors, _, anchor = open_inputs(anchored, "ssp126")
    past, future = (open_predictors(anchored, name) for name in ("historical", "ssp126"))
    train = past.sel(time=slice(*anchored.periods.train)).values[1, 3::12].mean(axis=0)
    # April 2016 of the second source: the Aprils of 2014 to 2018, of two runs
    aprils = [past.sel(time="2014-04")[1, 0].values]
    aprils += [future.sel(time=f"{year}-04")[1, 0].values for year in range(2015, 2019)]
    expected = np.mean(aprils, axis=0) - train
    found = predictors.isel(source_id=1).sel(time="2016-04")[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert anchor.sizes["time"] == predictors.sizes["time"] == 86 * 12
    # Both ends of the record take what is there: 2098 to 2100 for the last year.
    lasts = [future.sel(time=f"{year}-04")[1, 0].values for year in (2098, 2099, 2100)]
    found = predictors.isel(source_id=1).sel(time="2100-04")[0]
    np.testing.assert_allclose(found, np.mean(lasts, axis=0) - train, atol=1e-6)


def test_open_inputs_takes_nothing_of_the_reference_after_training(anchored):
    before = open_inputs(anchored, "ssp126")[2].load()
    copy_prepared(anchored)
    change_reference(anchored, ("2000", "2014"))
    xr.testing.assert_identical(open_inputs(anchored, "ssp126")[2].load(), before)


# Precision


@pytest.mark.parametrize(
    ("setting", "flags", "expected"),
    [
        ("auto", "fpu avx2 avx512_bf16", "bfloat16"),
        ("auto", "fpu avx512f amx_bf16 amx_tile", "bfloat16"),
        ("auto", "fpu avx2 avx512f", "float32"),
        ("float32", "fpu avx512_bf16", "float32"),
    ],
)
def test_precision_is_chosen_by_the_flags_of_the_processor(monkeypatch, setting, flags, expected):
    monkeypatch.setattr(Path, "read_text", lambda path: f"flags : {flags}")
    monkeypatch.setattr(Path, "exists", lambda path: True)
    assert precision(setting) == expected


def test_fit_in_bfloat16_says_so_and_keeps_it_on_resuming(make_study, fit_until, monkeypatch):
    study = make_study("bfloat16", precision="auto")
    monkeypatch.setattr(training, "precision", lambda setting: "bfloat16")
    whole = fit(make_study("whole", precision="auto"))
    assert fit_until(study, 2)[0].startswith("training in bfloat16 on ")
    monkeypatch.setattr(training, "precision", lambda setting: "float32")  # on another machine
    resumed = fit(study)
    assert_same_run(resumed, whole)
    assert resumed.precision == "bfloat16"
    monkeypatch.setattr(Workers, "machine", "another machine")
    assert fit(study).machine == whole.machine, "seconds of one machine, name of another"
    plain = fit(make_study("float32")).history["train"]
    np.testing.assert_allclose(whole.history["train"], plain, rtol=0.05)
    assert not np.allclose(whole.history["train"], plain, rtol=1e-6)


# Pairing


def test_paired_months_are_the_same_month_of_a_year_nearby():
    torch.manual_seed(0)
    orders = [torch.randperm(120) for _ in range(200)]
    months = torch.cat(orders)
    other = torch.cat([training._paired(order, 3) for order in orders])
    assert (other % 12 == months % 12).all()
    year, chosen = months // 12, other // 12
    for here, reachable in {0: range(4), 1: range(5), 5: range(2, 9), 9: range(6, 10)}.items():
        share = torch.bincount(chosen[year == here], minlength=10) / (year == here).sum()
        expected = torch.tensor([1 / len(reachable) if y in reachable else 0 for y in range(10)])
        torch.testing.assert_close(share, expected, atol=0.04, rtol=0)
    assert torch.equal(training._paired(orders[0], 0), orders[0])


def test_fit_with_pairing_goes_on_exactly_after_a_stop(make_study, fit_until):
    whole, study = (make_study(name, pairing=2) for name in ("whole", "stopped"))
    whole = fit(whole)
    fit_until(study, 2)
    assert_same_run(fit(study), whole)
    assert not same_weights(whole, fit(make_study("dates")))


# Several processes


@pytest.mark.slow
@pytest.mark.parametrize("anchored", [False, True])
def test_two_processes_train_the_network_of_one(make_study, anchored):
    """Batches of seven: shares of four and three, and at the end of the epoch of one and none."""
    options = {"epochs": 1, "batch_size": 7, "dropout": 0.0, "anchored": anchored}
    single = fit(make_study("single", **options))
    study = make_study("double", **options)
    profile = study.directory / "double.yml"
    values = yaml.safe_load((PROFILES / "tiny.yml").read_text())
    values |= {"directory": str(study.directory), "training": SMALL | options}
    profile.write_text(yaml.safe_dump(values))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "smcore.training", "--profile", str(profile)]
    progress = study.directory / "progress.txt"
    progress.touch()
    environment = os.environ | {"SMCORE_PROGRESS": str(progress), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    first, *others = progress.read_text().splitlines()
    assert first == "training in float32 on 2 processor cores"
    assert len(others) == 1, "only one process reports"
    double = load(Study.load(profile))
    assert double.machine == "2 processor cores"
    pd.testing.assert_frame_equal(
        double.history.drop(columns="seconds"), single.history.drop(columns="seconds"), rtol=1e-4
    )
    one, other = (trained.network.state_dict() for trained in (single, double))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5, msg=name)
