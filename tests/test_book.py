"""The whole way on the smallest world: native files to the published book, as a user runs it."""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import golden
import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.md"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

pytestmark = pytest.mark.slow


def snakemake(project, *arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "profile=tiny"]
    environment = os.environ | {"PYTHONPATH": str(project)}
    return subprocess.run(
        [*command, *arguments], cwd=project, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project in which the book of the tiny profile was made."""
    copy = tmp_path_factory.mktemp("project") / "book of soil"
    made = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "results", "_build", *_generated(ROOT / "data")
    )
    shutil.copytree(ROOT, copy, ignore=made)
    done = snakemake(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    return copy


def _generated(data):
    return [path.name for path in data.iterdir() if path.is_dir()]


@pytest.fixture(scope="module")
def html(project):
    return project / "data/tiny/_build/html"


def test_every_chapter_is_a_page_with_a_figure_and_says_that_it_is_synthetic(html):
    for chapter in CHAPTERS:
        page = (html / f"book/results/{chapter}.html").read_text()
        assert "Synthetic data: a demo world" in page
        assert chapter == "08_ledger" or '<img alt="' in page


def test_nothing_runs_again_when_nothing_has_changed(project):
    again = snakemake(project, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_the_table_of_chapter_4_is_what_numpy_finds(project):
    import numpy as np
    import pandas as pd
    import xarray as xr

    folder, years = project / "data/tiny", slice("2008", "2014")
    theta = {}
    for path in folder.glob("products/*/*_historical_*.nc"):
        with xr.open_dataset(path) as product:
            theta[product.attrs["network"]] = product["theta"].sel(time=years).load()
    assert sorted(theta) == ["anchored", "paper", "sound"]
    with xr.open_dataset(folder / "prepared/conservative-nested/reference.nc") as file:
        reference = file["theta"].sel(time=years).load()
    error = {name: (field.values - reference.values).astype(float) for name, field in theta.items()}
    weights = np.broadcast_to(np.cos(np.deg2rad(reference.lat.values))[:, None], reference.shape)
    valid = np.isfinite(sum(error.values()))  # scored on the cells that all have
    table = pd.read_csv(folder / "results/04_table2.csv", index_col=0)
    for name, difference in error.items():
        expected = np.average(abs(difference[valid]), weights=weights[valid])
        assert table.loc[f"ynet_{name}", "mae"] == pytest.approx(expected, rel=1e-5)
        expected = np.average(difference[valid] ** 2, weights=weights[valid]) ** 0.5
        assert table.loc[f"ynet_{name}", "rmsd"] == pytest.approx(expected, rel=1e-5)


def test_the_sample_file_of_chapter_3_is_a_year_of_the_product(project, html):
    import xarray as xr

    (path,) = html.glob("_downloads/*/sample.nc")
    (product,) = (project / "data/tiny/products").glob("*/*_sound_historical_*.nc")
    with xr.open_dataset(path) as sample, xr.open_dataset(product) as whole:
        assert sample.sizes["time"] == 12
        xr.testing.assert_equal(sample["theta"], whole["theta"].sel(time="2011"))
        for name in ("weights", "inputs", "train_period", "summary"):
            assert sample.attrs[name] == whole.attrs[name]


def test_the_book_has_the_numbers_of_the_golden_run(project):
    expected = json.loads((ROOT / "tests/golden.json").read_text())
    assert golden.differences(golden.summarise(project / "data/tiny"), expected) == []


def chapter(project, name):
    """Run a chapter as a user does; what it says where it fails."""
    command = [sys.executable, "notebooks/run.py", name, "--profile", "tiny"]
    environment = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else ""


def test_other_code_makes_the_store_anew_and_what_is_damaged_stops_a_chapter(project, tmp_path):
    """The rule of what is kept, with the real chapters of a finished book."""
    import xarray as xr

    copy = tmp_path / "book"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("_build", ".snakemake"))
    prepared = copy / "data/tiny/prepared/conservative-nested/theta_Birch_ssp585.nc"
    (product,) = (copy / "data/tiny/products").glob("*/*_sound_ssp585_*.nc")

    content = product.read_bytes()
    product.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    said = chapter(copy, "06_seasonal_trends")
    assert f"{product.name} is damaged" in said and "run chapter 03_fused_product" in said
    product.write_bytes(content)

    soil = copy / "smcore/soil.py"
    code = soil.read_text()
    assert code.count("WATER_DENSITY = 1000.0") == 1
    soil.write_text(code.replace("WATER_DENSITY = 1000.0", "WATER_DENSITY = 2000.0"))
    said = chapter(copy, "06_seasonal_trends")
    assert "out of date" in said and "run chapter" in said
    before = xr.load_dataset(prepared)["theta"]
    assert chapter(copy, "01_data_preparation") == ""
    xr.testing.assert_allclose(xr.load_dataset(prepared)["theta"], before / 2, rtol=1e-6)
    said = chapter(copy, "06_seasonal_trends")
    assert "out of date" in said and "run chapter 03_fused_product" in said


def test_no_finding_of_the_demo_world_confirms_a_claim(project):
    import pandas as pd

    ledger = pd.read_csv(project / "data/tiny/results/08_ledger.csv")
    claims = (ROOT / "data/paper_claims.yml").read_text().count("- {id:")
    assert len(ledger) == claims
    assert set(ledger["verdict"]) == {"demo", "impossible"}


def test_pages_hold_no_trace_of_the_run(project):
    for chapter in CHAPTERS:
        page = (project / f"data/tiny/chapters/{chapter}.ipynb").read_text()
        notebook = json.loads(page)
        assert str(project) not in page
        assert "papermill" not in notebook["metadata"]
        assert not any("execution" in cell["metadata"] for cell in notebook["cells"])


@pytest.fixture
def browse(html, tmp_path):
    """Load a page, served over http, in a browser; return its document as text."""
    if BROWSER is None:
        pytest.skip(f"no browser: one of {', '.join(BROWSERS)} is needed")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=html)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def document(page, width=1280):
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
            options += ["--disable-background-networking", f"--user-data-dir={tmp_path}"]
            options += ["--virtual-time-budget=20000", f"--window-size={width},900"]
            url = f"http://127.0.0.1:{server.server_port}/{page}"
            done = subprocess.run(
                [BROWSER, *options, "--dump-dom", url], capture_output=True, text=True, timeout=120
            )
            return done.stdout

        yield document
        server.shutdown()


def test_a_browser_sets_every_formula(browse):
    document = browse("book/methods.html")
    assert document.count("<mjx-container") > 20
    assert "<mjx-merror" not in document


@pytest.mark.parametrize("page", ["book/index", *(f"book/results/{name}" for name in CHAPTERS)])
def test_pages_fit_a_phone(browse, html, page):
    # a frame as wide as a phone measures the page that it shows
    frame = html / "frame.html"
    frame.write_text(
        f"""<body style="margin:0"><iframe id="page" src="/{page}.html" width="390" height="800">
        </iframe><script>
        const frame = document.getElementById("page");
        frame.onload = () => setTimeout(() => {{
          const width = frame.contentDocument.documentElement.scrollWidth;
          document.body.insertAdjacentHTML("beforeend", `<p>width ${{width}}</p>`);
        }}, 3000);</script>"""
    )
    try:
        width = re.search(r"width (\d+)</p>", browse("frame.html"))
    finally:
        frame.unlink()
    assert width, "the page did not load"
    assert int(width[1]) <= 390
