"""Claims of the paper beside what was found."""

import pandas as pd

VERDICTS = ("agrees", "differs", "not testable", "impossible", "demo")
# Mathematics decides these, whatever the data.
IMPOSSIBLE = {"taylor-amplitude"}


def finding(found, agrees, *, region, interval="", note=""):
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
    """
    agrees = None if agrees is None else bool(agrees)
    return {
        "found": str(found),
        "agrees": agrees,
        "interval": interval,
        "region": region,
        "note": note,
    }


def verdicts(claims, results, *, synthetic=False):
    """The ledger: every claim with its counterpart and a verdict.

    Parameters
    ----------
    claims : list of dict
        As in ``data/paper_claims.yml``: ``id``, ``where``, ``quantity`` and what is claimed in
        ``value`` with ``units``, ``threshold`` or ``expected``.
    results : dict
        Findings of the chapters by claim id, as `finding` makes them.
    synthetic : bool, default: False
        Whether the findings come from the demo world. Such a finding can neither confirm nor
        refute a claim: its verdict is ``demo``.

    Returns
    -------
    pd.DataFrame
        Index ``id``; columns ``where``, ``claim``, ``claimed``, ``found``, ``interval``,
        ``region``, ``verdict`` and ``note``.

    Raises
    ------
    ValueError
        If there is a finding for a claim that does not exist.
    """
    ids = [claim["id"] for claim in claims]
    unknown = sorted(set(results) - set(ids))
    if unknown:
        raise ValueError(f"`results` holds {', '.join(unknown)}: no such claims among {ids}")

    rows = []
    for claim in claims:
        found = results.get(claim["id"])
        rows.append(
            {
                "id": claim["id"],
                "where": claim["where"],
                "claim": _claim(claim),
                "claimed": _claimed(claim),
                "found": found["found"] if found else "",
                "interval": found["interval"] if found else "",
                "region": found["region"] if found else "",
                "verdict": _verdict(claim, found, synthetic),
                "note": "; ".join(filter(None, [claim.get("note"), found and found["note"]])),
            }
        )
    return pd.DataFrame(rows).set_index("id")


def _claim(claim):
    parts = [claim["quantity"], claim.get("statistic")]
    parts += [claim.get(key) for key in ("season", "experiment", "region")]
    if "month" in claim:
        parts.append(f"month {claim['month']}")
    return ", ".join(str(part) for part in parts if part)


def _claimed(claim):
    value = f"{claim['value']:g} {claim.get('units', '')}".strip() if "value" in claim else ""
    return " ".join(filter(None, [claim.get("threshold"), value, claim.get("expected")]))


def _verdict(claim, found, synthetic):
    if claim["id"] in IMPOSSIBLE:
        return "impossible"
    if found is None:
        return "not testable"
    if synthetic:
        return "demo"
    return {True: "agrees", False: "differs", None: "not testable"}[found["agrees"]]
