"""Everything here talks to servers on this machine; the archives themselves are never asked."""

import errno
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from archive_servers import ClimateDataStore, DataNode, IndexNode, record, serving

from smcore import acquire
from smcore.config import PROFILES, ROOT, Study

KEY = "0f1e2d3c-secret-key"
MODELS = pd.read_csv(ROOT / "data" / "cmip6_models.csv").set_index("source_id")
YEARS = acquire.YEARS
AREA = "lat17to55_lon70to138"  # the domain of the profile, and a degree on each side
HISTORICAL = ("185001-194912", "195001-201412")


def leftovers(folder):
    """Hidden files below a folder that are no records: parts of what was not finished."""
    return [path for path in folder.glob("**/.*") if path.suffix != ".made"]


def _content(seed, size=300_000):
    return np.random.default_rng(seed).bytes(size)


class Archive:
    """Two data nodes, an index and a Climate Data Store, and a study that uses them."""

    def __init__(self, enter, directory, monkeypatch):
        self.enter, self.directory, self.monkeypatch = enter, directory, monkeypatch
        self.node, self.mirror = enter(DataNode()), enter(DataNode())
        self.index = enter(IndexNode())
        self.store = enter(ClimateDataStore(KEY))
        self.store.node = enter(DataNode())
        self.contents = {}
        self.ask(self.index)

    def ask(self, *nodes):
        self.monkeypatch.setattr(acquire, "INDEX_NODES", tuple(node.address for node in nodes))

    def study(self, *sources, **overrides):
        options = {"directory": str(self.directory), "experiments": ["ssp585"]} | overrides
        return Study.load("paper", sources=list(sources), **options)

    def publish(self, source_id, experiment_id, span, *, copies=1, **changes):
        """Put a file on the first data node, or on both, and into the index."""
        row = MODELS.loc[source_id]
        member = row["member_hist" if experiment_id == "historical" else "member_ssp"]
        grid = row["grid_label"]
        name = f"mrsos_Lmon_{source_id}_{experiment_id}_{member}_{grid}_{span}.nc"
        content = self.contents.setdefault(name, _content(len(self.contents)))
        for node, replica in [(self.node, False), (self.mirror, True)][:copies]:
            url = node.put(f"thredds/fileServer/{name}", content)
            entry = record(name, content, url, replica=replica, **changes)
            self.index.records.append(entry)
        return f"thredds/fileServer/{name}"

    def publish_source(self, source_id, **options):
        historical = self.publish(source_id, "historical", HISTORICAL[1], **options)
        return historical, self.publish(source_id, "ssp585", "201501-210012", **options)

    def found(self):
        """Names and contents below the directory of CMIP6 files."""
        return {path.name: path.read_bytes() for path in self.directory.glob("**/mrsos*.nc")}

    def profile(self, study):
        """A profile file of that study, for the command line."""
        raw = yaml.safe_load((PROFILES / "paper.yml").read_text())
        raw |= {"directory": str(self.directory), "sources": list(study.sources)}
        raw |= {"experiments": list(study.experiments)}
        path = self.directory / "mine.yml"
        path.write_text(yaml.safe_dump(raw))
        return str(path)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    values = {
        "TIMEOUT": (1, 0.5),
        "BACKOFF": 0.01,
        "POLL": (0.01, 0.02),
        "INTERVAL": 0.05,
        "YEARS": 33,
    }
    for name, value in values.items():
        monkeypatch.setattr(acquire, name, value)
    with ExitStack() as stack:
        archive = Archive(
            lambda server: stack.enter_context(serving(server)), tmp_path, monkeypatch
        )
        credentials = tmp_path / "cdsapirc"
        credentials.write_text(f"url: {archive.store.address}\nkey: {KEY}\n")
        monkeypatch.setenv("CDSAPI_RC", str(credentials))
        monkeypatch.delenv("CDSAPI_URL", raising=False)
        monkeypatch.delenv("CDSAPI_KEY", raising=False)
        yield archive


@pytest.fixture
def cmip6_only(archive, monkeypatch):
    """The same with ERA5-Land left out."""
    monkeypatch.setattr(acquire, "_requests", lambda study: [])
    return archive


@pytest.fixture
def one_by_one(cmip6_only, monkeypatch):
    """The same, one file after the other: the first node is idle, and asked first."""
    monkeypatch.setattr(acquire, "FILES", 1)
    return cmip6_only


# What ESGF is asked, and what is made of the answer


def test_plan_names_the_files_of_every_series(cmip6_only):
    study = cmip6_only.study("CanESM5", "MIROC6")
    for source_id in study.sources:
        cmip6_only.publish_source(source_id)
    plan = acquire.plan(study)
    assert list(plan.series) == [
        (source_id, experiment_id)
        for source_id in ("CanESM5", "MIROC6")
        for experiment_id in ("historical", "ssp585")
    ]
    name = "mrsos_Lmon_MIROC6_ssp585_r1i1p1f1_gn_201501-210012.nc"
    (file,) = plan.series["MIROC6", "ssp585"]
    folder = "ScenarioMIP/TEST/MIROC6/ssp585/r1i1p1f1/Lmon/mrsos/gn/v20190101"
    assert file.path == f"{folder}/{name}"
    assert file.checksum == hashlib.sha256(cmip6_only.contents[name]).hexdigest()
    assert file.urls == (f"{cmip6_only.node.address}/thredds/fileServer/{name}",)
    assert plan.missing == {} and plan.notes == []


def test_plan_sends_one_value_per_facet(cmip6_only):
    # the bridge takes only one of several values and knows neither `fields` nor `distrib`
    cmip6_only.publish_source("CESM2")  # members differ: r1i1p1f1 and r4i1p1f1
    acquire.plan(cmip6_only.study("CESM2"))
    asked = {query["experiment_id"][0]: query for query in cmip6_only.index.queries}
    assert asked["historical"]["variant_label"] == ["r1i1p1f1"]
    assert asked["ssp585"]["variant_label"] == ["r4i1p1f1"]
    for query in cmip6_only.index.queries:
        assert all(len(values) == 1 for values in query.values())
        assert query["type"] == ["File"] and query["latest"] == ["true"]
        assert not {"fields", "distrib"} & set(query)


