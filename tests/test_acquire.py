"""Everything here talks to servers on this machine; the archives themselves are never asked."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from archive_servers import ClimateDataStore, FileServer, Index, serving

from smcore import acquire, cds, cloud, cmip6, store
from smcore.config import PROFILES, ROOT, Study

KEY = "0f1e2d3c-secret-key"
MODELS = pd.read_csv(ROOT / "data" / "cmip6_models.csv").set_index("source_id")
AREA = "lat17to55_lon70to138"  # the domain of the profile, and a degree on each side
PERIODS = {
    "historical": ["2001", "2004"],
    "future": ["2005", "2007"],
    "train": ["2001", "2002"],
    "validation": ["2003", "2003"],
    "test": ["2004", "2004"],
    "baseline": ["2001", "2004"],
    "change": [["2005", "2007"]],
}
HISTORICAL, FUTURE = ("2000-01", "2004-12"), ("2005-01", "2008-12")  # what the archives have


def globe(source_id, experiment_id, months, *, tracking_id="hdl:21.14100/one\nhdl:21.14100/two"):
    """A series as a centre writes it: the globe in cells of 5 degrees, 0..360, 365 days a year."""
    row = MODELS.loc[source_id]
    first = np.arange(len(months)) * 365 / 12 + (months[0].year - 1850) * 365
    first += (months[0].month - 1) * 365 / 12
    lat, lon = np.arange(-87.5, 90, 5), np.arange(2.5, 360, 5)
    values = np.random.default_rng(len(source_id)).uniform(5, 40, (len(months), 36, 72))
    values[:, :, lon > 200] = np.nan  # an ocean
    attributes = {"units": "kg m-2", "cell_methods": "area: mean where land time: mean"}
    data = xr.Dataset(
        {
            "mrsos": (("time", "lat", "lon"), values.astype("float32"), attributes),
            "time_bnds": (("time", "bnds"), np.stack([first, first + 365 / 12], axis=1)),
            "lat_bnds": (("lat", "bnds"), np.stack([lat - 2.5, lat + 2.5], axis=1)),
        },
        {"time": first + 15, "lat": lat, "lon": lon, "depth": 0.05, "type": "land"},
    )
    units = {"units": "days since 1850-01-01", "calendar": "noleap", "bounds": "time_bnds"}
    data["time"].attrs = units
    member = row["member_hist" if experiment_id == "historical" else "member_ssp"]
    facets = {"source_id": source_id, "experiment_id": experiment_id, "variant_label": member}
    data.attrs = facets | {"grid_label": row["grid_label"], "tracking_id": tracking_id}
    data.attrs["license"] = "CMIP6 data ... Creative Commons Attribution 4.0 International License"
    return data


class Archive:
    """The servers of the three archives, and a study that uses them."""

    def __init__(self, enter, directory):
        self.directory, self.rows = directory, []
        self.cloud = enter(FileServer(directory / "cloud"))
        self.node, self.mirror = enter(FileServer()), enter(FileServer())
        self.index, self.files = enter(Index()), enter(FileServer())
        self.cds = enter(ClimateDataStore(KEY, self.files))

    def study(self, *sources, **overrides):
        options = {"directory": str(self.directory / "data"), "experiments": ["ssp585"]}
        options |= {"periods": PERIODS, "sources": [*sources]}
        return Study.load("paper", **(options | overrides))

    def put(self, data, name="mrsos", *, table_id="Lmon", version="20190101"):
        """A Zarr group in the cloud store, and its row in the catalogue; returns its path."""
        facets = [data.attrs[key] for key in ("source_id", "experiment_id", "variant_label")]
        activity = "CMIP" if facets[1] == "historical" else "ScenarioMIP"
        folders = [activity, "TEST", *facets, table_id, name, data.attrs["grid_label"]]
        path = f"cmip6/CMIP6/{'/'.join(folders)}/v{version}"
        chunks = {name: {"chunks": (12, 36, 72)[-data[name].ndim :]}}
        options = {"zarr_format": 2, "consolidated": True, "encoding": chunks}
        data.to_zarr(self.cloud.root / path, **options)
        self.rows.append([*folders, f"gs://{path}/", "", version])
        columns = [*acquire.FOLDERS, "zstore", "dcpp_init_year", "version"]
        table = pd.DataFrame(self.rows, columns=columns)
        table = table.rename(columns={"variant_label": "member_id"})
        table.to_csv(self.cloud.root / cloud.CATALOGUE, index=False)
        return path

    def put_source(self, source_id, **options):
        """Both series of a source in the cloud store."""
        series = {"historical": HISTORICAL, "ssp585": FUTURE}
        months = {name: pd.date_range(*ends, freq="MS") for name, ends in series.items()}
        return [self.put(globe(source_id, name, some), **options) for name, some in months.items()]

    def publish(self, source_id, experiment_id, ends, *, copies=1, **changes):
        """A file on the first data node of ESGF, or on both, and in the index; its path there."""
        data = globe(source_id, experiment_id, pd.date_range(*ends, freq="MS"))
        facets = [data.attrs[key] for key in acquire.NAME[2:]]
        span = "-".join(end.replace("-", "") for end in ends)
        name = "_".join(["mrsos_Lmon", *facets, f"{span}.nc"])
        data.drop_vars("type").to_netcdf(self.directory / "file.nc")
        content = (self.directory / "file.nc").read_bytes()
        nodes = [self.node, self.mirror][:copies]
        urls = [node.put(f"thredds/{name}", content) for node in nodes]
        self.index.publish(name, content, *urls, **changes)
        return f"thredds/{name}"

    def publish_source(self, source_id, **options):
        """Both series of a source at ESGF."""
        historical = self.publish(source_id, "historical", HISTORICAL, **options)
        return historical, self.publish(source_id, "ssp585", FUTURE, **options)

    def found(self):
        """Names of all that was fetched, without the records."""
        files = (self.directory / "data").glob("**/*")
        return sorted(p.name for p in files if p.is_file() and p.suffix != ".made")

    def profile(self, study):
        """A profile file of that study, for the command line."""
        raw = yaml.safe_load((PROFILES / "paper.yml").read_text())
        raw |= {"directory": str(study.directory), "sources": [*study.sources]}
        raw |= {"experiments": [*study.experiments], "periods": PERIODS}
        path = self.directory / "mine.yml"
        path.write_text(yaml.safe_dump(raw))
        return str(path)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.setattr(cloud, "TIMEOUT", {"sock_connect": 1, "sock_read": 0.5})
    monkeypatch.setattr(cloud, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(cds, "PATIENCE", {"timeout": 0.5, "retry_max": 3, "sleep_max": 0.02})
    monkeypatch.setattr(cds, "YEARS", 2)
    monkeypatch.setenv("HOME", str(tmp_path))  # where intake-esgf keeps its notes
    with ExitStack() as stack:
        archive = Archive(lambda server: stack.enter_context(serving(server)), tmp_path)
        monkeypatch.setattr(cloud, "SERVICE", f"{archive.cloud.address}/")
        monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_SEARCH", archive.index.address)
        credentials = tmp_path / "cdsapirc"
        credentials.write_text(f"url: {archive.cds.address}\nkey: {KEY}\n")
        monkeypatch.setenv("CDSAPI_RC", str(credentials))
        monkeypatch.delenv("CDSAPI_URL", raising=False)
        monkeypatch.delenv("CDSAPI_KEY", raising=False)
        yield archive


@pytest.fixture
def cmip6_only(archive, monkeypatch):
    """The same with ERA5-Land left out."""
    monkeypatch.setattr(cds, "pieces", lambda study: [])
    return archive


def fetched(study, **options):
    """The plan of a study, after it was fetched."""
    plan = acquire.plan(study, **options)
    acquire.download(plan)
    return plan


def refusal(study, **options):
    """What `download` says that could not be fetched."""
    with pytest.raises(acquire.Unfinished) as caught:
        fetched(study, **options)
    return str(caught.value)


# The cloud store


def test_plan_names_every_series_of_the_cloud_store(cmip6_only):
    study = cmip6_only.study("CanESM5", "MIROC6")
    for source_id in study.sources:
        cmip6_only.put_source(source_id)
    plan = acquire.plan(study)
    assert [(one.source, one.part) for one in plan.series] == [
        (source_id, experiment_id)
        for source_id in ("CanESM5", "MIROC6")
        for experiment_id in ("historical", "ssp585")
    ]
    assert plan.missing == {} and plan.notes == []
    # 18-54 N, 71-137 E and 6 degrees on each side: centres 12.5..57.5 and 67.5..142.5; 4 years
    assert plan.series[0].size == 4 * 48 * 10 * 16
    row = next(line for line in plan.describe().splitlines() if "historical" in line)
    host = cmip6_only.cloud.address.removeprefix("http://")
    assert row.split() == ["CanESM5", "historical", host, "<", "30.00", "kiB", "CC", "BY", "4.0"]


def test_download_writes_what_the_reader_makes_of_the_whole_file(cmip6_only, tmp_path):
    study = cmip6_only.study("CanESM5")
    cmip6_only.put_source("CanESM5")
    fetched(study)
    whole = globe("CanESM5", "historical", pd.date_range(*HISTORICAL, freq="MS"))
    name = "mrsos_Lmon_CanESM5_historical_r1i1p1f1_gn_200001-200412.nc"
    whole.drop_vars("type").to_netcdf(tmp_path / name)
    options = {"period": study.period("historical"), "region": study.domain}
    read = [
        cmip6.read_series(cmip6.find_sources(folder), "CanESM5", "historical", **options)
        for folder in (study.cmip6_directory, tmp_path)
    ]
    (theta, report), (expected, _) = read
    xr.testing.assert_identical(theta.drop_attrs().load(), expected.drop_attrs().load())
    # by hand: 0.1 m of water weigh 100 kg m-2; the box of the first of the months that are kept
    np.testing.assert_allclose(
        theta[0, 0, 0], whole["mrsos"].sel(lat=12.5, lon=67.5)[12] / 100, rtol=1e-6
    )
    assert report.verdict == "ok" and report.versions == ["v20190101"]
    assert report.tracking_ids == ["hdl:21.14100/one\nhdl:21.14100/two"]
    assert report.calendar == "noleap" and report.licence == "Attribution 4.0"


def test_download_keeps_months_and_box_in_the_folders_of_the_archive(cmip6_only):
    study = cmip6_only.study("CanESM5")
    cmip6_only.put_source("CanESM5")
    fetched(study)
    folder = study.cmip6_directory / "CMIP/TEST/CanESM5/historical/r1i1p1f1/Lmon/mrsos/gn/v20190101"
    (path,) = folder.glob("*.nc")
    assert path.name == "mrsos_Lmon_CanESM5_historical_r1i1p1f1_gn_200101-200412.nc"
    with xr.open_dataset(path) as data:
        assert dict(data.sizes) == {"time": 48, "lat": 10, "lon": 16, "bnds": 2}
        assert data.attrs["history"].endswith("Lmon/mrsos/gn/v20190101/")
        assert data["mrsos"].attrs["cell_methods"].startswith("area: mean where land")


def test_download_twice_asks_nothing_the_second_time(cmip6_only):
    study = cmip6_only.study("CanESM5")
    cmip6_only.put_source("CanESM5")
    fetched(study)
    cmip6_only.cloud.requests.clear()
    plan = fetched(study)
    assert plan.series == [] and plan.notes == ["2 of 2 series are there already"]
    assert cmip6_only.cloud.requests == []


@pytest.mark.parametrize("harm", ["damaged", "removed", "another box", "another period"])
def test_download_fetches_anew_what_no_longer_serves(cmip6_only, harm):
    study = cmip6_only.study("CanESM5")
    cmip6_only.put_source("CanESM5")
    fetched(study)
    path = next(study.cmip6_directory.glob("**/*historical*.nc"))
    if harm == "damaged":
        path.write_bytes(b"x" + path.read_bytes()[1:])
    elif harm == "removed":
        path.unlink()
    elif harm == "another box":
        study = cmip6_only.study("CanESM5", domain={"north": 60})
    else:
        longer = PERIODS | {"historical": ["2000", "2004"]}
        study = cmip6_only.study("CanESM5", periods=longer)
    assert len(fetched(study).series) == (2 if harm == "another box" else 1)
    assert len(list(study.cmip6_directory.glob("**/*.nc"))) == 2  # what is replaced has gone
    assert acquire.plan(study).series == []


def test_plan_takes_what_a_user_has_put_there(cmip6_only):
    study = cmip6_only.study("CanESM5")
    folder = study.cmip6_directory / "mine"
    folder.mkdir(parents=True)
    for experiment_id, ends in (("historical", HISTORICAL), ("ssp585", FUTURE)):
        data = globe("CanESM5", experiment_id, pd.date_range(*ends, freq="MS"))
        span = "-".join(end.replace("-", "") for end in ends)
        data.to_netcdf(folder / f"mrsos_Lmon_CanESM5_{experiment_id}_r1i1p1f1_gn_{span}.nc")
    assert acquire.plan(study).series == [] and cmip6_only.cloud.requests == []


def test_plan_takes_the_newest_version_or_the_one_that_the_profile_names(cmip6_only):
    for version in ("20200101", "20190429"):
        cmip6_only.put_source("CanESM5", version=version)
    study = cmip6_only.study("CanESM5")
    named = study.model_copy(update={"versions": {"CanESM5": {"ssp585": "v20190429"}}})
    fetched(named)
    versions = {path.parent.name for path in study.cmip6_directory.glob("**/*.nc")}
    assert versions == {"v20200101", "v20190429"}
    absent = study.model_copy(update={"versions": {"CanESM5": {"ssp585": "v1"}}})
    reason = acquire.plan(absent).missing["CanESM5", "ssp585"]
    assert reason.startswith("not in the cloud store as r1i1p1f1, gn, v1; `--from esgf`")


def test_download_brings_the_fixed_fields_where_there_are_some(cmip6_only, monkeypatch):
    historical = pd.date_range(*HISTORICAL, freq="MS")
    cmip6_only.put_source("CanESM5")
    for experiment_id in ("historical", "ssp585"):
        fixed = globe("CanESM5", experiment_id, historical[:1]).isel(time=0, drop=True)
        fixed = fixed.drop_vars("time_bnds").rename(mrsos="sftlf")
        cmip6_only.put(fixed, "sftlf", table_id="fx")
    study = cmip6_only.study("CanESM5")
    with monkeypatch.context() as patch:
        patch.setattr(cds, "pieces", lambda study: [("land", 1, None)])
        parts = [one.part for one in acquire.plan(study).series]
    assert parts == ["land", "sftlf", "historical", "ssp585"]  # requests wait in a queue meanwhile
    fetched(study)
    (path,) = study.cmip6_directory.glob("**/sftlf*.nc")
    assert path.name == "sftlf_fx_CanESM5_historical_r1i1p1f1_gn.nc"
    with xr.open_dataset(path) as data:
        assert dict(data["sftlf"].sizes) == {"lat": 10, "lon": 16}
    assert len(cmip6.find_sources(study.cmip6_directory)) == 2  # the reader is not disturbed


def test_plan_names_what_is_missing_and_who_could_stand_in(cmip6_only):
    cmip6_only.put(globe("TaiESM1", "historical", pd.date_range(*HISTORICAL, freq="MS")))
    cmip6_only.put(globe("TaiESM1", "ssp585", pd.date_range("2005-01", "2007-10", freq="MS")))
    plan = acquire.plan(cmip6_only.study("TaiESM1", "CanESM5", "GISS-E2-1-G"))
    assert plan.missing["TaiESM1", "ssp585"] == (
        "the cloud store: lacks 2007-11, 2007-12; `--from esgf` may have more"
    )
    lines = plan.describe_missing()
    assert (
        "CanESM5 ssp585: not in the cloud store as r1i1p1f1, gn; `--from esgf` may have it" in lines
    )
    # CESM2 is kin of TaiESM1; GISS-E2-1-G is in the study already
    reserve = "in reserve for TaiESM1, to be named in `sources`: CESM2 (same family), CAMS-CSM1-0"
    assert reserve in lines
    assert [(one.source, one.part) for one in plan.series] == [("TaiESM1", "historical")]


def test_plan_goes_without_a_first_month_only_where_the_profile_fills_it(cmip6_only):
    cmip6_only.put(globe("NorESM2-LM", "historical", pd.date_range(*HISTORICAL, freq="MS")))
    cmip6_only.put(globe("NorESM2-LM", "ssp585", pd.date_range("2005-02", "2016-12", freq="MS")))
    too_short = acquire.plan(cmip6_only.study("NorESM2-LM"))  # no ten years to fill it from
    reason = too_short.missing["NorESM2-LM", "ssp585"]
    assert "lacks 2005-01" in reason and "missing_first_month" not in reason
    longer = {"periods": PERIODS | {"future": ["2005", "2015"]}}
    refused = acquire.plan(cmip6_only.study("NorESM2-LM", missing_first_month="refuse", **longer))
    assert "lacks 2005-01; `missing_first_month`" in refused.missing["NorESM2-LM", "ssp585"]
    study = cmip6_only.study("NorESM2-LM", **longer)
    assert fetched(study).missing == {}
    assert "mrsos_Lmon_NorESM2-LM_ssp585_r1i1p1f1_gn_200502-201512.nc" in cmip6_only.found()
    assert acquire.plan(study).series == []


def test_plan_refuses_a_demo_world():
    with pytest.raises(ValueError, match="demo world"):
        acquire.plan(Study.load("tiny"))


@pytest.mark.parametrize("fault", ["busy", "cut", "stalled"])
@pytest.mark.parametrize("file", ["catalogue", ".zmetadata", "mrsos/2.0.0"])
def test_a_passing_fault_of_the_cloud_store_is_overcome(cmip6_only, file, fault):
    path, _ = cmip6_only.put_source("CanESM5")
    path = cloud.CATALOGUE if file == "catalogue" else f"{path}/{file}"
    cmip6_only.cloud.faults[path] = [fault]
    fetched(cmip6_only.study("CanESM5"))
    assert len(cmip6_only.found()) == 2
    assert cmip6_only.cloud.requests.count(path) == 2


@pytest.mark.parametrize("fault", ["busy", "cut", "refused", "page", "gone"])
def test_plan_says_that_the_catalogue_cannot_be_read(cmip6_only, fault):
    cmip6_only.put_source("CanESM5")
    cmip6_only.cloud.faults[cloud.CATALOGUE] = [fault] * 9
    with pytest.raises(ConnectionError, match="catalogue http.*csv cannot be read .*--from esgf"):
        acquire.plan(cmip6_only.study("CanESM5"))


@pytest.mark.parametrize("fault", ["busy", "page", "gone"])
def test_plan_names_a_store_that_cannot_be_read(cmip6_only, fault):
    path, _ = cmip6_only.put_source("CanESM5")
    cmip6_only.cloud.faults[f"{path}/.zmetadata"] = [fault] * 9
    plan = fetched(cmip6_only.study("CanESM5"))
    assert list(plan.missing) == [("CanESM5", "historical")] and len(cmip6_only.found()) == 1


@pytest.mark.parametrize("fault", ["busy", "cut", "stalled", "refused", "page", "wrong", "gone"])
def test_a_series_is_absent_where_a_part_of_it_cannot_be_read(cmip6_only, fault):
    path, _ = cmip6_only.put_source("CanESM5")
    cmip6_only.cloud.faults[f"{path}/mrsos/2.0.0"] = [fault] * 9
    study = cmip6_only.study("CanESM5")
    text = refusal(study)
    assert text.startswith("1 could not be fetched; run again") and "CanESM5 historical: " in text
    if fault == "gone":  # Zarr takes a block that is not there as one without values
        assert "no value in 2002-01, 2002-02, 2002-03, 2002-04, 2002-05, ..., 2002-12" in text
    assert len(cmip6_only.found()) == 1  # the other one came, and nothing half
    cmip6_only.cloud.faults.clear()
    assert [one.part for one in fetched(study).series] == ["historical"]
    assert len(cmip6_only.found()) == 2


# ESGF


def test_esgf_brings_what_the_cloud_store_lacks(cmip6_only):
    cmip6_only.put(globe("CanESM5", "historical", pd.date_range(*HISTORICAL, freq="MS")))
    cmip6_only.publish_source("CanESM5", copies=2)
    study = cmip6_only.study("CanESM5")
    assert list(fetched(study).missing) == [("CanESM5", "ssp585")]
    plan = fetched(study, archive="esgf")
    (series,) = plan.series
    assert series.where == cmip6_only.node.address.removeprefix("http://")
    name = "mrsos_Lmon_CanESM5_ssp585_r1i1p1f1_gn_200501-200812.nc"
    assert series.size == len(cmip6_only.node.files[f"thredds/{name}"])
    folder = "ScenarioMIP/TEST/CanESM5/ssp585/r1i1p1f1/Lmon/mrsos/gn/v20190101"
    path = study.cmip6_directory / folder / name
    assert path.read_bytes() == cmip6_only.node.files[f"thredds/{name}"] and store.whole(path)
    assert acquire.plan(study).series == [] and len(cmip6_only.found()) == 2


def test_esgf_is_asked_for_member_grid_and_version(cmip6_only):
    cmip6_only.publish("CESM2", "ssp585", FUTURE, version="20190429", latest=False)
    cmip6_only.publish("CESM2", "historical", HISTORICAL)
    study = cmip6_only.study("CESM2")  # members differ: r1i1p1f1 and r4i1p1f1
    plan = acquire.plan(study, archive="esgf")
    assert plan.missing == {("CESM2", "ssp585"): "not at ESGF as r4i1p1f1, gn"}
    assert cmip6_only.index.queries[1]["member_id"] == ["r4i1p1f1"]
    named = study.model_copy(update={"versions": {"CESM2": {"ssp585": "v20190429"}}})
    assert fetched(named, archive="esgf").missing == {}
    assert len(list(study.cmip6_directory.glob("**/v20190429/*.nc"))) == 1


@pytest.mark.parametrize("fault", ["gone", "wrong", "cut", "busy", "page"])
def test_esgf_turns_to_a_replica(cmip6_only, fault):
    for path in cmip6_only.publish_source("CanESM5", copies=2):
        cmip6_only.node.faults[path] = [fault] * 3
    fetched(cmip6_only.study("CanESM5"), archive="esgf")
    assert len(cmip6_only.found()) == 2


@pytest.mark.parametrize("fault", ["gone", "wrong", "cut", "busy"])
def test_esgf_leaves_a_series_absent_of_which_a_file_fails(cmip6_only, fault):
    cmip6_only.publish("CanESM5", "ssp585", FUTURE)
    spans = [("2001-01", "2002-12"), ("2003-01", "2004-12")]
    _, path = (cmip6_only.publish("CanESM5", "historical", span) for span in spans)
    cmip6_only.node.faults[path] = [fault] * 3
    study = cmip6_only.study("CanESM5")
    text = refusal(study, archive="esgf")
    assert "CanESM5 historical: what could be fetched from 127.0.0.1:" in text
    assert "lacks 2003-01" in text
    assert len(cmip6.find_sources(study.cmip6_directory)) == 1
    cmip6_only.node.faults.clear()
    cmip6_only.node.requests.clear()
    fetched(study, archive="esgf")
    assert cmip6_only.node.requests == [path]  # the first file was kept
    assert len(cmip6.find_sources(study.cmip6_directory)) == 3


def test_esgf_leaves_out_files_beyond_the_period(cmip6_only):
    cmip6_only.publish("CanESM5", "historical", ("1900-01", "2000-12"))
    cmip6_only.publish("CanESM5", "historical", ("2001-01", "2014-12"))
    cmip6_only.publish("CanESM5", "ssp585", ("2008-01", "2010-12"))
    cmip6_only.publish("CanESM5", "ssp585", ("2001-01", "2007-12"))
    fetched(cmip6_only.study("CanESM5"), archive="esgf")
    assert [name[-16:-3] for name in cmip6_only.found()] == ["200101-201412", "200101-200712"]


def test_plan_says_that_the_index_of_esgf_does_not_answer(cmip6_only):
    cmip6_only.index.status = 400  # with 503 the library would wait for half a minute
    with pytest.raises(ConnectionError, match="ESGF cannot be searched: .*closed for repairs"):
        acquire.plan(cmip6_only.study("CanESM5"), archive="esgf")


# ERA5-Land


def invariant(folder, *names, north=54.0):
    """A NetCDF file with fields of those names over the domain, and its content."""
    grid = {"latitude": [north, 36.0, 18.0], "longitude": [71.0, 104.0, 137.0, 170.0]}
    units = {"lsm": "(0 - 1)", "z": "m**2 s**-2"}
    fields = (tuple(grid), np.full((3, 4), 0.5, "float32"))
    data = xr.Dataset({name: (*fields, {"units": units[name]}) for name in names}, grid)
    path = folder / f"by_hand_{'_'.join(names)}.nc"
    data.to_netcdf(path)
    return path.read_bytes()


def parts(study):
    """The pieces of ERA5-Land that a study lacks, by the beginning of their names."""
    return [name.removesuffix(f"_{AREA}") for name, *_ in cds.pieces(study)]


@pytest.fixture
def era5land(archive, monkeypatch):
    """The same with CMIP6 left out."""
    monkeypatch.setattr(acquire, "_plan_cloud", lambda found, wanted: None)
    return archive


def test_plan_requests_some_years_at_a_time(era5land):
    study = era5land.study("CanESM5")
    layers = ["era5land_swvl1_2001-2002", "era5land_swvl1_2003-2004"]
    assert parts(study) == [*layers, "era5land_invariant"]
    both = parts(era5land.study("CanESM5", depth="0-10cm"))
    assert both[2:] == [*(name.replace("1_", "2_") for name in layers), "era5land_invariant"]
    with pytest.raises(acquire.Unfinished):  # the stand-in's land mask is none
        era5land.cds.refuse = lambda inputs: (400, "no", "no")
        fetched(study)
    assert not list(study.era5land_directory.iterdir())


def test_plan_does_not_request_what_is_there(era5land):
    study = era5land.study("CanESM5")
    folder = study.era5land_directory
    folder.mkdir(parents=True)
    (folder / f"era5land_swvl1_2001-2002_{AREA}.nc").touch()
    invariant(folder, "lsm")
    assert parts(study) == ["era5land_swvl1_2003-2004", "era5land_invariant"]
    invariant(folder, "z", north=40.0)  # its cells end at 49
    assert "era5land_invariant" in parts(study)
    invariant(folder, "z")  # the other one of the documentation's files
    (folder / f"era5land_swvl1_2003-2004_{AREA}.zip").touch()
    assert parts(study) == []
    larger = era5land.study("CanESM5", domain={"north": 56, "west": 70.5, "east": 136.5})
    names = [name for name, *_ in cds.pieces(larger)]
    assert names[0] == "era5land_swvl1_2001-2002_lat17to57_lon69.5to137.5"


def test_download_fetches_era5land(era5land, tmp_path):
    study = era5land.study("CanESM5")
    fields = invariant(tmp_path, "lsm", "z")

    def content(inputs):
        if "geopotential" in inputs["variable"]:
            return fields
        start = b"PK\x03\x04" if inputs["year"][0] == "2003" else b"CDF\x01"
        return start + inputs["year"][0].encode() * 1000

    era5land.cds.content = content
    fetched(study)
    names = [f"era5land_invariant_{AREA}.nc", f"era5land_swvl1_2001-2002_{AREA}.nc"]
    assert era5land.found() == [*names, f"era5land_swvl1_2003-2004_{AREA}.zip"]
    plain = study.era5land_directory / names[1]
    assert plain.read_bytes() == b"CDF\x01" + b"2001" * 1000
    assert parts(study) == []
    inputs = era5land.cds.inputs["0"]
    assert inputs["year"] == ["2001", "2002"] and len(inputs["month"]) == 12
    assert inputs["variable"] == ["volumetric_soil_water_layer_1"]
    # 18-54 N, 71-137 E and a degree on each side: north, west, south, east
    assert inputs["area"] == [55, 70, 17, 138]


@pytest.mark.parametrize("fault", ["busy", "cut", "stalled"])
def test_a_passing_fault_of_the_climate_data_store_is_overcome(era5land, fault):
    answers = [(503, "busy", "later"), (429, "too many", "later")]
    era5land.cds.refuse = lambda inputs: answers.pop() if answers else None
    era5land.files.faults["cache/0.nc"] = [fault]
    era5land.cds.queue = 2
    fetched(era5land.study("CanESM5"))
    assert len(era5land.found()) == 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [("wrong", "its md5 is not that of the store"), ("gone", "downloaded 0 byte(s)"), ("cut", "")],
)
def test_a_piece_is_absent_that_cannot_be_fetched(era5land, fault, words):
    era5land.files.faults["cache/0.nc"] = [fault] * 9
    text = refusal(era5land.study("CanESM5"))
    assert f"ERA5-Land era5land_swvl1_2001-2002_{AREA}: " in text and words in text
    assert len([name for name in era5land.found() if name.endswith(".nc")]) == 2


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        ((403, "required licences not accepted", "please"), "tab=download#manage-licences"),
        ((400, "invalid request", "cost limits exceeded"), "Make YEARS in smcore/cds.py smaller"),
        ((404, "process not found", "-"), "Is the `url` in ~/.cdsapirc that of"),
        ((200, "moved", "no job"), "LinkError"),
        ((400, "invalid request", "no such variable"), "lsm_1279l4_0.1x0.1.grb_v4_unpack.nc"),
        ((503, "busy", "later"), "503"),
    ],
)
def test_a_refusal_comes_with_its_remedy(era5land, answer, remedy):
    era5land.cds.refuse = lambda inputs: answer if len(inputs["month"]) == 1 else None
    text = refusal(era5land.study("CanESM5"))
    assert text.startswith("1 could not be fetched") and remedy in text
    assert ("lsm_1279l4" in text) == (answer[2] == "no such variable")
    assert len(era5land.found()) == 2  # the others came


def test_download_passes_on_why_a_job_failed(era5land):
    failure = ("The job failed", "MARS: no space on the tape")
    era5land.cds.fail = lambda inputs: failure if "2001" in inputs["year"] else None
    assert "The job failed; MARS: no space on the tape" in refusal(era5land.study("CanESM5"))
    assert len(era5land.found()) == 2


def test_download_never_shows_the_key(era5land, caplog, capfd, recwarn):
    # a service that repeats the key in its answers
    caplog.set_level(logging.DEBUG)
    era5land.cds.catalogue = (400, {"title": f"bad token {KEY}"})
    era5land.cds.refuse = lambda inputs: (400, "bad header", f"PRIVATE-TOKEN: {KEY}")
    study = era5land.study("CanESM5")
    text = refusal(study)
    assert "PRIVATE-TOKEN: [key]" in text
    assert KEY not in text + caplog.text + "".join(capfd.readouterr())
    assert not any(KEY in str(warning.message) for warning in recwarn)
    assert not any(KEY in p.read_text() for p in study.directory.glob("**/*") if p.is_file())


@pytest.mark.parametrize("within", ["", ":", " ", "\t", "\r", "\n", "\u00e9", "'", "\\"])
def test_download_refuses_a_key_that_is_wrong(
    era5land, monkeypatch, caplog, capfd, recwarn, within
):
    caplog.set_level(logging.DEBUG)
    first, last = KEY.split("-", 1)
    monkeypatch.setenv("CDSAPI_KEY", f"{first}{within}{last}")
    text = refusal(era5land.study("CanESM5"))
    assert "how-to-api" in text
    assert ("letters, digits" if within else "authentication failed") in text
    shown = "".join([text, caplog.text, *capfd.readouterr(), *(str(w.message) for w in recwarn)])
    assert first not in shown and last not in shown
    assert era5land.cds.inputs == {}


def test_download_takes_a_key_with_whitespace_around_it(era5land, monkeypatch):
    monkeypatch.setenv("CDSAPI_KEY", f" {KEY}\r")  # from a file with the line ends of Windows
    monkeypatch.setenv("CDSAPI_URL", f"{era5land.cds.address}\r")
    fetched(era5land.study("CanESM5"))
    assert len(era5land.found()) == 3


def test_download_needs_credentials_for_era5land_only(archive, monkeypatch):
    monkeypatch.setenv("CDSAPI_RC", str(archive.directory / "none"))
    archive.put_source("CanESM5")
    text = refusal(archive.study("CanESM5"))
    assert "no credentials" in text and "how-to-api to ~/.cdsapirc" in text
    assert len(archive.found()) == 2


# Full disks and interruptions


def test_download_checks_the_disk_before_it_starts(archive, monkeypatch):
    archive.put_source("CanESM5")
    plan = acquire.plan(archive.study("CanESM5"))
    needed = sum(series.size for series in plan.series)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(acquire.shutil, "disk_usage", lambda folder: usage(0, 0, needed - 1))
    archive.cloud.requests.clear()
    with pytest.raises(acquire.Unfinished, match=rf"{needed} bytes.*{needed - 1} bytes\) are free"):
        acquire.download(plan)
    assert archive.cloud.requests == [] and archive.cds.inputs == {}
    assert archive.found() == []


@pytest.mark.parametrize("where", ["cloud", "esgf"])
def test_download_stops_at_a_full_disk_and_loses_nothing(cmip6_only, monkeypatch, where):
    study = cmip6_only.study("CanESM5")
    cmip6_only.put_source("CanESM5")
    cmip6_only.publish_source("CanESM5")
    to_disk, room = store._to_disk, [1]

    def small_disk(path):
        room[0] -= path.name.startswith(".mrsos")
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        to_disk(path)

    monkeypatch.setattr(store, "_to_disk", small_disk)
    plan = acquire.plan(study, archive=where)
    with pytest.raises(acquire.Unfinished, match=f"the disk of {study.cmip6_directory} is too sm"):
        acquire.download(plan)
    assert len(cmip6.find_sources(study.cmip6_directory)) == 1
    room[0] = 10
    assert len(fetched(study, archive=where).series) == 1
    assert len(cmip6.find_sources(study.cmip6_directory)) == 2


SLOW_RUN = """
import sys
from smcore import acquire

