"""Agreement of an estimate with a reference.

All scores follow from the same weighted sums over the pairs of values that both sides have, of
means over time, tables, draws of years and shuffled years alike. The coordinate ``pairs`` of a
result says how many were used; where time, lat and lon are pooled, ``cells`` and ``months`` count
those that have a pair.
"""

import numpy as np
import xarray as xr
from scipy.special import stdtr

from smcore.seasons import monthly_climatology

FIELD, CELLS = ("time", "lat", "lon"), ("lat", "lon")
# Whether more is better (1), less (-1) or neither; and the scores that are made of pairs of months.
BETTER = {"skill": 1, "mae": -1, "rmsd": -1, "ubrmsd": -1, "bias": 0, "correlation": 1}
PERMUTED = ("mae", "rmsd", "ubrmsd", "correlation")


def bias(estimate, reference, *, dim=None, weights=None):
    """Mean difference, ``estimate - reference``, in its units; NaN where there is no pair."""
    return _scored(estimate, reference, dim, weights)["bias"]


def mae(estimate, reference, *, dim=None, weights=None):
    """Mean absolute difference, in the units of both; NaN where there is no pair."""
    return _scored(estimate, reference, dim, weights)["mae"]


def rmsd(estimate, reference, *, dim=None, weights=None):
    """Root of the mean squared difference, in the units of both; NaN where there is no pair."""
    return _scored(estimate, reference, dim, weights)["rmsd"]


def ubrmsd(estimate, reference, *, dim=None, weights=None):
    """Root-mean-square difference that is left after the mean difference is removed.

    ``rmsd**2 == bias**2 + ubrmsd**2`` (Entekhabi et al. 2010, Journal of Hydrometeorology 11,
    832-840, doi:10.1175/2010JHM1223.1). Below a millionth of the RMSD it is rounding, and 0.
    """
    return _scored(estimate, reference, dim, weights)["ubrmsd"]


def correlation(estimate, reference, *, dim=None, weights=None):
    """Pearson's correlation coefficient; NaN where either side is constant over the pairs."""
    return _scored(estimate, reference, dim, weights)["correlation"]


def mse_decomposition(estimate, reference, *, dim=None, weights=None):
    """Mean squared error ``mse``, and its parts from ``bias``, ``variance`` and ``phase``.

    ``(mean_e - mean_r)**2 + (std_e - std_r)**2 + 2 * std_e * std_r * (1 - r)`` (Gupta et al. 2009,
    doi:10.1016/j.jhydrol.2009.08.003); the last is 0 where one side is constant.
    """
    scores = _scored(estimate, reference, dim, weights)
    parts = xr.Dataset({"mse": scores["rmsd"] ** 2, "bias": scores["bias"] ** 2})
    parts["variance"] = (scores["std_estimate"] - scores["std_reference"]) ** 2
    parts["phase"] = (scores["ubrmsd"] ** 2 - parts["variance"]).clip(min=0)
    units = {"units": f"({reference.attrs['units']})2"} if "units" in reference.attrs else {}
    return parts.assign({name: part.assign_attrs(units) for name, part in parts.items()})


def variance_ratio(estimate, reference, *, dim=None, weights=None):
    """Variance of the estimate divided by that of the reference; NaN where the latter is 0."""
    scores = _scored(estimate, reference, dim, weights)
    ratio = (scores["std_estimate"] / scores["std_reference"].where(lambda std: std > 0)) ** 2
    return ratio.rename("variance_ratio").assign_attrs(units="1")


for _score in (bias, mae, rmsd, ubrmsd, correlation, mse_decomposition, variance_ratio):
    _score.__doc__ += """

    Parameters
    ----------
    estimate, reference : xr.DataArray
        Same units and coordinates, else a ValueError; dimensions of only one are broadcast.
    dim : str or sequence of str, optional
        Dimensions to average over, by default all.
    weights : xr.DataArray, optional
        Those of the cells, such as their areas, without missing values; by default equal.
    """


def skill_score(estimate, reference, baseline, *, dim=None):
    """Share of a baseline's mean squared error that the estimate removes.

    ``1 - MSE / MSE_baseline``: 1 is perfect, 0 as good as the baseline, NaN where that has no
    error. Murphy (1988), Monthly Weather Review 116, 2417-2424,
    doi:10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2

    Parameters
    ----------
    estimate, reference, baseline : xr.DataArray
        Same units and coordinates, else a ValueError; cells count where all three have a value.
    dim : str or sequence of str, optional
        Dimensions to average over, by default all.
    """
    common = reference.where(_valid(estimate, baseline))
    mse, of_baseline = (rmsd(field, common, dim=dim) ** 2 for field in (estimate, baseline))
    skill = 1 - mse / of_baseline.where(of_baseline > 0)
    return skill.rename("skill_score").assign_attrs(units="1")