def test_plan_reads_all_pages(cmip6_only):
    spans = [f"{year}01-{year + 4}12" for year in range(1950, 2015, 5)]  # 13, two to a page
    for span in spans:
        cmip6_only.publish("CanESM5", "historical", span)
    cmip6_only.publish("CanESM5", "ssp585", "201501-210012")
    plan = acquire.plan(cmip6_only.study("CanESM5"))
    assert len(plan.series["CanESM5", "historical"]) == 13
    offsets = [q["offset"][0] for q in cmip6_only.index.queries if "historical" in str(q)]
    assert offsets == [str(n) for n in range(0, 13, 2)]


def test_plan_leaves_out_files_beyond_the_period(cmip6_only):
    for span in HISTORICAL:
        cmip6_only.publish("MRI-ESM2-0", "historical", span)
    for span in ("201501-210012", "210101-230012"):
        cmip6_only.publish("MRI-ESM2-0", "ssp585", span)
    plan = acquire.plan(cmip6_only.study("MRI-ESM2-0"))
    assert [file.path[-16:-3] for file in plan.files] == ["195001-201412", "201501-210012"]


def test_plan_takes_the_newest_version(cmip6_only):
    cmip6_only.publish_source("CanESM5", version="20190429")
    cmip6_only.publish_source("CanESM5", version="20200101")
    cmip6_only.publish("CanESM5", "ssp585", "201501-210012", version="20210101", retracted=True)
    cmip6_only.publish("CanESM5", "ssp585", "201501-210012", version="20220101", latest=False)
    plan = acquire.plan(cmip6_only.study("CanESM5"))
    assert [file.path.split("/")[-2] for file in plan.files] == ["v20200101", "v20200101"]


def test_plan_takes_the_version_that_the_profile_names(cmip6_only):
    cmip6_only.publish_source("CanESM5", version="20200101")
    cmip6_only.publish("CanESM5", "ssp585", "201501-210012", version="20190429", latest=False)
    study = cmip6_only.study("CanESM5")
    named = {"CanESM5": {"ssp585": "v20190429"}}
    plan = acquire.plan(study.model_copy(update={"versions": named}))
    assert [file.path.split("/")[-2] for file in plan.files] == ["v20200101", "v20190429"]
    absent = {"CanESM5": {"ssp585": "v1"}}
    plan = acquire.plan(study.model_copy(update={"versions": absent}))
    assert "version v1" in plan.missing["CanESM5", "ssp585"]


def test_plan_collects_the_replicas_that_agree_with_the_original(cmip6_only):
    cmip6_only.publish_source("CanESM5", copies=2)
    stale = dict(cmip6_only.index.records[1], checksum=["0" * 64])
    stale["url"] = ["http://stale.invalid/file.nc|application/netcdf|HTTPServer"]
    cmip6_only.index.records.append(stale)
    (file,) = acquire.plan(cmip6_only.study("CanESM5")).series["CanESM5", "historical"]
    nodes = [cmip6_only.node.address, cmip6_only.mirror.address]
    assert [url.partition("/thredds")[0] for url in file.urls] == nodes


@pytest.mark.parametrize(
    "changes",
    [
        {"url": None},
        {"url": [None, 7]},
        {"url": "http://node/file.nc"},
        {"url": ["http://[::1/file.nc|application/netcdf|HTTPServer"]},
        {"size": "many"},
        {"size": None},
        {"size": {}},
        {"title": None},
        {"title": []},
        {"dataset_id": []},
        {"checksum": [None]},
        {"checksum": 7},
        {"checksum_type": None},
    ],
)
def test_plan_leaves_out_malformed_records(cmip6_only, changes):
    cmip6_only.publish_source("CanESM5")
    whole = list(cmip6_only.index.records)
    cmip6_only.index.records = [entry | changes for entry in whole] + [None, "odd"] + whole
    plan = acquire.plan(cmip6_only.study("CanESM5"))
    assert [len(file.urls) for file in plan.files] == [1, 1]
    assert plan.missing == {} and "CMIP6: 2 files" in plan.describe()


def test_plan_never_leaves_the_folder(cmip6_only):
    cmip6_only.publish_source("CanESM5")
    for entry in list(cmip6_only.index.records):
        cmip6_only.index.records.append(dict(entry, title=f"../{entry['title'][0]}"))
        evil = entry["dataset_id"][0].replace("TEST", "../..")
        cmip6_only.index.records.append(dict(entry, dataset_id=[evil]))
    plan = acquire.plan(cmip6_only.study("CanESM5"))
    assert all(".." not in file.path for file in plan.files) and len(plan.files) == 2


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("page", "its answer (text/html) is not that of an ESGF search"),
        ("down", "503"),
        ("odd", "its answer (application/json) is not that of an ESGF search"),
    ],
)
def test_plan_asks_the_next_index_where_one_fails(cmip6_only, broken, reason):
    bad = cmip6_only.enter(IndexNode())
    bad.broken = broken
    cmip6_only.ask(bad, cmip6_only.index)
    cmip6_only.publish_source("CanESM5")
    plan = acquire.plan(cmip6_only.study("CanESM5"))
    assert len(plan.files) == 2
    assert bad.address in plan.notes[0] and reason in plan.notes[0]


def test_plan_asks_the_next_index_for_what_one_lacks(cmip6_only):
    other = cmip6_only.enter(IndexNode())
    cmip6_only.publish_source("CanESM5")
    other.records = [cmip6_only.index.records.pop()]  # ssp585
    cmip6_only.ask(cmip6_only.index, other)
    assert acquire.plan(cmip6_only.study("CanESM5")).missing == {}
    assert {query["experiment_id"][0] for query in other.queries} == {"ssp585"}


def test_plan_says_when_no_index_answers(cmip6_only):
    cmip6_only.index.broken = "down"
    with pytest.raises(ConnectionError, match="no search node.*\n.*503"):
        acquire.plan(cmip6_only.study("CanESM5"))


