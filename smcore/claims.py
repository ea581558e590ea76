"""The words of a judgement: what was found beside what a statement says, and how sure it is."""

import re
from itertools import groupby

import numpy as np
import pandas as pd
import xarray as xr

from smcore.config import SCENARIOS, label

SCENARIO = re.compile(r"ssp\d{3}")


def finding(found, agrees, *, region, interval="", note="", reason=""):
    """What a chapter found for one claim, as a dict.

    The counterpart with its unit; whether it is what the claim says, None where that cannot be
    said, with the `reason` (by default: the text gives no definition); the area it is of; between
    what it may lie, with the kind of that interval; the definition taken.
    """
    agrees = None if agrees is None else bool(agrees)
    words = {"interval": interval, "region": region, "note": note, "reason": reason}
    return {"found": str(found), "agrees": agrees} | words


def judged(findings, claims, experiments):
    """Findings by claim id, without a judgement where `experiments` lack a scenario of the claim.

    Such a finding keeps its number, and has ``lacking``, which keeps it from a verdict on any data.
    """
    by_id, result = {claim["id"]: claim for claim in claims}, dict(findings)
    for name, one in findings.items():
        if gone := lacking(by_id[name], experiments):
            result[name] = one | {"agrees": None, "reason": without(gone), "lacking": gone}
    return result


def lacking(claim, experiments):
    """Scenarios that `experiments` lack of those that a claim names, or of all if it names none."""
    needed = SCENARIO.findall(str(claim.get("experiment", ""))) or SCENARIOS
    return [name for name in needed if name not in experiments]


def without(scenarios):
    """The reason that a study lacks these."""
    return f"this study has no {', '.join(scenarios)}: name it under `experiments` of the profile"


def between_sources(values, form="{:+.3f}"):
    """The range over sources, and scenarios if there are, by a form: ``sources 41 to 77 %``."""
    over = "sources and scenarios" if "experiment_id" in values.dims else "sources"
    number, _, unit = form.partition("}")
    low, high = (f"{number}}}".format(float(value)) for value in (values.min(), values.max()))
    return f"{over} {low} to {high}{unit}"


def listed(values, form="{:+.3f}"):
    """A value, or those of one dimension: ``SSP1-2.6 +0.010, SSP5-8.5 -0.020``."""
    if not values.dims:
        return form.format(values.item())
    named = zip(values[values.dims[0]].values, values.values)
    return ", ".join(f"{label(name)} {form.format(value)}" for name, value in named)


def level_with_best(scores, *, within):
    """Names whose score, a pd.Series, is less than `within` below the highest, the best first."""
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
    """How far datasets are from the truth, the nearest first, as a table; without truth, empty.

    `rates` are in %, (dataset, ...); ``distance`` is their mean absolute difference, ``skill`` 1
    less the mean squared difference over the mean square of the truth; ``level`` is "yes" for the
    networks (``ynet_...``) whose skill is less than `within` below the best of them, else "no", and
    "–" for what is no network.
    """
    if "truth" not in rates["dataset"]:
        return pd.DataFrame(columns=["distance", "skill", "level"]).rename_axis("dataset")
    over = [dim for dim in rates.dims if dim != "dataset"]
    off = rates.drop_sel(dataset="truth") - rates.sel(dataset="truth")
    skill = (1 - (off**2).mean(over) / (rates.sel(dataset="truth") ** 2).mean()).to_series()
    found = pd.DataFrame({"distance": abs(off).mean(over), "skill": skill, "level": "–"})
    network = found.index.str.startswith("ynet_")
    found.loc[network, "level"] = "no"
    found.loc[level_with_best(skill[network], within=within), "level"] = "yes"
    return found.sort_values("distance")


def verdict(difference):
    """Where an estimate stands by the error that it has more than another, ``low`` to ``high``.

    ``closer`` to the reference if that interval lies below zero, ``farther`` if above, ``level`` if
    it holds zero, ``not decided`` where it is missing.
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

    `scores` has the columns ``method`` (ids), `by` and `score`, of which lower is better; what is
    within the share `tolerance` of the lowest counts as equal to it.
    """
    best = {}
    for value, rows in scores.groupby(by):
        equal = rows[score] <= (1 + tolerance) * rows[score].min()
        best[value] = ", ".join(map(label, rows["method"][equal]))
    parts = []
    for methods, run in groupby(best, best.get):
        values = [f"{value:g}" for value in run]
        parts.append(f"{methods} at {' to '.join(dict.fromkeys([values[0], values[-1]]))}")
    return "; ".join(parts)
