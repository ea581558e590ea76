"""Judgements on the statements of the paper."""

import re

import numpy as np
import xarray as xr

from smcore.config import LABELS, Region, label, paper_claims
from smcore.grids import box_mask, cell_area
from smcore.metrics import area_share, bootstrap_years, confidence_interval

SCENARIO = re.compile(r"ssp\d{3}")
PAPER_SCENARIOS = ("ssp126", "ssp245", "ssp370", "ssp585")


def finding(found, agrees, *, region, interval="", note="", reason=""):
    """What a chapter found for one claim.

    Parameters
    ----------
    found : str
        The computed counterpart as it is to be printed, with its unit.
    agrees : bool or None
        Whether it is what the claim says; None where that cannot be said.
    region : str
        The area that it was computed for.
    interval : str, optional
        Between what it may lie, and of what kind that interval is.
    note : str, optional
        Variant of the definition, where the paper leaves it open.
    reason : str, optional
        Why it cannot be said whether it agrees. By default: the text gives no definition.
    """
    agrees = None if agrees is None else bool(agrees)
    return {
        "found": str(found),
        "agrees": agrees,
        "interval": interval,
        "region": region,
        "note": note,
        "reason": reason,
    }


def judged(findings, claims, experiments):
    """Findings of a chapter, without a judgement where a scenario is missing.

    Parameters
    ----------
    findings : dict
        By claim id, as :func:`finding` makes them.
    claims : list of dict
        As in ``data/paper_claims.yml``. A claim is about the scenarios that its ``experiment``
        names, and about all four of the paper where it names none, such as "all" or
        "low to high".
    experiments : sequence of str
        Scenarios that the findings come from.

    Returns
    -------
    dict
        The same findings. One that lacks a scenario keeps its number, but has ``agrees`` None,
        a ``reason``, and ``lacking``, which keeps it from a verdict on any data.
    """
    by_id = {claim["id"]: claim for claim in claims}
    result = {}
    for name, one in findings.items():
        lacking = _lacking(by_id[name], experiments)
        if lacking:
            one = one | {"agrees": None, "reason": _without(lacking), "lacking": lacking}
        result[name] = one
    return result


def _lacking(claim, experiments):
    """Scenarios that a claim is about and that are not among `experiments`."""
    needed = SCENARIO.findall(str(claim.get("experiment", ""))) or PAPER_SCENARIOS
    return [name for name in needed if name not in experiments]


def _without(lacking):
    return f"this study has no {', '.join(lacking)}: name it under `experiments` of the profile"


def between_sources(values, form="{:+.3f}"):
    """The range of a statistic over the sources, in words.

    Parameters
    ----------
    values : xr.DataArray
        Dimension ``source_id``, or that and ``experiment_id``: then over both.
    form : str, default: "{:+.3f}"
        How a number is written, with its unit behind it where it has one.
    """
    over = "sources and scenarios" if "experiment_id" in values.dims else "sources"
    number, _, unit = form.partition("}")
    low, high = (f"{number}}}".format(float(value)) for value in (values.min(), values.max()))
    return f"{over} {low} to {high}{unit}"


def by_scenario(values, form="{:+.3f}"):
    """A statistic of each scenario in words: ``SSP1-2.6 +0.010, SSP5-8.5 -0.020``.

    Parameters
    ----------
    values : xr.DataArray
        Dimension ``experiment_id``.
    form : str, default: "{:+.3f}"
        How a number is written.
    """
    names = values["experiment_id"].values
    return ", ".join(
        f"{LABELS[name]} {form.format(float(values.sel(experiment_id=name)))}" for name in names
    )


def level_with_best(scores, *, within):
    """The names whose score is the highest, or so close to it that the difference says nothing.

    Parameters
    ----------
    scores : pd.Series
        By name; the higher the better.
    within : float
        A score less than this below the highest is level with it.

    Returns
    -------
    list of str
        The best first.
    """
    ranked = scores.sort_values(ascending=False, kind="stable")
    return list(ranked.index[ranked > ranked.iloc[0] - within])


# --- validation ---


def verdict(difference):
    """Where an estimate stands by the error that it has more than another.

    `difference` (xr.Dataset or dict) has the ends of an interval, ``low`` and ``high``: ``closer``
    to the reference if all of it lies below zero, ``farther`` if above, ``level`` if it holds
    zero, ``not decided`` where it is missing.
    """
    low, high = float(difference["low"]), float(difference["high"])
    if np.isnan(low) or np.isnan(high):
        return "not decided"
    return "closer" if high < 0 else "farther" if low > 0 else "level"


