import ast
import json
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from smcore.claims import finding, judged
from smcore.config import ROOT
from smcore.ledger import (
    VERDICTS,
    by_section,
    counts,
    read_findings,
    to_html,
    verdicts,
)
from smcore.store import write_json

PAPER = yaml.safe_load((ROOT / "data" / "paper_claims.yml").read_text())["claims"]
CLAIMS = [
    {"id": "area", "where": "3.2", "quantity": "MAE", "threshold": "< 0.04", "value": 70.14,
     "units": "%", "statistic": "share", "region": "study_area"},
    {"id": "wetter", "where": "4", "quantity": "slope", "expected": "> 0", "season": "JJA",
     "experiment": "ssp585", "note": "of SSMI"},
    {"id": "may", "where": "3.3.2", "quantity": "change rate", "month": 5, "value": -14.85,
     "units": "%"},
    {"id": "epoch", "where": "3.1", "quantity": "epoch", "value": 40},
    {"id": "taylor-amplitude", "where": "Fig. 5", "quantity": "amplitude", "expected": "larger",
     "impossible": "by the triangle inequality"},
]  # fmt: skip
FINDINGS = {
    "area": finding("71.2 %", True, region="land", note="within 5 points"),
    "wetter": finding("-0.01", False, region="north", note="annual"),
    "epoch": finding("epoch 12", None, region="box"),
    "taylor-amplitude": finding("smaller", False, region="land"),
}


def test_verdicts_are_those_worked_by_hand():
    ledger = verdicts(CLAIMS, FINDINGS)
    assert ledger["verdict"].to_dict() == {
        "area": "agrees",
        "wetter": "differs",
        "may": "not testable",  # no chapter computed it
        "epoch": "not testable",  # computed, but the text gives no definition
        "taylor-amplitude": "impossible",  # no data can make it true
    }


def test_verdicts_print_what_was_claimed_and_found():
    ledger = verdicts(CLAIMS, FINDINGS)
    assert list(ledger.columns) == [
        *("where", "claim", "claimed", "found", "interval", "region"),
        *("verdict", "reason", "note", "chapter"),
    ]
    assert ledger["claimed"].tolist() == ["< 0.04: 70.14 %", "> 0", "-14.85 %", "40", "larger"]
    assert ledger["claim"].tolist() == [
        "MAE, share, study area",
        "slope, JJA, ssp585",
        "change rate, May",
        "epoch",
        "amplitude",
    ]
    assert ledger.loc["area", ["found", "region"]].tolist() == ["71.2 %", "land"]
    assert ledger.loc["may", ["found", "region"]].tolist() == ["", ""]
    assert ledger["note"].tolist() == ["within 5 points", "of SSMI; annual", "", "", ""]


def test_verdicts_say_why_a_claim_cannot_be_judged():
    reasons = verdicts(CLAIMS, FINDINGS)["reason"]
    assert reasons["area"] == reasons["wetter"] == ""
    assert reasons["may"].startswith("no chapter computes a counterpart")
    assert reasons["epoch"] == "the text gives no definition to judge by"
    assert "triangle inequality" in reasons["taylor-amplitude"]

    own = finding("epoch 12", None, region="box", reason="no loss was kept")
    assert verdicts(CLAIMS, {"epoch": own})["reason"]["epoch"] == "no loss was kept"
    # on synthetic data a claim that nothing could decide is marked as such
    demo = verdicts(CLAIMS, FINDINGS, synthetic=True)["reason"]
    assert demo["epoch"] == "nor with real data: the text gives no definition to judge by"
    assert demo["area"] == ""


