"""The physics of the demo world: a climate, its weather, and a bucket of soil water.

An idealised climate of rain, temperature and sunshine follows from latitude, relief and the
distance from the oceans; weather and warming disturb it; the soil is a bucket that rain and
snow melt fill and that evaporation and runoff empty. Nothing is planted in the soil moisture:
its pattern, its season and its response to warming are what the bucket makes of them.

Arrays in, arrays out: cells are the last dimension, calendar months the one before.
"""

import math
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

EARTH_DEGREE = 111.2  # km along a meridian
MONTH_DAYS = 30.4  # mean length of a month
SEA_KEEPS = 300.0  # km of sea over which air forgets e-fold the land it has crossed

# Rain in mm a year: what falls in a desert, and what is added where all rain-bringers reach.
DRIEST, WETTEST = 38.0, 1550.0
HIGH = 2500.0  # m; above it the air holds less and less water
# Temperature: warmest annual mean at sea level, its fall with the square of latitude, and with
# height in K per km (4.5 and not the 6.5 of free air, because high plains are heated from below).
WARMEST, POLEWARD, LAPSE = 27.5, 0.0100, 4.5
SWING, SWING_FROM = 0.55, 12.0  # half the range of the year: K per degree beyond this latitude
# Priestley and Taylor (1972): evaporation is 1.26 times the part of the net radiation that warm
# air turns into vapour. Net radiation is taken as 0.36 of what reaches the top of the air (half
# passes it, less the albedo) less what the ground sends back to space, in MJ m-2 a day.
PRIESTLEY_TAYLOR, NET_SHARE, LONGWAVE, LATENT_HEAT = 1.26, 0.36, 2.5, 2.45  # MJ kg-1
# Soil: melt in mm per K and month (2 mm a day: a degree-day factor of open land), and steps.
MELT, STEPS = 60.0, 4
# Weather: length of its patterns in degrees and their shares of the variance. Temperature has
# the two largest only. Rain forgets within a month, temperature less; a tenth of the variance
# of the two largest patterns stays for a decade.
SCALES = {14.0: 0.35, 4.5: 0.35, 1.2: 0.2, 0.3: 0.1}
LARGE = (14.0, 4.5)
MEMORY = {"rain": 0.2, "temperature": 0.4}
DECADAL, DECADE = 0.1, 0.985  # share; lag-1 correlation of months: e-fold in five and a half years
HEAT, WET_AND_COOL = 1.2, 0.25  # K; their spread, and what one sd of rain takes off
# Warming since 1850 in K: at the end of 2014, and in 2100 in each scenario (IPCC AR6, Table SPM.1)
WARMING_2014 = 1.0
WARMING_2100 = {"ssp126": 1.8, "ssp245": 2.7, "ssp370": 3.7, "ssp585": 4.5}
# Mean response of rain to warming: per K in the logarithm, and of its summer less its winter;
# where (latitude, width, longitude, width in degrees) and why.
RESPONSE = (
    (0.05, 0.0, (60, 18, None, None)),  # moister air in the belt of storms
    (0.09, 0.03, (24, 7, 79, 10)),  # a stronger Indian monsoon
    (0.04, 0.0, (33, 5, 88, 12)),  # and more of it over the plateau
    (0.06, 0.0, (44, 8, 90, 22)),  # a wetter interior of Asia, as since the 1980s
    (-0.02, 0.02, (29, 8, 113, 12)),  # eastern Asia: rain hardly keeps pace with evaporation
)


def step(value):
    """A smooth step from 0 to 1, one half at 0."""
    return 1 / (1 + np.exp(-value))


def bump(value, centre, width):
    """A bell curve of height 1."""
    return np.exp(-(((value - centre) / width) ** 2))


def summer(month, lat):
    """1 in the middle of the local summer, -1 in that of the winter; month 0 is January."""
    return np.where(lat < 0, -1, 1) * np.cos(2 * np.pi * (month - 6.5) / 12)


