"""What is scored in the test years: products, baselines and sources, on common cells."""

import numpy as np
import pandas as pd
import xarray as xr

from smcore import baselines, metrics
from smcore.grids import block_means
from smcore.prepared import open_predictors, open_reference, open_static, stored
from smcore.product import open_product
from smcore.store import fresh, recipe, write_dataset

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
SCORES = ["skill", "mae", "rmsd", "ubrmsd", "bias", "correlation"]


def open_estimates(study):
    """Every estimate of the test years, and the reference, both missing where any of them is.

    Chapters 1 to 3 make what is read; an error names the one that has to run.

    Returns
    -------
    estimates : xr.DataArray
        theta(dataset, time, lat, lon) in m3 m-3: a product for each preset (``ynet_sound``, the
        study's own first), the baselines, and each source interpolated to the fine grid. The
        coordinate ``kind`` is product, baseline or source.
    reference : xr.DataArray
        theta(time, lat, lon) in m3 m-3.
    """
    test = slice(*study.periods.test)
    reference = open_reference(study).sel(time=test).load()
    predictors = open_predictors(study, "historical").sel(time=test)

    def one_by_one():
        for name, one in study.presets.items():
            yield f"ynet_{name}", "product", open_product(one.product("historical")).sel(time=test)
        for name, field in open_baselines(study).items():
            yield name, "baseline", field
        for source_id in study.sources:
            source = predictors.sel(source_id=[source_id])
            field = baselines.ensemble_mean(source, reference, train_period=study.periods.test)
            yield source_id, "source", field

    count = len(study.presets) + len(BASELINES) + len(study.sources)
    values = np.empty((count, *reference.shape), "float32")  # at once: they need no second copy
    names, kinds, common = [], [], reference.notnull()
    for number, (name, kind, field) in enumerate(one_by_one()):
        xr.align(field, reference, join="exact")
        values[number] = field.transpose(*reference.dims)
        common &= np.isfinite(values[number])
        names.append(name)
        kinds.append(kind)
    values[:, ~common.values] = np.nan
    coords = {"dataset": names, "kind": ("dataset", kinds)} | dict(reference.coords)
    dims = ("dataset", *reference.dims)
    estimates = xr.DataArray(values, coords, dims, attrs={"units": "m3 m-3"})
    return estimates, reference.where(common)


def score_table(estimates, reference, *, weights, baseline="climatology", seed=0):
    """Pooled scores of the estimates with intervals over the years.

    Parameters
    ----------
    estimates, reference : xr.DataArray
        theta(dataset, time, lat, lon) and theta(time, lat, lon), whole calendar years.
    weights : xr.DataArray
        Areas of the cells.
    baseline : str, default: "climatology"
        The dataset that the skill score refers to.
    seed : int, default: 0
        Of the years that are drawn.

    Returns
    -------
    xr.Dataset
        Dimensions dataset and score. ``value``; ``low`` and ``high``, the 95 % interval over years
        drawn with replacement; ``ahead``: whether the value is the best and the interval of its
        difference from every other dataset excludes zero (never in ``bias``). ``skill`` is
        ``1 - MSE / MSE`` of the baseline, in every draw with the same years.
    """
    drawn, value = (
        scores.assign(skill=1 - (scores["rmsd"] / scores["rmsd"].sel(dataset=baseline)) ** 2)
        .to_array("score")
        .sel(score=SCORES)
        .drop_attrs()
        for scores in (
            metrics.bootstrap_scores(estimates, reference, weights=weights, seed=seed),
            metrics.pooled_scores(estimates, reference, weights=weights),
        )
    )
    sign = xr.DataArray([1, -1, -1, -1, 0, 1], {"score": SCORES}, "score")
    bounds = metrics.confidence_interval(drawn)
    best = (sign * value).fillna(-np.inf).argmax("dataset")
    gap = sign * (drawn.isel(dataset=best, drop=True) - drawn)
    beaten = (gap.quantile(0.025, "resample", skipna=False) > 0) | gap.isnull().all("resample")
    winner = xr.DataArray(range(value.sizes["dataset"]), {"dataset": value["dataset"]}) == best
    ahead = winner & value.notnull() & (beaten | winner).all("dataset") & (sign != 0)
    ahead = ahead.drop_vars("quantile", errors="ignore") & (value.sizes["dataset"] > 1)
    ends = {bound: bounds.sel(bound=bound, drop=True) for bound in ("low", "high")}
    return xr.Dataset({"value": value, **ends, "ahead": ahead})


