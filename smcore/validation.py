"""What is scored in the test years: products, baselines and sources, on common cells."""

import numpy as np
import pandas as pd
import xarray as xr

from smcore import baselines, metrics
from smcore.grids import block_means
from smcore.prepared import open_predictors, open_reference, open_static, stored
from smcore.product import open_product
from smcore.store import fresh, recipe, write_dataset

SCORES = list(metrics.BETTER)

BASELINES = {  # id: (function, options)
    "ensemble_mean": (baselines.ensemble_mean, {}),
    "bias_removed": (baselines.bias_removed, {}),
    "climatology": (baselines.climatology, {}),
    "delta_change": (baselines.delta_change, {}),
    "delta_change_31": (baselines.delta_change, {"years": 31}),
    "mean_variance_scaling": (baselines.mean_variance_scaling, {}),
    "quantile_delta_mapping": (baselines.quantile_delta_mapping, {}),
    "ridge": (baselines.ridge, {}),
}


def open_estimates(study):
    """Every estimate of the test years, and the reference, both missing where any of them is.

    theta(dataset, time, lat, lon) in m3 m-3: a product for each preset (the study's own first), the
    baselines, and each source interpolated to the fine grid, as the coordinate ``kind`` says; and
    theta(time, lat, lon). Chapters 1 to 3 make what is read; an error names the one to run.
    """
    test = slice(*study.periods.test)
    reference = open_reference(study).sel(time=test).load()
    predictors = open_predictors(study, "historical").sel(time=test)

    def one_by_one():
        for name, one in study.presets.items():
            yield "product", f"ynet_{name}", open_product(one.product("historical")).sel(time=test)
        for name, field in open_baselines(study).items():
            yield "baseline", name, field
        for source_id in study.sources:
            source = predictors.sel(source_id=[source_id])
            field = baselines.ensemble_mean(source, reference, train_period=study.periods.test)
            yield "source", source_id, field

    count = len(study.presets) + len(BASELINES) + len(study.sources)
    values = np.empty((count, *reference.shape), "float32")  # at once: they need no second copy
    kinds, names, common = [], [], reference.notnull()
    for number, (kind, name, field) in enumerate(one_by_one()):
        xr.align(field, reference, join="exact")
        values[number] = field.transpose(*reference.dims)
        common &= np.isfinite(values[number])
        kinds.append(kind)
        names.append(name)
    values[:, ~common.values] = np.nan
    coords = {"dataset": names, "kind": ("dataset", kinds), **reference.coords}
    dims = ("dataset", *reference.dims)
    return xr.DataArray(values, coords, dims, attrs={"units": "m3 m-3"}), reference.where(common)


def score_table(estimates, reference, *, weights, seed=0):
    """Pooled scores of the estimates, with `weights` of the cells, along dataset and score.

    ``value``; ``low`` and ``high``, the 95 % interval over years drawn with replacement; ``ahead``:
    whether the value is the best and the interval of its difference from every other dataset
    excludes zero (never in ``bias``). ``skill`` is ``1 - MSE / MSE`` of the climatology.
    """
    drawn, value = (
        scores.assign(skill=1 - (scores["rmsd"] / scores["rmsd"].sel(dataset="climatology")) ** 2)
        .to_array("score")
        .sel(score=SCORES)
        .drop_attrs()
        for scores in (
            metrics.bootstrap_scores(estimates, reference, weights=weights, seed=seed),
            metrics.pooled_scores(estimates, reference, weights=weights),
        )
    )
    sign = pd.Series(metrics.BETTER).rename_axis("score").to_xarray()
    best = (sign * value).fillna(-np.inf).argmax("dataset")
    gap = sign * (drawn.isel(dataset=best, drop=True) - drawn)
    beaten = (gap.quantile(0.025, "resample", skipna=False) > 0) | gap.isnull().all("resample")
    winner = xr.DataArray(range(value.sizes["dataset"]), {"dataset": value["dataset"]}) == best
    ahead = winner & value.notnull() & (beaten | winner).all("dataset") & (sign != 0)
    ahead = ahead.drop_vars("quantile", errors="ignore") & (value.sizes["dataset"] > 1)
    return _with_interval(value, drawn).assign(ahead=ahead)


