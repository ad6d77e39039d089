"""How fast are synthetic images drawn and written, in one process? Prints one JSON line.

python benchmarks/synthetic.py --images 200
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.synthetic import draw_lesion, write_synthetic


def main() -> None:
    """Time the first image (it makes the cell tile), the drawing and the writing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200, help="images to draw, and images to write")
    parser.add_argument("--size-px", type=int, default=300)
    arguments = parser.parse_args()

    start = time.perf_counter()
    draw_lesion(CLASS_CODES[0], lesion_seed=0, size_px=arguments.size_px)
    first_image_s = time.perf_counter() - start

    start = time.perf_counter()
    for number in range(arguments.images):
        draw_lesion(CLASS_CODES[number % len(CLASS_CODES)], lesion_seed=number, size_px=arguments.size_px)
    drawing_s = time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        start, cpu_start = time.perf_counter(), time.process_time()
        write_synthetic(Path(folder) / "synthetic", num_images=arguments.images, size_px=arguments.size_px)
        writing_s, writing_cpu_s = time.perf_counter() - start, time.process_time() - cpu_start

    result = {
        "benchmark": "synthetic",
        "images": arguments.images,
        "size_px": arguments.size_px,
        "first_image_s": round(first_image_s, 3),
        "drawn_images_per_s": round(arguments.images / drawing_s, 1),
        "written_images_per_s": round(arguments.images / writing_s, 1),
        # What an idle core would do: on a shared machine the clock on the wall measures the neighbours.
        "written_images_per_cpu_s": round(arguments.images / writing_cpu_s, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
