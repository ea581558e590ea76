"""Judgements on the statements of the paper."""

import re

from smcore.config import LABELS

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


# --- training ---


def training_findings(history):
    """When the training had converged, as the paper's claim on its loss may be read.

    Parameters
    ----------
    history : pd.DataFrame
        Index epoch; column ``validation``, the loss in the validation years.

    Returns
    -------
    dict
        The finding ``loss-converged``: the first epoch within 1 % of the lowest loss. It cannot
        be judged, since the paper gives no definition.
    """
    losses = history["validation"]
    found = f"epoch {losses.index[losses <= 1.01 * losses.min()][0]}"
    note = "within 1 % of the lowest validation loss"
    return {"loss-converged": finding(found, None, region="box", note=note)}
