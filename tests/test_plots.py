import io
import json
import socket

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.text import Annotation

from smcore import drawing, plots
from smcore.config import ROOT

pytestmark = pytest.mark.filterwarnings("error")
SCENARIOS = ["ssp126", "ssp245", "ssp370", "ssp585"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a figure tried to open a network connection")

    monkeypatch.setattr(socket, "socket", refuse)


def grid(**panels):
    """A field with lat, lon of different length over eastern Asia, and a missing corner."""
    coords = {**panels, "lat": np.arange(20.5, 53, 4), "lon": np.arange(73, 136, 4.5)}
    shape = [len(values) for values in coords.values()]
    values = np.random.default_rng(1).uniform(0.05, 0.45, shape)
    values[..., -3:, -2:] = np.nan
    return xr.DataArray(values, coords, tuple(coords), attrs={"units": "m3 m-3"})


def draw(fig):
    fig.savefig(io.BytesIO())  # a closed figure has no canvas that draws by itself
    return fig


def map_axes(fig):
    return [ax for ax in fig.axes if hasattr(ax, "projection")]


def texts(ax):
    return [text.get_text() for text in ax.texts]


# maps


def test_maps_draw_one_panel_without_dimensions():
    fig = draw(plots.maps(grid(), quantity="theta"))
    assert len(map_axes(fig)) == 1
    assert fig.axes[-1].get_xlabel() == "volumetric water content (m³ m⁻³)"


def test_maps_name_and_letter_the_panels_of_a_dimension():
    field = grid(experiment_id=SCENARIOS).assign_attrs(units="1 per decade")
    fig = draw(plots.maps(field, quantity="ssmi_slope", col="experiment_id"))
    titles = [ax.get_title(loc="left") for ax in map_axes(fig)]
    assert titles == ["(a) SSP1-2.6", "(b) SSP2-4.5", "(c) SSP3-7.0", "(d) SSP5-8.5"]
    assert fig.axes[-1].get_xlabel() == "SSMI slope (per decade)"
    # four panels stand in one row: the same height above the foot of the page
    assert len({round(ax.get_position().y0, 6) for ax in map_axes(fig)}) == 1


def test_maps_head_the_columns_and_rows_of_two_dimensions():
    field = grid(season=["MAM", "JJA", "DJF"], experiment_id=SCENARIOS[:2])
    fig = draw(plots.maps(field, quantity="difference", row="season", col="experiment_id"))
    axes = map_axes(fig)
    assert [ax.get_title() for ax in axes] == ["SSP1-2.6", "SSP2-4.5", "", "", "", ""]
    assert [ax.get_ylabel() for ax in axes] == ["MAM", "", "JJA", "", "DJF", ""]
    shown = axes[3].collections[0].get_array().compressed()  # second row, second column
    expected = field.sel(season="JJA", experiment_id="ssp245").values
    np.testing.assert_array_equal(shown, expected[~np.isnan(expected)])


def test_maps_wrap_many_panels_into_a_square():
    fig = plots.maps(grid(source_id=list("abcdefg")), quantity="mae", col="source_id")
    x = {round(ax.get_position().x0, 6) for ax in map_axes(fig)}
    y = {round(ax.get_position().y0, 6) for ax in map_axes(fig)}
    assert (len(x), len(y)) == (3, 3)


def test_maps_label_the_outer_panels_only():
    fig = draw(plots.maps(grid(a=[1, 2], b=[1, 2]), quantity="theta", row="a", col="b"))
    left = [ax.yaxis.get_tick_params()["labelleft"] for ax in map_axes(fig)]
    below = [ax.xaxis.get_tick_params()["labelbottom"] for ax in map_axes(fig)]
    assert left == [True, False, True, False]
    assert below == [False, False, True, True]


def test_maps_do_not_depend_on_the_order_of_dimensions():
    field = grid(experiment_id=SCENARIOS[:2])
    one = plots.maps(field, quantity="theta", col="experiment_id")
    other = plots.maps(
        field.transpose("lon", "experiment_id", "lat"), quantity="theta", col="experiment_id"
    )
    for a, b in zip(map_axes(one), map_axes(other)):
        np.testing.assert_array_equal(
            a.collections[0].get_array().filled(-1), b.collections[0].get_array().filled(-1)
        )


def test_maps_put_a_descending_latitude_the_right_way_up():
    field = grid().isel(lat=slice(None, None, -1))
    fig = plots.maps(field, quantity="theta")
    corners = map_axes(fig)[0].collections[0].get_coordinates()
    assert corners[0, 0, 1] > corners[-1, 0, 1]  # the first row of cells is the northern one
    # half a cell, 2.25 and 2 degrees, around centres of 73 to 131.5 E and 20.5 to 52.5 N
    assert map_axes(fig)[0].get_extent() == pytest.approx((70.75, 133.75, 18.5, 54.5))


def test_maps_refuse_an_unknown_quantity_with_the_choices():
    with pytest.raises(ValueError, match="`quantity`.*theta.*ssmi_slope.*'soil'"):
        plots.maps(grid(), quantity="soil")


def test_maps_refuse_other_units_and_dimensions():
    with pytest.raises(ValueError, match="'m3 m-3 decade-1'.*'m3 m-3 year-1'"):
        plots.maps(grid().assign_attrs(units="m3 m-3 year-1"), quantity="theta_slope")
    with pytest.raises(ValueError, match="`field` must have the dimensions"):
        plots.maps(grid(time=[1, 2]), quantity="theta")


def test_maps_refuse_dots_on_another_grid():
    with pytest.raises(ValueError, match="lat"):
        plots.maps(grid(), quantity="theta", dots=grid().assign_coords(lat=np.arange(9)) > 0.2)


def test_maps_explain_dots_hatching_outline_and_notes():
    field = grid(experiment_id=SCENARIOS[:2])
    dots = (field > 0.3).assign_attrs(long_name="significant")
    hatching = (field < 0.1).assign_attrs(long_name="sources disagree")
    notes = xr.DataArray(["70 % < 0.04", "22 % < 0.04"], {"experiment_id": field.experiment_id})
    fig = draw(
        plots.maps(
            field,
            quantity="mae",
            col="experiment_id",
            dots=dots,
            hatching=hatching,
            study_area=shapely.box(80, 25, 120, 45),
            notes=notes,
        )
    )
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert sorted(legend) == ["significant", "sources disagree", "study area"]
    assert [texts(ax) for ax in map_axes(fig)] == [["70 % < 0.04"], ["22 % < 0.04"]]


def test_maps_name_points_and_boxes():
    places = {"arid": (84.5, 44.0), "north": ([100, 130, 130, 100], [50, 50, 35, 35])}
    (ax,) = map_axes(draw(plots.maps(grid(), quantity="theta", places=places)))
    assert texts(ax) == ["arid", "north"]
    point, box = ax.lines
    np.testing.assert_array_equal(point.get_xydata(), [[84.5, 44.0]])
    assert (box.get_xdata().min(), box.get_ydata().max()) == (100, 50)
    assert (point.get_marker(), box.get_marker()) == (".", "None")  # corners are no sites


def test_maps_separate_the_signs_by_a_line_that_needs_no_colour():
    field = (grid() - grid().mean()).assign_attrs(units="m3 m-3")
    fig = draw(plots.maps(field, quantity="difference", zero_line=True))
    (line,) = [c for c in map_axes(fig)[0].collections if isinstance(c, ContourSet)]
    assert list(line.levels) == [0]
    assert line.get_path_effects()
    (entry,) = [text.get_text() for text in fig.legends[0].get_texts()]
    assert entry == "zero, ticks to the negative side"


def test_ticks_of_the_zero_line_point_to_the_negative_side():
    west_is_negative = grid().copy(data=np.broadcast_to((grid().lon - 104.3) / 2000, grid().shape))

    def dark(field):
        buffer = io.BytesIO()
        plots.maps(field, quantity="difference", zero_line=True).savefig(buffer)
        buffer.seek(0)
        return plt.imread(buffer)[..., :3].sum(axis=2) < 1

    one, other = dark(west_is_negative), dark(-west_is_negative)
    assert np.nonzero(one & ~other)[1].mean() < np.nonzero(other & ~one)[1].mean() - 2


def test_dots_stand_for_blocks_that_are_at_least_half_true():
    mask = xr.DataArray(
        [[1, 1, 0, 0, 1], [0, 0, 0, 0, 1], [1, 0, 1, 1, 1], [0, 0, 1, 1, 1]],
        {"lat": [10.0, 11, 12, 13], "lon": [0.0, 1, 2, 3, 4]},
    ).astype(bool)
    # blocks of 2 x 2 hold 2, 0 / 1, 4 of 4; the fifth column fills no block
    lon, lat = drawing.thinned(mask, 2)
    assert list(zip(lat, lon)) == [(10.5, 0.5), (12.5, 2.5)]


def test_maps_title_months_by_year_and_month():
    theta = grid(time=pd.date_range("2050-11-01", periods=3, freq="MS"))
    fig = draw(plots.maps(theta, quantity="theta", col="time"))
    titles = [ax.get_title(loc="left") for ax in map_axes(fig)]
    assert titles == ["(a) 2050-11", "(b) 2050-12", "(c) 2051-01"]


def test_diverging_quantities_are_brown_below_zero_and_green_above():
    for name in ("difference", "ssmi_slope", "theta_slope", "change"):
        quantity = plots.QUANTITIES[name]
        assert quantity.levels == [-level for level in reversed(quantity.levels)]
        shade = plt.get_cmap(quantity.cmap)
        red, _, blue, _ = shade(quantity.norm(quantity.levels[0] * 0.9))
        assert red > blue
        red, _, blue, _ = shade(quantity.norm(quantity.levels[-1] * 0.9))
        assert blue > red


def test_levels_hold_the_thresholds_of_the_paper():
    assert {0.04, 0.06, 0.1} <= set(plots.QUANTITIES["mae"].levels)
    assert {-0.05, 0, 0.05} <= set(plots.QUANTITIES["ssmi_slope"].levels)


# shipped outlines


def test_coastline_tells_land_from_sea():
    for lon, lat, expected in [
        (116.4, 39.9, True),  # Beijing
        (91.1, 29.7, True),  # Lhasa
        (110.0, 19.2, True),  # Hainan
        (125.0, 30.0, False),  # East China Sea
        (51.0, 42.0, False),  # Caspian Sea
    ]:
        assert plots.LAND.contains(shapely.Point(lon, lat)) == expected


def test_countries_have_codes_and_plausible_areas():
    text = (ROOT / "data" / "countries.geojson").read_text(encoding="utf-8")
    outlines = {
        feature["properties"]["id"]: shapely.geometry.shape(feature["geometry"])
        for feature in json.loads(text)["features"]
    }
    # Lambert's cylindrical projection keeps areas; land area in 1000 km2 from the CIA Factbook
    for code, area in {"496": 1564, "524": 147, "764": 513}.items():  # Mongolia, Nepal, Thailand
        flat = shapely.transform(
            outlines[code],
            lambda xy: 6371 * np.column_stack([np.deg2rad(xy[:, 0]), np.sin(np.deg2rad(xy[:, 1]))]),
        )
        assert outlines[code].is_valid
        assert flat.area / 1000 == pytest.approx(area, rel=0.02)


# lines


def test_loss_curve_marks_the_best_epoch_and_the_baselines():
    history = pd.DataFrame(
        {"train": [4e-3, 2e-3, 1e-3], "validation": [4e-3, 1.5e-3, 2e-3]}, index=[0, 1, 2]
    )
    fig = draw(plots.loss_curve(history, best_epoch=1, baseline={"delta_change": 1.7e-3}))
    (ax,) = fig.axes
    assert ax.get_yscale() == "log"
    assert ax.get_ylabel() == "mean squared error of θ\nin (m³ m⁻³)²"
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines) == ["training", "validation", "delta change", "kept: epoch 1"]
    np.testing.assert_array_equal(lines["kept: epoch 1"].get_xydata(), [[1, 1.5e-3]])
    np.testing.assert_array_equal(lines["delta change"].get_ydata(), [1.7e-3, 1.7e-3])


