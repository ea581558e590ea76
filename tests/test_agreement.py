from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import theilslopes

from smcore import agreement, demo, prepared, product
from smcore.seasons import seasonal_mean
from smcore.trends import trend

CELLS = ("lat", "lon")


def field(values, **coords):
    shape = np.shape(values)[-2:]
    axes = {"lat": 30.0 + np.arange(shape[0]), "lon": 70.0 + np.arange(shape[1])}
    return xr.DataArray(values, coords={**coords, **axes}, dims=(*coords, *CELLS))


# trends of the scenarios

STUDY = SimpleNamespace(
    periods=SimpleNamespace(historical=("2005", "2014"), future=("2015", "2034"))
)


def months(experiment_id):
    """Twelve months of two cells for each year of an experiment."""
    first, years, seed = {
        "historical": (2005, 10, 0),
        "ssp126": (2015, 20, 1),
        "ssp585": (2015, 20, 2),
    }[experiment_id]
    time = pd.date_range(f"{first}-01", periods=12 * years, freq="MS")
    values = np.random.default_rng(seed).normal(0.3, 0.02, (time.size, 1, 2))
    coords = {"time": time, "lat": [30.0], "lon": [70.0, 71]}
    return xr.DataArray(values, coords, ("time", *CELLS), attrs={"units": "m3 m-3"})


def test_scenario_trends_are_the_trends_of_each_scenario_and_index():
    std = xr.DataArray(0.05)
    options = {"baseline": ("2005", "2014"), "standard_deviation": std}
    found = agreement.scenario_trends(
        months,
        ["ssp126", "ssp585"],
        study=STUDY,
        indices=["theta", "ssmi_sources"],
        baseline=options["baseline"],
        std=std,
        tested="theta",
    )
    assert dict(found.sizes) == {"experiment_id": 2, "index": 2, "lat": 1, "lon": 2}
    both = xr.concat([months("historical"), months("ssp585")], "time")
    here = found.sel(experiment_id="ssp585")
    water = trend(both, ("2015", "2034"))
    np.testing.assert_allclose(here["slope"].sel(index="theta"), water["slope"])
    np.testing.assert_allclose(here["p_value"].sel(index="theta"), water["p_value"])
    index = trend(both, ("2015", "2034"), **options)["slope"]
    np.testing.assert_allclose(here["slope"].sel(index="ssmi_sources"), index)
    assert here["p_value"].sel(index="ssmi_sources").isnull().all()


def test_months_begin_with_the_historical_run_only_where_they_have_to():
    asked = {"study": STUDY, "indices": ["theta"], "std": None}
    for baseline, expected in (
        (("2015", "2034"), ["ssp585"]),
        (("2005", "2014"), ["ssp585", "historical"]),
    ):
        opened = []

        def read(name, opened=opened):
            opened.append(name)
            return months(name)

        found = agreement.scenario_trends(read, ["ssp585"], baseline=baseline, **asked)
        assert opened == expected
        assert found["slope"].attrs["units"] == "m3 m-3 decade-1"


def test_scenario_trends_refuse_an_index_that_does_not_exist():
    with pytest.raises(ValueError, match="`index` must be one of ssmi, .*, got 'spi'"):
        agreement.scenario_trends(
            None, [], study=STUDY, indices=["ssmi"], baseline=None, std=None, tested="spi"
        )


def test_scenario_trends_of_seasons_need_no_test():
    found = agreement.scenario_trends(
        months,
        ["ssp126"],
        study=STUDY,
        indices=["ssmi"],
        baseline=STUDY.periods.future,
        std=None,
        mean=seasonal_mean,
    )
    assert list(found) == ["slope"]
    expected = trend(
        months("ssp126"), ("2015", "2034"), baseline=("2015", "2034"), mean=seasonal_mean
    )
    np.testing.assert_allclose(found["slope"].squeeze(), expected["slope"].squeeze())


COARSE = {"lat": [31.0, 33], "lon": [71.0, 73, 75]}
FINE = {"lat": np.arange(30.5, 34), "lon": np.arange(70.5, 76)}


