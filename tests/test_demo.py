"""The small world whose truth is known, and the files that it leaves."""

import re

import cftime
import netCDF4
import numpy as np
import pytest
import xarray as xr
from scipy.stats import ks_2samp

from smcore import demo, relief
from smcore.config import Study
from smcore.demo import make_archive, truth
from smcore.prepared import open_reference
from smcore.store import sha256

DRS = re.compile(
    r"CMIP6/(?P<activity>CMIP|ScenarioMIP)/(?P<institution>[^/]+)/(?P<source>[^/]+)/"
    r"(?P<experiment>[^/]+)/(?P<member>r\d+i\d+p\d+f\d+)/(?P<table>Lmon)/(?P<variable>mrsos)/"
    r"(?P<grid>g[nr]\d?)/v\d{8}/mrsos_Lmon_(?P=source)_(?P=experiment)_(?P=member)_(?P=grid)"
    r"_(?P<first>\d{6})-(?P<last>\d{6})\.nc"
)
SHORT = {"sources": ["Cedar"], "demo": {"reference_resolution": 2.0, "resolution": 2.0}}


def files(study):
    folder = study.directory / "archive"
    return {str(p.relative_to(folder)): p for p in sorted(folder.glob("**/*.nc"))}


def monthly(study):
    """The files of mrsos by their facets."""
    return {DRS.fullmatch(name): path for name, path in files(study).items() if "Lmon" in name}


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
    found = list(monthly(tiny_archive))
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
    for match, path in monthly(tiny_archive).items():
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
    for match, path in monthly(tiny_archive).items():
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
    columns = {}
    for match, path in monthly(tiny_archive).items():
        model = tiny_archive.models.loc[match["source"]]
        with netCDF4.Dataset(path) as file:
            lat, lon = file["lat"][:].data, file["lon"][:].data
        assert np.all(np.diff(lat) * (-1 if "descending" in model["latitudes"] else 1) > 0)
        np.testing.assert_allclose(np.diff(lon), 360 / int(model["nlon"]))
        if "gaussian" in model["latitudes"]:
            roots = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(int(model["nlat"]))[0]))
            np.testing.assert_allclose(np.sort(lat), roots[np.isin(roots, lat)], atol=1e-12)
        # cut as a subsetting service cuts them
        assert 10 <= lat.min() < 18 and 54 < lat.max() <= 62
        assert 63 <= lon.min() < 71 and 137 < lon.max() <= 145
        columns[match["source"]] = lon.size
    assert len(set(columns.values())) == 4


def test_one_source_leaves_the_whole_globe(make_small, tmp_path):
    study = make_small(tmp_path, **SHORT | {"sources": ["Ginkgo"]})
    for path in monthly(study).values():
        with netCDF4.Dataset(path) as file:
            assert file["mrsos"].shape[1:] == (64, 128)
            # 29 % of the Earth's surface is land, and more of the cells, which are small in the
            # north and at the South Pole
            assert 0.3 < 1 - np.ma.getmaskarray(file["mrsos"][0]).mean() < 0.4
            west, east = file["mrsos"][:, 22, -1], file["mrsos"][:, 22, 0]  # the Sahara, at 0 E
            assert abs(west.mean() - east.mean()) < 3  # no seam


def test_a_study_may_lie_across_the_seam_of_a_grid(make_small, tmp_path):
    study = make_small(
        tmp_path,
        **SHORT,
        domain={"south": 30, "north": 54, "west": -12, "east": 24},
        study_area={"name": "Poland", "countries": ["616"]},
        regions={
            name: {"south": 36, "north": 48, "west": 0, "east": 24}
            for name in ("north", "south", "west")
        },
        sites=dict.fromkeys(Study.load("tiny").sites, [14.4, 50.1]),
    )
    for path in monthly(study).values():
        with netCDF4.Dataset(path) as file:
            np.testing.assert_allclose(np.diff(file["lon"][:]), 2.5)
            low, high = file["lon"][:].min(), file["lon"][:].max()
            assert low - 360 <= -12 and high - 360 >= 24
            assert 0.3 < np.ma.getmaskarray(file["mrsos"][0]).mean() < 0.7