def leader(scores, score="rmsd"):
    """The dataset with the lowest error, whether it is ahead of all others, and the runner-up.

    `scores` come from :func:`smcore.validation.score_table`; ahead means that the interval of its
    difference from every other dataset excludes zero.
    """
    here = scores.sel(score=score)
    first, second = here["value"].to_series().sort_values(kind="stable").index[:2]
    return first, bool(here["ahead"].sel(dataset=first)), second


def with_interval(scores, form="{:.1f}", factor=1000):
    """Values with their 95 % interval as a page shows them: ``26.5 (25.1 to 27.9)``.

    `scores` has ``value``, ``low`` and ``high`` with dataset and another dimension, and perhaps
    ``ahead``, which adds a star. All are multiplied by `factor`. Returns a pd.DataFrame.
    """

    def written(value, low, high, ahead):
        numbers = (form.format(factor * one).replace("-", "−") for one in (value, low, high))
        return "{} ({} to {})".format(*numbers) + " *" * bool(ahead)

    scores = scores.transpose("dataset", ...)
    ahead = scores.get("ahead", xr.zeros_like(scores["value"], dtype=bool))
    parts = *(scores[name] for name in ("value", "low", "high")), ahead
    return xr.apply_ufunc(written, *parts, vectorize=True, output_dtypes=[object]).to_pandas()