def score_frame(table):
    """A :func:`score_table` as a pd.DataFrame: with columns ``mae``, ``mae_low`` etc."""
    frame = table.to_dataframe().unstack("score").swaplevel(axis=1).sort_index(axis=1)
    frame.columns = ["_".join(column).removesuffix("_value") for column in frame.columns]
    return frame


def paired_differences(estimates, reference, *, weights, of, against, score="rmsd", seed=0):
    """Score of the datasets `of` less that of those `against`, along dataset and against.

    ``value`` with its 95 % interval ``low`` to ``high``, over the years of :func:`score_table`.
    """
    names = list(dict.fromkeys([*of, *against]))
    sides = estimates.sel(dataset=names), reference
    value = metrics.pooled_scores(*sides, weights=weights)[score]
    drawn = metrics.bootstrap_scores(*sides, weights=weights, seed=seed)[score]
    value, drawn = (
        one.sel(dataset=of) - one.sel(dataset=against).rename(dataset="against")
        for one in (value, drawn)
    )
    return _with_interval(value, drawn)


def _with_interval(value, drawn):
    ends = metrics.confidence_interval(drawn).to_dataset("bound")
    return value.to_dataset(name="value").assign(ends)


def coverage(years):
    """In how many % of samples of normal noise the interval over draws of years holds the mean."""
    normal = np.random.default_rng(0).standard_normal((years, 2000))
    drawn = metrics.bootstrap_years(xr.DataArray(normal, dims=("year", "trial")), seed=0)
    low, high = metrics.confidence_interval(drawn)
    return 100 * float(((low < 0) & (high > 0)).mean())


def error_shares(errors, area, masks):
    """Shares of areas in % with a mean absolute error below 0.04, above 0.06 and above 0.1 m3 m-3.

    Of `errors` (dataset, lat, lon) and `masks` by name: a pd.DataFrame with a row a dataset.
    """
    limits = {"< 0.04": errors < 0.04, "> 0.06": errors > 0.06, "> 0.1": errors > 0.1}
    columns = {
        (name, f"MAE {limit} m³ m⁻³"): metrics.area_share(cells, area, mask=mask).to_series()
        for name, mask in masks.items()
        for limit, cells in limits.items()
    }
    return pd.DataFrame(columns)


def anatomy(estimates, reference, *, weights):
    """Parts of the mean squared error in %, and spatial correlations, of each dataset."""

    def of_one(field):
        parts = metrics.mse_decomposition(field, reference, weights=weights)
        of_space = metrics.spatial_correlation(field, reference, weights=weights)
        shares = 100 * parts[["bias", "variance", "phase"]] / parts["mse"]
        return shares.merge(of_space, compat="override")

    return metrics.each(of_one, estimates)


def at_sites(fields, sites, area):
    """Series of datasets at sites: the mean of the cells that touch a point (longitude, latitude).

    On a corner of the grid of the four around it, weighted with their `area`. `fields` by name.
    """
    reach = 0.51 * float(abs(area["lat"][1] - area["lat"][0]))
    masks = {
        name: (abs(area["lat"] - lat) < reach) & (abs(area["lon"] - lon) < reach)
        for name, (lon, lat) in sites.items()
    }
    return region_series(fields, metrics.together(masks, dim="site"), area)


def region_series(fields, masks, area):
    """Means of datasets, by name, over boolean masks: dataset, time and the dimension of these."""
    weights = masks * area
    series = {name: field.weighted(weights).mean(["lat", "lon"]) for name, field in fields.items()}
    return metrics.together(series).assign_attrs(units="m3 m-3", long_name="water content")


