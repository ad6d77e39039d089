"""Speed and memory of `lentigo predict` against torch, timm and onnxruntime alone, same images, two threads, one run.

Every contender answers the same 600x450 JPEG files, made from drawings, in a process of its own; rounds alternate, so
that a busy machine hurts all. `compute`: onnxruntime alone on finished squares in memory, the best of three batch
sizes, is the limit that no program with this runtime can pass. Lentigo's rates are those of the whole command, with
its start, its check of each picture's quality and its file of answers; torch's and timm's begin after a warm-up batch,
without their imports. Cold: from the start of the process to its end, for one image. Prints JSON and, with --out,
writes it. The run must have been exported; `--runtime` names a Python with Lentigo's runtime alone.

    python benchmarks/inference.py --run runs/my-run --runtime runtime/bin/python --out results/benchmark-inference.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

THREADS = 2
BATCH_SIZE = 32
DRAWINGS = 60
SIZE_PX = (600, 450)
JPEG_QUALITY = 92


def make_images(folder: Path, count: int) -> list[Path]:
    """JPEG files of drawings, each file another crop: no two have the same bytes."""
    from lentigo.core.taxonomy import CLASS_CODES
    from lentigo.data.synthetic import draw_lesion

    drawings = [draw_lesion(CLASS_CODES[i % 7], lesion_seed=i, size_px=640) for i in range(min(DRAWINGS, count))]
    files = []
    for number in range(count):
        picture = Image.fromarray(drawings[number % len(drawings)])
        left, top = number % 40, (number // 40) % 190
        files.append(folder / f"image_{number:05d}.jpg")
        picture.crop((left, top, left + SIZE_PX[0], top + SIZE_PX[1])).save(files[-1], quality=JPEG_QUALITY)
    return files


def child_compute(arguments: argparse.Namespace) -> dict[str, Any]:
    """Images a second of the graph alone, by batch size."""
    import onnxruntime

    from lentigo.deploy.exported import INPUT_NAME, LOGITS_NAME, ExportedModel

    folder = arguments.run / "export"
    spec = ExportedModel.load(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(spec.read_graph(folder, arguments.variant), options)
    side = spec.preprocess.input_size_px
    squares = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, side, side, 3), dtype=np.uint8)
    rates = {}
    for batch_size in (1, 8, 32):
        batch = squares[:batch_size]
        session.run([LOGITS_NAME], {INPUT_NAME: batch})
        start_s, done = time.perf_counter(), 0
        while done < arguments.count:
            session.run([LOGITS_NAME], {INPUT_NAME: batch})
            done += batch_size
        rates[str(batch_size)] = done / (time.perf_counter() - start_s)
    return {"images_per_s": max(rates.values()), "by_batch_size": rates}


def child_prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Images a second of what lies before the graph, each thread with its own files, without the graph.

    Variant: decode, squares, or prepare.
    """
    from lentigo.data.images import load_image
    from lentigo.deploy.classifier import Classifier

    classifier = Classifier.load(arguments.run, threads=1, quality=arguments.variant == "prepare")
    work = load_image if arguments.variant == "decode" else classifier.prepare
    files = sorted(arguments.images.iterdir())[: arguments.count]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, files[:BATCH_SIZE]))
        start_s = time.perf_counter()
        for _ in pool.map(work, files):
            pass
    return {"images_per_s": len(files) / (time.perf_counter() - start_s), "n": len(files)}


