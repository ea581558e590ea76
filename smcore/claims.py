"""The words of a judgement: what was found beside what a statement says, and how sure it is."""

import re

import numpy as np
import pandas as pd
import xarray as xr

from smcore.config import LABELS, label

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
        The best first; none of no scores.
    """
    ranked = scores.sort_values(ascending=False, kind="stable")
    return list(ranked.index[ranked > ranked.max() - within])


def median_and_range(values, form="{:.0f}"):
    """Median of the sources and their range in words: ``61 (48–71)``.

    `values` has the dimension source_id; the result is an array of str of the others.
    """
    three = (getattr(values, of)("source_id") for of in ("median", "min", "max"))
    written = "{} ({}–{})".format
    return xr.apply_ufunc(lambda *x: written(*map(form.format, x)), *three, vectorize=True)


def beside_range(value, values):
    """Where a number lies beside others: "below", "within" or "above" their range."""
    below, above = value < float(values.min()), value > float(values.max())
    return "below" if below else "above" if above else "within"


def closer(skill, other, *, within=0.03):
    """Whether an estimate is "closer" than another, "level" or "farther", by their skill.

    A difference less than `within` says nothing; "not decided" where one of them is NaN or None.
    """
    if pd.isna(skill) or pd.isna(other):
        return "not decided"
    difference = float(skill) - float(other)
    return "level" if abs(difference) < within else "closer" if difference > 0 else "farther"


def direction(rate, same_sign):
    """Whether a region becomes "wetter" or "drier", by a change rate in %.

    "undecided" where less than 80 % of the sources, `same_sign`, have the sign of the rate.
    """
    return "undecided" if same_sign < 80 or rate == 0 else ("wetter" if rate > 0 else "drier")


def nearest_to_truth(rates, *, within=0.03):
    """How far datasets are from the truth, as a table with the nearest first.

    Parameters
    ----------
    rates : xr.DataArray
        Change rates in %, dimension dataset and any others.
    within : float, default: 0.03
        A network (``ynet_<preset>``) is level with the best one where its skill is less than
        this below.

    Returns
    -------
    pd.DataFrame
        ``distance``, the mean absolute difference in percentage points; ``skill``, 1 less the
        mean squared difference over the mean square of the truth; ``level``, as above. Empty
        where there is no ``truth`` among the datasets.
    """
    if "truth" not in rates["dataset"]:
        return pd.DataFrame(columns=["distance", "skill", "level"]).rename_axis("dataset")
    over = [dim for dim in rates.dims if dim != "dataset"]
    off = rates.drop_sel(dataset="truth") - rates.sel(dataset="truth")
    skill = (1 - (off**2).mean(over) / (rates.sel(dataset="truth") ** 2).mean()).to_series()
    best = level_with_best(skill[skill.index.str.startswith("ynet_")], within=within)
    found = {"distance": abs(off).mean(over), "skill": skill, "level": skill.index.isin(best)}
    return pd.DataFrame(found).sort_values("distance")


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
