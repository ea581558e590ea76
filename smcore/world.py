"""The physics of the demo world: a climate, its weather, and a bucket of soil water.

An idealised climate follows from latitude, relief and the distance from the oceans. Weather and
warming disturb it, rain and melting snow fill a bucket of soil, evaporation and runoff empty it:
the pattern of soil moisture, its season and its response to warming are what the bucket makes of
that. Arrays in, arrays out; cells are the last dimension, months the one before.
"""

import math
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import sparse

MONTH_DAYS = 30.4  # mean length of a month
# Rain in mm a year, of the deepest desert and where all that brings rain comes together. Above
# THIN_AIR (m) the air holds less water; RISE m above the surroundings add half of the rain.
DRIEST, WETTEST, THIN_AIR, RISE = 38.0, 1550.0, 2500.0, 800.0
# Warmest annual mean at sea level (degrees Celsius), its fall with the square of latitude and in
# K per km of height: 4.5, not the 6.5 of free air, because high plains are heated from below.
WARMEST, POLEWARD, LAPSE = 27.5, 0.0100, 4.5
SWING, SWING_FROM = 0.55, 12.0  # of temperature in a year: K per degree beyond this latitude
# Evaporation is 1.26 times the part of the net radiation that warm air turns into vapour; that is
# 0.36 of what reaches the top of the air less what goes back to space, MJ m-2 a day; MJ kg-1.
PRIESTLEY_TAYLOR, NET_SHARE, LONGWAVE, LATENT_HEAT = 1.26, 0.36, 2.5, 2.45
MELT, STEPS = 60.0, 4  # mm per K and month, that is 2 mm a day; steps of the bucket in a month
# Length of the weather's patterns in degrees and their shares of the variance of rain;
# temperature has the LARGE ones only. Rain forgets within a month, temperature less. A tenth of
# the variance of the large patterns stays for years (lag-1 correlation of months: DECADE).
SCALES, LARGE = {14.0: 0.35, 4.5: 0.35, 1.2: 0.2, 0.3: 0.1}, (14.0, 4.5)
MEMORY = {"rain": 0.2, "temperature": 0.4}
DECADAL, DECADE = 0.1, 0.985
HEAT, WET_AND_COOL = 1.2, 0.25  # K: sd of a month, and what one sd of rain takes off
# Warming since 1850 in K, at the end of 2014 and of 2100, near the means of CMIP6
WARMING_2014, WARMING_2100 = 1.0, {"ssp126": 1.8, "ssp245": 2.7, "ssp370": 3.7, "ssp585": 4.5}
# Mean response of rain (its logarithm) per K, what July has more and January less of it, and
# where: latitude, width, longitude, width in degrees. So respond CMIP6 (data/world_facts.csv).
RESPONSE = (
    (0.05, 0.0, (60, 18, 0, np.inf)),  # moister air in the belt of storms
    (0.09, 0.03, (24, 7, 79, 10)),  # a stronger Indian monsoon
    (0.09, 0.0, (33, 5, 88, 12)),  # that reaches the plateau
    (0.06, 0.0, (44, 8, 90, 22)),  # a wetter interior of Asia
    (-0.02, 0.02, (29, 8, 113, 12)),  # eastern Asia: less than what warmth evaporates
)


def step(value):
    """A smooth step from 0 to 1, one half at 0."""
    return 1 / (1 + np.exp(-value))


def bump(value, centre, width):
    """A bell curve of height 1."""
    return np.exp(-(((value - centre) / width) ** 2))


class Climate(NamedTuple):
    """Monthly climate of cells (12, cell), January first."""

    rain: np.ndarray  # mm a month
    temperature: np.ndarray  # degrees Celsius
    energy: np.ndarray  # net radiation, as mm a month of water that it could evaporate


