"""The small world whose truth is known, and the files that it leaves."""

import json
import re

import cftime
import netCDF4
import numpy as np
import pytest
import shapely
import xarray as xr

from smcore.config import ROOT, Study
from smcore.demo import make_archive, truth
from smcore.era5land import open_swvl
from smcore.store import sha256

DRS = re.compile(
    r"CMIP6/(?P<activity>CMIP|ScenarioMIP)/(?P<institution>[^/]+)/(?P<source>[^/]+)/"
    r"(?P<experiment>[^/]+)/(?P<member>r\d+i\d+p\d+f\d+)/(?P<table>Lmon)/(?P<variable>mrsos)/"
    r"(?P<grid>g[nr]\d?)/v\d{8}/mrsos_Lmon_(?P=source)_(?P=experiment)_(?P=member)_(?P=grid)"
    r"_(?P<first>\d{6})-(?P<last>\d{6})\.nc"
)
SHORT = {"sources": ["Alder"], "demo": {"reference_resolution": 2.0}}


def files(study):
    folder = study.directory / "archive"
    return {str(p.relative_to(folder)): p for p in sorted(folder.glob("**/*.nc"))}


def checksums(study):
    return {name: sha256(path) for name, path in files(study).items()}


@pytest.fixture(scope="module")
def short(make_small, tmp_path_factory):
    """The archive of one source; not to be changed by a test."""
    return make_small(tmp_path_factory.mktemp("short"), **SHORT)


# --- the archive -------------------------------------------------------------------------


def test_make_archive_writes_the_same_bytes_from_the_same_seed(make_small, short, tmp_path):
    assert checksums(make_small(tmp_path, **SHORT)) == checksums(short)


def test_make_archive_does_not_depend_on_the_network(make_small, short, tmp_path):
    study = make_small(tmp_path, **SHORT, network="paper", training={"epochs": 7})
    assert checksums(study) == checksums(short)


def test_make_archive_writes_other_files_from_another_seed(make_small, short, tmp_path):
    other = make_small(tmp_path, **SHORT, seed=1)
    one, two = checksums(short), checksums(other)
    assert one.keys() == two.keys()
    fixed = "ERA5-Land/demo_invariant.nc"  # land and relief are no matter of chance
    assert [name for name in one if one[name] == two[name]] == [fixed]
    for name in (name for name in files(short) if "mrsos" in name):
        with netCDF4.Dataset(files(short)[name]) as a, netCDF4.Dataset(files(other)[name]) as b:
            assert a.tracking_id != b.tracking_id


def test_make_archive_lists_what_it_wrote(short):
    listed = make_archive(short.directory / "archive", short)
    assert list(listed["path"]) == list(files(short))
    assert list(listed["sha256"]) == list(checksums(short).values())
    assert list(listed["bytes"]) == [p.stat().st_size for p in files(short).values()]


def test_make_archive_leaves_a_finished_archive_alone(short):
    before = {name: path.stat().st_mtime_ns for name, path in files(short).items()}
    make_archive(short.directory / "archive", short)
    assert {name: path.stat().st_mtime_ns for name, path in files(short).items()} == before


def test_make_archive_replaces_an_archive_of_another_study(make_small, tmp_path):
    first = make_small(tmp_path, **SHORT)
    note = first.directory / "archive" / "note.txt"
    note.write_text("mine")
    second = make_small(tmp_path, **SHORT | {"sources": ["Birch"]})
    assert {name.split("/")[3] for name in files(second) if "mrsos" in name} == {"Birch"}
    assert note.read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["CMIP6/CMIP/tas_Amon_Oak_historical_r1i1p1f1_gn_185001-201412.nc", "thesis.tex"]
)
def test_make_archive_refuses_a_folder_with_files_of_others(make_small, tmp_path, name):
    foreign = tmp_path / "archive" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text("years of work")
    with pytest.raises(FileExistsError, match="choose another folder"):
        make_small(tmp_path, **SHORT)
    assert foreign.read_text() == "years of work"


