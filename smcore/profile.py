"""The parts of a profile, each checked by itself: boxes, periods, networks, the demo world."""

from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

ROOT = Path(__file__).resolve().parents[1]
PRESETS = yaml.safe_load((ROOT / "notebooks" / "networks.yml").read_text(encoding="utf-8"))
# Defects of real files that a profile may plant in the demo world (`smcore.defects.DEFECTS`).
PLANTED = ("late_start", "overlap", "other_institution", "above_saturation", "wrong_depth")
PLANTED += ("older_version", "undeclared_fill")


def refused(value, problems):
    """A value, unless there are lines, with their own keys, on what is wrong with it."""
    if problems:
        raise PydanticCustomError("conflict", "{lines}", {"lines": "\n".join(problems)})
    return value


def _period(value):
    first, last = value
    if not all(len(year) == 4 and year.isdigit() for year in value):
        raise ValueError('expected two years such as ["1981", "2010"], both included')
    if first > last:
        raise ValueError("the period is empty: write the earlier year first")
    return value


def _odd(value):
    if value % 2 == 0:
        raise ValueError("must be odd, so that the mean has a middle year")
    return value


Period = Annotated[tuple[str, str], AfterValidator(_period)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Region(Strict):
    """A box in degrees; a cell belongs to it when its centre does."""

    south: float
    north: float
    west: float
    east: float

    def __str__(self):
        return f"{self.south:g}–{self.north:g} N, {self.west:g}–{self.east:g} E"


class Domain(Region):
    """A box in degrees (north, east), tiled by coarse cells of `resolution` degrees."""

    south: float = 18.0
    north: float = 54.0
    west: float = 71.0
    east: float = 137.0
    resolution: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _in_whole_cells(self):
        problems = []
        for axis, ends in {"latitude": ("south", "north"), "longitude": ("west", "east")}.items():
            low, high = (getattr(self, end) for end in ends)
            cells = (high - low) / self.resolution
            if cells < 2 or abs(cells - round(cells)) > 1e-6:
                text = f"domain: {axis} {low} to {high}: {high - low} degrees are not two or more"
                problems.append(f"{text} whole coarse cells of {self.resolution}; move an edge")
        return refused(self, problems)


class Periods(Strict):
    """Periods as pairs of years, both included."""

    historical: Period
    future: Period
    train: Period
    validation: Period
    test: Period
    baseline: Period
    change: tuple[Period, ...]

    @field_validator("change")
    @classmethod
    def _beside_each_other(cls, change, info):
        """All at once, so that none is passed over for another's fault."""
        years, problems = {key: [*map(int, pair)] for key, pair in info.data.items()}, []
        past, future = years.get("historical"), years.get("future")
        if past and future and future[0] != past[1] + 1:
            text = f"expected to begin in {past[1] + 1}, the year after periods.historical"
            problems += [f"periods.future: {future}: {text}: scenarios continue that run"]
        inner = [(key, pair, "historical") for key, pair in years.items() if key != "future"]
        inner += [("change", [*map(int, pair)], "future") for pair in change]
        for key, pair, whole in inner:
            first, last = years.get(whole, pair)
            if pair[0] < first or pair[1] > last:
                text = f"expected years within periods.{whole} {[first, last]}"
                problems += [f"periods.{key}: {pair}: {text}; widen that period or move this one"]
        splits = [(key, years[key]) for key in ("train", "validation", "test") if key in years]
        for (key, one), (other, two) in combinations(splits, 2):
            if one[0] <= two[1] and two[0] <= one[1]:
                text = "they overlap, so the network would be judged on months it has seen"
                where = f"periods.{key}, periods.{other}: {one}, {two}"
                problems += [f"{where}: {text}; move one of them"]
        return refused(change, problems)


class StudyArea(Strict):
    """The polygons to which shares of area refer, beside all land in the box."""

    name: str
    countries: tuple[str, ...]  # ISO 3166-1 numeric codes in data/countries.geojson


class Network(Strict):
    """A network preset: the network, what it sees, and how it is trained."""

    name: str
    features: int = Field(default=64, gt=0)
    depth: int = Field(default=15, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    regridding: Literal["bilinear", "conservative"]
    standardisation: Literal["none", "source"]
    initialisation: Literal["default", "he"]
    clip_features: bool  # the ReLU after the trunk's last addition, as published
    skips: bool = True  # connections from the encoder to the decoder
    auxiliary: Literal["static", "climatology", "none"] = "static"  # fields on the fine grid
    # the network corrects the reference's climatology plus the mean anomaly of the sources
    anchored: bool = False
    # years of the running mean of anchored inputs
    smoothing: Annotated[int, Field(gt=0), AfterValidator(_odd)] = 1
    # years by which a month of the reference may be another one than that of the predictors
    pairing: int = Field(default=0, ge=0)
    optimiser: Literal["adam", "adamw"]
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "cosine"]
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(gt=0)
    epochs: int = Field(gt=0)
    patience: int | None = Field(default=None, gt=0)  # epochs without a better validation loss
    precision: Literal["float32", "auto"] = "float32"  # auto: bfloat16 where there are units for it
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _with_its_preset(cls, keys):
        if not isinstance(keys, dict):
            raise ValueError("expected `key: value` lines or {}")
        if keys.get("name") not in list(PRESETS):
            raise ValueError(f"expected one of {', '.join(PRESETS)}")
        return PRESETS[keys["name"]] | keys


NETWORKS = {name: Network(name=name) for name in PRESETS}


class DemoWorld(Strict):
    """Switches of the synthetic archive."""

    reference_resolution: float = Field(default=0.1, gt=0)  # degrees, of the reference's points
    resolution: float = Field(default=0.25, gt=0)  # degrees, of the soil of reference and truth
    draws: int = Field(default=8, gt=0, multiple_of=2)  # of the weather, in the mean of the truth
    # the truth is a draw like the sources, or their middle
    paradigm: Literal["exchangeable", "centred"] = "exchangeable"
    # part of the variance of a source's errors that it shares with its kin in the model table
    kinship: float = Field(default=0.5, ge=0, le=1)
    # 0: every source has its own weather; 1: all share the weather of the reference
    shared_weather: float = Field(default=0.0, ge=0, le=1)
    bias_drift: float = 0.0  # growth of each source's bias, in units of that bias per century
    # defects of real files, planted in the files of a source
    defects: dict[str, tuple[Literal[PLANTED], ...]] = {}
