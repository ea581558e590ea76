"""Soil water, its units, and the regimes of wet and dry regions."""

import numpy as np
import xarray as xr

WATER_DENSITY = 1000.0  # kg m-3
# Largest saturation among the soil types of the land scheme of ERA5-Land (organic soil).
SATURATION = 0.766  # m3 m-3


def volumetric_water_content(mrsos, *, layer_thickness=0.1):
    """Volumetric water content of a soil layer from the mass of water in it.

    Parameters
    ----------
    mrsos : xr.DataArray
        Mass of water in the layer, all phases, in kg m-2. Any dimensions.
    layer_thickness : float, default: 0.1
        Thickness of the layer in m. CMIP6 defines ``mrsos`` over the upper 0.1 m; the depth
        bounds in the files are not used, because some models publish wrong ones.

    Returns
    -------
    xr.DataArray
        Volumetric water content in m3 m-3, with the dimensions of `mrsos`.

    Raises
    ------
    ValueError
        If the units are not ``kg m-2`` or the layer has no thickness.

    Notes
    -----
    ``theta = mrsos / (rho_w d)`` with ``rho_w = 1000 kg m-3``. Frozen water is included,
    because ``mrsos`` counts all phases.
    """
    units = mrsos.attrs.get("units")
    if units != "kg m-2":
        raise ValueError(f"`mrsos` must be in 'kg m-2', got {units!r}")
    if layer_thickness <= 0:
        raise ValueError(f"`layer_thickness` must be positive, in m, got {layer_thickness}")

    theta = mrsos / (WATER_DENSITY * layer_thickness)
    theta.attrs = {"long_name": "volumetric water content", "units": "m3 m-3"}
    return theta.rename("theta")


def moisture_regimes(theta, area, *, high):
    """High land, and a dry, a middle and a wet third of the rest.

    Parameters
    ----------
    theta : xr.DataArray
        Mean volumetric water content, (lat, lon). Missing outside the study area.
    area : xr.DataArray
        Area of the cells, (lat, lon) or (lat).
    high : xr.DataArray of bool
        Cells of high land, (lat, lon), which form a regime of their own.

    Returns
    -------
    xr.DataArray of bool
        Dimensions region (``high``, ``dry``, ``middle``, ``wet``), lat, lon. No cell belongs to
        two of them; the last three share out the area without high land in equal parts, as
        far as whole cells allow.

    Notes
    -----
    Surface soil moisture stands here for aridity, which would need precipitation and potential
    evaporation: the regimes are relative to the study area, not classes of an aridity index.
    """
    with xr.set_options(arithmetic_join="exact"):
        valid = theta.notnull()
        rest = valid & ~high
        weight = (rest * area).transpose(*theta.dims)
    order = np.argsort(theta.where(rest).values, axis=None)  # missing values last
    before = np.cumsum(weight.values.ravel()[order]) - weight.values.ravel()[order] / 2
    third = np.empty(order.size, int)
    third[order] = np.minimum(3 * before / max(float(weight.sum()), 1e-300), 2)
    third = theta.copy(data=third.reshape(theta.shape))
    regimes = [valid & high, *(rest & (third == number) for number in range(3))]
    names = xr.Variable("region", ["high", "dry", "middle", "wet"])
    return xr.concat(regimes, names).drop_attrs().rename("regime")
