"""Slopes and their significance, for all cells of a map at once."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import ndtr, ndtri, stdtr
from scipy.stats import rankdata

from smcore.seasons import annual_mean
from smcore.ssmi import ssmi

METHODS = ("ar1", "hamed_rao", "original")
BLOCK = 2**18  # pairs at a time and thread, 24 bytes each: 71 cells of 86 years
BINS = 256  # that the slopes of a cell are counted in
SAMPLE = 128  # slopes of a cell that say where its bins lie


def theil_sen(series, *, dim="year"):
    """Median of the slopes of all pairs of points, with its 95 % confidence interval.

    Parameters
    ----------
    series : xr.DataArray
        Any dimensions beside `dim`; missing values allowed, each cell may have its own.
        Infinite values count as missing.
    dim : str, default: "year"
        Dimension to take the slope along. Its coordinate is numeric and ascending.

    Returns
    -------
    xr.Dataset
        ``slope``, ``low`` and ``high``, in units of `series` per unit of the coordinate of
        `dim` (per year, not per decade). NaN where fewer than three values are valid.

    Raises
    ------
    ValueError
        If `dim` is no dimension of `series` or its coordinate not numeric and ascending.

    Notes
    -----
    The interval takes the ranks of equation 2.6 of Sen (1968), with his correction for ties. It
    assumes independent values: autocorrelation makes it too narrow.

    An array in memory is shared out among threads, a chunked one by dask. A thread needs 6 MB,
    or 24 bytes times the pairs of one cell where that is more.

    References
    ----------
    Sen (1968), J. Am. Stat. Assoc. 63, 1379-1389, doi:10.1080/01621459.1968.10480934
    """
    position = _position(series, dim)
    distances = _distances(position)
    result = _per_cell(lambda cells, work: _theil_sen(cells, distances, work), series, dim, 3)
    units = {"units": _per(dim, series.attrs["units"])} if "units" in series.attrs else {}
    names = ("slope", "low", "high")
    return xr.Dataset({n: one.assign_attrs(units) for n, one in zip(names, result, strict=True)})


def mann_kendall(series, *, dim="year", method="ar1"):
    """Two-sided Mann-Kendall test for a monotonic trend.

    Parameters
    ----------
    series : xr.DataArray
        Any dimensions beside `dim`; missing values allowed, each cell may have its own.
        Infinite values count as missing.
    dim : str, default: "year"
        Dimension to test along. Its coordinate is numeric and evenly spaced.
    method : {"ar1", "hamed_rao", "original"}, default: "ar1"
        "original" assumes independent values. "hamed_rao" inflates the variance of the score by
        the significant autocorrelations of the ranks of the detrended series, "ar1" by those of
        the AR(1) process with the lag-1 autocorrelation of the detrended series.

    Returns
    -------
    xr.Dataset
        ``p_value``, ``z``, ``score`` (Kendall's S) and ``tau`` (S over the number of pairs).
        NaN where fewer than three values are valid, or the corrected variance is not positive. A
        constant series has p = 1, and by "ar1" so has one of three or fewer effective values.

    Raises
    ------
    ValueError
        If `method` is unknown, or `dim` has no numeric and evenly spaced coordinate.

    Notes
    -----
    Of these only "ar1" holds its level on AR(1) series, see ``data/test_size.csv``; on series that
    remember longer than their lag-1 autocorrelation says, none does.

    "ar1" is the correction of Yue and Wang (2004): with n values, m(k) pairs of them at lag k
    (n - k without gaps) and the lag-1 autocorrelation rho, the variance of the score grows by
    n/n* = 1 + 2/n sum(m(k) rho**k). Two additions make it hold its size. Detrending leaves the
    autocorrelation r of the sample, the mean product of neighbours over the mean square, too
    small, hence rho = (n r + 2) / (n - 4), within 0 to 1 (Hamed 2009). And because mean, slope
    and rho are estimated from n* effective values, p is read from Student's t with n* - 3
    degrees of freedom; our choice, by the measured size.

    With gaps, a lag is one of the calendar, and counts by the pairs that are present: a series
    observed every second year gets the result of the shorter series. To that end r is taken at the
    shortest lag L with at least half as many pairs as the lag with most, and rho as the L-th root.

    References
    ----------
    Mann (1945), doi:10.2307/1907187; Hamed and Rao (1998), doi:10.1016/S0022-1694(97)00125-X;
    Yue and Wang (2004), doi:10.1023/B:WARM.0000043140.61082.60; Hamed (2009),
    doi:10.1016/j.jhydrol.2009.01.040
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}, got {method!r}")
    position = _position(series, dim)
    steps = np.diff(position)
    if not np.allclose(steps, steps[:1]):
        raise ValueError(
            f"`{dim}` must be evenly spaced, because lags are counted in steps, got steps of "
            f"{steps.min():g} to {steps.max():g}; reindex `series` so that gaps are NaN"
        )

    distances = _distances(np.arange(position.size, dtype=float))
    result = _per_cell(
        lambda cells, work: _mann_kendall(cells, distances, method, work), series, dim, 4
    )
    return xr.Dataset(dict(zip(("p_value", "z", "score", "tau"), result, strict=True)))


