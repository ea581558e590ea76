"""Claims of the paper beside what was found."""

import calendar
import html
import json
from pathlib import Path

import pandas as pd

from smcore.claims import SCENARIO, lacking, without
from smcore.config import LABELS
from smcore.store import checked

VERDICTS = ("agrees", "differs", "not testable", "impossible", "demo")
# Mathematics decides these, whatever the data.
IMPOSSIBLE = {
    "taylor-amplitude": "by the triangle inequality, the standard deviation of a mean is at most "
    "the mean of the standard deviations, on common cells and for any data",
}


def read_findings(chapters, *folders):
    """The findings by claim id that chapters have left, each with the ``chapter`` it is from.

    Each of the `chapters` leaves ``<chapter>.json`` in one of the `folders` with results; what
    lies in a later folder goes before what lies in an earlier one. FileNotFoundError if it is in
    none, ValueError if it is damaged or out of date.
    """
    found = {}
    for chapter in chapters:
        paths = [Path(folder, f"{chapter}.json") for folder in folders]
        there = [path for path in paths if path.is_file()]
        if not there:
            raise FileNotFoundError(
                f"{paths[0].name}: there are no findings of chapter {chapter} in "
                f"{', '.join(map(str, folders))}; run `notebooks/run.py {chapter}`"
            )
        claims = json.loads(checked(there[-1], chapter).read_text(encoding="utf-8"))["claims"]
        found |= {name: one | {"chapter": chapter} for name, one in claims.items()}
    return found


def verdicts(claims, results, *, synthetic=False, experiments=None):
    """The ledger: every claim with its counterpart, a verdict and the reason for it.

    Parameters
    ----------
    claims : iterable of dict
        As in ``data/paper_claims.yml``: ``id``, ``where``, ``quantity`` and what is claimed in
        ``value`` with ``units``, ``threshold`` or ``expected``.
    results : dict
        Findings of the chapters by claim id, as `smcore.claims.finding` makes them.
    synthetic : bool, default: False
        Whether the findings come from the demo world. Such a finding can neither confirm nor
        refute a claim: its verdict is ``demo``.
    experiments : sequence of str, optional
        Those of the study. A claim without a finding that names others lacks them.

    Returns
    -------
    pd.DataFrame
        Index ``id``; columns ``where``, ``claim``, ``claimed``, ``found``, ``interval``,
        ``region``, ``verdict``, ``reason``, ``note`` and ``chapter``. There is a reason for each
        verdict ``not testable`` and ``impossible``, and for ``demo`` where real data could not
        decide either.

    Raises
    ------
    ValueError
        If there is a finding for a claim that does not exist.
    """
    claims = list(claims)
    ids = [claim["id"] for claim in claims]
    unknown = sorted(set(results) - set(ids))
    if unknown:
        raise ValueError(f"`results` holds {', '.join(unknown)}: no such claims among {ids}")

    rows = []
    for claim in claims:
        found = results.get(claim["id"])
        verdict, reason = _verdict(claim, found, synthetic, experiments)
        found = found or {}
        rows.append(
            {
                "id": claim["id"],
                "where": claim["where"],
                "claim": _claim(claim),
                "claimed": _claimed(claim),
                **{key: found.get(key, "") for key in ("found", "interval", "region")},
                "verdict": verdict,
                "reason": reason,
                "note": "; ".join(filter(None, [claim.get("note"), found.get("note")])),
                "chapter": found.get("chapter", ""),
            }
        )
    return pd.DataFrame(rows).set_index("id")


def by_section(ledger, patterns):
    """The rows of a ledger whose ``where`` matches a regular expression, by name of the pattern.

    ValueError, with the ids, unless each row belongs to just one of them.
    """
    rows = {name: ledger["where"].str.match(pattern) for name, pattern in patterns.items()}
    wrong = ledger.index[sum(rows.values()) != 1]
    if len(wrong):
        raise ValueError(f"each claim belongs to one part, not so: {', '.join(wrong)}")
    return {name: ledger[here] for name, here in rows.items()}


def counts(ledger):
    """How many claims have which verdict (columns), by section of the paper and in all (rows).

    `ledger` is from :func:`verdicts`, and so is the order of the verdicts that occur.
    """
    section = ledger["where"].str.split(",").str[0].rename("section")
    table = pd.crosstab(section, ledger["verdict"])
    table = table[[verdict for verdict in VERDICTS if verdict in table]]
    table["all"] = table.sum(axis=1)
    table.loc["all"] = table.sum()
    return table.rename_axis(index=None, columns=None)


def to_html(ledger):
    """Rows of a ledger as an HTML table, which a style sheet can show as cards on a narrow screen.

    One row for each claim. A cell has its heading in ``data-label``, and what qualifies it in
    small type: where in the paper, the interval and the region, the reason and the note.
    """
    rows = []
    for row in ledger.itertuples():
        cells = {
            "claim": _cell(row.claim, row.where),
            "the paper": _cell(row.claimed),
            "found": _cell(row.found, row.interval, _place(row.region, row.chapter)),
            "verdict": _cell(row.verdict, row.reason, row.note),
        }
        name = row.verdict.replace(" ", "-")
        body = "".join(f'<td data-label="{key}">{cell}</td>' for key, cell in cells.items())
        rows.append(f'<tr class="{name}">{body}</tr>')
    head = "".join(f"<th>{key}</th>" for key in cells)
    return (
        f'<table class="ledger"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _cell(text, *small):
    small = "".join(f"<small>{_printed(part)}</small>" for part in small if part)
    return f"<span>{_printed(text) or '–'}</span>{small}"


def _printed(text):
    """Text as a page shows it: raised exponents, scenarios by the names readers know."""
    text = SCENARIO.sub(lambda name: LABELS.get(name[0], name[0]), text)
    return html.escape(text.replace("m3 m-3", "m³ m⁻³"))


def _place(region, chapter):
    number = f"chapter {int(chapter.split('_')[0])}" if chapter else ""
    return "; ".join(filter(None, [region, number]))


def _claim(claim):
    parts = [claim["quantity"], claim.get("statistic")]
    parts += [claim.get(key) for key in ("season", "experiment", "region")]
    if "month" in claim:
        parts.append(calendar.month_name[claim["month"]])
    return ", ".join(str(part).replace("_", " ") for part in parts if part)


def _claimed(claim):
    value = f"{claim['value']:g} {claim.get('units', '')}".strip() if "value" in claim else ""
    expected = " ".join(filter(None, [value, claim.get("expected")]))
    return ": ".join(filter(None, [claim.get("threshold"), expected]))


def _verdict(claim, found, synthetic, experiments):
    """Verdict and reason."""
    if claim["id"] in IMPOSSIBLE:
        return "impossible", IMPOSSIBLE[claim["id"]]
    if found is None:
        return "not testable", _missing(claim, experiments)
    if found.get("lacking"):
        return "not testable", found["reason"]
    open_to_reading = ""
    if found["agrees"] is None:
        open_to_reading = found.get("reason") or "the text gives no definition to judge by"
    if synthetic:
        return "demo", open_to_reading and f"nor with real data: {open_to_reading}"
    if found["agrees"] is None:
        return "not testable", open_to_reading
    return ("agrees" if found["agrees"] else "differs"), ""


def _missing(claim, experiments):
    """Why there is no finding."""
    if "experiment" in claim and experiments is not None and lacking(claim, experiments):
        return without(lacking(claim, experiments))
    return "no chapter computes a counterpart for the experiments, periods, regions of this study"