def test_fixed_fields_of_a_source_are_its_relief_and_its_land(tiny_archive):
    for source_id in tiny_archive.sources:
        (water,) = (
            p
            for m, p in monthly(tiny_archive).items()
            if (m["source"], m["experiment"]) == (source_id, "ssp585")
        )
        fields = {}
        for name in ("orog", "sftlf"):
            (path,) = (p for n, p in files(tiny_archive).items() if f"{name}_fx_{source_id}_" in n)
            assert path.parts[-5:-1][1:3] == (name, path.parts[-3])
            with netCDF4.Dataset(path) as file:
                assert (file.table_id, file.variable_id, file.frequency) == ("fx", name, "fx")
                fields[name] = file[name][:]
        assert fields["orog"].max() > 4000 and fields["sftlf"].max() == pytest.approx(100, rel=1e-5)
        with netCDF4.Dataset(water) as file:
            land = ~np.ma.getmaskarray(file["mrsos"][0])
            y, x = abs(file["lat"][:] - 33).argmin(), abs(file["lon"][:] - 88).argmin()
        assert fields["orog"][y, x] > 4500  # the plateau
        # land where more than some share of the cell is, and nowhere else
        assert fields["sftlf"][land].min() > fields["sftlf"][~land].max()


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


def test_heights_and_land_are_those_of_the_relief(tiny_archive):
    with xr.open_dataset(relief.RELIEF) as file:
        whole = file["elevation"].load()
    with xr.open_dataset(files(tiny_archive)["ERA5-Land/demo_invariant.nc"]) as file:
        heights = file["z"] / 9.80665
        for lat, lon in [(33.0, 88.0), (30.0, 115.0), (48.0, 110.0)]:
            # 6 by 6 cells of 1/12 degree around the point
            window = {"lat": slice(lat - 0.25, lat + 0.25), "lon": slice(lon - 0.25, lon + 0.25)}
            expected = whole.sel(window).mean()
            found = heights.sel(latitude=lat, longitude=lon)
            np.testing.assert_allclose(found, expected, rtol=0.01)
            assert float(file["lsm"].sel(latitude=lat, longitude=lon)) == 1
        assert float(file["lsm"].sel(latitude=30.0, longitude=126.0)) == 0  # East China Sea


def test_relief_keeps_the_land_of_the_globe():
    lat, lon = np.arange(-88, 90, 4.0), np.arange(2, 360, 4.0)
    _, land = relief.cells_of(lat, lon)
    area = np.cos(np.deg2rad(lat))[:, None] * np.ones(lon.size)
    assert np.average(land, weights=area) == pytest.approx(0.29, abs=0.01)  # of the Earth's surface


# --- Asia, as it is known ----------------------------------------------------------------


@pytest.fixture(scope="module")
def middle():
    """The middle of all sources, on cells of a degree: place and theta of thirty years' months."""
    study = Study.load("tiny", demo={"paradigm": "centred"})
    place = relief.Place(np.arange(18.5, 54), np.arange(71.5, 137))
    traits = demo.draw(demo.normals(0, study, "truth"), place)
    _, theta = next(demo.simulate(place, traits, study, "truth 0"))
    return place, theta.reshape(-1, 12, theta.shape[1]).mean(0)


def at(place, field, south, north, west, east):
    inside = (place.lat > south) & (place.lat < north) & (place.lon > west) & (place.lon < east)
    return field[..., inside]


def test_the_deserts_are_the_driest_and_the_south_east_is_wet(middle):
    place, theta = middle
    mean = theta.mean(0)
    deserts = [at(place, mean, 37, 41, 78, 88), at(place, mean, 39, 43, 97, 104)]
    for desert in deserts:  # Taklamakan, Gobi
        assert np.median(desert) < 0.12
    assert 0.28 < np.median(at(place, mean, 24, 30, 112, 120)) < 0.42
    assert 0.15 < np.median(at(place, mean, 29, 35, 82, 98)) < 0.30  # the plateau
    assert np.median(at(place, mean, 50, 54, 100, 125)) > 0.24  # boreal forest
    assert mean.min() > 0.04 and theta.max() < 0.49
    assert at(place, mean, 37, 41, 78, 88).mean() < 1.5 * np.quantile(mean, 0.05)


def test_the_summer_is_wet_where_the_monsoon_comes(middle):
    place, theta = middle
    summer = theta[5:8].mean(0) - theta[[11, 0, 1]].mean(0)
    assert np.median(at(place, summer, 20, 27, 75, 88)) > 0.1  # India
    assert np.median(at(place, summer, 24, 40, 106, 120)) > 0.01  # eastern China
    rain = place.climate.rain
    for box, low, high in [
        ((24, 30, 112, 120), 1100, 1900),
        ((36, 41, 112, 118), 350, 900),  # North China
        ((37, 41, 78, 88), 20, 120),  # Taklamakan
        ((30, 35, 82, 92), 80, 500),  # the plateau
        ((50, 54, 90, 120), 250, 600),  # southern Siberia
    ]:
        assert low < np.median(at(place, rain.sum(0), *box)) < high
    share = rain[5:8].sum(0) / rain.sum(0)
    assert np.median(at(place, share, 36, 41, 112, 118)) > 0.5


