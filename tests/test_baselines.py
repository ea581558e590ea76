import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import rankdata

from smcore.baselines import (
    PENALTIES,
    anomalies,
    bias_removed,
    climatology,
    delta_change,
    ensemble_mean,
    mean_variance_scaling,
    quantile_delta_mapping,
    ridge,
)
from smcore.grids import coarse_grid, fine_grid
from smcore.regrid import coarse_weights

TRAIN = {"train_period": ("2000", "2001")}
VALIDATION = {"validation_period": ("2002-01", "2002-03")}


def validated_ridge(predictors, reference, *, train_period):
    return ridge(predictors, reference, train_period=train_period, **VALIDATION)


ALL = [
    ensemble_mean,
    climatology,
    bias_removed,
    delta_change,
    mean_variance_scaling,
    quantile_delta_mapping,
    validated_ridge,
]

COARSE_LAT, COARSE_LON = np.array([19.0, 21, 23]), np.array([72.0, 74, 76, 78])
FINE_LAT = 18.125 + 0.25 * np.arange(24)
FINE_LON = 71.125 + 0.25 * np.arange(32)
TIME = pd.date_range("2000-01", "2003-12", freq="MS")


def on_grid(function, lat, lon, time=TIME):
    """A field from a function of (month number, lat, lon)."""
    values = function(*np.meshgrid(np.arange(time.size), lat, lon, indexing="ij"))
    return xr.DataArray(
        values.astype("float32"),
        dims=("time", "lat", "lon"),
        coords={"time": time, "lat": lat, "lon": lon},
        attrs={"units": "m3 m-3"},
    )


def sources(*fields):
    names = ["A", "B", "C"][: len(fields)]
    return xr.concat(fields, xr.DataArray(names, dims="source_id", name="source_id"))


@pytest.fixture
def reference():
    field = on_grid(lambda t, lat, lon: 0.2 + 0.01 * (t % 12) + 1e-3 * lat, FINE_LAT, FINE_LON)
    return field.where((field.lat > 20) | (field.lon > 73)).isel(time=slice(0, 30))


@pytest.fixture
def predictors():
    rng = np.random.default_rng(0)
    return sources(
        on_grid(lambda t, lat, lon: rng.uniform(0.1, 0.4, t.shape), COARSE_LAT, COARSE_LON),
        on_grid(lambda t, lat, lon: rng.uniform(0.1, 0.4, t.shape), COARSE_LAT, COARSE_LON),
    )


@pytest.mark.parametrize("baseline", ALL)
def test_baselines_fill_the_fine_grid_for_every_month_of_the_predictors(
    baseline, predictors, reference
):
    estimate = baseline(predictors, reference, **TRAIN)
    assert estimate.dims == ("time", "lat", "lon")
    assert estimate.dtype == "float32"
    assert estimate.attrs["units"] == "m3 m-3"
    for name, expected in {
        "time": predictors.time,
        "lat": reference.lat,
        "lon": reference.lon,
    }.items():
        xr.testing.assert_equal(estimate[name], expected)
    assert set(estimate.coords) == {"time", "lat", "lon"}
    land = reference.notnull().any("time")
    assert (estimate.notnull() == land).all()


def test_ensemble_mean_of_a_linear_field_is_exact_between_the_coarse_centres(reference):
    def plane(t, lat, lon):
        return 0.01 * lat - 0.002 * lon + 0.001 * t

    predictors = sources(on_grid(plane, COARSE_LAT, COARSE_LON))
    expected = on_grid(plane, FINE_LAT, FINE_LON)
    estimate = ensemble_mean(predictors, xr.ones_like(expected), **TRAIN)
    inside = {"lat": slice(19, 23), "lon": slice(72, 78)}
    np.testing.assert_allclose(estimate.sel(inside), expected.sel(inside), atol=1e-6)
    # beyond the outermost centres the value of the centre is held
    edge = estimate.sel(lon=73.125).isel(time=0)
    np.testing.assert_allclose(edge.sel(lat=18.125), 0.01 * 19 - 0.002 * 73.125, atol=1e-6)
    np.testing.assert_allclose(edge.sel(lat=23.875), 0.01 * 23 - 0.002 * 73.125, atol=1e-6)