def climate(lat, lon, elevation, surroundings, west, east):
    """The climate of cells at `lat` and `lon` (-180..180), degrees.

    All are arrays (cell): `elevation` and the mean height of the `surroundings`, 300 km around, in
    m; land in km that the air has crossed from the `west` and from the `east`. What brings rain
    reaches a cell with a chance, each independent of the others; deserts are where none comes. The
    edges of the monsoons are fitted to the map of Asia.
    """
    away, season = np.abs(lat), np.cos(2 * np.pi * (np.arange(12)[:, None] - 6.5) / 12)
    season = np.where(lat < 0, -1, 1) * season  # 1 in the middle of the local summer
    asia = step((lon - 60) / 3) * step((152 - lon) / 4) * step((lat - 4) / 3)
    eastern = step((lon - 106) / 7 - (lat - 33) / 4)
    southern = 0.9 * step((29 - lat) / 1.2) * step((lon - 68) / 3) * (1 - eastern)
    storms, seas = np.exp(-west / 900), np.exp(-east / 900) * (1 - asia)
    bringers = (  # chance, and how far its summers are wetter than its winters
        (asia * eastern, 0.6 + 1.1 * step((away - 31) / 2)),  # East Asian monsoon
        (asia * southern, 1.8),  # Indian monsoon
        (0.9 * bump(lat, 0, 11), 1.2 * np.tanh(away / 8)),  # rains of the equator
        (0.6 * storms * bump(away, 48, 14), 0.1 - 0.9 * bump(away, 37, 6)),  # westerlies
        (0.8 * seas * bump(away, 34, 10), 0.3),  # warm seas off eastern coasts
        (0.36 * step((away - 50) / 2.5) * step((70 - away) / 4), 0.9),  # boreal cyclones
    )
    dry, total, peak = np.ones_like(lat), 0.03, 0.03 * 0.5
    for chance, wetter in bringers:
        dry, total, peak = dry * (1 - chance), total + chance, peak + chance * wetter
    thin = np.clip(1 - 0.17 * np.maximum(elevation - THIN_AIR, 0) / 1000, 0.3, 1)
    # Slopes above their surroundings lift the air, basins below them lie in the rain shadow;
    # where it is wet, they are the foot of a range that the rain comes up against.
    lifted = 1 + 0.5 * (elevation - surroundings) / RISE
    annual = (DRIEST + WETTEST * (1 - dry) * thin) * np.clip(lifted, 1 - 0.65 * dry, 2.2)
    course = np.exp(peak / total * season)

    mild = np.exp(-west / 1000)  # air from the sea: warmer in all, with mild winters
    mean = WARMEST - POLEWARD * away**2 + 9 * mild * bump(away, 55, 15) - LAPSE * elevation / 1000
    swing = SWING * np.maximum(away - SWING_FROM, 2) * (1 - 0.65 * mild)
    net = np.maximum(NET_SHARE * sunshine(lat) - LONGWAVE, 0) * MONTH_DAYS / LATENT_HEAT
    fields = annual * course / course.sum(0), mean + swing * season, net
    return Climate(*(field.astype("float32") for field in fields))


def sunshine(lat):
    """Radiation at the top of the air, MJ m-2 a day (12, cell); FAO Irrigation Paper 56, eq. 21."""
    day = 2 * np.pi / 365 * (15 + MONTH_DAYS * np.arange(12)[:, None])
    tilt, phi = 0.409 * np.sin(day - 1.39), np.deg2rad(lat)
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(tilt), -1, 1))
    near, high = 37.6 * (1 + 0.033 * np.cos(day)), sunset * np.sin(phi) * np.sin(tilt)
    return near * (high + np.cos(phi) * np.cos(tilt) * np.sin(sunset))


def response(lat, lon):
    """Mean response of the logarithm of rain per K, and what July has more of it (cell)."""
    found = np.zeros((2, lat.size))
    for *sizes, (y, height, x, width) in RESPONSE:
        found += np.outer(sizes, bump(lat, y, height) * bump(lon, x, width))
    return found


def warming(experiment_id, year):
    """Warming since 1850 in K: quadratic to 2014, then smooth to the scenario's value of 2100."""
    past = WARMING_2014 * ((np.minimum(year, 2015) - 1850) / 165) ** 2
    if experiment_id == "historical":
        return past
    more, progress = WARMING_2100[experiment_id] - WARMING_2014, np.maximum(year - 2015, 0) / 86
    slope = 2 * WARMING_2014 / 165 * 86 / more  # continues that of the historical run
    return past + more * (slope * progress + (1 - slope) * progress**2)