def test_winters_are_as_cold_as_they_are():
    # means of January and July, 1991-2020, to a few K: Guangzhou, Beijing, Irkutsk; Adelaide
    axes = [np.arange(-35.0, 60), np.arange(100.0, 141)]
    place = relief.Place(*axes)
    for lat, lon, january, july in [
        (24, 113, 14, 29),
        (40, 116, -3, 27),
        (52, 104, -18, 18),
        (-34, 139, 22, 11),
    ]:
        cell = np.argmin((place.lat - lat) ** 2 + (place.lon - lon) ** 2)
        found = place.climate.temperature[[0, 6], cell]
        np.testing.assert_allclose(found, [january, july], atol=6)


def test_elsewhere_the_rain_comes_in_its_season():
    place = relief.Place(np.arange(-59.0, 75), np.arange(-179.0, 180))
    rain = place.climate.rain
    for lat, lon, low, high, least, most in [  # mm a year, share of June to August
        (42, 13, 300, 1300, 0.0, 0.25),  # Rome: dry summers
        (28, 77, 500, 1200, 0.5, 0.9),  # Delhi
        (25, 15, 0, 100, 0.0, 1.0),  # Sahara
        (-3, -60, 1000, 3000, 0.0, 0.25),  # Manaus: wet when the sun is high
        (-34, 150, 500, 1600, 0.1, 0.3),  # Sydney
        (52, 0, 500, 1300, 0.2, 0.4),  # London
        (34, -84, 500, 1700, 0.2, 0.4),  # Atlanta
    ]:
        cell = np.argmin((place.lat - lat) ** 2 + (place.lon - lon) ** 2)
        assert low < rain[:, cell].sum() < high, (lat, lon)
        assert least <= rain[5:8, cell].sum() / rain[:, cell].sum() <= most, (lat, lon)


# --- draws -------------------------------------------------------------------------------


def drawn(study, tasks, seeds, name="capacity"):
    """A trait of some sources, or the truth, from many seeds: its logarithm (seed, task)."""
    place = relief.Place(np.array([35.0, 37.0]), np.array([100.0, 102.0]))
    return np.log(
        [
            [getattr(demo.draw(demo.normals(seed, study, task), place), name) for task in tasks]
            for seed in range(seeds)
        ]
    )


def test_truth_and_sources_are_draws_from_one_distribution():
    study = Study.load("demo")
    for name in ("capacity", "sensitivity"):
        truth, source = drawn(study, ["truth", "Yew"], 300, name).T
        assert ks_2samp(truth, source).pvalue > 0.01
        assert abs(np.corrcoef(truth, source)[0, 1]) < 0.2


def test_kin_share_a_part_of_their_errors():
    kin = ["Fir", "Spruce"]  # of one soil
    for kinship, expected in {0.0: 0.0, 0.5: 0.5, 1.0: 1.0}.items():
        study = Study.load("demo", demo={"kinship": kinship})
        one, two, other = drawn(study, [*kin, "Ash"], 300).T
        assert np.corrcoef(one, two)[0, 1] == pytest.approx(expected, abs=0.13)
        assert one.std() == pytest.approx(0.3, rel=0.15)  # whatever is shared
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.2
    assert Study.load("demo").models["kin"].nunique() >= 10
    assert Study.load("paper").models["kin"].nunique() >= 10


def test_a_centred_truth_is_in_the_middle():
    study = Study.load("demo", demo={"paradigm": "centred"})
    truth, source = drawn(study, ["truth", "Yew"], 200).T
    np.testing.assert_allclose(truth, np.log(90))
    assert source.mean() == pytest.approx(np.log(90), abs=0.08)


def test_a_drift_of_the_bias_grows_with_the_century(tiny_study):
    place = relief.Place(np.arange(20.0, 50, 5), np.arange(75.0, 135, 5))
    traits = demo.draw(demo.normals(0, tiny_study, "Birch"), place)
    runs = []
    for drift in (0.0, 1.0):
        study = tiny_study.model_copy(
            update={"demo": tiny_study.demo.model_copy(update={"bias_drift": drift})}
        )
        runs.append(list(demo.simulate(place, traits, study, "Birch"))[-1][1])
    changed = (runs[1] - runs[0]).reshape(86, 12, -1).mean(1)
    with_rain = np.corrcoef(traits.wetter, changed[-20:].mean(0))[0, 1]
    assert with_rain > 0.5  # wetter where it was too wet
    assert abs(changed[-20:]).mean() > 2 * abs(changed[:20]).mean()