def test_plan_names_what_is_missing_and_who_could_stand_in(cmip6_only):
    cmip6_only.publish("TaiESM1", "historical", HISTORICAL[1])
    cmip6_only.publish("TaiESM1", "ssp585", "201501-209912")
    cmip6_only.publish("CanESM5", "historical", HISTORICAL[1])
    plan = acquire.plan(cmip6_only.study("TaiESM1", "CanESM5", "GISS-E2-1-G"))
    lines = plan.describe_missing()
    assert "TaiESM1 ssp585: ESGF lacks 2100-01 to 2100-12" in lines
    assert "CanESM5 ssp585: not at ESGF as member r1i1p1f1 on grid gn" in lines
    # CESM2 is kin of TaiESM1; GISS-E2-1-G is in the study already
    reserve = "in reserve for TaiESM1, to be named in `sources`: CESM2 (same family), CAMS-CSM1-0"
    assert reserve in lines
    assert ("CanESM5", "historical") not in plan.missing


def test_plan_only_notes_a_first_month_that_the_profile_fills(cmip6_only):
    cmip6_only.publish("NorESM2-LM", "historical", HISTORICAL[1])
    cmip6_only.publish("NorESM2-LM", "ssp585", "201502-210012")
    plan = acquire.plan(cmip6_only.study("NorESM2-LM"))
    assert plan.missing == {}
    assert plan.notes == ["NorESM2-LM ssp585: ESGF lacks 2015-01"]
    plan = acquire.plan(cmip6_only.study("NorESM2-LM", missing_first_month="refuse"))
    assert "ESGF lacks 2015-01" in plan.missing["NorESM2-LM", "ssp585"] and plan.notes == []
    assert "`missing_first_month`" in plan.missing["NorESM2-LM", "ssp585"]


@pytest.mark.parametrize(
    ("spans", "lacking"),
    [
        (["201501-210011"], "2100-12"),
        (["201501-204912", "205002-210012"], "2050-01"),
        (["201502-204912", "205004-210012"], "2015-01, 2050-01 to 2050-03"),
    ],
)
def test_plan_misses_any_other_month(cmip6_only, spans, lacking):
    cmip6_only.publish("NorESM2-LM", "historical", HISTORICAL[1])
    for span in spans:
        cmip6_only.publish("NorESM2-LM", "ssp585", span)
    plan = acquire.plan(cmip6_only.study("NorESM2-LM"))
    assert plan.missing == {("NorESM2-LM", "ssp585"): f"ESGF lacks {lacking}"}
    assert plan.notes == []


def test_plan_refuses_a_demo_world():
    with pytest.raises(ValueError, match="demo world"):
        acquire.plan(Study.load("tiny"))


# ERA5-Land


def test_plan_requests_ten_years_at_a_time(archive, monkeypatch):
    monkeypatch.setattr(acquire, "YEARS", YEARS)
    requests = acquire.plan(archive.study("CanESM5")).requests
    assert [request.stem for request in requests[:-1]] == [
        f"era5land_swvl1_{year}-{min(year + 9, 2014)}_{AREA}" for year in range(1950, 2015, 10)
    ]
    years = [year for request in requests[:-1] for year in request.inputs["year"]]
    assert years == [str(year) for year in range(1950, 2015)]
    # 18-54 N, 71-137 E and a degree on each side: north, west, south, east
    assert requests[0].inputs["area"] == [55, 70, 17, 138]
    assert requests[0].inputs["variable"] == ["volumetric_soil_water_layer_1"]
    assert requests[-1].inputs["variable"] == ["land_sea_mask", "geopotential"]


def test_plan_requests_the_second_layer_only_where_it_is_used(archive):
    requests = acquire.plan(archive.study("CanESM5", depth="0-10cm")).requests
    assert [request.stem for request in requests[:-1]] == [
        f"era5land_{layer}_{years}_{AREA}"
        for layer in ("swvl1", "swvl2")
        for years in ("1950-1982", "1983-2014")
    ]
    assert requests[2].inputs["variable"] == ["volumetric_soil_water_layer_2"]


def _invariant(folder, *names, north=54.0):
    """A NetCDF file with fields of those names over the domain, and its content."""
    grid = {"latitude": [north, 36.0, 18.0], "longitude": [71.0, 104.0, 137.0, 170.0]}
    units = {"lsm": "(0 - 1)", "z": "m**2 s**-2"}
    field = (tuple(grid), np.full((3, 4), 0.5, "float32"))
    data = xr.Dataset({name: (*field, {"units": units[name]}) for name in names}, grid)
    path = folder / f"by_hand_{'_'.join(names)}.nc"
    data.to_netcdf(path)
    return path.read_bytes()


def test_plan_does_not_request_what_is_there(archive):
    study = archive.study("CanESM5")
    study.era5land_directory.mkdir(parents=True)
    (study.era5land_directory / f"era5land_swvl1_1950-1982_{AREA}.nc").touch()
    _invariant(study.era5land_directory, "lsm")
    stems = [request.stem for request in acquire.plan(study).requests]
    assert stems == [f"era5land_swvl1_1983-2014_{AREA}", f"{acquire.INVARIANT}_{AREA}"]
    _invariant(study.era5land_directory, "z")  # the other one of the documentation's files
    stems = [request.stem for request in acquire.plan(study).requests]
    assert stems == [f"era5land_swvl1_1983-2014_{AREA}"]
    (study.era5land_directory / f"era5land_swvl1_1983-2014_{AREA}.zip").touch()
    assert acquire.plan(study).requests == []


def test_plan_requests_another_domain_anew(archive):
    study = archive.study("CanESM5")
    study.era5land_directory.mkdir(parents=True)
    for request in acquire._requests(study):
        (study.era5land_directory / f"{request.stem}.nc").touch()
    assert acquire._requests(study) == []
    larger = archive.study("CanESM5", domain={"north": 56, "west": 70.5, "east": 136.5})
    requests = acquire._requests(larger)
    assert [request.stem for request in requests] == [
        "era5land_swvl1_1950-1982_lat17to57_lon69.5to137.5",
        "era5land_swvl1_1983-2014_lat17to57_lon69.5to137.5",
        "era5land_invariant_lat17to57_lon69.5to137.5",
    ]
    assert requests[0].inputs["area"] == [57, 69.5, 17, 137.5]


