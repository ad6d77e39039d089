"""Anatomy of synthetic lesions: which chromophore lies where, for each of the seven classes.

A lesion is drawn as four planes on a square canvas in its own frame of reference, before any camera sees it:
melanin and blood are optical densities (they absorb, Beer-Lambert), blue and pale are opacities in [0, 1]
(deep pigment or fibrosis seen through scattering skin). The criteria are those of the textbooks of
dermoscopy; each `_draw_*` function names the ones it draws.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lentigo.data.synthetic_canvas import CANVAS_PER_RADIUS, Canvas, Plane, Point, ramp

MAX_CANVAS_PX = 1400


def _draw_nv(c: Canvas) -> None:
    """Nevus: symmetric, smooth border, one or two browns; regular network, globules or homogeneous.

    One in five is atypical and leans towards melanoma.
    """
    atypical = c.chance(0.2)
    distance = c.outline(0.10 if atypical else 0.05, 0.12 if atypical else 0.06, 1.6)
    softness = c.uniform(0.12, 0.5)
    mask = ramp(distance, 1.0 + 0.35 * softness, 1.0 - softness)
    shade = c.uniform(0.4, 1.2)
    tone = shade * (1.0 + c.uniform(-0.3, 0.7) * (0.55 - np.minimum(distance, 1.2))) * (1.0 + 0.16 * c.grain)
    kind = c.rng.choice(["reticular", "globular", "homogeneous"], p=[0.5, 0.25, 0.25])
    cells = c.cells(c.uniform(0.042, 0.07), 0.025)
    if kind == "reticular":
        strength = c.uniform(0.35, 0.9)
        fading = ramp(distance + 0.3 * c.grain, -0.3, 0.7)
        tone = tone * (1.0 - 0.4 * strength + strength * fading * ramp(cells.wall, 0.5, 0.0))
    elif kind == "globular":
        globules = ramp(cells.centre, 0.52, 0.15) * ramp(cells.value, 0.1, 0.6)
        tone = tone * (0.7 + c.uniform(0.35, 0.75) * globules)
    if atypical:
        tone = tone * (1.0 + 0.35 * c.slope()) + 0.5 * ramp(c.noise(0.3) + 0.3 * c.grain, 0.2, 1.4)
    c.melanin += mask * np.maximum(tone, 0.08)
    c.blood += mask * np.float32(c.uniform(0.05, 0.3))
    if kind == "homogeneous" and c.chance(0.35):  # papular dermal nevus: paler, pink
        c.melanin *= np.float32(0.45)
        c.blood += 0.25 * mask


def _draw_mel(c: Canvas) -> None:
    """Melanoma: asymmetry, irregular border, many colours, atypical network and melanoma-specific features.

    The features are blue-white veil, black blotches, regression with peppering, irregular dots, streaks and
    milky-red areas. One in five shows only slight atypia, as early melanomas do.
    """
    early = c.chance(0.22)
    distance = c.outline(0.07 if early else 0.15, 0.09 if early else 0.17, 1.6)
    mask = ramp(distance + 0.06 * c.slope(), 1.1, c.uniform(0.7, 0.92))
    patches = c.noise(0.3) + 0.4 * c.grain
    tone = c.uniform(0.55, 1.15) * (1.0 + (0.25 if early else 0.5) * c.slope()) + (0.15 if early else 0.35) * patches
    line_width = np.clip(0.32 + 0.25 * c.noise(0.25), 0.12, 0.7)  # atypical: thick and thin lines side by side
    lines = ramp(c.cells(c.uniform(0.055, 0.095), 0.07).wall / line_width, 1.2, 0.0)
    tone = tone * (0.75 + c.uniform(0.25, 0.7) * lines * ramp(patches, 0.7, -0.5))
    c.melanin += mask * np.maximum(tone, 0.15)
    c.blood += mask * np.maximum(0.22 + 0.2 * c.noise(0.4), 0.0)
    wanted = 1 if early else int(c.rng.integers(3, 6))
    for feature in c.rng.permutation(["blotch", "veil", "regression", "dots", "streaks", "pink"])[:wanted]:
        _add_melanoma_feature(c, str(feature), distance, mask)


def _add_melanoma_feature(c: Canvas, feature: str, distance: Plane, mask: Plane) -> None:
    """Add one melanoma-specific criterion by name, somewhere off centre."""
    where = ramp(c.noise(0.4) + 0.3 * c.slope() + 0.35 * c.grain, -0.1, 1.2) * mask
    if feature == "blotch":
        c.melanin += where * np.float32(c.uniform(0.9, 1.9))
    elif feature == "veil":
        c.blue += where * np.float32(c.uniform(0.5, 0.85)) * ramp(distance, 1.0, 0.6)
        c.melanin += 0.5 * where
        c.pale += np.float32(c.uniform(0.0, 0.18)) * where
    elif feature == "regression":
        c.melanin *= 1.0 - 0.75 * where
        c.pale += where * np.float32(c.uniform(0.15, 0.4))
        c.blue += 0.7 * c.dots(c.points_within(80, distance, 0.0, 0.9), 0.004, 0.010) * where  # peppering
    elif feature == "dots":
        points = c.points_within(int(c.rng.integers(12, 40)), distance + 0.5 * ramp(c.slope(), 0.3, -0.5), 0.4, 1.08)
        c.melanin += np.float32(c.uniform(0.5, 1.0)) * c.dots(points, 0.007, 0.026) * (1.0 + 0.3 * c.grain)
    elif feature == "streaks":
        centre_angle, strokes = c.uniform(0.0, 2.0 * np.pi), []
        for _ in range(int(c.rng.integers(12, 26))):
            angle = centre_angle + c.uniform(-0.9, 0.9)
            bend = angle + c.uniform(-0.08, 0.08)
            inner, outer = c.radius * c.uniform(0.6, 0.8), c.radius * c.uniform(0.98, 1.2)
            start = (inner * float(np.cos(angle)), inner * float(np.sin(angle)))
            end = (outer * float(np.cos(bend)), outer * float(np.sin(bend)))
            middle = (0.5 * (start[0] + end[0]), 0.5 * (start[1] + end[1]))
            strokes += [([start, end], 0.005), ([start, middle], 0.011)]
        c.melanin += np.float32(c.uniform(0.4, 0.9)) * c.stamp(strokes) * ramp(distance, 1.5, 0.9)
    else:
        c.melanin *= 1.0 - 0.5 * where
        c.blood += where * np.float32(c.uniform(0.25, 0.6))


def _draw_bkl(c: Canvas) -> None:
    """Benign keratosis: sharp stuck-on border, milia-like cysts, comedo-like openings, cerebriform fissures.

    Three in ten are solar lentigines; a few keratoses have neither cysts nor openings.
    """
    if c.chance(0.3):
        _draw_solar_lentigo(c)
        return
    distance = c.outline(0.07, 0.06, 1.5)
    mask = ramp(distance, 1.03, c.uniform(0.86, 0.95))
    rim = ramp(np.abs(distance - 0.93), 0.14, 0.0)
    c.melanin += mask * (np.maximum(c.uniform(0.35, 1.0) + 0.2 * c.noise(0.2) + 0.22 * c.grain, 0.12) + 0.15 * rim)
    c.pale += mask * np.float32(c.uniform(0.0, 0.2))  # waxy, dull surface
    c.blood += mask * np.float32(c.uniform(0.0, 0.15))
    if c.chance(0.5):  # cerebriform: broad ridges between dark furrows
        furrows = ramp(c.cells(c.uniform(0.11, 0.19), 0.14).wall + 0.08 * c.grain, 0.3, 0.0)
        c.melanin += mask * np.float32(c.uniform(0.45, 0.95)) * furrows
    plain = c.chance(0.15)  # neither cysts nor openings: hard to tell from a nevus
    if not plain and c.chance(0.75):
        comedones = c.dots(c.points_within(int(c.rng.integers(5, 22)), distance, 0.0, 0.85), 0.010, 0.030)
        c.melanin += np.float32(c.uniform(0.6, 1.2)) * comedones
    if not plain and c.chance(0.75):
        cysts = c.dots(c.points_within(int(c.rng.integers(5, 26)), distance, 0.0, 0.9), 0.008, 0.020)
        c.melanin *= 1.0 - 0.7 * cysts
        c.pale += np.float32(c.uniform(0.4, 0.7)) * cysts


def _draw_solar_lentigo(c: Canvas) -> None:
    """Solar lentigo: flat light brown, sharp moth-eaten edge, fingerprint-like parallel ridges."""
    distance = c.outline(0.12, 0.12, 1.5)
    for px, py in c.points_within(9, distance, 0.85, 1.1):  # moth-eaten: bites taken out of the edge
        reach = np.float32(c.radius * c.uniform(0.10, 0.24))
        bite = np.sqrt((c.x - px) ** 2 + (c.y - py) ** 2) / reach + 0.3 * c.grain + 0.2 * c.flow[0]
        distance = np.maximum(distance, 2.0 - bite)
    mask = ramp(distance, 1.06, 0.88)
    angle = c.uniform(0.0, np.pi)
    across = c.x * np.float32(np.cos(angle)) + c.y * np.float32(np.sin(angle)) + 0.12 * c.flow[0]
    ridges = np.sin(across * np.float32(2.0 * np.pi / c.uniform(0.035, 0.05))) * ramp(c.noise(0.3), -0.5, 0.6)
    tone = c.uniform(0.25, 0.6) + c.uniform(0.03, 0.11) * ridges + 0.12 * c.noise(0.25) + 0.08 * c.grain
    c.melanin += mask * np.maximum(tone, 0.08)


def _draw_bcc(c: Canvas) -> None:
    """Basal cell carcinoma: pearly pink, arborizing vessels, pigmented nests, ulceration, white streaks."""
    distance = c.outline(0.12, 0.14, 1.5)
    mask = ramp(distance, 1.25, c.uniform(0.4, 0.75))
    c.blood += mask * np.maximum(c.uniform(0.12, 0.4) + 0.12 * c.noise(0.3) + 0.06 * c.grain, 0.0)
    c.pale += mask * np.float32(c.uniform(0.1, 0.32)) * ramp(c.noise(0.3) + 0.3 * c.grain, -0.8, 0.9)
    if c.chance(0.8):
        strokes: list[tuple[list[Point], float]] = []
        for px, py in c.points_within(int(c.rng.integers(2, 5)), distance, 0.5, 1.05):
            inwards = float(np.arctan2(-py, -px)) + c.uniform(-0.9, 0.9)
            strokes += c.tree((px, py), inwards, c.uniform(0.005, 0.010), c.radius * c.uniform(0.5, 0.9), 2)
        c.blood += np.float32(c.uniform(0.45, 0.95)) * c.stamp(strokes) * ramp(c.noise(0.3), -1.3, 0.1)
    if c.chance(0.65):
        _add_pigmented_nests(c, distance)
    if c.chance(0.3):  # ulceration: a glazed, orange-red erosion with a dark crust
        sore = ramp(c.outline(0.15, 0.25) * 3.3, 1.3, 0.7)
        c.blood += 0.6 * sore
        c.melanin += sore * np.maximum(0.35 + 0.35 * c.grain, 0.0)
    if c.chance(0.35):
        c.pale += 0.4 * c.stamp(
            ([(px, py), (px + c.uniform(-0.1, 0.1), py + c.uniform(-0.1, 0.1))], 0.005)
            for px, py in c.points_within(12, distance, 0.0, 0.8)
        )


def _add_pigmented_nests(c: Canvas, distance: Plane) -> None:
    """Blue-gray ovoid nests; half of the time also leaf-like areas: lobes on a common base at the edge."""
    nests = np.zeros_like(c.x)
    for px, py in c.points_within(int(c.rng.integers(2, 8)), distance, 0.1, 0.9):
        size, squeeze = c.radius * c.uniform(0.07, 0.26), np.float32(c.uniform(0.6, 1.0))
        offset = np.sqrt(((c.x - px) * squeeze) ** 2 + ((c.y - py) / squeeze) ** 2) / np.float32(size)
        nests = np.maximum(
            nests,
            np.float32(c.uniform(0.5, 1.0)) * ramp(offset + 0.25 * c.flow[0] + 0.2 * c.grain, 1.3, 0.35),
        )
    c.blue += np.float32(c.uniform(0.45, 0.8)) * nests
    c.melanin += np.float32(c.uniform(0.4, 1.0)) * nests
    if c.chance(0.5):
        lobes: list[tuple[list[Point], float]] = []
        for px, py in c.points_within(int(c.rng.integers(1, 4)), distance, 0.7, 1.0):
            for angle in float(np.arctan2(py, px)) + c.rng.uniform(-1.1, 1.1, 6):
                reach = c.radius * c.uniform(0.14, 0.32)
                tip = (px + reach * float(np.cos(angle)), py + reach * float(np.sin(angle)))
                lobes += [([(px, py), tip], 0.020), ([tip], 0.030)]
        c.melanin += c.uniform(0.25, 0.5) * c.stamp(lobes) * np.maximum(1.0 + 0.6 * c.grain, 0.0)


def _draw_akiec(c: Canvas) -> None:
    """Actinic keratosis or Bowen's disease, with scale, sometimes pigmented.

    The former has the strawberry pattern (red pseudo-network around white follicles), the latter glomerular
    vessels.
    """
    distance = c.outline(0.10, 0.16, 1.4)
    mask = ramp(distance, 1.4, c.uniform(0.25, 0.65))
    c.blood += mask * np.maximum(c.uniform(0.15, 0.45) + 0.12 * c.noise(0.2) + 0.1 * c.grain, 0.0)
    if c.chance(0.6):
        cells = c.cells(c.uniform(0.075, 0.125), 0.05)
        centre, present = cells.centre + 0.06 * c.grain, ramp(cells.value, 0.2, 0.6)
        meshes = ramp(centre, 0.22, 0.62) * mask * ramp(c.noise(0.3) + 0.3 * c.grain, -1.2, 0.4)
        follicles = ramp(centre, 0.34, 0.12) * present * mask
        c.blood += c.uniform(0.3, 0.8) * meshes
        if c.chance(0.35):  # pigmented actinic keratosis
            c.melanin += c.uniform(0.35, 0.8) * meshes * ramp(c.noise(0.25), -0.6, 0.6)
        c.blood *= 1.0 - 0.5 * follicles
        c.pale += np.float32(c.uniform(0.2, 0.5)) * follicles
    else:  # Bowen's disease: coiled vessels in clusters on a pink plaque
        clusters = ramp(c.noise(0.3), -0.5, 0.3) * mask
        coils = c.stamp(
            (
                [
                    (px + 0.008 * float(np.cos(turn)), py + 0.008 * float(np.sin(turn)))
                    for turn in np.linspace(0.0, 5.0, 6)
                ],
                0.0045,
            )
            for px, py in c.points_within(int(c.rng.integers(70, 150)), distance, 0.0, 1.0)
        )
        c.blood += np.float32(c.uniform(0.7, 1.2)) * coils * clusters
        if c.chance(0.4):
            c.melanin += 0.45 * mask * ramp(c.noise(0.3) + 0.3 * c.grain, -0.2, 1.1)
    if c.chance(0.7):  # scale: broken, whitish flakes
        flakes = ramp(c.noise(0.22) + 0.7 * c.grain, 0.45, 0.95) * mask
        c.pale += np.float32(c.uniform(0.25, 0.5)) * flakes
        c.melanin += 0.15 * flakes
    c.melanin += 0.12 * mask


def _draw_df(c: Canvas) -> None:
    """Dermatofibroma: white scar-like patch or white network, delicate brown network around it."""
    distance = c.outline(0.05, 0.09, 1.25)
    mask = ramp(distance, 1.3, c.uniform(0.35, 0.65))
    lines = ramp(c.cells(c.uniform(0.04, 0.06), 0.02).wall, 0.5, 0.0) * ramp(c.noise(0.3), -1.0, 0.5)
    ring = mask * ramp(distance, -0.1, 0.75)
    c.melanin += ring * np.maximum(
        c.uniform(0.15, 0.5) + c.uniform(0.1, 0.4) * lines + 0.1 * c.noise(0.2) + 0.07 * c.grain, 0.0
    )
    c.blood += mask * np.maximum(c.uniform(0.12, 0.42) + 0.06 * c.grain, 0.0)
    kind = c.rng.choice(["patch", "network", "homogeneous"], p=[0.6, 0.25, 0.15])
    if kind == "homogeneous":
        c.melanin += 0.3 * mask * ramp(distance, 0.9, 0.2)
        return
    patch_radius = c.uniform(0.3, 0.55)
    patch = ramp(distance + 0.12 * c.noise(0.2) + 0.12 * c.grain, patch_radius + 0.3, patch_radius - 0.25)
    c.melanin *= 1.0 - 0.6 * patch
    c.blood *= 1.0 - 0.3 * patch
    if kind == "network":
        patch = patch * (0.2 + 0.8 * ramp(c.cells(c.uniform(0.08, 0.12), 0.05).wall, 0.45, 0.05))
        c.blood += 0.15 * patch
    c.pale += np.float32(c.uniform(0.25, 0.6)) * patch


def _draw_vasc(c: Canvas) -> None:
    """Vascular lesion: sharply bordered red, purple or black lacunae with whitish septa.

    Three in ten are homogeneously red, some of them with a pale collarette.
    """
    distance = c.outline(0.05, 0.05, 1.35)
    mask = ramp(distance, 1.05, c.uniform(0.82, 0.93))
    redness = c.uniform(0.6, 1.4)
    purple = max(0.0, c.uniform(-0.5, 0.7))
    if c.chance(0.72):
        cells = c.cells(c.radius * c.uniform(0.22, 0.48), 0.09)
        value = cells.value
        # Round, of many sizes, and some cells stay empty: lacunae are scattered in a red-blue ground, not a
        # mosaic.
        size = 0.30 + 0.20 * value
        lacunae = ramp(cells.centre / size + 0.2 * c.grain, c.uniform(1.15, 1.3), c.uniform(0.6, 0.8)) * ramp(
            value, 0.0, 0.4
        )
        c.blood += mask * redness * (0.5 + lacunae * (0.35 + 0.7 * value) + 0.1 * c.grain)
        c.melanin += mask * lacunae * (0.8 * purple + c.uniform(0.0, 1.0) * ramp(value, 0.6, 0.8))
        c.blue += mask * np.float32(0.55 * purple) * (0.3 + 0.7 * lacunae)
        c.pale += mask * (1.0 - lacunae) * np.float32(c.uniform(0.0, 0.25)) * ramp(c.noise(0.2), -0.8, 0.6)
    else:
        c.blood += mask * np.maximum(redness * (1.0 + 0.2 * c.noise(0.2) + 0.12 * c.grain), 0.1)
        c.melanin += mask * np.maximum(0.7 * purple + 0.3 * c.noise(0.2), 0.0)
        if c.chance(0.5):
            c.pale += np.float32(c.uniform(0.2, 0.5)) * ramp(np.abs(distance - 1.03), 0.16, 0.02)
    c.blood = np.maximum(c.blood, 0.0) + c.uniform(0.0, 0.3) * ramp(distance, 1.5, 0.95)  # a reddish halo


# Radius range in frame units (half the picture is 1): overlapping on purpose, size alone must not give the
# class away.
_ANATOMY: dict[str, tuple[Callable[[Canvas], None], float, float]] = {
    "akiec": (_draw_akiec, 0.40, 0.85),
    "bcc": (_draw_bcc, 0.36, 0.78),
    "bkl": (_draw_bkl, 0.32, 0.82),
    "df": (_draw_df, 0.34, 0.70),
    "mel": (_draw_mel, 0.36, 0.82),
    "nv": (_draw_nv, 0.28, 0.76),
    "vasc": (_draw_vasc, 0.24, 0.62),
}


def draw_anatomy(class_code: str, rng: np.random.Generator, size_px: int) -> Canvas:
    """Draw one lesion's planes, resolved for a picture of size_px; all fade to zero at the canvas edge."""
    draw, smallest, largest = _ANATOMY[class_code]
    radius = float(rng.uniform(smallest, largest))
    # 0.85 canvas pixels per picture pixel: what the camera's lens would blur anyway, at 72% of the work.
    # Multiples of 8, so that the cached spline weights are met again.
    side_px = min(MAX_CANVAS_PX, max(32, 8 * round(radius * CANVAS_PER_RADIUS * size_px * 0.85 / 8.0)))
    canvas = Canvas(rng, radius, side_px)
    draw(canvas)
    fade = ramp(np.abs(np.linspace(-1.0, 1.0, side_px, dtype=np.float32)), 1.0, 0.88)
    # Many lesions are faint, whatever they are.
    window = fade[:, None] * fade[None, :] * np.float32(1.0 - 0.6 * rng.beta(1.0, 1.6))
    canvas.melanin *= window
    canvas.blood *= window
    canvas.blue *= window
    canvas.pale *= window
    return canvas
