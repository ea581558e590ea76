"""The domain, its nested grids, and the area of their cells."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from smcore.config import Domain, Region, Study
from smcore.grids import (
    EARTH_RADIUS,
    block_means,
    box_mask,
    cell_area,
    coarse_grid,
    fine_grid,
    on_cells_of,
    region_masks,
    uncovered,
)


def test_coarse_grid_has_18_by_33_cells_centred_on_odd_latitudes_and_even_longitudes():
    grid = coarse_grid()
    np.testing.assert_array_equal(grid["lat"], np.arange(19, 54, 2))
    np.testing.assert_array_equal(grid["lon"], np.arange(72, 137, 2))
    assert dict(grid.sizes) == {"lat": 18, "lon": 33, "bnds": 2}


def test_fine_grid_has_144_by_264_cells_of_a_quarter_degree():
    grid = fine_grid()
    np.testing.assert_array_equal(grid["lat"], 18.125 + 0.25 * np.arange(144))
    np.testing.assert_array_equal(grid["lon"], 71.125 + 0.25 * np.arange(264))
    assert (float(grid["lat"][-1]), float(grid["lon"][-1])) == (53.875, 136.875)


def test_coarse_grid_of_the_paper_begins_on_the_edges():
    grid = coarse_grid(registration="paper")
    np.testing.assert_array_equal(grid["lat"], np.arange(18, 53, 2))
    np.testing.assert_array_equal(grid["lon"], np.arange(71, 136, 2))


def test_fine_grid_of_the_paper_begins_on_the_edges():
    grid = fine_grid(registration="paper")
    np.testing.assert_array_equal(grid["lat"], 18 + 0.25 * np.arange(144))
    np.testing.assert_array_equal(grid["lon"], 71 + 0.25 * np.arange(264))
    assert (float(grid["lat"][-1]), float(grid["lon"][-1])) == (53.75, 136.75)


@pytest.mark.parametrize("make", [coarse_grid, fine_grid])
def test_grids_refuse_an_unknown_registration(make):
    with pytest.raises(ValueError, match="'nested' or 'paper', got 'corner'"):
        make(registration="corner")


@pytest.mark.parametrize("grid", [coarse_grid(), fine_grid(), fine_grid(scale_factor=3)])
def test_bounds_tile_the_domain(grid):
    for axis, low, high in [("lat", 18, 54), ("lon", 71, 137)]:
        bounds = grid[f"{axis}_bnds"].values
        np.testing.assert_allclose(bounds[[0, -1], [0, 1]], [low, high], atol=1e-12)
        np.testing.assert_allclose(bounds[1:, 0], bounds[:-1, 1], atol=1e-12)
        np.testing.assert_allclose(bounds.mean(axis=1), grid[axis], atol=1e-12)
        assert grid[axis].attrs["bounds"] == f"{axis}_bnds"


@pytest.mark.parametrize("scale_factor", [2, 3, 8])
def test_scale_factor_fine_cells_fill_each_coarse_cell(scale_factor):
    domain = Domain(south=-6, north=6, west=170, east=190, resolution=4)
    coarse, fine = coarse_grid(domain), fine_grid(domain, scale_factor=scale_factor)
    for axis in ("lat", "lon"):
        blocks = fine[axis].values.reshape(-1, scale_factor)
        np.testing.assert_allclose(blocks.mean(axis=1), coarse[axis], atol=1e-12)
        edges = fine[f"{axis}_bnds"].values
        np.testing.assert_allclose(edges[::scale_factor, 0], coarse[f"{axis}_bnds"][:, 0])


def upsampled(field, scale_factor):
    tensor = torch.as_tensor(field.values)[None, None]
    fine = torch.nn.functional.interpolate(
        tensor, scale_factor=scale_factor, mode="bilinear", align_corners=False
    )
    return fine[0, 0].numpy()


@pytest.mark.parametrize("scale_factor", [2, 8])
def test_upsampling_reproduces_a_linear_field_on_nested_grids(scale_factor):
    coarse, fine = coarse_grid(), fine_grid(scale_factor=scale_factor)
    result = upsampled(0.3 + 0.02 * coarse["lat"] - 0.01 * coarse["lon"], scale_factor)
    expected = (0.3 + 0.02 * fine["lat"] - 0.01 * fine["lon"]).values
    inner = slice(scale_factor // 2, -scale_factor // 2)  # beyond the outer centres it is constant
    np.testing.assert_allclose(result[inner, inner], expected[inner, inner], atol=1e-12)


def test_upsampling_is_0875_degrees_off_on_the_grids_of_the_paper():
    coarse, fine = coarse_grid(registration="paper"), fine_grid(registration="paper")
    result = upsampled(coarse["lat"] + 0 * coarse["lon"], 8)
    offset = (fine["lat"] + 0 * fine["lon"]).values - result
    np.testing.assert_allclose(offset[4:-4], 0.875, atol=1e-9)  # 3.5 cells of 0.25 degrees


@pytest.mark.parametrize("grid", [coarse_grid(), fine_grid()])
def test_cell_areas_sum_to_the_zone_between_two_latitudes_and_longitudes(grid):
    zone = EARTH_RADIUS**2 * np.deg2rad(137 - 71)
    zone *= np.sin(np.deg2rad(54)) - np.sin(np.deg2rad(18))
    area = cell_area(grid["lat"], grid["lon"])
    assert area.dims == ("lat", "lon")
    assert area.attrs["units"] == "m2"
    np.testing.assert_allclose(area.sum(), zone, rtol=1e-12)


@pytest.mark.parametrize(
    "lat", [np.arange(-89.5, 90), np.arange(89.5, -90, -1), np.linspace(-90, 90, 181)]
)
def test_cell_areas_of_a_global_grid_sum_to_the_sphere(lat):
    grid = xr.Dataset(coords={"lat": lat, "lon": np.arange(0, 360, 5.0)})
    area = cell_area(grid["lat"], grid["lon"])
    assert float(area.min()) > 0
    np.testing.assert_allclose(area.sum(), 4 * np.pi * EARTH_RADIUS**2, rtol=1e-12)


def test_box_mask_takes_the_cells_with_their_centre_in_the_box():
    grid = coarse_grid()
    north = box_mask(grid, Region(south=35, north=54, west=100, east=137))
    south = box_mask(grid, Region(south=18, north=35, west=100, east=137))
    # latitudes 35..53 and 19..33; longitudes 100..136
    assert (int(north.sum()), int(south.sum())) == (10 * 19, 8 * 19)
    assert not (north & south).any()
    assert north.dims == ("lat", "lon")
    assert bool(north.sel(lat=35, lon=100)) and not bool(north.sel(lat=35, lon=98))


def test_sites_of_the_paper_lie_on_corners_of_nested_cells():
    grid, study = fine_grid(), Study.load("paper")
    assert len(study.sites) == 4
    for lon, lat in study.sites.values():
        assert lon in grid["lon_bnds"] and lat in grid["lat_bnds"]
        near = (abs(grid["lat"] - lat) < 0.2) & (abs(grid["lon"] - lon) < 0.2)
        assert int(near.sum()) == 4  # a site is the mean of its four cells


@pytest.mark.parametrize(
    ("lat", "lon", "words"),
    [
        (np.arange(18.5, 54), np.arange(71.5, 137), ""),
        (np.arange(53.5, 18, -1), np.arange(71.5, 137), ""),  # descending
        (np.arange(18.5, 54), np.arange(0.0, 360, 2) - 180, ""),  # around the globe
        (np.arange(19.5, 54), np.arange(71.5, 137), "lat 19.5 to 53.5 does not cover .* 18 to 54"),
        (np.arange(18.5, 54), np.arange(71.5, 130), "lon 71.5 to 129.5 does not .* 71 to 137"),
    ],
)
def test_uncovered_says_what_is_left_out(lat, lon, words):
    field = xr.DataArray(np.zeros((lat.size, lon.size)), [("lat", lat), ("lon", lon)])
    assert re.fullmatch(f"{words}(: fetch a larger region)?", uncovered(field, Domain()))


def test_box_mask_takes_a_box_by_its_edges_and_refuses_one_that_lacks_an_edge():
    grid, box = coarse_grid(), {"south": 35, "north": 54, "west": 100, "east": 137}
    xr.testing.assert_identical(box_mask(grid, box), box_mask(grid, Region(**box)))
    with pytest.raises(ValueError, match="must have the keys south, north, west, east"):
        box_mask(grid, {"south": 35, "north": 54})


STUDY = SimpleNamespace(
    domain=Domain(south=0, north=4, west=0, east=8),
    study_area=SimpleNamespace(name="Here"),
    regions={
        "north": Region(south=2, north=4, west=4, east=8),
        "south": Region(south=0, north=2, west=4, east=8),
        "west": Region(south=0, north=4, west=0, east=4),
    },
)


def static():
    land = xr.DataArray(
        [[0, 1, 1, 0], [1, 1, 0, 1]],
        coords={"lat": [1.0, 3], "lon": [1.0, 3, 5, 7]},
        dims=("lat", "lon"),
    ).astype(bool)
    return xr.Dataset({"land": land, "study_area": land & (land.lon > 2)})


def test_region_masks_hold_land_and_the_east_joins_north_and_south():
    masks = region_masks(static(), STUDY)
    assert list(masks) == ["all land", "Here", "east", "north", "south", "west"]
    assert masks["north"].values.astype(int).tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]
    assert masks["east"].values.astype(int).tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]
    assert masks["Here"].values.astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 0, 1]]


def test_a_region_without_land_is_refused_by_name():
    sea = STUDY.regions | {"upside down": Region(south=4, north=0, west=0, east=8)}
    with pytest.raises(ValueError, match="none in 'upside down'.*0–4 N, 0–8 E, south below north"):
        region_masks(static(), SimpleNamespace(**vars(STUDY) | {"regions": sea}))


def test_a_fine_cell_has_the_value_of_the_coarse_cell_it_lies_in():
    coarse = xr.DataArray(
        [[1.0, 2], [3, 4]], coords={"lat": [1, 3], "lon": [1, 3]}, dims=("lat", "lon")
    )
    fine = xr.DataArray(
        np.ones((4, 4), bool),
        coords={"lat": [0.5, 1.5, 2.5, 3.5], "lon": [0.5, 1.5, 2.5, 3.5]},
        dims=("lat", "lon"),
    )
    fine[0, 0] = False
    found = on_cells_of(coarse, fine)
    expected = np.kron([[1.0, 2], [3, 4]], np.ones((2, 2)))
    expected[0, 0] = np.nan
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found.lat, fine.lat)


def test_block_means_are_those_of_the_coarse_cells_and_leave_out_what_is_missing():
    values = np.kron([[1.0, 2], [3, 4]], [[0.5, 1.5], [1, 1]])  # the blocks have mean 1, 2, 3, 4
    values[3, 3] = np.nan  # of 2, 6, 4 and this one
    lat, lon = [0.5, 1.5, 2.5, 3.5], [10.5, 11.5, 12.5, 13.5]
    fine = xr.DataArray(values, {"lat": lat, "lon": lon}, ["lat", "lon"], attrs={"units": "1"})
    found = block_means(fine, 2)
    assert found.values.tolist() == [[1, 2], [3, 4]]
    assert (found.lat.values.tolist(), found.lon.values.tolist()) == ([1, 3], [11, 13])
    assert found.attrs["units"] == "1"
