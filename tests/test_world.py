"""The physics of the demo world: climate, weather, and the bucket."""

import numpy as np
import pandas as pd
import pytest

from smcore import relief, world
from smcore.config import ROOT


def traits(**changes):
    """A source without any error, on cells whose rain does not respond."""
    plain = dict(
        sensitivity=1.0,
        noise=0.0,
        thirst=1.0,
        critical=0.7,
        runoff=0.3,
        capacity=90.0,
        residual=0.05,
        porosity=0.45,
    )
    zero = dict.fromkeys(("wetter", "warmer", "response", "season", "heating"), np.float32(0))
    return world.Traits(**plain | zero | changes)


# --- climate -----------------------------------------------------------------------------


def test_fetch_adds_up_the_land_and_the_sea_forgets_it():
    land = np.zeros((1, 36), "float32")  # columns of 10 degrees, 1112 km at the equator
    land[0, 4:7] = 1
    west, east = relief.fetch(land, np.array([0.0]))
    np.testing.assert_allclose(west[0, 4:7], [1112, 2224, 3336], rtol=1e-3)
    np.testing.assert_allclose(west[0, 7], 3336 * np.exp(-1112 / 300), rtol=1e-3)
    np.testing.assert_allclose(east[0, 4:7], [3336, 2224, 1112], rtol=1e-3)


def test_fetch_goes_around_the_globe_and_gets_shorter_to_the_pole():
    land = np.zeros((2, 36), "float32")
    land[:, [35, 0]] = 1
    west, _ = relief.fetch(land, np.array([0.0, 60.0]))
    np.testing.assert_allclose(west[0, 0], 2224, rtol=1e-3)
    np.testing.assert_allclose(west[1, 0], 1112, rtol=1e-3)  # half the width


@pytest.mark.parametrize("lat", [-40.0, 0.0, 35.0, 70.0])
def test_sunshine_is_the_integral_of_the_height_of_the_sun(lat):
    hour, day = np.linspace(-np.pi, np.pi, 20001), 15 + 30.4 * np.arange(12)
    tilt = 0.409 * np.sin(2 * np.pi * day / 365 - 1.39)[:, None]
    phi = np.deg2rad(lat)
    high = np.sin(phi) * np.sin(tilt) + np.cos(phi) * np.cos(tilt) * np.cos(hour)
    constant = 0.0820 * 24 * 60  # MJ m-2 a day of a sun in the zenith
    expected = constant * np.maximum(high, 0).mean(1) * (1 + 0.033 * np.cos(2 * np.pi * day / 365))
    found = world.sunshine(np.array([lat]))[:, 0]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=0.02)


def test_climate_of_the_south_is_that_of_the_north_half_a_year_later():
    places = np.array([30.0, -30.0])
    cells = [np.full(2, value) for value in (-60.0, 300.0, 300.0, 2000.0, 500.0)]  # no monsoon
    found = world.climate(places, *cells)
    for field in (found.rain, found.temperature):
        np.testing.assert_allclose(field[:, 1], np.roll(field[:, 0], 6), rtol=1e-4)
    assert found.temperature[:, 0].argmax() in (6, 7)


def test_climate_is_colder_and_thinner_higher_up():
    low, high = (
        world.climate(*(np.array([value]) for value in (33.0, 90.0, z, z, 2000.0, 2000.0)))
        for z in (2000.0, 5000.0)
    )
    np.testing.assert_allclose(low.temperature - high.temperature, 3 * world.LAPSE, rtol=1e-4)
    assert (high.rain < low.rain).all() and (high.rain > 0).all()


def test_warming_has_the_value_of_its_scenario_and_no_jump():
    assert world.warming("historical", 1850) == 0
    for experiment_id, total in world.WARMING_2100.items():
        np.testing.assert_allclose(world.warming(experiment_id, 2101), total)
        steps = np.diff(world.warming(experiment_id, np.arange(2010, 2021.0)))
        assert (np.abs(np.diff(steps)) < 0.002).all()
    np.testing.assert_allclose(world.warming("historical", 2015), world.WARMING_2014)


