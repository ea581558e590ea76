"""Soil water and its units."""

import numpy as np
import pytest
import xarray as xr

from smcore.soil import volumetric_water_content


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