def test_ensemble_mean_worked_by_hand(reference):
    predictors = sources(
        on_grid(lambda t, lat, lon: (lat == 21) * (lon == 74) * 0.64, COARSE_LAT, COARSE_LON),
        on_grid(lambda t, lat, lon: 0 * lat, COARSE_LAT, COARSE_LON),
    )
    estimate = ensemble_mean(predictors, xr.ones_like(reference), **TRAIN).isel(time=7)
    # mean of the sources 0.32; 20.125 N lies 9/16 of the way to 21 N, 75.125 E 7/16 from 76 E
    np.testing.assert_allclose(
        estimate.sel(lat=20.125, lon=75.125), 0.32 * 9 / 16 * 7 / 16, rtol=1e-6
    )
    assert estimate.sel(lat=18.875, lon=75.125) == 0


def test_interpolation_agrees_with_torch(predictors, reference):
    torch = pytest.importorskip("torch")
    mean = torch.from_numpy(predictors.mean("source_id").values)
    expected = torch.nn.functional.interpolate(mean[:, None], scale_factor=8, mode="bilinear")[:, 0]
    estimate = ensemble_mean(predictors, xr.ones_like(reference), **TRAIN)
    np.testing.assert_allclose(estimate, expected.numpy(), atol=1e-6)


def test_interpolation_takes_a_descending_latitude(predictors, reference):
    expected = delta_change(predictors, reference, **TRAIN)
    flipped = delta_change(predictors.isel(lat=slice(None, None, -1)), reference, **TRAIN)
    xr.testing.assert_allclose(flipped, expected)
    north_first = reference.isel(lat=slice(None, None, -1))
    xr.testing.assert_allclose(
        delta_change(predictors, north_first, **TRAIN).sortby("lat"), expected
    )


def test_a_missing_coarse_cell_is_left_to_its_neighbours(reference):
    predictors = sources(on_grid(lambda t, lat, lon: lat / 100, COARSE_LAT, COARSE_LON))
    predictors = predictors.where((predictors.lat != 19) | (predictors.lon != 72))
    everywhere = xr.ones_like(reference)
    estimate = ensemble_mean(predictors, everywhere, **TRAIN).isel(time=0)
    # in the missing cell's outer corner nothing is left; between it and 74 E its neighbour counts
    assert np.isnan(estimate.sel(lat=18.125, lon=71.125))
    np.testing.assert_allclose(estimate.sel(lat=18.125, lon=73.125), 0.19, rtol=1e-6)
    np.testing.assert_allclose(estimate.sel(lat=22.125, lon=77.125), 0.22125, rtol=1e-6)
    assert estimate.isnull().sum() == 4 * 4  # only fine cells whose four neighbours are that one


def test_a_month_missing_in_one_source_is_the_mean_of_the_others(predictors, reference):
    gappy = predictors.copy()
    gappy[0, 3] = np.nan
    estimate = ensemble_mean(gappy, reference, **TRAIN)
    alone = ensemble_mean(predictors.isel(source_id=[1]), reference, **TRAIN)
    np.testing.assert_allclose(estimate[3], alone[3], rtol=1e-6)


def test_climatology_repeats_the_months_of_the_training_period(predictors, reference):
    # the reference differs in 2002, which is not in the training period
    changed = reference.where(reference.time.dt.year < 2002, reference + 1)
    estimate = climatology(predictors, changed, **TRAIN)
    expected = changed.sel(time=["2000-05-01", "2001-05-01"]).mean("time")
    for year in ("2000", "2003"):
        np.testing.assert_allclose(estimate.sel(time=f"{year}-05-01"), expected, rtol=1e-6)


