"""Agreement of an estimate with a reference.

Every function ignores cells where either side is missing. How many pairs of values were
used stands beside the result, in its coordinate ``pairs``.
"""

import numpy as np
import xarray as xr


def bias(estimate, reference, *, dim=None, weights=None):
    """Mean difference, ``estimate - reference``.

    Parameters
    ----------
    estimate, reference : xr.DataArray
        What is scored, and against what. Same units and identical coordinates; dimensions
        that only one of them has are broadcast.
    dim : str or sequence of str, optional
        Dimensions to average over. Default: all, those of one side only included.
    weights : xr.DataArray, optional
        Weights of the cells, for instance their areas, without missing values. Default:
        all cells count the same.

    Returns
    -------
    xr.DataArray
        Bias in the units of `reference`, NaN where there is no pair. Its coordinate
        ``pairs`` holds the number of pairs used.

    Raises
    ------
    ValueError
        If units or coordinates of `estimate` and `reference` differ.
    """
    difference = _difference(estimate, reference)
    result = _over(difference, weights).mean(dim)
    return _labelled(result, "bias", difference, dim, reference.attrs.get("units"))


def mae(estimate, reference, *, dim=None, weights=None):
    """Mean absolute difference.

    Arguments, result and errors are those of :func:`bias`.
    """
    difference = _difference(estimate, reference)
    result = _over(abs(difference), weights).mean(dim)
    return _labelled(result, "mae", difference, dim, reference.attrs.get("units"))


def rmsd(estimate, reference, *, dim=None, weights=None):
    """Root of the mean squared difference.

    Arguments, result and errors are those of :func:`bias`.
    """
    difference = _difference(estimate, reference)
    result = np.sqrt(_over(difference**2, weights).mean(dim))
    return _labelled(result, "rmsd", difference, dim, reference.attrs.get("units"))


def ubrmsd(estimate, reference, *, dim=None, weights=None):
    """Root-mean-square difference that is left after the mean difference is removed.

    Arguments, result and errors are those of :func:`bias`.

    Notes
    -----
    Since ``rmsd**2 == bias**2 + ubrmsd**2``, it is the population standard deviation of the
    difference, and computed as such.

    References
    ----------
    Entekhabi et al. (2010), Journal of Hydrometeorology 11, 832-840,
    doi:10.1175/2010JHM1223.1
    """
    difference = _difference(estimate, reference)
    result = _over(difference, weights).std(dim)
    return _labelled(result, "ubrmsd", difference, dim, reference.attrs.get("units"))


def correlation(estimate, reference, *, dim=None, weights=None):
    """Pearson's correlation coefficient.

    Arguments and errors are those of :func:`bias`, and so is the coordinate ``pairs`` of the
    result. NaN where either side is constant over the pairs, so also where there is only one.
    """
    common = _difference(estimate, reference).notnull()
    estimate = estimate.where(common).astype(float)
    reference = reference.where(common).astype(float)

    estimate_anomaly = estimate - _over(estimate, weights).mean(dim)
    reference_anomaly = reference - _over(reference, weights).mean(dim)
    covariance = _over(estimate_anomaly * reference_anomaly, weights).mean(dim)
    spread = _over(estimate, weights).std(dim) * _over(reference, weights).std(dim)

    # by maximum and minimum, because rounding gives a constant field a spread of 1e-17
    varies = (estimate.max(dim) > estimate.min(dim)) & (reference.max(dim) > reference.min(dim))
    result = (covariance / spread.where(varies)).clip(-1, 1)
    return _labelled(result, "correlation", estimate, dim, "1")


def taylor_statistics(estimate, reference):
    """The numbers of a normalised Taylor diagram.

    Parameters
    ----------
    estimate : xr.DataArray
        What is scored. Has the dimensions of `reference`; further ones, such as
        ``source_id`` or ``dataset``, are kept.
    reference : xr.DataArray
        Against what. All its dimensions (time, lat, lon) are pooled, cells unweighted.

    Returns
    -------
    xr.Dataset
        ``std_ratio`` and ``ubrmsd_ratio``, both divided by the standard deviation of the
        reference, and ``correlation``. Coordinate ``pairs``: the number of pairs used.
        NaN where the reference is constant; the correlation also where the estimate is.

    Raises
    ------
    ValueError
        If units or coordinates differ, or `estimate` lacks a dimension of `reference`.

    Notes
    -----
    All datasets are compared on the same cells: those where the reference and *every*
    dataset have a value. Only then can they share a diagram, and only then is the standard
    deviation of an ensemble mean at most the mean of its members' standard deviations.
    Standard deviations are those of the population, so that the law of cosines holds:
    ``ubrmsd_ratio**2 == 1 + std_ratio**2 - 2 * std_ratio * correlation``.

    References
    ----------
    Taylor (2001), Journal of Geophysical Research 106, 7183-7192, doi:10.1029/2000JD900719
    """
    missing = [name for name in reference.dims if name not in estimate.dims]
    if missing:
        raise ValueError(
            f"`estimate` must have the dimensions of `reference`, got {estimate.dims} without "
            f"{missing}; broadcast it first"
        )
    _require_same_units(estimate, reference)

    datasets = [name for name in estimate.dims if name not in reference.dims]
    with xr.set_options(arithmetic_join="exact"):
        common = (estimate.notnull() & reference.notnull()).all(datasets)
    std_ratio, r, ubrmsd_ratio = xr.apply_ufunc(
        _taylor,
        estimate,
        reference,
        common,
        input_core_dims=[reference.dims] * 3,
        output_core_dims=[[], [], []],
        join="exact",
        vectorize=True,  # one dataset at a time, which keeps the memory small
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[float] * 3,
    )
    result = xr.Dataset(
        {"std_ratio": std_ratio, "correlation": r, "ubrmsd_ratio": ubrmsd_ratio},
        coords={"pairs": common.sum()},
    )
    for variable in result.data_vars.values():
        variable.attrs = {"units": "1"}
    return result


