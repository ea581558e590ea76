"""Judgements on the statements of the paper."""

import re

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
