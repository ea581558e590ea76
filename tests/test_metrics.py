import numpy as np
import pytest
import xarray as xr
import xskillscore as xs

from smcore.metrics import (
    area_share,
    bias,
    correlation,
    mae,
    rmsd,
    skill_score,
    taylor_statistics,
    together,
    ubrmsd,
)

METRICS = [bias, mae, rmsd, ubrmsd, correlation]
DIMS = ("time", "lat", "lon")


def make_field(seed, dtype=float):
    rng = np.random.default_rng(seed)
    return xr.DataArray(
        rng.uniform(0.1, 0.4, size=(6, 4, 5)).astype(dtype),
        dims=DIMS,
        coords={"time": range(6), "lat": [50.0, 40, 30, 20], "lon": [70.0, 80, 90, 100, 110]},
        attrs={"units": "m3 m-3"},
    )


@pytest.fixture
def reference():
    field = make_field(1)
    return field.where(field.lat + field.lon < 150)  # an ocean in one corner


@pytest.fixture
def estimate():
    field = make_field(2) + 0.1 * make_field(1)
    return field.where(field > 0.13).assign_attrs(units="m3 m-3")  # gaps of its own


@pytest.fixture
def weights(reference):
    return np.cos(np.deg2rad(reference.lat)) * xr.ones_like(reference.lon)


def test_bias_mae_rmsd_worked_by_hand():
    reference = xr.DataArray([1.0, 2, 3, np.nan], dims="time")
    estimate = xr.DataArray([2.0, 2, 1, 5], dims="time")
    # differences 1, 0, -2
    np.testing.assert_allclose(bias(estimate, reference), -1 / 3)
    np.testing.assert_allclose(mae(estimate, reference), 1)
    np.testing.assert_allclose(rmsd(estimate, reference), np.sqrt(5 / 3))
    assert mae(estimate, reference).pairs == 3


def test_weights_worked_by_hand():
    reference = xr.DataArray([0.0, 0, 0], dims="lat")
    estimate = xr.DataArray([1.0, 3, np.nan], dims="lat")
    weights = xr.DataArray([3.0, 1, 9], dims="lat")
    # mean (3 * 1 + 1 * 3) / 4 = 1.5; squares (3 * 1 + 1 * 9) / 4 = 3; 3 - 1.5**2 = 0.75
    np.testing.assert_allclose(bias(estimate, reference, weights=weights), 1.5)
    np.testing.assert_allclose(rmsd(estimate, reference, weights=weights) ** 2, 3)
    np.testing.assert_allclose(ubrmsd(estimate, reference, weights=weights) ** 2, 0.75)


@pytest.mark.parametrize("dim", [None, "time", ("lat", "lon")])
def test_rmsd_consists_of_bias_and_ubrmsd(estimate, reference, weights, dim):
    arguments = {"dim": dim, "weights": None if dim == "time" else weights}
    parts = (
        bias(estimate, reference, **arguments) ** 2 + ubrmsd(estimate, reference, **arguments) ** 2
    )
    np.testing.assert_allclose(rmsd(estimate, reference, **arguments) ** 2, parts)


@pytest.mark.parametrize("dim", [None, "time", ["lat", "lon"]])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(bias, xs.me), (mae, xs.mae), (rmsd, xs.rmse), (correlation, xs.pearson_r)]
)
def test_metrics_agree_with_xskillscore(estimate, reference, dim, ours, theirs):
    expected = theirs(estimate, reference, dim=dim, skipna=True)
    np.testing.assert_allclose(ours(estimate, reference, dim=dim), expected, rtol=1e-10)


