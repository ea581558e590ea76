"""How far sources agree on a trend, and how like two maps of trends are."""

import numpy as np
import xarray as xr
from scipy.ndimage import label

from smcore.metrics import area_share, correlation, together, variance_ratio
from smcore.ssmi import _running_mean
from smcore.trends import METHODS, check_alpha, false_discovery_rate, mann_kendall

CELLS = ("lat", "lon")


def agreement(trends, *, alpha=0.05):
    """How far the sources agree on the sign of a trend, and how many of them are sure of it.

    Parameters
    ----------
    trends : xr.Dataset
        From :func:`trend`, with the dimension ``source_id``; with or without ``p_value``.
    alpha : float, default: 0.05
        Level of each source's own test.

    Returns
    -------
    xr.Dataset
        ``sign`` of the majority (-1, 0 for a draw, 1), ``same_sign``, the share of the
        sources with that sign (of a draw: with either), and, of tested trends,
        ``significant``, the share that has that sign and a p-value below `alpha`. Shares lie
        in 0 to 1 and are of the sources that have a slope; NaN where none has.

    Notes
    -----
    The simple approach of the IPCC's sixth report hatches what fewer than 80 % of the models
    agree on.

    References
    ----------
    Gutiérrez et al. (2021), Atlas, in: Climate Change 2021: The Physical Science Basis,
    doi:10.1017/9781009157896.021, Cross-Chapter Box Atlas.1
    """
    check_alpha(alpha)
    slope = trends["slope"]
    number = slope.notnull().sum("source_id")
    number = number.where(number > 0)
    up, down = (slope > 0).sum("source_id") / number, (slope < 0).sum("source_id") / number
    found = xr.Dataset({"sign": np.sign(up - down), "same_sign": np.maximum(up, down)})
    if "p_value" in trends:
        with_majority = (np.sign(slope) == found["sign"]) & (found["sign"] != 0)
        sure = with_majority & (trends["p_value"] < alpha)
        found["significant"] = sure.sum("source_id") / number
    return found


def shares(trends, area, regions, *, alpha=0.05):
    """Shares of area that dry and that wet, that do so significantly, and after correction.

    Parameters
    ----------
    trends : xr.Dataset
        From :func:`trend`; dimensions beside lat and lon are kept. Each map, over lat and lon,
        is one family of tests; cells that are NaN take no part.
    area : xr.DataArray
        Area of the cells (lat, lon).
    regions : dict of str to xr.DataArray of bool
        Masks (lat, lon) by name.
    alpha : float, default: 0.05
        Level of the test in each cell. The false discovery rate is controlled at twice that
        level, see :func:`smcore.trends.false_discovery_rate`.

    Returns
    -------
    xr.Dataset
        In % of a region's area, dimension ``region`` first: ``drier``, ``wetter``, the same
        with ``_significant`` (p below `alpha`) and with ``_corrected``.
    """
    check_alpha(alpha)
    slope, p_value = trends["slope"], trends["p_value"]
    corrected = xr.apply_ufunc(
        lambda p: false_discovery_rate(xr.DataArray(p), alpha=2 * alpha).values,
        p_value,
        input_core_dims=[CELLS],
        output_core_dims=[CELLS],
        vectorize=True,  # one map at a time
    ).transpose(*p_value.dims)
    result = {}
    for name, of_sign in {"drier": slope < 0, "wetter": slope > 0}.items():
        for suffix, condition in {
            "": of_sign,
            "_significant": of_sign & (p_value < alpha),
            "_corrected": of_sign & corrected,
        }.items():
            by_region = {key: area_share(condition, area, mask=m) for key, m in regions.items()}
            result[name + suffix] = together(by_region, dim="region")
    return xr.Dataset(result)