def kernels(lat, lon, scale, box=None):
    """Matrices (point, node) that make a smooth field of unit variance from independent noise.

    The nodes are a `scale` apart along each axis, all in degrees: on the globe, or near a `box` of
    south, north, west and east, beyond which the field fades.
    """
    if box is None:
        apart = 360 / round(360 / scale)
        nodes = np.arange(-90, 90 + apart, apart), np.arange(0, 360 - apart / 2, apart)
    else:
        ends, reach = (box[:2], box[2:]), 3 * scale
        nodes = [np.arange(low - reach, high + reach, scale) for low, high in ends]
    found = []
    for points, middles in zip((lat, lon), nodes):
        away = np.abs(np.subtract.outer(points, middles)) % 360
        weights = np.exp(-((np.minimum(away, 360 - away) / scale) ** 2) / 2) / np.pi**0.25
        found.append(sparse.csr_array(np.where(weights > 1e-4, weights, 0).astype("float32")))
    return found


class Weather:
    """Anomalies of the cells of a grid: smooth noise with a memory, the same on every grid.

    `lat` and `lon` are the axes of the grid, `cells` positions in the flat grid. In the `box` of
    south, north, west and east the small patterns are at home. `seed` is a list of int.
    """

    def __init__(self, lat, lon, cells, box, seed):
        self.cells, self.kernels = cells, {}
        for scale in SCALES:
            # A cell would average smaller patterns away.
            if scale > abs(lat[1] - lat[0]) / 2:
                axes = kernels(lat, lon, scale, None if scale in LARGE else box)
                names = MEMORY if scale in LARGE else ("rain",)
                self.kernels |= {(name, scale): axes for name in names}
        self._sow(seed)
        self.state = {key: self._draw(key, 2) for key in self.kernels}  # what passes, what stays

    def _sow(self, seed):
        # A stream for each pattern: those that a coarse grid leaves out change no other.
        streams = {key: [*seed, *key[0].encode(), round(10 * key[1])] for key in self.kernels}
        self.random = {key: np.random.default_rng(stream) for key, stream in streams.items()}

    def _draw(self, key, count):
        shape = (count, *(axis.shape[1] for axis in self.kernels[key]))
        return self.random[key].standard_normal(shape, dtype="float32")

    def branch(self, seed):
        """The same past with another future."""
        other = copy(self)
        other._sow(seed)
        other.state = dict(self.state)
        return other

    def months(self, count):
        """Rain in standard deviations and temperature in K, two arrays (month, cell)."""
        seen, large = dict.fromkeys(MEMORY, 0), sum(SCALES[scale] for scale in LARGE)
        for (name, scale), (rows, columns) in self.kernels.items():
            key, (passes, stays) = (name, scale), self.state[name, scale]
            noise = passes = remembered(passes, self._draw(key, count), MEMORY[name])
            if scale in LARGE:
                slow = remembered(stays, self._draw(key, count), DECADE)
                noise = math.sqrt(1 - DECADAL) * passes + math.sqrt(DECADAL) * slow
                stays = slow[-1]
            self.state[key] = passes[-1], stays
            size = math.sqrt(SCALES[scale] / (1 if name == "rain" else large))
            seen[name] = seen[name] + size * smooth(noise, rows, columns)[:, self.cells]
        return seen["rain"], HEAT * seen["temperature"] - WET_AND_COOL * seen["rain"]


def remembered(before, noise, memory):
    """Noise (month, ...) of unit variance as an autoregression of first order, in place."""
    noise *= math.sqrt(1 - memory**2)
    for month in noise:
        month += memory * before
        before = month
    return noise


def smooth(noise, rows, columns):
    """Fields (month, flat grid) from noise (month, row, column) by two kernels."""
    months = len(noise)
    along = rows @ noise.transpose(1, 0, 2).reshape(rows.shape[1], -1)
    across = columns @ along.reshape(-1, columns.shape[1]).T
    return across.reshape(columns.shape[0], -1, months).transpose(2, 1, 0).reshape(months, -1)