def permuted(p_value):
    random = np.random.default_rng(0)
    values = ("permutation", random.normal(0.03, 0.001, 500))
    return xr.Dataset({"observed": 0.025, "permuted": values, "p_value": p_value})


def test_permutations_mark_the_score_of_the_true_order():
    fig = draw(plots.permutations({"ynet_sound": permuted(1 / 501)}, quantity="rmsd"))
    (ax,) = fig.axes
    assert fig.get_supxlabel() == "root mean square difference (m³ m⁻³)"
    assert ax.get_title("left") == "YNet (sound), p = 0.002"
    assert sum(patch.get_height() for patch in ax.patches) == 500
    (line,) = ax.lines
    assert set(line.get_xdata()) == {0.025}
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert sorted(labels) == ["500 orders of the years", "as they are"]


def test_permutations_have_a_panel_for_each_estimate():
    fig = draw(plots.permutations(dict.fromkeys("abcd", permuted(0.5)), quantity="rmsd"))
    assert [ax.get_title("left") for ax in fig.axes][3] == "(d) d, p = 0.500"


def test_intervals_draw_value_ends_and_the_line_of_the_baseline():
    names, against = ["ynet_sound", "ensemble_mean", "climatology"], ["reference", "truth"]
    value = xr.DataArray(
        [[2.0, 5], [1, 4], [3, 6]], {"dataset": names, "against": against}, ("dataset", "against")
    )
    scores = xr.Dataset({"value": value, "low": value - 0.5, "high": value + 0.25})
    fig = draw(plots.intervals(scores, label="RMSD", better="left", line="climatology"))
    one, other = fig.axes
    assert one.get_title("left") == "(a) against the reference"
    assert other.get_xlabel() == "RMSD (← better)"
    bar, point = other.lines[2:4]
    np.testing.assert_array_equal(bar.get_xydata(), [[4.5, 1], [5.25, 1]])  # second by the first
    np.testing.assert_array_equal(point.get_xydata(), [[5, 1]])
    assert set(other.lines[-1].get_xdata()) == {6}
    best_first = ["ensemble mean", "YNet (sound)", "climatology"]
    assert [label.get_text() for label in one.get_yticklabels()] == best_first
    assert len({to_hex(one.lines[2 * row].get_color()) for row in range(3)}) == 3


