"""Agreement of an estimate with a reference.

Every function ignores cells where either side is missing. How many pairs of values were
used stands beside the result, in its coordinate ``pairs``; where cells and months are pooled,
the coordinates ``cells`` and ``months`` count those that have a pair. To compare several
estimates on the same cells and months, mask them with :func:`common_mask`.
"""

import numpy as np
import xarray as xr
from scipy.special import stdtr

from smcore.seasons import monthly_climatology

FIELD = ("time", "lat", "lon")
LOWER_IS_BETTER = {"mae": True, "rmsd": True, "ubrmsd": True, "correlation": False}


def bias(estimate, reference, *, dim=None, weights=None):
    """Mean difference, ``estimate - reference``.

    Parameters
    ----------
    estimate, reference : xr.DataArray
        What is scored, and against what. Same units and identical coordinates; dimensions
        that only one of them has are broadcast.
    dim : str or sequence of str, optional
        Dimensions to average over. Default: all, those of one side only included.
    weights : xr.DataArray, optional
        Weights of the cells, for instance their areas, without missing values. Default:
        all cells count the same.

    Returns
    -------
    xr.DataArray
        Bias in the units of `reference`, NaN where there is no pair. Its coordinate
        ``pairs`` holds the number of pairs used.

    Raises
    ------
    ValueError
        If units or coordinates of `estimate` and `reference` differ.
    """
    difference = _difference(estimate, reference)
    result = _over(difference, weights).mean(dim)
    return _labelled(result, "bias", difference, dim, reference.attrs.get("units"))


def mae(estimate, reference, *, dim=None, weights=None):
    """Mean absolute difference.

    Arguments, result and errors are those of :func:`bias`.
    """
    difference = _difference(estimate, reference)
    result = _over(abs(difference), weights).mean(dim)
    return _labelled(result, "mae", difference, dim, reference.attrs.get("units"))


def rmsd(estimate, reference, *, dim=None, weights=None):
    """Root of the mean squared difference.

    Arguments, result and errors are those of :func:`bias`.
    """
    difference = _difference(estimate, reference)
    result = np.sqrt(_over(difference**2, weights).mean(dim))
    return _labelled(result, "rmsd", difference, dim, reference.attrs.get("units"))


def ubrmsd(estimate, reference, *, dim=None, weights=None):
    """Root-mean-square difference that is left after the mean difference is removed.

    Arguments, result and errors are those of :func:`bias`.

    Notes
    -----
    Since ``rmsd**2 == bias**2 + ubrmsd**2``, it is the population standard deviation of the
    difference, and computed as such.

    References
    ----------
    Entekhabi et al. (2010), Journal of Hydrometeorology 11, 832-840,
    doi:10.1175/2010JHM1223.1
    """
    difference = _difference(estimate, reference)
    result = _over(difference, weights).std(dim)
    return _labelled(result, "ubrmsd", difference, dim, reference.attrs.get("units"))


def correlation(estimate, reference, *, dim=None, weights=None):
    """Pearson's correlation coefficient.

    Arguments and errors are those of :func:`bias`, and so is the coordinate ``pairs`` of the
    result. NaN where either side is constant over the pairs, so also where there is only one.
    """
    common = _difference(estimate, reference).notnull()
    sides = [field.where(common).astype(float) for field in (estimate, reference)]
    equal = xr.ones_like(sides[0].isel(dict.fromkeys(sides[0].dims, 0), drop=True))
    weight = equal if weights is None else weights
    dims = ... if dim is None else dim
    total = xr.dot(common, weight, dim=dims)

    def mean(field):
        return xr.dot(field, weight, dim=dims) / total.where(total > 0)

    x, y = (field.fillna(0) for field in sides)
    x, y = ((field - mean(field)).where(common, 0) for field in (x, y))
    spread = np.sqrt(mean(x * x) * mean(y * y))
    # by maximum and minimum, because rounding gives a constant field a spread of 1e-17
    estimate, reference = sides
    varies = (estimate.max(dim) > estimate.min(dim)) & (reference.max(dim) > reference.min(dim))
    result = (mean(x * y) / spread.where(varies)).clip(-1, 1)
    return _labelled(result, "correlation", estimate, dim, "1")


