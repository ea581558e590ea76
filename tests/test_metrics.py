from itertools import combinations_with_replacement, permutations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import xskillscore as xs
from scipy import stats

from smcore.metrics import (
    area_share,
    bias,
    bootstrap_scores,
    bootstrap_years,
    confidence_interval,
    correlation,
    deseasonalised,
    each,
    mae,
    monthly_mse,
    mse_decomposition,
    paired_test,
    pooled_scores,
    rmsd,
    skill_score,
    spatial_correlation,
    taylor_statistics,
    together,
    ubrmsd,
    variance_ratio,
    year_permutation_test,
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


def test_weights_may_carry_the_time_of_a_map(estimate, reference, weights):
    of_a_month = weights.assign_coords(time=3)
    expected = rmsd(estimate, reference, dim=["lat", "lon"], weights=weights)
    found = rmsd(estimate, reference, dim=["lat", "lon"], weights=of_a_month)
    xr.testing.assert_identical(found, expected)


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


def test_pooled_metrics_count_the_cells_and_months_that_have_a_pair(estimate, reference):
    gappy = estimate.where((estimate.time != 2) & (estimate.lon != 100))
    both = np.isfinite(gappy.values) & np.isfinite(reference.values)
    result = rmsd(gappy, reference)
    assert result.cells == both.any(axis=0).sum()
    assert result.months == both.any(axis=(1, 2)).sum() == 5
    assert rmsd(gappy, reference, dim="time").coords.keys() == {"pairs", "lat", "lon"}
    taylor = taylor_statistics(ensemble_of(gappy, reference), reference)
    assert (taylor.cells, taylor.months) == (result.cells, 5)


@pytest.mark.parametrize("dim", [None, "time", ["lat", "lon"]])
def test_mse_decomposition_adds_up(estimate, reference, weights, dim):
    arguments = {"dim": dim, "weights": None if dim == "time" else weights}
    parts = mse_decomposition(estimate, reference, **arguments)
    np.testing.assert_allclose(parts.mse, parts.bias + parts.variance + parts.phase)
    np.testing.assert_allclose(parts.mse, rmsd(estimate, reference, **arguments) ** 2)
    assert parts.phase.attrs["units"] == "(m3 m-3)2"


def test_mse_decomposition_agrees_with_numpy(estimate, reference, weights):
    both = np.isfinite(estimate.values) & np.isfinite(reference.values)
    x, y = estimate.values[both], reference.values[both]
    w = np.broadcast_to(weights.values, both.shape)[both]
    (xx, xy), (_, yy) = np.cov(x, y, ddof=0, aweights=w)
    parts = mse_decomposition(estimate, reference, weights=weights)
    np.testing.assert_allclose(
        parts.bias, (np.average(x, weights=w) - np.average(y, weights=w)) ** 2
    )
    np.testing.assert_allclose(parts.variance, (np.sqrt(xx) - np.sqrt(yy)) ** 2)
    r = xy / np.sqrt(xx * yy)
    np.testing.assert_allclose(parts.phase, 2 * np.sqrt(xx * yy) * (1 - r))
    assert parts.pairs == both.sum()


def test_mse_decomposition_of_constant_missing_and_single_values(reference):
    shifted = mse_decomposition(reference + 0.1, reference)
    np.testing.assert_allclose([shifted.mse, shifted.bias], 0.01)
    np.testing.assert_allclose([shifted.variance, shifted.phase], 0, atol=1e-12)
    constant = mse_decomposition(xr.full_like(reference, 0.3), reference)
    np.testing.assert_allclose(constant.variance, reference.var())
    np.testing.assert_allclose(constant.phase, 0, atol=1e-12)
    single = mse_decomposition((reference + 0.1).where(reference == reference.max()), reference)
    np.testing.assert_allclose(single.to_array(), [0.01, 0.01, 0, 0], atol=1e-15)
    assert np.isnan(mse_decomposition(reference * np.nan, reference).to_array()).all()


def test_variance_ratio_agrees_with_numpy_cell_by_cell(estimate, reference):
    result = variance_ratio(estimate, reference, dim="time")
    for lat, lon in np.ndindex(4, 5):
        x, y = estimate.values[:, lat, lon], reference.values[:, lat, lon]
        both = np.isfinite(x) & np.isfinite(y)
        expected = np.var(x[both]) / np.var(y[both]) if both.sum() > 1 else np.nan
        np.testing.assert_allclose(result[lat, lon], expected)
        assert result.pairs[lat, lon] == both.sum()


def test_variance_ratio_of_constant_fields(reference):
    constant = xr.full_like(reference, 0.3)
    np.testing.assert_allclose(variance_ratio(constant, reference), 0, atol=1e-12)
    assert np.isnan(variance_ratio(reference, constant))
    np.testing.assert_allclose(variance_ratio(3 * reference + 1, reference), 9)


def monthly(seed, years=3, shape=(3, 4)):
    """Weather on a mean pattern and a season, whole years."""
    random = np.random.default_rng(seed)
    time = pd.date_range("2008-01", periods=12 * years, freq="MS")
    season = 0.05 * np.sin(2 * np.pi * np.arange(time.size) / 12)
    pattern = random.uniform(0.1, 0.4, shape)
    weather = 0.03 * random.standard_normal((time.size, *shape))
    return xr.DataArray(
        pattern + season[:, None, None] + weather,
        dims=DIMS,
        coords={
            "time": time,
            "lat": 20.0 + 10 * np.arange(shape[0]),
            "lon": 70.0 + 10 * np.arange(shape[1]),
        },
        attrs={"units": "m3 m-3"},
    )


@pytest.fixture
def truth():
    field = monthly(5)
    return field.where((field.lat > 20) | (field.lon > 70))  # an ocean in one corner


@pytest.fixture
def guess(truth):
    field = 0.5 * monthly(6) + 0.5 * monthly(5)
    gaps = (field.time.dt.month == 5) & (field.time.dt.year == 2009) & (field.lat == 30)
    return field.where(~gaps).assign_attrs(units="m3 m-3")


def slow_anomalies(estimate, reference):
    x, y = estimate.values.copy(), reference.values.copy()
    x[np.isnan(y)], y[np.isnan(x)] = np.nan, np.nan
    for month in range(12):
        for lat, lon in np.ndindex(x.shape[1:]):
            for values in (x, y):
                series = values[month::12, lat, lon]
                values[month::12, lat, lon] = series - series[np.isfinite(series)].sum() / max(
                    np.isfinite(series).sum(), 1
                )
    return x, y


def test_deseasonalised_is_the_deviation_from_the_common_months(guess, truth):
    for found, expected in zip(deseasonalised(guess, truth), slow_anomalies(guess, truth)):
        np.testing.assert_allclose(found, expected, atol=1e-15)
        assert found.attrs["units"] == "m3 m-3"


def test_correlation_of_deseasonalised_cells_agrees_with_scipy(guess, truth):
    result = correlation(*deseasonalised(guess, truth), dim="time")
    x, y = slow_anomalies(guess, truth)
    for lat, lon in np.ndindex(3, 4):
        both = np.isfinite(x[:, lat, lon])
        if both.any():
            expected = stats.pearsonr(x[both, lat, lon], y[both, lat, lon]).statistic
            np.testing.assert_allclose(result[lat, lon], expected)
        else:
            assert np.isnan(result[lat, lon])
        assert result.pairs[lat, lon] == both.sum()


def climatology_of(field):
    return field.groupby("time.month").mean().sel(month=field.time.dt.month).drop_vars("month")


def test_an_estimate_that_repeats_its_climatology_has_no_anomalies(truth):
    repeated = climatology_of(monthly(6))
    anomaly, _ = deseasonalised(repeated, truth)
    assert set(np.unique(anomaly.values[np.isfinite(truth.values)])) == {0}
    assert correlation(*deseasonalised(repeated, truth), dim="time").isnull().all()
    result = spatial_correlation(repeated, truth)
    assert np.isnan(result.anomaly_pattern)
    assert result.mean_of_months.notnull()


def weighted_r(x, y, w):
    both = np.isfinite(x) & np.isfinite(y)
    (xx, xy), (_, yy) = np.cov(x[both], y[both], aweights=np.broadcast_to(w, x.shape)[both])
    return xy / np.sqrt(xx * yy)


@pytest.mark.parametrize("weighted", [False, True])
def test_spatial_correlations_agree_with_slow_loops(guess, truth, weighted):
    weights = np.cos(np.deg2rad(truth.lat)) * xr.ones_like(truth.lon)
    w = weights.values if weighted else np.ones((3, 4))
    found = spatial_correlation(guess, truth, weights=weights if weighted else None)
    x, y = guess.where(truth.notnull()).values, truth.where(guess.notnull()).values
    by_month = [weighted_r(x[t], y[t], w) for t in range(36)]
    anomalies = [weighted_r(*pair, w) for pair in zip(*slow_anomalies(guess, truth))]
    here = np.isfinite(y).any(axis=0)
    maps = [np.full((3, 4), np.nan), np.full((3, 4), np.nan)]
    for field, values in zip(maps, (x, y)):
        field[here] = np.nanmean(values[:, here], axis=0)
    np.testing.assert_allclose(found.pooled, weighted_r(x, y, w))
    np.testing.assert_allclose(found.mean_of_months, np.mean(by_month))
    np.testing.assert_allclose(found.mean_map, weighted_r(*maps, w))
    np.testing.assert_allclose(found.anomaly_pattern, np.mean(anomalies))
    assert (found.pairs, found.cells, found.months) == (np.isfinite(y).sum(), 11, 36)


def test_the_anomaly_pattern_is_blind_to_mean_pattern_and_season(truth):
    estimate = monthly(6)
    other = estimate + climatology_of(monthly(7, shape=(3, 4)) ** 2)
    before, after = (spatial_correlation(field, truth) for field in (estimate, other))
    np.testing.assert_allclose(after.anomaly_pattern, before.anomaly_pattern)
    assert abs(after.mean_map - before.mean_map) > 0.01


def test_spatial_correlations_keep_datasets(guess, truth):
    both = together({"a": guess, "b": monthly(8)})
    found = spatial_correlation(both, truth).sel(dataset="b")
    alone = spatial_correlation(monthly(8), truth)
    for name in found:
        np.testing.assert_allclose(found[name], alone[name])


def test_spatial_correlations_of_a_constant_field_or_a_single_cell_are_nan(truth):
    single = monthly(6).where((truth.lat == 30) & (truth.lon == 80))
    for estimate in (xr.full_like(truth, 0.3), single, truth * np.nan):
        result = spatial_correlation(estimate, truth)
        assert np.isnan([result.mean_of_months, result.mean_map, result.anomaly_pattern]).all()
    counts = spatial_correlation(single, truth)
    assert (counts.cells, counts.months) == (1, 36)


def test_pooled_scores_are_of_the_cells_where_every_dataset_has_a_value(guess, truth):
    both = together({"a": guess, "b": monthly(8)})
    found = pooled_scores(both, truth)
    mask = np.isfinite(guess.values) & np.isfinite(truth.values)
    assert (found.pairs, found.cells, found.months) == (mask.sum(), 11, 36)
    np.testing.assert_allclose(found.mae, mae(both.where(mask), truth, dim=DIMS))
    assert mae(both.where(mask), truth, dim=DIMS).pairs.values.tolist() == [int(mask.sum())] * 2
    with pytest.raises(ValueError, match="`estimate`.*time"):
        pooled_scores(truth.isel(time=0), truth)


SCORES = {"bias": bias, "mae": mae, "rmsd": rmsd, "ubrmsd": ubrmsd, "correlation": correlation}


def years_of(field, years):
    parts = [field.sel(time=str(year)) for year in years]
    return xr.concat(parts, "time").assign_coords(time=range(12 * len(years)))


@pytest.mark.parametrize("name", SCORES)
def test_bootstrap_scores_are_those_of_all_draws_of_years(guess, truth, name):
    """Of three years there are ten draws in 27 orders; each is scored the slow way."""
    weights = np.cos(np.deg2rad(truth.lat))
    found = bootstrap_scores(guess, truth, weights=weights, resamples=2000, seed=3)[name]
    left = 2000
    for draw in combinations_with_replacement((2008, 2009, 2010), 3):
        expected = SCORES[name](years_of(guess, draw), years_of(truth, draw), weights=weights)
        times = int(np.isclose(found, float(expected), rtol=1e-9).sum())
        rate = len(set(permutations(draw))) / 27
        assert abs(times - 2000 * rate) < 4 * np.sqrt(2000 * rate * (1 - rate))
        left -= times
    assert left == 0


def test_bootstrap_scores_are_paired_between_estimates(guess, truth):
    both = together({"a": guess, "b": guess + 0.05}).assign_attrs(units="m3 m-3")
    scores = bootstrap_scores(both, truth, resamples=200, seed=0)
    assert dict(scores.sizes) == {"dataset": 2, "resample": 200}
    assert scores.bias.sel(dataset="a").std() > 1e-4
    difference = confidence_interval(scores.sel(dataset="b") - scores.sel(dataset="a"))
    np.testing.assert_allclose(difference.bias, 0.05)
    np.testing.assert_allclose(difference.ubrmsd, 0, atol=1e-12)


def test_bootstrap_scores_depend_on_the_seed_only(guess, truth):
    arguments = {"resamples": 50}
    first, again, other = (
        bootstrap_scores(guess, truth, seed=seed, **arguments) for seed in (0, 0, 1)
    )
    xr.testing.assert_identical(first, again)
    assert (first.mae != other.mae).any()


def test_bootstrap_scores_carry_units_and_counts_of_the_common_cells(guess, truth):
    both = together({"a": guess, "b": monthly(8)})
    scores = bootstrap_scores(both, truth, resamples=20, seed=0)
    mask = np.isfinite(guess.values) & np.isfinite(truth.values)
    assert (scores.pairs, scores.cells, scores.months) == (mask.sum(), 11, 36)
    assert (scores.rmsd.attrs["units"], scores.correlation.attrs["units"]) == ("m3 m-3", "1")
    alone = bootstrap_scores(monthly(8).where(mask), truth, resamples=20, seed=0)
    xr.testing.assert_allclose(scores.sel(dataset="b", drop=True), alone)


def test_bootstrap_scores_of_constant_missing_and_single_values(truth):
    constant = bootstrap_scores(xr.full_like(truth, 0.3), truth, resamples=20, seed=0)
    assert np.isnan(constant.correlation).all()
    assert (constant.ubrmsd > 0).all()
    shifted = bootstrap_scores(truth + 0.1, truth, resamples=20, seed=0)
    np.testing.assert_allclose(shifted.ubrmsd, 0, atol=1e-12)
    np.testing.assert_allclose([shifted.bias, shifted.mae, shifted.rmsd], 0.1)
    missing = bootstrap_scores(truth * np.nan, truth, resamples=20, seed=0)
    assert np.isnan(missing.to_array()).all()
    one = (truth + 0.1).where(truth == truth.max())
    single = bootstrap_scores(one, truth, resamples=200, seed=0)
    assert single.pairs == 1
    # the year of the one pair is in 19 of 27 draws
    np.testing.assert_allclose(single.mae.dropna("resample"), 0.1)
    assert 0.6 < single.mae.notnull().mean() < 0.8
    assert np.isnan(single.correlation).all()


def test_resampling_works_on_dask_arrays(guess, truth):
    lazy, arguments = (guess.chunk(time=10), truth.chunk(time=7)), {"seed": 0}
    expected = bootstrap_scores(guess, truth, **arguments)
    xr.testing.assert_allclose(bootstrap_scores(*lazy, **arguments), expected)
    arguments["score"] = "rmsd"
    expected = year_permutation_test(guess, truth, **arguments)
    xr.testing.assert_allclose(year_permutation_test(*lazy, **arguments), expected)


def test_confidence_interval_holds_95_percent():
    scores = xr.DataArray(np.arange(1001.0), dims="resample", attrs={"units": "m3 m-3"})
    interval = confidence_interval(scores)
    assert interval.sel(bound="low") == 25
    assert interval.sel(bound="high") == 975
    assert interval.attrs["units"] == "m3 m-3"


def test_confidence_interval_covers_the_truth_when_the_months_of_a_year_are_alike():
    """Over 200 samples of 30 years whose error is that of their year: months give no more."""
    random, covered = np.random.default_rng(0), 0
    reference = monthly(1, years=30, shape=(1, 2))
    for seed in range(200):
        error = np.repeat(random.standard_normal(30), 12)
        estimate = reference + xr.DataArray(error, dims="time", coords={"time": reference.time})
        interval = confidence_interval(bootstrap_scores(estimate, reference, seed=seed).bias)
        covered += int(interval[0] < 0 < interval[1])
    # percentile intervals of 30 values hold about 93 %; 4 standard errors of that are 7 %
    assert 0.86 < covered / 200 < 1


@pytest.mark.parametrize("function", [bootstrap_scores, year_permutation_test])
def test_resampling_needs_whole_calendar_years(function, truth):
    arguments = {"seed": 0} | ({"score": "mae"} if function is year_permutation_test else {})
    for part in (slice("2008-01", "2010-11"), slice("2008-02", "2010-01"), slice("2008", "2008")):
        piece = truth.sel(time=part)
        with pytest.raises(ValueError, match="`reference` must hold two or more whole"):
            function(piece, piece, **arguments)


@pytest.mark.parametrize("name", ["mae", "rmsd", "ubrmsd", "correlation"])
def test_year_permutations_agree_with_slow_shuffling(guess, truth, name):
    """Of three years there are six orders; each is scored the slow way."""
    weights = np.cos(np.deg2rad(truth.lat))
    result = year_permutation_test(
        guess, truth, score=name, weights=weights, permutations=600, seed=1
    )
    scores = []
    for order in permutations((2008, 2009, 2010)):
        shuffled = years_of(guess, order).assign_coords(time=truth.time)
        scores.append(float(SCORES[name](shuffled, truth, weights=weights)))
    np.testing.assert_allclose(result.observed, scores[0])
    counts = [int(np.isclose(result.permuted, score, rtol=1e-9).sum()) for score in scores]
    assert sum(counts) == 600
    assert min(counts) > 60
    as_good = [s >= scores[0] if name == "correlation" else s <= scores[0] for s in scores]
    np.testing.assert_allclose(result.p_value, (1 + np.dot(counts, as_good)) / 601)
    assert result.cells == 11


def test_year_permutations_are_all_as_good_for_a_climatology(truth):
    repeated = climatology_of(monthly(6))
    for score in ("mae", "rmsd", "ubrmsd", "correlation"):
        result = year_permutation_test(repeated, truth, score=score, permutations=200, seed=0)
        assert result.p_value == 1


def test_year_permutations_find_an_estimate_that_knows_the_years():
    reference = monthly(1, years=8)
    estimate = reference + 0.5 * (monthly(2, years=8) - climatology_of(monthly(2, years=8)))
    for score in ("mae", "correlation"):
        result = year_permutation_test(estimate, reference, score=score, permutations=400, seed=0)
        assert result.p_value == 1 / 401


def test_year_permutations_reject_five_percent_of_estimates_that_know_nothing():
    reference = monthly(0, years=7, shape=(2, 2))
    p_values = [
        float(
            year_permutation_test(
                monthly(seed, years=7, shape=(2, 2)),
                reference,
                score="rmsd",
                permutations=200,
                seed=seed,
            ).p_value
        )
        for seed in range(1, 201)
    ]
    # 10 of 200 expected, with a standard deviation of 3.1
    assert 1 <= np.sum(np.array(p_values) <= 0.05) <= 19
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_year_permutation_test_is_nan_where_the_score_is(truth):
    constant = xr.full_like(truth, 0.3)
    result = year_permutation_test(constant, truth, score="correlation", permutations=200, seed=0)
    assert np.isnan(result.to_array("part").isel(permutation=0)).all()
    missing = year_permutation_test(truth * np.nan, truth, score="mae", permutations=200, seed=0)
    assert np.isnan(missing.p_value)


def test_year_permutation_test_needs_a_known_score_and_200_permutations(guess, truth):
    with pytest.raises(ValueError, match="`score` must be one of.*got 'bias'"):
        year_permutation_test(guess, truth, score="bias", seed=0)
    with pytest.raises(ValueError, match="`permutations` must be at least 200, got 100"):
        year_permutation_test(guess, truth, score="mae", permutations=100, seed=0)


def test_bootstrap_years_are_the_means_of_all_draws():
    annual = xr.DataArray([[1.0, 10], [2, 20], [4, 40]], dims=("year", "lat"))
    drawn = bootstrap_years(annual, resamples=4000, seed=3)
    np.testing.assert_allclose(drawn.isel(lat=1), 10 * drawn.isel(lat=0), rtol=1e-6)
    # the 27 ordered draws of three years
    values = np.array([annual.values[list(d), 0].mean() for d in np.ndindex(3, 3, 3)])
    found = np.unique(drawn.isel(lat=0).values.astype(float).round(4))
    np.testing.assert_array_equal(found, np.unique(values.round(4)))
    np.testing.assert_allclose(drawn.isel(lat=0).mean(), values.mean(), atol=0.02)


def test_bootstrap_years_draw_the_years_of_bootstrap_scores():
    guess = monthly(8)
    squares = ((guess - monthly(5)) ** 2).groupby("time.year").mean().isel(lat=1, lon=1)
    one = {"lat": [1], "lon": [1]}
    scores = bootstrap_scores(guess.isel(one), monthly(5).isel(one), resamples=50, seed=7)
    drawn = bootstrap_years(squares, resamples=50, seed=7)
    np.testing.assert_allclose(drawn, scores["rmsd"] ** 2, rtol=1e-5)


def test_paired_test_agrees_with_scipy():
    random = np.random.default_rng(0)
    one, other = (
        xr.DataArray(random.normal(mean, 1, (7, 3, 4)), dims=("year", "lat", "lon"))
        for mean in (0, 0.5)
    )
    one[2, 0, 0] = np.nan
    found = paired_test(one, other)
    expected = stats.ttest_rel(one.values, other.values, axis=0, nan_policy="omit")
    np.testing.assert_allclose(found["p_value"], expected.pvalue, rtol=1e-10)
    np.testing.assert_allclose(found["difference"], np.nanmean(one.values - other.values, axis=0))


def test_paired_test_of_equal_differences_or_one_year_is_nan():
    zero = xr.DataArray([[0.1, 0.2, 0.3], [0.1, 0.1, 0.1]], dims=("lat", "year"))
    assert np.isnan(paired_test(zero, zero)["p_value"]).all()
    assert np.isnan(paired_test(zero.isel(year=[0]), 2 * zero.isel(year=[0]))["p_value"]).all()


def test_monthly_mse_agrees_with_a_slow_loop(guess, truth):
    weights = np.cos(np.deg2rad(truth.lat)) * xr.ones_like(truth.lon)
    north = truth.lat + 0 * truth.lon > 25
    nowhere = north & False
    regions = together({"north": north, "all": ~nowhere, "nowhere": nowhere}, dim="region")
    found = monthly_mse(guess, truth, regions=regions, weights=weights)
    assert found.dims == ("region", "month") and found.shape == (3, 12)
    difference, areas = (guess - truth).values, weights.values
    for region, mask in (("north", north.values), ("all", np.ones((3, 4), bool))):
        for month in (1, 5):
            total = weight = 0
            for lat, lon in zip(*np.nonzero(mask)):
                series = difference[month - 1 :: 12, lat, lon]
                series = series[np.isfinite(series)]
                if series.size:
                    total += areas[lat, lon] * (series**2).mean()
                    weight += areas[lat, lon]
            np.testing.assert_allclose(found.sel(region=region, month=month), total / weight)
    assert found.sel(region="nowhere").isnull().all()


def test_each_keeps_the_order_and_hands_on_every_argument():
    coords = {"dataset": ["b", "a"], "kind": ("dataset", ["product", "source"]), "lat": [1.0, 2, 3]}
    estimates = xr.DataArray([[1.0, 2, 3], [4, 4, 4]], coords, ("dataset", "lat"))
    truth = xr.DataArray([1.0, 1, 1], {"lat": [1.0, 2, 3]}, "lat")
    weights = xr.DataArray([2.0, 1, 1], {"lat": [1.0, 2, 3]}, "lat")
    found = each(bias, estimates, truth, weights=weights)
    assert found["dataset"].values.tolist() == ["b", "a"]
    np.testing.assert_allclose(found, [0.75, 3])  # (2 * 0 + 1 + 2) / 4, and 3 everywhere