def test_delta_change_adds_the_change_of_the_ensemble(reference):
    def source(offset, change):
        return on_grid(
            lambda t, lat, lon: offset + 0.02 * (t % 12) + change * (t >= 24),
            COARSE_LAT,
            COARSE_LON,
        )

    predictors = sources(source(0.1, 0.03), source(0.4, 0.05))
    estimate = delta_change(predictors, reference, **TRAIN)
    # bias and season of the sources do not matter; their mean changes by 0.04 after 2001
    cycle = climatology(predictors, reference, **TRAIN)
    np.testing.assert_allclose(estimate[:24], cycle[:24], atol=1e-6)
    np.testing.assert_allclose(estimate[24:], cycle[24:] + 0.04, atol=1e-6)


def test_delta_change_averages_to_the_climatology_in_the_training_period(predictors, reference):
    estimate = delta_change(predictors, reference, **TRAIN).sel(time=slice("2000", "2001"))
    cycle = climatology(predictors, reference, **TRAIN).sel(time=slice("2000", "2001"))
    july = estimate.time.dt.month == 7
    np.testing.assert_allclose(
        estimate.sel(time=july).mean("time"), cycle.sel(time=july).mean("time"), rtol=1e-5
    )


def test_baselines_keep_experiments_and_work_on_dask(predictors, reference):
    both = xr.concat([predictors, predictors + 0.1], pd.Index(["x", "y"], name="experiment_id"))
    for baseline in (ensemble_mean, delta_change, mean_variance_scaling, quantile_delta_mapping):
        lazy = baseline(both.chunk(time=20), reference.chunk(time=15), **TRAIN)
        assert lazy.dims == ("experiment_id", "time", "lat", "lon")
        expected = baseline(predictors, reference, **TRAIN)
        xr.testing.assert_allclose(lazy.isel(experiment_id=0, drop=True).compute(), expected)


@pytest.mark.parametrize("baseline", ALL)
def test_baselines_name_the_months_that_the_reference_has(baseline, predictors, reference):
    with pytest.raises(ValueError, match="`train_period`.*`reference`.*2000-01 to 2002-06"):
        baseline(predictors, reference, train_period=("1950", "1999"))
    with pytest.raises(ValueError, match="every calendar month.*with 6 of them"):
        baseline(predictors, reference, train_period=("2002", "2002"))


@pytest.mark.parametrize("baseline", ALL[2:])
def test_baselines_that_learn_from_sources_need_their_training_period(
    baseline, predictors, reference
):
    with pytest.raises(ValueError, match="`train_period`.*`predictors`.*2002-01 to 2003-12"):
        baseline(predictors.sel(time=slice("2002", "2003")), reference, **TRAIN)


@pytest.mark.parametrize("baseline", ALL)
def test_baselines_need_sources_and_one_unit(baseline, predictors, reference):
    with pytest.raises(ValueError, match="`predictors` must have the dimension source_id"):
        baseline(predictors.isel(source_id=0), reference, **TRAIN)
    with pytest.raises(ValueError, match="`predictors` must have the units"):
        baseline(predictors.assign_attrs(units="kg m-2"), reference, **TRAIN)


def test_the_fine_grid_must_lie_within_the_coarse_cells(predictors, reference):
    with pytest.raises(ValueError, match="`reference` must lie within.*lon -71"):
        ensemble_mean(predictors, reference.assign_coords(lon=reference.lon - 142.2), **TRAIN)