def test_heat_map_writes_every_number_on_its_colour():
    values = xr.DataArray(
        [[[0.05, -0.9, np.nan], [1.0, 0.0, -0.123]]],
        {"dataset": ["ridge"], "region": ["dry", "wet"], "month": ["J", "F", "M"]},
        ("dataset", "region", "month"),
    )
    options = {"row": "region", "col": "month", "panel": "dataset"}
    fig = draw(plots.heat_map(values, quantity="skill_score", **options))
    assert texts(fig.axes[0]) == ["0.05", "−0.90", "1.00", "0.00", "−0.12"]
    (bar,) = fig.axes[1:]
    assert bar.get_xlabel() == "skill score (dimensionless)"
    inks = [text.get_color() for text in fig.axes[0].texts]
    assert [ink == "w" for ink in inks] == [False, True, True, False, False]
    with pytest.raises(ValueError, match="dimensions"):
        plots.heat_map(values.isel(month=0), quantity="skill_score", **options)


def worlds():
    """Scores of two methods in four demo worlds, one of them on both axes."""
    rows = [(0.4, 0, 0.02), (0, 0, 0.03), (0, 2, 0.05)]  # not in order
    scores = pd.DataFrame(rows, columns=["shared_weather", "bias_drift", "test"])
    scores["future_truth"] = scores["test"] / 2
    methods = {"ynet_anchored": scores, "climatology": scores.assign(test=0.03)}
    return pd.concat([table.assign(method=name) for name, table in methods.items()])