# --- the truth ---------------------------------------------------------------------------


def test_truth_lies_on_the_fine_grid_in_every_month_of_the_experiment(tiny_archive):
    theta = truth(tiny_archive, "ssp126")["theta"]
    assert dict(theta.sizes) == {"time": 1032, "lat": 24, "lon": 44}
    assert theta.dims == ("time", "lat", "lon")
    assert float(theta["lat"][0]) == 18.75  # 6 degrees / 4 = 1.5, centred
    assert 0.6 < float(theta.notnull().mean()) < 0.95
    assert 0.01 < float(theta.min()) < float(theta.max()) < 0.6


def test_truth_needs_its_archive(tmp_path):
    study = Study.load("tiny", directory=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="01_data_preparation"):
        truth(study, "ssp585")


def test_truth_and_reference_are_one_world_and_differ_by_weather(prepared_study):
    reference = open_reference(prepared_study)
    expected = truth(prepared_study, "historical")["theta"]
    assert (reference.isnull() == expected.isnull()).all()
    weather = reference - expected
    bias = weather.mean("time")
    assert float(np.sqrt((bias**2).mean())) < 0.012
    assert abs(float(bias.mean())) < 0.015  # decades of the weather stay in a mean of 25 years
    # the climatology is the same world's, not another source's
    agree = xr.corr(reference.mean("time"), expected.mean("time"))
    assert float(agree) > 0.99
    assert 0.005 < float(weather.std("time").median()) < 0.06


def test_truth_has_less_weather_than_one_course_of_it(prepared_study):
    def deviation(theta):
        theta = theta.groupby("time.month") - theta.groupby("time.month").mean()
        return float(theta.std("time").median())

    one = deviation(open_reference(prepared_study))
    assert deviation(truth(prepared_study, "historical")["theta"]) < 0.5 * one


def test_truth_changes_more_from_scenario_to_scenario(tiny_archive):
    def change(experiment_id):
        theta = truth(tiny_archive, experiment_id)["theta"]
        return theta.sel(time=slice("2071", "2100")).mean("time") - theta.sel(
            time=slice("2015", "2034")
        ).mean("time")

    sizes = [float(abs(change(f"ssp{name}")).mean()) for name in (126, 245, 370, 585)]
    assert sizes == sorted(sizes) and sizes[3] > 1.5 * sizes[0]


def test_opposite_weather_leaves_little_of_itself(tiny_study):
    """The mean over a pair varies less than that over two of their own."""
    place = relief.Place(np.arange(20.0, 50, 5), np.arange(75.0, 135, 5))
    traits = demo.draw(demo.normals(0, tiny_study, "truth"), place)

    def run(task, signs):
        return next(demo.simulate(place, traits, tiny_study, task, signs=signs))[1]

    pair = run("truth 0", (1, -1))
    two = (run("truth 0", (1,)) + run("truth 1", (1,))) / 2
    yearly = [one.reshape(-1, 12, place.cells.size).mean(1).std(0).mean() for one in (pair, two)]
    assert yearly[0] < 0.6 * yearly[1]
    np.testing.assert_allclose(pair, (run("truth 0", (1,)) + run("truth 0", (-1,))) / 2, atol=1e-6)


# --- weather -----------------------------------------------------------------------------


def weather(path):
    """Deviations of a file from its calendar months, as (time, lat, lon)."""
    with xr.open_dataset(path, use_cftime=True) as file:
        mrsos = file["mrsos"].load()
    return mrsos.groupby("time.month") - mrsos.groupby("time.month").mean()


@pytest.mark.filterwarnings("ignore:.*use_cftime.*")
@pytest.mark.parametrize(("shared", "low", "high"), [(0.0, -0.3, 0.3), (1.0, 0.8, 1.0)])
def test_shared_weather_makes_sources_agree(make_small, tmp_path, shared, low, high):
    study = make_small(
        tmp_path,
        sources=["Cedar", "Hazel"],  # 2.5 and 2 degrees, both ascending
        demo={"shared_weather": shared, "reference_resolution": 6.0, "resolution": 6.0},
    )
    one, two = (
        weather(
            next(
                p
                for m, p in monthly(study).items()
                if (m["source"], m["experiment"]) == (source, "ssp585")
            )
        )
        for source in study.sources
    )
    points = {"lat": np.arange(22, 34, 4.0), "lon": np.arange(100, 118, 4.0)}
    a, b = (field.interp(points).values for field in (one, two))
    both = np.isfinite(a) & np.isfinite(b)
    assert both.mean() > 0.5
    assert low < np.corrcoef(a[both], b[both])[0, 1] <= high
