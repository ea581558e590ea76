"""Every defect of real files that the demo world can plant, and what becomes of it."""

import shutil

import netCDF4
import numpy as np
import pytest
import xarray as xr
from defects import DEFECTS

from smcore import defects
from smcore.cmip6 import find_sources, read_series
from smcore.grids import coarse_grid
from smcore.profile import PLANTED
from smcore.regrid import regrid

# What the reader makes of each defect: the kinds of problem that it names in the historical run
# and in the scenario, and words of the message about the last one.
NAMED = {
    "late_start": ([], ["filled_month"], "2015-01 is missing; filled by the mean of January 2016"),
    "above_saturation": ([], ["clipped"], "1 values below 0 and 5 above 1 m3 m-3, -2e-05 to 1.96"),
    "undeclared_fill": ([], ["undeclared_fill"], "undeclared fill values"),
    "ocean_zero": ([], ["dry_cells"], "cells never hold water"),
    "wrong_depth": (["depth"], ["depth"], "depth bounds 0-0.022 m; CMIP6 defines 0-0.1 m"),
    "overlap": (["repeated_months"], [], "2011-01, 2011-02, 2011-03, 2011-04, 2011-05, ..."),
    "repeated_month": ([], ["repeated_months"], "2015-04 repeated, and equal"),
    "conflict": (["conflicting_months"], [], "disagree on 2011-01, 2011-02"),
    "gap": (["missing_months"], [], "12 of 72 months are missing (2011-01, 2011-02"),
    "misnamed": ([], ["file_name"], "months 201501-202712"),
    "odd_name": ([], ["file_name"], "(1).nc: the name disagrees"),
    "unstructured": ([], ["grid"], "unstructured and curvilinear grids need xESMF"),
    "truncated": ([], ["unreadable"], "is truncated or damaged"),
    "damaged_chunk": ([], ["unreadable"], "is truncated or damaged"),
    "empty_file": ([], ["unreadable"], "is empty; fetch it again"),
    "web_page": ([], ["unreadable"], "is a web page; fetch it again"),
    "wrong_variable": ([], ["variable"], "no variable mrsos; it holds mrso"),
    "wrong_units": ([], ["units"], "must be in 'kg m-2', got 'm3 m-3'"),
    "wrong_magnitude": (["magnitude"], ["magnitude"], "are the units those of the attributes?"),
    "all_missing": ([], ["missing_values"], "no value in 156 of 156 months"),
    "partial_month": ([], ["partial_months"], "cells have values in some months (2015-06)"),
    "wrong_facets": ([], ["facets"], "the attributes, experiment_id piControl"),
    "curvilinear": ([], ["grid"], "unstructured and curvilinear grids need xESMF"),
    "missing_month": ([], ["missing_values"], "no value in 1 of 156 months (2015-06)"),
    "nan_time": ([], ["time"], "1 of 156 time stamps are missing"),
    "daily": ([], ["frequency"], "more than one step a month"),
    "small_region": ([], ["region"], "does not cover the domain"),
}
# What real archives hold as well, and what must not change anything.
HARMLESS = {
    "end_in_2300",
    "julian_calendar",
    "other_institution",
    "second_member",
    "second_grid",
    "older_version",
}
# Problems after which the values are those of the file without the defect.
REPAIRED = {"ocean_zero", "wrong_depth", "overlap", "repeated_month"}
ACCEPTABLE = {"conflict": "conflicting_months", "misnamed": "file_name", "odd_name": "file_name"}


@pytest.fixture(scope="module")
def polite(make_small, tmp_path_factory):
    """One source without defects: six years, and thirteen of a scenario."""
    return make_small(
        tmp_path_factory.mktemp("polite"),
        sources=["Alder"],
        periods={
            "historical": ["2009", "2014"],
            "future": ["2015", "2027"],
            "train": ["2009", "2010"],
            "validation": ["2011", "2012"],
            "test": ["2013", "2014"],
            "baseline": ["2009", "2014"],
            "change": [["2015", "2016"], ["2017", "2018"]],
        },
    )


@pytest.fixture(scope="module")
def expected(polite):
    return read(polite, polite.cmip6_directory)[0]


@pytest.fixture
def spoilt(polite, tmp_path):
    """A function that copies the archive and plants a defect in it."""

    def spoil(defect):
        shutil.copytree(polite.cmip6_directory, tmp_path / "CMIP6")
        paths = sorted(tmp_path.glob("CMIP6/**/mrsos*.nc"), key=lambda path: path.name)
        assert len(paths) == 3
        DEFECTS[defect](paths)
        return tmp_path / "CMIP6"

    return spoil


def read(study, directory, **options):
    """theta and report of the historical run and of the scenario, chosen as in `prepare`."""
    files = find_sources(directory)
    found = [
        read_series(
            files,
            "Alder",
            experiment_id,
            variant_label="r1i1p1f1",
            grid_label="gn",
            period=study.period(experiment_id),
            region=study.domain,
            missing_first_month="climatology",
            **options,
        )
        for experiment_id in ("historical", "ssp585")
    ]
    return [theta for theta, _ in found], [report for _, report in found]


def read_anywhere(study):
    """The scenario on its whole grid."""
    return read_series(find_sources(study.cmip6_directory), "Alder", "ssp585")[0]


def test_every_defect_has_its_test():
    assert set(NAMED) | HARMLESS == set(DEFECTS)
    assert all(plant.__doc__ for plant in DEFECTS.values())