def test_ranking_draws_each_score_against_its_assumption():
    fig = draw(plots.ranking(worlds()))
    weather, drift = fig.axes
    assert weather.get_yscale() == drift.get_yscale() == "log"
    # the worlds without drift, in order; those without shared weather: half of 0.03 and 0.05
    network, climatology = weather.lines
    np.testing.assert_array_equal(network.get_xydata(), [[0, 0.03], [0.4, 0.02]])
    np.testing.assert_array_equal(climatology.get_xydata(), [[0, 0.03], [0.4, 0.03]])
    np.testing.assert_array_equal(drift.lines[0].get_xydata(), [[0, 0.015], [2, 0.025]])
    assert "m³ m⁻³" in weather.get_ylabel() and "logarithmic" in weather.get_ylabel()
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["YNet (anchored)", "climatology"]


def test_looks_tell_every_two_datasets_apart_without_colour():
    looks = [
        (look.get("marker"), str(look["linestyle"]), look.get("linewidth"))
        for name, look in drawing.LOOKS.items()
        if "marker" in look
    ]
    assert len(set(looks)) == len(looks)


def test_look_of_an_unknown_name_is_that_of_a_network_or_a_source():
    assert drawing.look("MIROC6") == drawing.look("source") != drawing.look("ensemble_mean")
    assert drawing.look("ynet_other") == drawing.LOOKS["YNet"] != drawing.look("ynet_sound")