def taylor_statistics(estimate, reference):
    """The numbers of a normalised Taylor diagram.

    Parameters
    ----------
    estimate : xr.DataArray
        What is scored. Has the dimensions of `reference`; further ones, such as
        ``source_id`` or ``dataset``, are kept.
    reference : xr.DataArray
        Against what. All its dimensions (time, lat, lon) are pooled, cells unweighted.

    Returns
    -------
    xr.Dataset
        ``std_ratio`` and ``ubrmsd_ratio``, both divided by the standard deviation of the
        reference, and ``correlation``. NaN where the reference is constant; the correlation
        also where the estimate is.

    Raises
    ------
    ValueError
        If units or coordinates differ, or `estimate` lacks a dimension of `reference`.

    Notes
    -----
    All datasets are compared on the same cells: those where the reference and *every*
    dataset have a value. Only then can they share a diagram, and only then is the standard
    deviation of an ensemble mean at most the mean of its members' standard deviations.
    Standard deviations are those of the population, so that the law of cosines holds:
    ``ubrmsd_ratio**2 == 1 + std_ratio**2 - 2 * std_ratio * correlation``.

    References
    ----------
    Taylor (2001), Journal of Geophysical Research 106, 7183-7192, doi:10.1029/2000JD900719
    """
    common = common_mask(estimate, reference)
    std_ratio, r, ubrmsd_ratio = xr.apply_ufunc(
        _taylor,
        estimate,
        reference,
        common,
        input_core_dims=[reference.dims] * 3,
        output_core_dims=[[], [], []],
        join="exact",
        vectorize=True,  # one dataset at a time, which keeps the memory small
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[float] * 3,
    )
    result = xr.Dataset(
        {"std_ratio": std_ratio, "correlation": r, "ubrmsd_ratio": ubrmsd_ratio},
        coords=_used(common, None),
    )
    for variable in result.data_vars.values():
        variable.attrs = {"units": "1"}
    return result


def skill_score(estimate, reference, baseline, *, dim=None):
    """Share of a baseline's mean squared error that the estimate removes.

    Parameters
    ----------
    estimate, reference, baseline : xr.DataArray
        What is scored, against what, and what has to be beaten. Same units, identical
        coordinates.
    dim : str or sequence of str, optional
        Dimensions to average over. Default: all.

    Returns
    -------
    xr.DataArray
        ``1 - MSE / MSE_baseline`` over the cells where all three have a value: 1 is
        perfect, 0 as good as the baseline, negative worse. NaN where the baseline has no
        error. Coordinate ``pairs``: the number of cells used.

    Raises
    ------
    ValueError
        If units or coordinates differ.

    References
    ----------
    Murphy (1988), Monthly Weather Review 116, 2417-2424,
    doi:10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2
    """
    squared = _difference(estimate, reference) ** 2
    squared_baseline = _difference(baseline, reference) ** 2
    with xr.set_options(arithmetic_join="exact"):
        common = squared.notnull() & squared_baseline.notnull()

    mse = squared.where(common).mean(dim)
    mse_baseline = squared_baseline.where(common).mean(dim)
    result = 1 - mse / mse_baseline.where(mse_baseline > 0)
    return _labelled(result, "skill_score", squared.where(common), dim, "1")


def mse_decomposition(estimate, reference, *, dim=None, weights=None):
    """Mean squared error, and its parts from bias, variance and phase.

    Arguments and errors are those of :func:`bias`.

    Returns
    -------
    xr.Dataset
        ``mse`` and its terms ``bias``, ``variance`` and ``phase``, in the squared units of
        `reference`, NaN where there is no pair.

    Notes
    -----
    ``mse = (mean_e - mean_r)**2 + (std_e - std_r)**2 + 2 * std_e * std_r * (1 - r)`` with
    population standard deviations. The last term is what the correlation leaves; computed as
    ``ubrmsd**2 - variance``, it is 0, not undefined, where one side is constant.

    References
    ----------
    Gupta et al. (2009), Journal of Hydrology 377, 80-91, doi:10.1016/j.jhydrol.2009.08.003
    """
    difference, estimate, reference = _common(estimate, reference)
    spread = _over(estimate, weights).std(dim) - _over(reference, weights).std(dim)
    parts = {
        "mse": _over(difference**2, weights).mean(dim),
        "bias": _over(difference, weights).mean(dim) ** 2,
        "variance": spread**2,
        "phase": (_over(difference, weights).std(dim) ** 2 - spread**2).clip(min=0),
    }
    units = f"({reference.attrs['units']})2" if "units" in reference.attrs else None
    return xr.Dataset(
        {name: _labelled(part, name, difference, dim, units) for name, part in parts.items()}
    )


