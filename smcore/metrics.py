"""Agreement of an estimate with a reference.

All scores follow from the same weighted sums over the pairs of values that both sides have, for
means over time, pooled tables, draws of years and shuffled years alike: `_sums` and `_scores`.
How many pairs were used stands beside a result, in its coordinate ``pairs``; where cells and
months are pooled, ``cells`` and ``months`` count those that have a pair. Dimensions are time, lat
and lon, units and coordinates of both sides the same; what differs raises a ValueError.
"""

from functools import partial

import numpy as np
import xarray as xr
from scipy.special import stdtr

from smcore.seasons import monthly_climatology

FIELD, CELLS = ("time", "lat", "lon"), ("lat", "lon")
LOWER_IS_BETTER = {"mae": True, "rmsd": True, "ubrmsd": True, "correlation": False}
SCORES = ["bias", *LOWER_IS_BETTER]
ARGUMENTS = """

    `estimate` and `reference` have the same units and identical coordinates; dimensions of only
    one of them are broadcast. `dim` names those to average over, by default all. `weights` are
    those of the cells, such as their areas, without missing values; by default equal.
    """


def _score(function):
    """A score, with the arguments that all of them take added to its docstring."""
    function.__doc__ += ARGUMENTS
    return function


@_score
def bias(estimate, reference, *, dim=None, weights=None):
    """Mean difference, ``estimate - reference``, in its units; NaN where there is no pair."""
    return _scored(estimate, reference, dim, weights, sides=False)["bias"]


@_score
def mae(estimate, reference, *, dim=None, weights=None):
    """Mean absolute difference, in the units of both; NaN where there is no pair."""
    return _scored(estimate, reference, dim, weights, sides=False)["mae"]


@_score
def rmsd(estimate, reference, *, dim=None, weights=None):
    """Root of the mean squared difference, in the units of both; NaN where there is no pair."""
    return _scored(estimate, reference, dim, weights, sides=False)["rmsd"]


@_score
def ubrmsd(estimate, reference, *, dim=None, weights=None):
    """Root-mean-square difference that is left after the mean difference is removed.

    Since ``rmsd**2 == bias**2 + ubrmsd**2``, it is the population standard deviation of the
    difference (Entekhabi et al. 2010, Journal of Hydrometeorology 11, 832-840,
    doi:10.1175/2010JHM1223.1). Below a millionth of the RMSD it is rounding, and 0.
    """
    return _scored(estimate, reference, dim, weights, sides=False)["ubrmsd"]


@_score
def correlation(estimate, reference, *, dim=None, weights=None):
    """Pearson's correlation coefficient; NaN where either side is constant over the pairs."""
    return _scored(estimate, reference, dim, weights)["correlation"]


@_score
def mse_decomposition(estimate, reference, *, dim=None, weights=None):
    """Mean squared error ``mse``, and its parts from ``bias``, ``variance`` and ``phase``.

    ``mse = (mean_e - mean_r)**2 + (std_e - std_r)**2 + 2 * std_e * std_r * (1 - r)`` (Gupta et al.
    2009, Journal of Hydrology 377, 80-91, doi:10.1016/j.jhydrol.2009.08.003). The last term is
    what the correlation leaves: 0, not undefined, where one side is constant.
    """
    scores = _scored(estimate, reference, dim, weights)
    parts = {"mse": scores["rmsd"] ** 2, "bias": scores["bias"] ** 2}
    parts["variance"] = (scores["std_estimate"] - scores["std_reference"]) ** 2
    parts["phase"] = (scores["ubrmsd"] ** 2 - parts["variance"]).clip(min=0)
    units = {"units": f"({reference.attrs['units']})2"} if "units" in reference.attrs else {}
    return xr.Dataset({name: part.drop_attrs().assign_attrs(units) for name, part in parts.items()})


@_score
def variance_ratio(estimate, reference, *, dim=None, weights=None):
    """Variance of the estimate divided by that of the reference; NaN where the latter is 0."""
    scores = _scored(estimate, reference, dim, weights)
    ratio = (scores["std_estimate"] / scores["std_reference"].where(lambda std: std > 0)) ** 2
    return ratio.rename("variance_ratio").assign_attrs(units="1")