def test_ranking_refuses_an_unknown_method_with_the_choices():
    with pytest.raises(ValueError, match="`table`.*climatology.*'best'"):
        plots.ranking(worlds().replace("climatology", "best"))


@pytest.fixture
def series():
    names = ["reference", "ynet_sound", "ensemble_mean", "MIROC6", "GFDL-ESM4"]
    time = pd.date_range("2008-01-01", periods=24, freq="MS")
    values = np.random.default_rng(2).uniform(0.1, 0.4, (5, 2, 24))
    coords = {"dataset": names, "site": ["arid", "humid"], "time": time}
    return xr.DataArray(values, coords, tuple(coords), attrs={"units": "m3 m-3"})


def test_time_series_tell_reference_product_and_the_rest(series):
    fig = draw(plots.time_series(series.transpose("time", "site", "dataset"), panel="site"))
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["(a) arid", "(b) humid"]
    assert fig.get_supylabel() == "volumetric water content (m³ m⁻³)"
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["reference", "YNet (sound)", "ensemble mean", "2 sources"]
    reference, product, *_ = fig.axes[1].lines
    assert reference.get_color() == "black"
    np.testing.assert_array_equal(
        product.get_ydata(), series.sel(dataset="ynet_sound", site="humid").values
    )


def test_time_series_of_months_run_from_january_to_december(series):
    cycles = series.groupby("time.month").mean().rename(site="region")
    fig = draw(plots.time_series(cycles.isel(month=slice(None, None, -1)), x="month"))
    assert "".join(text.get_text() for text in fig.axes[0].get_xticklabels()) == "JFMAMJJASOND"
    np.testing.assert_array_equal(fig.axes[0].lines[0].get_xdata(), np.arange(1, 13))
    assert fig.get_supylabel() == "volumetric water content (m³ m⁻³)"