def best_and_median(errors):
    """The names with the lowest and the (lower) median of errors, a pd.Series by name."""
    ranked = errors.sort_values(kind="stable").index
    return ranked[0], ranked[(len(ranked) - 1) // 2]


def winners(scores, score, by, *, tolerance=0.01):
    """Which methods are best along the values of a switch: ``"a, b at 0 to 0.1; c at 0.2"``.

    Parameters
    ----------
    scores : pd.DataFrame
        One row for each method and value, with the columns ``method`` (ids), `by` and `score`.
    score, by : str
        The column of the score, of which lower is better, and that of the switch.
    tolerance : float, default: 0.01
        Share of the lowest score by which another one counts as equal to it.
    """
    runs = []
    for value, rows in scores.groupby(by):
        best = rows["method"][rows[score] <= (1 + tolerance) * rows[score].min()]
        methods = ", ".join(map(label, best))
        if runs and runs[-1][0] == methods:
            runs[-1][1].append(value)
        else:
            runs.append((methods, [value]))
    return "; ".join(
        f"{methods} at {' to '.join(f'{value:g}' for value in dict.fromkeys([at[0], at[-1]]))}"
        for methods, at in runs
    )


def phase_shift(cycle, reference):
    """Months by which a mean annual cycle lags another, -6 to 5: where the two correlate best."""
    shifts = sorted(range(-6, 6), key=abs)
    return max(shifts, key=lambda months: np.corrcoef(np.roll(cycle, -months), reference)[0, 1])


def share_with_error(annual, claim, area, mask):
    """Share of an area in % whose mean error keeps to a claim's threshold, and its interval.

    `annual` is the mean absolute error of each year, (year, lat, lon), `claim` one of the paper's
    with a ``threshold`` such as "< 0.04". Returns share, low and high, by draws of years; NaN where
    `mask` is empty.
    """
    if not mask.any():
        return np.nan, np.nan, np.nan
    sign, limit = claim["threshold"].split()

    def share(errors):
        meets = errors < float(limit) if sign == "<" else errors > float(limit)
        return area_share(meets, area, mask=mask)

    bounds = confidence_interval(share(bootstrap_years(annual, resamples=300, seed=0)))
    return float(share(annual.mean("year"))), *map(float, bounds)


def validation_findings(study, product, scores, statistics, annual, cycles, static, *, gap):
    """Findings by claim on what the paper says of its product in the test years.

    Parameters
    ----------
    study : Study
        Its regions and the name of its study area.
    product : str
        Id of the product that is meant.
    scores, statistics : xr.Dataset
        From :func:`smcore.validation.score_table` and :func:`smcore.metrics.taylor_statistics`,
        of what the paper compares: `product`, ``ensemble_mean`` and the sources.
    annual : xr.DataArray
        Mean absolute error (dataset, year, lat, lon) of `product` and ``ensemble_mean``.
    cycles : xr.DataArray
        Mean annual cycles (dataset, site, month) of ``reference`` and ``ensemble_mean``.
    static : xr.Dataset
        ``study_area`` and ``elevation`` on the fine grid.
    gap : xr.Dataset
        ``low`` and ``high``, the interval of the MAE of `product` less that of ``ensemble_mean``.
    """
    claims, found, place = paper_claims(), {}, study.study_area.name
    area = cell_area(annual["lat"], annual["lon"])
    here = static["study_area"] & annual.notnull().all(["dataset", "year"])
    boxes = {name: here & box_mask(annual, box) for name, box in study.regions.items()}
    high, outer = here & (static["elevation"] > 3000), boxes["west"] | boxes["south"]
    for name, dataset, mask, region in (
        ("mae-area", product, here, place),
        ("mae-plateau", product, high, f"{place} above 3000 m"),
        ("mae-ensemble", "ensemble_mean", outer, f"west and south of {place}"),
    ):
        share, low, high = share_with_error(annual.sel(dataset=dataset), claims[name], area, mask)
        least, most = _agreeing(claims[name])
        found[name] = finding(
            f"{share:.1f} %",
            None if np.isnan(share) else least <= share <= most,
            region=region,
            interval="" if np.isnan(share) else f"years {low:.1f} to {high:.1f} %",
            note=f"agrees from {least:g} to {most:g} %",
        )
    claim, errors = claims["mae-inner-mongolia"], annual.sel(dataset=product).mean("year")
    named = {name: Region(**box) for name, box in claim["boxes"].items()}
    medians = {
        name: float(errors.weighted(area * (here & box_mask(errors, box))).quantile(0.5))
        for name, box in named.items()
    }
    (least, most), values = claim["agrees"], np.array(list(medians.values()))
    found["mae-inner-mongolia"] = finding(
        "; ".join(f"{name} {median:.3f} m³ m⁻³" for name, median in medians.items()),
        None if np.isnan(values).any() else ((least <= values) & (values <= most)).all(),
        region=f"{place}; " + "; ".join(map(str, named.values())),
        note="area-weighted medians of the cells",
    )

    pooled = {"region": "land", "note": "pooled cells and months"}
    four = scores["value"].sel(score=["mae", "rmsd", "ubrmsd", "correlation"])
    gain = four.sel(dataset=product, drop=True) - four.sel(dataset="ensemble_mean", drop=True)
    better = gain.transpose("score") * [-1, -1, -1, 1] > 0
    found["better-than-ensemble"] = finding(
        f"better in {int(better.sum())} of 4",
        better.all(),
        interval="difference in MAE {:+.2f} to {:+.2f} 10⁻³ m³ m⁻³ (years)".format(
            *(1000 * float(gap[end]) for end in ("low", "high"))
        ).replace("-", "−"),
        **pooled,
    )
    r, distance, spread = (statistics[of] for of in ("correlation", "ubrmsd_ratio", "std_ratio"))
    best = [str(one.idxmax("dataset").item()) for one in (r, -distance, -abs(spread - 1))]
    text = f"best r, ubRMSD, std: {', '.join(map(label, best))}"
    found["better-than-all"] = finding(text, set(best) == {product}, **pooled)

    ours, mean = statistics.sel(dataset=product), statistics.sel(dataset="ensemble_mean")
    sources = statistics.drop_sel(dataset=[product, "ensemble_mean"]).rename(dataset="source_id")
    between = {of: between_sources(sources[of], "{:.2f}") for of in sources}
    for name, of, extreme in (
        ("taylor-r", "correlation", float(sources["correlation"].max())),
        ("taylor-ubrmsd", "ubrmsd_ratio", float(sources["ubrmsd_ratio"].min())),
    ):
        least, most = claims[name]["agrees"]
        agrees = least < extreme < most
        found[name] = finding(f"{extreme:.2f}", agrees, interval=between[of], **pooled)
    after = _behind(sources, mean)
    text = f"{int(after.sum())} of {after.size} sources are behind it in both"
    found["taylor-second"] = finding(text, after.all() and _behind(mean, ours), **pooled)
    text = f"{float(mean['std_ratio']):.2f} against {float(sources['std_ratio'].mean()):.2f}"
    interval = between["std_ratio"]
    found["taylor-amplitude"] = finding(text, False, interval=interval, **pooled)

    cycles = cycles.sel(site=[name for name in cycles["site"].values if "Plateau" not in name])
    ours, theirs = (cycles.sel(dataset=of) for of in ("ensemble_mean", "reference"))
    shifts = {
        name: phase_shift(ours.sel(site=name), theirs.sel(site=name)) for name in ours.site.values
    }
    offset = (ours - theirs).mean("month").to_series()
    found["phase"] = finding(
        "; ".join(
            f"{name}: shifted by {months} months, bias {offset[name]:+.3f} m³ m⁻³"
            for name, months in shifts.items()
        ),
        not any(shifts.values()),
        region="the sites of Fig. 4 without the plateau's",
        note="in phase: no shift of months brings the mean annual cycles closer",
    )
    return found


def _agreeing(claim):
    """Lowest and highest share in % that agree: given, or within a margin of the paper's."""
    value, margin = claim.get("value"), claim.get("margin")
    return claim["agrees"] if margin is None else (value - margin, value + margin)


def _behind(one, other):
    """Whether a dataset of a Taylor diagram is behind another in distance and in correlation."""
    farther = one["ubrmsd_ratio"] > other["ubrmsd_ratio"]
    return farther & (one["correlation"] < other["correlation"])