def test_make_archive_takes_an_empty_folder(make_small, short, tmp_path):
    (tmp_path / "archive").mkdir()
    assert checksums(make_small(tmp_path, **SHORT)) == checksums(short)


def test_make_archive_finishes_an_archive_that_was_interrupted(
    make_small, short, tmp_path, monkeypatch
):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("smcore.demo._write_source", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_small(tmp_path, **SHORT)
    assert any((tmp_path / "archive").glob("ERA5-Land/*.nc"))  # begun
    monkeypatch.undo()
    assert checksums(make_small(tmp_path, **SHORT)) == checksums(short)


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_make_archive_makes_a_damaged_archive_anew(make_small, short, tmp_path, damage):
    study = make_small(tmp_path, **SHORT)
    victim = next(iter(files(study).values()))
    if damage == "removed":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:100])
    assert checksums(make_small(tmp_path, **SHORT)) == checksums(short)


def test_demo_world_refuses_a_study_of_real_data(tmp_path):
    study = Study.load("paper")
    with pytest.raises(ValueError, match="paper has no demo section"):
        make_archive(tmp_path, study)
    with pytest.raises(ValueError, match="paper has no demo section"):
        truth(study, "historical")


# --- the look of the files ---------------------------------------------------------------


def test_sources_lie_in_the_folders_of_the_data_reference_syntax(tiny_archive):
    found = [DRS.fullmatch(name) for name in files(tiny_archive) if name.startswith("CMIP6")]
    assert all(found)
    # four sources, each with the historical run in two files and four scenarios
    assert len(found) == 4 * (2 + 4)
    for match in found:
        historical = match["experiment"] == "historical"
        assert match["activity"] == ("CMIP" if historical else "ScenarioMIP")
    spans = [m["first"] + m["last"] for m in found if m["source"] == "Cedar"]
    # 25 years: 12 and 13
    assert sorted(spans)[:2] == ["199001200112", "200201201412"]
    assert sorted(spans)[2:] == ["201501210012"] * 4


def test_attributes_of_a_source_say_what_its_name_says(tiny_archive):
    identities = set()
    for name, path in files(tiny_archive).items():
        if not (match := DRS.fullmatch(name)):
            continue
        with netCDF4.Dataset(path) as file:
            assert file.mip_era == "CMIP6"
            assert (file.table_id, file.variable_id, file.frequency) == ("Lmon", "mrsos", "mon")
            assert file.source_id == match["source"]
            assert file.experiment_id == match["experiment"]
            assert file.variant_label == match["member"]
            assert file.grid_label == match["grid"]
            assert file.activity_id == match["activity"]
            assert "synthetic" in file.license
            assert re.fullmatch(r"hdl:21\.14100/[0-9a-f-]{36}", file.tracking_id)
            identities.add(file.tracking_id)
            mrsos = file["mrsos"]
            assert mrsos.dimensions == ("time", "lat", "lon")
            assert mrsos.units == "kg m-2"
            assert mrsos.standard_name == "mass_content_of_water_in_soil_layer"
            assert mrsos._FillValue == mrsos.missing_value == np.float32(1e20)
    assert len(identities) == 24


def test_time_is_the_middle_of_each_month_in_the_calendar_of_the_source(tiny_archive):
    for name, path in files(tiny_archive).items():
        if not (match := DRS.fullmatch(name)):
            continue
        with netCDF4.Dataset(path) as file:
            time, bounds = file["time"], file["time_bnds"][:]
            assert time.calendar == tiny_archive.models.loc[match["source"], "calendar"]
            edges = cftime.num2date(bounds, time.units, time.calendar)
            assert f"{edges[0, 0]:%Y%m%d}" == match["first"] + "01"
            assert f"{edges[-1, 0]:%Y%m%d}" == match["last"] + "01"
            assert all(edge.day == 1 and edge.hour == 0 for edge in edges.ravel())
            np.testing.assert_array_equal(bounds[1:, 0], bounds[:-1, 1])
            np.testing.assert_allclose(time[:], bounds.mean(axis=1))


