"""Where a network looks: Grad-CAM maps, and two checks of whether the maps say anything.

A class map (Selvaraju et al., ICCV 2017) weighs the last feature map's channels by the mean gradient of the class's
logit. It is as coarse as that feature map (7 x 7 at 224 px) and shows where evidence lay, not whether it was good.

Maps of any network please the eye, so they are checked on the very images they are shown for:

- deletion (Petsiuk et al., BMVC 2018): take away the picture from the most salient part on. The class's probability
  must fall faster than in random order, and faster than from the centre outwards: lesions are centred, and a map that
  always points there would beat the random order without looking.
- randomised weights (Adebayo et al., NeurIPS 2018): the same network with random weights must give other maps. What
  "other" means is read off the mirrored image, whose map, mirrored back, should be the same.

All numbers are means over images with lesion-bootstrap intervals.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from lentigo.core.errors import ConfigError, MissingExtraError
from lentigo.core.seeding import derive_seed
from lentigo.evaluation.intervals import mean_estimate
from lentigo.evaluation.metrics import Estimate, Floats, Groups, Labels, ratio
from lentigo.models.checkpoint import ModelSpec
from lentigo.models.network import build_network, find_architecture
from lentigo.training.inference import Progress

Maps = NDArray[np.float32]

OPACITY = 0.65
CELLS_PER_SIDE = 14
"""Parts that are taken away: twice as fine as the map of a MobileNet at 224 px, which is all it can resolve."""
DELETION_STEPS = 7
_BATCH = 8


class ExplanationCheck(BaseModel):
    """Means over images. Deletion areas are mean probabilities of the shown class while the picture disappears, 0..1.

    `beats_random` and `beats_centre` are paired differences of areas, above 0 where the map's order is the faster one.
    Similarities are Spearman correlations of maps, -1..1, of the same image; None where a map is constant.
    """

    model_config = ConfigDict(frozen=True)

    n_images: int
    n_lesions: int
    seed: int
    deletion: Estimate
    deletion_random: Estimate
    deletion_centre: Estimate
    beats_random: Estimate
    beats_centre: Estimate
    similarity_randomised: Estimate
    similarity_mirrored: Estimate

    @property
    def findings(self) -> tuple[str, ...]:
        """What the two checks say, one sentence each."""
        depends = _below(self.similarity_randomised, self.similarity_mirrored)
        return (
            f"Deletion against a random order: {_finding(self.beats_random)}.",
            f"Deletion against centre first: {_finding(self.beats_centre)}.",
            "Randomised weights: the maps "
            + ("depend on what was learnt." if depends else "are not shown to depend on what was learnt."),
        )


def class_maps(network: nn.Module, cam_layer: str, inputs: Tensor, targets: Labels) -> Maps:
    """Signed Grad-CAM maps on the layer's own grid, (N, h, w); negative where the class was contradicted.

    The mean of the image's map and of that of the image turned by 180 degrees, turned back. Strided convolutions look
    at places half a cell (16 px) to one side of their cell's centre; a single map would lie there, too, and which
    side it is depends on the architecture's padding.

    inputs: (N, 3, S, S) normalised; targets: (N,) 0..6; `cam_layer`: a module's name (`Architecture.cam_layer`).

    Raises:
        ConfigError: where the layer has no square map of two or more cells a side, as in transformers.
        MissingExtraError: without captum.
    """
    if find_spec("captum") is None:
        raise MissingExtraError("captum", "train")
    from captum.attr import LayerGradCam

    cam = LayerGradCam(network.eval(), network.get_submodule(cam_layer))
    parts = []
    for start in range(0, len(inputs), _BATCH):
        batch = inputs[start : start + _BATCH]
        target = torch.from_numpy(targets[start : start + _BATCH]).to(inputs.device)
        upright = cam.attribute(batch.clone().requires_grad_(), target=target).detach()
        turned = cam.attribute(batch.flip(2, 3).requires_grad_(), target=target).detach()
        parts.append(((upright + turned.flip(tuple(range(2, turned.ndim)))) / 2).cpu())
    found = torch.cat(parts)
    if found.ndim != 4 or found.shape[2] != found.shape[3] or found.shape[2] < 2:
        raise ConfigError(
            f"expected a map of 2 x 2 or more cells from {cam_layer}; found {tuple(found.shape[2:])}",
            "Grad-CAM needs a convolutional network and an image of 64 px or more.",
        )
    maps: Maps = found[:, 0].numpy().astype(np.float32)
    return maps


def resize_maps(maps: Maps, size_px: int) -> Maps:
    """Maps (N, h, w) at another size, bicubic: (N, size_px, size_px)."""
    resized = nn.functional.interpolate(
        torch.from_numpy(maps)[:, None], size=(size_px, size_px), mode="bicubic", align_corners=False
    )
    result: Maps = resized[:, 0].numpy()
    return result


def to_heat(maps: Maps, size_px: int) -> Maps:
    """What speaks for the class, scaled to a maximum of 1: (N, size_px, size_px) in 0..1; all 0 where nothing does."""
    positive = np.maximum(resize_maps(np.maximum(maps, 0), size_px), 0)
    highest = positive.max(axis=(1, 2), keepdims=True)
    heat: Maps = np.divide(positive, highest, out=np.zeros_like(positive), where=highest > 0)
    return heat


def overlay(image: Image.Image, heat: Maps) -> Image.Image:
    """The image (mode L or RGB, any size) with its heat (S, S) in 0..1 laid over it, at the image's size.

    Viridis is perceptually uniform, readable without red-green vision, and its yellow and green do not occur in skin.
    Opacity follows the heat: where nothing spoke for the class the picture is left alone.
    """
    from matplotlib import colormaps

    scaled = Image.fromarray(np.asarray(heat, dtype=np.float32)).resize(image.size, Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(scaled), 0.0, 1.0)
    colors = 255.0 * colormaps["viridis"](strength)[..., :3]
    opacity = OPACITY * strength[..., None]
    mixed = (1.0 - opacity) * np.asarray(image.convert("RGB"), dtype=np.float64) + opacity * colors
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def deletion_areas(network: nn.Module, inputs: Tensor, targets: Labels, priority: Maps) -> Floats:
    """Area under the class's probability while cells are replaced in order of falling priority, (N,) in 0..1.

    priority: (N, CELLS_PER_SIDE, CELLS_PER_SIDE). A cell takes the mean colour of the image's border, as skin would
    look: black cells would imitate the rim of a dermatoscope. Trapezoid rule over `DELETION_STEPS` equal steps.
    """
    cells = priority.reshape(len(priority), -1)
    rank = np.argsort(np.argsort(-cells, axis=1, kind="stable"), axis=1).reshape(priority.shape)
    place = np.arange(inputs.shape[-1]) * CELLS_PER_SIDE // inputs.shape[-1]
    rank_of_pixel = torch.from_numpy(rank[:, place][:, :, place])[:, None].to(inputs.device)
    edge = (inputs[..., 0, :], inputs[..., -1, :], inputs[..., :, 0], inputs[..., :, -1])
    border = torch.cat(edge, dim=-1).mean(dim=-1)[..., None, None]
    removed = [step * cells.shape[1] / DELETION_STEPS for step in range(DELETION_STEPS + 1)]
    curve = [
        class_probability(network, torch.where(rank_of_pixel < count, border, inputs), targets) for count in removed
    ]
    area: Floats = np.trapezoid(np.stack(curve, axis=1), dx=1.0 / DELETION_STEPS, axis=1)
    return area


def class_probability(network: nn.Module, inputs: Tensor, targets: Labels) -> Floats:
    """Softmax probability of each image's target, (N,) float64."""
    return all_probabilities(network, inputs)[np.arange(len(targets)), targets]


