"""Studies that several test modules share; the demo world of `tiny` is made once a session."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # expected values are those of processor cores

from concurrent.futures import ThreadPoolExecutor

import pyproj  # noqa: F401  before ecCodes is loaded: see smcore.era5land
import pytest
import yaml

from smcore import store
from smcore.config import PROFILES, Study
from smcore.demo import make_archive
from smcore.prepare import prepare


@pytest.fixture(autouse=True)
def nothing_read(monkeypatch):
    """Each test is a process of its own in what it has read."""
    monkeypatch.setattr(store, "_read", {})
    monkeypatch.setattr(store, "_asked", {})


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory):
    """The profile `tiny`, whose files lie in a directory of this session."""
    folder = tmp_path_factory.mktemp("tiny")
    raw = yaml.safe_load((PROFILES / "tiny.yml").read_text())
    raw["directory"] = str(folder / "data")
    profile = folder / "tiny.yml"
    profile.write_text(yaml.safe_dump(raw, sort_keys=False))
    return Study.load(profile)


@pytest.fixture(scope="session")
def tiny_archive(tiny_study):
    """That study with the archive of its demo world; not to be changed by a test."""
    make_archive(tiny_study.directory / "archive", tiny_study)
    return tiny_study


@pytest.fixture(scope="session")
def prepared_study(tiny_archive):
    """That study with the prepared store; not to be changed by a test."""
    prepare(tiny_archive)
    return tiny_archive


@pytest.fixture(scope="session")
def make_small():
    """A function that gives a study of six years and writes its archive, in this process."""

    def make(directory, *, seed=0, **overrides):
        study = Study.load(
            "tiny",
            **{
                "directory": str(directory),
                "sources": ["Alder", "Birch"],
                "experiments": ["ssp585"],
                "periods": {
                    "historical": ["2009", "2014"],
                    "future": ["2015", "2018"],
                    "train": ["2009", "2010"],
                    "validation": ["2011", "2012"],
                    "test": ["2013", "2014"],
                    "baseline": ["2009", "2014"],
                    "change": [["2015", "2016"], ["2017", "2018"]],
                },
                "demo": {"reference_resolution": 1.0},
            }
            | overrides,
        )
        with pytest.MonkeyPatch.context() as patch:
            # Starting processes takes longer than this archive.
            patch.setattr("smcore.demo.ProcessPoolExecutor", lambda *a, **k: ThreadPoolExecutor(1))
            make_archive(study.directory / "archive", study, seed=seed)
        return study

    return make


@pytest.fixture(scope="session")
def small_archive(make_small, tmp_path_factory):
    """That study with its archive; not to be changed by a test."""
    return make_small(tmp_path_factory.mktemp("small"))