def test_mean_response_is_that_of_the_places_that_the_table_names():
    annual, _ = world.response(np.array([24.0, 29.0, -30.0]), np.array([79.0, 113.0, 20.0]))
    assert annual[0] > 0.07  # India
    assert annual[1] < 0.01  # eastern China
    assert abs(annual[2]) < 1e-3  # southern Africa


# --- weather -----------------------------------------------------------------------------

BOX = (20, 40, 80, 110)


def weather(lat, lon, seed=(1,)):
    return world.Weather(lat, lon, np.arange(lat.size * lon.size), BOX, list(seed))


@pytest.mark.parametrize("scale", list(world.SCALES))
def test_smooth_noise_has_unit_variance_at_every_point(scale):
    for matrix in world.kernels(np.linspace(22, 38, 30), np.linspace(82, 108, 40), scale, BOX):
        np.testing.assert_allclose((matrix.toarray() ** 2).sum(1), 1, rtol=0.01)


def test_large_patterns_close_around_the_globe():
    _, columns = world.kernels(np.array([0.0]), np.array([0.0, 360.0]), 14.0)
    np.testing.assert_allclose(columns.toarray()[0], columns.toarray()[1], atol=1e-6)


def test_smooth_is_two_matrix_products():
    random = np.random.default_rng(0)
    noise, rows, columns = random.random((3, 4, 5)), random.random((6, 4)), random.random((7, 5))
    expected = [(rows @ month @ columns.T).ravel() for month in noise]
    np.testing.assert_allclose(world.smooth(noise, rows, columns), expected)


def test_weather_has_the_variance_and_the_memory_that_the_constants_say():
    lat, lon = np.arange(21, 40, 2.0), np.arange(81, 110, 2.0)
    rain, heat = weather(lat, lon).months(6000)
    shares = {s: part for s, part in world.SCALES.items() if s > 1}  # 0.3 degrees are left out
    np.testing.assert_allclose(rain.var(), sum(shares.values()), rtol=0.08)
    # a tenth of the large patterns keeps 0.985 of itself, the others 0.2
    large = sum(world.SCALES[s] for s in world.LARGE)
    lagged = 0.9 * large * 0.2 + 0.1 * large * 0.985 + (sum(shares.values()) - large) * 0.2
    np.testing.assert_allclose((rain[1:] * rain[:-1]).mean(), lagged, rtol=0.1)
    np.testing.assert_allclose(heat.std(), np.hypot(world.HEAT, 0.25 * rain.std()), rtol=0.08)
    assert np.corrcoef(rain.ravel(), heat.ravel())[0, 1] < -0.1  # wet months are cool
    assert abs(rain.mean()) < 0.05


def test_weather_is_the_same_on_every_grid():
    coarse = np.arange(24, 38, 2.0), np.arange(84, 108, 2.0)
    same = np.arange(24, 37.1, 1.0), np.arange(84, 107.1, 1.0)
    one, two = (
        weather(*axes).months(24)[0].reshape(24, axes[0].size, -1) for axes in (coarse, same)
    )
    np.testing.assert_allclose(one, two[:, ::2, ::2], atol=1e-5)


def test_weather_of_other_seeds_has_nothing_in_common():
    axes = np.arange(24, 38, 2.0), np.arange(84, 108, 2.0)
    one, two = (weather(*axes, seed=[seed]).months(2000)[0].ravel() for seed in (1, 2))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.05


def test_a_branch_has_the_same_past_and_another_future():
    axes = np.arange(24, 38, 2.0), np.arange(84, 108, 2.0)
    trunk = weather(*axes)
    trunk.months(12)
    one, two = (trunk.branch([5, number]).months(600)[0] for number in (1, 2))
    again = trunk.branch([5, 1]).months(600)[0]
    np.testing.assert_array_equal(one, again)
    assert abs(np.corrcoef(one[300:].ravel(), two[300:].ravel())[0, 1]) < 0.1


