"""The run on real files, and smcore's readers and regridding on real files.

What needs the files takes their folder from SMCORE_REALDATA and skips where it is not set.
"""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import real_input
import xarray as xr
from scipy.interpolate import RegularGridInterpolator

from smcore.grids import coarse_grid, fine_grid
from smcore.regrid import regrid

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder():
    folder = os.environ.get("SMCORE_REALDATA")
    if not folder:
        pytest.skip("SMCORE_REALDATA is not set: name the folder with the real files")
    return Path(folder)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def results(folder, output):
    return real_input.run(folder, output)


@pytest.fixture(scope="module")
def fields(results):
    return results["fields"]


@pytest.fixture(scope="module")
def table(results):
    return results["table"].set_index("dataset")


@pytest.fixture
def links(folder, tmp_path):
    """A folder of links to the files, of which a test can take some away."""
    for file, *_ in real_input.FILES.values():
        (tmp_path / file).symlink_to(folder / file)
    return tmp_path


# ------------------------------------------------------------------------------- without the files


def test_read_names_every_missing_file_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="7 of 7 files") as error:
        real_input.read(tmp_path / "nowhere")
    for file, *_ in real_input.FILES.values():
        assert file in str(error.value)


def test_main_says_what_to_give(capsys):
    assert real_input.main([]) == 2
    message = capsys.readouterr().err
    assert "make real REALDATA=FOLDER" in message
    for file, *_ in real_input.FILES.values():
        assert file in message


def test_main_reports_a_wrong_folder_without_a_traceback(tmp_path, capsys):
    assert real_input.main([str(tmp_path)]) == 1
    assert "fetch them, or name the folder that holds them" in capsys.readouterr().err


# --------------------------------------------------------------------------------- what was read


def test_read_names_only_the_missing_files(links):
    for name in ("GFS", "ETOPO20"):
        (links / real_input.FILES[name][0]).unlink()
    with pytest.raises(FileNotFoundError, match="2 of 7 files") as error:
        real_input.read(links)
    assert re.findall(r"- (\S+)", str(error.value)) == [
        "gfs.t12z.pgrbf120.2p5deg.grib2",
        "etopo20.cdf",
    ]


def test_read_refuses_values_that_are_not_in_the_units_named(links):
    path = links / real_input.FILES["GLDAS Noah"][0]
    scaled = xr.load_dataset(path) * 100
    scaled["SoilMoi0_10cm_inst"].attrs["units"] = "kg m-2"
    path.unlink()
    scaled.to_netcdf(path)
    with pytest.raises(ValueError, match=rf"{path.name}: .* are the units"):
        real_input.read(links)


def test_table_has_the_original_dates(results, output):
    dates = pd.read_csv(output / "table.csv", index_col="dataset")["date"]
    assert dates["HadGEM2-ES"] == "2005-12-01"  # the file's name: 20051201
    assert dates["GFS"] == "2011-01-15 12 UTC"  # begun 2011-01-10 12 UTC, 120 hours
    assert dates["GLDAS Noah"] == "2016-01-01 03-21 UTC"
    assert dates["ERA-Interim"] == "1981-12"
    assert dates["ERA5"] == "2022-12-31 12 UTC"  # the file's name: 31-12-2022
    assert set(dates) == set(results["table"]["date"])


def test_the_sample_has_no_date(results):
    for name in ("predictors", "reference", "fused"):
        assert results[name]["time"].dtype.kind == "i"


# Expected values were taken from the files with other tools before smcore existed.
def test_hadgem2_has_the_known_range_in_the_domain(table):
    row = table.loc["HadGEM2-ES"]
    assert row["in the domain"] == "29 x 36"
    assert row["valid (%)"] == pytest.approx(85.7, abs=0.05)
    expected = [0.59, 22.6, 45.4]
    np.testing.assert_allclose(list(row[["minimum", "mean", "maximum"]]), expected, atol=0.05)


def test_gfs_has_the_known_mean_in_the_domain(table):
    row = table.loc["GFS"]
    assert row["in the domain"] == "14 x 26"
    assert row["valid (%)"] == pytest.approx(81.6, abs=0.05)
    assert row["mean"] == pytest.approx(0.257, abs=5e-4)


def test_era_interim_is_within_the_known_range_of_its_year(table):
    row = table.loc["ERA-Interim"]
    assert row["in the domain"] == "10 x 18"
    assert row["valid (%)"] == pytest.approx(90.6, abs=0.05)
    assert 0.063 <= row["minimum"] < row["mean"] < row["maximum"] <= 0.367


def test_gldas_has_one_value_for_each_fine_cell(table):
    assert table.loc["GLDAS Noah", "in the domain"] == "144 x 264"
    assert table.loc["GLDAS Noah", "units"] == "kg m-2"


def test_era5_has_the_known_mean_on_the_land_of_the_mask(table, fields):
    row = table.loc["ERA5"]
    assert row["in the domain"] == "145 x 265"
    assert row["mean"] == pytest.approx(0.247, abs=5e-4)
    assert row["minimum"] < 0 < row["below 0"]  # packing
    land = fields["ERA5"].theta.sel(lat=slice(18, 54), lon=slice(71, 137)).notnull()
    assert int(land.sum()) == 30899


