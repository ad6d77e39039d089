"""Small pictures for the report."""

from __future__ import annotations

import io

from PIL import Image

THUMBNAIL_PX = 160


def jpeg_thumbnail(image: Image.Image) -> bytes:
    """The image as a JPEG whose longer side is at most `THUMBNAIL_PX`."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