def variance_ratio(estimate, reference, *, dim=None, weights=None):
    """Variance of the estimate divided by that of the reference.

    Arguments and errors are those of :func:`bias`, and so are the coordinates of the result.
    NaN where the reference is constant. :func:`deseasonalised` takes the season out of both.
    """
    difference, estimate, reference = _common(estimate, reference)
    varies = reference.max(dim) > reference.min(dim)
    variance = _over(reference, weights).var(dim).where(varies)
    result = _over(estimate, weights).var(dim) / variance
    return _labelled(result, "variance_ratio", difference, dim, "1")


def deseasonalised(estimate, reference):
    """Both sides as deviations from their own mean of the calendar month.

    Arguments, with the dimension time, and errors are those of :func:`bias`. The mean is taken
    cell by cell over the months in which both have a value. For the correlation in time of each
    cell without its season: ``correlation(*deseasonalised(estimate, reference), dim="time")``,
    which is NaN where an estimate repeats its climatology.

    Returns
    -------
    tuple of xr.DataArray
        Anomalies of `estimate` and of `reference`, missing where either side is.
    """
    return tuple(_anomaly(field) for field in _common(estimate, reference)[1:])


def spatial_correlation(estimate, reference, *, weights=None):
    """Pearson's spatial correlation in its variants, which answer different questions.

    Arguments, with dimensions time, lat and lon, and errors are those of :func:`bias`; further
    dimensions of `estimate` are kept, and take their memory: of many datasets, one at a time.

    Returns
    -------
    xr.Dataset
        ``pooled``: of all cells and months together. ``mean_of_months``: mean of the
        correlations of the single months. ``mean_map``: of the two maps of time means.
        ``anomaly_pattern``: mean of the correlations of the single months, after each side's
        mean of the calendar month has been removed from each cell (:func:`deseasonalised`); the
        mean pattern, which dominates the other three, has no part in it. Months without a
        correlation are left out; NaN if all are, as for an estimate that repeats its climatology.
    """
    cells = ("lat", "lon")
    difference, estimate, reference = _common(estimate, reference)
    maps = estimate.mean("time"), reference.mean("time")
    anomalies = _anomaly(estimate), _anomaly(reference)
    variants = {
        "pooled": correlation(estimate, reference, dim=FIELD, weights=weights),
        "mean_of_months": correlation(estimate, reference, dim=cells, weights=weights).mean("time"),
        "mean_map": correlation(*maps, dim=cells, weights=weights),
        "anomaly_pattern": correlation(*anomalies, dim=cells, weights=weights).mean("time"),
    }
    result = xr.Dataset({name: field.reset_coords(drop=True) for name, field in variants.items()})
    return result.assign_coords(_used(difference.notnull(), FIELD))


def common_mask(estimate, reference):
    """Cells and months in which the reference and every estimate have a value.

    Arguments and errors are those of :func:`taylor_statistics`, the result is boolean with the
    dimensions of `reference`.
    """
    missing = [name for name in reference.dims if name not in estimate.dims]
    if missing:
        raise ValueError(
            f"`estimate` must have the dimensions of `reference`, got {estimate.dims} without "
            f"{missing}; broadcast it first"
        )
    _require_same_units(estimate, reference)
    datasets = [name for name in estimate.dims if name not in reference.dims]
    with xr.set_options(arithmetic_join="exact"):
        return (estimate.notnull() & reference.notnull()).all(datasets)