def test_the_grids_of_the_paper_hold_the_last_centre_to_the_edge():
    # coarse 18..52 N and 71..135 E, fine 18..53.75 N and 71..136.75 E
    coarse, fine = (make(registration="paper") for make in (coarse_grid, fine_grid))
    predictors = sources(on_grid(lambda t, lat, lon: lat / 100, coarse.lat, coarse.lon))
    reference = on_grid(lambda t, lat, lon: lat / 100, fine.lat, fine.lon)
    estimate = ensemble_mean(predictors, reference, **TRAIN).isel(time=0, lon=0)
    np.testing.assert_allclose(
        estimate.sel(lat=slice(18, 52)), fine.lat.sel(lat=slice(18, 52)) / 100, rtol=1e-6
    )
    np.testing.assert_allclose(estimate.sel(lat=slice(52, 54)), 0.52, rtol=1e-6)


def test_anomalies_need_a_window_with_a_middle_year(predictors):
    with pytest.raises(ValueError, match="`years` must be odd.*got 10"):
        anomalies(predictors, years=10, **TRAIN)


@pytest.mark.parametrize("years", [1, 3])
def test_anomalies_are_a_running_mean_over_the_same_month(predictors, years):
    """A slow loop over the years that are there."""
    found = anomalies(predictors, years=years, **TRAIN)
    train = predictors.sel(time=slice(*TRAIN["train_period"]))
    for stamp in predictors["time"].values[[0, 14, 30, -1]]:
        year, month = int(str(stamp)[:4]), int(str(stamp)[5:7])
        same = train.sel(time=train.time.dt.month == month).mean("time")
        reach = range(year - years // 2, year + years // 2 + 1)
        here = (predictors.time.dt.month == month) & predictors.time.dt.year.isin(list(reach))
        expected = predictors.sel(time=here).mean("time") - same
        xr.testing.assert_allclose(found.sel(time=stamp, drop=True), expected, atol=1e-6)


@pytest.fixture
def observed(reference):
    """The reference with weather: a number for each month and cell, and gaps in one cell."""
    random = np.random.default_rng(1)
    field = reference + 0.03 * random.standard_normal(reference.shape, dtype="float32")
    field[5, 20, 20] = np.nan
    return field.assign_attrs(units="m3 m-3")


@pytest.mark.parametrize("baseline", ALL[1:])
def test_baselines_learn_from_the_training_period_only(baseline, predictors, observed):
    estimate = baseline(predictors, observed, **TRAIN)
    # ridge also sees the first three months of 2002, its validation period
    after = observed.time > np.datetime64(
        "2002-03-15" if baseline is validated_ridge else "2001-12-15"
    )
    xr.testing.assert_identical(
        baseline(predictors, observed.where(~after, observed + 0.1), **TRAIN), estimate
    )
    before = observed.where(after, observed + 0.1).assign_attrs(observed.attrs)
    assert (abs(baseline(predictors, before, **TRAIN) - estimate) > 0.05).any()


def cell_of_a_month(field, lat, lon, month):
    series = field.sel(lat=lat, lon=lon)
    return series.sel(time=series.time.dt.month == month).values.astype(float)


CELLS = [(23.125, 76.125), (21.875, 72.375), (20.125, 73.125)]


@pytest.mark.parametrize(("lat", "lon"), CELLS)
def test_mean_variance_scaling_agrees_with_a_slow_loop(predictors, observed, lat, lon):
    estimate = mean_variance_scaling(predictors, observed, **TRAIN)
    mean = ensemble_mean(predictors, observed, **TRAIN)
    for month in (1, 6, 12):  # the gap is in a June
        x, y = (cell_of_a_month(field, lat, lon, month) for field in (mean, observed))
        past = y[:2][np.isfinite(y[:2])]
        expected = [past.mean() + (v - x[:2].mean()) * past.std() / x[:2].std() for v in x]
        found = cell_of_a_month(estimate, lat, lon, month)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_mean_variance_scaling_has_the_moments_of_the_reference(predictors, observed):
    estimate = mean_variance_scaling(predictors, observed, **TRAIN).sel(time=slice("2000", "2001"))
    past = observed.sel(time=slice("2000", "2001"))
    complete = past.notnull().all("time")
    for month in (3, 9):
        found, wanted = (
            field.sel(time=field.time.dt.month == month).where(complete)
            for field in (estimate, past)
        )
        np.testing.assert_allclose(found.mean("time"), wanted.mean("time"), rtol=1e-5)
        np.testing.assert_allclose(found.std("time"), wanted.std("time"), atol=1e-6)


def test_mean_variance_scaling_of_constant_sources_is_the_climatology(predictors, observed):
    constant = xr.full_like(predictors, 0.3)
    expected = climatology(predictors, observed, **TRAIN)
    estimate = mean_variance_scaling(constant, observed, **TRAIN)
    np.testing.assert_allclose(estimate, expected, rtol=1e-6)


def long_record():
    """Twelve years of one source and of a reference that ends after ten, of two cells."""
    random = np.random.default_rng(2)
    time = pd.date_range("1990-01", "2001-12", freq="MS")
    source = on_grid(
        lambda t, lat, lon: 0.2 + 0.002 * t / 12 + random.normal(0, 0.03, t.shape),
        np.array([19.0, 21]),
        np.array([72.0, 74]),
        time,
    )
    reference = on_grid(
        lambda t, lat, lon: random.gamma(2, 0.1, t.shape),
        np.array([19.0, 20]),
        np.array([72.0]),
        time[:120],
    )
    reference[3::12, 1] = np.round(reference[3::12, 1], 1)  # with ties
    reference[15, 0] = np.nan
    return sources(np.round(source, 2)).assign_attrs(units="m3 m-3"), reference


@pytest.mark.parametrize("years", [5, 31])
def test_quantile_delta_mapping_agrees_with_a_slow_loop(years):
    predictors, reference = long_record()
    train = {"train_period": ("1990", "1996")}
    estimate = quantile_delta_mapping(predictors, reference, years=years, **train)
    mean = ensemble_mean(predictors, reference, **train)
    for lat in (19.0, 20.0):
        for month in (1, 4, 10):
            x, y = (cell_of_a_month(field, lat, 72.0, month) for field in (mean, reference))
            past, observed = x[:7], y[:7][np.isfinite(y[:7])]
            expected = []
            for year, value in enumerate(x):
                window = x[max(0, year - years // 2) : year + years // 2 + 1]
                rank = rankdata(window)[list(window).index(value)]  # ties share their mean rank
                p = (rank - 0.5) / window.size
                change = value - np.quantile(past, p, method="hazen")
                expected.append(np.quantile(observed, p, method="hazen") + change)
            found = cell_of_a_month(estimate, lat, 72.0, month)
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_quantile_delta_mapping_keeps_what_already_fits(predictors, observed):
    """A reference that is the ensemble mean in the training period leaves it as it is."""
    mean = ensemble_mean(predictors, xr.ones_like(observed), **TRAIN)
    reference = mean.isel(time=slice(0, 24)).assign_attrs(units="m3 m-3")
    estimate = quantile_delta_mapping(predictors, reference, **TRAIN)
    np.testing.assert_allclose(estimate, mean, atol=1e-6)


def test_quantile_delta_mapping_ignores_an_offset_of_the_sources(predictors, observed):
    expected = quantile_delta_mapping(predictors, observed, **TRAIN)
    offset = (predictors + np.float32(0.25)).assign_attrs(predictors.attrs)
    np.testing.assert_allclose(
        quantile_delta_mapping(offset, observed, **TRAIN), expected, atol=1e-6
    )


def test_quantile_delta_mapping_needs_a_window_with_a_middle_year(predictors, reference):
    with pytest.raises(ValueError, match="`years` must be odd.*got 30"):
        quantile_delta_mapping(predictors, reference, years=30, **TRAIN)


def test_ridge_agrees_with_least_squares_cell_by_cell(predictors, observed):
    """Ridge is ordinary least squares with sqrt(penalty months) as further rows of data."""
    estimate = ridge(predictors, observed, **TRAIN, **VALIDATION)
    cycle = climatology(predictors, observed, **TRAIN)
    spread_out = [
        ensemble_mean(predictors.isel(source_id=[s]), observed, **TRAIN) for s in range(2)
    ]
    lats, lons = np.nonzero(observed.notnull().any("time").values)
    fits = {penalty: [] for penalty in PENALTIES}
    for lat, lon in zip(lats, lons, strict=True):
        columns = []
        for source in spread_out:
            series = source.values[:, lat, lon].astype(float).reshape(-1, 12)
            columns.append((series - series[:2].mean(axis=0)).ravel())
        x = np.array(columns).T
        x /= x[:24].std(axis=0)
        y = observed.values[:24, lat, lon] - cycle.values[:24, lat, lon]
        here = np.isfinite(y)
        for penalty in PENALTIES:
            extra = np.sqrt(penalty * here.sum()) * np.eye(2)
            rows = np.vstack([x[:24][here], extra]), np.append(y[here], [0, 0])
            beta = np.linalg.lstsq(*rows, rcond=None)[0]
            fits[penalty].append(cycle.values[:, lat, lon] + x @ beta)
    truth = observed.values[24:27, lats, lons]
    errors = {
        penalty: np.square(np.array(fit)[:, 24:27].T - truth).sum() for penalty, fit in fits.items()
    }
    best = min(errors, key=errors.get)
    assert estimate.attrs["penalty"] == best
    np.testing.assert_allclose(estimate.values[:, lats, lons], np.array(fits[best]).T, atol=1e-6)


def test_ridge_follows_the_source_that_knows(predictors):
    known = ensemble_mean(predictors.isel(source_id=[1]), on_fine_grid(), **TRAIN)
    reference = known.isel(time=slice(0, 30)).assign_attrs(units="m3 m-3")
    estimate = ridge(predictors, reference, **TRAIN, **VALIDATION)
    assert estimate.attrs["penalty"] == PENALTIES.min()
    # the months after the validation period, where climatology is off by 0.1
    error = np.sqrt(((estimate - known)[30:] ** 2).mean())
    assert error < 2e-3 * np.sqrt(
        ((climatology(predictors, reference, **TRAIN) - known) ** 2).mean()
    )


def on_fine_grid():
    return on_grid(lambda t, lat, lon: 1 + 0 * lat, FINE_LAT, FINE_LON)


def test_ridge_of_sources_that_know_nothing_is_the_climatology(predictors, observed):
    opposite = observed.copy()
    anomaly = (observed - climatology(predictors, observed, **TRAIN)).isel(time=slice(0, 24))
    mean = anomalies(predictors, **TRAIN).isel(source_id=0)
    known = ensemble_mean(mean.expand_dims("source_id"), on_fine_grid(), **TRAIN)
    # what the sources say in the training period is wrong afterwards
    opposite[:24] = (observed[:24] - anomaly + known[:24]).values
    opposite[24:] = (climatology(predictors, opposite, **TRAIN) - known)[24:30].values
    estimate = ridge(predictors, opposite, **TRAIN, **VALIDATION)
    assert estimate.attrs["penalty"] == PENALTIES.max()
    np.testing.assert_allclose(estimate, climatology(predictors, opposite, **TRAIN), atol=1e-4)


def test_ridge_takes_a_missing_value_of_a_source_as_its_climatology(predictors, observed):
    gappy, filled = predictors.copy(), predictors.copy()
    gappy[0, 40] = np.nan
    past = predictors.sel(time=["2000-05-01", "2001-05-01"]).mean("time")
    filled[0, 40] = past.isel(source_id=0)
    xr.testing.assert_allclose(
        ridge(gappy, observed, **TRAIN, **VALIDATION),
        ridge(filled, observed, **TRAIN, **VALIDATION),
        atol=1e-6,
    )


def test_ridge_works_on_dask(predictors, observed):
    lazy = ridge(predictors.chunk(time=20), observed.chunk(time=15), **TRAIN, **VALIDATION)
    xr.testing.assert_identical(lazy, ridge(predictors, observed, **TRAIN, **VALIDATION))


@pytest.mark.parametrize("period", [("2001-06", "2002-03"), ("2005", "2006")])
def test_ridge_needs_a_validation_period_of_its_own(predictors, observed, period):
    with pytest.raises(ValueError, match="`validation_period` must hold values.*outside"):
        ridge(predictors, observed, **TRAIN, validation_period=period)


def test_ridge_needs_every_month_and_no_experiments(predictors, observed):
    with pytest.raises(ValueError, match="`predictors` must hold every month"):
        ridge(predictors.isel(time=slice(0, 25)), observed, **TRAIN, **VALIDATION)
    with pytest.raises(ValueError, match="`predictors` must have the dimensions.*experiment_id"):
        ridge(predictors.expand_dims("experiment_id"), observed, **TRAIN, **VALIDATION)


def test_bias_removed_has_the_mean_of_the_reference_and_the_season_of_the_sources(
    predictors, observed
):
    estimate, raw = (f(predictors, observed, **TRAIN) for f in (bias_removed, ensemble_mean))
    train = slice(*TRAIN["train_period"])
    for lat, lon in CELLS[:2]:
        x, y, z = (
            field.sel(lat=lat, lon=lon, time=train).values.astype(float)
            for field in (estimate, observed, raw)
        )
        np.testing.assert_allclose(x.mean(), np.nanmean(y), atol=1e-6)
        np.testing.assert_allclose(x - z, (x - z)[0], atol=1e-6)


def test_coarse_weights_give_the_mean_of_the_interpolated_field(predictors, reference):
    # a descending latitude on both grids, and a region of some cells with unequal weights
    predictors = predictors.sortby("lat", ascending=False)
    reference = xr.ones_like(reference).sortby("lat", ascending=False)  # no missing cells
    weights = reference.isel(time=0, drop=True) * np.cos(np.deg2rad(reference.lat))
    weights = weights.where((reference.lat > 19.3) & (reference.lon < 76.9), 0)
    coarse = coarse_weights(weights, predictors)
    assert coarse.dims == ("lat", "lon")
    xr.testing.assert_equal(coarse.lat, predictors.lat)
    np.testing.assert_allclose(coarse.sum(), weights.sum(), rtol=1e-6)

    interpolated = ensemble_mean(predictors, reference, **TRAIN)
    expected = interpolated.weighted(weights).mean(["lat", "lon"])
    found = predictors.weighted(coarse).mean(["lat", "lon"]).mean("source_id")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_coarse_weights_worked_by_hand(predictors):
    fine = xr.DataArray(
        np.zeros((FINE_LAT.size, FINE_LON.size)), {"lat": FINE_LAT, "lon": FINE_LON}, ("lat", "lon")
    )
    fine.loc[20.125, 75.125] = 2.0  # 9/16 of the way from 19 to 21 N, from 74 to 76 E
    coarse = coarse_weights(fine, predictors)
    expected = {(19, 74): 7 * 7, (19, 76): 7 * 9, (21, 74): 9 * 7, (21, 76): 9 * 9}
    for (lat, lon), share in expected.items():
        np.testing.assert_allclose(coarse.sel(lat=lat, lon=lon), 2 * share / 256, rtol=1e-6)
    np.testing.assert_allclose(coarse.sum(), 2)


def test_coarse_weights_refuse_another_domain(predictors):
    far = xr.DataArray(np.ones((1, 1)), {"lat": [20.0], "lon": [120.0]}, ("lat", "lon"))
    with pytest.raises(ValueError, match="must lie within the coarse cells"):
        coarse_weights(far, predictors)
