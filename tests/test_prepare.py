"""Native files to the prepared store."""

import json
import os
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

from smcore.config import Study
from smcore.era5land import open_swvl
from smcore.grids import coarse_grid, fine_grid
from smcore.prepare import prepare
from smcore.prepared import open_predictors, open_reference, open_static
from smcore.store import sha256

regridding = sys.modules["smcore.regrid"]


@pytest.fixture(scope="module")
def small(small_archive, tmp_path_factory):
    """The study of six years with its store; not to be changed by a test."""
    study = moved(small_archive, tmp_path_factory.mktemp("prepared"))
    study.prepared.parent.mkdir(parents=True)
    return study, prepare(study)


@pytest.fixture
def copy(small, tmp_path):
    """A copy of that study, archive and store, that a test may change."""
    shutil.copytree(small[0].directory, tmp_path / "copy")  # keeps the times of the files
    return moved(small[0], tmp_path / "copy", copied=True)


def moved(study, directory, *, copied=False):
    if not copied:
        shutil.copytree(study.directory / "archive", directory / "archive")
    return study.model_copy(
        update={
            "directory": directory,
            "cmip6_directory": directory / "archive" / "CMIP6",
            "era5land_directory": directory / "archive" / "ERA5-Land",
        }
    )


def native(study, source_id, experiment_id):
    (path,) = study.cmip6_directory.glob(f"**/mrsos_Lmon_{source_id}_{experiment_id}_*.nc")
    return path


def written(study):
    return {path.name: path.stat().st_mtime_ns for path in study.prepared.glob("*.nc")}


def change(path, values):
    """Change a file's values; size and time of a file say that it changed."""
    dataset = xr.load_dataset(path, decode_times=False)
    values(dataset)
    before = path.stat().st_mtime_ns
    dataset.to_netcdf(path)
    os.utime(path, ns=(before + 10**9, before + 10**9))


# --- what the store holds ----------------------------------------------------------------


def test_prepare_leaves_a_file_for_each_source_and_experiment(small):
    study, _ = small
    names = {f"theta_{s}_{e}.nc" for s in ("Alder", "Birch") for e in ("historical", "ssp585")}
    assert set(written(study)) == names | {"reference.nc", "static.nc"}
    manifest = json.loads((study.prepared / "manifest.json").read_text())
    assert manifest["files"] == {name: sha256(study.prepared / name) for name in written(study)}
    assert list(pd.read_csv(study.prepared / "quality.csv")["verdict"]) == ["ok"] * 4
    assert [row["files"] for row in manifest["quality"]] == [2, 1, 2, 1]


def test_open_predictors_gives_every_source_and_month_on_the_coarse_grid(prepared_study):
    predictors = open_predictors(prepared_study, "ssp126")
    grid = coarse_grid(prepared_study.domain)
    assert predictors.dims == ("source_id", "time", "lat", "lon")
    assert dict(predictors.sizes) == {"source_id": 4, "time": 1032, "lat": 6, "lon": 11}
    assert list(predictors["source_id"]) == ["Alder", "Birch", "Cedar", "Hazel"]
    np.testing.assert_array_equal(predictors["lat"], grid["lat"])
    np.testing.assert_array_equal(predictors["lon"], grid["lon"])
    assert predictors.attrs["units"] == "m3 m-3"
    assert predictors.notnull().all()
    assert 0 <= float(predictors.min()) <= float(predictors.max()) <= 1