def likeness(estimate, reference, area, regions):
    """How like two maps of slopes are, region by region.

    Parameters
    ----------
    estimate, reference : xr.DataArray
        Slopes with dimensions lat, lon, in the same units; further ones are kept, and broadcast
        where only one of them has them.
    area : xr.DataArray
        Area of the cells (lat, lon): the weight in all but the median.
    regions : dict of str to xr.DataArray of bool
        Masks (lat, lon) by name.

    Returns
    -------
    xr.Dataset
        By ``region``: ``same_sign``, % of the area; ``correlation`` of the patterns;
        ``std_ratio``, the ratio of the standard deviations over the cells, and ``regression``,
        the slope of a line through `estimate` over `reference`; ``median_ratio``, the median
        of the cells' ratios; ``skill``, 1 less the mean squared difference over the mean square
        of `reference`: 1 is perfect, 0 as good as no trend at all, negative worse.

    Notes
    -----
    Both sides have to differ from zero to have the same sign. A ratio below 1 is a signal that
    has been damped; the regression line counts both, a damped pattern and a wrong one. It
    equals ``correlation * std_ratio``.
    """
    by_region = {}
    for name, mask in regions.items():
        here = mask & estimate.notnull() & reference.notnull()
        x, y = estimate.where(here), reference.where(here)
        found = xr.Dataset({"same_sign": area_share(x * y > 0, area, mask=here)})
        found["correlation"] = correlation(x, y, dim=CELLS, weights=area)
        found["std_ratio"] = np.sqrt(variance_ratio(x, y, dim=CELLS, weights=area))
        found["regression"] = found["correlation"] * found["std_ratio"]
        found["median_ratio"] = (x / y.where(y != 0)).median(CELLS)
        weights = area.fillna(0)
        squares = (y**2).weighted(weights).mean(CELLS)
        found["skill"] = 1 - ((x - y) ** 2).weighted(weights).mean(CELLS) / squares
        by_region[name] = found
    return together(by_region, dim="region")


def largest_patch(mask, area):
    """The largest connected patch of a mask: its share of a whole, and where it lies.

    Parameters
    ----------
    mask : xr.DataArray of bool
        Dimensions lat, lon. Cells that share an edge are connected.
    area : xr.DataArray
        Area of the cells (lat, lon); zero or NaN outside the whole that the share is of.

    Returns
    -------
    xr.Dataset
        ``share`` in %, ``centre_lat`` and ``centre_lon``, weighted with the area, in degrees;
        NaN where `mask` is empty.
    """
    mask = mask.transpose(*CELLS)
    area = area.transpose(*CELLS).fillna(0)
    patches, number = label(mask.values)
    if number == 0:
        return xr.Dataset({name: np.nan for name in ("share", "centre_lat", "centre_lon")})
    sizes = np.bincount(patches.ravel(), weights=area.values.ravel())
    weights = area.where(patches == 1 + sizes[1:].argmax(), 0)
    return xr.Dataset(
        {
            "share": 100 * weights.sum() / area.sum(),
            "centre_lat": (weights * mask["lat"]).sum() / weights.sum(),
            "centre_lon": (weights * mask["lon"]).sum() / weights.sum(),
        }
    )


def rejections_of_smoothed_noise(*, years=86, window=10, draws=2000, alpha=0.05, seed=0):
    """How often trend tests reject on a running mean of white noise, which has no trend.

    Parameters
    ----------
    years : int, default: 86
        Length of the series.
    window : int, default: 10
        Years of the centred running mean; at both ends it takes the years that are there.
    draws : int, default: 2000
        Number of series.
    alpha : float, default: 0.05
        Level of the tests.
    seed : int, default: 0
        Of the random numbers.

    Returns
    -------
    xr.DataArray
        Share of the series in % with dimension ``test``, those of `smcore.trends.METHODS`.
    """
    check_alpha(alpha)
    noise = np.random.default_rng(seed).normal(size=(draws, years))
    series = xr.DataArray(
        _running_mean(noise, window), coords={"year": np.arange(years)}, dims=("draw", "year")
    )
    rejected = {
        method: 100 * (mann_kendall(series, method=method)["p_value"] < alpha).mean("draw")
        for method in METHODS
    }
    return together(rejected, dim="test").assign_attrs(units="%")