def bootstrap_scores(estimate, reference, *, weights=None, resamples=1000, seed):
    """Scores of estimates over years drawn with replacement.

    Parameters
    ----------
    estimate : xr.DataArray
        With dimensions time, lat and lon; further ones, such as ``dataset``, are kept.
    reference : xr.DataArray
        With dimensions time, lat and lon, the same whole calendar years.
    weights : xr.DataArray, optional
        Weights of the cells, (lat, lon) or (lat). Default: all cells count the same.
    resamples : int, default: 1000
        How often as many years as there are, all twelve months of each, are drawn.
    seed : int
        Of the random numbers.

    Returns
    -------
    xr.Dataset
        ``bias``, ``mae``, ``rmsd``, ``ubrmsd`` and ``correlation``, pooled over the cells and
        months of :func:`common_mask`, with the new dimension ``resample``. In one resample all
        estimates have the same years: the difference of two is paired.
        :func:`confidence_interval` turns scores, or their differences, into intervals.

    Raises
    ------
    ValueError
        If units or coordinates differ, or time is not two or more whole calendar years.

    Notes
    -----
    A year is the block: months within it, and cells, may depend on each other, years may not.
    Intervals from few years are too narrow: seven years have 1716 different resamples, and no
    year outside them is known. All scores follow from sums over each year.

    References
    ----------
    Wilks (1997), Journal of Climate 10, 65-82,
    doi:10.1175/1520-0442(1997)010<0065:RHTFAF>2.0.CO;2
    """
    sums, common = _sums_of_years(estimate, reference, weights)
    drawn = _times_drawn(sums.sizes["year"], resamples, seed)
    resampled = xr.dot(xr.DataArray(drawn, dims=("resample", "year")), sums, dim="year")
    return _pooled(resampled.transpose(..., "resample", "sum"), reference, common)


def pooled_scores(estimate, reference, *, weights=None):
    """Scores of estimates over all cells and months, in one pass.

    Arguments and errors are those of :func:`bootstrap_scores`, and so is the result, without the
    dimension ``resample``.
    """
    sums, common = _sums_of_years(estimate, reference, weights)
    return _pooled(sums.sum("year"), reference, common)


def bootstrap_years(annual, *, resamples=1000, seed):
    """Means over years drawn with replacement.

    Parameters
    ----------
    annual : xr.DataArray
        With the dimension year; further ones, such as lat and lon, are kept.
    resamples, seed
        As in :func:`bootstrap_scores`, and the same years for the same seed and number of years.

    Returns
    -------
    xr.DataArray
        In single precision, with the new dimension ``resample`` in place of year: for
        statistics of maps, such as a share of area.
    """
    share = _times_drawn(annual.sizes["year"], resamples, seed) / annual.sizes["year"]
    weights = xr.DataArray(share.astype("float32"), dims=("resample", "year"))
    return xr.dot(weights, annual.astype("float32").drop_vars("year", errors="ignore"), dim="year")


def paired_test(one, other, *, dim="year"):
    """Whether two series of errors differ in their mean, for each cell.

    Parameters
    ----------
    one, other : xr.DataArray
        Errors of two estimates, such as the mean absolute error of each year, with `dim`.
    dim : str, default: "year"
        Dimension along which they are pairs, each independent of the others.

    Returns
    -------
    xr.Dataset
        ``difference``: the mean of ``one - other``. ``p_value`` of Student's two-sided t-test for
        pairs; NaN where all differences are the same or fewer than two are valid.

    Raises
    ------
    ValueError
        If units or coordinates differ.
    """
    difference = _difference(one, other)
    pairs = difference.notnull().sum(dim)
    spread = difference.std(dim, ddof=1).where(difference.max(dim) > difference.min(dim))
    mean = difference.mean(dim)
    t = mean / (spread / np.sqrt(pairs))
    p_value = xr.apply_ufunc(lambda freedom, t: 2 * stdtr(freedom, -abs(t)), pairs - 1, t)
    return xr.Dataset({"difference": mean.assign_attrs(one.attrs), "p_value": p_value})


def monthly_mse(estimate, reference, *, regions, weights):
    """Mean squared error by region and calendar month.

    Parameters
    ----------
    estimate, reference : xr.DataArray
        As in :func:`bias`, with dimensions time, lat, lon.
    regions : xr.DataArray of bool
        Masks with dimensions region, lat, lon.
    weights : xr.DataArray
        Areas of the cells.

    Returns
    -------
    xr.DataArray
        In the squared units, with dimensions region and month (1 to 12): ``1 - ratio`` of two of
        them is a skill score. NaN where a region has no pair.
    """
    squared = _difference(estimate, reference) ** 2
    month = squared["time"].dt.month.values
    by_month = [squared.isel(time=month == number).mean("time") for number in range(1, 13)]
    index = xr.Variable("month", range(1, 13))
    squared = xr.concat(by_month, index)
    return squared.weighted(regions * weights).mean(("lat", "lon")).transpose("region", "month")