@pytest.mark.parametrize("source_id", ["Alder", "Birch"])
@pytest.mark.parametrize("cell", [(2, 4), (3, 5), (4, 1)])
def test_prepared_theta_is_the_mean_over_the_cell_weighted_by_area(small, source_id, cell):
    """A slow loop over the native cells that a coarse cell of 6 degrees overlaps."""
    study, _ = small
    grid = coarse_grid(study.domain)
    south, north = grid["lat_bnds"].values[cell[0]]
    west, east = grid["lon_bnds"].values[cell[1]]
    with xr.open_dataset(native(study, source_id, "ssp585"), decode_times=False) as file:
        mrsos = file["mrsos"][7].values / 100  # August 2015
        lat_bnds, lon_bnds = file["lat_bnds"].values, file["lon_bnds"].values
    total = weight = everything = 0.0
    for y, (a, b) in enumerate(np.sort(lat_bnds, axis=1)):
        low, high = max(a, south), min(b, north)
        for x, (c, d) in enumerate(lon_bnds):
            across = min(d, east) - max(c, west)
            if low < high and across > 0:
                area = across * (np.sin(np.deg2rad(high)) - np.sin(np.deg2rad(low)))
                everything += area
                if np.isfinite(mrsos[y, x]):
                    total += area * mrsos[y, x]
                    weight += area
    assert weight > 0.5 * everything  # else it would be filled
    theta = open_predictors(study, "ssp585").sel(source_id=source_id)
    found = theta.sel(time="2015-08").isel(lat=cell[0], lon=cell[1]).item()
    np.testing.assert_allclose(found, total / weight, rtol=1e-5)


def test_ocean_cells_take_the_value_of_the_nearest_land(small):
    study, _ = small
    theta = open_predictors(study, "ssp585").sel(source_id="Alder")
    grid = coarse_grid(study.domain)
    ocean = theta.sel(lat=21, lon=134)  # the Philippine Sea
    y, x = np.meshgrid(grid["lat"], grid["lon"], indexing="ij")
    same = (abs(theta - ocean) < 1e-7).all("time").values & ((y != 21) | (x != 134))
    assert same.any()  # it is another cell's series

    def distance(lat, lon):
        a, b = np.deg2rad([21, lat]), np.deg2rad([134, lon])
        return np.arccos(
            np.sin(a[0]) * np.sin(a[1]) + np.cos(a[0]) * np.cos(a[1]) * np.cos(b[1] - b[0])
        )

    # Taiwan and the coast of China lie west and north-west of it.
    nearest = min(distance(lat, lon) for lat, lon in zip(y[same], x[same]))
    assert nearest < np.deg2rad(20)


def test_predictors_hold_nothing_of_the_reference(copy):
    before = {name: sha256(copy.prepared / name) for name in written(copy)}
    for path in copy.era5land_directory.glob("*swvl*.nc"):
        change(path, lambda dataset: dataset.update({"swvl1": dataset["swvl1"] * 0.5 + 0.1}))
    shutil.rmtree(copy.prepared)
    prepare(copy)
    changed = {name for name in before if sha256(copy.prepared / name) != before[name]}
    assert changed == {"reference.nc"}


def test_open_reference_is_the_reference_on_the_fine_grid(small):
    study, _ = small
    theta = open_reference(study)
    grid = fine_grid(study.domain, scale_factor=study.scale_factor)
    assert theta.dims == ("time", "lat", "lon")
    np.testing.assert_array_equal(theta["lat"], grid["lat"])
    assert theta.sizes == {"time": 72, "lat": 24, "lon": 44}
    assert theta.attrs["units"] == "m3 m-3"
    # A cell of 1.5 degrees, 30..31.5 N and 101..102.5 E, and points each degree, 29.5..30.5, ...
    raw = open_swvl(study.era5land_directory).load()
    total = weight = 0.0
    for lat in (30, 31):
        low, high = max(lat - 0.5, 30), min(lat + 0.5, 31.5)
        for lon in (101, 102):
            across = min(lon + 0.5, 102.5) - max(lon - 0.5, 101)
            area = across * (np.sin(np.deg2rad(high)) - np.sin(np.deg2rad(low)))
            total, weight = total + area * raw[3].sel(lat=lat, lon=lon).item(), weight + area
    found = theta[3].sel(lat=30.75, lon=101.75).item()
    np.testing.assert_allclose(found, total / weight, rtol=1e-5)


