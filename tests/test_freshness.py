"""One rule for all that is kept: other code, settings or inputs make it anew; damage is named."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from smcore import demo, fusion, product, soil, store, training, validation, world
from smcore.config import ROOT, Study
from smcore.demo import make_archive
from smcore.fusion import fuse
from smcore.ledger import read_findings
from smcore.prepare import prepare
from smcore.prepared import open_predictors, open_reference, open_static
from smcore.product import open_product
from smcore.store import (
    checked,
    code_digest,
    fresh,
    imported_with,
    recipe,
    write_dataset,
    write_json,
    write_text,
)
from smcore.training import fit, load


@pytest.fixture
def edit(monkeypatch):
    """A function that gives a constant another value, as an editor and a new process would."""

    def edit(module, name, value):
        text = store.SOURCES[module.__name__.removeprefix("smcore.")]
        changed, count = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", text, flags=re.M)
        assert count == 1
        monkeypatch.setitem(store.SOURCES, module.__name__.removeprefix("smcore."), changed)
        monkeypatch.setattr(module, name, value)

    return edit


def damage(path):
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    rewrite(path, content)


def rewrite(path, content):
    """New content at a later time: the clock of a file system is coarse."""
    later = path.stat().st_mtime_ns + 10**9
    path.write_bytes(content)
    os.utime(path, ns=(later, later))


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Starting processes takes longer than this archive, and they would not see an edit."""
    monkeypatch.setattr(demo, "ProcessPoolExecutor", lambda *a, **k: ThreadPoolExecutor(1))


@pytest.fixture
def study(small_archive, tmp_path):
    """Two sources and six years, a network of one epoch, in a folder that a test may change."""
    shutil.copytree(small_archive.directory, tmp_path / "study")
    return Study.load(
        "tiny",
        directory=str(tmp_path / "study"),
        sources=list(small_archive.sources),
        experiments=["ssp585"],
        periods=small_archive.periods.model_dump(mode="json"),
        demo={"reference_resolution": 1.0},
        training={"epochs": 1, "features": 4, "depth": 2},
    )


@pytest.fixture
def finished(study):
    """That study with its store, its network and its products."""
    prepare(study)
    fit(study)
    for experiment_id in ("historical", "ssp585"):
        fuse(study, experiment_id)
    return study


# What is kept is made anew when its code changes


def test_the_archive_is_made_anew_by_other_code(study, edit):
    before = make_archive(study.directory / "archive", study)
    assert make_archive(study.directory / "archive", study).equals(before)
    edit(world, "MEMORY", {"rain": 0.5, "temperature": 0.4})
    after = make_archive(study.directory / "archive", study)
    assert (before["sha256"] != after["sha256"]).any()


def test_the_prepared_store_is_made_anew_by_other_code(study, edit):
    prepare(study)
    before = open_predictors(study, "ssp585")
    edit(soil, "WATER_DENSITY", 2000.0)
    with pytest.raises(ValueError, match=r"out of date .*code.*run chapter 01_data_preparation"):
        open_predictors(study, "ssp585")
    prepare(study)
    xr.testing.assert_allclose(open_predictors(study, "ssp585"), before / 2, rtol=1e-6)


def test_a_network_is_trained_anew_by_other_code_and_the_old_one_set_aside(
    finished, edit, monkeypatch
):
    before = load(finished).history
    old = (finished.model / "model.safetensors").read_bytes()
    edit(training, "WARM_UP", 0.9)
    with pytest.raises(ValueError, match=r"out of date .*code.*run chapter 02_ynet_training"):
        load(finished)
    said = []
    monkeypatch.setattr(training, "report", said.append)
    after = fit(finished).history
    assert (before["learning_rate"] != after["learning_rate"]).any()
    assert "the code: set aside as" in said[0]
    (aside,) = finished.model.parent.glob(f"{finished.model.name}.*")
    assert (aside / "model.safetensors").read_bytes() == old


def test_a_network_is_kept_when_code_changes_that_cannot_touch_it(finished, edit, monkeypatch):
    before = (finished.model / "model.safetensors").stat().st_mtime_ns
    edit(product, "DEPTH_BOUNDS", {"0-7cm": (0.0, 0.08)})
    fit(finished)
    assert (finished.model / "model.safetensors").stat().st_mtime_ns == before


def test_a_product_is_made_anew_by_other_code(finished, edit):
    path = finished.product("ssp585")
    with xr.open_dataset(path) as before:
        assert float(before["depth"]) == 0.035
    edit(product, "DEPTH_BOUNDS", {"0-7cm": (0.0, 0.09)})
    with pytest.raises(ValueError, match=r"out of date .*code.*run chapter 03_fused_product"):
        open_product(path)
    with xr.open_dataset(fuse(finished, "ssp585")) as after:
        assert float(after["depth"]) == 0.045