def outside_range(predictors, *, train_period):
    """Values beyond those that a source had in the same cell and calendar month in training.

    Parameters
    ----------
    predictors : xr.DataArray
        With the dimension time, one value per month, beside any others.
    train_period : pair of str
        First and last year, both included.

    Returns
    -------
    xr.DataArray of bool
        As `predictors`; False in the training period itself.

    Notes
    -----
    Of n independent training years without change, a further year lies outside with probability
    2/(n + 1): 9.5 % for 20 years, 3.9 % for 50. What exceeds that is new to the network.
    """
    month = predictors["time"].dt.month.values
    inside = predictors.sel(time=slice(*train_period))
    parts = []
    for number in range(1, 13):
        past = inside.isel(time=inside["time"].dt.month.values == number)
        if past.sizes["time"] == 0:
            raise ValueError(
                f"`train_period` must hold every calendar month of `predictors`, got "
                f"{train_period[0]} to {train_period[1]} without month {number}"
            )
        here = predictors.isel(time=month == number)
        parts.append((here < past.min("time")) | (here > past.max("time")))
    return xr.concat(parts, "time").sortby("time").transpose(*predictors.dims)


def confidence_interval(scores):
    """Bounds between which 95 % of the resampled scores lie.

    Parameters
    ----------
    scores : xr.DataArray or xr.Dataset
        With the dimension ``resample``: scores from :func:`bootstrap_scores`, or their
        difference or ratio for two estimates.

    Returns
    -------
    xr.DataArray or xr.Dataset
        The percentiles 2.5 and 97.5, along the new dimension ``bound`` (``low``, ``high``). NaN
        where a resample is.
    """
    bounds = scores.quantile([0.025, 0.975], "resample", keep_attrs=True, skipna=False)
    return bounds.rename(quantile="bound").assign_coords(bound=["low", "high"])


def year_permutation_test(estimate, reference, *, score, weights=None, permutations=1000, seed):
    """Whether an estimate knows one year from another, or only the mean and the season.

    Parameters
    ----------
    estimate, reference, weights, seed
        As in :func:`bootstrap_scores`, but a single estimate.
    score : {"mae", "rmsd", "ubrmsd", "correlation"}
        Pooled over all cells and months.
    permutations : int, default: 1000
        How often the years of `estimate` are shuffled, at least 200. All twelve months of a
        year move together, and stay in their calendar month.

    Returns
    -------
    xr.Dataset
        ``observed``: the score of `estimate` itself. ``permuted``: those of its permutations,
        along ``permutation``. ``p_value``: ``(1 + permutations as good) / (1 + permutations)``.
        All NaN where the score is not defined.

    Raises
    ------
    ValueError
        If `score` is unknown, if there are fewer than 200 permutations, or as in
        :func:`bootstrap_scores`.

    Notes
    -----
    Mean, season and variance of an estimate without gaps are the same in every permutation. A
    small p-value means that it follows the reference from year to year, by a common trend or
    by weather; an estimate that repeats its climatology has p = 1.
    """
    if score not in LOWER_IS_BETTER:
        raise ValueError(f"`score` must be one of {tuple(LOWER_IS_BETTER)}, got {score!r}")
    if permutations < 200:
        raise ValueError(f"`permutations` must be at least 200, got {permutations}")
    common = common_mask(estimate, reference)
    years = _whole_years(reference)
    cell_weights = _cell_weights(weights, reference)
    x, y = (_per_year(field.transpose(*FIELD).values) for field in (estimate, reference))
    weight = np.tile(cell_weights.transpose(*FIELD[1:]).values.ravel(), 12)
    here = np.isfinite(y).any(axis=0) & np.isfinite(x).any(axis=0)  # the ocean takes no part
    x, y, weight = x[:, here], y[:, here], weight[here]
    sums = np.array([_sums(one, y, weight) for one in x])

    random = np.random.default_rng(seed)
    order = np.array([np.arange(years)] + [random.permutation(years) for _ in range(permutations)])
    # year `order[k]` of the estimate stands where the reference has year k
    found = _scores(sums[order, np.arange(years)].sum(axis=1))[score]
    observed, permuted = found[0], found[1:]
    better = permuted < observed if LOWER_IS_BETTER[score] else permuted > observed
    as_good = better | np.isclose(permuted, observed, rtol=1e-9, atol=0)  # rounding is no skill
    p_value = np.where(np.isnan(observed), np.nan, (1 + as_good.sum()) / (1 + permutations))
    result = xr.Dataset(
        {"observed": observed, "permuted": ("permutation", permuted), "p_value": p_value}
    )
    for name in ("observed", "permuted"):
        result[name].attrs = _units_of(score, reference)
    return result.assign_coords(_used(common, None))


