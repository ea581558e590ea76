"""Soil water and its units."""

import numpy as np
import pytest
import xarray as xr

from smcore.soil import moisture_regimes, volumetric_water_content


@pytest.fixture
def mrsos():
    values = np.array([[0.0, 25.0, np.nan], [30.0, 45.6, 100.0]], "float32")
    return xr.DataArray(
        values,
        dims=("lat", "lon"),
        coords={"lat": [1.0, 0.0], "lon": [5.0, 6.0, 7.0]},
        attrs={"units": "kg m-2", "standard_name": "mass_content_of_water_in_soil_layer"},
    )


def test_volumetric_water_content_of_30_kg_in_10_cm_is_three_tenths(mrsos):
    # 30 kg m-2 / 1000 kg m-3 = 0.03 m of water in 0.1 m of soil
    theta = volumetric_water_content(mrsos)
    expected = [[0, 0.25, np.nan], [0.3, 0.456, 1]]
    np.testing.assert_allclose(theta, expected, rtol=1e-6)


def test_volumetric_water_content_is_less_in_a_thicker_layer(mrsos):
    thick = volumetric_water_content(mrsos, layer_thickness=0.5)
    np.testing.assert_allclose(thick, mrsos / 500, rtol=1e-6)


def test_volumetric_water_content_keeps_axes_and_precision_and_says_its_units(mrsos):
    theta = volumetric_water_content(mrsos)
    xr.testing.assert_equal(theta["lat"], mrsos["lat"])
    assert theta.dims == mrsos.dims
    assert theta.dtype == np.float32
    assert theta.name == "theta"
    assert theta.attrs["units"] == "m3 m-3"
    assert "standard_name" not in theta.attrs  # that of a mass would be wrong
    assert mrsos.attrs["units"] == "kg m-2"


@pytest.mark.parametrize("units", ["m3 m-3", "kg/m^2", "mm", None])
def test_volumetric_water_content_refuses_other_units(mrsos, units):
    mrsos.attrs = {} if units is None else {"units": units}
    with pytest.raises(ValueError, match=f"'kg m-2', got {units!r}".replace("^", r"\^")):
        volumetric_water_content(mrsos)


@pytest.mark.parametrize("thickness", [0, -0.1])
def test_volumetric_water_content_needs_a_layer(mrsos, thickness):
    with pytest.raises(ValueError, match="layer_thickness"):
        volumetric_water_content(mrsos, layer_thickness=thickness)


def test_moisture_regimes_worked_by_hand():
    theta = xr.DataArray([[0.1, 0.3, 0.2, np.nan], [0.4, 0.5, 0.6, 0.05]], dims=("lat", "lon"))
    area = xr.DataArray([[1.0, 1, 1, 1], [1, 1, 1, 2]], dims=("lat", "lon"))
    high = xr.zeros_like(theta, dtype=bool)
    high[1, 2] = True
    found = moisture_regimes(theta, area, high=high)
    # without the high cell an area of 7: thirds end at 2.33 and 4.67. In ascending order 0.05
    # (middle of its area at 1), 0.1 (2.5), 0.2 (3.5), 0.3 (4.5), 0.4 (5.5), 0.5 (6.5)
    regime = xr.full_like(theta, "", dtype="U6")
    for name in found.region.values:
        regime = regime.where(~found.sel(region=name), name)
    assert regime.values.tolist() == [
        ["middle", "middle", "middle", ""],
        ["wet", "wet", "high", "dry"],
    ]
    assert (found.sum("region") <= 1).all()


def test_moisture_regimes_share_out_the_area():
    random = np.random.default_rng(0)
    theta = xr.DataArray(random.uniform(0, 0.5, (40, 50)), dims=("lat", "lon"))
    area = xr.DataArray(random.uniform(1, 2, 40), dims="lat")
    found = moisture_regimes(theta.where(theta < 0.45), area, high=theta < 0.05)
    share = (found * area).sum(("lat", "lon"))
    np.testing.assert_allclose(share[1:] / share[1:].mean(), 1, atol=0.01)
    means = [float(theta.where(part).mean()) for part in found]
    assert means == sorted(means)


def test_moisture_regimes_without_a_cell_are_empty():
    theta = xr.DataArray([[np.nan, np.nan]], dims=("lat", "lon"))
    area, high = xr.DataArray([1.0], dims="lat"), theta.notnull()
    assert not moisture_regimes(theta, area, high=high).any()
