"""The order of the chapters, on a project whose chapters take no time."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = {
    "01_data_preparation": "from smcore.soil import volumetric_water_content",
    "02_ynet_training": "import smcore.training as training",
    "03_fused_product": "from smcore import (\n    product,\n)",
    "04_validation": "from smcore import metrics, plots",
    "05_future_trends": "from smcore import plots, trends",
    "06_seasonal_trends": "from smcore.trends import theil_sen",
    "07_period_change": "from smcore.changes import change_rate",
    "08_ledger": "from smcore.ledger import verdicts",
    "09_compared_with_what": "from smcore import metrics",
    "10_is_the_trend_real": "from smcore import trends",
    "11_trend_preservation": "from smcore import trends",
    "12_where_ranking_turns": 'TABLE = "ranking.csv"',
}
MODULES = {
    "soil": "",
    "training": "from .soil import SOMETHING",
    "product": "",
    "metrics": "",
    "plots": "import json",
    "trends": "",
    "changes": "",
    "ledger": 'CLAIMS = "paper_claims.yml"',
}
RUN = '''
"""Leaves what a chapter would leave, and prints how it was called."""
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from smcore.config import Study

chapter, study = sys.argv[1], Study.load(sys.argv[3])
leaves = {
    "01_data_preparation": [study.prepared / "manifest.json"],
    "02_ynet_training": [study.model / "model.json", study.results / "02_ynet_training.json"],
    "03_fused_product": [
        study.product("historical").with_name("manifest.json"),
        *(study.results / name for name in ("key_figure.png", "sample.nc")),
    ],
    "08_ledger": [study.results / "08_ledger.csv"],
}
for path in leaves.get(chapter, [study.results / f"{chapter}.json"]):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(" ".join(sys.argv))
page = """{"cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Page"]}],
    "metadata": {}, "nbformat": 4, "nbformat_minor": 5}"""
chapters = study.directory / "chapters"
chapters.mkdir(exist_ok=True)
(chapters / f"{chapter}.ipynb").write_text(page)
print("ran", *sys.argv[1:], file=sys.stderr)
'''


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose book has been made once, and what Snakemake and the chapters said."""
    root = tmp_path_factory.mktemp("project") / "with a space"
    for folder in ("notebooks/profiles", "smcore", "data", "book"):
        (root / folder).mkdir(parents=True)
    for name in (
        *("Snakefile", "notebooks/networks.yml"),
        *(f"smcore/{name}.py" for name in ("__init__", "profile", "config", "store")),
    ):
        shutil.copy(ROOT / name, root / name)
    for path in [*ROOT.glob("data/*.csv"), *ROOT.glob("data/*.yml")]:
        shutil.copy(path, root / "data")
    shutil.copy(ROOT / "notebooks/profiles/tiny.yml", root / "notebooks/profiles")
    (root / "notebooks/run.py").write_text(RUN)
    for name, code in CHAPTERS.items():
        page = f"# A chapter\n\n```{{code-cell}} ipython3\n:tags: [hide-input]\n\n{code}\n```\n"
        header = "---\njupytext:\n  text_representation:\n    format_name: myst\n---\n"
        (root / f"notebooks/{name}.md").write_text(header + page)
    for name, code in MODULES.items():
        (root / f"smcore/{name}.py").write_text(code + "\n")
    (root / "book/index.md").write_text("# A book\n")
    (root / "book/check.py").write_text("import sys\nassert open(sys.argv[1] + '/index.html')\n")
    (root / "_config.yml").write_text("title: A book\nonly_build_toc_files: true\n")
    toc = "".join(f"  - file: book/results/{name}\n" for name in CHAPTERS)
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{toc}")
    return root, _snakemake(root)


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project, to change."""
    root = tmp_path / "copy"
    shutil.copytree(finished[0], root)  # with the times of the files
    return root


def _snakemake(root, *arguments, parameters="{}"):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    command += ["--config", "profile=tiny", f"parameters={parameters}"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _planned(root, **options):
    """Names of the rules that would run."""
    said = _snakemake(root, "--dry-run", **options)
    return set(re.findall(r"^(?:local)?rule (\w+):", said, flags=re.MULTILINE))


def test_the_first_book_runs_each_chapter_once_after_those_whose_files_it_reads(finished):
    root, said = finished
    order = re.findall(r"^ran (\w+)", said, flags=re.MULTILINE)
    assert sorted(order) == list(CHAPTERS)
    assert order[:3] == list(CHAPTERS)[:3]
    assert order[-1] == "08_ledger"
    assert (root / "data/tiny/_build/html/book/results/08_ledger.html").is_file()
    assert {path.name for path in (root / "book/results").iterdir()} == {
        "key_figure.png",
        "sample.nc",
        *(f"{name}.ipynb" for name in CHAPTERS),
    }


def test_nothing_runs_twice(finished):
    assert _planned(finished[0]) == set()


def test_a_touched_file_runs_nothing(project):
    for path in [*project.glob("smcore/*.py"), *project.glob("notebooks/*.md")]:
        path.touch()
    assert _planned(project) == set()


def test_a_parameter_of_chapter_7_runs_chapter_7_the_ledger_and_the_book(project):
    parameters = '{"07_period_change": {"baseline_period": ["1985", "2014"]}}'
    assert _planned(project, parameters=parameters) == {"07_period_change", "08_ledger", "book"}
    said = _snakemake(project, "--until", "07_period_change", parameters=parameters)
    assert "ran 07_period_change --profile tiny -p baseline_period ['1985', '2014']" not in said
    assert 'ran 07_period_change --profile tiny -p baseline_period ["1985", "2014"]' in said


def test_a_changed_module_runs_the_chapters_that_import_it(project):
    (project / "smcore/plots.py").write_text("import os\n")
    planned = _planned(project)
    assert {"04_validation", "05_future_trends", "book"} <= planned
    assert not planned & {"01_data_preparation", "02_ynet_training", "03_fused_product"}
    assert not planned & {"06_seasonal_trends", "07_period_change"}


def test_a_changed_module_counts_through_the_modules_that_import_it(project):
    (project / "smcore/soil.py").write_text("SOMETHING = 1\n")
    assert {"01_data_preparation", "02_ynet_training"} <= _planned(project)


def test_changed_claims_run_the_ledger_only(project):
    with (project / "data/paper_claims.yml").open("a") as file:
        file.write("# changed\n")
    assert _planned(project) == {"08_ledger", "book"}


def test_a_changed_page_runs_the_book_only(project):
    (project / "book/index.md").write_text("# Another book\n")
    assert _planned(project) == {"book"}


def test_two_runs_of_one_study_do_not_mix(project):
    with open(project / "data/tiny/.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(AssertionError, match="another run is at work on the study 'tiny'"):
            _snakemake(project)


def test_parameters_of_no_chapter_are_refused(project):
    with pytest.raises(AssertionError, match="07_change.* is neither"):
        _planned(project, parameters='{"07_change": {"season": "JJA"}}')


def test_a_book_with_a_warning_fails_and_says_why(project):
    (project / "book/index.md").write_text("# A book\n\n{doc}`nowhere`\n")
    with pytest.raises(AssertionError, match="unknown document.*nowhere"):
        _snakemake(project)
    assert not (project / "data/tiny/_build/html/index.html").exists()