def outside_training(predictors, land, *, train_period):
    """Share of the sources' values over land that lie outside the range of the training period.

    In %, along ``range`` and time, weighted with the areas `land` (lat, lon): of ``cell and
    month``, what the same source had in the same cell and calendar month, and of the ``whole
    source``. The first bounds from above what is new to a convolution, which shares its weights
    among cells and months, the second from below. Of n independent years without change, a further
    one lies outside the first range with probability 2/(n + 1).
    """
    inside = baselines.in_train_period(predictors, train_period, "predictors")
    of_month, month = inside.groupby("time.month"), predictors["time"].dt.month
    low, high = (one.sel(month=month) for one in (of_month.min("time"), of_month.max("time")))
    over_land, whole = inside.where(land > 0), ["time", "lat", "lon"]
    ranges = {
        "cell and month": (predictors < low) | (predictors > high),
        "whole source": (predictors < over_land.min(whole)) | (predictors > over_land.max(whole)),
    }
    both = metrics.together(ranges, dim="range")
    return 100 * both.astype("float32").weighted(land).mean(["source_id", "lat", "lon"])


def moisture_regimes(theta, area, *, high):
    """Masks (region, lat, lon) of high land, and of a dry, a middle and a wet third of the rest.

    The thirds of `theta` (lat, lon) share out the `area` without the cells `high` equally, as far
    as whole cells allow; regimes without a cell are left out. They stand for aridity, which would
    need precipitation and evaporation, and are relative to the study area.
    """
    with xr.set_options(arithmetic_join="exact"):
        valid = theta.notnull()
        rest = valid & ~high
        weight = (rest * area).transpose(*theta.dims)
    order = np.argsort(theta.where(rest).values, axis=None)  # missing values last
    weight = weight.values.ravel()[order]
    third = np.empty(order.size, int)
    third[order] = np.minimum(3 * (weight.cumsum() - weight / 2) / max(weight.sum(), 1e-300), 2)
    third = theta.copy(data=third.reshape(theta.shape))
    regimes = {"high land": valid & high}
    for number, name in enumerate(("dry", "middle", "wet")):
        regimes[f"{name} third"] = rest & (third == number)
    regimes = metrics.together(regimes, dim="region")
    return regimes.drop_attrs().rename("regime").sel(region=regimes.any(theta.dims))


def open_baselines(study):
    """The baselines in the test years by id, theta(time, lat, lon) in m3 m-3.

    Fitted at the first call and kept. FileNotFoundError or ValueError if the prepared store is not
    there, or is damaged or out of date.
    """
    periods, inputs, found = study.periods, None, {}
    names = ["reference.nc", *(f"theta_{source_id}_historical.nc" for source_id in study.sources)]
    paths = [stored(study, name) for name in names]
    settings = study.settings("periods.train", "periods.validation", "periods.test")
    for name, (function, options) in BASELINES.items():
        if function is baselines.ridge:
            options = options | {"validation_period": periods.validation}
        path = study.prepared / "baselines" / f"{name}.nc"
        made = recipe("baselines", settings=settings | {name: options}, inputs=paths)
        if not fresh(path, made):
            inputs = inputs or (open_predictors(study, "historical"), open_reference(study).load())
            estimate = function(*inputs, train_period=periods.train, **options)
            estimate = estimate.sel(time=slice(*periods.test)).compute()
            write_dataset(estimate.to_dataset(name="theta"), path, made)
        found[name] = xr.load_dataset(path)["theta"]
    return found


def regimes_of(study, area):
    """The :func:`moisture_regimes` of the study area in the training years, high above 3000 m."""
    static, train = open_static(study), slice(*study.periods.train)
    theta = open_reference(study).sel(time=train).mean("time").where(static["study_area"])
    return moisture_regimes(theta, area, high=static["elevation"] > 3000)


def outside_by_period(study, area):
    """Means of :func:`outside_training` in the validation and test years and in the scenarios.

    `area` is that of the fine cells; a pd.DataFrame with a row for each experiment and period.
    """
    past, periods, found = open_predictors(study, "historical"), study.periods, {}
    land = block_means(area * open_static(study)["land"], study.scale_factor)
    land = land.assign_coords(lat=past["lat"], lon=past["lon"])
    known = {("historical", of): getattr(periods, of) for of in ("validation", "test")}
    for name in study.experiments:
        run = xr.concat([past, open_predictors(study, name)], "time")
        share = outside_training(run, land, train_period=periods.train)
        future = {(name, "-".join(years)): years for years in periods.change}
        for row, years in (known | future).items():
            found[row] = share.sel(time=slice(*years)).mean("time").to_series()
    return pd.DataFrame(found).T