def pooled_scores(estimate, reference, *, weights=None):
    """All scores and the spread of both sides, over all dimensions of `reference`.

    Further dimensions of `estimate` are kept: all are scored on the cells that every one has.
    """
    common = _where_all(estimate, reference)
    return _scores(_sums(estimate, common, common.dims, weights), common, common.notnull())


def taylor_statistics(estimate, reference):
    """The numbers of a normalised Taylor diagram, all dimensions of `reference` pooled.

    ``std_ratio`` and ``ubrmsd_ratio``, divided by the standard deviation of the reference, and
    ``correlation``, unweighted; NaN where they are undefined. ``ubrmsd_ratio**2 == 1 +
    std_ratio**2 - 2 * std_ratio * correlation`` (Taylor 2001, Journal of Geophysical Research 106,
    7183-7192, doi:10.1029/2000JD900719).

    Parameters
    ----------
    estimate, reference : xr.DataArray
        Same units and coordinates, else a ValueError. Further dimensions of `estimate`, such as
        ``dataset``, are compared on the cells that all have: only then does an ensemble mean vary
        at most as its members do on average.
    """
    scores = pooled_scores(estimate, reference)
    spread = scores["std_reference"].where(lambda std: std > 0)
    ratios = {"std_ratio": scores["std_estimate"] / spread, "correlation": scores["correlation"]}
    ratios["ubrmsd_ratio"] = scores["ubrmsd"] / spread
    return xr.Dataset({name: ratio.assign_attrs(units="1") for name, ratio in ratios.items()})


def deseasonalised(estimate, reference):
    """Both sides as deviations from their own mean of the calendar month, cell by cell.

    Of the months in which both have a value; 0 where an estimate repeats its climatology.
    """
    anomalies = []
    for field in _on_common_cells(estimate, reference):
        cycle = monthly_climatology(field).sel(month=field["time"].dt.month).drop_vars("month")
        anomaly = field - cycle
        # a value that is the same every year differs from its mean by rounding: no signal
        anomaly = anomaly.where(~(abs(anomaly) <= 1e-12 * abs(cycle)), 0)
        anomalies.append(anomaly.assign_attrs(field.attrs))
    return tuple(anomalies)


def spatial_correlation(estimate, reference, *, weights=None):
    """Pearson's spatial correlation: ``pooled``, ``mean_of_months`` and of the ``mean_map``.

    ``anomaly_pattern``, of both sides :func:`deseasonalised`, lacks the mean pattern that dominates
    the other three.
    """
    cells = {"dim": CELLS, "weights": weights}
    maps = [side.mean("time") for side in _on_common_cells(estimate, reference)]
    result = {
        "pooled": correlation(estimate, reference, dim=FIELD, weights=weights),
        "mean_of_months": correlation(estimate, reference, **cells).mean("time"),
        "mean_map": correlation(*maps, **cells).drop_vars("pairs"),
    }
    of_months = correlation(*deseasonalised(estimate, reference), **cells)
    return xr.Dataset(result | {"anomaly_pattern": of_months.mean("time")})


def bootstrap_scores(estimate, reference, *, weights=None, resamples=1000, seed):
    """:func:`pooled_scores` over years drawn with replacement, along ``resample``.

    All estimates have the same years: the difference of two is paired. Whole years, because months
    depend on each other (Wilks 1997, doi:10.1175/1520-0442(1997)010<0065:RHTFAF>2.0.CO;2).
    Intervals from few years are too narrow.
    """
    common = _where_all(estimate, reference)
    sums = _sums(_by_year(estimate), _by_year(common), ("month", *CELLS), weights)
    sums = xr.dot(_times_drawn(sums.sizes["year"], resamples, seed), sums, dim="year")
    return _scores(sums.transpose(..., "resample", "sum"), common, common.notnull())


def bootstrap_years(annual, *, resamples=1000, seed):
    """Means over the years that :func:`bootstrap_scores` draws for the same seed.

    ``resample`` takes the place of year; in single precision, for statistics of maps.
    """
    share = _times_drawn(annual.sizes["year"], resamples, seed) / annual.sizes["year"]
    annual = annual.drop_vars("year", errors="ignore")
    return xr.dot(share.astype("float32"), annual.astype("float32"), dim="year")


def confidence_interval(scores):
    """Percentiles 2.5 and 97.5 over ``resample``, along ``bound`` (``low``, ``high``)."""
    bounds = scores.quantile([0.025, 0.975], "resample", keep_attrs=True, skipna=False)
    return bounds.rename(quantile="bound").assign_coords(bound=["low", "high"])


