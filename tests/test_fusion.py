import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from smcore import fusion, training
from smcore.baselines import delta_change
from smcore.fusion import fuse, predict
from smcore.prepared import open_predictors, open_reference, open_static
from smcore.product import open_product
from smcore.store import recipe, recorded, write_dataset, write_json, write_text
from smcore.tensors import Statistics
from smcore.training import Trained, fit, load
from smcore.ynet import YNet, YNetConfig

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "features": 4,
    "depth": 2,
    "epochs": 1,
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
def trained():
    """A network with random weights, and statistics that are easy to calculate with."""
    torch.manual_seed(0)
    config = YNetConfig(in_channels=2, features=4, depth=2, scale_factor=2, dropout=0.5)
    statistics = Statistics(
        predictor_mean=[0.2, 0.3],
        predictor_std=[0.1, 0.05],
        auxiliary_mean={"elevation": 1000.0, "land_fraction": 0.5},
        auxiliary_std={"elevation": 500.0, "land_fraction": 0.25},
        reference_mean=0.25,
        reference_std=0.04,
    )
    how = {"precision": "float32", "machine": "this machine"}
    return Trained(YNet(config), statistics, pd.DataFrame(), best_epoch=7, **how)


@pytest.fixture
def predictors():
    rng = np.random.default_rng(1)
    coords = {
        "source_id": ["Alder", "Birch"],
        "time": pd.date_range("2001-01-01", periods=5, freq="MS"),
        "lat": [20.0, 22.0, 24.0],
        "lon": [100.0, 102.0, 104.0, 106.0],
    }
    values = rng.uniform(0.1, 0.4, (2, 5, 3, 4)).astype("float32")
    return xr.DataArray(values, coords, dims=("source_id", "time", "lat", "lon"))


@pytest.fixture
def static():
    rng = np.random.default_rng(2)
    coords = {"lat": 19.5 + np.arange(6), "lon": 99.5 + np.arange(8)}
    fields = {"elevation": 2000 * rng.random((6, 8)), "land_fraction": rng.random((6, 8))}
    fields["land"] = rng.random((6, 8)) < 0.6
    return xr.Dataset({name: (("lat", "lon"), v) for name, v in fields.items()}, coords)


def test_predict_is_the_network_between_two_scalings(trained, predictors, static):
    theta = predict(trained, predictors, static, land=static.land)

    # The fourth month, step by step.
    month = predictors.isel(time=3).values
    x = np.stack([(month[0] - 0.2) / 0.1, (month[1] - 0.3) / 0.05])
    auxiliary = np.stack([(static.elevation - 1000) / 500, (static.land_fraction - 0.5) / 0.25])
    trained.network.eval()
    with torch.no_grad():
        x, auxiliary = (torch.tensor(v[None], dtype=torch.float32) for v in (x, auxiliary))
        output = trained.network(x, auxiliary)[0, 0].numpy()
    expected = np.where(static.land, 0.25 + 0.04 * output, np.nan)
    np.testing.assert_allclose(theta.isel(time=3), expected, atol=1e-6)


def test_predict_gives_a_labelled_field_on_land(trained, predictors, static):
    theta = predict(trained, predictors, static, land=static.land)
    assert theta.dims == ("time", "lat", "lon")
    assert theta.shape == (5, 6, 8)
    assert theta.attrs == {"units": "m3 m-3", "best_epoch": 7}
    for name, source in [("time", predictors), ("lat", static), ("lon", static)]:
        xr.testing.assert_equal(theta[name], source[name])
    assert (theta.notnull() == static.land).all()


def test_predict_reads_static_fields_of_any_order(trained, predictors, static):
    theta = predict(trained, predictors, static, land=static.land)
    xr.testing.assert_equal(
        predict(trained, predictors, static.transpose("lon", "lat"), land=static.land), theta
    )


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_predict_does_not_depend_on_the_batch_size(trained, predictors, static, batch_size):
    whole = predict(trained, predictors, static, land=static.land, batch_size=5)
    parts = predict(trained, predictors, static, land=static.land, batch_size=batch_size)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_predict_drops_nothing_even_after_training(trained, predictors, static):
    trained.network.train()
    one, other = (predict(trained, predictors, static, land=static.land) for _ in range(2))
    xr.testing.assert_equal(one, other)