def climbing(per_year, experiment_id, cells, swing=0.0):
    """Months that swing about 0.2 from 2005 to 2014, and climb from there to 2034."""
    first, last = ("2005", "2015") if experiment_id == "historical" else ("2015", "2035")
    time = pd.date_range(first, last, freq="MS", inclusive="left")
    swings = np.where(time.year < 2015, np.where(time.year % 2, swing, -swing), 0)
    line = 0.2 + per_year * np.maximum(time.year - 2015, 0) + swings
    theta = xr.DataArray(line, {"time": time}, ["time"]) * xr.DataArray(1.0, cells, CELLS)
    return theta.assign_attrs(units="m3 m-3")


@pytest.fixture
def study(monkeypatch):
    """One scenario: a product that gains 0.003 a year, sources 0.001 and -0.002, a truth 0.004."""

    def predictors(_, name):
        rates = {"A": (0.001, 0.05), "B": (-0.002, 0.15)}
        fields = [climbing(rate, name, COARSE, swing) for rate, swing in rates.values()]
        return xr.concat(fields, xr.Variable("source_id", list(rates)))

    monkeypatch.setattr(prepared, "open_predictors", predictors)
    monkeypatch.setattr(product, "open_product", lambda name: climbing(0.003, name, FINE))
    monkeypatch.setattr(demo, "truth", lambda _, name: {"theta": climbing(0.004, name, FINE)})
    study = SimpleNamespace(experiments=["ssp585"], product=str, synthetic=True)
    study.periods = SimpleNamespace(train=("2005", "2014"), **vars(STUDY.periods))
    study.presets = {"sound": study}
    return study


@pytest.fixture
def static():
    land = xr.DataArray(np.ones((4, 6), bool), FINE, CELLS)
    land[0, 0] = False
    return land.to_dataset(name="land")


def test_product_and_sources_have_the_same_cells_and_the_divisor_of_the_sources(study, static):
    found = agreement.product_and_sources(
        study, static, indices=["theta", "ssmi_sources"], baseline=("2015", "2034"), tested="theta"
    )
    # per decade; from 2005 to 2014 the sources swing by 0.05 and by 0.15, in the median by 0.1
    for trends, slopes in zip(found, (0.03, xr.DataArray([0.01, -0.02], dims="source_id"))):
        here = trends["slope"].sel(experiment_id="ssp585", lat=33.5, lon=75.5)
        np.testing.assert_allclose(here.sel(index="theta"), slopes, rtol=1e-5)
        np.testing.assert_allclose(here.sel(index="ssmi_sources"), slopes / 0.1, rtol=1e-5)
        assert (trends.sizes["lat"], trends.sizes["lon"]) == (4, 6)
        assert trends["p_value"].sel(index="theta").max() < 1e-3
    assert found[1]["slope"].isel(lat=0, lon=0).isnull().all()  # not land
    assert found[1]["slope"].isel(lat=0, lon=1).notnull().all()


def test_water_trends_are_those_of_products_ensemble_and_truth(study, static):
    found = agreement.water_trends(study, static, ["ssp585"])
    # the ensemble mean loses 0.0005 a year; its swing ends before the scenario begins
    expected = {"ynet_sound": 0.03, "delta_change": -0.005, "truth": 0.04}
    for name, slope in expected.items():
        np.testing.assert_allclose(found[name].isel(lat=1), slope, rtol=1e-4)
    years = np.arange(30)
    swing = np.where(years < 10, np.where(years % 2 == 0, 0.1, -0.1), 0)
    mean = 0.2 - 0.0005 * np.maximum(years - 10, 0) + swing
    smooth = [mean[max(0, year - 15) : year + 16].mean() for year in years][10:]
    smoothed = 10 * theilslopes(smooth)[0]
    np.testing.assert_allclose(found["delta_change_31"].isel(lat=1), smoothed, rtol=1e-4)
    assert found["delta_change"].isel(experiment_id=0, lat=0, lon=0).isnull()
    study.synthetic = False
    assert list(agreement.water_trends(study, static, ["ssp585"])) == [*found][:-1]