@pytest.mark.parametrize(("ours", "theirs"), [(mae, xs.mae), (correlation, xs.pearson_r)])
def test_weighted_metrics_agree_with_xskillscore(estimate, reference, weights, ours, theirs):
    dim = ["lat", "lon"]
    expected = theirs(estimate, reference, dim=dim, weights=weights, skipna=True)
    result = ours(estimate, reference, dim=dim, weights=weights)
    np.testing.assert_allclose(result, expected, rtol=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_count_the_pairs_that_both_sides_have(metric, estimate, reference):
    both = np.isfinite(estimate.values) & np.isfinite(reference.values)
    assert metric(estimate, reference).pairs == both.sum()
    np.testing.assert_array_equal(metric(estimate, reference, dim="time").pairs, both.sum(axis=0))


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_need_identical_coordinates(metric, estimate, reference):
    shifted = estimate.assign_coords(lat=estimate.lat + 1e-3)
    with pytest.raises(ValueError, match="lat"):
        metric(shifted, reference)


def test_metrics_need_the_same_units(estimate, reference):
    with pytest.raises(ValueError, match="`estimate` must have the units.*kg m-2"):
        bias(estimate.assign_attrs(units="kg m-2"), reference)


def test_metrics_keep_units_and_labels(estimate, reference):
    result = rmsd(estimate, reference, dim="time")
    assert result.attrs["units"] == "m3 m-3"
    assert result.dims == ("lat", "lon")
    xr.testing.assert_equal(result.lat, reference.lat)
    assert correlation(estimate, reference).attrs["units"] == "1"


def test_metrics_are_nan_without_a_pair(reference):
    missing = reference * np.nan
    for metric in METRICS:
        assert np.isnan(metric(missing, reference))
        assert metric(missing, reference).pairs == 0


def test_metrics_keep_the_precision_of_long_float32_series():
    # 1e6 differences of 0.1: a running sum in single precision is off in the third digit
    reference = xr.DataArray(np.zeros(1_000_000, "float32"), dims="time")
    np.testing.assert_allclose(mae(reference + np.float32(0.1), reference), 0.1, rtol=1e-7)


def test_ubrmsd_ignores_a_constant_offset(reference):
    np.testing.assert_allclose(ubrmsd(reference + 0.05, reference), 0, atol=1e-12)


def test_correlation_is_one_for_a_linear_function(reference):
    np.testing.assert_allclose(correlation(2 * reference + 1, reference, dim="time").max(), 1)
    np.testing.assert_allclose(correlation(1 - reference, reference), -1)


def test_correlation_of_a_constant_field_or_a_single_cell_is_nan(reference):
    constant = xr.full_like(reference, 0.3)
    assert np.isnan(correlation(constant, reference))
    assert np.isnan(correlation(reference, constant))
    single = reference.where((reference.time == 2) & (reference.lat == 20) & (reference.lon == 80))
    assert np.isnan(correlation(single, reference))
    assert correlation(single, reference).pairs == 1
    assert ubrmsd(single + 0.1, reference) == 0


def test_skill_score_is_one_for_perfect_and_zero_for_the_baseline(reference):
    baseline = reference.mean("time") * xr.ones_like(reference)
    np.testing.assert_allclose(skill_score(reference, reference, baseline), 1)
    np.testing.assert_allclose(skill_score(baseline, reference, baseline), 0)


def test_skill_score_compares_on_common_cells():
    reference = xr.DataArray([0.0, 0, 0], dims="time")
    estimate = xr.DataArray([1.0, 1, np.nan], dims="time")
    baseline = xr.DataArray([2.0, np.nan, 9], dims="time")
    # only the first month is common: 1 - 1 / 4
    score = skill_score(estimate, reference, baseline)
    np.testing.assert_allclose(score, 0.75)
    assert score.pairs == 1


def test_skill_score_is_nan_where_the_baseline_has_no_error(reference):
    assert np.isnan(skill_score(reference + 1, reference, reference))


def ensemble_of(*fields):
    return xr.concat(fields, xr.DataArray(["a", "b", "c"][: len(fields)], dims="source_id"))


def test_taylor_statistics_agree_with_numpy(estimate, reference):
    both = np.isfinite(estimate.values) & np.isfinite(reference.values)
    x, y = estimate.values[both], reference.values[both]
    result = taylor_statistics(estimate, reference)
    np.testing.assert_allclose(result.std_ratio, x.std() / y.std())
    np.testing.assert_allclose(result.correlation, np.corrcoef(x, y)[0, 1])
    np.testing.assert_allclose(result.ubrmsd_ratio, (x - y).std() / y.std())
    assert result.pairs == both.sum()


def test_taylor_statistics_obey_the_law_of_cosines(estimate, reference):
    result = taylor_statistics(ensemble_of(estimate, make_field(3), make_field(4)), reference)
    expected = 1 + result.std_ratio**2 - 2 * result.std_ratio * result.correlation
    np.testing.assert_allclose(result.ubrmsd_ratio**2, expected)


def test_taylor_statistics_of_the_reference_are_one_one_zero(reference):
    result = taylor_statistics(reference, reference)
    np.testing.assert_allclose([result.std_ratio, result.correlation], 1)
    np.testing.assert_allclose(result.ubrmsd_ratio, 0, atol=1e-12)


def test_taylor_statistics_compare_all_datasets_on_the_same_cells(estimate, reference):
    # with dimensions in another order, and one source that has gaps
    ensemble = ensemble_of(estimate, make_field(3)).transpose("lat", "source_id", "time", "lon")
    result = taylor_statistics(ensemble, reference)
    alone = taylor_statistics(make_field(3).where(estimate.notnull()), reference)
    xr.testing.assert_allclose(result.sel(source_id="b", drop=True), alone)


def test_the_mean_of_an_ensemble_varies_at_most_as_much_as_its_members(estimate, reference):
    sources = ensemble_of(estimate, make_field(3), make_field(4))
    mean = sources.mean("source_id", skipna=False).expand_dims(source_id=["mean"])
    result = taylor_statistics(xr.concat([sources, mean], "source_id"), reference).std_ratio
    assert result.sel(source_id="mean") <= result.sel(source_id=["a", "b", "c"]).mean()


def test_taylor_statistics_of_constant_or_missing_fields(reference):
    constant = taylor_statistics(xr.full_like(reference, 0.3), reference)
    assert constant.std_ratio == 0
    assert np.isnan(constant.correlation)
    np.testing.assert_allclose(constant.ubrmsd_ratio, 1)
    assert np.isnan(taylor_statistics(reference * np.nan, reference).std_ratio)
    assert np.isnan(taylor_statistics(reference, xr.full_like(reference, 0.3)).std_ratio)


def test_taylor_statistics_need_the_dimensions_and_coordinates_of_the_reference(reference):
    with pytest.raises(ValueError, match="`estimate`.*time"):
        taylor_statistics(reference.isel(time=0), reference)
    with pytest.raises(ValueError, match="lon"):
        taylor_statistics(reference.assign_coords(lon=reference.lon + 1), reference)


def test_metrics_work_on_dask_arrays(estimate, reference):
    lazy, expected = estimate.chunk(time=2), taylor_statistics(estimate, reference)
    xr.testing.assert_allclose(taylor_statistics(lazy, reference.chunk(time=2)), expected)
    xr.testing.assert_allclose(rmsd(lazy, reference), rmsd(estimate, reference))


def test_area_share_worked_by_hand():
    field = xr.DataArray([[0.02, 0.08], [np.nan, 0.03]], dims=("lat", "lon"))
    weights = xr.DataArray([1.0, 3.0], dims="lat")
    # of the cells with a value, 1 + 3 out of 1 + 1 + 3; of all cells, 4 out of 8
    assert area_share(field < 0.04, weights, mask=field.notnull()) == 80
    assert area_share(field < 0.04, weights) == 50


def test_area_share_keeps_further_dimensions(reference, weights):
    share = area_share(reference > 0.2, weights, mask=reference.notnull().any("time"))
    assert share.dims == ("time",)
    assert share.attrs["units"] == "%"
    land = reference.notnull().any("time").values
    expected = weights.values[(reference.values[2] > 0.2) & land].sum() / weights.values[land].sum()
    np.testing.assert_allclose(share[2], 100 * expected)


def test_area_share_needs_booleans_and_cells(reference, weights):
    with pytest.raises(ValueError, match="`condition` must be boolean, got float64"):
        area_share(reference, weights)
    with pytest.raises(ValueError, match="`mask` must be boolean"):
        area_share(reference > 0, weights, mask=reference)
    with pytest.raises(ValueError, match="`mask` must hold at least one cell"):
        area_share(reference > 0, weights, mask=reference > 9)


def test_together_labels_fields_and_drops_what_is_not_a_dimension(reference):
    stacked = together({"a": reference.assign_coords(pairs=3), "b": reference + 1})
    assert stacked.dims[0] == "dataset"
    assert list(stacked["dataset"].values) == ["a", "b"]
    assert "pairs" not in stacked.coords
    np.testing.assert_array_equal(stacked.sel(dataset="b"), reference + 1)


def test_together_needs_identical_coordinates_unless_told_otherwise(reference):
    dim = reference.dims[0]
    fields = {"a": reference, "b": reference.isel({dim: slice(1, None)})}
    with pytest.raises(ValueError, match=dim):
        together(fields)
    outer = together(fields, join="outer").sortby(dim)
    assert outer.sel(dataset="b", **{dim: reference[dim][0]}).isnull().all()