def test_a_profile_may_name_the_defects_that_the_demo_world_plants():
    assert set(PLANTED) == set(defects.DEFECTS)


@pytest.mark.parametrize("defect", NAMED)
def test_a_defect_is_named(polite, spoilt, defect):
    directory = spoilt(defect)
    _, reports = read(polite, directory)
    *kinds, words = NAMED[defect]
    assert [[kind for kind, _ in report.problems] for report in reports] == kinds
    assert words in [text for report in reports for _, text in report.problems][-1]


@pytest.mark.parametrize("defect", sorted(HARMLESS | REPAIRED))
def test_the_values_are_those_without_the_defect(polite, expected, spoilt, defect):
    fields, reports = read(polite, spoilt(defect))
    assert all(report.verdict in ("ok", "warning") for report in reports)
    for found, wanted in zip(fields, expected, strict=True):
        xr.testing.assert_allclose(found.drop_attrs(), wanted.drop_attrs(), rtol=1e-6)


@pytest.mark.parametrize("defect", ACCEPTABLE)
def test_a_study_may_accept_what_does_no_harm_to_it(polite, expected, spoilt, defect):
    fields, reports = read(polite, spoilt(defect), accepted=(ACCEPTABLE[defect],))
    assert "accepted" in [report.verdict for report in reports]
    for found, wanted in zip(fields, expected, strict=True):
        xr.testing.assert_allclose(found.drop_attrs(), wanted.drop_attrs(), rtol=1e-6)


def test_a_late_start_is_filled_by_ten_years_of_the_same_month(polite, expected, spoilt):
    fields, reports = read(polite, spoilt("late_start"))
    scenario, report = fields[1], reports[1]
    assert (report.months_found, report.months_expected, report.months_filled) == (155, 156, 1)
    januaries = [expected[1].sel(time=f"{year}-01-01") for year in range(2016, 2026)]
    np.testing.assert_allclose(scenario[0], sum(januaries).values / 10, rtol=1e-5)
    xr.testing.assert_allclose(scenario[1:].drop_attrs(), expected[1][1:].drop_attrs(), rtol=1e-6)


def test_the_mean_for_a_first_month_leaves_fill_values_out(polite, expected, spoilt):
    directory = spoilt("late_start")
    (path,) = directory.glob("**/*ssp585*.nc")
    with netCDF4.Dataset(path, "a") as file:
        file.set_auto_mask(False)
        lat, lon = abs(file["lat"][:] - 35).argmin(), abs(file["lon"][:] - 105).argmin()
        file["mrsos"][11, lat, lon] = -99.0  # January 2016
    fields, reports = read(polite, directory)
    assert reports[1].undeclared_fills == 1
    cell = {"lat": 35, "lon": 105, "method": "nearest"}
    januaries = [float(expected[1].sel(time=f"{y}-01-01").sel(**cell)) for y in range(2017, 2026)]
    found = float(fields[1][0].sel(**cell))
    np.testing.assert_allclose(found, np.mean(januaries), rtol=1e-5)


def test_undeclared_fills_are_missing_and_counted(polite, expected, spoilt):
    fields, reports = read(polite, spoilt("undeclared_fill"))
    ocean = int(expected[1][0].isnull().sum())
    inland = expected[1].sel(lat=35, lon=105, method="nearest")
    assert reports[1].undeclared_fills == 156 * (ocean + 1)  # each month, and one cell of -9999
    found = fields[1].sel(lat=inland.lat, lon=inland.lon)
    assert found.isnull().all() and inland.notnull().all()
    assert float(fields[1].max()) == float(expected[1].max())


def test_a_damaged_file_is_told_from_the_others(polite, spoilt):
    directory = spoilt("damaged_chunk")
    (damaged,) = directory.glob("**/*ssp585*.nc")
    with netCDF4.Dataset(damaged) as file:  # it opens
        assert file["mrsos"].shape[0] == 156
    _, reports = read(polite, directory)
    (message,) = reports[1].errors
    assert str(damaged) in message and "historical" not in message


@pytest.mark.parametrize(
    ("defect", "dims"), [("unstructured", ("time", "i")), ("curvilinear", ("time", "j", "i"))]
)
def test_other_grids_pass_where_xesmf_is_installed(
    polite, expected, spoilt, monkeypatch, defect, dims
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    directory = spoilt(defect)
    theta, report = (pair[1] for pair in read(polite, directory))
    assert report.verdict == "ok"
    assert theta.dims == dims
    assert theta[0].size > expected[1][0].size  # no region is cut from these
    np.testing.assert_allclose(theta.max(), read_anywhere(polite).max(), rtol=1e-6)
    with pytest.raises(ValueError, match="xesmf"):
        regrid(theta, coarse_grid(polite.domain))


def test_make_archive_plants_what_the_profile_asks_for(make_small, tmp_path):
    study = make_small(
        tmp_path,
        demo={"reference_resolution": 1.0, "defects": {"Birch": ["late_start", "wrong_depth"]}},
    )
    names = [path.name for path in study.cmip6_directory.glob("**/*.nc")]
    assert [name for name in names if "-201812" in name and "Birch" in name] == [
        "mrsos_Lmon_Birch_ssp585_r1i1p1f1_gn_201502-201812.nc"
    ]
    files = find_sources(study.cmip6_directory)
    assert read_series(files, "Alder", "ssp585")[1].verdict == "ok"
    report = read_series(files, "Birch", "ssp585")[1]
    assert [kind for kind, _ in report.problems] == ["depth"]