def false_discovery_rate(p_value, *, alpha=0.10):
    """Cells that stay significant when all cells are tested together.

    Parameters
    ----------
    p_value : xr.DataArray
        p-values of one family of tests, usually one map. NaN: not tested.
    alpha : float, default: 0.10
        Largest expected share of false among the significant cells.

    Returns
    -------
    xr.DataArray of bool
        True where significant, False where not or not tested.

    Raises
    ------
    ValueError
        If `p_value` or `alpha` leaves the range 0 to 1.

    Notes
    -----
    With the N valid p-values in ascending order, the largest p(i) <= alpha i / N is the threshold
    (Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x). As weather is
    correlated in space, twice the level of the test of one cell is recommended, hence 0.10 (Wilks
    2016, doi:10.1175/BAMS-D-15-00267.1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` must lie between 0 and 1, got {alpha}")
    valid = np.sort(p_value.values[np.isfinite(p_value.values)])
    if valid.size and (valid[0] < 0 or valid[-1] > 1):
        raise ValueError(f"`p_value` must lie in 0 to 1, got {valid[0]:g} to {valid[-1]:g}")

    rank = np.arange(1, valid.size + 1)
    threshold = valid[valid <= alpha * rank / max(valid.size, 1)].max(initial=-1)
    name = f"significant at a false discovery rate of {alpha:g}"
    return (p_value <= threshold).rename("significant").assign_attrs(long_name=name)


def _per(step, units):
    return f"{units} {step}-1".removeprefix("1 ").strip()


def _position(series, dim):
    if dim not in series.dims:
        raise ValueError(
            f"`dim` must be a dimension of `series`, got {dim!r}, not in {series.dims}"
        )
    position = series[dim].values
    if position.dtype.kind not in "iuf" or not (np.diff(position) > 0).all():
        raise ValueError(
            f"`{dim}` must be numeric and ascending, got {position.dtype} from {position[0]} to "
            f"{position[-1]}; take annual or seasonal means first"
        )
    return position.astype(float)


def _differences(values, out):
    """Later minus earlier value of all pairs of points, (cells, pairs), in `out`.

    The points stand in a ring, each paired with the half of them that follow it: whole rows,
    no index. Across the end of the series the sign is reversed, of values and positions alike.
    """
    cells, points = values.shape
    lags = (points - 1) // 2
    ring = np.concatenate([values, values], axis=1)
    following = sliding_window_view(ring, points, axis=1)[:, 1 : lags + 1]  # (cells, lags, points)
    rows, rest = out[:, : lags * points], out[:, lags * points :]
    np.subtract(following, values[:, None], out=rows.reshape(following.shape))
    # of an even number of points, those opposite each other are paired once
    opposite = rest.shape[1]
    np.subtract(values[:, points - opposite :], values[:, :opposite], out=rest)
    return out


def _distances(position):
    return _differences(position[None], np.empty((1, position.size * (position.size - 1) // 2)))


def _per_cell(function, series, dim, outputs):
    """Apply a function of (cells, points) to the cells with at least three valid points.

    Its second argument is memory to work in, three arrays of (cells, pairs): fresh memory for
    each block would take as long as the arithmetic.
    """
    # a batch system may allow fewer cores than there are, and says so on Linux only
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = cores if series.chunks is None else 1

    def over_blocks(values):
        cells = values.reshape(-1, values.shape[-1]).astype(float)
        cells[np.isinf(cells)] = np.nan
        result = np.full((outputs, len(cells)), np.nan)
        enough = np.flatnonzero(np.isfinite(cells).sum(axis=1) >= 3)
        pairs = cells.shape[1] * (cells.shape[1] - 1) // 2
        size = min(max(BLOCK // max(pairs, BINS), 1), max(enough.size, 1))
        starts = range(0, enough.size, size)

        def work_through(starts):
            np.setbufsize(1024)  # as of 8192, the default, numpy copies operands of short rows
            work = np.empty((3, size, pairs))
            for start in starts:
                block = enough[start : start + size]
                result[:, block] = function(cells[block], work[:, : block.size])

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work_through, [starts[i::threads] for i in range(threads)]))
        return tuple(result.reshape(outputs, *values.shape[:-1]))

    return xr.apply_ufunc(
        over_blocks,
        series,
        input_core_dims=[[dim]],
        output_core_dims=[[]] * outputs,
        keep_attrs=False,
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[float] * outputs,
    )


def _slopes(values, distances, work):
    """Slopes of all pairs, (cells, pairs), in work[0]; how many of them each cell has."""
    slopes = _differences(values, work[0])
    slopes /= distances
    valid = np.isfinite(values).sum(axis=1)
    return slopes, valid * (valid - 1) // 2


def _select(slopes, number, ranks, work):
    """Values that would stand at `ranks` if each row of `slopes` were in ascending order.

    `number` of slopes in each row are valid. They are counted in bins, and only the bins that
    hold a rank are sorted. A sample of the slopes says where fine bins are needed: a bad one
    costs time but no accuracy, because counts are exact and the outer bins are open.
    """
    cells, pairs = slopes.shape
    # multiples of the golden ratio: evenly spread, in step with no number of points
    pick = (0.618034 * np.arange(min(SAMPLE, pairs)) % 1 * pairs).astype(int)
    sample = np.sort(slopes[:, pick], axis=1)  # NaN last
    size = np.isfinite(sample).sum(axis=1)
    margin = 2 * np.sqrt(size)  # four standard errors of the rank of a median
    low = _at(sample, np.clip(ranks.min(axis=1) / number * size - margin, 0, size - 1))
    high = _at(sample, np.clip(ranks.max(axis=1) / number * size + margin, 0, size - 1))

    place = np.subtract(slopes, low[:, None], out=work[1])
    place *= (BINS / np.where(high > low, high - low, 1))[:, None]
    if (number < pairs).any():
        np.fmin(place, BINS - 1, out=place)  # NaN goes to the last bin
    np.clip(place, 0, BINS - 1, out=place)
    # cell c has the bins BINS c to BINS (c + 1) - 1
    bins = work[2].view(np.int64)
    np.add(place, BINS * np.arange(cells)[:, None], out=bins, casting="unsafe")  # rounds down

    count = np.bincount(bins.ravel(), minlength=BINS * cells)
    up_to = count.cumsum()
    ranks = ranks + pairs * np.arange(cells)[:, None]  # of all cells, one after the other
    bin_of_rank = np.searchsorted(up_to, ranks, side="right")
    wanted = np.zeros(BINS * cells, bool)
    wanted[bin_of_rank] = True
    chosen = slopes[wanted[bins]]  # in the order of the cells

    left_out = np.where(wanted, 0, count)
    in_cell = pairs - left_out.reshape(cells, BINS).sum(axis=1, keepdims=True)
    filled = np.arange(in_cell.max()) < in_cell
    candidates = np.full(filled.shape, np.nan)
    candidates[filled] = chosen
    candidates.sort(axis=1)
    ordered = candidates[filled]
    return ordered[ranks - left_out.cumsum()[bin_of_rank]] + 0.0  # no -0.0


def _at(values, rank):
    return np.take_along_axis(values, rank[:, None].astype(int), axis=1)[:, 0]


def _score_variance(values):
    """Variance of Kendall's score for independent values, corrected for ties."""
    cells, points = values.shape
    n = np.isfinite(values).sum(axis=1)
    ordered = np.sort(values, axis=1)
    is_first = np.ones(values.shape, bool)  # of a group of equal values; NaN equals nothing
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.flatnonzero(is_first)
    t = np.diff(first, append=values.size)
    first, t = first[t > 1], t[t > 1]  # mostly none
    ties = np.bincount(first // points, t * (t - 1) * (2 * t + 5), minlength=cells)
    return (n * (n - 1) * (2 * n + 5) - ties) / 18


def _theil_sen(values, distances, work):
    slopes, number = _slopes(values, distances, work)
    width = ndtri(0.975) * np.sqrt(_score_variance(values))
    low = np.maximum(np.round((number - width) / 2) - 1, 0)
    high = np.minimum(np.round((number + width) / 2), number - 1)
    ranks = np.stack([(number - 1) // 2, number // 2, low, high], axis=1).astype(int)
    before, after, low, high = _select(slopes, number, ranks, work).T
    return (before + after) / 2, low, high


def _mann_kendall(values, distances, method, work):
    n = np.isfinite(values).sum(axis=1)
    slopes, number = _slopes(values, distances, work)
    score = np.subtract(slopes > 0, slopes < 0, dtype=np.int8).sum(axis=1)
    variance = _score_variance(values)
    freedom = np.full(n.shape, np.inf)  # degrees of freedom of Student's t
    if method != "original":
        ranks = np.stack([(number - 1) // 2, number // 2], axis=1)
        slope = _select(slopes, number, ranks, work).mean(axis=1)
        # from 1, as in pymannkendall: rounding decides which two values are tied
        detrended = values - np.arange(1, values.shape[1] + 1) * slope[:, None]
        if method == "hamed_rao":
            variance *= _hamed_rao_factor(detrended)
        else:
            factor = _ar1_factor(values, detrended)
            variance *= factor
            freedom = n / factor - 3

    variance = np.where(variance > 0, variance, np.nan)
    z = np.where(score == 0, 0, (score - np.sign(score)) / np.sqrt(variance))
    p_value = np.where(np.isinf(freedom), 2 * ndtr(-abs(z)), 2 * stdtr(freedom, -abs(z)))
    return np.where(freedom > 0, p_value, 1), z, score, score / number


def _hamed_rao_factor(detrended):
    """n/n* of Hamed and Rao (1998): how much autocorrelation inflates the score's variance."""
    present = np.isfinite(detrended)
    n = present.sum(axis=1, keepdims=True)
    ranks = rankdata(detrended, axis=1, nan_policy="omit")
    ranks = np.where(present, ranks - (n + 1) / 2, 0)  # (n + 1) / 2 is their mean

    covariance = _lagged_products(ranks)
    # all ranks equal: no autocorrelation
    r = covariance / np.where(covariance[:, :1] > 1e-6, covariance[:, :1], np.inf)
    m = _pairs_at_lags(present)
    weight = 2 * m * (m - 1) * (m - 2) / (n * (n - 1) * (n - 2))
    significant = abs(r) > ndtri(0.975) / np.sqrt(n)
    return 1 + (weight * np.where(significant, r, 0))[:, 1:].sum(axis=1)


def _ar1_factor(values, detrended):
    """n/n* of Yue and Wang (2004) for an AR(1) process, its autocorrelation without bias."""
    present = np.isfinite(detrended)
    n = present.sum(axis=1)
    mean = np.nanmean(detrended, axis=1, keepdims=True)
    covariance = _lagged_products(np.where(present, detrended - mean, 0))
    m = _pairs_at_lags(present)

    lag = 1 + (2 * m[:, 1:] >= m[:, 1:].max(axis=1, keepdims=True)).argmax(axis=1)
    rounding = n * (1e-12 * np.nanmax(abs(values), axis=1)) ** 2
    # a straight line leaves only rounding: no autocorrelation
    variance = np.where(covariance[:, 0] > rounding, covariance[:, 0], np.inf) / n
    r = _at(covariance, lag) / _at(m, lag) / variance
    rho = np.clip((n * r + 2) / np.maximum(n - 4, 1), 0, 1) ** (1 / lag)
    lags = np.arange(1, values.shape[1])
    return 1 + 2 / n * (m[:, 1:] * rho[:, None] ** lags).sum(axis=1)


def _lagged_products(values):
    """Sum of values[t] * values[t + lag] for the lags 0 to n - 1, by Fourier transform."""
    length = values.shape[1]
    spectrum = np.fft.rfft(values, 2 * length, axis=1)  # padded, so that the ends do not meet
    return np.fft.irfft(abs(spectrum) ** 2, 2 * length, axis=1)[:, :length]


def _pairs_at_lags(present):
    """Number of pairs at the lags 0 to n - 1: n - lag where no value is missing."""
    if present.all():
        present = present[:1]  # the same for all cells
    return np.round(_lagged_products(present))


def trend(theta, period, *, baseline=None, standard_deviation=None, mean=annual_mean, test=True):
    """Slope of the yearly means per decade, and whether it is significant.

    Parameters
    ----------
    theta : xr.DataArray
        Water content in m3 m-3, one value per month along ``time``; other dimensions are kept.
    period : pair of str
        First and last year of the trend, both included.
    baseline, standard_deviation : pair of str and xr.DataArray, optional
        Of the index, see :func:`smcore.ssmi.ssmi`. Default: the slope is that of `theta` itself.
    mean : function, default: smcore.seasons.annual_mean
        From months to years; ``seasonal_mean`` adds the dimension ``season``.
    test : bool, default: True
        Whether each cell is tested.

    Returns
    -------
    xr.Dataset
        ``slope`` (Theil-Sen) per decade and, with `test`, ``p_value`` (Mann-Kendall, "ar1").

    Raises
    ------
    ValueError
        If a `standard_deviation` comes without a `baseline`, or as :func:`smcore.ssmi.ssmi`.
    """
    if baseline is None:
        if standard_deviation is not None:
            raise ValueError("`standard_deviation` is that of an index: give its `baseline`, too")
        monthly = theta
    else:
        monthly = ssmi(theta, baseline=baseline, standard_deviation=standard_deviation)
    yearly = mean(monthly).sel(year=slice(*map(int, period)))
    result = (10 * theil_sen(yearly)["slope"]).to_dataset(name="slope")
    result["slope"].attrs = {"units": _per("decade", monthly.attrs.get("units", ""))}
    if test:
        result["p_value"] = mann_kendall(yearly)["p_value"]
    return result