def test_bilinear_regridding_has_its_own_store(small, tmp_path):
    study, _ = small
    shutil.copytree(study.directory, tmp_path / "copy")
    paper = Study.load("tiny", network="paper").network
    other = moved(study, tmp_path / "copy", copied=True).model_copy(update={"network": paper})
    prepare(other)
    assert other.prepared.name == "bilinear-nested"
    assert (other.prepared.with_name("conservative-nested") / "manifest.json").exists()
    theta, raw = open_reference(other)[3], open_swvl(other.era5land_directory)[3]
    # 30.75 N is 3/4 of the way from 30 to 31, 101.75 E that from 101 to 102 (1e-4: chords)
    corners = raw.sel(lat=[30, 31], lon=[101, 102]).values
    expected = np.array([0.25, 0.75]) @ corners @ np.array([0.25, 0.75])
    np.testing.assert_allclose(theta.sel(lat=30.75, lon=101.75), expected, atol=1e-4)


# --- masks -------------------------------------------------------------------------------


def test_land_is_where_the_reference_has_a_value(small):
    study, _ = small
    static, theta = open_static(study), open_reference(study)
    assert static["land"].dtype == bool
    np.testing.assert_array_equal(static["land"], theta.notnull().any("time"))
    assert 0.5 < float(static["land"].mean()) < 0.9
    assert static["land"].attrs == {}  # not those of theta


def test_study_area_is_the_land_inside_the_polygons(small):
    study, _ = small
    static = open_static(study)
    area = study.outline
    inside = [
        [area.contains(shapely.Point(float(lon), float(lat))) for lon in static["lon"]]
        for lat in static["lat"]
    ]
    np.testing.assert_array_equal(static["study_area"], np.array(inside) & static["land"])
    ordos, india, kazakhstan = (39.75, 110.75, True), (20.25, 77.75, False), (51.75, 71.75, False)
    for lat, lon, expected in (ordos, india, kazakhstan):
        assert bool(static["study_area"].sel(lat=lat, lon=lon)) == expected


def test_static_fields_have_relief_and_a_share_of_land(small):
    static = open_static(small[0])
    assert static["elevation"].attrs["units"] == "m"
    assert 3500 < float(static["elevation"].sel(lat=33.75, lon=88.25)) < 5500  # the plateau
    assert float(static["elevation"].sel(lat=29.25, lon=116.75)) < 1000
    assert float(static["land_fraction"].min()) >= 0
    assert float(static["land_fraction"].max()) == 1
    assert float(static["land_fraction"].where(static["land"]).min()) >= 0.5 - 1e-6
    assert static.to_array().notnull().all()


def test_outline_names_an_unknown_country(small):
    area = small[0].study_area.model_copy(update={"countries": ("156", "999")})
    with pytest.raises(ValueError, match="'999'.*ISO 3166-1"):
        _ = small[0].model_copy(update={"study_area": area}).outline


# --- reports and problems ----------------------------------------------------------------


def test_prepare_reports_what_each_source_holds(small):
    study, reports = small
    assert [(r.source_id, r.experiment_id) for r in reports] == [
        (s, e) for s in ("Alder", "Birch") for e in ("historical", "ssp585")
    ]
    one, two, three, _ = reports
    assert (one.files, one.months_found, one.months_expected) == (2, 72, 72)
    assert (two.files, two.months_found, two.months_expected) == (1, 48, 48)
    assert (one.calendar, three.calendar) == ("noleap", "standard")
    assert one.versions == ["v20260101"]
    assert one.licence.startswith("CC0 1.0") and one.depth == "0-0.1 m"
    assert all(r.verdict == "ok" and 0 < r.minimum < r.maximum < 1 for r in reports)
    assert all(40 < r.land_share < 90 for r in reports)
    assert all(r.tracking_ids[0].startswith("hdl:21.14100/") for r in reports)
    assert len(one.tracking_ids) == 2  # one for each file


