"""How often trend tests at the 5 % level reject on autocorrelated series: size and power.

    python benchmarks/trend_tests.py

Gaussian AR(1) series without a trend, and the same series with a straight line that rises by
two standard deviations from their first to their last year. A test holds its level if it
rejects 5 % of the former; of those that do, the one that rejects most of the latter is the best.
The same of white noise under a running mean of ten years, which a fused product resembles more
than a source does. Every test sees the same series. Prints tables in Markdown and writes
``data/test_size.csv``, which chapter 10 shows. Two cores take about ten minutes, most of it the
bootstrap.

Tests that `smcore.trends` does not offer:

- Yue-Wang: variance correction for an AR(1) process with the lag-1 autocorrelation of the
  detrended series as it is (Yue and Wang 2004, doi:10.1023/B:WARM.0000043140.61082.60);
- pre-whitening: x(t) - r x(t - 1), r from the series itself (Kulkarni and von Storch 1995,
  Meteorologische Zeitschrift 4, 82-85);
- trend-free pre-whitening: the same of the detrended series, then the trend is put back
  (Yue et al. 2002, doi:10.1002/hyp.1095);
- bias-corrected pre-whitening: r from the detrended series and freed of its bias (after Hamed
  2009, doi:10.1016/j.jhydrol.2009.01.040, who fits slope and r together);
- block bootstrap: the score among those of 199 series of blocks of five years drawn from the
  series (after Onoz and Bayazit 2012, doi:10.1002/hyp.8438, who choose the length by series).
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtr

from smcore.trends import mann_kendall, theil_sen

TABLE = Path(__file__).resolve().parents[1] / "data/test_size.csv"
YEARS, LAG_1 = (86, 30), (0, 0.3, 0.6, 0.9)
WINDOW = 10  # years of the running mean
LEVEL = 0.05
RISE = 2  # standard deviations from the first to the last year
REPLICATES, BLOCK = 199, 5


def noise(series, years, lag_1):
    """AR(1) series (series, years) of unit variance."""
    rng = np.random.default_rng([years, round(10 * lag_1)])
    values = rng.normal(size=(series, years))
    for i in range(1, years):
        values[:, i] = lag_1 * values[:, i - 1] + np.sqrt(1 - lag_1**2) * values[:, i]
    return values


def smoothed(values, window):
    """Centred running mean of (series, years); at both ends of the years that are there."""
    return pd.DataFrame(values.T).rolling(window, center=True, min_periods=1).mean().values.T


def labelled(values):
    return xr.DataArray(values, {"year": np.arange(values.shape[1])}, ("series", "year"))


def by_smcore(method, values):
    return mann_kendall(labelled(values), method=method).p_value.values


def detrend(values):
    line = theil_sen(labelled(values)).slope.values[:, None] * np.arange(values.shape[1])
    return values - line, line


def lag_1_of(values):
    deviation = values - values.mean(axis=1, keepdims=True)
    products = (deviation[:, 1:] * deviation[:, :-1]).sum(axis=1, keepdims=True)
    return products / (deviation**2).sum(axis=1, keepdims=True)


def yue_wang(values):
    n = values.shape[1]
    lags = np.arange(1, n)
    factor = 1 + 2 * ((1 - lags / n) * lag_1_of(detrend(values)[0]) ** lags).sum(axis=1)
    z = mann_kendall(labelled(values), method="original").z.values / np.sqrt(factor)
    return 2 * ndtr(-abs(z))


def pre_whitened(values, r):
    return by_smcore("original", values[:, 1:] - r * values[:, :-1])


def pre_whitening(values):
    return pre_whitened(values, lag_1_of(values))


def trend_free_pre_whitening(values):
    detrended, line = detrend(values)
    whitened = detrended[:, 1:] - lag_1_of(detrended) * detrended[:, :-1]
    return by_smcore("original", whitened + line[:, 1:])


def bias_corrected_pre_whitening(values):
    n = values.shape[1]
    r = (n * lag_1_of(detrend(values)[0]) + 2) / (n - 4)
    return pre_whitened(values, np.clip(r, -1, 1))


def absolute_score(ranks):
    """|S| of each column; `ranks` (years, series) of one byte, or it would take an hour."""
    score = np.zeros(ranks.shape[1], int)
    for lag in range(1, len(ranks)):
        later, earlier = ranks[lag:], ranks[:-lag]
        score += (later > earlier).sum(axis=0, dtype="uint8")
        score -= (later < earlier).sum(axis=0, dtype="uint8")
    return abs(score)


def block_bootstrap(values):
    series, years = values.shape
    ranks = values.argsort(axis=1).argsort(axis=1).astype("uint8").T.copy()
    observed = absolute_score(ranks)
    rng = np.random.default_rng(0)
    as_large = np.ones(series)
    for _ in range(REPLICATES):
        starts = rng.integers(years, size=(-(-years // BLOCK), 1, series))
        year = (starts + np.arange(BLOCK)[:, None]) % years  # the end is followed by the start
        drawn = np.take_along_axis(ranks, year.reshape(-1, series)[:years], axis=0)
        as_large += absolute_score(drawn) >= observed
    return as_large / (REPLICATES + 1)


TESTS = {
    "ar1": partial(by_smcore, "ar1"),
    "hamed_rao": partial(by_smcore, "hamed_rao"),
    "original": partial(by_smcore, "original"),
    "Yue-Wang": yue_wang,
    "pre-whitening": pre_whitening,
    "trend-free pre-whitening": trend_free_pre_whitening,
    "bias-corrected pre-whitening": bias_corrected_pre_whitening,
    "block bootstrap": block_bootstrap,
}


def measure(series):
    """Shares of rejections in %, a row for each test and kind of series."""
    kinds = [(years, lag_1, 1) for years in YEARS for lag_1 in LAG_1] + [(YEARS[0], 0, WINDOW)]
    rows = []
    for years, lag_1, window in kinds:
        line = RISE * np.arange(years) / (years - 1)
        values = smoothed(noise(series, years, lag_1), window)
        for name, test in TESTS.items():
            size, power = (100 * (test(x) <= LEVEL).mean() for x in (values, values + line))
            rows.append((name, years, lag_1, window, size, power, series))
    columns = ["test", "n", "lag_1", "window"]
    columns += ["rejected_percent", "rejected_with_trend_percent", "series"]
    return pd.DataFrame(rows, columns=columns)


def markdown(table, column):
    kinds = ["n", "lag_1", "window"]
    wide = table.pivot(index="test", columns=kinds, values=column).loc[list(TESTS)]
    heads = (f"N = {n:g}, {lag_1:g}, {window:g}" for n, lag_1, window in wide)
    print("| test | " + " | ".join(heads) + " |")
    print("|---|" + "---:|" * len(wide.columns))
    for name, row in wide.iterrows():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in row) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=10_000, help="of each kind")
    arguments = parser.parse_args()

    table = measure(arguments.series)
    table.to_csv(TABLE, index=False, float_format="%.2f")
    error = 100 * np.sqrt(LEVEL * (1 - LEVEL) / arguments.series)
    print(
        f"Rejected at the {100 * LEVEL:g} % level in % of {arguments.series} series without a "
        "trend, by years, lag-1 autocorrelation and years of the running mean; standard error "
        f"{error:.1f}.\n"
    )
    markdown(table, "rejected_percent")
    print(f"\nThe same with a trend of {RISE} standard deviations over the series.\n")
    markdown(table, "rejected_with_trend_percent")


if __name__ == "__main__":
    main()