# --- soil --------------------------------------------------------------------------------


def year(rain, temperature=10.0, demand=0.0, cells=1):
    return tuple(np.full((12, cells), value, "float32") for value in (rain, temperature, demand))


def full(saturation=0.4, snow=0.0, cells=1):
    return np.full(cells, saturation, "float32"), np.full(cells, snow, "float32")


def test_the_water_balance_closes():
    random = np.random.default_rng(3)
    shape = (240, 500)
    rain = random.gamma(1, 60, shape).astype("float32")
    temperature = random.normal(5, 12, shape).astype("float32")
    demand = random.gamma(2, 40, shape).astype("float32")
    source, before = traits(capacity=70.0), full(cells=500)
    _, evaporation, runoff, after = world.bucket(rain, temperature, demand, source, before)
    stored = 70 * (after[0] - before[0]) + after[1] - before[1]
    gone = evaporation.sum(0) + runoff.sum(0)
    np.testing.assert_allclose(rain.sum(0), gone + stored, rtol=1e-4)


def test_saturation_stays_between_nothing_and_all():
    random = np.random.default_rng(4)
    rain = (10 ** random.uniform(-3, 3.5, (120, 400))).astype("float32")
    demand = (10 ** random.uniform(-2, 3.5, (120, 400))).astype("float32")
    falls = rain, np.full_like(rain, 10), demand
    mean, evaporation, runoff, _ = world.bucket(*falls, traits(), full(cells=400))
    assert mean.min() > 0 and mean.max() <= 1
    assert (evaporation <= demand * 1.0001).all() and (runoff >= 0).all()
    water = world.theta(mean, traits())
    assert water.min() > 0.05 and water.max() <= 0.45


def test_a_bucket_without_evaporation_fills_and_spills_what_falls():
    falls = year(rain=400.0)
    for _ in range(5):
        mean, _, runoff, state = world.bucket(*falls, traits(), full(0.9))
    np.testing.assert_allclose(mean[-1], 1, rtol=1e-3)
    np.testing.assert_allclose(runoff[-1], 400, rtol=1e-3)


def test_an_unlimited_bucket_evaporates_what_the_air_asks_for():
    _, evaporation, _, _ = world.bucket(*year(200.0, demand=50.0), traits(), full(0.9))
    np.testing.assert_allclose(evaporation, 50, rtol=1e-4)


def test_snow_waits_for_the_warmth():
    rain, temperature, demand = year(rain=30.0, temperature=-10.0)
    temperature[6:] = 8.0  # melts 480 mm a month at most
    mean, _, _, _ = world.bucket(rain, temperature, demand, traits(), full(0.3))
    np.testing.assert_allclose(mean[:6], 0.3, rtol=1e-5)  # six months of 30 mm lie on the ground
    assert mean[6] > 0.7
    state = world.bucket(rain[:6], temperature[:6], demand[:6], traits(), full(0.3))[-1]
    np.testing.assert_allclose(state[1], 180, rtol=1e-5)


