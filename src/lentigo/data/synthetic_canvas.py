"""The drawing board of synthetic lesions: noise, cells, outlines, dots, strokes and trees on four planes.

Lengths are in frame units: the finished picture spans [-1, 1] at scale 1, so that the anatomy hardly depends
on the pixel size (points near a border may come or go with it). `synthetic_drawing` draws the seven classes
with these tools.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Plane = NDArray[np.float32]
Point = tuple[float, float]

CELLS_PER_TILE = 32
TILE_SIDE_PX = 512
CANVAS_PER_RADIUS = 1.55  # an outline may reach this far beyond its mean radius


def ramp(values: Plane, start: float, stop: float) -> Plane:
    """Smooth step in [0, 1]: 0 where values are at `start`, 1 at `stop` (start may be the larger one)."""
    share: Plane = np.clip((values - np.float32(start)) * np.float32(1.0 / (stop - start)), 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


@lru_cache(maxsize=256)
def _spline_weights(side_px: int, lattice: int) -> Plane:
    """Cubic B-spline weights (side_px, lattice + 3) that enlarge a lattice with spare cells at both ends."""
    position = (np.arange(side_px) + 0.5) * (lattice / side_px)
    cell = position.astype(int)
    t = position - cell
    weights = np.zeros((side_px, lattice + 3), np.float32)
    rows = np.arange(side_px)
    weights[rows, cell] = (1.0 - t) ** 3 / 6.0
    weights[rows, cell + 1] = (3.0 * t**3 - 6.0 * t**2 + 4.0) / 6.0
    weights[rows, cell + 2] = (-3.0 * t**3 + 3.0 * t**2 + 3.0 * t + 1.0) / 6.0
    weights[rows, cell + 3] = t**3 / 6.0
    return weights


def smooth_noise(rng: np.random.Generator, side_px: int, lattice: int) -> Plane:
    """Low-frequency noise (side_px, side_px), about N(0, 0.7): a small random lattice, enlarged.

    Matrix products are several times as fast as pillow's bicubic enlargement of floats. They go in strips,
    because OpenBLAS starts threads for products of more than 2**18 multiplications: on a busy machine that
    made this function 30 times slower.
    """
    coarse = rng.standard_normal((lattice + 3, lattice + 3), dtype=np.float32)
    weights = _spline_weights(side_px, lattice)
    most_rows = max(1, 2**18 // (side_px * (lattice + 3)))
    rows = next(rows for rows in range(min(most_rows, side_px), 0, -1) if side_px % rows == 0)
    strips = weights.reshape(side_px // rows, rows, lattice + 3)
    # A B-spline smooths its lattice to a standard deviation of 0.48; the factor brings it back to 0.7.
    return ((strips @ (coarse * np.float32(1.46))) @ weights.T).reshape(side_px, side_px)


@lru_cache(maxsize=1)
def cell_tile() -> tuple[Plane, Plane, Plane]:
    """Periodic Voronoi tile, three planes (512*512,): distance to the cell wall, to the cell's centre, and
    one random value per cell.

    Distances are in cell widths. Networks, globules, lacunae, follicles and skin furrows are all cells seen
    at different sizes. Made once per process (0.2 s), from a fixed seed.
    """
    rng = np.random.default_rng(2018)
    jitter = rng.uniform(-0.36, 0.36, (2, CELLS_PER_TILE, CELLS_PER_TILE)).astype(np.float32)
    cell_value = rng.random((CELLS_PER_TILE, CELLS_PER_TILE), dtype=np.float32)
    axis = np.arange(TILE_SIDE_PX, dtype=np.float32) * (CELLS_PER_TILE / TILE_SIDE_PX)
    row, column = np.meshgrid(axis, axis, indexing="ij")
    nearest = np.full(row.shape, 9.0, np.float32)
    second = nearest.copy()
    value = np.zeros_like(nearest)
    for row_step in (-2, -1, 0, 1, 2):
        for column_step in (-2, -1, 0, 1, 2):
            i, j = np.floor(row).astype(int) + row_step, np.floor(column).astype(int) + column_step
            # Every other row is moved by half a cell: hexagonal meshes, as in a regular pigment network.
            centre_row = i + 0.5 + jitter[0][i % CELLS_PER_TILE, j % CELLS_PER_TILE]
            centre_column = j + 0.25 + 0.5 * (i % 2) + jitter[1][i % CELLS_PER_TILE, j % CELLS_PER_TILE]
            distance = np.hypot(row - centre_row, column - centre_column).astype(np.float32)
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            value = np.where(closer, cell_value[i % CELLS_PER_TILE, j % CELLS_PER_TILE], value)
            nearest = np.where(closer, distance, nearest)
    return (second - nearest).ravel(), nearest.ravel(), value.ravel()


class Cells:
    """The cell tile seen at frame coordinates x, y (broadcast to (n, n)); each property is a plane (n, n)."""

    def __init__(self, x: Plane, y: Plane, cell_width: float, turn_radians: float, offset: Point) -> None:
        scale = TILE_SIDE_PX / CELLS_PER_TILE / cell_width
        cosine, sine = np.float32(np.cos(turn_radians) * scale), np.float32(np.sin(turn_radians) * scale)
        # 4096 keeps both positive, so that truncation rounds down.
        column = (x * cosine + y * sine + np.float32(offset[0] + 4096.0)).astype(np.int32) & (TILE_SIDE_PX - 1)
        row = (y * cosine - x * sine + np.float32(offset[1] + 4096.0)).astype(np.int32) & (TILE_SIDE_PX - 1)
        self._index = row * TILE_SIDE_PX + column

    @property
    def wall(self) -> Plane:
        """Distance to the nearest wall, in cell widths: 0 on it."""
        return cell_tile()[0].take(self._index)

    @property
    def centre(self) -> Plane:
        """Distance to the cell's centre, in cell widths."""
        return cell_tile()[1].take(self._index)

    @property
    def value(self) -> Plane:
        """One random number in [0, 1) per cell."""
        return cell_tile()[2].take(self._index)