def paired_test(one, other):
    """Student's t-test of whether two series of errors, paired by year, differ in their mean.

    ``difference`` is that of ``one - other``; the two-sided ``p_value`` is NaN where all
    differences are the same or fewer than two are valid.
    """
    scores = _scored(one, other, "year")
    freedom = (scores["pairs"] - 1).clip(min=0)
    t = scores["bias"] / scores["ubrmsd"].where(lambda spread: spread > 0) * np.sqrt(freedom)
    p_value = 2 * xr.apply_ufunc(stdtr, freedom, -abs(t))
    result = {"difference": scores["bias"].assign_attrs(one.attrs), "p_value": p_value}
    return xr.Dataset(result).drop_vars("pairs")


def monthly_mse(estimate, reference, *, regions, weights):
    """Mean squared error by region and calendar month, of whole years, in the squared units.

    `regions` are boolean masks (region, lat, lon), `weights` areas; NaN in a region without a pair.
    """
    mse = rmsd(_by_year(estimate), _by_year(reference), dim="year") ** 2
    mse = mse.assign_coords(month=range(1, 13)).weighted(regions * weights).mean(CELLS)
    return mse.transpose("region", "month")


def year_permutation_test(estimate, reference, *, score, weights=None, permutations=1000, seed):
    """Whether an estimate knows one year from another, or only the mean and the season.

    ``observed`` is the pooled `score`, ``permuted`` those with whole years of `estimate` shuffled;
    ``p_value`` is ``(1 + permutations as good) / (1 + permutations)``, 1 for an estimate that
    repeats its climatology. NaN where the score is not defined.
    """
    if score not in PERMUTED:
        raise ValueError(f"`score` must be one of {PERMUTED}, got {score!r}")
    if permutations < 200:
        raise ValueError(f"`permutations` must be at least 200, got {permutations}")
    sides = _by_year(estimate).rename(year="other"), _by_year(reference)
    sums = _sums(*sides, ("month", *CELLS), weights).transpose("other", "year", "sum").values
    random, years = np.random.default_rng(seed), np.arange(len(sums))
    order = np.array([years] + [random.permutation(years) for _ in range(permutations)])
    # year `order[k]` of the estimate stands where the reference has year k
    shuffled = xr.DataArray(sums[order, years].sum(axis=1), dims=("permutation", "sum"))
    found = _scores(shuffled, reference, _valid(estimate, reference))[score]
    observed, permuted = found[0], found[1:]
    better = BETTER[score] * (permuted - observed) > 0
    as_good = better | np.isclose(permuted, observed, rtol=1e-9, atol=0)  # rounding is no skill
    p_value = ((1 + as_good.sum()) / (1 + permutations)).where(observed.notnull())
    return xr.Dataset({"observed": observed, "permuted": permuted, "p_value": p_value})


def area_share(condition, weights, *, mask=None):
    """Percentage of the area of the boolean `mask` (by default all) in which a condition holds.

    A missing value never meets one: ``mask=field.notnull()`` leaves such cells out.
    """
    mask = xr.ones_like(condition, dtype=bool) if mask is None else mask
    for name, field in {"condition": condition, "mask": mask}.items():
        if field.dtype != bool:
            raise ValueError(f"`{name}` must be boolean, got {field.dtype}; compare it first")
    if not mask.any():
        raise ValueError("`mask` must hold at least one cell, got none")
    with xr.set_options(arithmetic_join="exact"):
        whole = (mask * weights).sum(CELLS)
        share = 100 * ((mask & condition) * weights).sum(CELLS) / whole.where(whole > 0)
    return share.rename("area_share").assign_attrs(long_name="share of area", units="%")


def together(fields, *, dim="dataset", join="exact"):
    """Fields (by name, a dict) as one array with a new first dimension, their names along it.

    Coordinates that are not dimensions are dropped; others must agree, but for ``join="outer"``.
    """
    plain = [field.reset_coords(drop=True) for field in fields.values()]
    index = xr.Variable(dim, list(fields))
    return xr.concat(plain, index, join=join, combine_attrs="drop_conflicts")


