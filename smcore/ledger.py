"""Claims of the paper beside what was found."""

import calendar
import html
import json
from pathlib import Path

import pandas as pd

from smcore.claims import SCENARIO, lacking, without
from smcore.config import label
from smcore.store import checked

NOT_COMPUTED = "no chapter computes a counterpart for this study's experiments, periods, regions"
VERDICTS = ("agrees", "differs", "not testable", "impossible", "demo")


def read_findings(chapters, study, *folders):
    """The findings by claim id that chapters have left, each with the ``chapter`` it is from.

    A ``<chapter>.json`` in a later of the `folders` goes first, that of the `study` last.
    FileNotFoundError if there is none, ValueError if it is damaged or out of date.
    """
    found, folders = {}, (study.results, *folders)
    for chapter in chapters:
        there = [path for folder in folders if (path := Path(folder, f"{chapter}.json")).is_file()]
        if not there:
            where = ", ".join(map(str, folders))
            text = f"there are no findings of chapter {chapter} in {where}"
            raise FileNotFoundError(f"{text}; run `notebooks/run.py {chapter}`")
        own = study if there[-1].parent == Path(study.results) else None
        path = checked(there[-1], chapter, study=own)
        claims = json.loads(path.read_text(encoding="utf-8"))["claims"]
        found |= {name: one | {"chapter": chapter} for name, one in claims.items()}
    return found


def verdicts(claims, results, *, synthetic=False, experiments=None):
    """The ledger: every claim with its counterpart, a verdict and the reason for it.

    Parameters
    ----------
    claims : iterable of dict
        As in ``data/paper_claims.yml``, whose first lines say what the keys mean.
    results : dict
        Findings of the chapters by claim id, as `smcore.claims.finding` makes them.
    synthetic : bool, default: False
        Whether they come from the demo world, which can neither confirm nor refute: ``demo``.
    experiments : sequence of str, optional
        Those of the study. A claim without a finding that names others lacks them.

    Returns
    -------
    pd.DataFrame
        By ``id``: ``where``, ``claim``, ``claimed``, ``found``, ``interval``, ``region``,
        ``verdict``, ``reason``, ``note``, ``chapter``. There is a reason for each ``not testable``
        and ``impossible``, and for ``demo`` where real data could not decide.

    Raises
    ------
    ValueError
        If there is a finding for a claim that does not exist.
    """
    rows = {}
    for claim in claims:
        found = results.get(claim["id"], {})
        verdict, reason = _verdict(claim, found, synthetic, experiments)
        rows[claim["id"]] = {
            "where": claim["where"],
            "claim": _claim(claim),
            "claimed": _claimed(claim),
            **{key: found.get(key, "") for key in ("found", "interval", "region")},
            "verdict": verdict,
            "reason": reason,
            "note": "; ".join(filter(None, [claim.get("note"), found.get("note")])),
            "chapter": found.get("chapter", ""),
        }
    if unknown := sorted(set(results) - set(rows)):
        raise ValueError(f"`results` holds {', '.join(unknown)}: no such claims among {[*rows]}")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("id")


def by_section(ledger, patterns):
    """Rows whose ``where`` matches a pattern, by its name; ValueError unless each matches one."""
    rows = {name: ledger["where"].str.match(pattern) for name, pattern in patterns.items()}
    wrong = ledger.index[sum(rows.values()) != 1]
    if len(wrong):
        raise ValueError(f"each claim belongs to one part, not so: {', '.join(wrong)}")
    return {name: ledger[here] for name, here in rows.items()}


def counts(ledger):
    """How many claims have which verdict (columns), by section of the paper and in all (rows)."""
    section = ledger["where"].str.split(",").str[0]
    table = pd.crosstab(section, ledger["verdict"], margins=True, margins_name="all")
    there = [verdict for verdict in (*VERDICTS, "all") if verdict in table]
    return table[there].rename_axis(index=None, columns=None)


def to_html(ledger):
    """Rows of a ledger as an HTML table, which a style sheet can show as cards on a narrow screen.

    A cell has its heading in ``data-label``, and what qualifies it in small type.
    """
    rows = []
    for row in ledger.itertuples():
        number = f"chapter {int(row.chapter.split('_')[0])}" if row.chapter else ""
        place = "; ".join(filter(None, [row.region, number]))
        cells = {
            "claim": _cell(row.claim, row.where),
            "the paper": _cell(row.claimed),
            "found": _cell(row.found, row.interval, place),
            "verdict": _cell(row.verdict, row.reason, row.note),
        }
        body = "".join(f'<td data-label="{key}">{cell}</td>' for key, cell in cells.items())
        rows.append(f'<tr class="{row.verdict.replace(" ", "-")}">{body}</tr>')
    head = "<thead><tr>" + "".join(f"<th>{key}</th>" for key in cells) + "</tr></thead>"
    return f'<table class="ledger">{head}<tbody>{"".join(rows)}</tbody></table>'


def _cell(text, *small):
    small = "".join(f"<small>{_printed(part)}</small>" for part in small if part)
    return f"<span>{_printed(text) or '–'}</span>{small}"


def _printed(text):
    """Text as a page shows it: raised exponents, scenarios by the names readers know."""
    text = SCENARIO.sub(lambda name: label(name[0]), text)
    return html.escape(text.replace("m3 m-3", "m³ m⁻³"))


def _claim(claim):
    keys = ("quantity", "statistic", "season", "experiment", "region")
    parts = [*map(claim.get, keys), calendar.month_name[claim.get("month", 0)]]
    return ", ".join(str(part).replace("_", " ") for part in parts if part)


def _claimed(claim):
    value = f"{claim['value']:g} {claim.get('units', '')}".strip() if "value" in claim else ""
    expected = " ".join(filter(None, [value, claim.get("expected")]))
    return ": ".join(filter(None, [claim.get("threshold"), expected]))


def _verdict(claim, found, synthetic, experiments):
    """Verdict and reason."""
    if "impossible" in claim:
        return "impossible", claim["impossible"]
    if not found:
        gone = lacking(claim, experiments) if experiments and "experiment" in claim else []
        return "not testable", without(gone) if gone else NOT_COMPUTED
    if found.get("lacking"):
        return "not testable", found["reason"]
    reason = ""
    if found["agrees"] is None:
        reason = found.get("reason") or "the text gives no definition to judge by"
    if synthetic:
        return "demo", reason and f"nor with real data: {reason}"
    return {None: "not testable", True: "agrees", False: "differs"}[found["agrees"]], reason