@dataclass
class Canvas:
    """One lesion's four planes (side_px, side_px) float32, and the tools to draw on them."""

    rng: np.random.Generator
    radius: float
    side_px: int
    half_width: float = field(init=False)
    x: Plane = field(init=False)
    y: Plane = field(init=False)
    flow: tuple[Plane, Plane] = field(init=False)
    grain: Plane = field(init=False)
    melanin: Plane = field(init=False)
    blood: Plane = field(init=False)
    blue: Plane = field(init=False)
    pale: Plane = field(init=False)

    def __post_init__(self) -> None:
        self.half_width = self.radius * CANVAS_PER_RADIUS
        axis = np.linspace(-self.half_width, self.half_width, self.side_px, dtype=np.float32)
        self.x, self.y = np.meshgrid(axis, axis)
        self.flow = (self.noise(0.25), self.noise(0.25))
        # Tissue is never uniform: without this every patch looks cut out of paper.
        self.grain = np.float32(0.6) * self.noise(0.11) + np.float32(0.6) * self.noise(0.04)
        self.melanin, self.blood, self.blue, self.pale = (np.zeros_like(self.x) for _ in range(4))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def noise(self, grain: float) -> Plane:
        """Smooth noise whose blobs are about `grain` frame units wide."""
        return smooth_noise(self.rng, self.side_px, max(2, round(2.0 * self.half_width / grain)))

    def slope(self) -> Plane:
        """A tilted plane through the lesion's centre, about [-1, 1] inside: asymmetry along a random axis."""
        angle = self.uniform(0.0, 2.0 * np.pi)
        along_x, along_y = np.float32(np.cos(angle) / self.radius), np.float32(np.sin(angle) / self.radius)
        return self.x * along_x + self.y * along_y

    def outline(self, wobble: float, roughness: float, elongation: float = 1.25) -> Plane:
        """Distance from the centre, 1 on the border; `wobble` bends the border, `roughness` frays it."""
        stretch = np.float32(np.sqrt(self.uniform(1.0, elongation)))
        x, y = self.x / stretch, self.y * stretch
        table_angle = np.linspace(-np.pi, np.pi, 257)
        border = np.full(257, self.radius)
        for wave in range(2, 8):
            amplitude = self.radius * wobble * self.rng.standard_normal() * 1.6 / wave
            border += amplitude * np.cos(wave * table_angle + self.uniform(0.0, 2.0 * np.pi))
        border = np.clip(border, 0.55 * self.radius, 1.3 * self.radius)
        index = ((np.arctan2(y, x) + np.float32(np.pi)) * np.float32(256.0 / (2.0 * np.pi))).astype(np.int32)
        distance: Plane = np.sqrt(x * x + y * y) * (1.0 / border).astype(np.float32).take(index, mode="clip")
        distance += np.float32(roughness) * self.noise(0.16) + np.float32(0.6 * roughness) * self.grain
        return distance

    def cells(self, cell_width: float, warp: float = 0.02) -> Cells:
        """Voronoi cells bent by the lesion's flow."""
        offset = (self.uniform(0.0, TILE_SIDE_PX), self.uniform(0.0, TILE_SIDE_PX))
        x, y = self.x + np.float32(warp) * self.flow[0], self.y + np.float32(warp) * self.flow[1]
        return Cells(x, y, cell_width, self.uniform(0.0, np.pi), offset)

    def points_within(self, count: int, distance: Plane, low: float, high: float) -> list[Point]:
        """Up to `count` random points (frame units) whose outline distance lies in [low, high]."""
        spread = self.radius * min(high, 1.4)
        candidates = self.rng.uniform(-spread, spread, (count * 4, 2))
        index = ((candidates / self.half_width + 1.0) * 0.5 * (self.side_px - 1)).astype(int)
        at_point = distance[index[:, 1], index[:, 0]]
        return [(float(px), float(py)) for px, py in candidates[(at_point >= low) & (at_point <= high)][:count]]

    def stamp(self, shapes: Iterable[tuple[list[Point], float]]) -> Plane:
        """Opacity in [0, 1] of antialiased dots (one point, radius) and strokes (points, half width)."""
        sheet = Image.new("L", (2 * self.side_px, 2 * self.side_px))
        pen = ImageDraw.Draw(sheet)
        scale = self.side_px / self.half_width
        for points, half_thickness in shapes:
            pixels = [((px + self.half_width) * scale, (py + self.half_width) * scale) for px, py in points]
            thickness_px = half_thickness * scale
            if len(pixels) == 1:
                (column, row), thick = pixels[0], max(thickness_px, 0.8)
                pen.ellipse((column - thick, row - thick, column + thick, row + thick), fill=255)
            else:
                pen.line(pixels, fill=255, width=max(1, round(2.0 * thickness_px)), joint="curve")
        return np.asarray(sheet.reduce(2), np.float32) * np.float32(1.0 / 255.0)

    def dots(self, points: list[Point], low: float, high: float) -> Plane:
        """Round dots with radii between low and high (frame units)."""
        return self.stamp(([point], self.uniform(low, high)) for point in points)

    def tree(
        self, start: Point, heading: float, half_thickness: float, length: float, depth: int
    ) -> list[tuple[list[Point], float]]:
        """Strokes of one branching vessel, thinner with every fork."""
        points, strokes = [start], []
        for _ in range(6):
            heading += self.uniform(-0.35, 0.35)
            px, py = points[-1]
            points.append((px + length / 6.0 * float(np.cos(heading)), py + length / 6.0 * float(np.sin(heading))))
        strokes.append((points, half_thickness))
        if depth > 0:
            for fork_at, side in ((3, 1.0), (5, -1.0), (6, 1.0)):
                turn = heading + side * self.uniform(0.4, 1.0)
                strokes += self.tree(
                    points[fork_at], turn, half_thickness * 0.65, length * self.uniform(0.45, 0.75), depth - 1
                )
        return strokes