def test_plan_requests_invariant_fields_that_cover_the_domain(archive):
    study = archive.study("CanESM5")
    study.era5land_directory.mkdir(parents=True)
    _invariant(study.era5land_directory, "lsm", "z", north=40.0)  # its cells end at 49
    assert acquire._requests(study)[-1].stem == f"{acquire.INVARIANT}_{AREA}"
    _invariant(study.era5land_directory, "lsm", "z")
    assert len(acquire._requests(study)) == 2  # the layers


def test_download_fetches_era5land(archive, tmp_path):
    study = archive.study("CanESM5")
    invariant = _invariant(tmp_path, "lsm", "z")

    def content(inputs):
        if "geopotential" in inputs["variable"]:
            return invariant
        start = b"PK\x03\x04" if inputs["year"][0] == "1983" else b"CDF\x01"
        return start + inputs["year"][0].encode() * 1000

    archive.store.content = content
    acquire.download(acquire.Plan(study, requests=acquire._requests(study)))
    folder = study.era5land_directory
    plain = folder / f"era5land_swvl1_1950-1982_{AREA}.nc"
    assert plain.read_bytes() == b"CDF\x01" + b"1950" * 1000
    packed = folder / f"era5land_swvl1_1983-2014_{AREA}.zip"
    assert packed.read_bytes() == b"PK\x03\x04" + b"1983" * 1000
    assert (folder / f"era5land_invariant_{AREA}.nc").read_bytes() == invariant
    assert len(list(folder.iterdir())) == 3  # nothing else
    assert acquire._requests(study) == []


def _refusal(archive, **answers):
    study = archive.study("CanESM5")
    for name, answer in answers.items():
        setattr(archive.store, name, answer)
    with pytest.raises(acquire.Unfinished) as caught:
        acquire.download(acquire.Plan(study, requests=acquire._requests(study)))
    return str(caught.value), study.era5land_directory


def test_download_says_where_to_accept_the_licence(archive):
    refusal = (403, "required licences not accepted", "please visit the page")
    text, _ = _refusal(archive, refuse=lambda inputs: refusal)
    assert "required licences not accepted" in text
    assert "reanalysis-era5-land-monthly-means?tab=download#manage-licences" in text


def test_download_says_where_the_invariant_fields_are_if_refused(archive):
    text, folder = _refusal(
        archive,
        refuse=lambda inputs: (
            (400, "invalid request", "no such variable") if len(inputs["month"]) == 1 else None
        ),
    )
    assert text.startswith("1 could not be fetched")
    assert "lsm_1279l4_0.1x0.1.grb_v4_unpack.nc" in text and "ERA5-Land%3A+data+docu" in text
    assert len(list(folder.glob("*swvl1*.nc"))) == 2  # the others came


def test_download_passes_on_why_a_job_failed(archive):
    failure = ("The job failed", "MARS: no space on the tape")
    text, folder = _refusal(
        archive, fail=lambda inputs: failure if "1950" in inputs["year"] else None
    )
    assert f"era5land_swvl1_1950-1982_{AREA}: " in text
    assert "The job failed; MARS: no space on the tape" in text
    assert len(list(folder.glob("*.nc"))) == 2


def test_download_never_shows_the_key(archive, caplog, capfd, recwarn):
    # a service that repeats the key in its answers
    caplog.set_level(logging.DEBUG)
    archive.store.catalogue = (400, {"title": f"bad token {KEY}"})
    text, folder = _refusal(
        archive, refuse=lambda inputs: (400, "bad header", f"PRIVATE-TOKEN: {KEY}")
    )
    assert "PRIVATE-TOKEN: [key]" in text
    assert KEY not in text + caplog.text + "".join(capfd.readouterr())
    assert not any(KEY in str(warning.message) for warning in recwarn)
    assert not any(KEY in path.read_text() for path in folder.glob("**/*") if path.is_file())


def test_download_says_when_the_key_is_wrong(archive):
    archive.store.key = "another"
    text, _ = _refusal(archive)
    assert "authentication failed" in text and "how-to-api" in text and KEY not in text


def test_download_needs_credentials_for_era5land_only(archive, monkeypatch):
    monkeypatch.setenv("CDSAPI_RC", str(archive.directory / "none"))
    archive.publish_source("CanESM5")
    with pytest.raises(
        acquire.Unfinished, match="no credentials.*Missing/incomplete.*how-to-api to ~/.cdsapirc"
    ):
        acquire.download(acquire.plan(archive.study("CanESM5")))
    assert archive.found() == archive.contents


def test_download_takes_a_key_with_whitespace_around_it(archive, monkeypatch):
    monkeypatch.setenv("CDSAPI_KEY", f" {KEY}\r")  # from a file with the line ends of Windows
    monkeypatch.setenv("CDSAPI_URL", f"{archive.store.address}\r")
    study = archive.study("CanESM5")
    acquire.download(acquire.Plan(study, requests=acquire._requests(study)))
    assert acquire._requests(study)[:-1] == []  # the invariant file here holds no fields


@pytest.mark.parametrize("within", [" ", "\t", "\r", "\n", "\u00e9", "'", "\\"])
def test_download_refuses_a_key_that_no_header_takes(
    archive, monkeypatch, caplog, capfd, recwarn, within
):
    caplog.set_level(logging.DEBUG)
    first, last = KEY.split("-", 1)
    monkeypatch.setenv("CDSAPI_KEY", f"{first}{within}{last}")
    text, _ = _refusal(archive)
    assert "letters, digits" in text and "how-to-api" in text
    shown = "".join([text, caplog.text, *capfd.readouterr(), *(str(w.message) for w in recwarn)])
    assert first not in shown and last not in shown
    assert archive.store.inputs == {}