def skill_score(estimate, reference, baseline, *, dim=None):
    """Share of a baseline's mean squared error that the estimate removes.

    ``1 - MSE / MSE_baseline`` over the cells where all three have a value: 1 is perfect, 0 as
    good as the baseline, negative worse; NaN where the baseline has no error. `dim`: dimensions
    to average over, by default all. Murphy (1988), Monthly Weather Review 116, 2417-2424,
    doi:10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2
    """
    common = reference.where(_valid(estimate, baseline))
    mse, of_baseline = (rmsd(field, common, dim=dim) ** 2 for field in (estimate, baseline))
    skill = 1 - mse / of_baseline.where(of_baseline > 0)
    return skill.rename("skill_score").assign_attrs(units="1")


def pooled_scores(estimate, reference, *, weights=None):
    """``bias``, ``mae``, ``rmsd``, ``ubrmsd``, ``correlation``, and the spread of both sides.

    Over all dimensions of `reference`, on the cells and months of :func:`common_mask`; further
    dimensions of `estimate` are kept. ``std_estimate`` and ``std_reference`` are population
    standard deviations. `weights` of the cells: by default equal.
    """
    common = common_mask(estimate, reference)
    sums = _sums(estimate, reference.where(common), reference.dims, weights)
    return _labelled(sums, reference, _used(common, None))


def taylor_statistics(estimate, reference):
    """The numbers of a normalised Taylor diagram, all dimensions of `reference` pooled, unweighted.

    ``std_ratio`` and ``ubrmsd_ratio``, both divided by the standard deviation of the reference,
    and ``correlation``, with further dimensions of `estimate` such as ``dataset``. NaN where the
    reference is constant; the correlation also where the estimate is. ``ubrmsd_ratio**2 == 1 +
    std_ratio**2 - 2 * std_ratio * correlation`` (Taylor 2001, Journal of Geophysical Research
    106, 7183-7192, doi:10.1029/2000JD900719).

    All datasets are compared on the cells that every one of them has: only then can they share a
    diagram, and only then is the standard deviation of an ensemble mean at most the mean of its
    members'.
    """
    scores = pooled_scores(estimate, reference)
    spread = scores["std_reference"].where(lambda std: std > 0)
    ratios = {"std_ratio": scores["std_estimate"] / spread, "correlation": scores["correlation"]}
    ratios["ubrmsd_ratio"] = scores["ubrmsd"] / spread
    return xr.Dataset({name: ratio.assign_attrs(units="1") for name, ratio in ratios.items()})


def deseasonalised(estimate, reference):
    """Both sides as deviations from their own mean of the calendar month, cell by cell.

    The means are over the months in which both have a value, and the anomalies are missing where
    either is. The correlation of cells without their season is ``correlation(*deseasonalised(
    estimate, reference), dim="time")``: NaN where an estimate repeats its climatology.
    """
    return tuple(_anomaly(field) for field in _on_common_cells(estimate, reference))


def spatial_correlation(estimate, reference, *, weights=None):
    """Pearson's spatial correlation in its variants, which answer different questions.

    ``pooled``: of all cells and months together. ``mean_of_months``: mean of the correlations of
    the single months. ``mean_map``: of the maps of time means. ``anomaly_pattern``: as
    ``mean_of_months``, each side :func:`deseasonalised`: the mean pattern, which dominates the
    other three, has no part in it. Months without a correlation are left out; NaN if all are.
    Of many datasets, take one at a time: all its months are held in double precision.
    """
    sides = _on_common_cells(estimate, reference)
    maps, cells = [side.mean("time") for side in sides], {"dim": CELLS, "weights": weights}
    result = {
        "pooled": correlation(*sides, dim=FIELD, weights=weights),
        "mean_of_months": correlation(*sides, **cells).mean("time"),
        "mean_map": correlation(*maps, **cells),
        "anomaly_pattern": correlation(*map(_anomaly, sides), **cells).mean("time"),
    }
    result = xr.Dataset({name: one.reset_coords(drop=True) for name, one in result.items()})
    return result.assign_coords(_used(_valid(*sides), FIELD))


def common_mask(estimate, reference):
    """Where the reference and every estimate have a value, with the dimensions of `reference`."""
    missing = [name for name in reference.dims if name not in estimate.dims]
    if missing:
        raise ValueError(f"`estimate` lacks {missing} of `reference`: broadcast it first")
    valid = _valid(estimate, reference)
    return valid.all([name for name in estimate.dims if name not in reference.dims])