def all_probabilities(network: nn.Module, inputs: Tensor) -> Floats:
    """Softmax probabilities (N, 7) float64 of one view."""
    with torch.inference_mode():
        logits = torch.cat([network(batch).float() for batch in inputs.split(_BATCH)])
    probs: Floats = logits.double().softmax(dim=1).cpu().numpy()
    return probs


def check_explanations(
    network: nn.Module,
    spec: ModelSpec,
    inputs: Tensor,
    targets: Labels,
    lesions: Groups,
    maps: Maps,
    *,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> ExplanationCheck:
    """Both checks on the images that are shown.

    inputs: (N, 3, S, S) normalised; targets: (N,) the shown classes; maps: their `class_maps`.
    """
    generator = np.random.default_rng(derive_seed(seed, "deletion"))
    count, shape = len(inputs), (CELLS_PER_SIDE, CELLS_PER_SIDE)
    middle = np.arange(CELLS_PER_SIDE) - (CELLS_PER_SIDE - 1) / 2
    outwards = -np.hypot(middle[:, None], middle[None, :])
    orders = {
        "deletion": resize_maps(maps, CELLS_PER_SIDE),
        "deletion_random": generator.random((count, *shape), dtype=np.float32),
        "deletion_centre": np.broadcast_to(outwards.astype(np.float32), (count, *shape)),
    }
    values: dict[str, Floats] = {}
    for done, (name, priority) in enumerate(orders.items(), start=1):
        values[name] = deletion_areas(network, inputs, targets, priority)
        progress(done, len(orders) + 2)
    values["beats_random"] = values["deletion_random"] - values["deletion"]
    values["beats_centre"] = values["deletion_centre"] - values["deletion"]
    layer = find_architecture(spec.architecture).cam_layer
    randomised = class_maps(randomised_network(spec, seed).to(inputs.device), layer, inputs, targets)
    values["similarity_randomised"] = spearman(maps, randomised)
    progress(len(orders) + 1, len(orders) + 2)
    mirrored = class_maps(network, layer, inputs.flip(3), targets)[:, :, ::-1]
    values["similarity_mirrored"] = spearman(maps, mirrored)
    progress(len(orders) + 2, len(orders) + 2)
    return ExplanationCheck(
        n_images=count,
        n_lesions=len(set(lesions)),
        seed=seed,
        **{name: mean_estimate(one, lesions, resamples=resamples, seed=seed) for name, one in values.items()},
    )


def randomised_network(spec: ModelSpec, seed: int) -> nn.Module:
    """The architecture with fresh random weights, in evaluation mode; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derive_seed(seed, "randomised weights"))
        return build_network(spec.architecture, len(spec.classes), spec.dropout).eval()


def spearman(first: Maps, second: Maps) -> Floats:
    """Rank correlation of each pair of maps (N, h, w), (N,); nan where one of the two is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)]
    a, b = (one - one.mean(axis=1, keepdims=True) for one in ranks)
    return ratio((a * b).sum(axis=1), np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))


def _finding(difference: Estimate) -> str:
    if difference.ci_low is None or difference.ci_high is None:
        return "unknown, there is no interval"
    return "better" if difference.ci_low > 0 else "worse" if difference.ci_high < 0 else "no difference shown"


def _below(first: Estimate, second: Estimate) -> bool:
    return first.ci_high is not None and second.ci_low is not None and first.ci_high < second.ci_low