def skill_score(estimate, reference, baseline, *, dim=None):
    """Share of a baseline's mean squared error that the estimate removes.

    Parameters
    ----------
    estimate, reference, baseline : xr.DataArray
        What is scored, against what, and what has to be beaten. Same units, identical
        coordinates.
    dim : str or sequence of str, optional
        Dimensions to average over. Default: all.

    Returns
    -------
    xr.DataArray
        ``1 - MSE / MSE_baseline`` over the cells where all three have a value: 1 is
        perfect, 0 as good as the baseline, negative worse. NaN where the baseline has no
        error. Coordinate ``pairs``: the number of cells used.

    Raises
    ------
    ValueError
        If units or coordinates differ.

    References
    ----------
    Murphy (1988), Monthly Weather Review 116, 2417-2424,
    doi:10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2
    """
    squared = _difference(estimate, reference) ** 2
    squared_baseline = _difference(baseline, reference) ** 2
    with xr.set_options(arithmetic_join="exact"):
        common = squared.notnull() & squared_baseline.notnull()

    mse = squared.where(common).mean(dim)
    mse_baseline = squared_baseline.where(common).mean(dim)
    result = 1 - mse / mse_baseline.where(mse_baseline > 0)
    return _labelled(result, "skill_score", squared.where(common), dim, "1")


def area_share(condition, weights, *, mask=None):
    """Percentage of the area in which a condition holds.

    Parameters
    ----------
    condition : xr.DataArray of bool
        With dimensions lat and lon; further ones are kept.
    weights : xr.DataArray
        Area of the cells, or something proportional to it: (lat, lon) or (lat).
    mask : xr.DataArray of bool, optional
        The cells that make up the whole area. A missing value never meets a condition
        (``NaN < 0.04`` is False), so give ``mask=field.notnull()`` to leave out the cells
        where `field` is missing. Default: every cell of the array counts.

    Returns
    -------
    xr.DataArray
        Share in %. NaN where, along a further dimension, `mask` holds no cell.

    Raises
    ------
    ValueError
        If `condition` or `mask` is not boolean, if `mask` is empty, or if coordinates differ.
    """
    mask = xr.ones_like(condition, dtype=bool) if mask is None else mask
    for name, field in {"condition": condition, "mask": mask}.items():
        if field.dtype != bool:
            raise ValueError(f"`{name}` must be boolean, got {field.dtype}; compare it first")
    if not mask.any():
        raise ValueError("`mask` must hold at least one cell, got none")

    with xr.set_options(arithmetic_join="exact"):
        whole = ((mask & xr.ones_like(condition)) * weights).sum(("lat", "lon"))
        part = ((mask & condition) * weights).sum(("lat", "lon"))
    share = 100 * part / whole.where(whole > 0)
    share.attrs = {"long_name": "share of area", "units": "%"}
    return share.rename("area_share")


def together(fields, *, dim="dataset", join="exact"):
    """Fields by name as one array with a new first dimension.

    Parameters
    ----------
    fields : dict of str to xr.DataArray or xr.Dataset
        Same dimensions; coordinates that are not dimensions are dropped.
    dim : str, default: "dataset"
        Name of the new dimension; the names of the fields become its coordinate.
    join : {"exact", "outer"}, default: "exact"
        Whether different coordinates are an error, or missing where a field has none.
    """
    plain = [
        field.drop_vars([name for name in field.coords if name not in field.dims])
        for field in fields.values()
    ]
    index = xr.Variable(dim, list(fields))
    return xr.concat(plain, index, join=join, combine_attrs="drop_conflicts")


def _require_same_units(estimate, reference):
    units = estimate.attrs.get("units"), reference.attrs.get("units")
    if None not in units and units[0] != units[1]:
        raise ValueError(
            f"`estimate` must have the units of `reference`, {units[1]!r}, got {units[0]!r}; "
            "convert one of them"
        )


def _difference(estimate, reference):
    """The difference in double precision, NaN where either side is missing."""
    _require_same_units(estimate, reference)
    # exact, because by default two slightly different grids would keep their overlap only
    with xr.set_options(arithmetic_join="exact"):
        return estimate.astype(float) - reference


def _over(field, weights):
    return field if weights is None else field.weighted(weights)


def _labelled(result, name, used, dim, units):
    result = result.assign_coords(pairs=used.notnull().sum(dim)).rename(name)
    result.attrs = {"units": units} if units else {}
    return result


def _taylor(estimate, reference, common):
    estimate, reference = estimate[common].astype(float), reference[common].astype(float)
    if estimate.size == 0 or reference.max() == reference.min():
        return np.nan, np.nan, np.nan

    estimate_std, reference_std = estimate.std(), reference.std()
    ubrmsd_ratio = (estimate - reference).std() / reference_std
    if estimate.max() == estimate.min():
        return 0.0, np.nan, ubrmsd_ratio
    covariance = ((estimate - estimate.mean()) * (reference - reference.mean())).mean()
    r = np.clip(covariance / (estimate_std * reference_std), -1, 1)
    return estimate_std / reference_std, r, ubrmsd_ratio
