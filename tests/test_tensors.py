import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from smcore.tensors import Statistics

TRAIN = ("2001", "2002")
SIZES = {"lat": 3, "lon": 4}
FINE = {"lat": 6, "lon": 8}


def make_axes(sizes):
    return {name: np.linspace(20.0, 50, size) for name, size in sizes.items()}


@pytest.fixture
def predictors():
    """Two sources of quite different level and spread, three years."""
    rng = np.random.default_rng(0)
    time = pd.date_range("2001-01-01", periods=36, freq="MS")
    values = rng.normal(size=(2, 36, 3, 4))
    values = np.array([0.2, 0.4])[:, None, None, None] + values * [[[[0.02]]], [[[0.08]]]]
    coords = {"source_id": ["Alder", "Birch"], "time": time, **make_axes(SIZES)}
    return xr.DataArray(values, coords, dims=("source_id", "time", "lat", "lon")).astype("float32")


@pytest.fixture
def reference():
    """Three years on the fine grid, with an ocean and single missing months."""
    rng = np.random.default_rng(1)
    time = pd.date_range("2001-01-01", periods=36, freq="MS")
    values = 0.3 + 0.05 * rng.normal(size=(36, 6, 8))
    values[:, 0, 0] = np.nan
    values[5, 2, 3] = np.nan
    return xr.DataArray(values, {"time": time, **make_axes(FINE)}, dims=("time", "lat", "lon"))


@pytest.fixture
def static():
    rng = np.random.default_rng(2)
    fields = {"elevation": 2000 * rng.random((6, 8)), "land_fraction": rng.random((6, 8))}
    return xr.Dataset({name: (("lat", "lon"), field) for name, field in fields.items()})


@pytest.fixture
def fit(predictors, reference, static):
    def fit(*, predictors=predictors, reference=reference, static=static, standardisation="source"):
        return Statistics.fit(
            predictors, reference, static, train_period=TRAIN, standardisation=standardisation
        )

    return fit


def test_statistics_see_the_training_period_only(fit, predictors, reference):
    spoilt = [field.where(field.time.dt.year <= 2002, 9.0) for field in (predictors, reference)]
    assert fit(predictors=spoilt[0], reference=spoilt[1]) == fit()


def test_statistics_change_with_the_last_month_of_the_training_period(fit, predictors):
    december = predictors.time == np.datetime64("2002-12-01")
    assert fit(predictors=predictors.where(~december, 9.0)) != fit()


def test_statistics_are_those_of_numpy(fit, predictors, reference):
    statistics = fit()
    train = predictors.values[:, :24].astype(float)
    np.testing.assert_allclose(statistics.predictor_mean, train.mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(statistics.predictor_std, train.std((1, 2, 3)), rtol=1e-5)
    assert statistics.reference_mean == pytest.approx(np.nanmean(reference.values[:24]))
    assert statistics.reference_std == pytest.approx(np.nanstd(reference.values[:24]))


def test_standardised_training_data_have_mean_0_and_standard_deviation_1(
    fit, predictors, reference, static
):
    statistics = fit()
    x = statistics.predictors(predictors.isel(time=slice(24)))
    np.testing.assert_allclose(x.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((0, 2, 3), correction=0), 1, atol=1e-5)
    y, valid = statistics.target(reference.isel(time=slice(24)))
    assert y[valid].mean().item() == pytest.approx(0, abs=1e-5)
    assert y[valid].std(correction=0).item() == pytest.approx(1, abs=1e-5)
    auxiliary = statistics.auxiliary(static)
    np.testing.assert_allclose(auxiliary.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(auxiliary.std((0, 2, 3), correction=0), 1, atol=1e-5)


def test_predictors_have_time_source_lat_lon_whatever_the_order(fit, predictors):
    x = fit().predictors(predictors.transpose("lon", "time", "source_id", "lat"))
    assert x.shape == (36, 2, 3, 4)
    assert x.dtype == torch.float32
    assert torch.equal(x, fit().predictors(predictors))
    # The second source, fifth month, by hand.
    month = predictors.values[1, 4].astype(float)
    train = predictors.values[1, :24].astype(float)
    np.testing.assert_allclose(x[4, 1], (month - train.mean()) / train.std(), atol=1e-5)


def test_auxiliary_has_one_channel_per_field(fit, static):
    auxiliary = fit().auxiliary(static.transpose("lon", "lat"))
    assert auxiliary.shape == (1, 2, 6, 8)
    assert auxiliary.dtype == torch.float32
    elevation = static["elevation"].values
    expected = (elevation - elevation.mean()) / elevation.std()
    np.testing.assert_allclose(auxiliary[0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1])
def test_auxiliary_is_zero_where_a_field_is_constant(fit, static, constant):
    # The mean of many 0.1 in float32 is not quite 0.1, nor is their standard deviation quite 0.
    flat = xr.full_like(static["land_fraction"].astype("float32"), constant)
    static = static.assign(land_fraction=flat)
    auxiliary = fit(static=static).auxiliary(static)
    np.testing.assert_allclose(auxiliary[0, 1], 0, atol=1e-5)
    assert torch.isfinite(auxiliary).all()


def test_predictors_are_zero_where_a_source_is_constant(fit, predictors):
    flat = predictors.where(predictors.source_id != "Birch", 0.1)
    x = fit(predictors=flat).predictors(flat)
    np.testing.assert_allclose(x[:, 1], 0, atol=1e-5)


def test_target_is_masked_where_the_reference_is_missing(fit, reference):
    y, valid = fit().target(reference.transpose("lon", "lat", "time"))
    assert y.shape == valid.shape == (36, 1, 6, 8)
    assert valid.dtype == torch.bool
    np.testing.assert_array_equal(valid[:, 0], np.isfinite(reference.values))
    assert (~valid).sum() == 36 + 1  # the ocean cell in every month, and one month of another
    assert (y[~valid] == 0).all()
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("standardisation", ["source", "none"])
def test_theta_is_the_inverse_of_target(fit, reference, standardisation):
    statistics = fit(standardisation=standardisation)
    y, valid = statistics.target(reference)
    theta = statistics.theta(y)
    np.testing.assert_allclose(theta[valid], reference.values[:, None][valid], atol=1e-6)


def test_no_standardisation_leaves_theta_as_it_is(fit, predictors, reference):
    statistics = fit(standardisation="none")
    x = statistics.predictors(predictors)
    np.testing.assert_array_equal(x, predictors.transpose("time", "source_id", "lat", "lon"))
    y, valid = statistics.target(reference)
    np.testing.assert_allclose(y[valid], reference.values[:, None][valid], atol=1e-7)


def test_theta_accepts_bfloat16(fit):
    statistics = fit()
    theta = statistics.theta(torch.zeros(2, 3, dtype=torch.bfloat16))
    np.testing.assert_allclose(theta, statistics.reference_mean, rtol=1e-6)
    assert theta.dtype == np.float32


def test_a_period_without_data_is_refused(fit, predictors):
    with pytest.raises(ValueError, match="train_period"):
        fit(predictors=predictors.isel(time=slice(24, None)))


def test_an_unknown_standardisation_is_refused(fit):
    with pytest.raises(ValueError, match="standardisation"):
        fit(standardisation="sources")