def fetch(land, lat):
    """How far air has come over land, on a global grid.

    Parameters
    ----------
    land : np.ndarray
        Land fraction (lat, lon) of evenly spaced cells around the globe.
    lat : np.ndarray
        Latitudes in degrees.

    Returns
    -------
    (np.ndarray, np.ndarray)
        Kilometres of land to the west and to the east of each cell, forgotten over the sea.
    """
    width = 360 / land.shape[1] * EARTH_DEGREE * np.cos(np.deg2rad(lat))

    def come(land):
        found, crossed = np.zeros_like(land), np.zeros(lat.size)
        for column in [*range(land.shape[1])] * 2:  # twice around, so that no column is the first
            here = land[:, column]
            crossed = (crossed + here * width) * np.exp(-(1 - here) * width / SEA_KEEPS)
            found[:, column] = crossed
        return found

    return come(land), come(land[:, ::-1])[:, ::-1]


@dataclass
class Climate:
    """Monthly climate of cells: dimensions (12, cell), from January to December."""

    rain: np.ndarray  # mm a month
    temperature: np.ndarray  # degrees Celsius
    energy: np.ndarray  # net radiation, as mm a month of water that it could evaporate


def climate(lat, lon, elevation, surroundings, west, east):
    """The climate of cells from where they are.

    Parameters
    ----------
    lat, lon : np.ndarray
        Degrees (cell); lon in -180..180.
    elevation, surroundings : np.ndarray
        Height of the cell and mean height of the 300 km around it, in m.
    west, east : np.ndarray
        From :func:`fetch`, in km.

    Returns
    -------
    Climate

    Notes
    -----
    Rain has five bringers, each the chance that it reaches a cell, joined as independent ones:
    the rains of the equator, the storms of the westerlies, those of the eastern coasts, the
    boreal cyclones, and the monsoons of Asia, whose edges are fitted to the map. The deserts
    are where none of them comes.
    """
    away = np.abs(lat)
    asia = step((lon - 60) / 3) * step((152 - lon) / 4) * step((lat - 4) / 3)
    eastern = step((lon - 106) / 7 - (lat - 33) / 4)
    southern = 0.9 * step((29 - lat) / 1.2) * step((lon - 68) / 3)
    north = step((away - 31) / 2)
    bringers = (  # chance, and how much the rain of the summer exceeds that of the winter
        (asia * eastern, 0.6 + 1.1 * north),
        (asia * southern * (1 - eastern), 1.8),
        (0.9 * bump(lat, 0, 11), 1.2 * np.tanh(away / 8)),
        (0.55 * bump(away, 52, 14) * np.exp(-west / 900), 0.1 - 0.9 * bump(away, 37, 6)),
        (0.55 * bump(away, 32, 8) * np.exp(-east / 600), 0.3),
        (0.36 * step((away - 50) / 2.5) * step((70 - away) / 4), 0.9),
    )
    dry, share, peak = np.ones_like(lat), 0.03, 0.03 * 0.5
    for chance, more in bringers:
        dry, share, peak = dry * (1 - chance), share + chance, peak + chance * more
    thin = np.clip(1 - 0.17 * np.maximum(elevation - HIGH, 0) / 1000, 0.3, 1)
    # Slopes above their surroundings lift the air; basins below them lie in the rain shadow,
    # unless they are the foot of a range that the rain comes up against.
    lifted = 1 + 0.5 * (elevation - surroundings) / 800
    lifted = np.clip(lifted, 0.35 + 0.65 * (1 - dry), 2.2)
    annual = (DRIEST + WETTEST * (1 - dry) * thin) * lifted
    season = summer(np.arange(12)[:, None], lat)
    course = np.exp(peak / share * season)
    rain = annual * course / course.sum(0)

    mild = np.exp(-west / 700)  # behind a western coast: warmer, and with mild winters
    mean = WARMEST - POLEWARD * away**2 + 6 * mild * bump(away, 55, 15) - LAPSE * elevation / 1000
    swing = SWING * np.maximum(away - SWING_FROM, 2) * (1 - 0.5 * mild)
    net = np.maximum(NET_SHARE * sunshine(lat) - LONGWAVE, 0)
    return Climate(
        *(
            np.asarray(field, "float32")
            for field in (rain, mean + swing * season, net * MONTH_DAYS / LATENT_HEAT)
        )
    )


