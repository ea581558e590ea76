"""Regridding, against ESMF's own output where it is at hand, and by what must hold anyway."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from scipy import sparse
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial import cKDTree

import smcore.regrid
from smcore.grids import cell_area
from smcore.regrid import METHODS, fill_nearest, regrid


def grid(lat, lon):
    return xr.Dataset(coords={"lat": np.asarray(lat, float), "lon": np.asarray(lon, float)})


def analytic(lat, lon):
    """A smooth field on a grid (the formula of the xESMF reference)."""
    y, x = np.deg2rad(lat)[:, None], np.deg2rad(lon)[None, :]
    values = 0.25 + 0.1 * np.cos(2 * y) * np.sin(3 * x) + 0.05 * np.cos(5 * x)
    attrs = {"units": "m3 m-3", "long_name": "a field"}
    return xr.DataArray(values, {"lat": lat, "lon": lon}, ("lat", "lon"), "theta", attrs)


def unit_vectors(lat, lon):
    return on_the_sphere(*np.meshgrid(lat, lon, indexing="ij"))


def on_the_sphere(lat, lon):
    y, x = np.deg2rad(np.ravel(lat)), np.deg2rad(np.ravel(lon))
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], -1)


COARSE = grid(np.arange(19, 54, 2), np.arange(72, 137, 2))
GLOBAL = analytic(np.linspace(-88, 88, 45), np.arange(0, 360, 5.0))
REGIONAL = analytic(np.arange(10.25, 62, 0.7), np.arange(61.35, 147, 0.9))
# Part of the field is missing, as over an ocean.
MASKED = REGIONAL.where(REGIONAL < 0.28)
WEST = GLOBAL.assign_coords(lon=(GLOBAL["lon"] + 180) % 360 - 180)  # begins with 0..175
SCATTERED = grid([-61.3, 3.3, 40.1], [-178.2, 1.2, 93.1, 358.1])  # no ties on GLOBAL


def curvilinear(field):
    lat, lon = xr.broadcast(field["lat"], field["lon"])
    places = {"lat": (("j", "i"), lat.values), "lon": (("j", "i"), lon.values)}
    return xr.DataArray(field.values, places, ("j", "i"), "theta", field.attrs)


def unstructured(field):
    """As ICON: latitude and longitude of each cell along one dimension."""
    lat, lon = xr.broadcast(field["lat"], field["lon"])
    places = {"lat": ("i", lat.values.ravel()), "lon": ("i", lon.values.ravel())}
    return xr.DataArray(field.values.ravel(), places, "i", "theta", field.attrs)


# --- against xESMF 0.9.2 on ESMF 8.9.0 ---------------------------------------------------


@pytest.fixture(scope="module")
def esmf():
    """A function: source grid to (field, masked field, reference output)."""
    folder = os.environ.get("SMCORE_XESMF_REFERENCE")
    if not folder:
        pytest.skip("SMCORE_XESMF_REFERENCE does not name the folder of xESMF's output")

    def read(source):
        with xr.open_dataset(Path(folder) / f"ref_{source}.nc") as file:
            expected = file.load()
        lat, lon = expected["src_lat"].values, expected["src_lon"].values
        field = analytic(lat, lon)
        y, x = np.deg2rad(lat)[:, None], np.deg2rad(lon)[None, :]
        masked = field.where(np.sin(3 * x) * np.cos(2 * y) <= 0.3)
        return field.astype("float32"), masked.astype("float32"), expected

    return read


CASES = [("n48", "2deg"), ("n48", "025"), ("ipsl", "2deg"), ("ipsl", "025"), ("era01", "025")]


def target_of(expected, name):
    return grid(expected[f"lat_{name}"], expected[f"lon_{name}"])


def assert_same(result, expected, *, atol, tied=False):
    """Equal within `atol` and missing in the same cells, those that are `tied` apart."""
    differs = np.isnan(result) != np.isnan(expected)
    assert not (differs & ~tied).any(), f"{(differs & ~tied).sum()} cells"
    both = ~np.isnan(result) & ~np.isnan(expected)
    assert both.sum() > 0.3 * both.size
    np.testing.assert_allclose(result[both], expected[both], rtol=0, atol=atol)


@pytest.mark.parametrize(("source", "name"), CASES)
@pytest.mark.parametrize(
    ("method", "esmf_method", "atol"),
    # ESMF's conservative cells have great-circle edges, ours parallels: up to 4e-4 apart.
    [("bilinear", "bilinear", 1e-6), ("conservative", "conservative_normed", 4e-4)],
)
def test_regrid_gives_what_xesmf_gives(esmf, source, name, method, esmf_method, atol):
    field, masked, expected = esmf(source)
    target = target_of(expected, name)
    coarse = expected[f"{esmf_method}__full__{name}"].values
    assert_same(regrid(field, target, method=method).values, coarse, atol=atol)

    # At exactly half of the weight, rounding decides.
    weight = regrid(masked.notnull().astype(float), target, method=method).values
    tied = abs(weight - 0.5) < 1e-6
    assert tied.mean() < 0.005
    coarse = expected[f"{esmf_method}__masked_skipna05__{name}"].values
    assert_same(regrid(masked, target, method=method).values, coarse, atol=atol, tied=tied)

    coarse = expected[f"{esmf_method}__masked_nan__{name}"].values
    result = regrid(masked, target, method=method, na_thres=0).values
    if method == "conservative":
        # The great circle along a cell of 2.5 degrees at 54 N lies up to 0.0065 degrees north
        # of the parallel: 2.6 % of a target cell may belong to another source cell.
        tied = (weight < 1) & (weight > 0.97)
        assert_same(result, coarse, atol=atol, tied=tied)
    else:
        assert_same(result, coarse, atol=atol)


@pytest.mark.parametrize(("source", "name"), CASES)
def test_regrid_takes_the_nearest_cell_that_xesmf_takes(esmf, source, name):
    field, masked, expected = esmf(source)
    target = target_of(expected, name)
    axes = [grid["lat"] for grid in (field, target)], [grid["lon"] for grid in (field, target)]
    tree = cKDTree(unit_vectors(axes[0][0], axes[1][0]))
    distance = tree.query(unit_vectors(axes[0][1], axes[1][1]), k=2)[0]
    tied = (np.diff(distance, axis=1) < 1e-9).reshape(target["lat"].size, -1)
    assert tied.mean() < 0.8
    for variant, native in [("full", field), ("masked_nan", masked)]:
        result = regrid(native, target, method="nearest", na_thres=0).values
        coarse = expected[f"nearest_s2d__{variant}__{name}"].values
        np.testing.assert_array_equal(result[~tied], coarse[~tied])


@pytest.mark.xesmf
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("na_thres", [0, 0.5])
@pytest.mark.parametrize(
    "field",
    [REGIONAL, REGIONAL[::-1], MASKED, GLOBAL, WEST, WEST.sortby("lon")],
    ids=["full", "descending", "masked", "global", "halves", "-180..180"],
)
def test_engines_agree(field, method, na_thres):
    pytest.importorskip("xesmf", reason="xesmf comes from conda-forge")
    # no ties; partly outside the region; across Greenwich
    target = grid(np.arange(2.1, 70, 2.3), np.arange(-5.2, 170, 2.9))
    ours = regrid(field, target, method=method, na_thres=na_thres).values
    theirs = regrid(field, target, method=method, na_thres=na_thres, engine="xesmf").values
    differs = np.isnan(ours) != np.isnan(theirs)
    # great circles against parallels: another share of a cell may be missing
    assert differs.mean() <= (0.02 if method == "conservative" else 0)
    atol = 4e-4 if method == "conservative" else 1e-6
    np.testing.assert_allclose(ours[~differs], theirs[~differs], rtol=0, atol=atol)


@pytest.mark.xesmf
def test_xesmf_takes_curvilinear_and_unstructured_grids():
    pytest.importorskip("xesmf", reason="xesmf comes from conda-forge")
    for field in (curvilinear(GLOBAL), unstructured(GLOBAL)):
        result = regrid(field, SCATTERED, method="nearest", engine="xesmf")
        np.testing.assert_array_equal(result, regrid(GLOBAL, SCATTERED, method="nearest"))
    result = regrid(curvilinear(GLOBAL), SCATTERED, engine="xesmf")
    np.testing.assert_allclose(result, regrid(GLOBAL, SCATTERED), atol=1e-6)


def test_xesmf_says_where_to_get_it():
    try:
        import xesmf  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match="conda install -c conda-forge xesmf"):
            regrid(REGIONAL, COARSE, engine="xesmf")
    else:
        pytest.skip("xesmf is installed")


# --- the way to xESMF, with a stand-in ---------------------------------------------------


@pytest.fixture
def xesmf(monkeypatch):
    """A stand-in for xESMF that always takes the nearest cell; the list of its calls."""
    calls = []

    class Regridder:
        def __init__(self, ds_in, ds_out, method, *, periodic=False, locstream_in=False):
            call = {"source": ds_in, "target": ds_out, "method": method}
            calls.append(call | {"periodic": periodic, "locstream_in": locstream_in})
            lat, lon = ds_in["lat"], ds_in["lon"]
            if not locstream_in:
                lat, lon = xr.broadcast(lat, lon)
            targets = unit_vectors(ds_out["lat"], ds_out["lon"])
            column = cKDTree(on_the_sphere(lat, lon)).query(targets)[1]
            cells = (np.ones(column.size), (np.arange(column.size), column))
            weights = sparse.coo_matrix(cells, shape=(column.size, lat.size))
            self.weights = SimpleNamespace(data=SimpleNamespace(to_scipy_sparse=lambda: weights))

    monkeypatch.setitem(sys.modules, "xesmf", SimpleNamespace(Regridder=Regridder))
    smcore.regrid._weights.cache_clear()
    yield calls
    smcore.regrid._weights.cache_clear()


@pytest.mark.parametrize(
    "field",
    [GLOBAL, GLOBAL[::-1], WEST, WEST.sortby("lon"), REGIONAL, MASKED],
    ids=["global", "descending", "halves", "-180..180", "regional", "masked"],
)
def test_weights_of_xesmf_belong_to_the_cells_of_the_field(xesmf, field):
    expected = regrid(field, SCATTERED, method="nearest")
    for method, name in [
        ("nearest", "nearest_s2d"),
        ("bilinear", "bilinear"),
        ("conservative", "conservative"),
    ]:
        result = regrid(field, SCATTERED, method=method, engine="xesmf")
        inside = expected.notnull()  # the stand-in reaches everywhere
        xr.testing.assert_identical(result.where(inside), expected)
        call = xesmf[-1]
        assert (call["method"], call["periodic"], call["locstream_in"]) == (name, False, False)
        assert (np.diff(call["source"]["lon"]) > 0).all()
    for name, lat in (("source", field["lat"]), ("target", SCATTERED["lat"])):
        edges = xesmf[-1][name]["lat_b"].values
        assert abs(edges).max() <= 90
        np.testing.assert_allclose(edges[1:-1], (lat.values[1:] + lat.values[:-1]) / 2)


def test_xesmf_gets_a_globe_without_a_gap(xesmf):
    regrid(WEST.sortby("lon"), SCATTERED, engine="xesmf")
    assert np.ptp(xesmf[-1]["source"]["lon"].values) == 360
    regrid(WEST.sortby("lon"), SCATTERED, engine="xesmf", method="conservative")
    assert np.ptp(xesmf[-1]["source"]["lon_b"].values) == 360


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_xesmf_gets_curvilinear_grids_with_their_seam(xesmf, method):
    field = curvilinear(GLOBAL).expand_dims(time=2)
    result = regrid(field, SCATTERED, method=method, engine="xesmf")
    assert result.dims == ("time", "lat", "lon")
    assert result.attrs == GLOBAL.attrs
    expected = regrid(GLOBAL, SCATTERED, method="nearest")
    np.testing.assert_array_equal(result, [expected, expected])
    assert xesmf[-1]["periodic"] is True
    assert xesmf[-1]["source"]["lat"].shape == GLOBAL.shape
    swapped = regrid(field.transpose("i", "time", "j"), SCATTERED, method=method, engine="xesmf")
    np.testing.assert_array_equal(swapped, result)
    regrid(curvilinear(REGIONAL), COARSE, method=method, engine="xesmf")
    assert xesmf[-1]["periodic"] is False


def test_xesmf_gets_unstructured_grids_as_places(xesmf):
    field = unstructured(GLOBAL).expand_dims(time=3).chunk(time=1)
    result = regrid(field, SCATTERED, method="nearest", engine="xesmf")
    assert result.chunks[0] == (1, 1, 1)
    expected = regrid(GLOBAL, SCATTERED, method="nearest")
    np.testing.assert_array_equal(result, [expected] * 3)
    assert (xesmf[-1]["method"], xesmf[-1]["locstream_in"]) == ("nearest_s2d", True)


def test_regrid_says_which_method_a_grid_without_cells_has(xesmf):
    for field, method in [
        (unstructured(GLOBAL), "bilinear"),
        (unstructured(GLOBAL), "conservative"),
        (curvilinear(GLOBAL), "conservative"),
    ]:
        with pytest.raises(ValueError, match=f"must be 'nearest'.*got '{method}'"):
            regrid(field, SCATTERED, method=method, engine="xesmf")
    assert not xesmf


# --- against scipy -----------------------------------------------------------------------


def test_bilinear_is_close_to_interpolation_in_latitude_and_longitude():
    # Along chords, as in ESMF, instead of parallels: 2e-5 apart on a grid of 0.7 by 0.9 degrees
    interpolate = RegularGridInterpolator((REGIONAL["lat"], REGIONAL["lon"]), REGIONAL.values)
    y, x = np.meshgrid(COARSE["lat"], COARSE["lon"], indexing="ij")
    np.testing.assert_allclose(regrid(REGIONAL, COARSE), interpolate((y, x)), atol=2e-5)


def test_bilinear_follows_chords():
    # Source points at 30 and 40 N, 0 and 20 E. The middle of the chord between the two on a
    # parallel has the direction (cos(lat) cos(10 deg), 0, sin(lat)), a latitude of
    # atan(tan(lat) / cos(10 deg)). A target at the lower one, 10 E, is the mean of the two.
    field = xr.DataArray(
        [[1.0, 3.0], [5.0, 9.0]], {"lat": [30.0, 40.0], "lon": [0.0, 20.0]}, ("lat", "lon")
    )
    lat = np.degrees(np.arctan(np.tan(np.deg2rad(30)) / np.cos(np.deg2rad(10))))
    assert lat > 30.3
    on_the_chord = regrid(field, grid([lat + 1e-9], [10]))
    np.testing.assert_allclose(on_the_chord, [[2.0]], atol=1e-6)
    # Half way between the middles of the two chords, in space: the mean of the four.
    y = np.deg2rad([30, 40])
    sin, cos = np.sin(y).mean(), (np.cos(y) * np.cos(np.deg2rad(10))).mean()
    middle = regrid(field, grid([np.degrees(np.arctan2(sin, cos))], [10]))
    np.testing.assert_allclose(middle, [[4.5]], atol=1e-12)


def test_nearest_is_nearest_on_the_sphere():
    points, targets = unit_vectors(GLOBAL["lat"], GLOBAL["lon"]), grid([61.3, 80.9], [1, 178.8])
    distance = np.linalg.norm(unit_vectors(targets.lat, targets.lon)[:, None] - points, axis=-1)
    expected = GLOBAL.values.ravel()[distance.argmin(axis=1)].reshape(2, 2)
    np.testing.assert_array_equal(regrid(GLOBAL, targets, method="nearest"), expected)


def test_conservative_by_hand():
    # Columns of 2 degrees into one of 3 that covers all of the first and half of the second;
    # rows from the equator to 30 and from 30 to 90 into one from the equator to the pole:
    # sin(30 deg) = 1/2 of the area in each.
    field = xr.DataArray(
        [[1.0, 4.0], [3.0, 9.0]], {"lat": [15.0, 45.0], "lon": [1.0, 3.0]}, ("lat", "lon")
    )  # edges: 0, 30, 60 and 0, 2, 4
    target = grid([15, 45], [1.5, 4.5])  # edges: 0, 30, 60 and 0, 3, 6
    expected = [[(2 * 1 + 4) / 3, 4], [(2 * 3 + 9) / 3, 9]]
    np.testing.assert_allclose(regrid(field, target, method="conservative", na_thres=0.9), expected)
    both = regrid(field, grid([30, 90], [1, 3]), method="conservative")  # edges: 0, 60, 90
    low, high = np.sin(np.deg2rad(30)), np.sin(np.deg2rad(60)) - np.sin(np.deg2rad(30))
    expected = [(low * 1 + high * 3) / (low + high), (low * 4 + high * 9) / (low + high)]
    np.testing.assert_allclose(both[0], expected)
    assert np.isnan(both[1]).all()


# --- whatever the method -----------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("field", [REGIONAL, MASKED], ids=["full", "masked"])
def test_regrid_does_not_depend_on_the_order_of_the_axes(method, field):
    expected = regrid(field, COARSE, method=method)
    for other in (field[::-1], field.transpose("lon", "lat"), field[::-1].T):
        result = regrid(other, COARSE, method=method)
        assert result.dims == ("lat", "lon")
        np.testing.assert_allclose(result, expected, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shift", [5, 36, 40])
def test_regrid_does_not_depend_on_where_longitudes_begin(method, shift):
    target = grid(np.arange(-61, 70, 7.3), np.arange(3.1, 360, 11.7))
    expected = regrid(GLOBAL, target, method=method)
    assert expected.notnull().all()
    rolled = GLOBAL.roll(lon=shift, roll_coords=True)
    halves = GLOBAL.assign_coords(lon=(GLOBAL["lon"] + 180) % 360 - 180)
    for other in (rolled, halves, halves.sortby("lon")):
        np.testing.assert_allclose(regrid(other, target, method=method), expected, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_regrid_takes_targets_in_either_convention(method):
    east, west = np.array([181.0, 200, 259, 358]), np.array([-179.0, -160, -101, -2])
    lat = np.arange(-60.3, 61, 11)  # no ties
    expected = regrid(GLOBAL, grid(lat, east), method=method)
    np.testing.assert_allclose(regrid(GLOBAL, grid(lat, west), method=method), expected, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_regrid_crosses_the_date_line_and_greenwich(method):
    # A region around 180 degrees, written -180..180 in file order, against 0..360
    lon = np.arange(150, 212, 3.0)
    field = analytic(np.arange(-20, 21, 2.0), lon)
    target = grid(np.arange(-15, 16, 5.0), np.arange(155, 205, 7.0))
    expected = regrid(field, target, method=method)
    assert expected.notnull().all()
    wrapped = field.assign_coords(lon=(lon + 180) % 360 - 180)
    for other in (wrapped, wrapped.sortby("lon")):
        np.testing.assert_allclose(regrid(other, target, method=method), expected, atol=1e-12)
    # and between the last and the first column of a global grid
    gap = regrid(GLOBAL, grid([0], [357.5]), method="bilinear").item()
    np.testing.assert_allclose(gap, GLOBAL.sel(lat=0, lon=[355, 0]).mean(), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_regrid_takes_targets_across_the_date_line(method):
    lat = np.arange(-60.3, 61, 11)  # no ties
    expected = regrid(GLOBAL, grid(lat, np.arange(163, 203, 6.0)), method=method)
    wrapped = regrid(GLOBAL, grid(lat, [163, 169, 175, -179, -173, -167, -161]), method=method)
    np.testing.assert_allclose(wrapped, expected, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", [0, 20.166667])  # as ETOPO20 has, from 20.17 to 380.17 degrees
def test_regrid_takes_a_column_that_is_repeated(method, first):
    lon = np.arange(0, 360, 10 / 3) + first
    field = analytic(np.arange(-85, 90, 10.0), lon)
    repeated = field.isel(lon=[*range(lon.size), 0])
    repeated = repeated.assign_coords(lon=np.append(lon, lon[0] + 360))
    target = grid(np.arange(-70, 80, 9.0), np.arange(0.3, 360, 13))
    expected = regrid(field, target, method=method)
    assert expected.notnull().all()
    np.testing.assert_allclose(regrid(repeated, target, method=method), expected, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_regrid_reaches_the_poles_where_the_source_does(method):
    field = analytic(np.linspace(-90, 90, 37), np.arange(0, 360, 5.0))
    field[[0, -1]] = field[[0, -1]].mean("lon")  # one value at a pole
    target = grid([-90, -89, 0, 88, 90], np.arange(2.1, 360, 20))
    result = regrid(field, target, method=method)
    assert result.notnull().all()
    if method != "conservative":
        np.testing.assert_allclose(result[[0, -1], 0], field[[0, -1], 0], atol=1e-9)


def test_between_the_last_row_and_the_pole_there_are_cells_but_no_centres():
    # Gaussian: the last centres lie at 87.9 degrees, the last cells end at the poles.
    lat = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(64)[0]))
    field = analytic(lat, np.arange(128) * 2.8125)
    target = grid([-89.5, -87.5, 87.5, 89.5], np.arange(0.3, 360, 7))
    for source in (field, field[::-1]):
        inside = regrid(source, target).notnull()
        assert not inside[[0, -1]].any() and inside[1:3].all()
        result = regrid(source, target, method="nearest")
        column = np.round(target["lon"].values / 2.8125).astype(int) % 128
        np.testing.assert_array_equal(result, field.values[[0, 0, -1, -1]][:, column])
        assert regrid(source, target, method="conservative").notnull().all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("na_thres", [0, 0.5, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_regrid_keeps_constants(method, na_thres, dtype):
    field = xr.full_like(REGIONAL, 0.3).astype(dtype)
    result = regrid(field, COARSE, method=method, na_thres=na_thres)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, 0.3, rtol=1e-6)
    masked = regrid(field.where(MASKED.notnull()), COARSE, method=method)
    assert masked.isnull().any() and masked.notnull().any()
    np.testing.assert_allclose(masked.values[masked.notnull()], 0.3, rtol=1e-6)


@pytest.mark.parametrize("step", [0.02, 0.1])
def test_conservative_loses_no_cell_to_rounding_in_single_precision(step):
    # 10,000 weights of float32 do not add up to one within 1e-6
    cells = step * np.arange(round(6 / step) + 1)
    axes = {"lat": 29 + cells, "lon": 99 + cells}
    field = xr.DataArray(np.full((cells.size,) * 2, 0.3, "float32"), axes, ("lat", "lon"))
    result = regrid(field, grid([31, 33], [101, 103]), method="conservative", na_thres=0)
    np.testing.assert_allclose(result, 0.3, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_regrid_to_its_own_grid_changes_nothing(method):
    for field in (REGIONAL, MASKED, MASKED[::-1]):
        result = regrid(field, field, method=method)
        np.testing.assert_allclose(result, field, atol=1e-12)


def test_conservative_keeps_the_integral_over_the_sphere():
    target = grid(np.arange(-87, 90, 6.0), np.arange(3.5, 360, 7.2))
    rng = np.random.default_rng(0)
    for lat in (np.linspace(-90, 90, 37), np.arange(88, -90, -4.0)):
        field = xr.DataArray(
            rng.random((lat.size, 50)), {"lat": lat, "lon": np.arange(50) * 7.2}, ("lat", "lon")
        )
        result = regrid(field, target, method="conservative")
        before = (field * cell_area(field["lat"], field["lon"])).sum()
        after = (result * cell_area(target["lat"], target["lon"])).sum()
        np.testing.assert_allclose(after, before, rtol=1e-10)


@pytest.mark.parametrize("method", ["bilinear", "conservative"])
def test_regrid_renormalises_over_the_valid_part(method):
    valid = MASKED.notnull().astype(float)
    weight = regrid(valid, COARSE, method=method, na_thres=1)
    total = regrid(MASKED.fillna(0), COARSE, method=method)
    for na_thres in (0.2, 0.5, 0.9):
        result = regrid(MASKED, COARSE, method=method, na_thres=na_thres)
        expected = (total / weight).where(weight > 1 - na_thres)
        np.testing.assert_allclose(result, expected, atol=1e-12)
    strict = regrid(MASKED, COARSE, method=method, na_thres=0)
    np.testing.assert_allclose(strict, total.where(weight > 1 - 1e-9), atol=1e-12)


def test_bilinear_with_one_missing_corner_by_hand():
    # In the middle of a cell each corner has about a quarter of the weight.
    field = xr.DataArray(
        [[1.0, 2.0], [np.nan, 3.0]], {"lat": [-1.0, 1.0], "lon": [9.0, 11.0]}, ("lat", "lon")
    )
    middle = grid([0], [10])
    np.testing.assert_allclose(regrid(field, middle), [[2.0]], atol=1e-12)
    np.testing.assert_allclose(regrid(field, middle, na_thres=0.3), [[2.0]], atol=1e-12)
    assert np.isnan(regrid(field, middle, na_thres=0.2))
    assert np.isnan(regrid(field, middle, na_thres=0))


@pytest.mark.parametrize("method", METHODS)
def test_regrid_does_not_spread_a_month_to_another(method):
    two = xr.concat([REGIONAL, MASKED], "time")
    result = regrid(two, COARSE, method=method)
    for month, field in enumerate((REGIONAL, MASKED)):
        np.testing.assert_allclose(result[month], regrid(field, COARSE, method=method), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_regrid_leaves_out_what_lies_outside(method):
    # The region spans 10.25..61.35 N and 61.35..146.85 E.
    for lat in (-30, 30, 70):
        for lon in (20, 100, 200, 300, -30):
            target = grid([lat, lat + 1], [lon, lon + 1])
            inside = regrid(REGIONAL, target, method=method, na_thres=1).notnull()
            assert inside.all() == inside.any() == ((lat, lon) == (30, 100))


def test_nearest_ends_with_the_outermost_cells():
    # cells from 9.5 to 20.5 N and from 169.5 to 190.5 E
    lat, lon = np.arange(10, 21, 1.0), np.arange(170, 191, 1.0)
    field = analytic(lat, lon)
    target = grid([9.4, 9.6, 20.4, 20.6], [169.4, 169.6, -169.6, -169.4])
    expected = np.full((4, 4), np.nan)
    expected[1:3, 1:3] = field[[0, -1], [0, -1]]
    wrapped = field.assign_coords(lon=(lon + 180) % 360 - 180)
    for source in (field, field[::-1], wrapped, wrapped.sortby("lon")):
        np.testing.assert_array_equal(regrid(source, target, method="nearest"), expected)


@pytest.mark.parametrize("method", ["bilinear", "conservative"])
def test_a_missing_cell_far_away_does_not_decide_what_lies_inside(method):
    target = grid(np.arange(9, 64, 3.0), np.arange(60, 149, 3.0))
    far = REGIONAL.copy()
    far[40, 50] = np.nan
    ours = regrid(REGIONAL, target, method=method).notnull()
    theirs = regrid(far, target, method=method).notnull()
    np.testing.assert_array_equal(ours, theirs)


def test_bilinear_takes_targets_on_the_edge_whatever_the_rounding():
    lat, lon = np.arange(10, 21, 1.0), np.arange(70, 81, 1.0)
    for noise in (-1e-12, 0, 1e-12):
        field = analytic(lat + noise, lon + noise)
        result = regrid(field, grid(lat, lon))
        np.testing.assert_allclose(result, field, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_regrid_takes_whole_numbers(method):
    whole = xr.DataArray(
        np.arange(24, dtype="int16").reshape(4, 6),
        {"lat": np.arange(4.0), "lon": np.arange(6.0)},
        ("lat", "lon"),
    )
    target = grid([1, 1.6], [2.4, 3])
    result = regrid(whole, target, method=method)
    np.testing.assert_allclose(result, regrid(whole.astype(float), target, method=method))


@pytest.mark.parametrize("method", METHODS)
def test_regrid_of_chunks_is_regrid_of_the_whole(method):
    time = np.arange(7)
    field = xr.concat([MASKED * (1 + t) for t in time], "time").assign_coords(time=time)
    expected = regrid(field, COARSE, method=method)
    lazy = regrid(field.chunk(time=3), COARSE, method=method)
    assert lazy.chunks[0] == (3, 3, 1)
    xr.testing.assert_identical(lazy.compute(), expected)


def test_regrid_makes_weights_once_per_pair_of_grids(monkeypatch):
    made = []
    make = smcore.regrid._bilinear
    monkeypatch.setattr(smcore.regrid, "_bilinear", lambda *axes: made.append(1) or make(*axes))
    smcore.regrid._weights.cache_clear()
    for field in (REGIONAL, MASKED, REGIONAL.astype("float32").expand_dims(time=3)):
        regrid(field, COARSE)
    assert len(made) == 1
    regrid(REGIONAL, SCATTERED)
    regrid(REGIONAL[::-1], COARSE)
    assert len(made) == 3


def test_regrid_of_chunks_takes_one_block_at_a_time_and_only_when_used():
    seen = []

    def read(block):
        seen.append(block.shape)
        return block

    field = REGIONAL.expand_dims(time=np.arange(24)).chunk(time=6)
    field = field.copy(data=field.data.map_blocks(read, meta=field.data._meta))
    result = regrid(field, COARSE)
    assert result.chunks == ((6,) * 4, (18,), (33,))
    assert not seen
    result[7].compute()
    assert seen == [(6, *REGIONAL.shape)]


def test_regrid_keeps_leading_dimensions_coordinates_and_attributes():
    field = REGIONAL.expand_dims(source_id=["A", "B"], time=np.arange(3)).copy()
    field = field.transpose("lat", "source_id", "lon", "time")
    result = regrid(field, COARSE)
    assert result.dims == ("source_id", "time", "lat", "lon")
    assert result.name == "theta"
    assert result.attrs == REGIONAL.attrs
    assert list(result["source_id"]) == ["A", "B"]
    xr.testing.assert_equal(result["lat"], COARSE["lat"])
    xr.testing.assert_equal(result["lon"], COARSE["lon"])


def test_regrid_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="bilinear, conservative, nearest, got 'cubic'"):
        regrid(REGIONAL, COARSE, method="cubic")


def test_regrid_refuses_an_unknown_engine():
    with pytest.raises(ValueError, match="'smcore' or 'xesmf', got 'cdo'"):
        regrid(REGIONAL, COARSE, engine="cdo")


def test_regrid_refuses_grids_that_are_not_rectilinear_and_says_what_helps():
    for field in (unstructured(GLOBAL), curvilinear(GLOBAL)):
        with pytest.raises(ValueError, match="engine='xesmf'.*conda-forge"):
            regrid(field, COARSE)


def test_regrid_needs_coordinates_called_lat_and_lon():
    with pytest.raises(ValueError, match="coordinates lat and lon, got latitude, longitude"):
        regrid(REGIONAL.rename(lat="latitude", lon="longitude"), COARSE)
    with pytest.raises(ValueError, match="coordinates lat and lon"):
        regrid(REGIONAL.drop_vars("lat"), COARSE)


# --- filling -----------------------------------------------------------------------------


def test_fill_nearest_takes_the_nearest_cell_on_the_sphere():
    holes = MASKED[::6, ::9].copy()
    filled = fill_nearest(holes)
    points, valid = unit_vectors(holes["lat"], holes["lon"]), holes.notnull().values.ravel()
    assert 0 < valid.sum() < valid.size
    for cell, value in enumerate(filled.values.ravel()):
        distance = np.where(valid, np.linalg.norm(points - points[cell], axis=1), np.inf)
        near = np.isclose(distance, distance.min(), atol=1e-9)
        assert value in holes.values.ravel()[near]
    np.testing.assert_array_equal(filled.values.ravel()[valid], holes.values.ravel()[valid])
    assert filled.attrs == holes.attrs


def test_fill_nearest_crosses_the_date_line():
    field = xr.DataArray(
        [[np.nan, 1.0, 2.0, 3.0]], {"lat": [0.0], "lon": [-179.0, -90, 90, 178]}, ("lat", "lon")
    )
    np.testing.assert_array_equal(fill_nearest(field), [[3, 1, 2, 3]])


def test_fill_nearest_uses_the_same_cell_at_all_times():
    # the middle cell is missing once, so that it takes its neighbour's value at both times
    values = [[[1.0, np.nan, 5.0, 7.0]], [[2.0, 3.0, 6.0, 8.0]]]
    field = xr.DataArray(
        values, {"lat": [0.0], "lon": [0.0, 1.0, 3.0, 4.0]}, ("time", "lat", "lon")
    )
    expected = [[[1, 1, 5, 7]], [[2, 2, 6, 8]]]
    np.testing.assert_array_equal(fill_nearest(field), expected)
    swapped = fill_nearest(field.transpose("lon", "time", "lat"))
    np.testing.assert_array_equal(swapped.transpose("time", "lat", "lon"), expected)


def test_fill_nearest_needs_a_cell_to_fill_from():
    with pytest.raises(ValueError, match="no cell with a value at every time"):
        fill_nearest(MASKED * np.nan)


def test_fill_nearest_names_the_month_that_is_missing_everywhere():
    time = np.arange("2001-01", "2001-07", dtype="datetime64[M]").astype("datetime64[ns]")
    field = MASKED.expand_dims(time=time).copy()
    field[3] = np.nan
    with pytest.raises(ValueError, match="1 of 6 maps.*time 2001-04"):
        fill_nearest(field)
    field[3, 20] = field[2, 30] = 1.0  # two months that have no cell in common
    field[2, :30] = field[2, 31:] = np.nan
    with pytest.raises(ValueError, match="0 of 6 maps"):
        fill_nearest(field)
