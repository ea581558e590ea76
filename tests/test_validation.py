"""What chapter 4 scores: the estimates on common cells, their scores, and the stored baselines."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smcore import product, validation
from smcore.baselines import climatology, ridge
from smcore.prepared import open_predictors, open_reference
from smcore.store import recorded, write_dataset
from smcore.validation import (
    BASELINES,
    moisture_regimes,
    open_baselines,
    open_estimates,
    outside_by_period,
    outside_training,
    regimes_of,
    score_table,
)


@pytest.fixture
def study(prepared_study, tmp_path):
    """The prepared study with a store of its own and a product that has a hole."""
    folder = tmp_path / "prepared" / prepared_study.prepared.name
    folder.mkdir(parents=True)
    for path in prepared_study.prepared.iterdir():
        if path.is_file():
            (folder / path.name).symlink_to(path)
    networks = {
        name: network for name, network in prepared_study.compared.items() if name == "paper"
    }
    study = prepared_study.model_copy(update={"directory": tmp_path, "compared": networks})
    reference = open_reference(study).load()
    for number, one in enumerate(study.presets.values()):
        theta = (reference + 0.01 * (number + 1)).assign_attrs(units="m3 m-3")
        if number:
            theta[{"lat": 12, "lon": slice(20, 30)}] = np.nan
        product.write(theta, one.product("historical"), study=one)
    return study


def test_open_estimates_have_products_baselines_and_sources_on_common_cells(study):
    estimates, reference = open_estimates(study)
    names = estimates["dataset"].values.tolist()
    assert names == ["ynet_sound", "ynet_paper", *BASELINES, *study.sources]
    assert estimates["kind"].values.tolist() == ["product"] * 2 + ["baseline"] * 8 + ["source"] * 4
    assert str(reference.time.values[0])[:7] == "2008-01" and reference.sizes["time"] == 84
    assert (estimates.notnull() == reference.notnull()).all()
    assert reference[:, 12, 20:30].isnull().all()
    untouched = open_reference(study).sel(time=slice("2008", "2014"))
    assert int(untouched.notnull().sum()) > int(reference.notnull().sum()) > 0
    offset = estimates.sel(dataset="ynet_paper") - reference
    np.testing.assert_allclose(offset.values[offset.notnull().values], 0.02, atol=1e-6)


def test_open_estimates_refuse_a_product_of_other_months(study):
    path = study.product("historical")
    product.write(
        product.open_product(path).sel(time=slice("2008", "2013")).load(), path, study=study
    )
    with pytest.raises(ValueError, match="time"):
        open_estimates(study)


def test_open_baselines_are_those_of_the_functions(study):
    found = open_baselines(study)
    predictors, reference = open_predictors(study, "historical"), open_reference(study).load()
    train, test = study.periods.train, slice(*study.periods.test)
    expected = {
        "climatology": climatology(predictors, reference, train_period=train),
        "ridge": ridge(
            predictors, reference, train_period=train, validation_period=study.periods.validation
        ),
    }
    for name, field in expected.items():
        np.testing.assert_allclose(found[name], field.sel(time=test), atol=1e-6)


def test_open_baselines_fit_once_and_again_only_for_other_input(study, monkeypatch):
    open_baselines(study)
    fitted = []

    def noted(predictors, reference, **options):
        fitted.append(options["train_period"])
        return climatology(predictors, reference, **options)

    monkeypatch.setitem(validation.BASELINES, "climatology", (noted, {}))
    open_baselines(study)
    assert fitted == []
    periods = study.periods.model_copy(update={"train": ("1990", "1998")})
    open_baselines(study.model_copy(update={"periods": periods}))
    assert fitted == [("1990", "1998")]

    path = study.prepared / "reference.nc"
    made, changed = recorded(path)["recipe"], open_reference(study).load() + 0.01
    path.unlink()
    write_dataset(changed.to_dataset(name="theta"), path, made | {"inputs": {}})
    open_baselines(study)
    assert len(fitted) == 2


@pytest.fixture
def scored():
    """Three estimates of seven years, and the areas of the cells."""
    random = np.random.default_rng(0)
    time = pd.date_range("2008-01", periods=84, freq="MS")
    coords = {"time": time, "lat": [20.0, 30.0], "lon": [70.0, 80, 90]}
    shape = (84, 2, 3)
    reference = xr.DataArray(
        random.uniform(0.1, 0.4, shape), coords, tuple(coords), attrs={"units": "m3 m-3"}
    )
    noise = {"ynet_sound": 0.01, "climatology": 0.05, "other": 0.0505}
    fields = [reference + scale * random.standard_normal(shape) for scale in noise.values()]
    estimates = xr.concat(fields, xr.Variable("dataset", list(noise)))
    return estimates.assign_attrs(units="m3 m-3"), reference, xr.DataArray([3.0, 2.0], dims="lat")


def test_score_table_agrees_with_numpy(scored):
    estimates, reference, weights = scored
    table = score_table(estimates, reference, weights=weights)
    w = np.broadcast_to(weights.values[:, None], reference.shape).ravel()
    y = reference.values.ravel()
    mse = {}
    for name in estimates.dataset.values:
        x = estimates.sel(dataset=name).values.ravel()
        mse[name] = np.average((x - y) ** 2, weights=w)
        value = table["value"].sel(dataset=name)
        np.testing.assert_allclose(value.sel(score="mae"), np.average(abs(x - y), weights=w))
        np.testing.assert_allclose(value.sel(score="rmsd"), mse[name] ** 0.5)
        np.testing.assert_allclose(value.sel(score="bias"), np.average(x - y, weights=w))
        r = np.cov(x, y, aweights=w)
        expected = r[0, 1] / np.sqrt(r[0, 0] * r[1, 1])
        np.testing.assert_allclose(value.sel(score="correlation"), expected)
    skill = table["value"].sel(dataset="other", score="skill")
    np.testing.assert_allclose(skill, 1 - mse["other"] / mse["climatology"])


def test_score_table_gives_the_interval_of_draws_of_years(scored):
    estimates, reference, weights = scored
    table = score_table(estimates, reference, weights=weights, seed=5)
    absolute = abs(estimates - reference).weighted(weights + 0 * reference.lon).mean(("lat", "lon"))
    annual = absolute.values.reshape(3, 7, 12).mean(axis=2)
    random = np.random.default_rng(99)
    means = annual[:, random.integers(7, size=(20000, 7))].mean(axis=2)
    for bound, quantile in (("low", 0.025), ("high", 0.975)):
        found = table[bound].sel(score="mae")
        np.testing.assert_allclose(found, np.quantile(means, quantile, axis=1), rtol=0.01)


def test_score_table_stars_a_winner_only_beyond_the_interval(scored):
    estimates, reference, weights = scored
    ahead = score_table(estimates, reference, weights=weights)["ahead"].sel(score="rmsd")
    assert ahead.values.tolist() == [True, False, False]
    near = score_table(estimates.isel(dataset=[1, 2]), reference, weights=weights)["ahead"]
    assert not near.sel(score=["mae", "rmsd", "bias"]).any()


def test_score_table_of_an_estimate_without_correlation_has_no_star_for_it(scored):
    estimates, reference, weights = scored
    flat = estimates.where(estimates.dataset != "other", 0.2).assign_attrs(units="m3 m-3")
    table = score_table(flat, reference, weights=weights).sel(score="correlation")
    assert np.isnan(table["value"].sel(dataset="other"))
    assert table["ahead"].values.tolist() == [True, False, False]


def test_score_table_stars_by_paired_differences_though_intervals_overlap(scored):
    _, reference, weights = scored
    random = np.random.default_rng(1)
    # years differ much, the two estimates by the same little in each
    of_year = np.repeat(random.uniform(0.01, 0.1, 7), 12)[:, None, None]
    fields = [reference + of_year, reference + of_year + 0.001]
    estimates = xr.concat(fields, xr.Variable("dataset", ["better", "climatology"]))
    estimates = estimates.assign_attrs(units="m3 m-3")
    table = score_table(estimates, reference, weights=weights).sel(score="mae")
    assert table["high"].sel(dataset="better") > table["low"].sel(dataset="climatology")
    assert table["ahead"].values.tolist() == [True, False]


def test_score_table_has_no_star_without_a_score_or_a_rival(scored):
    estimates, reference, weights = scored
    flat = xr.full_like(estimates.isel(dataset=[1, 2]), 0.2)
    undefined = score_table(flat, reference, weights=weights).sel(score="correlation")
    assert not undefined["ahead"].any()
    alone = score_table(estimates.sel(dataset=["climatology"]), reference, weights=weights)
    assert not alone["ahead"].any()


def test_outside_training_tells_new_in_a_cell_from_new_to_the_source():
    time = pd.date_range("2000-01", periods=36, freq="MS")
    values = np.zeros((2, 36, 1, 3))
    values[:, 0, 0, 0] = 1  # the first cell once, in January 2000
    values[:, :, 0, 2] = 9  # no land
    values[0, 24:, 0, 1] = 0.5  # the second cell of one source all 2002: common elsewhere
    values[1, 24:, 0, 1] = 2  # of the other: unheard of
    coords = {"source_id": ["A", "B"], "time": time, "lat": [20.0], "lon": [70.0, 72, 74]}
    predictors = xr.DataArray(values, coords, tuple(coords))
    land = xr.DataArray([[3.0, 1, 0]], {"lat": [20.0], "lon": [70.0, 72, 74]}, ("lat", "lon"))
    found = outside_training(predictors, land, train_period=("2000", "2001"))
    assert (found.sel(time=slice("2000", "2001")) == 0).all()
    # a quarter of the land, in both sources or in one of them
    np.testing.assert_allclose(found.sel(range="cell and month", time="2002"), 25)
    np.testing.assert_allclose(found.sel(range="whole source", time="2002"), 12.5)


@pytest.fixture
def two_cells(monkeypatch):
    """A study of two coarse cells, each of four fine ones; half of the second is ocean."""

    def field(values, years, **axes):
        time = pd.date_range(f"{years[0]}-01", periods=12 * len(years), freq="MS")
        values = np.repeat(np.array(values, float), 12, axis=0)
        return xr.DataArray(values, {"time": time} | axes, ("time", *axes))

    def predictors(_, experiment_id):
        coarse = {"lat": [21.0], "lon": [71.0, 73.0]}
        if experiment_id == "historical":  # other than before in the first cell, the last year
            theta = field([[[0.2, 0.2]]] * 3 + [[[0.3, 0.2]]], range(2000, 2004), **coarse)
        else:  # in the second cell, the first year
            theta = field([[[0.2, 0.1]], [[0.2, 0.2]]], [2004, 2005], **coarse)
        return theta.expand_dims(source_id=["A"])

    fine = {"lat": [20.5, 21.5], "lon": [70.5, 71.5, 72.5, 73.5]}
    rising = [[0.1, 0.2, 0.3, 0.4], [0.6, 0.7, 0.8, 0.9]]
    falling = [row[::-1] for row in rising[::-1]]
    reference = field([rising, rising, falling, falling], range(2000, 2004), **fine)
    land = xr.DataArray([[True] * 4, [True, True, False, False]], fine, ("lat", "lon"))
    elevation = xr.where(land["lon"] < 71, 3500, 100) + 0 * land["lat"]
    static = {"land": land, "study_area": land & (land["lon"] < 73), "elevation": elevation}
    monkeypatch.setattr(validation, "open_predictors", predictors)
    monkeypatch.setattr(validation, "open_reference", lambda _: reference)
    monkeypatch.setattr(validation, "open_static", lambda _: xr.Dataset(static))
    years = {
        name: (str(year), str(year)) for name, year in {"validation": 2002, "test": 2003}.items()
    }
    years |= {"train": ("2000", "2001"), "change": [("2004", "2004"), ("2004", "2005")]}
    periods = SimpleNamespace(**years)
    return SimpleNamespace(periods=periods, experiments=("ssp126",), scale_factor=2)


def test_outside_by_period_weighs_a_coarse_cell_by_its_land(two_cells):
    area = xr.DataArray([1.0, 1.0], {"lat": [20.5, 21.5]}, "lat")
    found = outside_by_period(two_cells, area)
    # four of six fine cells of land in 2003, the other two in 2004
    expected = {
        ("historical", "validation"): 0,
        ("historical", "test"): 400 / 6,
        ("ssp126", "2004-2004"): 200 / 6,
        ("ssp126", "2004-2005"): 100 / 6,
    }
    assert list(found.index) == list(expected)
    for column in ("cell and month", "whole source"):
        np.testing.assert_allclose(found[column], list(expected.values()), rtol=1e-6)


def test_regimes_of_a_study_are_those_of_its_training_years(two_cells):
    area = xr.DataArray([1.0, 1.0], {"lat": [20.5, 21.5]}, "lat")
    found = regimes_of(two_cells, area)
    cells = {
        name: np.argwhere(found.sel(region=name).values).tolist() for name in found.region.values
    }
    # beyond 73 E is no study area; of the three cells below 3000 m 0.2, 0.3 and 0.7
    assert cells == {
        "high land": [[0, 0], [1, 0]],
        "dry third": [[0, 1]],
        "middle third": [[0, 2]],
        "wet third": [[1, 1]],
    }


def test_moisture_regimes_worked_by_hand():
    theta = xr.DataArray([[0.1, 0.3, 0.2, np.nan], [0.4, 0.5, 0.6, 0.05]], dims=("lat", "lon"))
    area = xr.DataArray([[1.0, 1, 1, 1], [1, 1, 1, 2]], dims=("lat", "lon"))
    high = xr.zeros_like(theta, dtype=bool)
    high[1, 2] = True
    found = moisture_regimes(theta, area, high=high)
    # without the high cell an area of 7: thirds end at 2.33 and 4.67. In ascending order 0.05
    # (middle of its area at 1), 0.1 (2.5), 0.2 (3.5), 0.3 (4.5), 0.4 (5.5), 0.5 (6.5)
    regime = xr.full_like(theta, "", dtype="U12")
    for name in found.region.values:
        regime = regime.where(~found.sel(region=name), name)
    assert regime.values.tolist() == [
        ["middle third", "middle third", "middle third", ""],
        ["wet third", "wet third", "high land", "dry third"],
    ]
    assert (found.sum("region") <= 1).all()


def test_moisture_regimes_share_out_the_area():
    random = np.random.default_rng(0)
    theta = xr.DataArray(random.uniform(0, 0.5, (40, 50)), dims=("lat", "lon"))
    area = xr.DataArray(random.uniform(1, 2, 40), dims="lat")
    found = moisture_regimes(theta.where(theta < 0.45), area, high=theta < 0.05)
    share = (found * area).sum(("lat", "lon"))
    np.testing.assert_allclose(share[1:] / share[1:].mean(), 1, atol=0.01)
    means = [float(theta.where(part).mean()) for part in found]
    assert means == sorted(means)


def test_moisture_regimes_without_a_cell_are_left_out():
    theta = xr.DataArray([[np.nan, np.nan]], dims=("lat", "lon"))
    area, high = xr.DataArray([1.0], dims="lat"), theta.notnull()
    assert moisture_regimes(theta, area, high=high).sizes["region"] == 0