def score_frame(table):
    """A :func:`score_table` as a pd.DataFrame: with columns ``mae``, ``mae_low`` etc."""
    frame = table.to_dataframe().unstack("score").swaplevel(axis=1).sort_index(axis=1)
    frame.columns = ["_".join(column).removesuffix("_value") for column in frame.columns]
    return frame


def paired_differences(estimates, reference, *, weights, of, against, score="rmsd", seed=0):
    """Score of the datasets `of` less that of those `against`, with its 95 % interval.

    ``value``, ``low`` and ``high`` have the dimensions dataset and against. Both sides of a
    difference have the same years in every draw; those of :func:`score_table` for the same seed.
    """
    names = list(dict.fromkeys([*of, *against]))
    sides = estimates.sel(dataset=names), reference
    value = metrics.pooled_scores(*sides, weights=weights)[score]
    drawn = metrics.bootstrap_scores(*sides, weights=weights, seed=seed)[score]
    value, drawn = (
        one.sel(dataset=of) - one.sel(dataset=against).rename(dataset="against")
        for one in (value, drawn)
    )
    bounds = metrics.confidence_interval(drawn)
    ends = {bound: bounds.sel(bound=bound, drop=True) for bound in ("low", "high")}
    return xr.Dataset({"value": value, **ends})


def coverage(years, *, trials=2000):
    """In how many % of samples of normal noise the interval over draws of years holds the mean."""
    normal = np.random.default_rng(0).standard_normal((years, trials))
    drawn = metrics.bootstrap_years(xr.DataArray(normal, dims=("year", "trial")), seed=0)
    low, high = metrics.confidence_interval(drawn)
    return 100 * float(((low < 0) & (high > 0)).mean())