def sunshine(lat):
    """Radiation at the top of the atmosphere (12, cell) in MJ m-2 a day.

    References
    ----------
    Allen et al. (1998), FAO Irrigation and Drainage Paper 56, equations 21 to 25.
    """
    day = 15 + MONTH_DAYS * np.arange(12)[:, None]
    tilt, phi = 0.409 * np.sin(2 * np.pi * day / 365 - 1.39), np.deg2rad(lat)
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(tilt), -1, 1))
    near = 37.6 * (1 + 0.033 * np.cos(2 * np.pi * day / 365))
    high, low = np.sin(phi) * np.sin(tilt), np.cos(phi) * np.cos(tilt)
    return near * (sunset * high + low * np.sin(sunset))


def response(lat, lon, elevation):
    """Mean change of the logarithm of rain per K of warming: of the year, and of the season.

    The second is added in July and taken off in January.
    """
    annual, season = np.zeros_like(lat), np.zeros_like(lat)
    for size, swing, (y, height, x, width) in RESPONSE:
        where = bump(lat, y, height) * (1 if x is None else bump(lon, x, width))
        annual, season = annual + size * where, season + swing * where
    return annual, season


def warming(experiment_id, year):
    """Warming since 1850 in K: quadratic to 2014, then smooth to the scenario's value of 2100."""
    year = np.asarray(year, float)
    past = WARMING_2014 * ((np.minimum(year, 2015) - 1850) / 165) ** 2
    if experiment_id == "historical":
        return past
    total, progress = WARMING_2100[experiment_id] - WARMING_2014, np.maximum(year - 2015, 0) / 86
    slope = 2 * WARMING_2014 / 165 * 86 / total  # continues that of the historical run
    return past + total * (slope * progress + (1 - slope) * progress**2)


# --- weather -----------------------------------------------------------------------------


def kernel(points, nodes, scale, period=None):
    """Matrix (point, node) that makes smooth fields of unit variance from independent noise.

    The nodes are a `scale` apart; all lengths in degrees. Beyond the last node the field fades.
    """
    distance = np.subtract.outer(points, nodes)
    if period:
        distance = (distance + period / 2) % period - period / 2
    weights = np.exp(-((distance / scale) ** 2) / 2) / np.pi**0.25
    return sparse.csr_array(np.where(weights > 1e-4, weights, 0).astype("float32"))


def mesh(scale, box=None):
    """Latitudes and longitudes of nodes a scale apart: around the globe, or in and near a box."""
    if box is None:
        columns = round(360 / scale)
        return np.arange(-90, 90 + scale, scale), 360 / columns * np.arange(columns)
    south, north, west, east = box
    reach = 3 * scale
    return tuple(np.arange(a - reach, b + reach, scale) for a, b in ((south, north), (west, east)))


