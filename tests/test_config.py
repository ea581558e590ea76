"""A profile is checked before anything runs, and every problem is named with its remedy."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from smcore.config import PROFILES, ROOT, Study, label, labelled
from smcore.profile import NETWORKS


@pytest.fixture
def profile(tmp_path):
    """A function that writes the profile `tiny` with other keys and returns its path."""

    def write(**keys):
        raw = yaml.safe_load((PROFILES / "tiny.yml").read_text()) | keys
        path = tmp_path / "mine.yml"
        path.write_text(yaml.safe_dump({key: raw[key] for key in raw if raw[key] is not ...}))
        return path

    return write


@pytest.fixture
def problems(profile):
    """A function that gives the lines with which a profile is refused."""

    def refused(**keys):
        with pytest.raises(ValueError) as error:
            Study.load(profile(**keys))
        first, *lines = str(error.value).splitlines()
        assert f"has {len(lines)} problem(s)" in first
        return lines

    return refused


def periods(**keys):
    return yaml.safe_load((PROFILES / "tiny.yml").read_text())["periods"] | keys


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yml")))
def test_load_accepts_every_profile_that_ships(name):
    study = Study.load(name)
    assert study.name == name
    assert study.synthetic == (name != "paper")
    assert list(study.models.index) == list(study.sources)


def test_load_gives_the_periods_and_sources_of_the_paper():
    study = Study.load("paper")
    assert len(study.sources) == 25
    assert study.periods.train == ("1950", "1999")
    assert study.periods.validation == ("2000", "2007")
    assert study.periods.test == ("2008", "2014")
    assert (study.network.learning_rate, study.network.batch_size) == (1e-4, 1)
    assert (study.network.epochs, study.network.optimiser) == (100, "adam")


def test_load_lists_the_profiles_when_there_is_none_of_that_name():
    with pytest.raises(FileNotFoundError, match="'dmeo'.*demo, paper, tiny"):
        Study.load("dmeo")


def test_load_refuses_a_file_that_is_not_a_mapping(tmp_path):
    path = tmp_path / "list.yml"
    path.write_text("- a\n- b\n")
    with pytest.raises(ValueError, match="key: value"):
        Study.load(path)


def test_load_refuses_a_file_that_is_not_yaml(tmp_path):
    path = tmp_path / "broken.yml"
    path.write_text("title: [a\nnetwork: sound\n")
    with pytest.raises(ValueError, match=r"(?s)broken\.yml.*line 2"):
        Study.load(path)


def test_load_refuses_a_key_that_is_a_number(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text((PROFILES / "tiny.yml").read_text() + "1980: 2014\n")
    with pytest.raises(ValueError, match=r"has 1 problem\(s\):\n  - 1980: .*string"):
        Study.load(path)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"experimnts": ["ssp126"]}, ["experimnts", "ssp126", "'experiments'"]),
        ({"domain": {"soth": 18}}, ["domain.soth", "18", "'south'"]),
        ({"training": {"epocs": 3}}, ["training.epocs", "3", "'epochs'"]),
        ({"demo": {"shared_wether": 1}}, ["demo.shared_wether", "1", "'shared_weather'"]),
        (
            {"regions": {"north": {"south": 1, "north": 2, "west": 1, "eats": 2}}},
            ["regions.north.eats", "2", "'east'"],
        ),
        ({"colour": "red"}, ["colour", "red", "the keys are", "experiments"]),
    ],
)
def test_load_names_what_an_unknown_key_may_have_meant(problems, keys, parts):
    line = "\n".join(problems(**keys))
    for part in parts:
        assert part in line


def test_load_refuses_an_empty_period(problems):
    (line,) = problems(periods=periods(future=["2100", "2015"]))
    assert "periods.future" in line and "2100" in line and "earlier year first" in line


@pytest.mark.parametrize("value", [["1990", "99"], [1990, 1999], ["1990"], "1990-1999", None, 7])
def test_load_refuses_what_is_not_a_pair_of_years(problems, value):
    lines = problems(periods=periods(train=value))
    assert any("periods.train" in line for line in lines)


def test_load_refuses_overlapping_train_and_test_periods(problems):
    (line,) = problems(periods=periods(test=["1999", "1999"]))
    assert "periods.train, periods.test" in line
    assert "[1990, 1999], [1999, 1999]" in line and "move one" in line


@pytest.mark.parametrize(
    ("split", "years", "pairs"),
    [
        ("train", ["1989", "2008"], [("train", "validation"), ("train", "test")]),
        ("validation", ["1980", "2010"], [("train", "validation"), ("validation", "test")]),
        ("test", ["1999", "2020"], [("train", "test"), ("validation", "test")]),
        ("test", ["2015", "2100"], []),
    ],
)
def test_load_compares_a_split_outside_the_historical_period_with_the_others(
    problems, split, years, pairs
):
    # those of tiny are 1990-1999, 2000-2007 and 2008-2014, all of 1990-2014
    outside, *overlaps = problems(periods=periods(**{split: years}))
    assert f"periods.{split}: [" in outside and "within periods.historical" in outside
    found = [re.findall(r"periods\.(\w+)", line) for line in overlaps]
    assert [tuple(names) for names in found] == pairs


def test_load_refuses_periods_beyond_the_historical_one(problems):
    (line,) = problems(periods=periods(baseline=["1981", "2010"]))
    assert "periods.baseline" in line and "[1981, 2010]" in line and "[1990, 2014]" in line


def test_load_refuses_a_domain_that_the_cells_do_not_tile(problems):
    # 36 degrees are 5.14 cells of 7 degrees, 66 degrees 9.43
    lines = problems(domain={"resolution": 7})
    assert len(lines) == 2
    assert "latitude 18.0 to 54.0" in lines[0] and "7" in lines[0] and "move an edge" in lines[0]
    assert "longitude 71.0 to 137.0" in lines[1]


def test_load_refuses_a_domain_that_is_upside_down(problems):
    (line,) = problems(domain={"south": 54, "north": 18, "resolution": 6})
    assert "latitude 54.0 to 18.0" in line


def test_load_names_what_an_unknown_source_may_have_meant(problems):
    (line,) = problems(sources=["Alder", "Hasel"])
    assert "'Hasel'" in line and "'Hazel'" in line


def test_load_refuses_a_source_named_twice(problems):
    (line,) = problems(sources=["Alder", "Birch", "Alder"])
    assert "sources" in line and "'Alder'" in line and "once" in line


def test_load_refuses_an_experiment_named_twice(problems):
    (line,) = problems(experiments=["ssp126", "ssp126"])
    assert "experiments" in line and "'ssp126'" in line and "once" in line


@pytest.mark.parametrize("key", ["sources", "experiments"])
def test_load_refuses_an_empty_list(problems, key):
    (line,) = problems(**{key: []})
    assert key in line and "at least 1" in line


def test_load_refuses_an_unknown_network(problems):
    (line,) = problems(network="sond")
    assert "network" in line and "'sond'" in line and "paper, sound" in line


def test_load_refuses_a_model_table_that_is_not_there(problems):
    (line,) = problems(model_table="data/nothing.csv")
    assert "model_table" in line and "nothing.csv" in line and "name a CSV" in line


@pytest.mark.parametrize(
    "keys",
    [
        {"scale_factor": "four"},
        {"scale_factor": 1},
        {"sources": 5},
        {"sources": "Alder"},
        {"experiments": "ssp126"},
        {"experiments": ["ssp999"]},
        {"training": 5},
        {"training": {"epochs": 0}},
        {"network": ["sound"]},
        {"network": {"name": "sound"}},
        {"domain": 5},
        {"domain": {"resolution": "six"}},
        {"periods": ["1990", "1999"]},
        {"regions": ["north"]},
        {"sites": {"arid": [84.5]}},
        {"demo": 3},
        {"model_table": 5},
        {"title": ...},
        {"periods": ...},
        {"study_area": {"name": "China"}},
    ],
)
def test_load_refuses_a_value_of_the_wrong_kind_by_its_key(problems, keys):
    lines = problems(**keys)
    assert all(line.startswith(f"  - {next(iter(keys))}") for line in lines)


def test_load_lists_several_problems_at_once(problems):
    lines = problems(
        titel="A title",
        network="deep",
        sources=["Oak"],
        periods=periods(future=["2100", "2015"], test=["1995", "2014"]),
        domain={"resolution": 5},
    )
    text = "\n".join(lines)
    for part in ("titel", "'deep'", "'Oak'", "periods.future", "periods.train, periods.test"):
        assert part in text
    assert "domain: latitude" in text


def test_load_merges_overrides_into_the_profile():
    study = Study.load("tiny", periods={"test": ("2009", "2014")}, training={"epochs": 5})
    profile = Study.load("tiny")
    assert study.periods.test == ("2009", "2014")
    assert study.periods.train == profile.periods.train
    assert study.network.epochs == 5
    assert study.network.features == profile.network.features == 8


def test_load_takes_none_as_the_profile_says():
    override = {"periods": {"test": None}, "training": None, "experiments": None, "network": None}
    assert Study.load("tiny", **override) == Study.load("tiny")


def test_load_refuses_an_override_that_the_profile_would_not_have():
    with pytest.raises(ValueError, match=r"epoch.*did you mean|the keys are"):
        Study.load("tiny", epoch=3)


def test_load_puts_the_profiles_changes_over_the_preset():
    study = Study.load("tiny", network="paper")
    assert study.network.initialisation == NETWORKS["paper"].initialisation == "default"
    assert study.network.depth == 5  # training: {depth: 5} in the profile


def test_load_finds_relative_directories_from_the_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    study = Study.load("tiny", directory="data/elsewhere")
    assert study.directory == ROOT / "data/elsewhere"
    assert study.cmip6_directory == ROOT / "data/elsewhere/archive/CMIP6"
    assert Study.load("tiny", directory=str(tmp_path)).results == tmp_path / "results"


def test_study_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Study.load("tiny").scale_factor = 2


def test_hash_does_not_change_with_titles_and_places(tmp_path):
    study = Study.load("tiny")
    assert study.hash == Study.load("tiny", directory=str(tmp_path), title="Another").hash
    assert study.hash != Study.load("tiny", network="paper").hash


def test_model_directory_changes_with_what_the_training_depends_on():
    model = Study.load("tiny").model
    for override in (
        {"training": {"epochs": 4}},
        {"network": "paper"},
        {"periods": {"train": ("1990", "1998")}},
        {"sources": ["Alder", "Birch"]},
        {"demo": {"shared_weather": 0.5}},
    ):
        assert Study.load("tiny", **override).model != model
    for override in (
        {"periods": {"baseline": ("1990", "2014")}},
        {"experiments": ["ssp126"]},
        {"title": "Another"},
    ):
        assert Study.load("tiny", **override).model == model


def test_product_is_named_after_profile_network_experiment_and_months():
    study = Study.load("tiny")
    name = "smcore_theta_tiny_sound_ssp126_201501-210012.nc"
    assert study.product("ssp126").name == name
    assert "_historical_199001-201412" in study.product("historical").name


def test_prepared_store_is_one_for_each_way_of_regridding():
    folders = {Study.load("tiny", network=name).prepared.name for name in ("paper", "sound")}
    assert folders == {"bilinear-nested", "conservative-nested"}


def test_variant_label_is_that_of_the_model_table():
    study = Study.load("demo")
    assert study.variant_label("Elm", "historical") == "r1i1p1f2"
    assert study.variant_label("Alder", "ssp585") == "r1i1p1f1"


def test_edition_says_whether_the_numbers_are_synthetic():
    assert "Synthetic data" in Study.load("tiny").edition
    assert "Synthetic" not in Study.load("paper").edition


def test_study_survives_a_round_through_json():
    study = Study.load("tiny")
    assert Study(**json.loads(study.model_dump_json())) == study


def test_load_refuses_periods_of_change_outside_the_scenarios(problems):
    (line,) = problems(periods=periods(change=[["2021", "2040"], ["2090", "2150"]]))
    assert "periods.change: [2090, 2150]" in line and "[2015, 2100]" in line and "widen" in line


def test_load_refuses_a_gap_between_the_historical_run_and_the_scenarios(problems):
    (line,) = problems(periods=periods(future=["2016", "2100"]))
    assert "periods.future" in line and "begin in 2015" in line


def test_load_refuses_a_site_outside_the_domain(problems):
    (line,) = problems(sites={"Vienna": [16.4, 48.2]})
    assert "sites.Vienna" in line and "domain" in line


def test_load_names_the_regions_that_the_chapters_need(problems):
    (line,) = problems(regions={"north": {"south": 35, "north": 54, "west": 100, "east": 137}})
    assert "south, west" in line


def test_load_puts_the_scenarios_in_the_order_of_their_forcing():
    study = Study.load("tiny", experiments=["ssp585", "ssp126"])
    assert study.experiments == ("ssp126", "ssp585")


@pytest.mark.parametrize(
    "override",
    [
        {"versions": {"Oak": {"historical": "v20190101"}}},
        {"accepted": {"Oak": ["file_name"]}},
        {"demo": {"defects": {"Oak": ["overlap"]}}},
    ],
)
def test_load_refuses_settings_for_a_source_that_the_study_lacks(problems, override):
    (line,) = problems(**override)
    assert "'Oak'" in line and "not one of the study's sources" in line


def test_load_accepts_no_error_that_spoils_the_result(problems):
    (line,) = problems(accepted={"Alder": ["missing_months"]})
    assert "accepted.Alder" in line and "missing_months" in line and "file_name" in line


def test_load_refuses_an_unknown_defect(problems):
    (line,) = problems(demo={"defects": {"Alder": ["termites"]}})
    assert "demo.defects.Alder" in line and "termites" in line
    assert "'late_start'" in line and "'undeclared_fill'" in line  # what there is


def test_load_expands_the_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("STORE", str(tmp_path))
    monkeypatch.setenv("HOME", "/home/ida")
    study = Study.load("tiny", directory="$STORE/data", results="~/results")
    assert study.directory == tmp_path / "data"
    assert study.results == Path("/home/ida/results")


@pytest.mark.parametrize(
    "keys",
    [
        {"directory": "$NOWHERE/data"},
        {"results": "${NOWHERE}/results"},
        {"model_table": "$NOWHERE/models.csv"},
    ],
)
def test_load_refuses_a_variable_that_is_not_set(problems, monkeypatch, keys):
    monkeypatch.delenv("NOWHERE", raising=False)
    ((key, value),) = keys.items()
    (line,) = problems(**keys)
    assert line.startswith(f"  - {key}: '{value}': ") and "NOWHERE" in line
    assert "set" in line and "write the path" in line


def test_load_refuses_the_table_of_all_sources_by_a_variable_that_is_not_set(problems, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    table, sources = problems(sources=..., model_table="$NOWHERE/models.csv")
    assert "model_table" in table and "NOWHERE" in table
    assert "sources" in sources and "mend model_table" in sources


def test_paper_fills_the_first_month_by_the_rule_that_it_names():
    assert Study.load("paper").missing_first_month == "climatology"
    assert Study.load("tiny").missing_first_month == "refuse"


@pytest.mark.parametrize(
    "versions", [{"Alder": {"ssp58": "v20200101"}}, {"Alder": {"ssp585": "20200101"}}]
)
def test_load_refuses_a_version_of_nothing(problems, versions):
    (line,) = problems(versions=versions)
    assert "versions.Alder" in line


def test_an_ensemble_has_a_study_for_each_seed():
    study = Study.load("tiny", seeds=[3, 5])
    assert study.network.seed == 3
    assert [member.network.seed for member in study.members] == [3, 5]
    assert study.members[0].model == study.model != study.members[1].model
    single = Study.load("tiny")
    assert single.members == (single,)


def test_load_refuses_the_same_seed_twice(problems):
    (line,) = problems(seeds=[1, 1])
    assert "seeds" in line and "only once" in line


def test_load_refuses_a_smoothing_without_a_middle_year(problems):
    (line,) = problems(network="anchored", training={"smoothing": 10})
    assert "training.smoothing" in line and "odd" in line


def test_presets_holds_the_study_itself_and_one_for_each_compared_preset(profile):
    study = Study.load(
        profile(network="sound", compared={"anchored": {"epochs": 2}, "paper": None})
    )
    assert list(study.presets) == ["sound", "anchored", "paper"]
    assert study.presets["anchored"].network == NETWORKS["anchored"].model_copy(
        update={"epochs": 2}
    )
    assert study.presets["paper"].network == NETWORKS["paper"]
    assert study.presets["sound"].model == study.model
    assert len({one.product("historical") for one in study.presets.values()}) == 3


def test_presets_leaves_out_the_preset_that_is_the_network_itself(profile):
    study = Study.load(profile(network="anchored", compared={"anchored": {"epochs": 2}}))
    assert list(study.presets) == ["anchored"]
    assert study.presets["anchored"].network.epochs == study.network.epochs


def test_compared_names_every_problem(problems):
    lines = "\n".join(problems(compared={"sounds": {}, "anchored": {"featurs": 3}, "paper": 3}))
    for problem in (
        "compared.sounds: 'sounds': expected one of paper, sound, anchored",
        "compared.paper: 3: expected `key: value` lines or {}",
        "compared.anchored.featurs: 3: unknown key; did you mean 'features'?",
    ):
        assert problem in lines
    (line,) = problems(compared=["anchored"])
    assert "expected presets with their changes" in line


def test_label_is_what_a_page_shows():
    assert label("ssp370") == "SSP3-7.0"
    assert label("ynet_sound") == "YNet (sound)"
    assert label("truth_coarse") == "truth on the coarse grid"
    assert label("sources_min") == "lowest of the sources"
    assert label("CanESM5") == "CanESM5"


def test_labelled_names_rows_and_columns_as_a_page_does_and_keeps_the_numbers():
    table = pd.DataFrame({"ssp585": [1, 2], "mae": [3, 4]}, ["ynet_sound", "Alder"])
    shown = labelled(table.rename_axis("dataset"), Alder="best source (Alder)")
    assert list(shown.columns) == ["SSP5-8.5", "MAE"]
    assert list(shown.index) == ["YNet (sound)", "best source (Alder)"]
    assert shown.index.name is None
    assert shown.to_numpy().tolist() == [[1, 3], [2, 4]]
