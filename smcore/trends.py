"""Slopes and their significance, for all cells of a map at once."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import ndtri, stdtr
from scipy.stats import rankdata

from smcore.seasons import annual_mean
from smcore.ssmi import ssmi

METHODS = ("ar1", "hamed_rao", "original")
BLOCK = 2**18  # pairs at a time and thread, 8 bytes each: 71 cells of 86 years


def theil_sen(series, *, dim="year"):
    """Median of the slopes of all pairs of points, with its 95 % confidence interval.

    Parameters
    ----------
    series : xr.DataArray
        Any dimensions beside `dim`. Missing and infinite values are left out, cell by cell.
    dim : str, default: "year"
        Dimension to take the slope along.

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
    The interval is that of Sen (1968, equation 2.6, doi:10.1080/01621459.1968.10480934), with his
    correction for ties; autocorrelation makes it too narrow. An array in memory is shared out
    among threads of 2 MB, or 8 bytes times the pairs of a cell; a chunked one is left to dask.
    """
    result = _per_cell(_theil_sen, series, dim, _position(series, dim), ["slope", "low", "high"])
    if "units" in series.attrs:
        for one in result.values():
            one.attrs["units"] = _per(dim, series.attrs["units"])
    return result


def mann_kendall(series, *, dim="year", method="ar1"):
    """Two-sided Mann-Kendall test for a monotonic trend.

    Parameters
    ----------
    series : xr.DataArray
        Any dimensions beside `dim`. Missing and infinite values are left out, cell by cell.
    dim : str, default: "year"
        Dimension to test along.
    method : {"ar1", "hamed_rao", "original"}, default: "ar1"
        "original" assumes independent values. The variance of the score grows by the significant
        autocorrelations of the detrended ranks ("hamed_rao") or by those of AR(1) ("ar1").

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
    "original" is Mann (1945, doi:10.2307/1907187), "hamed_rao" Hamed and Rao (1998,
    doi:10.1016/S0022-1694(97)00125-X), "ar1" Yue and Wang (2004,
    doi:10.1023/B:WARM.0000043140.61082.60): with n values, m(k) pairs of them at lag k and the
    lag-1 autocorrelation rho, the variance grows by n/n* = 1 + 2/n sum(m(k) rho**k). Detrending
    leaves the autocorrelation r of the sample too small, hence rho = (n r + 2) / (n - 4), within
    0 to 1 (Hamed 2009, doi:10.1016/j.jhydrol.2009.01.040); p is read from Student's t with n* - 3
    degrees of freedom, as three numbers are estimated: our choice, by the measured size. Only
    "ar1" holds its level on AR(1) series (``data/test_size.csv``), none on longer memories.

    With gaps, lags are of the calendar, and rho is the L-th root of r at the shortest lag L with at
    least half the pairs of the best: every second year alone gives what the shorter series gives.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}, got {method!r}")
    steps = np.diff(_position(series, dim))
    if not np.allclose(steps, steps[:1]):
        text = f"`{dim}` must be evenly spaced, got steps of {steps.min():g} to {steps.max():g}"
        raise ValueError(f"{text}; lags are counted in steps: reindex `series`, with gaps as NaN")
    test = partial(_mann_kendall, method=method)
    position = np.arange(series.sizes[dim], dtype=float)
    return _per_cell(test, series, dim, position, ["p_value", "z", "score", "tau"])