def test_time_series_have_the_colours_of_the_ipcc():
    coords = {
        "experiment_id": ["historical", *SCENARIOS],
        "region": ["north"],
        "year": [2014, 2015],
    }
    series = xr.DataArray(np.ones((5, 1, 2)), coords, tuple(coords))
    fig = draw(plots.time_series(series, x="year", line="experiment_id"))
    colours = [to_hex(line.get_color()) for line in fig.axes[0].lines]
    assert colours == ["#000000", "#173c66", "#f79420", "#e71d25", "#951b1e"]
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert names == ["historical", "SSP1-2.6", "SSP2-4.5", "SSP3-7.0", "SSP5-8.5"]


def test_time_series_shade_the_range_of_sources_behind_the_lines():
    coords = {"experiment_id": SCENARIOS, "region": ["north"], "year": [2015, 2016]}
    series = xr.DataArray(np.ones((4, 1, 2)), coords, tuple(coords))
    ends = series.sel(experiment_id=["ssp126", "ssp585"])
    sources = xr.concat([ends + 1, ends, ends - 0.5], pd.Index(["A", "B", "C"], name="source_id"))
    years = {"x": "year", "line": "experiment_id"}
    fig = draw(plots.time_series(series, sources=sources, **years))
    shades = fig.axes[0].collections
    assert [to_hex(shade.get_facecolor()[0]) for shade in shades] == ["#173c66", "#951b1e"]
    corners = shades[0].get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (0.5, 2)
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert {"SSP1-2.6, sources", "SSP5-8.5, sources"} < set(names)
    with pytest.raises(ValueError, match="`sources` must have the dimensions"):
        plots.time_series(series, sources=ends, **years)


def test_time_series_refuse_other_dimensions():
    with pytest.raises(ValueError, match="`series` must have the dimensions"):
        plots.time_series(xr.DataArray([1.0], dims="year"), x="year")


def test_index_bound_draws_every_series_below_the_bound():
    names = ["one source", "ensemble mean", "its running mean"]
    values = [[0.02, 0.1, 0.31], [0.1, 0.3, 0.4], [0.2, 0.35, 0.4]]
    slopes = xr.DataArray(values, {"series": names, "trend": [0.02, 0.1, 0.5]}, ("series", "trend"))
    fig = draw(plots.index_bound(slopes, years=86))
    (ax,) = fig.axes
    *lines, bound = ax.lines
    assert bound.get_ydata()[0] == pytest.approx(0.403, abs=5e-4)  # 10 sqrt(12 / (86^2 - 1))
    assert len(lines) == 3
    assert all((line.get_ydata() < bound.get_ydata()[0]).all() for line in lines)
    assert ax.get_ylabel() == "SSMI slope (per decade)"
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels == ["one source", "ensemble mean", "its running mean", "bound, 0.403"]


# tables


def test_share_matrix_writes_median_and_range_of_the_sources():
    coords = {"season": ["MAM", "JJA", "SON"], "experiment_id": SCENARIOS[:2]}
    product = xr.DataArray(np.full((3, 2), 50.0), coords, tuple(coords))
    product.loc["JJA", "ssp245"] = 92.4
    sources = xr.concat([product * 0 + share for share in (41, 77, 52)], "source_id")
    fig = draw(plots.share_matrix(product.T, sources, rows="season"))
    of_product, of_sources, bar = fig.axes
    assert texts(of_product) == ["50", "50", "50", "92", "50", "50"]
    assert texts(of_sources) == ["52  (41–77)"] * 6
    assert [label.get_text() for label in of_product.get_yticklabels()] == ["MAM", "JJA", "SON"]
    named = [label.get_text() for label in of_product.get_xticklabels()]
    assert named == ["SSP1-2.6", "SSP2-4.5"]
    assert bar.get_xlabel() == "share of area that dries (%)"
    assert of_product.texts[3].get_color() == "w"