def test_the_bucket_is_a_slow_obvious_loop():
    random = np.random.default_rng(5)
    rain, demand = (random.gamma(1, 50, (36, 1)).astype("float32") for _ in range(2))
    temperature = random.normal(3, 6, (36, 1)).astype("float32")
    source = traits(capacity=80.0, critical=0.6, runoff=0.5)
    found = world.bucket(rain, temperature, demand, source, full(0.5, 10.0))[0][:, 0]
    water, snow, expected = 0.5 * 80, 10.0, []
    for month in range(36):
        warmth = float(temperature[month, 0])
        part = min(max((2 - warmth) / 4, 0), 1)  # all snow below -2, all rain above 2 degrees
        snow += part * float(rain[month, 0])
        melt = min(snow, 60 * max(warmth, 0))
        snow -= melt
        comes = (melt + (1 - part) * float(rain[month, 0])) / 4
        levels = []
        for _ in range(4):
            level = water / 80
            goes = min(float(demand[month, 0]) / 4 * min(level / 0.6, 1), 0.8 * water)
            runs = comes * (0.5 * level**3 + 0.5 * level**2)
            water = min(water - goes + comes - runs, 80)
            levels.append(water / 80)
        expected.append(np.mean(levels))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def calm(source=None, warmth=0.0, **climate):
    fields = {"rain": 50.0, "temperature": 10.0, "energy": 100.0} | climate
    here = world.Climate(*(np.full((12, 1), value, "float32") for value in fields.values()))
    none = np.zeros((12, 1), "float32")
    return world.forcing(here, source or traits(), np.full(12, warmth), none, none)


def test_forcing_is_the_climate_where_nothing_disturbs_it():
    rain, temperature, demand = calm()
    np.testing.assert_allclose(rain, 50)
    np.testing.assert_allclose(temperature, 10)
    # Priestley and Taylor at 10 degrees: slope 0.0822 kPa K-1, psychrometric constant 0.066
    np.testing.assert_allclose(demand, 1.26 * 100 * 0.0822 / (0.0822 + 0.066), rtol=0.03)


def test_frozen_soil_gives_nothing():
    np.testing.assert_allclose(calm(temperature=-2.0)[2], 0, atol=1e-6)


def test_warming_acts_through_sensitivity_heating_and_response():
    source = traits(sensitivity=1.5, heating=2.0, response=0.04, season=0.01)
    rain, temperature, _ = calm(source, warmth=2.0)  # 3 K
    np.testing.assert_allclose(temperature, 16, rtol=1e-6)
    july = np.cos(2 * np.pi * (np.arange(12) - 6.5) / 12)
    np.testing.assert_allclose(rain[:, 0], 50 * np.exp(3 * (0.04 + 0.01 * july)), rtol=1e-5)


def test_rain_keeps_its_mean_whatever_its_noise():
    anomaly = np.random.default_rng(6).standard_normal((12, 200_000), dtype="float32")
    here = world.Climate(*(np.full((12, 1), value, "float32") for value in (50, 10, 100)))
    rain, _, _ = world.forcing(here, traits(noise=0.4), np.zeros(12), anomaly, anomaly)
    np.testing.assert_allclose(rain.mean(), 50, rtol=2e-3)


def test_a_drift_is_a_multiple_of_the_bias():
    source = traits(wetter=np.float32(0.2), warmer=np.float32(-1.0)).drifted(1.5)
    np.testing.assert_allclose([source.wetter, source.warmer], [0.3, -1.5], rtol=1e-6)
    assert source.sensitivity == 1.0


# --- facts -------------------------------------------------------------------------------


def test_regions_respond_as_those_of_real_models():
    """At 2 K: the sign of the median, the spread between models, and the share that dries."""
    table = pd.read_csv(ROOT / "data" / "world_facts.csv").set_index(["world", "region"])
    real, drawn = table.loc["AR6"], table.loc["200 draws"]
    assert sorted(real.index) == sorted(drawn.index) == ["EAS", "ECA", "SAS", "TIB"]
    assert (np.sign(real["median"]) == np.sign(drawn["median"])).all()
    assert (drawn["sd_between"] / real["sd_between"]).between(1 / 1.5, 1.5).all()
    assert (drawn["drying_percent"] - real["drying_percent"]).abs().max() <= 20
    shipped = pd.read_csv(ROOT / "data" / "ar6_soil_moisture.csv").query("warming_K == 2")
    shipped = shipped.set_index("region").loc[real.index]
    np.testing.assert_allclose(real["median"], shipped["median"])
