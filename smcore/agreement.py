"""How far sources agree on a trend, and how like two maps of trends are."""

from functools import partial

import numpy as np
import xarray as xr
from scipy.ndimage import label

from smcore import baselines, demo, grids, prepared, product, regrid, seasons
from smcore.metrics import area_share, correlation, together, variance_ratio
from smcore.ssmi import INDICES, index_options, interannual_std, months_for
from smcore.trends import false_discovery_rate, trend

CELLS = ("lat", "lon")


def scenario_trends(read, experiments, *, study, indices, baseline, std, tested=None, **options):
    """Trends of each scenario, read as an index or as water content.

    Parameters
    ----------
    read : function
        From an experiment_id to its months in m3 m-3 (time, lat, lon and any others).
    experiments : sequence of str
        Scenarios of `study`, whose future is the period of the trends.
    indices, baseline, std : sequence of str, pair of str, xr.DataArray
        Readings of the trend, years that define an index, and the standard deviation of the
        sources; each index as :func:`smcore.ssmi.index_options` takes it.
    tested : str, optional
        The index whose trend is tested in each cell; of the others ``p_value`` is NaN.
    **options
        Further ones of :func:`smcore.trends.trend`, such as ``mean=seasonal_mean``.

    Returns
    -------
    xr.Dataset
        ``slope`` per decade and ``p_value`` of a tested index (experiment_id, index, lat, lon).
    """
    index_options(tested or indices[0], baseline, std)  # refuses a wrong name before all the work
    found = {}
    for name in experiments:  # one after the other: months of a product are large
        theta = months_for(read, name, study=study, baseline=baseline)
        by_index = {}
        for index in indices:
            given = index_options(index, baseline, std) | {"test": index == tested} | options
            by_index[index] = trend(theta, study.periods.future, **given)
        found[name] = together(by_index, dim="index")
    return together(found, dim="experiment_id")


def check_alpha(alpha):
    """Raise ValueError unless `alpha` can be the level of a test, and twice that a rate."""
    if not isinstance(alpha, int | float) or not 0 < alpha < 0.5:
        raise ValueError(
            f"`alpha` must lie between 0 and 0.5, because the false discovery rate is controlled "
            f"at twice that level, got {alpha!r}"
        )


def agreement(trends, *, alpha=0.05):
    """How far the sources agree on the sign of a trend, and how many of them are sure of it.

    Parameters
    ----------
    trends : xr.Dataset
        ``slope``, with the dimension ``source_id``, and with or without ``p_value``.
    alpha : float, default: 0.05
        Level of each source's own test.

    Returns
    -------
    xr.Dataset
        ``sign`` of the majority (-1, 0 for a draw, 1), ``same_sign``, the share of the sources
        with that sign (of a draw: with either), and, of tested trends, ``significant``, the share
        that has that sign and a p-value below `alpha`. Shares lie in 0 to 1 and are of the
        sources that have a slope; NaN where none has.

    Notes
    -----
    The simple approach of the IPCC's sixth report hatches what fewer than 80 % of the models
    agree on (Gutiérrez et al. 2021, doi:10.1017/9781009157896.021, Cross-Chapter Box Atlas.1).
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


def share_by_region(condition, area, regions):
    """Share of each region in which a condition holds, in %, dimension ``region`` first.

    `condition` has dimensions lat, lon and any others, `area` is that of the cells, and `regions`
    are masks (lat, lon) by name.
    """
    found = {name: area_share(condition, area, mask=mask) for name, mask in regions.items()}
    return together(found, dim="region")


def shares(trends, area, regions, *, alpha=0.05):
    """Shares of area that dry and that wet, that do so significantly, and after correction.

    Parameters
    ----------
    trends : xr.Dataset
        ``slope`` and ``p_value``. Each map, over lat and lon, is one family of tests; further
        dimensions are kept.
    area : xr.DataArray
        Area of the cells (lat, lon).
    regions : dict of str to xr.DataArray of bool
        Masks (lat, lon) by name.
    alpha : float, default: 0.05
        Level of the test in each cell; twice that is the false discovery rate.

    Returns
    -------
    xr.Dataset
        In % of each ``region``: ``drier``, ``wetter``, and the same with ``_significant`` (p below
        `alpha`) and with ``_corrected``.
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
    result, passed = {}, {"": True, "_significant": p_value < alpha, "_corrected": corrected}
    for name, of_sign in {"drier": slope < 0, "wetter": slope > 0}.items():
        for suffix, test in passed.items():
            result[name + suffix] = share_by_region(of_sign & test, area, regions)
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
        By ``region``: ``same_sign``, % of the area in which both differ from zero to the same side;
        ``correlation`` of the patterns; ``std_ratio``, the ratio of the standard deviations over
        the cells, below 1 where a signal is damped; ``regression``, the slope of a line through
        `estimate` over `reference`, their product; ``median_ratio`` of the cells; ``skill``, 1 less
        the mean squared difference over the mean square of `reference`: 1 is perfect, 0 as good
        as no trend at all, negative worse.
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


def product_and_sources(study, static, *, indices=INDICES, **asked):
    """Trends of the product, and of the sources in its cells, as :func:`scenario_trends` has them.

    `static` holds the fine grid and its land; the standard deviation is that of historical years.
    """
    read = partial(prepared.open_predictors, study)
    std = interannual_std(read("historical"), study.periods.historical)
    asked |= {"study": study, "experiments": study.experiments, "indices": indices}
    sources = grids.on_cells_of(scenario_trends(read, std=std, **asked), static["land"])
    std = regrid.upsampled(std, static).assign_attrs(std.attrs)
    return scenario_trends(partial(_product, study), std=std, **asked), sources


def water_trends(study, static, experiments):
    """Slopes of the annual water content per decade on the fine grid, by the name of the estimate.

    The products of all presets; ``delta_change``, whose slope is that of the raw ensemble mean;
    ``delta_change_31``, with smoothed anomalies; and the ``truth`` of a synthetic study.
    """

    def raw(run):
        return prepared.open_predictors(study, run).mean("source_id")

    def smooth(run):
        months = xr.concat([raw("historical"), raw(run)], "time")
        return baselines.anomalies(months, train_period=study.periods.train, years=31)

    def on_fine(months):
        return regrid.upsampled(seasons.annual_mean(months), static).where(static["land"])

    def slope(read, mean=seasons.annual_mean):
        asked = {"indices": ["theta"], "baseline": study.periods.future, "std": None, "mean": mean}
        return scenario_trends(read, experiments, study=study, **asked)["slope"].squeeze("index")

    found = {f"ynet_{name}": slope(partial(_product, one)) for name, one in study.presets.items()}
    found |= {"delta_change": slope(raw, on_fine), "delta_change_31": slope(smooth, on_fine)}
    known = {"truth": slope(lambda run: demo.truth(study, run)["theta"])} if study.synthetic else {}
    return found | known


def _product(study, experiment_id):
    return product.open_product(study.product(experiment_id)).load()