def test_download_asks_the_store_as_the_credentials_say(archive, monkeypatch):
    given = []

    class Client:
        def __init__(self, **options):
            given.append(options)
            raise acquire.requests.ConnectionError("no route")

    with open(archive.directory / "cdsapirc", "a") as file:
        file.write("verify: 0\n")
    monkeypatch.setattr(acquire.cdsapi, "Client", Client)
    text, _ = _refusal(archive)
    assert "no route" in text and len(given) == 3 * acquire.ATTEMPTS
    expected = {"url": archive.store.address, "key": KEY, "verify": False, "retry_max": 1}
    assert given[0].items() >= expected.items()


def test_download_asks_a_busy_store_again(archive):
    answers = [(503, "busy", "try later"), (429, "too many", "try later")]
    archive.store.refuse = lambda inputs: answers.pop() if answers else None
    study = archive.study("CanESM5")
    acquire.download(acquire.Plan(study, requests=acquire._requests(study)))
    assert answers == [] and len(list(study.era5land_directory.glob("*.nc"))) == 3


@pytest.mark.parametrize("odd", ["address", "page"])
def test_download_names_an_odd_answer_of_the_store(archive, odd):
    if odd == "address":
        archive.store.node.put = lambda path, content: 7  # as that of the result
        text, _ = _refusal(archive)
    else:
        text, _ = _refusal(archive, refuse=lambda inputs: (200, "moved", "no job"))
    assert "its answer is not that of the Climate Data Store" in text


def test_download_refuses_a_key_of_the_old_form(archive, monkeypatch):
    monkeypatch.setenv("CDSAPI_KEY", "12345:0f1e2d3c")
    text, _ = _refusal(archive)
    assert "old form" in text and "0f1e2d3c" not in text


# Transfers


def test_download_keeps_the_structure_of_the_archive(cmip6_only):
    study = cmip6_only.study("CanESM5")
    cmip6_only.publish_source("CanESM5", institution="CCCma")
    acquire.download(acquire.plan(study))
    assert cmip6_only.found() == cmip6_only.contents
    folder = (
        study.cmip6_directory / "CMIP/CCCma/CanESM5/historical/r1i1p1f1/Lmon/mrsos/gn/v20190101"
    )
    assert [path.name for path in folder.iterdir()] == [
        "mrsos_Lmon_CanESM5_historical_r1i1p1f1_gn_195001-201412.nc"
    ]


def test_download_twice_fetches_nothing_the_second_time(cmip6_only, monkeypatch):
    study = cmip6_only.study("CanESM5")
    cmip6_only.publish_source("CanESM5")
    acquire.download(acquire.plan(study))
    served = dict(cmip6_only.node.served)
    monkeypatch.setattr(acquire, "_digest", None)  # nor is any file read again
    acquire.download(acquire.plan(study))
    assert cmip6_only.node.served == served


def test_download_replaces_a_file_that_has_changed(cmip6_only):
    study = cmip6_only.study("CanESM5")
    cmip6_only.publish_source("CanESM5")
    acquire.download(acquire.plan(study))
    path = next(study.cmip6_directory.glob("**/*historical*.nc"))
    path.write_bytes(b"x" * path.stat().st_size)  # same size, other content
    acquire.download(acquire.plan(study))
    assert cmip6_only.found() == cmip6_only.contents


def test_download_recognises_files_that_were_fetched_otherwise(cmip6_only):
    study = cmip6_only.study("CanESM5")
    cmip6_only.publish_source("CanESM5")
    plan = acquire.plan(study)
    for file in plan.files:
        path = study.cmip6_directory / file.path
        path.parent.mkdir(parents=True)
        path.write_bytes(cmip6_only.contents[path.name])
    acquire.download(plan)
    assert cmip6_only.node.served == {}
    entries = json.loads((study.cmip6_directory / "acquired.json").read_text())
    assert set(entries) == {file.path for file in plan.files}


@pytest.mark.parametrize("damaged", ["", '{"a": ', "[1]", '{"PATH": 1}', "\udcff"])
def test_download_verifies_anew_without_a_usable_list(cmip6_only, damaged):
    study = cmip6_only.study("CanESM5")
    cmip6_only.publish_source("CanESM5")
    plan = acquire.plan(study)
    acquire.download(plan)
    served = dict(cmip6_only.node.served)
    listed = study.cmip6_directory / "acquired.json"
    whole = json.loads(listed.read_text())
    damaged = damaged.replace("PATH", plan.files[0].path)
    listed.write_bytes(damaged.encode(errors="surrogateescape"))
    acquire.download(plan)
    assert cmip6_only.node.served == served
    assert json.loads(listed.read_text()) == whole


def test_download_goes_on_where_a_connection_was_cut(cmip6_only):
    path, _ = cmip6_only.publish_source("CanESM5")
    cmip6_only.node.faults[path] = ["cut", "cut"]
    acquire.download(acquire.plan(cmip6_only.study("CanESM5")))
    assert cmip6_only.found() == cmip6_only.contents
    # at most one chunk of each cut is fetched again
    again = cmip6_only.node.served[path] - 300_000
    assert 0 <= again <= 2 * acquire.CHUNK
    ranges = [(r, tag) for p, r, tag in cmip6_only.node.requests if p == path]
    assert ranges[0] == (None, None)
    assert all(r.startswith("bytes=") and tag for r, tag in ranges[1:])


def _interrupted(archive):
    """A plan of one source whose historical file was left half fetched by an earlier run."""
    path, _ = archive.publish_source("CanESM5")
    archive.node.faults[path] = ["cut"] + ["gone"] * 3
    plan = acquire.plan(archive.study("CanESM5"))
    with pytest.raises(acquire.Unfinished):
        acquire.download(plan)
    (part,) = plan.study.cmip6_directory.glob("**/.*.part")
    assert part.stat().st_size >= 50_000
    archive.node.faults.clear()
    archive.node.requests.clear()
    archive.node.served.clear()
    return plan, path, part