def _sums(estimate, reference, dim, weights):
    """Weighted sums over pairs, along the last dimension ``sum``; those of two years add up."""
    units = estimate.attrs.get("units"), reference.attrs.get("units")
    if None not in units and units[0] != units[1]:
        raise ValueError(f"`estimate` must have the units of `reference`, got {units}; convert it")
    dims, axes = reference.dims, range(reference.ndim)
    pooled = set([*dims, *estimate.dims] if dim is None else np.atleast_1d(dim))
    kept = [axis for axis in axes if dims[axis] not in pooled]
    # without its other coordinates: areas may carry the name of the experiment they come from
    weights = xr.DataArray(1.0) if weights is None else weights.reset_coords(drop=True)
    estimate, weights = (
        field.expand_dims({name: reference.sizes[name] for name in dims if name not in field.dims})
        for field in (estimate, weights)
    )

    def sums_of_one(x, y, weight):
        def total(part):
            return np.einsum(part, axes, weight, axes, kept)

        difference = np.subtract(x, y, dtype=float)
        valid = np.isfinite(difference)
        difference[~valid] = 0
        sums = [total(valid), total(difference), total(difference**2), total(abs(difference))]
        for side in (x, y):
            side = np.where(valid, side, np.float64(0))
            sums += [total(side), total(side**2)]
        return np.stack(sums, axis=-1)

    sums = xr.apply_ufunc(
        sums_of_one,
        *(estimate, reference, weights),
        input_core_dims=[dims] * 3,
        output_core_dims=[[*(dims[axis] for axis in kept), "sum"]],
        join="exact",  # by default two slightly different grids would keep their overlap only
        vectorize=True,  # one dataset at a time, which keeps the memory small
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True, "output_sizes": {"sum": 8}},
        output_dtypes=[float],
    )
    return sums.sum(pooled - set(dims))


def _scores(sums, reference, valid, dim=None):
    """Scores as a Dataset, from `_sums`, with the units of `reference`.

    Its coordinates count the pairs, and the cells and months with a pair where both are pooled.
    """

    def variance(mean, square):
        # below 1e-12 of the mean square it is rounding: the values are constant
        return xr.where(square - mean**2 <= 1e-12 * square, 0, square - mean**2)

    means = (sums[..., 1:] / sums[..., 0]).compute().drop_attrs()
    difference, squared, absolute, *sides = means.transpose("sum", ...)
    unbiased, of_x, of_y = variance(difference, squared), variance(*sides[:2]), variance(*sides[2:])
    scores = {"bias": difference, "mae": absolute, "rmsd": squared**0.5, "ubrmsd": unbiased**0.5}
    r = (of_x + of_y - unbiased) / (2 * (of_x * of_y) ** 0.5)  # the law of cosines
    scores["correlation"] = r.clip(-1, 1).where(of_x * of_y > 0)
    scores |= {"std_estimate": of_x**0.5, "std_reference": of_y**0.5}
    units = {"units": reference.attrs["units"]} if "units" in reference.attrs else {}
    for name, score in scores.items():
        score.attrs = {"units": "1"} if name == "correlation" else units
    pooled = set(valid.dims if dim is None else np.atleast_1d(dim))
    counts = {"pairs": valid.sum(pooled)}
    if pooled >= set(FIELD):
        counts["cells"] = valid.any(pooled - set(CELLS)).sum(CELLS)
        counts["months"] = valid.any(pooled - {"time"}).sum("time")
    return xr.Dataset(scores).assign_coords(counts)


def _scored(estimate, reference, dim, weights=None):
    sums = _sums(estimate, reference, dim, weights)
    return _scores(sums, reference, _valid(estimate, reference), dim)


def _valid(estimate, reference):
    with xr.set_options(arithmetic_join="exact"):
        return estimate.notnull() & reference.notnull()


def _on_common_cells(estimate, reference):
    """Both sides in double precision, missing where either is."""
    valid = _valid(estimate, reference)
    return [field.where(valid).astype(float) for field in (estimate, reference)]


def _where_all(estimate, reference):
    """The reference where every estimate has a value, too; `estimate` may have more dimensions."""
    own, others = set(reference.dims), set(estimate.dims)
    if own - others:
        raise ValueError(f"`estimate` lacks {own - others} of `reference`: broadcast it first")
    return reference.where(_valid(estimate, reference).all(others - own))


def _by_year(field):
    """Time, two or more whole calendar years, as the dimensions year and month."""
    month, years = field["time"].dt.month.values, np.unique(field["time"].dt.year.values).size
    if years < 2 or month.size != 12 * years or (month != np.tile(np.arange(1, 13), years)).any():
        raise ValueError(
            f"`reference` must hold two or more whole calendar years, got {month.size} months"
        )
    return field.drop_vars("time").coarsen(time=12).construct(time=("year", "month"))


def _times_drawn(years, resamples, seed):
    """How often each year is drawn, (resample, year)."""
    drawn = np.random.default_rng(seed).integers(years, size=(resamples, years))
    times = (drawn[:, :, None] == np.arange(years)).sum(axis=1)
    return xr.DataArray(times, dims=("resample", "year"))


def each(function, estimates, *others, **options):
    """What a function finds for one dataset of `estimates` after the other, :func:`together`."""
    fields = ((name, estimates.sel(dataset=name)) for name in estimates["dataset"].values)
    return together({name: function(field, *others, **options) for name, field in fields})