def child_warm(arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds for one image file, decoded and judged, from a loaded classifier."""
    from lentigo.deploy.classifier import Classifier

    classifier = Classifier.load(arguments.run, variant=arguments.variant, threads=THREADS)
    files = sorted(arguments.images.iterdir())[:100]
    classifier.predict(files[0])
    spent_ms = []
    for file in files:
        start_s = time.perf_counter()
        classifier.predict(file)
        spent_ms.append(1e3 * (time.perf_counter() - start_s))
    return {"median_ms": statistics.median(spent_ms), "p95_ms": float(np.percentile(spent_ms, 95)), "n": len(files)}


def child_torch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Images a second of torch with Lentigo's own preprocessing: eager, channels_last or compiled."""
    import torch

    from lentigo.data.images import load_image
    from lentigo.models.checkpoint import load_checkpoint

    torch.set_num_threads(THREADS)
    network, spec = load_checkpoint(arguments.run / "checkpoints" / "best.safetensors")
    layout = torch.contiguous_format if arguments.variant == "eager" else torch.channels_last
    network = network.to(memory_format=layout)
    if arguments.variant == "compile":
        network = torch.compile(network)

    def answer(files: list[Path]) -> None:
        squares = torch.from_numpy(np.stack([spec.preprocess(load_image(file)) for file in files]))
        network(squares.to(memory_format=layout))

    return _time_batches(answer, arguments)


def child_timm(arguments: argparse.Namespace) -> dict[str, Any]:
    """Images a second of timm's MobileNetV2 with its own transforms and reader, two loader processes."""
    import timm
    import torch
    from timm.data import ImageDataset, create_loader, resolve_model_data_config

    torch.set_num_threads(THREADS)
    network = timm.create_model("mobilenetv2_100", num_classes=7).eval()
    config = resolve_model_data_config(network)
    loader = create_loader(
        ImageDataset(str(arguments.images)),
        input_size=config["input_size"],
        batch_size=BATCH_SIZE,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        use_prefetcher=False,
        num_workers=THREADS,
    )
    done, start_s = 0, 0.0
    with torch.inference_mode():
        for images, _ in loader:
            network(images)
            if not start_s:
                start_s = time.perf_counter()
                continue
            done += len(images)
            if done >= arguments.count:
                break
    return {"images_per_s": done / (time.perf_counter() - start_s), "n": done}


def child_torch_cold(arguments: argparse.Namespace) -> dict[str, Any]:
    """One image from a fresh process that imports torch."""
    import torch

    from lentigo.data.images import load_image
    from lentigo.models.checkpoint import load_checkpoint

    network, spec = load_checkpoint(arguments.run / "checkpoints" / "best.safetensors")
    with torch.inference_mode():
        square = torch.from_numpy(spec.preprocess(load_image(next(arguments.images.iterdir())))[None])
        return {"probs": network(square).softmax(dim=1)[0].tolist()}


def _time_batches(answer: Callable[[list[Path]], None], arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    files = sorted(arguments.images.iterdir())
    with torch.inference_mode():
        answer(files[:BATCH_SIZE])
        start_s, done = time.perf_counter(), 0
        while done < arguments.count:
            batch = files[done : done + BATCH_SIZE]
            answer(batch)
            done += len(batch)
    return {"images_per_s": done / (time.perf_counter() - start_s), "n": done}


CHILDREN: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "compute": child_compute,
    "prepare": child_prepare,
    "warm": child_warm,
    "torch": child_torch,
    "timm": child_timm,
    "torch_cold": child_torch_cold,
}


def run_child(kind: str, variant: str, run: Path, images: Path, count: int) -> dict[str, Any]:
    """A contender in a fresh process; its result and its peak memory in MB."""
    command = [sys.executable, __file__, "--child", kind, "--variant", variant, "--run", str(run)]
    command += ["--images", str(images), "--count", str(count)]
    said = subprocess.run(command, capture_output=True, text=True, env=_environment())
    if said.returncode:
        raise SystemExit(f"{kind} {variant} failed:\n{said.stderr}")
    found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
    return found


def timed(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory in MB of a command that must succeed."""
    start_s = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment())
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start_s
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{text.decode()}")
    return wall_s, usage.ru_maxrss / 1024


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}


def predict_command(python: str, arguments: argparse.Namespace, variant: str, *rest: str) -> list[str]:
    """`lentigo predict` with the exported model."""
    start = [python, "-m", "lentigo", "predict", "--model", str(arguments.run), "--variant", variant]
    return [*start, "--threads", str(THREADS), *rest]


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All contenders, `--rounds` times in turn."""
    images = folder / "images"
    images.mkdir()
    files = make_images(images, arguments.count)
    variants = list(json.loads((arguments.run / "export" / "model.json").read_text())["variants"])
    rates: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    few = min(arguments.count, arguments.torch_count)

    def note(name: str, rate: float, memory_mb: float) -> None:
        rates.setdefault(name, []).append(round(rate, 1))
        memory[name] = round(max(memory.get(name, 0.0), memory_mb))
        print(f"{name}: {rate:.1f} images/s", file=sys.stderr)

    for number in range(arguments.rounds):
        for variant in variants:
            found = run_child("compute", variant, arguments.run, images, arguments.count)
            note(f"compute_{variant}", found["images_per_s"], found["peak_mb"])
            out = folder / f"{variant}-{number}.csv"
            command = predict_command(sys.executable, arguments, variant, str(images), "--out", str(out))
            wall_s, memory_mb = timed([*command, "--format", "csv"])
            note(f"lentigo_{variant}", len(files) / wall_s, memory_mb)
        for step in ("decode", "squares", "prepare"):
            found = run_child("prepare", step, arguments.run, images, arguments.count)
            note(step, found["images_per_s"], found["peak_mb"])
        for variant in ("eager", "channels_last", "compile"):
            found = run_child("torch", variant, arguments.run, images, few)
            note(f"torch_{variant}", found["images_per_s"], found["peak_mb"])
        found = run_child("timm", "eager", arguments.run, images, few)
        note("timm", found["images_per_s"], found["peak_mb"])

    python = str(arguments.runtime or sys.executable)
    cold: dict[str, list[float]] = {"lentigo": [], "torch": []}
    for _ in range(arguments.cold_rounds):
        command = predict_command(python, arguments, variants[0], str(files[0]))
        cold["lentigo"].append(round(timed(command)[0], 3))
        torch_command = [sys.executable, __file__, "--child", "torch_cold", "--run", str(arguments.run)]
        cold["torch"].append(round(timed([*torch_command, "--images", str(images)])[0], 3))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    cold_s = {name: statistics.median(values) for name, values in cold.items()}
    return {
        "images": f"{len(files)} JPEG files of {SIZE_PX[0]}x{SIZE_PX[1]} px, {_mean_kb(files)} kB on average; "
        f"torch and timm: the first {few}",
        "threads": THREADS,
        "images_per_s": rates,
        "median_images_per_s": medians,
        "share_of_compute": {v: round(medians[f"lentigo_{v}"] / medians[f"compute_{v}"], 3) for v in variants},
        "largest_share_with_decoding": {
            v: round(medians["decode"] / (medians["decode"] + medians[f"compute_{v}"]), 3) for v in variants
        },
        "ratio_to_torch_eager": {v: round(medians[f"lentigo_{v}"] / medians["torch_eager"], 2) for v in variants},
        "int8_to_fp32": round(medians["lentigo_int8"] / medians["lentigo_fp32"], 2) if "int8" in variants else None,
        "peak_mb": memory,
        "cold_s": cold,
        "median_cold_s": cold_s,
        "cold_ratio": round(cold_s["torch"] / cold_s["lentigo"], 2),
        "runtime_alone": arguments.runtime is not None,
        "warm_ms": {v: run_child("warm", v, arguments.run, images, few) for v in variants},
    }


def _mean_kb(files: list[Path]) -> int:
    return round(statistics.mean(file.stat().st_size for file in files) / 1000)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run that was exported")
    parser.add_argument("--runtime", type=Path, help="Python of an environment with the runtime alone")
    parser.add_argument("--count", type=int, default=2000, help="images")
    parser.add_argument("--torch-count", type=int, default=512, help="images that torch and timm answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold-rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--variant", default="fp32", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        found = CHILDREN[arguments.child](arguments)
        print(json.dumps(found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    from recording import record

    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    record(result, arguments.out)


if __name__ == "__main__":
    main()