def test_ratios_of_slopes_keep_their_order_without_colour():
    ratio = plots.QUANTITIES["trend_ratio"]
    shade = plt.get_cmap(ratio.cmap)
    colours = np.array(
        [shade(ratio.norm(value))[:3] for value in (-1, 0.1, 0.4, 0.7, 1, 1.5, 3, 9)]
    )
    assert (np.diff(colours @ [0.2126, 0.7152, 0.0722]) < 0).all()


def test_portrait_groups_the_experiments_by_period():
    parts = ["annual", "MAM", "JJA", "SON", "DJF", *[f"{month}" for month in range(1, 13)]]
    coords = {
        "region": ["north", "south"],
        "part": parts,
        "period": ["2021-2040", "2041-2070", "2071-2100"],
        "experiment_id": SCENARIOS,
    }
    change = xr.DataArray(np.full((2, 17, 3, 4), -0.04), coords, tuple(coords))
    change.loc["north", "annual", "2041-2070", "ssp126"] = 22.36
    change.loc["north", "MAM", "2021-2040", "ssp245"] = -14.85
    change.loc["south", "annual", "2021-2040", "ssp126"] = np.nan
    fig = draw(plots.portrait(change.transpose("experiment_id", "part", "region", "period")))
    north, south, bar = fig.axes
    assert bar.get_xlabel() == "change of water content (%)"
    assert [north.get_title(loc="left"), south.get_title(loc="left")] == ["(a) north", "(b) south"]
    written = texts(north)
    assert written[4] == "22"  # first row, second period, first scenario
    assert written[12 + 1] == "−15"  # second row, first period, second scenario
    assert written[0] == "0.0"  # never a negative zero
    (heads,) = north.child_axes
    assert [tick.get_text() for tick in heads.get_xticklabels()] == coords["period"]
    assert len(texts(south)) == 17 * 12 - 1  # nothing is written into a missing cell
    assert [label.get_text() for label in north.get_yticklabels()] == parts


def test_portrait_marks_cells_in_their_corner():
    coords = {"region": ["north"], "part": ["annual", "MAM"], "period": ["2021-2040"]}
    coords["experiment_id"] = SCENARIOS[:2]
    change = xr.DataArray(np.ones((1, 2, 1, 2)), coords, tuple(coords))
    change.loc["north", "annual", "2021-2040", "ssp126"] = np.nan
    marks = xr.zeros_like(change, dtype=bool)
    marks.loc["north", "MAM", "2021-2040", "ssp245"] = True
    marks.loc["north", "annual", "2021-2040", "ssp126"] = True  # nothing to mark there
    fig = draw(plots.portrait(change, marks=marks.assign_attrs(long_name="few agree")))
    (corner,) = fig.axes[0].lines
    np.testing.assert_array_equal(corner.get_xydata(), [[2, 1]])  # right and top edge of that cell
    assert fig.legends[0].get_texts()[0].get_text() == "few agree"
    with pytest.raises(ValueError, match="part"):
        plots.portrait(change, marks=marks.isel(part=[0]))


def test_change_spread_shows_every_source_and_every_dataset():
    coords = {"region": ["north", "south"], "part": ["annual", "JJA", "May"]}
    sources = xr.DataArray(
        np.arange(24.0).reshape(4, 2, 3), {"source_id": list("ABCD"), **coords},
        ("source_id", "region", "part"),
    )  # fmt: skip
    names = ["ynet_sound", "ynet_anchored", "delta_change_31", "truth"]
    change = sources.rename(source_id="dataset").assign_coords(dataset=names)
    fig = draw(plots.change_spread(change.transpose("part", "dataset", "region"), sources))
    north = fig.axes[0]
    bar = north.patches[1]  # JJA: 1, 7, 13, 19
    assert (bar.get_x(), bar.get_width()) == (1, 18)
    (ticks,) = [c for c in north.collections if len(c.get_segments()) == 12]
    assert sorted({segment[0, 0] for segment in ticks.get_segments()}) == [
        *(0, 1, 2, 6, 7, 8), *(12, 13, 14, 18, 19, 20)
    ]  # fmt: skip
    drawn = {line.get_label(): line for line in north.lines}
    np.testing.assert_array_equal(drawn["truth"].get_xdata(), [18, 19, 20])
    assert len({line.get_marker() for line in drawn.values()}) == 5  # apart without colour
    assert [label.get_text() for label in north.get_yticklabels()] == coords["part"]
    assert fig.axes[1].get_title(loc="left") == "(b) south"