def error_shares(errors, area, masks):
    """Shares of areas in % with a mean absolute error below 0.04, above 0.06 and above 0.1 m3 m-3.

    `errors` (dataset, lat, lon) in m3 m-3, `masks` by name; a pd.DataFrame with a row a dataset.
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
    found = {}
    for name in estimates["dataset"].values:
        field = estimates.sel(dataset=name)
        parts = metrics.mse_decomposition(field, reference, dim=reference.dims, weights=weights)
        shares = 100 * parts[["bias", "variance", "phase"]] / parts["mse"]
        of_space = metrics.spatial_correlation(field, reference, weights=weights)
        found[name] = shares.merge(of_space, compat="override")
    return metrics.together(found)


def at_sites(fields, sites, area):
    """Series of datasets at sites: the mean of the cells that touch a point (longitude, latitude).

    `fields` (by name) have the dimensions time, lat, lon; a site on a corner of the grid is the
    mean of the four cells around it, weighted with their `area`.
    """
    step = float(abs(area["lat"][1] - area["lat"][0]))
    masks = {
        name: (abs(area["lat"] - lat) < 0.51 * step) & (abs(area["lon"] - lon) < 0.51 * step)
        for name, (lon, lat) in sites.items()
    }
    return region_series(fields, metrics.together(masks, dim="site"), area)


def region_series(fields, masks, area):
    """Means of datasets (by name) over boolean masks, with the dimensions dataset, site, time."""
    series = {
        name: field.weighted(masks * area).mean(["lat", "lon"]) for name, field in fields.items()
    }
    long_name = "water content"
    return metrics.together(series).assign_attrs(units="m3 m-3", long_name=long_name)


def outside_training(predictors, land, *, train_period):
    """Share of the sources' values over land that lie outside the range of the training period.

    Parameters
    ----------
    predictors : xr.DataArray
        theta(source_id, time, lat, lon) on the coarse grid, one value per month.
    land : xr.DataArray
        Area of land in each coarse cell, (lat, lon): the weights.
    train_period : pair of str
        First and last year, both included.

    Returns
    -------
    xr.DataArray
        In %, dimensions ``range`` and time, 0 in the training period itself: of ``cell and
        month``, what the same source had in the same cell and calendar month, and of the ``whole
        source``, all its cells of land and all months together. The first bounds from above what
        is new to a convolution, which shares its weights among cells and months, the second from
        below.

    Notes
    -----
    Of n independent training years without change, a further year lies outside the first range
    with probability 2/(n + 1).
    """
    month = predictors["time"].dt.month
    inside = predictors.sel(time=slice(*train_period))
    known = inside["time"].dt.month
    if lacking := sorted(set(month.values) - set(known.values)):
        raise ValueError(
            f"`train_period` must hold every calendar month of `predictors`, got {train_period[0]} "
            f"to {train_period[1]} without month {lacking[0]}"
        )
    by_month = [
        (here < past.min("time")) | (here > past.max("time"))
        for here, past in (
            (predictors[{"time": month == number}], inside[{"time": known == number}])
            for number in np.unique(month)
        )
    ]
    over_land = inside.where(land > 0)
    low, high = (getattr(over_land, of)(["time", "lat", "lon"]) for of in ("min", "max"))
    here = xr.concat(by_month, "time").sortby("time")
    ranges = {"cell and month": here, "whole source": (predictors < low) | (predictors > high)}
    both = metrics.together(ranges, dim="range")
    return 100 * both.astype("float32").weighted(land).mean(["source_id", "lat", "lon"])


def moisture_regimes(theta, area, *, high):
    """High land, and a dry, a middle and a wet third of the rest.

    Parameters
    ----------
    theta : xr.DataArray
        Mean volumetric water content, (lat, lon). Missing outside the study area.
    area : xr.DataArray
        Area of the cells, (lat, lon) or (lat).
    high : xr.DataArray of bool
        Cells of high land, (lat, lon), which form a regime of their own.

    Returns
    -------
    xr.DataArray of bool
        Dimensions region (``high land``, ``dry third``, ``middle third``, ``wet third``), lat, lon;
        regimes without a cell are left out. No cell belongs to two of them; the thirds share out
        the area without high land in equal parts, as far as whole cells allow.

    Notes
    -----
    Surface soil moisture stands here for aridity, which would need precipitation and potential
    evaporation: the regimes are relative to the study area, not classes of an aridity index.
    """
    with xr.set_options(arithmetic_join="exact"):
        valid = theta.notnull()
        rest = valid & ~high
        weight = (rest * area).transpose(*theta.dims)
    order = np.argsort(theta.where(rest).values, axis=None)  # missing values last
    before = np.cumsum(weight.values.ravel()[order]) - weight.values.ravel()[order] / 2
    third = np.empty(order.size, int)
    third[order] = np.minimum(3 * before / max(float(weight.sum()), 1e-300), 2)
    third = theta.copy(data=third.reshape(theta.shape))
    regimes = [valid & high, *(rest & (third == number) for number in range(3))]
    names = xr.Variable("region", ["high land", "dry third", "middle third", "wet third"])
    regimes = xr.concat(regimes, names).drop_attrs().rename("regime")
    return regimes.sel(region=regimes.any(theta.dims))


def open_baselines(study):
    """The baselines in the test years by id, fitted at the first call and kept.

    Parameters
    ----------
    study : Study
        With its prepared store.

    Returns
    -------
    dict of str to xr.DataArray
        theta(time, lat, lon) in m3 m-3.

    Raises
    ------
    FileNotFoundError, ValueError
        If the prepared store is not there, or is damaged or out of date.
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
