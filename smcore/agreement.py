"""How far sources agree on a trend, and how like two maps of trends are."""

from functools import partial

import numpy as np
import xarray as xr
from scipy.ndimage import label

from smcore import baselines, demo, grids, prepared, product, regrid
from smcore.metrics import area_share, correlation, together, variance_ratio
from smcore.seasons import annual_mean
from smcore.ssmi import INDICES, interannual_std
from smcore.trends import false_discovery_rate, trend

CELLS = ("lat", "lon")


def scenario_trends(
    read, experiments, *, study, indices, baseline, std, tested=None, mean=annual_mean
):
    """``slope`` per decade, and ``p_value`` of a tested index, by experiment_id and index.

    `read` gives the months of an experiment_id in m3 m-3 (time, lat, lon and any others), and
    `mean` takes months to years. The period is the future of `study`. `indices` are readings of
    the trend: "ssmi", divided by the series' own standard deviation over the years `baseline`, as
    in the paper; "ssmi_sources", divided by `std`, see :func:`smcore.ssmi.interannual_std`; and
    "theta", the water content itself. Of indices other than `tested`, ``p_value`` is NaN.
    """
    options = {
        "ssmi": {"baseline": baseline},
        "ssmi_sources": {"baseline": baseline, "standard_deviation": std},
        "theta": {},
    }
    for index in [*indices, tested or indices[0]]:
        if index not in options:
            raise ValueError(f"`index` must be one of {', '.join(options)}, got {index!r}")
    found = {}
    for name in experiments:  # one after the other: months of a product are large
        theta = read(name)
        if int(baseline[0]) < int(study.periods.future[0]):
            theta = xr.concat([read("historical"), theta], "time", combine_attrs="drop_conflicts")
        asked = {"period": study.periods.future, "mean": mean}
        trends = {one: trend(theta, test=one == tested, **asked, **options[one]) for one in indices}
        found[name] = together(trends, dim="index")
    return together(found, dim="experiment_id")


def check_alpha(alpha):
    """Raise ValueError unless `alpha` can be the level of a test, and twice that a rate."""
    if not isinstance(alpha, int | float) or not 0 < alpha < 0.5:
        raise ValueError(
            "`alpha` must lie between 0 and 0.5, because the false discovery rate is controlled "
            f"at twice that level, got {alpha!r}"
        )


def agreement(trends, *, alpha=0.05):
    """How far the sources agree on the sign of a trend, and how many of them are sure of it.

    Of ``slope`` and, where it was tested, ``p_value`` (source_id and any others): ``sign`` of the
    majority (0 for a draw), ``same_sign``, the share of the sources with that sign (of a draw: with
    either), and ``significant``, the share with that sign and a p-value below `alpha`; 0 to 1, of
    the sources with a slope, else NaN. The IPCC hatches where fewer than 80 % of the models agree
    (Gutiérrez et al. 2021, doi:10.1017/9781009157896.021, Cross-Chapter Box Atlas.1).
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

    `condition` has the dimensions lat, lon and any others; `regions` are masks by name.
    """
    found = {name: area_share(condition, area, mask=mask) for name, mask in regions.items()}
    return together(found, dim="region")


def shares(trends, area, regions, *, alpha=0.05):
    """Shares of area that dry and that wet, that do so significantly, and after correction.

    Of ``slope`` and ``p_value`` (lat, lon and any others; each map is one family of tests), in % of
    the `area` of each of the `regions`, masks by name: ``drier``, ``wetter``, and the same with
    ``_significant``, p below `alpha`, and ``_corrected``, at a false discovery rate of twice that.
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
    """How like two maps of slopes are, by ``region``, in all but the median weighted with `area`.

    ``same_sign``, % of the area in which both differ from zero to the same side; ``correlation`` of
    the patterns; ``std_ratio``, below 1 where a signal is damped; ``regression``, the slope of a
    line through `estimate` over `reference`; ``median_ratio`` of the cells; ``skill``, 1 less the
    mean squared difference over the mean square of `reference`: 0 is as good as no trend at all.
    `regions` are masks by name; dimensions beside lat and lon are kept and broadcast.
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
    """The largest patch of a mask, of cells that share an edge: its ``share`` of `area` in %.

    `area` is zero or NaN outside the whole that the share is of, and weights the mean position,
    ``centre_lat`` and ``centre_lon``. All three are NaN where `mask` is empty.
    """
    mask = mask.transpose(*CELLS)
    area = area.transpose(*CELLS).fillna(0)
    patches, number = label(mask.values)
    if number == 0:
        return xr.Dataset({name: np.nan for name in ("share", "centre_lat", "centre_lon")})
    sizes = np.bincount(patches.ravel(), weights=area.values.ravel())
    weights = area.where(patches == 1 + sizes[1:].argmax(), 0)
    centre = {f"centre_{axis}": (weights * mask[axis]).sum() / weights.sum() for axis in CELLS}
    return xr.Dataset({"share": 100 * weights.sum() / area.sum(), **centre})


def product_and_sources(study, static, *, indices=INDICES, **asked):
    """Trends of the product, and of the sources in its cells, as :func:`scenario_trends` has them.

    `static` holds the fine grid and its land; the standard deviation is that of historical years.
    """
    read = partial(prepared.open_predictors, study)
    std = interannual_std(read("historical"), study.periods.historical)
    asked |= {"study": study, "experiments": study.experiments, "indices": indices}
    sources = grids.on_cells_of(scenario_trends(read, std=std, **asked), static["land"])
    std = regrid.upsampled(std, static).assign_attrs(std.attrs)
    return scenario_trends(partial(product.fused, study), std=std, **asked), sources


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
        return regrid.upsampled(annual_mean(months), static).where(static["land"])

    def slope(read, mean=annual_mean):
        asked = {"indices": ["theta"], "baseline": study.periods.future, "std": None, "mean": mean}
        return scenario_trends(read, experiments, study=study, **asked)["slope"].squeeze("index")

    readers = {f"ynet_{name}": partial(product.fused, one) for name, one in study.presets.items()}
    found = {name: slope(read) for name, read in readers.items()}
    found |= {"delta_change": slope(raw, on_fine), "delta_change_31": slope(smooth, on_fine)}
    known = {"truth": slope(lambda run: demo.truth(study, run)["theta"])} if study.synthetic else {}
    return found | known