def test_a_product_is_not_read_when_its_network_or_its_inputs_have_changed(finished):
    path = finished.product("ssp585")
    (native,) = finished.cmip6_directory.glob("**/Birch/ssp585/**/*.nc")
    changed = xr.load_dataset(native, decode_times=False, mask_and_scale=False)
    changed["mrsos"] = changed["mrsos"].where(changed["mrsos"] > 1e10, 0.9 * changed["mrsos"])
    changed.to_netcdf(native)
    prepare(finished)
    with pytest.raises(ValueError, match=r"theta_Birch_ssp585\.nc has changed.*03_fused_product"):
        open_product(path)
    fuse(finished, "ssp585")
    assert open_product(path).sizes["time"] == 48
    wider = finished.network.model_copy(update={"features": 5})
    with pytest.raises(FileNotFoundError, match="03_fused_product"):
        open_product(finished.model_copy(update={"network": wider}).product("ssp585"))


def test_a_store_of_other_settings_is_not_read(study):
    prepare(study)
    longer = study.periods.model_copy(update={"future": ("2015", "2017")})
    other = study.model_copy(update={"periods": longer})
    with pytest.raises(ValueError, match=r"periods.future was .*2018.*01_data_preparation"):
        open_predictors(other, "ssp585")
    assert open_predictors(study, "ssp585").sizes["time"] == 48


def test_baselines_are_made_anew_of_other_inputs(finished):
    before = validation.open_baselines(finished)["climatology"]
    file = finished.prepared / "reference.nc"
    changed = xr.load_dataset(file)
    changed["theta"] += 0.1
    write_dataset(changed, file, store.recorded(file)["recipe"] | {"inputs": {}})
    after = validation.open_baselines(finished)["climatology"]
    np.testing.assert_allclose(after, before + 0.1, atol=1e-6)


def test_findings_of_other_inputs_are_not_read(finished, tmp_path):
    """A result remembers what its process has read."""
    open_product(finished.product("ssp585"))
    study = finished.model_copy(update={"results": tmp_path})
    chapter = ["05_future_trends"]
    write_json({"claims": {}}, study.results / "05_future_trends.json")
    assert read_findings(chapter, study) == {}
    path = finished.product("ssp585")
    write_text("other", path, store.recorded(path)["recipe"] | {"inputs": {}})
    with pytest.raises(ValueError, match=r"ssp585.*has changed.*05_future_trends"):
        read_findings(chapter, study)


def test_findings_of_other_settings_are_not_read(finished):
    """A result remembers the study whose files its process has read."""
    open_reference(finished)
    chapter = ["05_future_trends"]
    write_json({"claims": {}}, finished.results / "05_future_trends.json")
    assert read_findings(chapter, finished) == {}
    other = finished.model_copy(update={"sites": {}})
    with pytest.raises(ValueError, match=r"sites was .*05_future_trends"):
        read_findings(chapter, other)


def test_an_input_that_was_replaced_or_shipped_anew_is_seen(study, monkeypatch, tmp_path):
    """Whatever its record says, or if that is gone."""
    monkeypatch.setattr(store, "SHIPPED", tmp_path / "shipped")
    shipped, kept, native = (
        tmp_path / one for one in ("shipped/table.csv", "kept.csv", "native.nc")
    )
    shipped.parent.mkdir()
    shipped.write_text("1")
    native.write_text("1")
    write_text("1", kept)
    made, result = recipe("soil", inputs=[shipped, kept, native]), tmp_path / "result.csv"
    write_text("1", result, made)
    native.unlink()
    assert checked(result, "05")  # the first chapter checks it
    record = (tmp_path / ".kept.csv.made").read_bytes()
    for path in (shipped, kept):
        path.write_text("22")
        with pytest.raises(ValueError, match=f"{path.name} has changed.*run chapter 05"):
            checked(result, "05")
        path.write_text("1")
    (tmp_path / ".kept.csv.made").unlink()
    with pytest.raises(ValueError, match="kept.csv has lost its record"):
        checked(result, "05")
    (tmp_path / ".kept.csv.made").write_bytes(record)
    assert checked(result, "05")


# Damage is seen


def reads(study):
    """Every kept file of a study with what reads it, and the chapter that the error names."""
    files = {
        study.prepared / "theta_Birch_ssp585.nc": lambda: open_predictors(study, "ssp585"),
        study.prepared / "reference.nc": lambda: open_reference(study),
        study.prepared / "static.nc": lambda: open_static(study),
        study.prepared / "manifest.json": lambda: fusion._inputs(study, "ssp585"),
        study.model / "model.safetensors": lambda: load(study),
        study.model / "model.json": lambda: load(study),
        study.model / "odd.safetensors": lambda: load(study, epoch=1),
        study.product("historical"): lambda: open_product(study.product("historical")),
        study.product("ssp585"): lambda: open_product(study.product("ssp585")),
    }
    chapters = {"prepared": "01_data_preparation", "model": "02_ynet_training"}
    return [
        (path, read, chapters.get(path.relative_to(study.directory).parts[0], "03_fused_product"))
        for path, read in files.items()
    ]