def area_share(condition, weights, *, mask=None):
    """Percentage of the area in which a condition holds.

    Parameters
    ----------
    condition : xr.DataArray of bool
        With dimensions lat and lon; further ones are kept.
    weights : xr.DataArray
        Area of the cells, or something proportional to it: (lat, lon) or (lat).
    mask : xr.DataArray of bool, optional
        The cells that make up the whole area. A missing value never meets a condition
        (``NaN < 0.04`` is False), so give ``mask=field.notnull()`` to leave out the cells
        where `field` is missing. Default: every cell of the array counts.

    Returns
    -------
    xr.DataArray
        Share in %. NaN where, along a further dimension, `mask` holds no cell.

    Raises
    ------
    ValueError
        If `condition` or `mask` is not boolean, if `mask` is empty, or if coordinates differ.
    """
    mask = xr.ones_like(condition, dtype=bool) if mask is None else mask
    for name, field in {"condition": condition, "mask": mask}.items():
        if field.dtype != bool:
            raise ValueError(f"`{name}` must be boolean, got {field.dtype}; compare it first")
    if not mask.any():
        raise ValueError("`mask` must hold at least one cell, got none")

    with xr.set_options(arithmetic_join="exact"):
        whole = ((mask & xr.ones_like(condition)) * weights).sum(("lat", "lon"))
        part = ((mask & condition) * weights).sum(("lat", "lon"))
    share = 100 * part / whole.where(whole > 0)
    share.attrs = {"long_name": "share of area", "units": "%"}
    return share.rename("area_share")


def together(fields, *, dim="dataset", join="exact"):
    """Fields by name as one array with a new first dimension.

    Parameters
    ----------
    fields : dict of str to xr.DataArray or xr.Dataset
        Same dimensions; coordinates that are not dimensions are dropped.
    dim : str, default: "dataset"
        Name of the new dimension; the names of the fields become its coordinate.
    join : {"exact", "outer"}, default: "exact"
        Whether different coordinates are an error, or missing where a field has none.
    """
    plain = [
        field.drop_vars([name for name in field.coords if name not in field.dims])
        for field in fields.values()
    ]
    index = xr.Variable(dim, list(fields))
    return xr.concat(plain, index, join=join, combine_attrs="drop_conflicts")


def _require_same_units(estimate, reference):
    units = estimate.attrs.get("units"), reference.attrs.get("units")
    if None not in units and units[0] != units[1]:
        raise ValueError(
            f"`estimate` must have the units of `reference`, {units[1]!r}, got {units[0]!r}; "
            "convert one of them"
        )


def _difference(estimate, reference):
    """The difference in double precision, NaN where either side is missing."""
    _require_same_units(estimate, reference)
    # exact, because by default two slightly different grids would keep their overlap only
    with xr.set_options(arithmetic_join="exact"):
        return estimate.astype(float) - reference


def _common(estimate, reference):
    """Difference, and both sides in double precision, missing where either side is."""
    difference = _difference(estimate, reference)
    sides = [field.where(difference.notnull()).astype(float) for field in (estimate, reference)]
    return difference, *sides


def _anomaly(field):
    cycle = monthly_climatology(field).sel(month=field["time"].dt.month).drop_vars("month")
    anomaly = field - cycle
    # a value that is the same every year differs from its mean by rounding, which is no signal
    return anomaly.where(~(abs(anomaly) <= 1e-12 * abs(cycle)), 0).assign_attrs(field.attrs)


def _over(field, weights):
    return field if weights is None else field.weighted(weights)


def _labelled(result, name, used, dim, units):
    result = result.assign_coords(_used(used.notnull(), dim)).rename(name)
    result.attrs = {"units": units} if units else {}
    return result


def _used(valid, dim):
    """Numbers of pairs, and of cells and months with a pair where both are pooled."""
    dims = set(valid.dims if dim is None else [dim] if isinstance(dim, str) else dim)
    counts = {"pairs": valid.sum(dims)}
    if dims >= set(FIELD):
        counts["cells"] = valid.any(dims - {"lat", "lon"}).sum(("lat", "lon"))
        counts["months"] = valid.any(dims - {"time"}).sum("time")
    return counts