def test_a_calendar_of_360_days_has_months_of_30(make_small, tmp_path):
    study = make_small(tmp_path, **SHORT | {"sources": ["Elm"]})
    for name, path in files(study).items():
        if "mrsos" in name:
            with netCDF4.Dataset(path) as file:
                assert file["time"].calendar == "360_day"
                np.testing.assert_array_equal(np.diff(file["time_bnds"][:]), 30)


def test_grids_are_those_of_the_model_table(tiny_archive):
    subset_of_longitude = {}
    for name, path in files(tiny_archive).items():
        if not (match := DRS.fullmatch(name)):
            continue
        model = tiny_archive.models.loc[match["source"]]
        with netCDF4.Dataset(path) as file:
            lat, lon = file["lat"][:].data, file["lon"][:].data
        assert np.all(np.diff(lat) * (-1 if "descending" in model["latitudes"] else 1) > 0)
        np.testing.assert_allclose(np.diff(lon), 360 / int(model["nlon"]))
        if "gaussian" in model["latitudes"]:
            roots = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(int(model["nlat"]))[0]))
            np.testing.assert_allclose(np.sort(lat), roots[np.isin(roots, lat)], atol=1e-12)
        whole = (lat.size, lon.size) == (int(model["nlat"]), int(model["nlon"]))
        # One file is global, the others are cut as a subsetting service cuts them.
        assert whole == (match["source"] == "Alder" and match["experiment"] == "ssp126")
        if not whole:
            assert lat.min() >= 0 and lat.max() <= 75 and lon.min() >= 40 and lon.max() <= 170
            subset_of_longitude[match["source"]] = lon.size
    assert len(set(subset_of_longitude.values())) == 4


def test_reference_looks_like_a_file_of_the_climate_data_store(tiny_archive):
    found = {name: p for name, p in files(tiny_archive).items() if name.startswith("ERA5-Land")}
    assert list(found)[1:] == [f"ERA5-Land/demo_swvl_{year}.nc" for year in range(1990, 2015)]
    with netCDF4.Dataset(found["ERA5-Land/demo_swvl_1990.nc"]) as file:
        assert file["swvl1"].dimensions == ("valid_time", "latitude", "longitude")
        assert file["swvl1"].units == "m**3 m**-3"
        assert np.all(np.diff(file["latitude"][:]) < 0)
        assert {"number", "expver"} <= set(file.variables)
        assert file.dimensions["valid_time"].size == 12
        assert "synthetic" in file.comment
        # ERA5-Land's own mask of this box at 0.25 degrees has 30899 of 38425 points on land.
        missing = np.ma.getmaskarray(np.ma.masked_invalid(file["swvl1"][0]))
        np.testing.assert_allclose(missing.mean(), 1 - 30899 / 38425, atol=0.02)


def test_land_is_that_of_the_coastline_that_ships(tiny_archive):
    features = json.loads((ROOT / "data" / "land.geojson").read_text())["features"]
    land = shapely.union_all([shapely.geometry.shape(f["geometry"]) for f in features])
    shapely.prepare(land)
    with xr.open_dataset(files(tiny_archive)["ERA5-Land/demo_invariant.nc"]) as file:
        x, y = np.meshgrid(file["longitude"], file["latitude"])
        np.testing.assert_array_equal(file["lsm"], shapely.intersects_xy(land, x, y))


# --- the truth ---------------------------------------------------------------------------


def test_truth_lies_on_the_fine_grid_in_every_month_of_the_experiment(tiny_study):
    world = truth(tiny_study, "ssp126")
    assert dict(world["theta"].sizes) == {"time": 1032, "lat": 24, "lon": 44}
    assert world["theta"].dims == ("time", "lat", "lon")
    assert float(world["lat"][0]) == 18.75  # 6 degrees / 4 = 1.5, centred
    assert (world["theta"].isnull() == world["weather_std"].isnull()).all()
    assert 0.01 < float(world["theta"].min()) < float(world["theta"].max()) < 0.6