def test_every_theta_is_a_fraction_of_the_volume(fields, results):
    for name in (*real_input.SOURCES, "ERA5"):
        theta = fields[name].theta.sortby("lat").sel(lat=slice(18, 54), lon=slice(71, 137))
        assert theta.attrs["units"] == "m3 m-3"
        assert float(theta.min()) >= 0
        assert float(theta.max()) <= 0.8  # more than the largest pores hold would be wrong units
    # 1 kg m-2 in 0.1 m of soil is 0.01 m3 m-3
    hadgem2 = fields["HadGEM2-ES"]
    assert float(hadgem2.theta.max()) == pytest.approx(float(hadgem2.raw.max()) / 100)
    assert np.isfinite(results["predictors"]).all()


def test_the_reference_is_missing_over_the_ocean_of_the_file(fields):
    # 30 N, 130 E lies in the Pacific, 30 N, 110 E in China
    theta = fields["ERA5"].theta
    assert np.isnan(theta.sel(lat=30, lon=130))
    assert 0.1 < theta.sel(lat=30, lon=110) < 0.6


# ------------------------------------------------------------------------------------- regridding


def test_bilinear_regridding_agrees_with_scipy(fields):
    theta = fields["HadGEM2-ES"].theta.sortby("lon")
    target = coarse_grid()
    ours = regrid(theta, target, method="bilinear", na_thres=0)
    scipy = RegularGridInterpolator((theta["lat"].values, theta["lon"].values), theta.values)
    lat, lon = np.meshgrid(target["lat"], target["lon"], indexing="ij")
    expected = scipy((lat, lon))
    compared = np.isfinite(ours) & np.isfinite(expected)
    assert compared.mean() > 0.7
    # smcore follows chords, scipy circles of latitude: they differ by a share of the gradient
    np.testing.assert_allclose(ours.values[compared], expected[compared], atol=5e-3)
    assert np.abs(ours.values - expected)[compared].mean() < 2e-4


def test_conservative_regridding_is_the_mean_of_the_nested_cells(fields, results):
    # 8 x 8 cells of 0.25 degrees tile a coarse cell; their areas are as cos(lat) of the centre
    theta = fields["GLDAS Noah"].theta.sel(lat=slice(18, 54), lon=slice(71, 137))
    values = theta.values.reshape(18, 8, 33, 8)
    area = np.cos(np.deg2rad(theta["lat"].values)).reshape(18, 8, 1, 1) * np.ones((1, 1, 33, 8))
    area_on_land = np.where(np.isfinite(values), area, 0).sum((1, 3))
    with np.errstate(invalid="ignore"):
        expected = np.nansum(values * area, (1, 3)) / area_on_land
    share = area_on_land / area.sum((1, 3))

    ours = results["coarse"].sel(source_id="GLDAS Noah", time=real_input.SAMPLE).values
    clear = np.abs(share - 0.5) > 1e-3
    np.testing.assert_array_equal(np.isfinite(ours)[clear], (share > 0.5)[clear])
    there = np.isfinite(ours)
    np.testing.assert_allclose(ours[there], expected[there], atol=1e-5)


def test_the_reference_is_the_area_mean_of_its_four_nodes(fields, results):
    # A fine cell is a quarter of each of four cells around nodes of the file; in latitude the
    # quarters are as the differences of the sine.
    nodes = fields["ERA5"].theta.sel(lat=slice(18, 54), lon=slice(71, 137)).values
    sine = np.sin(np.deg2rad(np.arange(18, 54.01, 0.125)))
    strips = np.diff(sine).reshape(144, 2)  # below and above the middle of a fine cell
    low, high = (strips[:, [k]] / strips.sum(1, keepdims=True) / 2 for k in (0, 1))
    corners = [nodes[:-1, :-1], nodes[:-1, 1:], nodes[1:, :-1], nodes[1:, 1:]]
    weights = [low, low, high, high]
    land = sum(w * np.isfinite(c) for w, c in zip(weights, corners))
    total = sum(w * np.nan_to_num(c) for w, c in zip(weights, corners))

    ours = results["reference"].sel(time=real_input.SAMPLE).values
    clear = np.abs(land - 0.5) > 1e-9  # two of four nodes: rounding decides
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(np.isfinite(ours)[clear], (land > 0.5)[clear])
    there = np.isfinite(ours)
    np.testing.assert_allclose(ours[there], (total / np.where(land > 0, land, 1))[there], atol=1e-6)


def test_the_relief_is_high_in_tibet_and_zero_on_the_sea(results):
    elevation = results["static"]["elevation"]
    assert float(elevation.sel(lat=33, lon=88, method="nearest")) > 4000
    assert 0 < float(elevation.sel(lat=31, lon=121, method="nearest")) < 100  # Shanghai
    assert (elevation.where(results["static"]["land_fraction"] == 0) == 0).sum() > 5000