@dataclass
class Traits:
    """What makes a source, or the truth, what it is: numbers, or arrays (cell)."""

    sensitivity: float  # its global warming over that of the scenario
    noise: float  # sd of the logarithm of a month's rain
    thirst: float  # evaporation over that of Priestley and Taylor
    critical: float  # saturation below which water limits evaporation
    runoff: float  # 0: as the cube of saturation, 1: as its square
    capacity: float  # of the bucket, mm
    residual: float  # theta of the empty bucket, m3 m-3
    porosity: float  # theta of the full one, m3 m-3
    wetter: np.ndarray  # bias of the logarithm of rain
    warmer: np.ndarray  # bias of temperature, K
    response: np.ndarray  # of the logarithm of rain to warming, per K
    season: np.ndarray  # added to it in July and taken off in January
    heating: np.ndarray  # local over global warming

    def drifted(self, factor):
        """The same with the biases of its climate times a factor."""
        return replace(self, wetter=factor * self.wetter, warmer=factor * self.warmer)


def forcing(climate, traits, warmth, rain_anomaly, heat):
    """Rain, temperature, and evaporation of a wet soil, in a year: mm a month, degrees Celsius.

    `warmth` is the global warming of the scenario in K (12); the anomalies are those of
    :meth:`Weather.months`, like the result (12, cell). Evaporation is that of Priestley and Taylor
    (1972), doi 10.1175/1520-0493(1972)100<0081:OTAOSH>2.3.CO;2.
    """
    warmth = np.float32(traits.sensitivity) * warmth.astype("float32")[:, None]
    july = np.cos(2 * np.pi * (np.arange(12, dtype="float32")[:, None] - 6.5) / 12)
    change = np.clip((traits.response + traits.season * july) * warmth, -1.5, 1)
    amount = traits.wetter + change + traits.noise * rain_anomaly - traits.noise**2 / 2
    temperature = climate.temperature + traits.warmer + traits.heating * warmth + heat
    # Slope of saturation vapour pressure over itself and the psychrometric constant: a logistic
    # curve is within 0.015 of it from -10 to 40 degrees. Frozen soil gives nothing.
    vapour = step((temperature - 7.2) / 17.2) * np.clip(temperature / 4 + 0.5, 0, 1)
    demand = PRIESTLEY_TAYLOR * traits.thirst * climate.energy * vapour
    return climate.rain * np.exp(amount), temperature, demand


def bucket(rain, temperature, demand, traits, state):
    """Soil water, month after month, from :func:`forcing` (month, cell).

    Finds the mean saturation of each month (0 to 1), evaporation and runoff (mm a month), and the
    new `state`: saturation and snow in mm (cell). Evaporation falls with the water below a critical
    saturation (Manabe 1969, doi 10.1175/1520-0493(1969)097<0739:CATOC>2.3.CO;2); of rain and melt a
    part that grows with saturation runs off, and all that is too much.
    """
    saturation, snow = state
    frozen = np.clip(0.5 - temperature / 4, 0, 1) * rain
    liquid, thaw = rain - frozen, MELT * np.maximum(temperature, 0)
    mean, evaporation, runoff = (np.empty_like(rain) for _ in range(3))
    for t in range(len(rain)):
        snow = snow + frozen[t]
        melt = np.minimum(snow, thaw[t])
        snow = snow - melt
        size = STEPS * traits.capacity
        water, asked = (liquid[t] + melt) / size, demand[t] / size  # of the capacity, each step
        total, given, gone = 0, 0, 0
        for _ in range(STEPS):
            limited = asked * np.minimum(saturation / traits.critical, 1)
            evaporated = np.minimum(limited, 0.8 * saturation)
            share = saturation**2 * (saturation + traits.runoff * (1 - saturation))
            filled = saturation - evaporated + water * (1 - share)
            saturation = np.minimum(filled, 1)
            gone = gone + water * share + filled - saturation
            given, total = given + evaporated, total + saturation
        mean[t], evaporation[t], runoff[t] = total / STEPS, given, gone
    return mean, traits.capacity * evaporation, traits.capacity * runoff, (saturation, snow)


def theta(saturation, traits):
    """Volumetric water content in m3 m-3 of a bucket so full (0 to 1)."""
    return traits.residual + (traits.porosity - traits.residual) * saturation
