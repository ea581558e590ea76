"""Soil water and its units."""

WATER_DENSITY = 1000.0  # kg m-3
# Largest saturation among the soil types of the land scheme of ERA5-Land (organic soil).
SATURATION = 0.766  # m3 m-3


def volumetric_water_content(mrsos, *, layer_thickness=0.1):
    """Volumetric water content of a soil layer from the mass of water in it.

    Parameters
    ----------
    mrsos : xr.DataArray
        Mass of water in the layer, all phases (frozen water as well), in kg m-2.
    layer_thickness : float, default: 0.1
        In m. CMIP6 defines ``mrsos`` over the upper 0.1 m; the depth bounds in the files are not
        used, because some models publish wrong ones.

    Returns
    -------
    xr.DataArray
        ``mrsos / (1000 kg m-3 layer_thickness)`` in m3 m-3, with the dimensions of `mrsos`.

    Raises
    ------
    ValueError
        If the units are not ``kg m-2`` or the layer has no thickness.
    """
    units = mrsos.attrs.get("units")
    if units != "kg m-2":
        raise ValueError(f"`mrsos` must be in 'kg m-2', got {units!r}")
    if layer_thickness <= 0:
        raise ValueError(f"`layer_thickness` must be positive, in m, got {layer_thickness}")

    theta = mrsos / (WATER_DENSITY * layer_thickness)
    theta.attrs = {"long_name": "volumetric water content", "units": "m3 m-3"}
    return theta.rename("theta")