@pytest.mark.parametrize(
    "name",
    [
        "rlds_Amon_IPSL-CM6A-LR_historical_r1i1p1f1_gr_185001.nc",  # poles, 143 x 144
        "tas_Amon_AWI-ESM-1-1-LR_1pctCO2_r1i1p1f1_gn_185501.nc",  # Gaussian, 96 x 192
        "tas_Amon_CanESM2_rcp85_r1i1p1_200701-200712.nc",  # Gaussian, 64 x 128
        "tas_Amon_FGOALS-g3_historical_r1i1p1f1_gn_185001.nc",  # irregular, 80 x 180
        "tas_day_MIROC6_ssp119_r1i1p1f1_gn_20150101.nc",  # Gaussian, 128 x 256
    ],
)
def test_native_grids_are_interpolated_as_by_xarray(folder, name):
    variable = name.split("_")[0]
    field = xr.open_dataset(folder / "cmip_grids" / name)[variable].isel(time=0)
    field = field.reset_coords(drop=True).astype(float)
    target = coarse_grid().drop_vars(["lat_bnds", "lon_bnds"])
    ours = regrid(field, target, method="bilinear")
    difference = ours - field.interp(lat=target["lat"], lon=target["lon"])
    assert difference.notnull().all()
    # K or W m-2; loosely, because smcore follows chords where xarray follows circles of latitude
    assert abs(difference).max() < 0.05 * float(field.std())
    assert abs(difference).mean() < 0.005 * float(field.std())


def test_land_shares_of_two_masks_agree(folder, fields):
    # EC-Earth3-Veg runs on 0.7 degrees with the land of the same family of models
    target = coarse_grid()
    path = folder / "EC-Earth3-Veg_gr_landmask.nc"
    other = xr.open_dataset(path)["landmask"].reset_coords(drop=True).astype(float)
    shares = [
        regrid(mask, target, method="conservative").values.ravel()
        for mask in (fields["ERA5-Land mask"].raw, other)
    ]
    assert np.corrcoef(*shares)[0, 1] > 0.97


def test_two_reliefs_agree_on_the_coarse_grid(folder, fields):
    coarse = xr.open_dataset(folder / "etopo120.cdf")["ROSE"]
    coarse = coarse.rename(ETOPO120Y="lat", ETOPO120X="lon").astype(float)
    target = coarse_grid()
    ours = regrid(fields["ETOPO20"].raw, target, method="conservative")
    other = regrid(coarse, target, method="bilinear")
    assert np.isfinite(ours).all()
    assert np.corrcoef(ours.values.ravel(), other.values.ravel())[0, 1] > 0.97


def test_unstructured_grids_are_refused_with_the_remedy(folder):
    name = "tas_Amon_ICON-ESM-LR_historical_r1i1p1f1_gn_185001.nc"
    tas = xr.open_dataset(folder / "cmip_grids" / name)["tas"].rename(
        latitude="lat", longitude="lon"
    )
    with pytest.raises(ValueError, match="conda install -c conda-forge xesmf"):
        regrid(tas, coarse_grid())


# ------------------------------------------------------------------------- fitting, fusing, scoring


def test_overfit_knows_its_sample_by_heart(results):
    rmsd = results["scores"]["rmsd"]
    assert rmsd["fused, fitted to the reference"] < 0.5 * rmsd["mean of the sources"]
    assert rmsd["fused, fitted to the reference"] < 0.05
    # Without weights, its score is the root of the last loss, but for the last step.
    difference = results["fused"] - results["reference"]
    last = np.sqrt(results["history"]["train"].iloc[-1])
    assert float(np.sqrt((difference**2).mean())) == pytest.approx(last, rel=0.05)


def test_scores_obey_their_identities(results):
    scores = results["scores"]
    np.testing.assert_allclose(scores["rmsd"] ** 2, scores["bias"] ** 2 + scores["ubrmsd"] ** 2)
    sources = scores.loc[list(real_input.SOURCES)]
    assert scores.loc["mean of the sources", "bias"] == pytest.approx(sources["bias"].mean())
    # The mean of several fields is at most as far away as they are on average.
    assert scores.loc["mean of the sources", "rmsd"] <= sources["rmsd"].mean()
    assert set(scores["cells"]) == {results["cells"]}


def test_fused_is_missing_exactly_where_the_mask_says_ocean(fields, results):
    fused = results["fused"].sel(time=real_input.SAMPLE)
    land_fraction = regrid(fields["ERA5-Land mask"].raw, fine_grid(), method="conservative").values
    land = np.isfinite(fused.values)
    np.testing.assert_array_equal(land, land_fraction >= 0.5 - 1e-12)
    assert fused.sizes == {"lat": 144, "lon": 264}


def test_page_stands_alone_and_claims_nothing(results, output):
    page = (output / "real.html").read_text(encoding="utf-8")
    assert "<title>Plumbing, not skill" in page and "<h1>Plumbing, not skill" in page
    assert re.search(r'<img src="data:image/png;base64,[^"]+" alt="Eight maps of [^"]{200,}"', page)
    assert not re.search(r'(src|href)="(?!data:)', page)
    for date in results["table"]["date"]:
        assert f"<td>{date}</td>" in page
    made = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    assert made == {"table.csv", "scores.json", "maps.png", "real.html"}
