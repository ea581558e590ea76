"""Studies that several test modules share; the demo world of `tiny` is made once a session."""

import pytest
import yaml

from smcore.config import PROFILES, Study
from smcore.demo import make_archive
from smcore.prepare import prepare


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