def bootstrap_scores(estimate, reference, *, weights=None, resamples=1000, seed):
    """Pooled scores over years, all twelve months of each, drawn with replacement.

    Two or more whole calendar years are needed; further dimensions of `estimate` are kept. The
    result is that of :func:`pooled_scores` with the new dimension ``resample``. In one resample
    all estimates have the same years: the difference of two is paired.

    A year is the block: months within it, and cells, may depend on each other, years may not
    (Wilks 1997, Journal of Climate 10, 65-82,
    doi:10.1175/1520-0442(1997)010<0065:RHTFAF>2.0.CO;2). Intervals from few years are too narrow:
    seven years have 1716 different resamples, and no year outside them is known.
    """
    common = common_mask(estimate, reference)
    sides = _by_year(estimate), _by_year(reference.where(common))
    sums = _sums(*sides, ("month", *CELLS), weights)
    drawn = _times_drawn(sums.sizes["year"], resamples, seed)
    sums = xr.dot(xr.DataArray(drawn, dims=("resample", "year")), sums, dim="year")
    return _labelled(sums.transpose(..., "resample", "sum"), reference, _used(common, None))


def bootstrap_years(annual, *, resamples=1000, seed):
    """Means over years drawn with replacement, in single precision.

    `annual` has the dimension year, which gives way to ``resample``, and any others: for
    statistics of maps, such as a share of area. The same seed draws the years of
    :func:`bootstrap_scores`.
    """
    share = _times_drawn(annual.sizes["year"], resamples, seed) / annual.sizes["year"]
    weights = xr.DataArray(share.astype("float32"), dims=("resample", "year"))
    return xr.dot(weights, annual.astype("float32").drop_vars("year", errors="ignore"), dim="year")


def confidence_interval(scores):
    """Percentiles 2.5 and 97.5 over ``resample``, along ``bound`` (``low``, ``high``).

    `scores` come from :func:`bootstrap_scores`, or are a difference or ratio of two of them. NaN
    where a resample is.
    """
    bounds = scores.quantile([0.025, 0.975], "resample", keep_attrs=True, skipna=False)
    return bounds.rename(quantile="bound").assign_coords(bound=["low", "high"])


def paired_test(one, other, *, dim="year"):
    """Student's t-test of whether two series of errors, paired along `dim`, differ in their mean.

    ``difference`` is the mean of ``one - other``; ``p_value``, two-sided, is NaN where all
    differences are the same or fewer than two are valid.
    """
    scores = _scored(one, other, dim, None, sides=False)
    freedom = (scores["pairs"] - 1).clip(min=0)
    t = scores["bias"] / scores["ubrmsd"].where(lambda spread: spread > 0) * np.sqrt(freedom)
    p_value = xr.apply_ufunc(lambda freedom, t: 2 * stdtr(freedom, -abs(t)), freedom, t)
    result = {"difference": scores["bias"].assign_attrs(one.attrs), "p_value": p_value}
    return xr.Dataset(result).drop_vars("pairs")


def monthly_mse(estimate, reference, *, regions, weights):
    """Mean squared error by region and calendar month, of whole years, in the squared units.

    `regions` are boolean masks (region, lat, lon), `weights` the areas of the cells. NaN where a
    region has no pair. ``1 - ratio`` of two results is a skill score.
    """
    mse = rmsd(_by_year(estimate), _by_year(reference), dim="year") ** 2
    mse = mse.assign_coords(month=range(1, 13)).weighted(regions * weights).mean(CELLS)
    return mse.transpose("region", "month")