# what the sources say


def test_agreement_counts_the_sources_of_the_majoritys_sign():
    slope = field(
        [[[1.0, 1, -1]], [[2.0, -1, -1]], [[-1.0, 1, -1]], [[1.0, -1, np.nan]]],
        source_id=list("abcd"),
    )
    p_value = field(
        [[[0.01, 0.01, 0.01]], [[0.20, 0.01, 0.04]], [[0.01, 0.01, 0.2]], [[0.03, 0.01, np.nan]]],
        source_id=list("abcd"),
    )
    found = agreement.agreement(xr.Dataset({"slope": slope, "p_value": p_value}))
    # 3 of 4 rise, two of them surely; a draw; all 3 that have a value fall, two of them surely
    np.testing.assert_array_equal(found["sign"], [[1, 0, -1]])
    np.testing.assert_allclose(found["same_sign"], [[0.75, 0.5, 1]])
    np.testing.assert_allclose(found["significant"], [[0.5, 0, 2 / 3]])


def test_agreement_of_slopes_that_are_not_tested_has_no_significance():
    slope = field([[[1.0, -1]], [[2.0, 1]]], source_id=["a", "b"])
    found = agreement.agreement(slope.to_dataset(name="slope"))
    assert set(found) == {"sign", "same_sign"}
    assert found["same_sign"].values.tolist() == [[1, 0.5]]


def test_agreement_of_no_source_is_missing():
    slope = field([[[np.nan]], [[np.nan]]], source_id=list("ab"))
    found = agreement.agreement(xr.Dataset({"slope": slope, "p_value": slope}))
    assert all(found[name].isnull().all() for name in found)


def test_shares_count_the_area_before_and_after_correction():
    # cells of area 1, 1, 2, 4 and one without a value
    area = field([[1.0, 1, 2, 4, 8]])
    slope = field([[-1.0, -1, 1, -1, np.nan]])
    p_value = field([[0.001, 0.04, 0.03, 0.9, np.nan]])
    whole = slope.notnull()
    found = agreement.shares(
        xr.Dataset({"slope": slope, "p_value": p_value}),
        area,
        {"all": whole, "first three": whole & (slope.lon < 73)},
        alpha=0.02,
    )
    # 8 in all: drier on 1 + 1 + 4, with p < 0.02 on 1. At 0.04 over 4 tests the thresholds
    # are 0.01, 0.02, 0.03, 0.04: the third p-value, 0.04, exceeds 0.03, the second one, 0.03,
    # exceeds 0.02, so only the first is left
    assert found["drier"].values.tolist() == [75, 50]
    assert found["wetter"].values.tolist() == [25, 50]
    assert found["drier_significant"].values.tolist() == [12.5, 25]
    assert found["wetter_significant"].values.tolist() == [0, 0]
    assert found["drier_corrected"].values.tolist() == [12.5, 25]
    assert found["region"].values.tolist() == ["all", "first three"]


def test_shares_take_each_map_as_a_family_of_its_own():
    p_value = field([[[0.04, 0.9]], [[0.04, 0.04]]], source_id=["a", "b"])
    trends = xr.Dataset({"slope": p_value * 0 - 1, "p_value": p_value})
    found = agreement.shares(trends, field([[1.0, 1]]), {"all": field([[True, True]])}, alpha=0.025)
    # at 0.05 over 2 tests: 0.04 > 0.025 in the first map; 0.04 <= 0.05 twice in the second
    assert found["drier_corrected"].sel(region="all").values.tolist() == [0, 100]


