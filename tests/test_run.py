import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "notebooks" / "run.py"

CHAPTER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

```{{code-cell}} ipython3
:tags: [parameters, hide-input]

profile = "demo"
results = None
period = [
    "1995",  # the first year
    "2014",
]
season = None  # as the profile says
```

```{{code-cell}} ipython3
{code}
```
"""


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture
def project(tmp_path):
    """A project with one chapter; a function that writes its code."""
    (tmp_path / "notebooks").mkdir()

    def write(code="print(profile, results, period, season)"):
        page = tmp_path / "notebooks" / "05_future_trends.md"
        page.write_text(CHAPTER.format(code=code))
        return tmp_path

    return write


def _cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


# What is asked for


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-4", 1e-4),
        ("null", None),
        ("true", True),
        ("JJA", "JJA"),
        ("0-7cm", "0-7cm"),
        ('["1985", "2014"]', ["1985", "2014"]),
        ("[ssp126, ssp585]", ["ssp126", "ssp585"]),
        ('"1985"', "1985"),
    ],
)
def test_parse_value_reads_json_and_yaml(run, text, value):
    parsed = run.parse_value("name", text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ['["1985", "2014"', "1985-01-01", "NaN", "None", " "])
def test_parse_value_refuses_what_it_would_have_to_guess(run, text):
    with pytest.raises(ValueError, match="parameter `name`"):
        run.parse_value("name", text)


def test_an_unknown_parameter_is_refused_with_those_that_exist(run, project, capsys):
    arguments = ["05_future_trends", "-p", "seson", "JJA", "-o", str(project() / "my.ipynb")]
    assert run.main(arguments, root=project()) == 2
    said = capsys.readouterr().err
    assert "05_future_trends has no parameter `seson`; did you mean `season`?" in said
    assert "season = None  # as the profile says" in said
    assert not (project() / "my.ipynb").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["05_futur", "-o", "my.ipynb"], "the chapters are:\n  05_future_trends"),
        (["05_future_trends", "-p", "profile", "tiny", "-o", "my.ipynb"], "instead of --profile"),
        (["05_future_trends", "-o", "my.html"], "my.ipynb, not my.html"),
        (["05_future_trends", "--profile", "nowhere"], "no profile 'nowhere'"),
        (["05_future_trends", "-p", "period", "[1985", "-o", "my.ipynb"], "parameter `period`"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(run, project, capsys, arguments, message):
    assert run.main(arguments, root=project()) == 2
    assert message in capsys.readouterr().err


# The page


def test_parameters_arrive_and_the_one_parameters_cell_shows_them(run, project, capfd):
    root = project()
    output = root / "mine" / "my.ipynb"
    arguments = ["05_future_trends", "--profile", "tiny", "-p", "period", '["1985", "2014"]']
    assert run.main([*arguments, "-p", "season", "JJA", "-o", str(output)], root=root) == 0
    parameters, code = _cells(output)
    assert code.outputs[0].text == "tiny mine/my_results ['1985', '2014'] JJA\n"
    assert parameters.metadata.tags == ["parameters", "hide-input"]
    assert parameters.source.splitlines() == [
        'profile = "tiny"',
        'results = "mine/my_results"',
        'period = ["1985", "2014"]',
        'season = "JJA"  # as the profile says',
    ]
    said = capfd.readouterr().err.splitlines()
    assert said[0] == "[05_future_trends] started"
    assert said[-1].startswith("[05_future_trends] finished in ")
    assert len(said) == 2
    assert sorted(os.listdir(output.parent)) == ["my.ipynb", "my_results"]


def test_a_page_of_the_book_keeps_the_results_of_the_study(run, project, monkeypatch):
    root = project()
    study = SimpleNamespace(directory=root / "tiny", results=root / "tiny" / "results")
    monkeypatch.setattr(run, "Study", SimpleNamespace(load=lambda profile: study))
    assert run.main(["05_future_trends", "--profile", "tiny"], root=root) == 0
    code = _cells(root / "tiny" / "chapters" / "05_future_trends.ipynb")[1]
    assert code.outputs[0].text == "tiny None ['1995', '2014'] None\n"


@pytest.mark.slow
def test_two_runs_give_the_same_bytes_without_timings_and_paths(run, project):
    code = """\