def test_download_resumes_in_the_next_run(cmip6_only):
    plan, path, part = _interrupted(cmip6_only)
    have = part.stat().st_size
    acquire.download(plan)
    assert cmip6_only.found() == cmip6_only.contents
    assert cmip6_only.node.served == {path: 300_000 - have}
    assert not leftovers(plan.study.cmip6_directory)


def test_download_restarts_where_a_server_ignores_ranges(cmip6_only):
    plan, path, _ = _interrupted(cmip6_only)
    cmip6_only.node.faults[path] = ["no range"]
    acquire.download(plan)
    assert cmip6_only.found() == cmip6_only.contents
    assert cmip6_only.node.served == {path: 300_000}


def test_download_restarts_where_the_kept_part_is_wrong(cmip6_only):
    plan, path, part = _interrupted(cmip6_only)
    part.write_bytes(b"x" * part.stat().st_size)
    acquire.download(plan)
    assert cmip6_only.found() == cmip6_only.contents
    assert [r for p, r, _ in cmip6_only.node.requests if p == path][1] is None


def test_download_restarts_where_the_file_has_changed_on_the_server(cmip6_only):
    # the bytes kept have another ETag than the server's: If-Range makes it send all of them
    plan, path, part = _interrupted(cmip6_only)
    stamp = part.with_name(f"{part.name}.from")
    stamp.write_text(stamp.read_text().partition("\n")[0] + '\n"of yesterday"')
    acquire.download(plan)
    assert cmip6_only.found() == cmip6_only.contents
    assert cmip6_only.node.served == {path: 300_000}


def test_download_keeps_a_part_when_a_page_comes_instead_of_the_file(cmip6_only):
    plan, path, part = _interrupted(cmip6_only)
    have = part.stat().st_size
    cmip6_only.node.faults[path] = ["page"]
    with pytest.raises(
        acquire.Unfinished, match=r"offers 24 bytes \(text/html\) instead of 300000"
    ):
        acquire.download(plan)
    assert part.stat().st_size == have


def test_download_takes_an_answer_without_a_length(cmip6_only):
    path, _ = cmip6_only.publish_source("CanESM5")
    cmip6_only.node.faults[path] = ["chunked"]
    acquire.download(acquire.plan(cmip6_only.study("CanESM5")))
    assert cmip6_only.found() == cmip6_only.contents
    assert [p for p, *_ in cmip6_only.node.requests].count(path) == 1


def test_download_refuses_a_page_without_a_length(cmip6_only):
    plan, path, part = _interrupted(cmip6_only)
    have = part.stat().st_size
    cmip6_only.node.faults[path] = ["chunked page"]
    with pytest.raises(acquire.Unfinished, match=r"offers .*\(text/html.*\) instead of 300000"):
        acquire.download(plan)
    assert part.stat().st_size == have


@pytest.mark.parametrize("resumed", [False, True])
def test_download_refuses_an_answer_without_end(cmip6_only, resumed):
    if resumed:
        plan, path, _ = _interrupted(cmip6_only)  # status 206
    else:
        path, _ = cmip6_only.publish_source("CanESM5")
        plan = acquire.plan(cmip6_only.study("CanESM5"))
    cmip6_only.node.faults[path] = ["endless"]
    with pytest.raises(acquire.Unfinished, match="it sends more than the 300000 bytes"):
        acquire.download(plan)
    assert not leftovers(plan.study.cmip6_directory)  # nor is any of it kept
    acquire.download(plan)
    assert cmip6_only.found() == cmip6_only.contents


def test_download_turns_to_a_replica(one_by_one):
    path, _ = one_by_one.publish_source("CanESM5", copies=2)
    one_by_one.node.faults[path] = ["gone"]
    plan = acquire.plan(one_by_one.study("CanESM5"))
    acquire.download(plan)
    assert one_by_one.found() == one_by_one.contents
    assert one_by_one.node.requests[0][0] == path


def test_download_resumes_on_a_replica(one_by_one):
    path, _ = one_by_one.publish_source("CanESM5", copies=2)
    one_by_one.node.faults[path] = ["cut"] + ["busy"] * 9
    one_by_one.node.retry_after = "0"
    acquire.download(acquire.plan(one_by_one.study("CanESM5")))
    assert one_by_one.found() == one_by_one.contents
    assert one_by_one.node.served[path] + one_by_one.mirror.served[path] <= 300_000 + acquire.CHUNK
    assert one_by_one.node.requests[0][0] == path


def test_download_gives_up_on_a_node_that_is_down(one_by_one):
    one_by_one.publish_source("CanESM5", copies=2)
    plan = acquire.plan(one_by_one.study("CanESM5"))
    one_by_one.node.shutdown()
    one_by_one.node.server_close()
    acquire.download(plan)
    assert one_by_one.found() == one_by_one.contents


def test_download_gives_up_on_a_node_that_is_slow(one_by_one, monkeypatch):
    monkeypatch.setattr(acquire, "ATTEMPTS", 1)
    path, _ = one_by_one.publish_source("CanESM5", copies=2)
    one_by_one.node.faults[path] = ["slow"]
    start = time.monotonic()
    acquire.download(acquire.plan(one_by_one.study("CanESM5")))
    assert one_by_one.found() == one_by_one.contents
    assert time.monotonic() - start < one_by_one.node.patience
    assert one_by_one.node.requests[0][0] == path


def test_download_waits_as_long_as_a_busy_server_asks(cmip6_only):
    path, _ = cmip6_only.publish_source("CanESM5")
    cmip6_only.node.faults[path] = ["busy"]  # Retry-After: 1, where the back-off is 0.01 s
    acquire.download(acquire.plan(cmip6_only.study("CanESM5")))
    times = [t for (p, *_), t in zip(cmip6_only.node.requests, cmip6_only.node.times) if p == path]
    assert times[1] - times[0] >= 1.0