def year_permutation_test(estimate, reference, *, score, weights=None, permutations=1000, seed):
    """Whether an estimate knows one year from another, or only the mean and the season.

    Two or more whole calendar years of `estimate` are shuffled `permutations` times, at least 200,
    all twelve months of a year together. `score` is "mae", "rmsd", "ubrmsd" or "correlation",
    pooled over all cells and months.

    ``observed`` is the score of `estimate` itself, ``permuted`` those of its permutations, along
    ``permutation``, ``p_value`` is ``(1 + permutations as good) / (1 + permutations)``; all are
    NaN where the score is not defined.

    Mean, season and variance of an estimate without gaps are the same in every permutation. A
    small p-value means that it follows the reference from year to year, by a common trend or
    by weather; an estimate that repeats its climatology has p = 1.
    """
    if score not in LOWER_IS_BETTER:
        raise ValueError(f"`score` must be one of {tuple(LOWER_IS_BETTER)}, got {score!r}")
    if permutations < 200:
        raise ValueError(f"`permutations` must be at least 200, got {permutations}")
    common = common_mask(estimate, reference)
    sides = _by_year(estimate).rename(year="other"), _by_year(reference)
    sums = _sums(*sides, ("month", *CELLS), weights, sides=score == "correlation")
    sums, years = sums.transpose("other", "year", "sum").values, np.arange(sums.sizes["year"])
    random = np.random.default_rng(seed)
    order = np.array([years] + [random.permutation(years) for _ in range(permutations)])
    # year `order[k]` of the estimate stands where the reference has year k
    shuffled = xr.DataArray(sums[order, years].sum(axis=1), dims=("permutation", "sum"))
    found = _labelled(shuffled, reference, _used(common, None))[score]
    observed, permuted = found[0], found[1:]
    better = permuted < observed if LOWER_IS_BETTER[score] else permuted > observed
    as_good = better | np.isclose(permuted, observed, rtol=1e-9, atol=0)  # rounding is no skill
    p_value = ((1 + as_good.sum()) / (1 + permutations)).where(observed.notnull())
    return xr.Dataset({"observed": observed, "permuted": permuted, "p_value": p_value})


def area_share(condition, weights, *, mask=None):
    """Percentage of the area, with the `weights` of the cells, in which a condition holds.

    `condition` is boolean with the dimensions lat and lon; further ones are kept. `mask`, boolean,
    holds the cells that make up the whole, by default all; NaN is returned where there is none.
    A missing value never meets a condition: ``mask=field.notnull()`` leaves such cells out.
    """
    mask = xr.ones_like(condition, dtype=bool) if mask is None else mask
    for name, field in {"condition": condition, "mask": mask}.items():
        if field.dtype != bool:
            raise ValueError(f"`{name}` must be boolean, got {field.dtype}; compare it first")
    if not mask.any():
        raise ValueError("`mask` must hold at least one cell, got none")
    with xr.set_options(arithmetic_join="exact"):
        whole = ((mask & xr.ones_like(condition)) * weights).sum(CELLS)
        share = 100 * ((mask & condition) * weights).sum(CELLS) / whole.where(whole > 0)
    return share.rename("area_share").assign_attrs(long_name="share of area", units="%")


def together(fields, *, dim="dataset", join="exact"):
    """Fields (by name, a dict) as one array with a new first dimension, their names along it.

    Coordinates that are not dimensions are dropped. Where others differ is an error, or, with
    ``join="outer"``, missing where a field has none.
    """
    plain = [field.reset_coords(drop=True) for field in fields.values()]
    index = xr.Variable(dim, list(fields))
    return xr.concat(plain, index, join=join, combine_attrs="drop_conflicts")


def _sums(estimate, reference, dim, weights, *, sides=True):
    """Weighted sums over pairs of what scores are made of, along the last dimension ``sum``.

    They add up: those of two years make that of both. Without `sides`, those of the estimate and
    of the reference alone are left out.
    """
    units = estimate.attrs.get("units"), reference.attrs.get("units")
    if None not in units and units[0] != units[1]:
        raise ValueError(f"`estimate` must have the units of `reference`, got {units}; convert it")
    pooled = dict.fromkeys([*reference.dims, *estimate.dims] if dim is None else np.atleast_1d(dim))
    over = [name for name in reference.dims if name in pooled]
    kept = [name for name in reference.dims if name not in pooled]
    if not kept:  # the first is summed at the end, so that the kernel sees which cells are ocean
        kept, over = over[:1], over[1:]
    weights = xr.DataArray(1.0) if weights is None else weights
    of_weights = over if set(weights.dims) <= set(over) else [*kept, *over]
    estimate, weights = (
        field.expand_dims({d: reference.sizes[d] for d in dims if d not in field.dims})
        for field, dims in ((estimate, reference.dims), (weights, of_weights))
    )
    sums = xr.apply_ufunc(
        partial(_sums_of_one, over=len(over), sides=sides),
        *(estimate, reference, weights),
        input_core_dims=[[*kept, *over], [*kept, *over], of_weights],
        output_core_dims=[[*kept, "sum"]],
        join="exact",  # by default two slightly different grids would keep their overlap only
        vectorize=True,  # one dataset at a time, which keeps the memory small
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True, "output_sizes": {"sum": 8 if sides else 4}},
        output_dtypes=[float],
    )
    return sums.sum([name for name in pooled if name not in over])