@pytest.fixture
def study(prepared_study, tmp_path):
    """The prepared study with a small trained network, in a directory of its own."""
    (tmp_path / "prepared").symlink_to(prepared_study.prepared.parent)
    network = prepared_study.network.model_copy(update=SMALL)
    study = prepared_study.model_copy(update={"directory": tmp_path, "network": network})
    fit(study)
    return study


def replace_weights(study, trained):
    """Finish the training of a study with the weights of this network."""
    best, finished = study.model / "model.safetensors", study.model / "model.json"
    made = training._recipe(study)
    training._save(best, made, trained.network, trained.statistics, [], "float32")
    values = json.loads(finished.read_text())
    write_json(values, finished, training._recipe(study, best))


@pytest.fixture
def predictions(monkeypatch):
    """The calls of `predict` that `fuse` makes."""
    calls = []

    def noted(*args, **options):
        calls.append(args)
        return predict(*args, **options)

    monkeypatch.setattr(fusion, "predict", noted)
    return calls


def test_fuse_writes_the_prediction_of_every_month(study):
    for experiment_id, months in [("historical", 25 * 12), ("ssp585", 86 * 12)]:
        path = fuse(study, experiment_id)
        assert path == study.product(experiment_id)
        theta = open_product(path)
        predictors, static = open_predictors(study, experiment_id), open_static(study)
        expected = predict(load(study), predictors, static, land=static.land)
        assert theta.sizes["time"] == months
        np.testing.assert_allclose(theta, expected, atol=1e-6)


def test_fuse_says_what_the_product_is_made_from(study):
    with xr.open_dataset(fuse(study, "ssp126")) as product:
        attrs = product.attrs
    assert attrs["experiment_id"] == "ssp126"
    assert attrs["model"] == study.model.name
    assert attrs["best_epoch"] == "1"
    inputs = json.loads(attrs["inputs"])
    assert list(inputs) == list(study.sources)
    manifest = json.loads((study.prepared / "manifest.json").read_text())
    for source_id, made_from in inputs.items():
        assert made_from["sha256"] == manifest["files"][f"theta_{source_id}_ssp126.nc"]
        assert made_from["versions"] and made_from["tracking_ids"]


def test_fuse_keeps_the_product_of_the_same_model(study, predictions):
    path = fuse(study, "historical")
    before = path.stat().st_mtime_ns
    assert fuse(study, "historical") == path
    assert path.stat().st_mtime_ns == before
    assert len(predictions) == 1


def test_fuse_leaves_the_product_of_another_model(study, predictions):
    path = fuse(study, "historical")
    first = open_product(path).load().copy()
    changed = study.network.model_copy(update={"seed": 1})
    other = study.model_copy(update={"network": changed})
    fit(other)
    another = fuse(other, "historical")
    assert another.name == path.name and another != path  # a folder for each configuration
    assert len(predictions) == 2
    with xr.open_dataset(another) as product:
        assert product.attrs["model"] == other.model.name != study.model.name
        assert not product["theta"].equals(first)


def test_fuse_replaces_the_product_of_other_weights(study, predictions):
    # The same configuration, trained again on data that have changed since.
    fuse(study, "historical")
    trained = load(study)
    torch.nn.init.constant_(trained.network.output.bias, 0.5)
    replace_weights(study, trained)
    fuse(study, "historical")
    assert len(predictions) == 2


def test_fuse_replaces_the_product_of_other_predictors(study, predictions):
    fuse(study, "ssp126")
    fuse(study, "ssp245")
    link = study.directory / "prepared"
    target = link.resolve()
    link.unlink()
    shutil.copytree(target, link)
    path = study.prepared / "theta_Birch_ssp126.nc"
    settings = recorded(path)["recipe"]["settings"]
    changed = xr.load_dataset(path)
    changed["theta"] *= 0.9
    write_dataset(changed, path, recipe("prepare", settings=settings))
    manifest = study.prepared / "manifest.json"
    inputs = study.prepared.glob("*.nc")
    write_text(manifest.read_text(), manifest, recipe("prepare", inputs=inputs))
    fuse(study, "ssp126")
    fuse(study, "ssp245")
    assert len(predictions) == 3