class Weather:
    """Noise with a memory on meshes of several lengths, the same whatever grid looks at it.

    `box` is (south, north, west, east) in degrees: there all patterns are at home, elsewhere only
    the largest. Patterns that cells of `step` degrees would average away are left out.
    """

    def __init__(self, box, step, seed):
        self.meshes = {s: mesh(s, None if s in LARGE else box) for s in SCALES if s > step / 2}
        self.keys = [
            (name, s) for name in MEMORY for s in self.meshes if name == "rain" or s in LARGE
        ]
        self._sow(seed)
        self.state = {key: self._draw(key, 2) for key in self.keys}  # what passes, what stays

    def _sow(self, seed):
        # One stream for each pattern: those that a coarser grid leaves out change no other.
        streams = {key: [*seed, *key[0].encode(), round(10 * key[1])] for key in self.keys}
        self.random = {key: np.random.default_rng(stream) for key, stream in streams.items()}

    def _draw(self, key, count):
        shape = (count, *(axis.size for axis in self.meshes[key[1]]))
        return self.random[key].standard_normal(shape, dtype="float32")

    def branch(self, seed):
        """The same state with another future."""
        other = copy(self)
        other._sow(seed)
        other.state = dict(self.state)
        return other

    def months(self, count):
        """Noise of unit variance by variable and scale: arrays (month, row, column)."""
        found = {}
        for key in self.keys:
            name, scale = key
            share = DECADAL if scale in LARGE else 0.0
            passes = _remembered(self.state[key][0], self._draw(key, count), MEMORY[name])
            stays = self.state[key][1][None]
            if share:
                stays = _remembered(self.state[key][1], self._draw(key, count), DECADE)
            found[key] = math.sqrt(1 - share) * passes + math.sqrt(share) * stays
            self.state[key] = passes[-1], stays[-1]
        return found


def _remembered(before, noise, memory):
    """Noise (month, row, column) with the memory of a first-order autoregression."""
    noise *= math.sqrt(1 - memory**2)
    for month in noise:
        month += memory * before
        before = month
    return noise


class Sky:
    """What the cells of a grid see of the weather; `cells` are positions in the flat grid."""

    def __init__(self, lat, lon, cells, weather):
        self.cells, self.kernels = cells, {}
        for scale, (rows, columns) in weather.meshes.items():
            across = kernel(lon, columns, scale, 360 if scale in LARGE else None)
            self.kernels[scale] = kernel(lat, rows, scale), across

    def see(self, noise):
        """Anomalies of rain in standard deviations and of temperature in K, (month, cell)."""
        seen = {"rain": 0, "temperature": 0}
        large = sum(SCALES[scale] for scale in LARGE)
        for (name, scale), fields in noise.items():
            rows, columns = self.kernels[scale]
            part = SCALES[scale] if name == "rain" else SCALES[scale] / large
            seen[name] = seen[name] + math.sqrt(part) * smooth(fields, rows, columns)[:, self.cells]
        return seen["rain"], HEAT * seen["temperature"] - WET_AND_COOL * seen["rain"]


def smooth(noise, rows, columns):
    """Fields (month, cell of the flat grid) from noise (month, row, column) by two kernels."""
    months = len(noise)
    along = rows @ noise.transpose(1, 0, 2).reshape(rows.shape[1], -1)
    across = columns @ along.reshape(-1, columns.shape[1]).T
    return across.reshape(columns.shape[0], -1, months).transpose(2, 1, 0).reshape(months, -1)


# --- soil --------------------------------------------------------------------------------


@dataclass
class Traits:
    """What makes a source, or the truth, what it is: numbers, or arrays (cell)."""

    sensitivity: float  # its global warming over that of the scenario
    noise: float  # sd of the logarithm of a month's rain
    thirst: float  # evaporation over that of Priestley and Taylor
    critical: float  # saturation below which water limits evaporation
    runoff: float  # 0: as the cube of saturation, 1: as its square
    capacity: float  # of the bucket, mm
    residual: float  # theta of the empty bucket
    porosity: float  # theta of the full one
    wetter: np.ndarray  # bias of the logarithm of rain
    warmer: np.ndarray  # bias of temperature, K
    response: np.ndarray  # of the logarithm of rain to warming, per K
    season: np.ndarray  # the same, added in July and taken off in January
    heating: np.ndarray  # local over global warming

    def drifted(self, factor):
        """The same with other biases of the climate, in units of these."""
        if factor == 1:
            return self
        return replace(self, wetter=factor * self.wetter, warmer=factor * self.warmer)