def test_quality_matrix_reads_without_colour():
    table = pd.DataFrame(
        {"historical": ["ok", "error"], "ssp126": ["warning", "accepted"], "ssp245": ["ok", "ok"]},
        index=["MIROC6", "TaiESM1"],
    )
    fig = draw(plots.quality_matrix(table))
    assert texts(fig.axes[0]) == ["✓", "!", "✓", "✗", "≈", "✓"]
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["✓ ok (3)", "! warning (1)", "≈ accepted (1)", "✗ error (1)"]


def test_quality_matrix_refuses_an_unknown_verdict_with_the_choices():
    with pytest.raises(ValueError, match="ok.*warning.*accepted.*error.*'fine'"):
        plots.quality_matrix(pd.DataFrame({"historical": ["fine"]}))


# Taylor diagram


def statistics(**points):
    ratio, r = np.transpose(list(points.values()))
    return xr.Dataset(
        {"std_ratio": ("dataset", ratio), "correlation": ("dataset", r)}, {"dataset": list(points)}
    )


def numbers(diagram):
    notes = [text for text in diagram.texts if isinstance(text, Annotation)]
    return [text for text in notes if text.get_text().isdigit()]


def test_taylor_puts_a_point_at_its_angle_and_radius():
    points = {"reference": (1, 1), "ynet_sound": (1, 0.6), "MIROC6": (0.5, 0.8)}
    fig = draw(plots.taylor(statistics(**points)))
    (diagram,) = fig.axes
    marks = [line.get_xydata()[0] for line in diagram.lines if line.get_marker() in ("D", "o")]
    # cos(angle) = r, so with r = 0.6 and radius 1 the point is at (0.6, 0.8)
    angle, radius = np.transpose(marks)
    np.testing.assert_allclose(radius * np.cos(angle), [0.6, 0.4])
    np.testing.assert_allclose(radius * np.sin(angle), [0.8, 0.3])
    assert np.rad2deg(diagram.get_xlim()[1]) == pytest.approx(90)
    assert [text.get_text() for text in numbers(diagram)] == ["1", "2"]
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["reference", "1 YNet (sound)", "2 MIROC6"]


def test_taylor_opens_to_a_half_circle_for_a_negative_correlation():
    fig = draw(plots.taylor(statistics(a=(1, -0.3), b=(1.2, 0.5))))
    assert np.rad2deg(fig.axes[0].get_xlim()[1]) == pytest.approx(180)


def test_taylor_leaves_out_a_dataset_without_values():
    fig = draw(plots.taylor(statistics(a=(1.0, 0.3), b=(1.2, np.nan))))
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["reference", "1 a"]


def test_taylor_gives_a_family_one_colour_and_one_marker():
    points = {name: (1, 0.5 + 0.1 * k) for k, name in enumerate("abcd")}
    families = {"a": "even", "b": "odd", "c": "even", "d": "odd"}
    fig = draw(plots.taylor(statistics(**points), families=families))
    looks = [(to_hex(line.get_color()), line.get_marker()) for line in fig.axes[0].lines[1:]]
    assert looks[0] == looks[2] != looks[1] == looks[3]
    assert fig.legends[0].get_texts()[2].get_text() == "2 b (odd)"


def test_figures_are_closed_for_pyplot_and_leave_its_settings_alone():
    before = dict(plt.rcParams)
    fig = plots.maps(grid(), quantity="theta")
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before
    assert draw(fig).axes