@pytest.mark.slow
def test_fuse_leaves_nothing_under_the_final_name_when_it_is_killed(study):
    # The kill comes at the worst moment: all is written, nothing is renamed.
    code = (
        "import os, signal, sys, torch; torch.set_num_threads(1)\n"
        "from smcore.config import Study; from smcore.fusion import fuse\n"
        "os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n"
        "fuse(Study.model_validate_json(sys.argv[1]), 'historical')"
    )
    command = [sys.executable, "-c", code, study.model_dump_json()]
    process = subprocess.run(command, cwd=ROOT, timeout=120, check=False)
    assert process.returncode == -signal.SIGKILL
    path = study.product("historical")
    assert path.parent.exists() and not path.exists()
    assert open_product(fuse(study, "historical")).sizes["time"] == 300


def test_fuse_names_the_chapter_that_trains(study):
    (study.model / "model.json").unlink()
    with pytest.raises(FileNotFoundError, match="02_ynet_training"):
        fuse(study, "historical")


def test_fuse_adds_the_anchor_to_what_an_anchored_network_gives(study):
    changes = {"anchored": True, "smoothing": 5, "initialisation": "he"}
    network = study.network.model_copy(update=changes)
    study = study.model_copy(update={"network": network})
    trained = fit(study)
    torch.nn.init.zeros_(trained.network.output.weight)
    torch.nn.init.constant_(trained.network.output.bias, 1.0)
    replace_weights(study, trained)
    theta = open_product(fuse(study, "ssp585"))
    predictors = [open_predictors(study, name) for name in ("historical", "ssp585")]
    baseline = delta_change(
        xr.concat(predictors, "time"),
        open_reference(study),
        train_period=study.periods.train,
        years=5,
    )
    expected = baseline.sel(time=theta.time) + trained.statistics.reference_std
    np.testing.assert_allclose(theta, expected.where(open_static(study)["land"]), atol=1e-6)


def test_fuse_gives_mean_and_standard_deviation_of_an_ensemble(study, tmp_path):
    ensemble = study.model_copy(update={"seeds": (0, 1, 2)})
    fit(ensemble)
    predictors, static = open_predictors(study, "ssp126"), open_static(study)
    fields = [
        predict(load(member), predictors, static, land=static.land).values
        for member in ensemble.members
    ]
    assert ensemble.members[0].model == study.model  # which is not trained again
    with xr.open_dataset(fuse(ensemble, "ssp126")) as product:
        assert product.attrs["seed"] == "0 1 2"
        assert len(set(product.attrs["weights"].split())) == 3
        assert product["theta"].attrs["ancillary_variables"] == "theta_std"
        np.testing.assert_allclose(product["theta"], np.mean(fields, axis=0), atol=1e-6)
        expected = np.std(fields, axis=0, ddof=1)
        np.testing.assert_allclose(product["theta_std"], expected, atol=1e-6)


def test_a_member_of_an_ensemble_that_was_lost_is_trained_alone(study, monkeypatch):
    ensemble = study.model_copy(update={"seeds": (0, 1)})
    fit(ensemble)
    kept = (ensemble.members[0].model / "model.safetensors").stat().st_mtime_ns
    shutil.rmtree(ensemble.members[1].model)
    with pytest.raises(FileNotFoundError, match="02_ynet_training"):
        fuse(ensemble, "ssp126")
    fit(ensemble)
    assert (ensemble.members[0].model / "model.safetensors").stat().st_mtime_ns == kept
    fuse(ensemble, "ssp126")


@pytest.mark.parametrize(
    ("flags", "trained_in", "expected"),
    [
        ("avx512_bf16", "bfloat16", "bfloat16"),
        ("avx2", "bfloat16", "float32"),
        ("avx512_bf16", "float32", "float32"),
    ],
)
def test_predict_computes_as_in_training_where_the_machine_can(
    trained, predictors, static, monkeypatch, flags, trained_in, expected
):
    monkeypatch.setattr(Path, "read_text", lambda path: f"flags : {flags}")
    seen = []
    trained.network.fusion.register_forward_hook(lambda _, given, output: seen.append(output.dtype))
    exact = predict(trained, predictors, static, land=static.land)
    seen.clear()
    trained = replace(trained, precision=trained_in)
    theta = predict(trained, predictors, static, land=static.land)
    assert seen == [getattr(torch, expected)]
    assert theta.dtype == np.float32
    np.testing.assert_allclose(theta, exact, atol=0.02 * float(exact.std()))
    if expected == "bfloat16":  # whose 8 bits would leave a few dozen values
        assert np.unique(theta.values).size > 0.9 * np.isfinite(theta.values).sum()