def forcing(climate, traits, months, warmth, wet, hot):
    """What falls on the soil and what the air asks of it.

    Parameters
    ----------
    climate : Climate
    traits : Traits
    months : np.ndarray
        Calendar months, 0 is January (month).
    warmth : np.ndarray
        Global warming in K (month).
    wet, hot : np.ndarray
        Weather, from :meth:`Sky.see` (month, cell).

    Returns
    -------
    (np.ndarray, np.ndarray, np.ndarray)
        Rain and snow (mm a month), temperature (degrees Celsius), evaporation of a wet soil (mm a
        month); dimensions (month, cell).
    """
    warmth = (traits.sensitivity * np.asarray(warmth, "float32"))[:, None]
    season = np.cos(2 * np.pi * (months[:, None] - 6.5) / 12).astype("float32")
    change = traits.response + traits.season * season
    amount = traits.wetter + np.clip(change * warmth, -1.5, 1.0) + traits.noise * wet
    rain = climate.rain[months] * np.exp(amount - traits.noise**2 / 2)
    temperature = climate.temperature[months] + traits.warmer + traits.heating * warmth + hot
    # Part of the energy that becomes vapour: slope of saturation over itself and the
    # psychrometric constant, here a logistic curve within 0.01 of it from -10 to 40 degrees.
    vapour = 1 / (1 + np.exp((6.7 - temperature) / 18))
    thawed = np.clip(temperature / 4 + 0.5, 0, 1)  # frozen soil gives nothing
    demand = PRIESTLEY_TAYLOR * traits.thirst * climate.energy[months] * vapour * thawed
    return rain, temperature, demand


def bucket(rain, temperature, demand, traits, state):
    """Soil water, month after month.

    Parameters
    ----------
    rain, temperature, demand : np.ndarray
        From :func:`forcing` (month, cell).
    traits : Traits
        Its `critical`, `runoff` and `capacity` count.
    state : (np.ndarray, np.ndarray)
        Saturation (0 to 1) and snow (mm) before the first month (cell).

    Returns
    -------
    saturation, evaporation, runoff : np.ndarray
        Mean of each month (0 to 1) and sums (mm a month), (month, cell).
    state : (np.ndarray, np.ndarray)
        After the last month.

    Notes
    -----
    Evaporation falls with the water below a critical saturation (Manabe, 1969); of what reaches
    the soil, a part that grows with saturation runs off, and all that is too much.

    References
    ----------
    Manabe (1969), Mon. Weather Rev. 97, 739-774,
    doi 10.1175/1520-0493(1969)097<0739:CATOC>2.3.CO;2.
    """
    saturation, snow = state
    frozen = np.clip(0.5 - temperature / 4, 0, 1) * rain
    liquid, thaw = rain - frozen, MELT * np.maximum(temperature, 0)
    mean, evaporation, runoff = (np.empty_like(rain) for _ in range(3))
    size = STEPS * np.asarray(traits.capacity, "float32")
    for t in range(len(rain)):
        snow = snow + frozen[t]
        melt = np.minimum(snow, thaw[t])
        snow = snow - melt
        water, asked = (liquid[t] + melt) / size, demand[t] / size  # of the capacity, each step
        total, lost, gone = 0, 0, 0
        for _ in range(STEPS):
            given = np.minimum(
                asked * np.minimum(saturation / traits.critical, 1), 0.8 * saturation
            )
            kept = 1 - saturation**2 * (saturation + traits.runoff * (1 - saturation))
            filled = saturation - given + water * kept
            saturation = np.minimum(filled, 1)
            gone = gone + water - water * kept + filled - saturation
            lost, total = lost + given, total + saturation
        mean[t], evaporation[t], runoff[t] = (
            total / STEPS,
            lost * traits.capacity,
            gone * traits.capacity,
        )
    return mean, evaporation, runoff, (saturation, snow)


def theta(saturation, traits):
    """Volumetric water content in m3 m-3 of a soil whose bucket is filled so far."""
    return traits.residual + (traits.porosity - traits.residual) * saturation
