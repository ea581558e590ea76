"""Makes land.geojson and countries.geojson from Natural Earth 1:50m.

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz
    python data/natural_earth.py package

The package holds Natural Earth as TopoJSON: borders are cut into arcs that neighbours share, an
arc is a list of steps on an integer grid, and a polygon is a list of arc numbers.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon, mapping

DETAILED = shapely.box(30, -10, 180, 80)  # the paper's domain lies in its middle
DECIMALS = 3  # about 0.1 km; the 1:50m outline is coarser than that
ELSEWHERE = 0.15  # degrees; how far the outline of the rest of the globe is simplified


def decode_arcs(topology):
    """Arcs as arrays (point, 2) of longitude and latitude."""
    scale, origin = topology["transform"]["scale"], topology["transform"]["translate"]
    return [np.cumsum(arc, axis=0) * scale + origin for arc in topology["arcs"]]


def decode_geometry(geometry, arcs):
    """A TopoJSON Polygon or MultiPolygon as a valid shapely geometry."""

    def ring(numbers):
        # ~n stands for arc n read backwards; an arc begins where the one before it ends
        parts = [arcs[n] if n >= 0 else arcs[~n][::-1] for n in numbers]
        return np.concatenate([parts[0], *[part[1:] for part in parts[1:]]])

    polygons = {"Polygon": [geometry["arcs"]], "MultiPolygon": geometry["arcs"]}[geometry["type"]]
    parts = [Polygon(ring(shell), [ring(hole) for hole in holes]) for shell, *holes in polygons]
    return shapely.make_valid(MultiPolygon(parts))


def thinned(geometry):
    """The polygons of `geometry`, on a grid of 0.001 degrees; coarser outside of `DETAILED`."""
    here = geometry.intersection(DETAILED)
    rest = shapely.simplify(geometry.difference(DETAILED), ELSEWHERE)
    joined = shapely.union_all([here, shapely.make_valid(rest)])
    snapped = shapely.set_precision(joined, 10.0**-DECIMALS)
    return MultiPolygon([g for g in shapely.get_parts(snapped) if g.geom_type == "Polygon"])


def feature(geometry, **properties):
    """A GeoJSON feature with coordinates of three decimals."""

    def rounded(numbers):
        if isinstance(numbers, float):
            return round(numbers, DECIMALS)
        return [rounded(n) for n in numbers]

    outline = {"type": geometry.geom_type, "coordinates": rounded(mapping(geometry)["coordinates"])}
    return {"type": "Feature", "properties": properties, "geometry": outline}


def write(features, path):
    lines = ",\n".join(json.dumps(f, separators=(",", ":"), ensure_ascii=False) for f in features)
    path.write_text(f'{{"type":"FeatureCollection","features":[\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="folder of the unpacked npm package")
    package = parser.parse_args().package
    here = Path(__file__).parent

    topology = json.loads((package / "land-50m.json").read_text())
    arcs = decode_arcs(topology)
    land = [decode_geometry(g, arcs) for g in topology["objects"]["land"]["geometries"]]
    write([feature(thinned(shapely.union_all(land)), name="land")], here / "land.geojson")

    topology = json.loads((package / "countries-50m.json").read_text())
    arcs = decode_arcs(topology)
    countries = []
    for entry in topology["objects"]["countries"]["geometries"]:
        geometry = decode_geometry(entry, arcs)
        # areas without a code of their own (Siachen Glacier) keep an empty id
        code, name = entry.get("id", ""), entry["properties"]["name"]
        if not (outline := thinned(geometry)).is_empty:  # smaller than the simplification
            countries.append(feature(outline, id=code, name=name))
    write(sorted(countries, key=lambda f: f["properties"]["name"]), here / "countries.geojson")