def test_download_does_not_wait_for_a_server_that_asks_for_an_hour(one_by_one):
    path, _ = one_by_one.publish_source("CanESM5", copies=2)
    one_by_one.node.faults[path] = ["busy"]
    one_by_one.node.retry_after = "3600"
    acquire.download(acquire.plan(one_by_one.study("CanESM5")))
    assert one_by_one.found() == one_by_one.contents
    assert one_by_one.node.requests[0][0] == path


def test_a_failure_is_told_by_its_innermost_cause():
    with pytest.raises(acquire._Trouble, match=r"^NewConnectionError: .*refused$") as caught:
        acquire._get("http://127.0.0.1:1/file.nc?a=b")
    assert "Max retries" not in str(caught.value)


def test_retry_after_may_be_a_date():
    answer = namedtuple("Answer", "headers")({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    assert acquire._retry_after(answer) == 0  # is past
    assert acquire._retry_after(answer._replace(headers={})) is None


def test_persist_waits_longer_each_time(monkeypatch):
    pauses = []

    class Stop:
        def is_set(self):
            return False

        def wait(self, seconds):
            pauses.append(seconds)

    def attempt():
        raise acquire._Trouble("busy")

    monkeypatch.setattr(acquire, "BACKOFF", 2.0)
    with pytest.raises(acquire._Trouble):
        acquire._persist(attempt, Stop())
    assert pauses == [2, 4, 8]  # four attempts


def test_download_refuses_a_wrong_checksum_and_fetches_the_others(cmip6_only):
    path, other = cmip6_only.publish_source("CanESM5")
    cmip6_only.node.files[path] = _content(99)  # as long as the right one
    study = cmip6_only.study("CanESM5")
    with pytest.raises(acquire.Unfinished) as caught:
        acquire.download(acquire.plan(study))
    text = str(caught.value)
    assert f"{cmip6_only.node.address}/{path}: its sha256 is not that of the archive" in text
    assert list(cmip6_only.found()) == [other.rpartition("/")[2]]
    assert not leftovers(study.cmip6_directory)  # nothing wrong is kept


def test_download_lists_all_failures_at_the_end(cmip6_only):
    paths = [cmip6_only.publish_source(source_id, copies=2) for source_id in ("CanESM5", "MIROC6")]
    for historical, _ in paths:
        cmip6_only.node.faults[historical] = ["gone"]
        cmip6_only.mirror.faults[historical] = ["page"]
    with pytest.raises(acquire.Unfinished) as caught:
        acquire.download(acquire.plan(cmip6_only.study("CanESM5", "MIROC6")))
    text = str(caught.value)
    assert text.startswith("2 could not be fetched")
    for historical, _ in paths:
        assert f"{cmip6_only.node.address}/{historical}: HTTP 404" in text
        assert f"{cmip6_only.mirror.address}/{historical}: it offers" in text
    assert len(cmip6_only.found()) == 2


def test_download_bounds_the_transfers_of_a_node(cmip6_only):
    for source_id in ("CanESM5", "MIROC6", "BCC-CSM2-MR", "FGOALS-g3"):
        for path in cmip6_only.publish_source(source_id):
            cmip6_only.node.faults[path] = ["slow"]
    cmip6_only.node.patience = 0.1  # they overlap, and then fail and are asked again
    acquire.download(
        acquire.plan(cmip6_only.study("CanESM5", "MIROC6", "BCC-CSM2-MR", "FGOALS-g3"))
    )
    assert cmip6_only.found() == cmip6_only.contents
    assert cmip6_only.node.most == acquire.FILES_PER_NODE


def test_download_reports_bytes_rate_and_time(cmip6_only, monkeypatch):
    lines = []
    monkeypatch.setattr(acquire, "report", lines.append)
    cmip6_only.publish_source("CanESM5")
    acquire.download(acquire.plan(cmip6_only.study("CanESM5")))
    assert lines[-1].startswith("2 of 2 files, 600.0 kB of 600.0 kB, ")
    assert "/s, 0 s left" in lines[-1]


# Full disks and interruptions


def test_download_checks_the_disk_before_it_starts(archive, monkeypatch):
    archive.publish_source("CanESM5")
    plan = acquire.plan(archive.study("CanESM5"))
    needed = 600_000 + sum(request.size for request in plan.requests)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(acquire.shutil, "disk_usage", lambda folder: usage(0, 0, needed - 1))
    with pytest.raises(acquire.Unfinished, match=rf"{needed} bytes.*{needed - 1} bytes\) are free"):
        acquire.download(plan)
    assert archive.node.served == {} and archive.store.inputs == {}
    monkeypatch.setattr(acquire.shutil, "disk_usage", lambda folder: usage(0, 0, needed))
    acquire.download(plan)


def test_download_stops_at_a_full_disk_and_loses_nothing(cmip6_only, monkeypatch):
    study = cmip6_only.study("CanESM5", "MIROC6")
    for source_id in study.sources:
        cmip6_only.publish_source(source_id)
    room = [500_000]

    class Disk:
        """A file on a disk with little room."""

        def __init__(self, path, mode):
            self.file = open(path, mode)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            if room[0] < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            room[0] -= len(data)
            self.file.write(data)

    def small_disk(path, mode):
        return (Disk if mode == "ab" else open)(path, mode)

    monkeypatch.setattr(acquire, "open", small_disk, raising=False)
    with pytest.raises(acquire.Unfinished) as caught:
        acquire.download(acquire.plan(study))
    assert f"the disk of {study.cmip6_directory} is too small" in str(caught.value)
    files = [*study.cmip6_directory.glob("**/.*.part"), *study.cmip6_directory.glob("**/m*.nc")]
    kept = sum(path.stat().st_size for path in files)
    assert kept == 500_000 - room[0]
    served = sum(cmip6_only.node.served.values())

    room[0] = 10**9
    acquire.download(acquire.plan(study))
    assert cmip6_only.found() == cmip6_only.contents
    assert sum(cmip6_only.node.served.values()) - served == 1_200_000 - kept


SLOW_RUN = """
import sys
import time
from smcore import acquire

acquire.INDEX_NODES = (sys.argv[2],)
acquire.CHUNK = 1000
acquire._requests = lambda study: []
chunks = acquire._chunks
def slow(response):
    for chunk in chunks(response):
        print("chunk", flush=True)
        time.sleep(0.01)
        yield chunk
acquire._chunks = slow
sys.exit(acquire.main(["--profile", sys.argv[1], "--no-prepare"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_with_the_next(cmip6_only, number):
    study = cmip6_only.study("CanESM5")
    cmip6_only.publish_source("CanESM5")
    profile = cmip6_only.profile(study)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, profile, cmip6_only.index.address],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    lines = 0
    while lines < 60:
        lines += process.stdout.readline() == "chunk\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    if number == signal.SIGINT:
        assert process.returncode == 1
        assert "Stopped. Run the same command again" in errors and "Traceback" not in errors
    kept = sum(part.stat().st_size for part in cmip6_only.directory.glob("**/.*.part"))
    assert 40_000 < kept < 600_000 and cmip6_only.found() == {}
    cmip6_only.node.served.clear()
    acquire.download(acquire.plan(study))
    assert cmip6_only.found() == cmip6_only.contents
    assert sum(cmip6_only.node.served.values()) == 600_000 - kept


def _interrupt(call, *arguments):
    """Seconds that a call takes to end after Ctrl-C, pressed after 0.3 s."""
    pressed = []

    def press():
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        call(*arguments)
    return time.monotonic() - pressed[0]


def test_plan_ends_soon_after_an_interrupt(cmip6_only, monkeypatch):
    monkeypatch.setattr(acquire, "BACKOFF", 10.0)
    cmip6_only.index.broken = "down"
    study = cmip6_only.study(*MODELS.index[:20], experiments=["ssp126", "ssp585"])
    assert _interrupt(acquire.plan, study) < 2
    assert len(cmip6_only.index.queries) == acquire.FILES  # one for each thread


def test_download_ends_soon_after_an_interrupt_when_the_store_is_busy(archive, monkeypatch):
    monkeypatch.setattr(acquire, "BACKOFF", 10.0)
    asked = []
    archive.store.refuse = lambda inputs: asked.append(inputs) or (503, "busy", "try later")
    study = archive.study("CanESM5")
    plan = acquire.Plan(study, requests=acquire._requests(study))
    lines = []
    monkeypatch.setattr(acquire, "report", lines.append)
    assert _interrupt(acquire.download, plan) < 2
    assert lines[-1] == "stopping; a server that does not answer holds this up for 1.5 s"
    assert len(asked) == acquire.REQUESTS


def test_download_begins_no_transfer_after_an_interrupt(cmip6_only, monkeypatch):
    monkeypatch.setattr(acquire, "FILES_PER_NODE", 1)
    study = cmip6_only.study("CanESM5", "MIROC6")
    for source_id in study.sources:
        for path in cmip6_only.publish_source(source_id):
            cmip6_only.node.faults[path] = ["slow"] * 4
    plan = acquire.plan(study)
    assert _interrupt(acquire.download, plan) < 2
    assert len(cmip6_only.node.requests) == 1  # the others waited for a place


# The command


def test_main_shows_what_would_be_fetched(archive, capsys):
    study = archive.study("CanESM5")
    archive.publish_source("CanESM5", copies=2)
    assert acquire.main(["--profile", archive.profile(study), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if "ssp585" in line)
    assert row.split()[:7] == ["CanESM5", "ssp585", "1", "300.0", "kB", "CC", "BY"]
    assert f"127.0.0.1:{archive.mirror.server_port}" in row
    assert "CMIP6: 2 files, 600.0 kB. ERA5-Land: 3 files still to come" in shown
    assert archive.node.served == {} and archive.store.inputs == {}
    assert not study.cmip6_directory.exists()


def test_main_fails_where_a_dry_run_finds_something_missing(archive, capsys):
    archive.publish("CanESM5", "historical", HISTORICAL[1])
    profile = archive.profile(archive.study("CanESM5"))
    assert acquire.main(["--profile", profile, "--dry-run"]) == 1
    assert "CanESM5 ssp585: not at ESGF" in capsys.readouterr().err
    assert archive.node.served == {} and archive.store.inputs == {}


def test_main_fetches_and_prepares(archive, monkeypatch):
    prepared = []
    monkeypatch.setattr(acquire, "prepare", prepared.append)
    study = archive.study("CanESM5")
    archive.publish_source("CanESM5")
    profile = archive.profile(study)
    assert acquire.main(["--profile", profile, "--no-prepare"]) == 0
    assert archive.found() == archive.contents and prepared == []
    assert acquire.main(["--profile", profile]) == 0
    assert prepared[0].sources == ("CanESM5",)


def test_main_fetches_what_there_is_and_names_what_is_missing(archive, monkeypatch, capsys):
    monkeypatch.setattr(acquire, "prepare", None)  # is not called
    archive.publish("CanESM5", "historical", HISTORICAL[1])
    assert acquire.main(["--profile", archive.profile(archive.study("CanESM5"))]) == 1
    assert archive.found() == archive.contents
    errors = capsys.readouterr().err
    assert "CanESM5 ssp585: not at ESGF" in errors
    assert "in reserve for CanESM5" in errors and "Traceback" not in errors


def test_main_names_failures_and_what_is_missing_together(archive, capsys):
    path = archive.publish("CanESM5", "historical", HISTORICAL[1])
    archive.node.faults[path] = ["gone"]
    assert acquire.main(["--profile", archive.profile(archive.study("CanESM5"))]) == 1
    errors = capsys.readouterr().err
    assert "HTTP 404" in errors and "CanESM5 ssp585: not at ESGF" in errors


def test_the_command_has_nothing_to_fetch_for_a_demo_world():
    command = [sys.executable, "-m", "smcore.acquire", "--profile", "tiny"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and "demo world" in run.stdout


def test_main_shows_errors_without_traceback(archive, capsys):
    archive.index.broken = "down"
    assert acquire.main(["--profile", archive.profile(archive.study("CanESM5"))]) == 1
    assert capsys.readouterr().err.startswith("error: no search node of ESGF answers")