def test_prepare_counts_the_values_that_it_clips(copy):
    def spoil(dataset):
        land = np.argwhere(np.isfinite(dataset["mrsos"].values[0]))
        y, x = land[len(land) // 2]
        dataset["mrsos"][:3, y, x] = 196.0
        dataset["mrsos"][3:5, y, x] = -0.01

    change(native(copy, "Birch", "ssp585"), spoil)
    report = prepare(copy)[3]
    assert (report.clipped_high, report.clipped_low) == (3, 2)
    assert report.verdict == "warning"
    np.testing.assert_allclose([report.maximum, report.minimum], [1.96, -1e-4], rtol=1e-3)
    assert float(open_predictors(copy, "ssp585").max()) <= 1
    assert prepare(copy)[3] == report  # the counts come back from the finished file


def test_prepare_lists_all_problems_of_an_archive_at_once(copy):
    removed = native(copy, "Alder", "ssp585")
    removed.unlink()
    truncated = native(copy, "Birch", "ssp585")
    truncated.write_bytes(truncated.read_bytes()[:2000])
    (copy.era5land_directory / "demo_swvl_2012.nc").unlink()
    (copy.era5land_directory / "demo_invariant.nc").unlink()
    area = copy.study_area.model_copy(update={"countries": ("999",)})
    before = written(copy)
    with pytest.raises(ValueError) as error:
        prepare(copy.model_copy(update={"study_area": area}))
    first, *lines = str(error.value).splitlines()
    assert first.endswith("has 5 problem(s):")
    assert len(lines) == 5
    for line, parts in zip(
        lines,
        [
            ("Alder ssp585", "no monthly mrsos"),
            (truncated.name, "is truncated", "fetch it again"),
            ("reference", "12 of 72 months", "2012-01"),
            ("reference", "lsm", "z"),
            ("study_area.countries", "999"),
        ],
        strict=True,
    ):
        assert all(part in line for part in parts), line
    assert written(copy) == before


def test_prepare_needs_an_archive(tmp_path):
    study = Study.load("tiny", directory=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no monthly mrsos below"):
        prepare(study)


# --- running again -----------------------------------------------------------------------


def test_prepare_again_rewrites_nothing(copy):
    before, manifest = written(copy), (copy.prepared / "manifest.json").read_text()
    prepare(copy)
    assert written(copy) == before
    assert (copy.prepared / "manifest.json").read_text() == manifest


@pytest.mark.parametrize(
    ("name", "redone"),
    [
        ("CMIP6/**/*_Birch_ssp585_*.nc", {"theta_Birch_ssp585.nc"}),
        ("ERA5-Land/demo_swvl_2010.nc", {"reference.nc", "static.nc"}),
        ("ERA5-Land/demo_invariant.nc", {"reference.nc", "static.nc"}),
    ],
)
def test_prepare_redoes_only_what_a_new_file_changes(copy, name, redone):
    before = written(copy)
    (path,) = (copy.directory / "archive").glob(name)
    os.utime(path)
    prepare(copy)
    assert written(copy) == before  # a later time is no other content
    change(path, lambda dataset: dataset.attrs.update(comment="fetched again"))
    prepare(copy)
    after = written(copy)
    assert {name for name in after if after[name] != before[name]} == redone


def test_prepare_makes_a_lost_file_again(copy):
    before = {name: sha256(copy.prepared / name) for name in written(copy)}
    times = written(copy)
    lost = {"theta_Alder_historical.nc", "static.nc"}
    for name in lost:
        (copy.prepared / name).unlink()
    prepare(copy)
    assert {name: sha256(copy.prepared / name) for name in written(copy)} == before
    # The reference is written with the static fields.
    assert {name for name, time in written(copy).items() if time != times[name]} == lost | {
        "reference.nc"
    }


def test_prepare_of_a_longer_period_redoes_the_sources(copy):
    periods = copy.periods.model_copy(update={"future": ("2015", "2017")})
    prepare(copy.model_copy(update={"periods": periods}))
    shorter = copy.model_copy(update={"periods": periods})
    assert open_predictors(shorter, "ssp585").sizes["time"] == 36


def test_prepare_refuses_an_error_unless_the_profile_accepts_it(copy):
    path = native(copy, "Birch", "ssp585")
    path.rename(path.with_name(path.name.replace("201501", "185001")))
    with pytest.raises(ValueError, match="the name disagrees.*accept file_name for Birch"):
        prepare(copy)
    table = pd.read_csv(copy.prepared / "quality.csv")
    assert list(table["verdict"]) == ["ok", "ok", "ok", "error"]
    assert "months 201501-201812" in table["problems"].iloc[3]
    accepting = copy.model_copy(update={"accepted": {"Birch": ("file_name",)}})
    assert [report.verdict for report in prepare(accepting)] == ["ok", "ok", "ok", "accepted"]


def test_prepare_reads_the_version_that_the_profile_names(copy):
    path = native(copy, "Birch", "ssp585")
    before = open_predictors(copy, "ssp585").sel(source_id="Birch")
    newer = path.parents[1] / "v20270101" / path.name
    newer.parent.mkdir()
    shutil.copy(path, newer)

    def drier(dataset):
        dataset["mrsos"] *= 0.5

    change(newer, drier)
    prepare(copy)
    after = open_predictors(copy, "ssp585").sel(source_id="Birch")
    np.testing.assert_allclose(after, before / 2, rtol=1e-5)
    named = copy.model_copy(update={"versions": {"Birch": {"ssp585": "v20260101"}}})
    prepare(named)
    xr.testing.assert_identical(open_predictors(named, "ssp585").sel(source_id="Birch"), before)
    absent = copy.model_copy(update={"versions": {"Birch": {"ssp585": "v1"}}})
    with pytest.raises(ValueError, match="no version v1; there are.*v20260101.*v20270101"):
        prepare(absent)


def test_prepare_brings_the_reference_to_the_fine_grid_some_months_at_a_time(copy, monkeypatch):
    def watched(matrix, columns, na_thres):
        steps.append((matrix.shape[0], columns.shape[1]))
        return apply(matrix, columns, na_thres)

    steps, apply = [], regridding._apply
    monkeypatch.setattr(regridding, "_apply", watched)
    (copy.prepared / "reference.nc").unlink()
    prepare(copy)
    at_once = [months for cells, months in steps if cells == 24 * 44]
    assert sum(at_once) == 72 + 2  # every month once, and two static fields
    assert max(at_once) <= 24


def test_prepare_refuses_a_reference_that_does_not_cover_the_domain(copy):
    for path in copy.era5land_directory.glob("*.nc"):
        dataset = xr.load_dataset(path, drop_variables=["number", "expver"])
        dataset.sel(latitude=slice(None, 25)).to_netcdf(path)
    with pytest.raises(ValueError) as error:
        prepare(copy)
    assert "reference, swvl: lat 25 to 54 does not cover the domain, 18 to 54" in str(error.value)
    assert "reference, lsm and z: lat 25 to 54" in str(error.value)


def test_prepare_names_a_series_with_values_only_outside_the_domain(copy):
    def empty_inside(dataset):
        inside = (dataset.lat >= 10) & (dataset.lat <= 56)
        dataset["mrsos"][3] = dataset["mrsos"][3].where(~inside)

    change(native(copy, "Birch", "ssp585"), empty_inside)
    accepting = copy.model_copy(update={"accepted": {"Birch": ("partial_months",)}})
    with pytest.raises(ValueError, match="Birch ssp585: on the coarse grid.*2015-04"):
        prepare(accepting)
    assert list(pd.read_csv(copy.prepared / "quality.csv")["verdict"])[3] == "error"


@pytest.mark.parametrize(
    ("opened", "name"),
    [
        (lambda study: open_predictors(study, "ssp126"), "theta_Alder_ssp126.nc"),
        (open_reference, "reference.nc"),
        (open_static, "static.nc"),
    ],
)
def test_what_is_not_prepared_is_named_with_its_chapter(tiny_study, tmp_path, opened, name):
    study = tiny_study.model_copy(update={"directory": tmp_path})
    with pytest.raises(FileNotFoundError, match=f"{name}: .*run chapter 01_data_preparation"):
        opened(study)