import sys
import pandas as pd
import xarray as xr
print("a", flush=True)
print("b")
print({"x", "y", "z"})
pd.DataFrame({"a": [1]}).style
```

```{code-cell} ipython3
xr.Dataset({"a": ("x", [1.0], {"tracking_id": "hdl:0b7f4a9c-6d1e-4c52-9a77-3f0e5f3a2b11"})})
```

```{code-cell} ipython3
import matplotlib.pyplot as plt
from matplotlib.animation import FuncAnimation
from IPython.display import HTML
figure, axes = plt.subplots(figsize=(1, 1))
html = FuncAnimation(figure, lambda frame: axes.plot([frame]), frames=2).to_jshtml()
plt.close()
HTML(html)"""
    root = project(code)
    notebook = run.prepare("05_future_trends", {}, root=root)
    run.run(notebook, root / "one.ipynb", root=root)
    run.run(notebook, root / "two.ipynb", root=root)
    text = (root / "one.ipynb").read_text()
    assert text == (root / "two.ipynb").read_text()
    assert "hdl:0b7f4a9c-6d1e-4c52-9a77-3f0e5f3a2b11" in text  # not a random id
    for word in (
        str(root),
        str(Path.home()) + "/",
        "papermill",
        "iopub",
        time.strftime("%Y-%m-%d"),
    ):
        assert word not in text
    ids = [cell["id"] for cell in json.loads(text)["cells"]]
    assert ids == [f"cell-{number:02d}" for number in range(5)]


def test_progress_of_the_chapter_reaches_the_terminal_and_not_the_page(run, project):
    root, shown = project("import smcore.progress\nsmcore.progress.report('epoch 1 of 3')"), []
    (root / "smcore").symlink_to(ROOT / "smcore")  # the chapter runs in the project's folder
    notebook = run.prepare("05_future_trends", {}, root=root)
    run.run(notebook, root / "my.ipynb", root=root, show=shown.append)
    assert shown == ["epoch 1 of 3"]
    assert "SMCORE_PROGRESS" not in os.environ
    assert _cells(root / "my.ipynb")[1].outputs == []


# Failures


def test_a_chapter_that_raises_gets_no_final_name(run, project, capsys):
    root = project("print('so far')\nratio = 1 / 0")
    output = root / "my.ipynb"
    assert run.main(["05_future_trends", "-o", str(output)], root=root) == 1
    said = capsys.readouterr().err
    assert "cell [2] raises ZeroDivisionError" in said
    assert "    ratio = 1 / 0" in said
    assert "    ZeroDivisionError: division by zero" in said
    assert "my.failed.ipynb" in said
    assert not output.exists()
    assert "so far" in (root / "my.failed.ipynb").read_text()

    project("print('mended')")
    assert run.main(["05_future_trends", "-o", str(output)], root=root) == 0
    assert output.exists()
    assert not (root / "my.failed.ipynb").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import warnings\nwarnings.warn('mean of empty slice')", "mean of empty slice"),
        ("import sys\nprint('out of disk', file=sys.stderr)", "out of disk"),
        ("import os\nprint(os.getcwd())", "shows a path of this machine"),
        ("object()", "shows an object by its address"),
        ("import os\nos._exit(9)", "Kernel died"),
    ],
)
def test_a_chapter_that_must_not_be_published_says_why(run, project, code, message):
    root = project(code)
    notebook = run.prepare("05_future_trends", {}, root=root)
    with pytest.raises(run.ChapterFailed, match=message):
        run.run(notebook, root / "my.ipynb", root=root)
    assert not (root / "my.ipynb").exists()
    assert (root / "my.failed.ipynb").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_chapter_that_is_killed_leaves_no_file_and_no_kernel(project, number):
    code = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"
    root = project(code)
    program = (
        "import runpy, signal, sys; from pathlib import Path\n"
        # as on a terminal, even where the tests run in the background and Ctrl-C is ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"run = runpy.run_path({str(SCRIPT)!r})\n"
        "run['die_on_sigterm']()\n"
        f"sys.exit(run['main'](['05_future_trends', '-o', {str(root / 'out' / 'my.ipynb')!r}],"
        f" root=Path({str(root)!r})))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    _wait(lambda: (root / "pid").exists() and (root / "pid").read_text())
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert os.listdir(root / "out") == ["my_results"]
    _wait(lambda: not Path(f"/proc/{(root / 'pid').read_text()}").exists())


def _wait(condition, seconds=60):
    for _ in range(seconds * 10):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("nothing happened in time")
