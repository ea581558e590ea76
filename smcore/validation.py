"""What is scored in the test years: products, baselines and sources, on common cells."""

import json
import time
from hashlib import sha256

import numpy as np
import xarray as xr

import smcore
from smcore import baselines, metrics
from smcore.prepared import open_predictors, open_reference
from smcore.product import open_product
from smcore.store import write_dataset

BASELINES = {  # name: (function, options)
    "ensemble mean": (baselines.ensemble_mean, {}),
    "bias removed": (baselines.bias_removed, {}),
    "climatology": (baselines.climatology, {}),
    "delta change": (baselines.delta_change, {}),
    "delta change, 31 years": (baselines.delta_change, {"years": 31}),
    "mean and variance scaling": (baselines.mean_variance_scaling, {}),
    "quantile delta mapping": (baselines.quantile_delta_mapping, {}),
    "ridge": (baselines.ridge, {}),
}
SCORES = ("skill", "mae", "rmsd", "ubrmsd", "bias", "correlation")


def open_estimates(study):
    """Every estimate of the test years, and the reference.

    Parameters
    ----------
    study : Study
        With its prepared store and its products; chapters 1 to 3 make them.

    Returns
    -------
    estimates : xr.DataArray
        theta(dataset, time, lat, lon) in m3 m-3: a product for each preset (``product, sound``,
        the study's own first), the baselines, and each source interpolated to the fine grid. The
        coordinate ``kind`` is product, baseline or source.
    reference : xr.DataArray
        theta(time, lat, lon) in m3 m-3. Both are missing where any of them is.

    Raises
    ------
    FileNotFoundError
        If the store or a product is not there; the message names the chapter that makes it.
    ValueError
        If a product has other months or another grid than the reference.
    """
    test = slice(*study.periods.test)
    reference = open_reference(study).sel(time=test).load()
    predictors = open_predictors(study, "historical").sel(time=test)

    def one_by_one():
        for name, one in study.presets.items():
            yield (
                f"product, {name}",
                "product",
                open_product(one.product("historical")).sel(time=test),
            )
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
    estimates = xr.DataArray(
        values,
        {"dataset": names, "kind": ("dataset", kinds)} | dict(reference.coords),
        ("dataset", *reference.dims),
        attrs={"units": "m3 m-3"},
    )
    return estimates, reference.where(common)


def score_table(estimates, reference, *, weights, baseline="climatology", seed=0):
    """Pooled scores of the estimates with intervals over the years.

    Parameters
    ----------
    estimates : xr.DataArray
        theta(dataset, time, lat, lon).
    reference : xr.DataArray
        theta(time, lat, lon), whole calendar years, missing where any estimate is.
    weights : xr.DataArray
        Areas of the cells.
    baseline : str, default: "climatology"
        The dataset that the skill score refers to.
    seed : int, default: 0
        Of the years that are drawn.

    Returns
    -------
    xr.Dataset
        Dimensions dataset and score (``skill``, ``mae``, ``rmsd``, ``ubrmsd``, ``bias``,
        ``correlation``). ``value``; ``low`` and ``high``, the 95 % interval over years drawn with
        replacement; ``ahead``: whether the value is the best and the interval of its difference
        from every other dataset excludes zero (never in ``bias``). Skill is ``1 - MSE / MSE`` of
        the baseline, in every draw with the same years.
    """
    options = {"weights": weights, "seed": seed}
    drawn = metrics.bootstrap_scores(estimates, reference, **options)
    value = metrics.pooled_scores(estimates, reference, weights=weights)
    drawn, value = (
        scores.assign(skill=1 - (scores["rmsd"] / scores["rmsd"].sel(dataset=baseline)) ** 2)
        .to_array("score")
        .sel(score=list(SCORES))
        .drop_attrs()
        for scores in (drawn, value)
    )
    sign = xr.DataArray([1, -1, -1, -1, 0, 1], {"score": list(SCORES)}, "score")
    bounds = metrics.confidence_interval(drawn)
    low, high = (bounds.sel(bound=bound, drop=True) for bound in ("low", "high"))
    best = (sign * value).fillna(-np.inf).argmax("dataset")
    gap = sign * (drawn.isel(dataset=best, drop=True) - drawn)
    beaten = (gap.quantile(0.025, "resample", skipna=False) > 0) | gap.isnull().all("resample")
    winner = xr.DataArray(range(value.sizes["dataset"]), {"dataset": value["dataset"]}) == best
    ahead = winner & value.notnull() & (beaten | winner).all("dataset") & (sign != 0)
    ahead = ahead.drop_vars("quantile", errors="ignore") & (value.sizes["dataset"] > 1)
    return xr.Dataset({"value": value, "low": low, "high": high, "ahead": ahead})