def test_verdicts_name_the_key_that_would_make_a_claim_testable():
    claims = [
        {"id": "one", "where": "3", "quantity": "slope", "experiment": "ssp585"},
        {"id": "two", "where": "3", "quantity": "slope", "experiment": "ssp126, ssp370"},
        {"id": "all", "where": "3", "quantity": "slope", "experiment": "all"},
        {"id": "none", "where": "3", "quantity": "slope"},
    ]
    reasons = verdicts(claims, {}, experiments=("ssp126", "ssp245"))["reason"]
    assert reasons["one"] == "this study has no ssp585: name it under `experiments` of the profile"
    assert reasons["two"].startswith("this study has no ssp370:")
    assert reasons["all"].startswith("this study has no ssp370, ssp585:")
    single = verdicts(claims, {}, experiments=("ssp126",))["reason"]
    assert single["none"].startswith("no chapter computes a counterpart")


def test_every_verdict_that_is_not_a_comparison_has_a_reason():
    open_ones = {claim["id"]: finding("1", None, region="land") for claim in PAPER[::2]}
    for synthetic in (True, False):
        ledger = verdicts(PAPER, open_ones, synthetic=synthetic)
        assert set(ledger["verdict"]) <= {"demo", "not testable", "impossible"}
        assert (ledger["reason"] != "").all()


def test_verdicts_survive_the_way_through_a_file():
    written = json.loads(json.dumps(FINDINGS))
    assert verdicts(CLAIMS, written).equals(verdicts(CLAIMS, FINDINGS))


def test_findings_of_a_later_folder_go_before_those_of_an_earlier_one(tmp_path):
    for folder, chapter, claims in [
        ("profile", "05_trends", {"wetter": FINDINGS["wetter"]}),
        ("profile", "07_change", {"may": finding("1 %", False, region="north")}),
        ("mine", "07_change", {"may": finding("2 %", False, region="north")}),
    ]:
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / f"{chapter}.json"
        write_json({"claims": claims}, path)
    chapters = ("05_trends", "07_change")
    study = SimpleNamespace(
        results=tmp_path / "profile", settings=lambda *keys: dict.fromkeys(keys)
    )
    found = read_findings(chapters, study, str(tmp_path / "mine"))
    assert {name: (one["found"], one["chapter"]) for name, one in found.items()} == {
        "wetter": ("-0.01", "05_trends"),
        "may": ("2 %", "07_change"),
    }
    assert verdicts(CLAIMS, found).loc["may", "chapter"] == "07_change"
    with pytest.raises(FileNotFoundError, match="run `notebooks/run.py 06_seasons`"):
        read_findings(("06_seasons",), study)


def test_by_section_shows_each_claim_once():
    table = verdicts(CLAIMS, FINDINGS)
    parts = by_section(table, {"two": r"3\.[12]", "rest": r"3\.3|4|Fig"})
    assert sorted([*parts["two"].index, *parts["rest"].index]) == sorted(table.index)
    assert list(parts["two"].index) == ["area", "epoch"]
    with pytest.raises(ValueError, match="belongs to one part, not so"):
        by_section(table, {"two": r"3\.[12]", "all": r"3"})


def test_counts_are_by_section_and_verdict():
    table = counts(verdicts(CLAIMS, FINDINGS))
    assert table.columns.tolist() == ["agrees", "differs", "not testable", "impossible", "all"]
    assert table.loc["3.2"].tolist() == [1, 0, 0, 0, 1]
    assert table.loc["3.1", "not testable"] == table.loc["3.3.2", "not testable"] == 1
    assert table.loc["all"].tolist() == [1, 1, 2, 1, 5]


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.labels, self.texts, self.rows = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.labels += [value for key, value in attributes if key == "data-label"]
        self.rows += [dict(attributes)["class"]] if tag == "tr" and attributes else []

    def handle_data(self, data):
        self.texts.append(data)


def test_the_table_carries_headings_into_its_cells_and_escapes():
    ledger = verdicts(CLAIMS, FINDINGS)
    cells = Cells(to_html(ledger))
    assert cells.labels == ["claim", "the paper", "found", "verdict"] * len(CLAIMS)
    assert cells.rows == ["agrees", "differs", "not-testable", "not-testable", "impossible"]
    assert "< 0.04: 70.14 %" in cells.texts  # as text, not as a tag
    assert {"3.2", "71.2 %", "within 5 points", "land"} <= set(cells.texts)
    assert "–" in cells.texts  # nothing found for May