def _taylor(estimate, reference, common):
    estimate, reference = estimate[common].astype(float), reference[common].astype(float)
    if estimate.size == 0 or reference.max() == reference.min():
        return np.nan, np.nan, np.nan

    estimate_std, reference_std = estimate.std(), reference.std()
    ubrmsd_ratio = (estimate - reference).std() / reference_std
    if estimate.max() == estimate.min():
        return 0.0, np.nan, ubrmsd_ratio
    covariance = ((estimate - estimate.mean()) * (reference - reference.mean())).mean()
    r = np.clip(covariance / (estimate_std * reference_std), -1, 1)
    return estimate_std / reference_std, r, ubrmsd_ratio


def _units_of(score, reference):
    units = "1" if score == "correlation" else reference.attrs.get("units")
    return {"units": units} if units else {}


def _whole_years(field):
    """Number of calendar years, if there are at least two and all are whole."""
    month = field["time"].dt.month.values
    years = np.unique(field["time"].dt.year.values).size
    if years < 2 or month.size != 12 * years or (month != np.tile(np.arange(1, 13), years)).any():
        raise ValueError(
            "`reference` must hold two or more whole calendar years, January to December, got "
            f"{month.size} months of {years}"
        )
    return years


def _times_drawn(years, resamples, seed):
    """How often each year is drawn, (resample, year)."""
    drawn = np.random.default_rng(seed).integers(years, size=(resamples, years))
    return (drawn[:, :, None] == np.arange(years)).sum(axis=1)


def _cell_weights(weights, reference):
    """(lat, lon), 1 by default."""
    equal = xr.ones_like(reference.isel(time=0, drop=True), dtype=float)
    with xr.set_options(arithmetic_join="exact"):
        return equal if weights is None else equal * weights


def _per_year(field):
    """(time, lat, lon) as (year, month and cell)."""
    return field.reshape(len(field) // 12, -1).astype(float)


def _sums_of_years(estimate, reference, weights):
    """`_sums` with dimensions year and sum after those of the estimates; the common mask."""
    common, years = common_mask(estimate, reference), _whole_years(reference)

    def of_years(estimate, reference, common, weights):
        x, y = (_per_year(np.where(common, field, np.nan)) for field in (estimate, reference))
        here = np.isfinite(x).any(axis=0)  # the ocean takes no part
        return _sums(x[:, here], y[:, here], np.tile(weights.ravel(), 12)[here])

    sums = xr.apply_ufunc(
        of_years,
        estimate,
        reference,
        common,
        _cell_weights(weights, reference),
        input_core_dims=[FIELD] * 3 + [FIELD[1:]],
        output_core_dims=[["year", "sum"]],
        join="exact",
        vectorize=True,  # one dataset at a time, which keeps the memory small
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True, "output_sizes": {"year": years, "sum": 8}},
        output_dtypes=[float],
    )
    return sums, common


def _pooled(sums, reference, common):
    """Scores from `_sums` along the last dimension."""
    like = sums.isel(sum=0)
    result = xr.Dataset(
        {name: like.copy(data=values) for name, values in _scores(sums.values).items()}
    )
    for name, score in result.data_vars.items():
        score.attrs = _units_of(name, reference)
    return result.assign_coords(_used(common, None))


def _sums(x, y, weight):
    """Weighted sums, along the last axis, of what pooled scores are made of: they add up."""
    difference = x - y
    valid = np.isfinite(difference)
    x, y, difference = (np.where(valid, part, 0) for part in (x, y, difference))
    parts = (valid, abs(difference), difference, difference**2, x, x**2, y, y**2)
    return np.stack([part @ weight for part in parts], axis=-1)


def _scores(sums):
    """Pooled scores from sums (..., 8) of `_sums`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.moveaxis(sums[..., 1:] / sums[..., :1], -1, 0)
        absolute, difference, of_difference, x, of_x, y, of_y = means
        # below 1e-12 of the mean square a variance is rounding: the side is constant
        unbiased, of_x, of_y = (
            np.where(square - mean**2 <= 1e-12 * square, 0, square - mean**2)
            for mean, square in ((difference, of_difference), (x, of_x), (y, of_y))
        )
        r = (of_x + of_y - unbiased) / (2 * np.sqrt(of_x * of_y))  # the law of cosines
    r = np.where(of_x * of_y > 0, np.clip(r, -1, 1), np.nan)
    scores = {"bias": difference, "mae": absolute, "rmsd": np.sqrt(of_difference)}
    return scores | {"ubrmsd": np.sqrt(unbiased), "correlation": r}