def false_discovery_rate(p_value, *, alpha=0.10):
    """Cells that stay significant when all cells are tested together.

    Parameters
    ----------
    p_value : xr.DataArray
        p-values of one family of tests, usually one map. NaN: not tested.
    alpha : float, default: 0.10
        Largest expected share of false among the significant cells: twice the level of the test
        of one cell, because weather is correlated in space (Wilks 2016,
        doi:10.1175/BAMS-D-15-00267.1).

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
    (Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x).
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


def trend(theta, period, *, baseline=None, standard_deviation=None, mean=annual_mean, test=True):
    """``slope`` (Theil-Sen) of yearly means per decade and ``p_value`` (Mann-Kendall, "ar1").

    `theta` is in m3 m-3, by months along ``time``, `period` the first and last year, and `mean`
    takes months to years: ``seasonal_mean`` adds ``season``. With a `baseline` the trend is that of
    the index :func:`smcore.ssmi.ssmi` with its `standard_deviation`. ``p_value`` only by `test`.
    """
    if baseline is None and standard_deviation is not None:
        raise ValueError("`standard_deviation` is that of an index: give its `baseline`, too")
    if baseline is not None:
        theta = ssmi(theta, baseline=baseline, standard_deviation=standard_deviation)
    yearly = mean(theta).sel(year=slice(*map(int, period)))
    result = (10 * theil_sen(yearly)["slope"]).to_dataset(name="slope")
    result["slope"].attrs = {"units": _per("decade", theta.attrs.get("units", ""))}
    if test:
        result["p_value"] = mann_kendall(yearly)["p_value"]
    return result


def _per(step, units):
    return f"{units} {step}-1".removeprefix("1 ").strip()


def _position(series, dim):
    """The coordinate of `dim`, numeric and ascending."""
    if dim not in series.dims:
        raise ValueError(f"`dim` must be a dimension of `series`, got {dim!r}, not {series.dims}")
    position = series[dim].values
    if position.dtype.kind not in "iuf" or not (np.diff(position) > 0).all():
        got = f"{position.dtype} from {position[0]} to {position[-1]}"
        text = f"`{dim}` must be numeric and ascending, got {got}"
        raise ValueError(f"{text}; take annual or seasonal means first")
    return position.astype(float)


def _per_cell(function, series, dim, position, names):
    """Results of a function, by name, for the cells with at least three valid points.

    Of values (cells, points), slopes of all pairs (cells, pairs), its to reorder, and valid points.
    """
    # a batch system may allow fewer cores than there are, and says so on Linux only
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = cores if series.chunks is None else 1
    pairs = position.size * (position.size - 1) // 2
    distances = _differences(position[None], np.empty((1, pairs)))

    def over_blocks(values):
        cells = values.reshape(-1, position.size).astype(float)
        cells[np.isinf(cells)] = np.nan
        result = np.full((len(names), len(cells)), np.nan)
        n = np.isfinite(cells).sum(axis=1)
        enough = np.flatnonzero(n >= 3)
        size = min(max(BLOCK // max(pairs, 1), 1), max(enough.size, 1))
        starts = range(0, enough.size, size)

        def work_through(starts):
            # fresh memory for each block would take as long as the arithmetic
            memory = np.empty((size, pairs))
            for start in starts:
                block = enough[start : start + size]
                slopes = _differences(cells[block], memory[: block.size])
                slopes /= distances
                result[:, block] = function(cells[block], slopes, n[block])

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work_through, [starts[i::threads] for i in range(threads)]))
        return tuple(result.reshape(len(names), *values.shape[:-1]))

    results = xr.apply_ufunc(
        over_blocks,
        series,
        input_core_dims=[[dim]],
        output_core_dims=[[]] * len(names),
        keep_attrs=False,
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[float] * len(names),
    )
    return xr.Dataset(dict(zip(names, results, strict=True)))


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


def _select(slopes, ranks):
    """Values at `ranks`, (cells, ranks), of each row of `slopes`, sorted in part here, NaN last."""
    first, last = ranks.min(), ranks.max()
    slopes.partition(first, axis=1)  # numpy vectorises it for one rank at a time
    slopes[:, first:].partition(last - first, axis=1)
    slopes[:, first : last + 1].sort(axis=1)
    return np.take_along_axis(slopes, ranks, axis=1) + 0.0  # no -0.0


def _theil_sen(values, slopes, n):
    number = n * (n - 1) // 2
    width = ndtri(0.975) * np.sqrt(_score_variance(values, n))
    low = np.maximum(np.round((number - width) / 2) - 1, 0)
    high = np.minimum(np.round((number + width) / 2), number - 1)
    ranks = np.stack([(number - 1) // 2, number // 2, low, high], axis=1).astype(int)
    before, after, low, high = _select(slopes, ranks).T
    return (before + after) / 2, low, high


def _score_variance(values, n):
    """Variance of Kendall's score for independent values, corrected for ties."""
    cells, points = values.shape
    ordered = np.sort(values, axis=1)
    is_first = np.ones(values.shape, bool)  # of a group of equal values; NaN equals nothing
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.flatnonzero(is_first)
    t = np.diff(first, append=values.size)
    first, t = first[t > 1], t[t > 1]  # mostly none
    ties = np.bincount(first // points, t * (t - 1) * (2 * t + 5), minlength=cells)
    return (n * (n - 1) * (2 * n + 5) - ties) / 18


def _mann_kendall(values, slopes, n, method):
    number = n * (n - 1) // 2
    score = np.subtract(slopes > 0, slopes < 0, dtype=np.int8).sum(axis=1)
    factor, freedom = 1, np.inf  # of the variance, and of Student's t
    if method != "original":
        ranks = np.stack([(number - 1) // 2, number // 2], axis=1)
        slope = _select(slopes, ranks).mean(axis=1)
        # from 1, as in pymannkendall: rounding decides which two values are tied
        detrended = values - np.arange(1, values.shape[1] + 1) * slope[:, None]
    if method == "hamed_rao":
        factor = _hamed_rao_factor(detrended, n[:, None])
    if method == "ar1":
        factor = _ar1_factor(values, detrended, n[:, None])
        freedom = n / factor - 3
    variance = factor * _score_variance(values, n)
    variance = np.where(variance > 0, variance, np.nan)
    z = np.where(score == 0, 0, (score - np.sign(score)) / np.sqrt(variance))
    p_value = np.where(freedom > 0, 2 * stdtr(freedom, -abs(z)), 1)
    return p_value, z, score, score / number


def _hamed_rao_factor(detrended, n):
    """n/n* of Hamed and Rao (1998): how much autocorrelation inflates the score's variance."""
    ranks = rankdata(detrended, axis=1, nan_policy="omit") - (n + 1) / 2  # less their mean
    covariance, m = _at_lags(ranks)
    # all ranks equal: no autocorrelation
    r = covariance / np.where(covariance[:, :1] > 1e-6, covariance[:, :1], np.inf)
    weight = 2 * m * (m - 1) * (m - 2) / (n * (n - 1) * (n - 2))
    significant = abs(r) > ndtri(0.975) / np.sqrt(n)
    return 1 + (weight * np.where(significant, r, 0))[:, 1:].sum(axis=1)


def _ar1_factor(values, detrended, n):
    """n/n* of Yue and Wang (2004) for an AR(1) process, its autocorrelation without bias."""
    covariance, m = _at_lags(detrended - np.nanmean(detrended, axis=1, keepdims=True))
    rounding = n * (1e-12 * np.nanmax(abs(values), axis=1, keepdims=True)) ** 2
    # a straight line leaves only rounding: no autocorrelation
    variance = np.where(covariance[:, :1] > rounding, covariance[:, :1], np.inf) / n
    most = m[:, 1:].max(axis=1, keepdims=True)
    lag = 1 + (2 * m[:, 1:] >= most).argmax(axis=1, keepdims=True)
    r = np.take_along_axis(covariance, lag, axis=1) / np.take_along_axis(m, lag, axis=1) / variance
    rho = np.clip((n * r + 2) / np.maximum(n - 4, 1), 0, 1) ** (1 / lag)
    lags = np.arange(1, values.shape[1])
    return 1 + 2 / n[:, 0] * (m[:, 1:] * rho**lags).sum(axis=1)


def _at_lags(values):
    """Sums of values[t] * values[t + lag], and numbers of such pairs, at the lags 0 to n - 1."""
    present = np.isfinite(values)
    counted = present[:1] if present.all() else present  # mostly the same for all cells
    return _lagged_products(np.where(present, values, 0)), np.round(_lagged_products(counted))


def _lagged_products(values):
    length = values.shape[1]
    spectrum = np.fft.rfft(values, 2 * length, axis=1)  # padded, so that the ends do not meet
    return np.fft.irfft(abs(spectrum) ** 2, 2 * length, axis=1)[:, :length]