def _sums_of_one(x, y, weight, *, over, sides):
    """`_sums` over the last `over` axes of arrays."""
    x, y, weight = (part.reshape(*part.shape[: part.ndim - over], -1) for part in (x, y, weight))
    here = (np.isfinite(x) & np.isfinite(y)).any(axis=tuple(range(x.ndim - 1)))
    if not here.all():  # the ocean takes no part
        x, y, weight = (np.take(part, np.flatnonzero(here), axis=-1) for part in (x, y, weight))
    difference = np.subtract(x, y, dtype=float)
    valid = np.isfinite(difference)
    difference[~valid] = 0

    def parts():  # one at a time, which keeps the memory small
        yield from (valid, difference)
        yield difference**2
        yield abs(difference)
        for side in (x, y) if sides else ():
            side = np.where(valid, side, np.float64(0))
            yield side
            yield side**2

    return np.stack([np.einsum("...i,...i->...", part, weight) for part in parts()], axis=-1)


def _scores(sums):
    """Scores by name from `_sums` (..., sum), as arrays."""

    def variance(mean, square):
        # below 1e-12 of the mean square it is rounding: the values are constant
        return np.where(square - mean**2 <= 1e-12 * square, 0, square - mean**2)

    with np.errstate(divide="ignore", invalid="ignore"):
        difference, squared, absolute, *sides = np.moveaxis(sums[..., 1:] / sums[..., :1], -1, 0)
        unbiased = variance(difference, squared)
        scores = {"bias": difference, "mae": absolute}
        scores |= {"rmsd": squared**0.5, "ubrmsd": unbiased**0.5}
        if sides:
            of_x, of_y = variance(*sides[:2]), variance(*sides[2:])
            r = (of_x + of_y - unbiased) / (2 * np.sqrt(of_x * of_y))  # the law of cosines
            scores["correlation"] = np.where(of_x * of_y > 0, np.clip(r, -1, 1), np.nan)
            scores |= {"std_estimate": of_x**0.5, "std_reference": of_y**0.5}
    return scores


def _labelled(sums, reference, coords):
    like, units = sums.isel(sum=0, drop=True), reference.attrs.get("units")
    scores = {name: like.copy(data=values) for name, values in _scores(sums.values).items()}
    for name, score in scores.items():
        score.attrs = {"units": "1"} if name == "correlation" else {"units": units} if units else {}
    return xr.Dataset(scores).assign_coords(coords)


def _scored(estimate, reference, dim, weights, *, sides=True):
    sums = _sums(estimate, reference, dim, weights, sides=sides)
    return _labelled(sums, reference, _used(_valid(estimate, reference), dim))


def _valid(estimate, reference):
    with xr.set_options(arithmetic_join="exact"):
        return estimate.notnull() & reference.notnull()


def _on_common_cells(estimate, reference):
    """Both sides in double precision, missing where either is."""
    valid = _valid(estimate, reference)
    return [field.where(valid).astype(float) for field in (estimate, reference)]


def _used(valid, dim):
    """Numbers of pairs, and of cells and months with a pair where both are pooled."""
    dims = set(valid.dims if dim is None else np.atleast_1d(dim))
    counts = {"pairs": valid.sum(dims)}
    if dims >= set(FIELD):
        counts["cells"] = valid.any(dims - {"lat", "lon"}).sum(CELLS)
        counts["months"] = valid.any(dims - {"time"}).sum("time")
    return counts


def _anomaly(field):
    cycle = monthly_climatology(field).sel(month=field["time"].dt.month).drop_vars("month")
    anomaly = field - cycle
    # a value that is the same every year differs from its mean by rounding, which is no signal
    return anomaly.where(~(abs(anomaly) <= 1e-12 * abs(cycle)), 0).assign_attrs(field.attrs)


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
    return (drawn[:, :, None] == np.arange(years)).sum(axis=1)


def each(function, estimates, *others, **options):
    """What a function finds for one dataset of `estimates` after the other, :func:`together`."""
    fields = ((name, estimates.sel(dataset=name)) for name in estimates["dataset"].values)
    return together({name: function(field, *others, **options) for name, field in fields})