@pytest.mark.parametrize("alpha", [0, 0.5, 5, -0.1, "five", [0.05]])
def test_a_level_out_of_range_is_refused_by_its_own_name(alpha):
    trends = xr.Dataset(
        {name: field([[[0.1, 0.2]]], source_id=["a"]) for name in ("slope", "p_value")}
    )
    with pytest.raises(ValueError, match="`alpha` must lie between 0 and 0.5"):
        agreement.agreement(trends, alpha=alpha)
    with pytest.raises(ValueError, match="`alpha` must lie between 0 and 0.5"):
        agreement.shares(trends, field([[1.0, 1]]), {}, alpha=alpha)


def test_likeness_agrees_with_numpy():
    random = np.random.default_rng(4)
    x, y = random.normal(size=(2, 3, 5))
    x[0, 0] = np.nan
    weights = random.uniform(1, 2, (3, 5))
    mask = np.ones((3, 5), bool)
    mask[2, 4] = False
    found = agreement.likeness(field(x), field(y), field(weights), {"r": field(mask)}).sel(
        region="r"
    )
    use = mask & np.isfinite(x)
    a, b, w = x[use], y[use], weights[use]
    covariance = np.cov(a, b, aweights=w, ddof=0)
    np.testing.assert_allclose(found["same_sign"], 100 * w[a * b > 0].sum() / w.sum())
    expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    np.testing.assert_allclose(found["correlation"], expected)
    np.testing.assert_allclose(found["std_ratio"], np.sqrt(covariance[0, 0] / covariance[1, 1]))
    np.testing.assert_allclose(found["regression"], covariance[0, 1] / covariance[1, 1])
    np.testing.assert_allclose(found["median_ratio"], np.median(a / b))
    np.testing.assert_allclose(found["skill"], 1 - (w * (a - b) ** 2).sum() / (w * b**2).sum())


def test_likeness_of_several_estimates_is_that_of_each():
    y = field(np.random.default_rng(6).normal(size=(2, 4, 3)), experiment_id=["a", "b"])
    noise = np.random.default_rng(7).normal(size=(2, 2, 4, 3))
    x = y + field(noise, estimate=["one", "other"], experiment_id=["a", "b"])
    where = {"all": y[0].notnull()}
    together = agreement.likeness(x, y, xr.ones_like(y[0]), where)
    for estimate in x.estimate.values:
        for experiment in "ab":
            pair = (
                x.sel(estimate=estimate, experiment_id=experiment),
                y.sel(experiment_id=experiment),
            )
            alone = agreement.likeness(*pair, xr.ones_like(y[0]), where)
            found = together.sel(estimate=estimate, experiment_id=experiment)
            xr.testing.assert_allclose(found.drop_vars(["estimate", "experiment_id"]), alone)


def test_a_damped_copy_is_like_its_original_in_all_but_size():
    y = field(np.random.default_rng(5).normal(size=(4, 3)))
    everywhere = {"all": y.notnull()}
    found = agreement.likeness(0.5 * y, y, xr.ones_like(y), everywhere).sel(region="all")
    assert float(found["same_sign"]) == 100
    for name, expected in {
        "correlation": 1,
        "std_ratio": 0.5,
        "regression": 0.5,
        "median_ratio": 0.5,
        "skill": 0.75,  # half of the slope is left: a quarter of its square
    }.items():
        np.testing.assert_allclose(found[name], expected)


def test_largest_patch_is_found_by_its_area_and_edges_connect():
    mask = field(np.array([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1.0]])) == 1
    area = xr.ones_like(mask, dtype=float)
    found = agreement.largest_patch(
        mask, area
    )  # the corners of three cells touch, two share an edge
    assert float(found["share"]) == pytest.approx(100 * 2 / 12)
    assert (float(found["centre_lat"]), float(found["centre_lon"])) == (30, 72.5)

    area[2, 3] = 5  # one large cell beats two small ones
    area[0, 1] = np.nan  # 15 are left
    found = agreement.largest_patch(mask.T, area)
    assert float(found["share"]) == pytest.approx(100 * 5 / 15)
    assert (float(found["centre_lat"]), float(found["centre_lon"])) == (32, 73)
    assert agreement.largest_patch(mask & False, area)["share"].isnull()