def winners(scores, score, by, *, tolerance=0.01):
    """Which methods are best, up to a tolerance, along the values of a switch.

    Parameters
    ----------
    scores : pd.DataFrame
        One row for each method and value, with the columns ``method``, `by` and `score`.
    score : str
        Lower is better.
    by : str
        The column of the switch.
    tolerance : float, default: 0.01
        Share of the lowest score by which another one counts as equal to it.

    Returns
    -------
    str
        ``"a, b at 0 to 0.1; c at 0.2"``, methods in the order of the rows.
    """
    runs = []
    for value, rows in scores.groupby(by):
        best = rows["method"][rows[score] <= (1 + tolerance) * rows[score].min()]
        methods = ", ".join(best)
        if runs and runs[-1][0] == methods:
            runs[-1][1].append(value)
        else:
            runs.append((methods, [value]))
    return "; ".join(
        f"{methods} at {' to '.join(f'{value:g}' for value in dict.fromkeys([at[0], at[-1]]))}"
        for methods, at in runs
    )


def outside_training(predictors, land, *, train_period):
    """Share of the sources' values over land that lie outside the range of the training period.

    Parameters
    ----------
    predictors : xr.DataArray
        theta(source_id, time, lat, lon) on the coarse grid.
    land : xr.DataArray
        Area of land in each coarse cell, (lat, lon): the weights.
    train_period : pair of str
        First and last year, both included.

    Returns
    -------
    xr.DataArray
        In %, dimensions ``range`` and time: of ``cell and month``, see
        :func:`smcore.metrics.outside_range`, and of the ``whole source``, all its cells of land
        and all months of training together. The first bounds from above what is new to a
        convolution, which shares its weights among cells and months, the second from below.
    """
    here = metrics.outside_range(predictors, train_period=train_period)
    past = predictors.sel(time=slice(*train_period)).where(land > 0)
    low, high = (getattr(past, of)(["time", "lat", "lon"]) for of in ("min", "max"))
    whole = (predictors < low) | (predictors > high)
    both = metrics.together({"cell and month": here, "whole source": whole}, dim="range")
    return 100 * both.astype("float32").weighted(land).mean(["source_id", "lat", "lon"])


def open_baselines(study):
    """The baselines in the test years, fitted at the first call and stored.

    Parameters
    ----------
    study : Study
        With its prepared store.

    Returns
    -------
    dict of str to xr.DataArray
        theta(time, lat, lon) in m3 m-3 by name. ``attrs["seconds"]`` is the time that fitting
        and applying it took.
    """
    folder, periods = study.prepared / "baselines", study.periods
    manifest = json.loads((study.prepared / "manifest.json").read_text())["files"]
    files = ["reference.nc", *(f"theta_{source_id}_historical.nc" for source_id in study.sources)]
    settings = [smcore.__version__, {name: manifest[name] for name in files}]
    settings += [periods.train, periods.validation, periods.test]
    inputs, found = None, {}
    for name, (function, options) in BASELINES.items():
        if function is baselines.ridge:
            options = options | {"validation_period": periods.validation}
        key = sha256(json.dumps([settings, name, options]).encode()).hexdigest()
        path = folder / f"{name.replace(',', '').replace(' ', '_')}.nc"
        if not _made_with(path, key):
            inputs = inputs or (open_predictors(study, "historical"), open_reference(study).load())
            start = time.perf_counter()
            estimate = function(*inputs, train_period=periods.train, **options)
            estimate = estimate.sel(time=slice(*periods.test)).compute()
            estimate.attrs["seconds"] = time.perf_counter() - start
            write_dataset(estimate.to_dataset(name="theta").assign_attrs(key=key), path)
        found[name] = xr.load_dataset(path)["theta"]
    return found


def _made_with(path, key):
    if not path.exists():
        return False
    with xr.open_dataset(path) as stored:
        return stored.attrs.get("key") == key
