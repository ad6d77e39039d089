"""Hostile uploads and requests made up from the OpenAPI: no 500, no hang, no path of the server in an answer."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from lentigo.data.synthetic import draw_lesion
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.limits import ServiceLimits
from lentigo.deploy.service import create_app

ALL = list(hypothesis.HealthCheck)
ALLOWED = {200, 400, 413, 415, 422}
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
MAGIC = (
    b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"II*\0", b"MM\0*", b"BM", b"GIF89a",
    b"P6 9 9 255\n",
    bytes(128) + b"DICM", b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypavif", b"%PDF-1.4", b"PK\3\4", b"\x7fELF",
)  # fmt: skip
NAMES = (
    "a.jpg",
    "../../etc/passwd",
    "",
    "\\\\host\\share",
    "𝔘",
    "x" * 3000,
    "CON",
    "a;b",
    "a.jpg",
    '"; x="',
    "a\r\nb",
    "\0",
)


@pytest.fixture
def app(tiny_model: Path) -> FastAPI:
    limits = ServiceLimits(max_file_bytes=200_000, max_request_bytes=400_000, timeout_s=30, workers=2)
    return create_app(Classifier.load(tiny_model, threads=1), limits=limits, model_folder=tiny_model)


@pytest.fixture(scope="module")
def originals() -> list[bytes]:
    """A small drawing in every format."""
    picture = Image.fromarray(draw_lesion("mel", lesion_seed=1, size_px=64))
    files = []
    for name in FORMATS:
        buffer = io.BytesIO()
        picture.save(buffer, name)
        files.append(buffer.getvalue())
    return files


def hostile_file(chance: random.Random, originals: list[bytes]) -> bytes:
    """Noise, noise with a head, or a file that was cut, flipped, doubled or joined to another."""
    noise = chance.randbytes(chance.randrange(400))
    content = bytearray(chance.choice(originals))
    match chance.randrange(6):
        case 0:
            return chance.choice(MAGIC) + noise
        case 1:
            return bytes(content[: chance.randrange(len(content))])
        case 2:
            for _ in range(chance.randrange(1, 20)):
                content[chance.randrange(min(len(content), 300))] = chance.randrange(256)
            return bytes(content)
        case 3:
            place = chance.randrange(len(content))
            return bytes(content[:place]) + noise + bytes(content[place:])
        case 4:
            return bytes(content[:50]) + chance.choice(originals)[50:]
        case _:
            return chance.randbytes(250_000) if chance.random() < 0.1 else bytes(content) + noise


def hostile_request(chance: random.Random, originals: list[bytes]) -> tuple[bytes, str]:
    """A multipart body, often broken, and its content type."""
    boundary = chance.choice((b"b", b"-" * 60) * 8 + (b"x y", b"\xff"))
    parts = []
    for _ in range(chance.randrange(1, 4)):
        field, name = chance.choice((b"images",) * 20 + (b"other", b"")), chance.choice(NAMES).encode()
        head = b'Content-Disposition: form-data; name="' + field + b'"; filename="' + name + b'"'
        parts.append(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + hostile_file(chance, originals) + b"\r\n")
    body = b"".join(parts) + b"--" + boundary + b"--\r\n"
    if chance.random() < 0.1:
        body = body[: chance.randrange(len(body))]
    kind = f"multipart/form-data; boundary={boundary.decode('latin-1')}"
    if chance.random() < 0.05:
        kind = chance.choice(("", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "a;" * 99))
    return body, kind


@pytest.mark.parametrize(("seed", "uploads"), [(11, 300), pytest.param(12, 2000, marks=pytest.mark.slow)])
def test_hostile_uploads(app: FastAPI, originals: list[bytes], tiny_model: Path, seed: int, uploads: int) -> None:
    chance = random.Random(seed)
    statuses: dict[int, int] = {}
    with TestClient(app, base_url="http://localhost") as client:
        for number in range(uploads):
            body, kind = hostile_request(chance, originals)
            headers = {"content-type": kind.encode("latin-1")}
            said = client.post("/api/predict?heatmap=1", content=body, headers=headers)
            assert said.status_code in ALLOWED, (number, said.text)
            statuses[said.status_code] = statuses.get(said.status_code, 0) + 1
            answers = said.json() if said.status_code == 200 else [said.json()]
            for answer in answers:
                assert ("label" in answer) != ("error" in answer), number
                text = f"{answer.get('error')} {answer.get('remedy')}"
                assert not any(
                    part in text for part in (str(tiny_model), "/usr", "site-packages", "Traceback", ".py")
                ), text
        assert "lentigo_held_bytes 0" in client.get("/metrics").text
        assert client.get("/api/health").status_code == 200
    assert statuses[200] > uploads // 3, f"most requests must get as far as the decoders: {statuses}"


@pytest.mark.slow
def test_requests_made_up_from_the_openapi(app: FastAPI) -> None:
    """Whatever fits the description is answered as described, and whatever does not is refused."""
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers={"host": "localhost"})
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=ALL)
        @hypothesis.given(case=operation.as_strategy())
        def check(case: Any) -> None:
            case.call_and_validate(base_url="http://localhost", headers={"host": "localhost"})

        check()
        tried += 1
    assert tried == len(app.openapi()["paths"])