acquire.cloud.SERVICE = sys.argv[2] + "/"
acquire.cds.pieces = lambda study: []
sys.exit(acquire.main(["--profile", sys.argv[1], "--no-prepare"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_with_the_next(cmip6_only, number):
    study = cmip6_only.study("CanESM5")
    _, path = cmip6_only.put_source("CanESM5")
    cmip6_only.cloud.faults[f"{path}/mrsos/2.0.0"] = ["stalled"]
    cmip6_only.cloud.patience = 30.0
    command = [sys.executable, "-c", SLOW_RUN, cmip6_only.profile(study), cmip6_only.cloud.address]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    deadline = time.monotonic() + 60
    while f"{path}/mrsos/2.0.0" not in cmip6_only.cloud.requests and time.monotonic() < deadline:
        time.sleep(0.05)
    pressed = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - pressed < 10
    if number == signal.SIGINT:
        assert process.returncode == 1
        assert "stopped. Run the same command again" in errors and "Traceback" not in errors
    assert len(cmip6_only.found()) == 1  # the first is whole, the second absent
    assert [one.part for one in fetched(study).series] == ["ssp585"]
    assert len(cmip6_only.found()) == 2


# The command


def test_main_shows_what_would_be_fetched(archive, capsys):
    study = archive.study("CanESM5")
    archive.put_source("CanESM5")
    assert acquire.main(["--profile", archive.profile(study), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "CanESM5" in shown and f"era5land_swvl1_2001-2002_{AREA}" in shown
    assert "5 to come, less than " in shown
    assert archive.cds.inputs == {} and not study.cmip6_directory.exists()


def test_main_fails_where_a_dry_run_finds_something_missing(archive, capsys):
    archive.put(globe("CanESM5", "historical", pd.date_range(*HISTORICAL, freq="MS")))
    profile = archive.profile(archive.study("CanESM5"))
    assert acquire.main(["--profile", profile, "--dry-run"]) == 1
    errors = capsys.readouterr().err
    assert "CanESM5 ssp585: not in the cloud store" in errors and "in reserve for" in errors
    assert acquire.main(["--profile", profile, "--dry-run", "--from", "esgf"]) == 1
    assert "CanESM5 historical: not at ESGF" in capsys.readouterr().err


def test_main_fetches_and_prepares(archive, monkeypatch):
    prepared = []
    monkeypatch.setattr(acquire, "prepare", prepared.append)
    archive.put_source("CanESM5")
    profile = archive.profile(archive.study("CanESM5"))
    assert acquire.main(["--profile", profile, "--no-prepare"]) == 0
    assert len(archive.found()) == 5 and prepared == []
    assert acquire.main(["--profile", profile]) == 0
    assert prepared[0].sources == ("CanESM5",)


def test_main_names_failures_and_what_is_missing_together(archive, monkeypatch, capsys):
    monkeypatch.setattr(acquire, "prepare", None)  # is not called
    path = archive.put(globe("CanESM5", "historical", pd.date_range(*HISTORICAL, freq="MS")))
    archive.cloud.faults[f"{path}/mrsos/2.0.0"] = ["gone"]
    assert acquire.main(["--profile", archive.profile(archive.study("CanESM5"))]) == 1
    errors = capsys.readouterr().err
    assert "CanESM5 historical: the store has no value in" in errors
    assert "CanESM5 ssp585: not in the cloud store" in errors and "Traceback" not in errors


def test_main_shows_errors_without_traceback(archive, capsys):
    profile = archive.profile(archive.study("CanESM5"))
    assert acquire.main(["--profile", profile]) == 1
    assert capsys.readouterr().err.startswith("error: the catalogue http://127.0.0.1")


def test_the_command_has_nothing_to_fetch_for_a_demo_world():
    command = [sys.executable, "-m", "smcore.acquire", "--profile", "tiny"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and "demo world" in run.stdout