def test_verdicts_refuse_a_finding_without_a_claim():
    with pytest.raises(ValueError, match="maize-area"):
        verdicts(CLAIMS, {"maize-area": finding("1", True, region="land")})


def test_verdicts_of_the_demo_world_neither_confirm_nor_refute():
    for agrees in (True, False, None):
        findings = {claim["id"]: finding("1", agrees, region="land") for claim in CLAIMS}
        ledger = verdicts(CLAIMS, findings, synthetic=True)
        assert set(ledger["verdict"]) == {"demo", "impossible"}
        assert ledger.loc["taylor-amplitude", "verdict"] == "impossible"
    assert verdicts(CLAIMS, {}, synthetic=True)["verdict"].value_counts()["not testable"] == 4


def test_finding_accepts_what_numpy_and_xarray_compare():
    assert finding("1", np.float32(1) < 2, region="land")["agrees"] is True
    assert finding("1", np.array(3) < 2, region="land")["agrees"] is False
    assert finding("1", None, region="land")["agrees"] is None


def test_a_finding_from_part_of_the_scenarios_is_not_judged():
    claims = [
        {"id": "two", "where": "3", "quantity": "slope", "experiment": "ssp126, ssp370"},
        {"id": "all", "where": "3", "quantity": "slope", "experiment": "all"},
        {"id": "ends", "where": "3", "quantity": "slope", "experiment": "low to high"},
        {"id": "none", "where": "3", "quantity": "slope"},
    ]
    findings = {claim["id"]: finding("1", True, region="land") for claim in claims}
    here = ("ssp126", "ssp370", "ssp585")
    found = judged(findings, claims, here)
    assert found["two"] == findings["two"]
    for name in ("all", "ends", "none"):
        assert found[name]["agrees"] is None
        assert found[name]["found"] == "1"
        assert found[name]["reason"].startswith("this study has no ssp245:")
    assert judged(findings, claims, (*here, "ssp245")) == findings
    # synthetic data are not what stands in the way of these
    for synthetic in (True, False):
        ledger = verdicts(claims, found, synthetic=synthetic, experiments=here)
        assert (ledger.loc[["all", "ends", "none"], "verdict"] == "not testable").all()
        assert ledger.loc["two", "verdict"] == ("demo" if synthetic else "agrees")


def test_the_table_writes_scenarios_and_units_as_a_page_does():
    claim = {"id": "a", "where": "3", "quantity": "MAE, m3 m-3", "experiment": "ssp126"}
    texts = Cells(to_html(verdicts([claim], {}))).texts
    assert "MAE, m³ m⁻³, SSP1-2.6" in texts


def test_every_claim_of_the_paper_gets_a_row():
    ledger = verdicts(PAPER, {})
    assert ledger.index.tolist() == [claim["id"] for claim in PAPER]
    assert ledger.index.is_unique
    assert set(ledger["verdict"]) == {"impossible", "not testable"}
    assert (ledger[["where", "claim"]] != "").all(axis=None)
    assert ledger.index[ledger["verdict"] == "impossible"].tolist() == ["taylor-amplitude"]
    assert "triangle inequality" in ledger["reason"]["taylor-amplitude"]


def test_every_claim_of_the_paper_can_get_every_verdict():
    for agrees, expected in [(True, "agrees"), (False, "differs"), (None, "not testable")]:
        findings = {claim["id"]: finding("1", agrees, region="land") for claim in PAPER}
        found = set(verdicts(PAPER, findings)["verdict"])
        assert found == {expected, "impossible"}
        assert found <= set(VERDICTS)


def test_functions_of_findings_stand_findings_for_claims_that_exist():
    source = ast.parse((ROOT / "smcore" / "findings.py").read_text(encoding="utf-8"))
    known = {claim["id"] for claim in PAPER}
    written = {
        node.value
        for node in ast.walk(source)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert known <= written, f"no function finds {sorted(known - written)}"