def test_reference_is_the_truth_and_bounded_weather(tiny_archive):
    # In this registration the points of the truth, every 1.5 degrees, are points of the
    # reference, every 0.5 degrees.
    world = truth(tiny_archive.model_copy(update={"registration": "paper"}), "historical")
    reference = open_swvl(tiny_archive.era5land_directory).sel(lat=world["lat"], lon=world["lon"])
    weather = ((reference - world["theta"]) / world["weather_std"]).load()
    assert (reference.isnull() == world["theta"].isnull()).all()
    assert 0.5 < float(weather.notnull().mean()) < 0.9

    # The mean of n months with lag-1 correlation r varies as that of n (1 - r) / (1 + r).
    months = 300 * (1 - 0.75) / (1 + 0.75)
    bias = weather.mean("time") * np.sqrt(months)
    assert abs(float(bias.mean())) < 0.5
    assert 0.6 < float(np.sqrt((bias**2).mean())) < 1.3
    assert float(abs(bias).max()) < 4.5

    assert 0.7 < float(weather.std("time").median()) < 1.1  # linear interpolation smooths it
    assert float(abs(weather).max()) < 6
    memory = xr.corr(weather[1:].drop_vars("time"), weather[:-1].drop_vars("time"), "time")
    np.testing.assert_allclose(memory.mean(), 0.75, atol=0.05)


def test_truth_changes_more_from_scenario_to_scenario(tiny_study):
    def change(experiment_id):
        theta = truth(tiny_study, experiment_id)["theta"]
        late = theta.sel(time=slice("2081", "2100")).mean("time")
        return late - theta.sel(time=slice("2015", "2034")).mean("time")

    changes = [change(f"ssp{name}") for name in (126, 245, 370, 585)]
    sizes = [float(abs(c).mean()) for c in changes]
    assert sizes == sorted(sizes) and sizes[3] > 2 * sizes[0]
    # some regions dry and others get wetter, everywhere in proportion
    assert 0.1 < float((changes[3] < 0).sum() / changes[3].notnull().sum()) < 0.9
    both = [c.values[np.isfinite(c.values)] for c in (changes[0], changes[3])]
    assert np.corrcoef(*both)[0, 1] > 0.999


def test_truth_goes_on_where_the_historical_run_ends(tiny_study):
    past, future = truth(tiny_study, "historical")["theta"], truth(tiny_study, "ssp585")["theta"]
    step = abs(future.sel(time="2015-01").squeeze() - past.sel(time="2014-01").squeeze())
    assert float(step.max()) < 0.002  # that of one more year, with no jump


# --- weather -----------------------------------------------------------------------------


def weather(path):
    """Deviations of a file from its calendar months, as (time, lat, lon)."""
    with xr.open_dataset(path, use_cftime=True) as file:
        mrsos = file["mrsos"].load()
    return mrsos.groupby("time.month") - mrsos.groupby("time.month").mean()


@pytest.mark.filterwarnings("ignore:.*use_cftime.*")
@pytest.mark.parametrize(("shared", "low", "high"), [(0.0, -0.3, 0.3), (1.0, 0.9, 1.0)])
def test_shared_weather_makes_sources_agree(make_small, tmp_path, shared, low, high):
    study = make_small(
        tmp_path,
        sources=["Cedar", "Hazel"],  # 2.5 and 2 degrees, both ascending
        demo={"shared_weather": shared, "reference_resolution": 6.0},
    )
    one, two = (
        weather(next(path for name, path in files(study).items() if f"/{source}/ssp585" in name))
        for source in study.sources
    )
    points = {"lat": np.arange(22, 52, 4.0), "lon": np.arange(80, 118, 4.0)}
    a, b = (field.interp(points).values for field in (one, two))
    both = np.isfinite(a) & np.isfinite(b)
    assert both.mean() > 0.5
    assert low < np.corrcoef(a[both], b[both])[0, 1] <= high
