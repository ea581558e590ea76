"""The gate behind the book's build, on small folders of pages; and the pages' own tables."""

import csv
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "book" / "check.py"

spec = importlib.util.spec_from_file_location("book_check", SCRIPT)
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)


@pytest.fixture
def book(tmp_path):
    """A function that writes pages, given by name, and returns the problems found."""

    def problems(**pages):
        for name, body in pages.items():
            html = f"<!DOCTYPE html><html><head></head><body>{body}</body></html>"
            (tmp_path / f"{name}.html").write_text(html, encoding="utf-8")
        return check.problems(tmp_path)

    problems.folder = tmp_path
    return problems


def test_problems_finds_none_in_a_sound_book(book):
    (book.folder / "map.png").write_bytes(b"")
    index = (
        '<h1 id="top">Book</h1><a href="#top">up</a><a href="#">to the start</a>'
        '<a href="data.html#grid">grid</a><a href="https://doi.org/10.1/x">paper</a>'
        '<a href="mailto:a@b.c">write</a><img src="map.png" alt="Map of theta, m3 m-3">'
    )
    assert book(index=index, data='<h2 id="grid">Grid</h2><a href="index.html">back</a>') == []


def test_problems_are_reported_all_at_once_and_once_each(book):
    found = book(index='<a href="a.html">a</a><a href="a.html">a</a><a href="b.html">b</a>')
    assert found == ["index.html: a.html does not exist", "index.html: b.html does not exist"]


def test_problems_names_a_missing_picture(book):
    assert book(index='<img src="no.png" alt="A map">') == ["index.html: no.png does not exist"]


@pytest.mark.parametrize("target", ["data.html#none", "#none"])
def test_problems_names_a_missing_anchor(book, target):
    (line,) = book(index=f'<a href="{target}">x</a>', data="<p>text</p>")
    assert line == f"index.html: {target} points to an anchor that does not exist"


def test_problems_decodes_percent_signs_and_ignores_the_query(book):
    (book.folder / "a b.css").write_text("p {}")
    assert book(index='<link rel="stylesheet" href="a%20b.css?digest=1">') == []


@pytest.mark.parametrize(
    "element",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<script src="//cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="http://cdn.example/x.css">',
        '<img src="https://cdn.example/x.png" alt="A map">',
        '<img src="data:," srcset="https://cdn.example/x.png 2x" alt="A map">',
        '<iframe src="https://cdn.example"></iframe>',
    ],
)
def test_problems_names_what_would_be_fetched_from_the_network(book, element):
    (line,) = book(index=element)
    assert "cdn.example" in line and line.endswith("from the network")


def test_problems_names_a_style_sheet_that_imports_from_the_network(book):
    (book.folder / "x.css").write_text('@import url("https://cdn.example/font.css");')
    (line,) = book(index="<p>text</p>")
    assert line == "x.css: fetches https://cdn.example/font.css from the network"


def test_problems_allows_a_link_element_that_loads_nothing(book):
    assert book(index='<link rel="canonical" href="https://example.org/">') == []


@pytest.mark.parametrize("alt", ["", "  ", "../_images/map.png", "map.png", "_images/abc"])
def test_problems_names_a_picture_without_a_description(book, alt):
    (book.folder / "map.png").write_bytes(b"")
    (line,) = book(index=f'<img src="map.png" alt="{alt}">')
    assert line.startswith("index.html: picture map.png has") and "alt text" in line


def test_problems_accepts_a_slash_in_a_description(book):
    (book.folder / "map.png").write_bytes(b"")
    assert book(index='<img src="map.png" alt="Drying and/or wetting by region">') == []


@pytest.mark.parametrize(
    "output",
    [
        '<div class="cell_output docutils"><div class="output traceback"><pre>x</pre></div></div>',
        '<div class="output stderr"><pre>Traceback (most recent call last)</pre></div>',
    ],
)
def test_problems_names_a_traceback_in_an_output(book, output):
    (line,) = book(index=output)
    assert line == "index.html: the output of a notebook shows a traceback"


def test_problems_lets_the_text_of_a_page_speak_of_a_traceback(book):
    text = '<div class="output"><br><p>done</p></div><p>Traceback (most recent call last)</p>'
    assert book(index=text) == []


def test_problems_leaves_the_templates_of_the_theme_alone(book):
    (book.folder / "_static").mkdir()
    (book.folder / "_static" / "macros.html").write_text('<script src="{{ x }}"></script>')
    assert book(index="<p>text</p>") == []


def test_problems_refuses_absolute_paths_and_ways_out(book):
    found = book(index='<a href="/home/x">x</a><a href="../../x.html">y</a>')
    assert found == [
        "index.html: /home/x is an absolute path; it holds on no other machine",
        "index.html: ../../x.html lies outside the book",
    ]


def test_problems_of_an_empty_folder_say_so(tmp_path):
    (line,) = check.problems(tmp_path)
    assert "no pages" in line


def test_check_exits_with_1_and_prints_every_problem(book):
    book(index='<a href="a.html">a</a><img src="b.png" alt="A map">')
    command = [sys.executable, str(SCRIPT), str(book.folder)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert "a.html does not exist" in run.stdout and "b.png does not exist" in run.stdout


def test_check_exits_with_0_on_a_sound_book(book):
    book(index="<p>text</p>")
    assert check.main([str(book.folder)]) == 0


def test_model_table_of_the_data_page_is_that_of_the_csv():
    with open(ROOT / "data" / "cmip6_models.csv", encoding="utf-8") as file:
        models = list(csv.DictReader(file))
    expected = [
        [
            model["source_id"],
            f"{model['nlon']} x {model['nlat']}" if model["nlon"] else "not confirmed",
            *(model[key] for key in ("calendar", "land_model", "family", "default25")),
        ]
        for model in models
    ]
    page = (ROOT / "book" / "data.md").read_text(encoding="utf-8")
    rows = [re.split(r"\s*\|\s*", line.strip("| \n")) for line in page.splitlines()]
    start = rows.index(
        ["model", "grid (lon x lat)", "calendar", "land scheme", "family", "default set"]
    )
    assert rows[start + 2 : start + 2 + len(expected)] == expected
