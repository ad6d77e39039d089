"""Uploads -> answers, each image by one of a fixed number of threads."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from lentigo.core.errors import LentigoError
from lentigo.deploy.activation_map import Heat, activation_maps, color
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.guard import describe_bug
from lentigo.deploy.image_input import UNKNOWN_TO_DECODER
from lentigo.deploy.uploads import Upload

log = logging.getLogger("lentigo.service")

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerPool:
    """Works on single images, first come, first served, so that the images of one request share the threads as well.

    Images are not gathered into batches: `benchmarks/service_load.py` shows what that would bring.
    """

    classifier: Classifier
    executor: ThreadPoolExecutor

    @classmethod
    def start(cls, classifier: Classifier, workers: int) -> AnswerPool:
        """A pool of so many threads, which start when they are needed."""
        return cls(classifier, ThreadPoolExecutor(workers, thread_name_prefix="answers"))

    def stop(self) -> None:
        """Let the images in work finish and drop the others."""
        self.executor.shutdown(wait=True, cancel_futures=True)

    async def answer(self, uploads: Sequence[Upload], *, heatmap: bool) -> list[Answer]:
        """The answers in order; when the caller is cancelled, images that nobody has begun are dropped."""
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(self.executor, self.answer_one, upload, heatmap) for upload in uploads]
        try:
            return await asyncio.gather(*waiting)
        finally:
            for one in waiting:
                one.cancel()

    def answer_one(self, upload: Upload, heatmap: bool) -> Answer:
        """`Prediction.as_dict`, or name, error and remedy for a file that is no image that can be judged.

        With `heatmap` also `heatmap`, see `heat_png`: a data URI for the class that was answered, or None where the
        model's head allows no class activation map.
        """
        try:
            prepared = self.classifier.prepare(upload.content, upload.name)
        except LentigoError as error:
            return {"name": upload.name, "error": error.message, "remedy": error.remedy}
        except Exception as error:  # decoders raise anything on hostile files; the other images are answered
            log.error("no decoding: %s", describe_bug(error))
            message = f"{upload.name} cannot be read ({type(error).__name__})"
            return {"name": upload.name, "error": message, "remedy": UNKNOWN_TO_DECODER}
        pixels = prepared.pixels[None]
        judged = self.classifier.judge(pixels)
        flags = [prepared.quality_flags]
        prediction = self.classifier.decide([upload.name], judged.logits, flags, judged.distances)[0]
        answer = prediction.as_dict()
        if heatmap:
            answer["heatmap"] = None
            if self.classifier.spec.head_weight:
                heat = activation_maps(self.classifier, pixels, [prediction.label])[0]
                encoded = base64.b64encode(heat_png(heat, pixels.shape[1])).decode("ascii")
                answer["heatmap"] = f"data:image/png;base64,{encoded}"
        return answer


def heat_png(heat: Heat, side_px: int) -> bytes:
    """A heat map (H, W) in 0..1 as a PNG of `side_px`: colour, and opacity that follows the heat.

    Laid over the square that the network saw with a layer opacity of `activation_map.OPACITY`, it gives the same
    picture as `activation_map.overlay`; the page has a slider for that opacity.
    """
    wide = Image.fromarray(heat).resize((side_px, side_px), Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(wide, dtype=np.float32), 0, 1)
    layers = np.concatenate([color(strength), 255 * strength[..., None]], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(np.rint(layers).astype(np.uint8), "RGBA").save(buffer, "PNG")
    return buffer.getvalue()