def test_a_damaged_byte_is_named_with_its_file_and_the_chapter_to_run(finished):
    for path, read, chapter in reads(finished):
        whole = path.read_bytes()
        read()
        for content in (None, whole[: len(whole) // 3], b""):
            damage(path) if content is None else rewrite(path, content)
            with pytest.raises(ValueError, match=f"{path} is damaged.*run chapter {chapter}"):
                assert read() is None, path
            rewrite(path, whole)
        read()


def test_what_is_damaged_is_made_anew_by_its_own_step(finished):
    prepare(finished)
    for path, _, chapter in reads(finished):
        if chapter == "02_ynet_training":
            continue  # see the tests of training
        before = path.read_bytes()
        damage(path)
        prepare(finished)
        fuse(finished, "historical")
        fuse(finished, "ssp585")
        if path.suffix == ".nc":
            assert xr.open_dataset(path)["theta" if "static" not in path.name else "land"].size
        assert path.read_bytes() == before


def test_an_archive_with_a_damaged_file_is_made_anew(study):
    listed = make_archive(study.directory / "archive", study)
    damage(study.directory / "archive" / listed["path"].iloc[0])
    again = make_archive(study.directory / "archive", study)
    assert again.equals(listed)
    first = study.directory / "archive" / listed["path"].iloc[0]
    assert store.sha256(first) == listed["sha256"].iloc[0]


def test_a_file_without_a_record_is_not_trusted(finished, tmp_path):
    path = finished.product("ssp585")
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    with pytest.raises(ValueError, match="damaged"):
        open_product(copy)
    shutil.copy(path.with_name(f".{path.name}.made"), tmp_path)
    assert open_product(copy).sizes["time"] == 48


def test_a_moved_study_is_still_fresh(finished, tmp_path, monkeypatch):
    finished.directory.rename(tmp_path / "moved")
    archive = tmp_path / "moved" / "archive"
    moved = finished.model_copy(
        update={
            "directory": tmp_path / "moved",
            "cmip6_directory": archive / "CMIP6",
            "era5land_directory": archive / "ERA5-Land",
        }
    )
    before = {path: path.stat().st_mtime_ns for path in moved.directory.glob("*/*/*.nc")}
    prepare(moved)
    fuse(moved, "ssp585")
    assert {path: path.stat().st_mtime_ns for path in moved.directory.glob("*/*/*.nc")} == before


# The rule itself


def test_code_digest_sees_code_and_nothing_else(monkeypatch):
    before = code_digest("soil")
    source = store.SOURCES["soil"]
    code = source.split('"""', 2)[2]
    with_words = f'"""Another text."""\n\n# a remark\n{code}\n\n'
    monkeypatch.setitem(store.SOURCES, "soil", with_words)
    assert code_digest("soil") == before
    monkeypatch.setitem(store.SOURCES, "soil", source.replace("0.766", "0.767"))
    assert code_digest("soil") != before


@pytest.mark.parametrize("name", ["prepare", "training", "fusion", "validation", "demo"])
def test_code_digest_covers_what_python_imports(name):
    code = f"import sys, smcore.{name}; print(*(one for one in sys.modules if 'smcore.' in one))"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = {one.removeprefix("smcore.") for one in loaded.split() if one.startswith("smcore.")}
    assert imported_with(name) == loaded - {"config", "profile", "store", "progress"}


def test_code_digest_follows_imports_but_not_those_without_effect(monkeypatch):
    before = code_digest("prepare")
    for name in ("plots", "config", "store", "progress"):
        monkeypatch.setitem(store.SOURCES, name, store.SOURCES[name] + "\nMORE = 1\n")
        assert code_digest("prepare") == before
    monkeypatch.setitem(store.SOURCES, "soil", store.SOURCES["soil"] + "\nMORE = 1\n")
    assert code_digest("prepare") != before


def test_fresh_asks_for_recipe_and_content(tmp_path):
    source, path = tmp_path / "source", tmp_path / "file.txt"
    source.write_text("a")
    made = recipe("soil", settings={"years": ("1990", "2000")}, inputs=[source])
    assert not fresh(path, made)
    write_text("content", path, made)
    assert fresh(path, made)
    assert not fresh(path, recipe("grids", settings={"years": ["1990", "2000"]}, inputs=[source]))
    assert not fresh(path, recipe("soil", settings={"years": ["1991", "2000"]}, inputs=[source]))
    source.write_text("b")
    assert not fresh(path, recipe("soil", settings={"years": ["1990", "2000"]}, inputs=[source]))
    source.write_text("a")
    assert fresh(path, recipe("soil", settings={"years": ["1990", "2000"]}, inputs=[source]))
    path.write_text("Content")
    assert not fresh(path, made)


def test_checked_follows_inputs_to_their_own_inputs(tmp_path, monkeypatch):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    write_text("1", first, recipe("soil"))
    write_text("2", second, recipe("grids", inputs=[first]))
    write_text("3", third, recipe("trends", inputs=[second]))
    assert checked(third, "07") == third
    monkeypatch.setitem(store.SOURCES, "soil", "WATER_DENSITY = 1\n")
    with pytest.raises(ValueError, match="the code that made first has changed.*chapter 07"):
        checked(third, "07")


def test_records_hold_no_time_and_no_place(finished):
    for path in [finished.prepared / "static.nc", finished.product("ssp585")]:
        text = path.with_name(f".{path.name}.made").read_text()
        assert str(finished.directory) not in text and str(Path.home()) not in text
