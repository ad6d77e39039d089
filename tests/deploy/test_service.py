"""The HTTP service in process: answers, limits, refusals, headers, and nothing that gets out."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import re
import struct
import tempfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import TypeAdapter

from lentigo.core.errors import ConfigError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.synthetic import draw_lesion
from lentigo.deploy import answers as answers_module
from lentigo.deploy.activation_map import OPACITY, activation_maps, overlay
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.exported import NOTICE
from lentigo.deploy.golden import check_golden, write_golden
from lentigo.deploy.guard import MAX_BODY_BYTES, SECURITY_HEADERS
from lentigo.deploy.limits import MEBIBYTE, ServiceLimits
from lentigo.deploy.service import create_app
from lentigo.deploy.service_metrics import resident_bytes
from lentigo.deploy.service_models import ImageAnswer, ImageProblem
from lentigo.deploy.site_files import read_site
from lentigo.deploy.uploads import MAX_NAME_CHARACTERS, clean_name

TOKEN = "a-token-of-some-length"
SMALL = ServiceLimits(
    max_file_bytes=60_000, max_request_bytes=150_000, max_files=4, max_requests=2, timeout_s=20, workers=2
)
BASE = "http://localhost"
ALL_ROUTES = (
    ("GET", "/"),
    ("GET", "/api/health"),
    ("GET", "/api/model"),
    ("GET", "/api/docs"),
    ("GET", "/api/openapi.json"),
    ("GET", "/metrics"),
    ("GET", "/model/model.json"),
    ("GET", "/model/model.onnx"),
    ("GET", "/pages.css"),
    ("GET", "/nothing/here"),
    ("HEAD", "/pages.css"),
    ("DELETE", "/api/predict"),
    ("POST", "/api/predict"),
)


def jpeg(number: int = 0, size_px: int = 120) -> bytes:
    """A drawing as a JPEG file."""
    buffer = io.BytesIO()
    drawing = draw_lesion(CLASS_CODES[number % 7], lesion_seed=number, size_px=size_px)
    Image.fromarray(drawing).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def images(*contents: bytes, name: str = "lesion.jpg") -> list[tuple[str, tuple[str, bytes]]]:
    """The multipart fields of a request."""
    return [("images", (name, content)) for content in contents]


@pytest.fixture(scope="module")
def classifier(tiny_model: Path) -> Classifier:
    return Classifier.load(tiny_model, threads=1)


@pytest.fixture(scope="module")
def app(classifier: Classifier, tiny_model: Path) -> FastAPI:
    return create_app(classifier, limits=SMALL, model_folder=tiny_model)


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    """Without a `with`: the lifespan would end the application's pool, which all tests share."""
    return TestClient(app, base_url=BASE, raise_server_exceptions=False, follow_redirects=False)


def test_an_answer_is_the_classifiers(client: TestClient, classifier: Classifier) -> None:
    content = jpeg(4)
    said = client.post("/api/predict", files=images(content))
    assert said.status_code == 200
    [answer] = said.json()
    prepared = classifier.prepare(content, "lesion.jpg")
    judged = classifier.judge(prepared.pixels[None])
    flags = [prepared.quality_flags]
    [expected] = classifier.decide(["lesion.jpg"], judged.logits, flags, judged.distances)
    assert answer == json.loads(json.dumps(expected.as_dict()))
    assert set(answer) == set(ImageAnswer.model_fields) - {"heatmap"}


def test_a_bad_file_among_good_ones_has_its_own_error_and_the_order_stays(client: TestClient) -> None:
    files = [("images", ("a.jpg", jpeg(1))), ("images", ("b.jpg", b"hello")), ("images", ("c.jpg", jpeg(2)))]
    said = client.post("/api/predict", files=files)
    assert said.status_code == 200
    found = TypeAdapter(list[ImageAnswer | ImageProblem]).validate_python(said.json())
    assert [one.name for one in found] == ["a.jpg", "b.jpg", "c.jpg"]
    assert isinstance(found[1], ImageProblem)
    assert "not an image" in found[1].error
    assert found[1].remedy


def test_a_decoder_that_fails_in_its_own_way_costs_one_image_alone(
    classifier: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    hostile = SlowClassifier(classifier)
    hostile.go.set()
    errors = {"a.jpg": MemoryError("secret"), "b.jpg": RecursionError("secret"), "c.jpg": struct.error("secret")}

    def prepare(image: bytes, name: str) -> Any:
        if name in errors:
            raise errors[name]
        return SlowClassifier.prepare(hostile, image, name)

    hostile.prepare = prepare  # type: ignore[method-assign]
    client = TestClient(create_app(hostile), base_url=BASE)  # type: ignore[arg-type]
    said = client.post("/api/predict", files=[("images", (name, jpeg())) for name in (*errors, "d.jpg")])
    assert said.status_code == 200
    *failed, fine = TypeAdapter(list[ImageAnswer | ImageProblem]).validate_python(said.json())
    for one, (name, error) in zip(failed, errors.items(), strict=True):
        assert isinstance(one, ImageProblem)
        assert (one.name, one.error) == (name, f"{name} cannot be read ({type(error).__name__})")
        assert one.remedy
    assert isinstance(fine, ImageAnswer)
    assert "MemoryError at prepare:" in caplog.text
    for text in (said.text, caplog.text):
        assert "secret" not in text
    assert ".jpg" not in caplog.text


def test_magic_bytes_decide_not_the_announced_type(client: TestClient) -> None:
    files = [
        ("images", ("photo.jpg", b"GIF89a is not all of it", "image/jpeg")),
        ("images", ("page.html", jpeg(), "text/html")),
    ]
    broken, fine = client.post("/api/predict", files=files).json()
    assert "error" in broken
    assert fine["label"] in CLASS_CODES


def test_a_picture_of_too_many_pixels_is_refused_unopened(client: TestClient) -> None:
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    small = buffer.getvalue()
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + small[24:29]
    bomb = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
    [answer] = client.post("/api/predict", files=images(bomb)).json()
    assert "too large" in answer["error"]


def test_the_heat_laid_over_the_square_is_the_overlay(client: TestClient, classifier: Classifier) -> None:
    content = jpeg(3)
    [answer] = client.post("/api/predict?heatmap=1", files=images(content)).json()
    kind, _, encoded = answer["heatmap"].partition(",")
    assert kind == "data:image/png;base64"
    heat = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert heat.mode == "RGBA"
    pixels = classifier.prepare(content).pixels
    expected = overlay(Image.fromarray(pixels), activation_maps(classifier, pixels[None], [answer["label"]])[0])
    layer = np.asarray(heat, dtype=np.float64)
    opacity = OPACITY * layer[..., 3:] / 255
    mixed = (1 - opacity) * pixels + opacity * layer[..., :3]
    assert np.abs(mixed - np.asarray(expected)).max() <= 2


def test_a_model_without_a_linear_head_has_no_heat(tiny_gray_model: Path) -> None:
    app = create_app(Classifier.load(tiny_gray_model, threads=1), limits=SMALL)
    client = TestClient(app, base_url=BASE)
    [answer] = client.post("/api/predict?heatmap=true", files=images(jpeg())).json()
    assert answer["heatmap"] is None
    assert answer["abstain_reasons"]
    assert client.get("/model/model.json").status_code == 404, "no folder was given"


def test_golden_inputs(client: TestClient, classifier: Classifier, tmp_path: Path) -> None:
    write_golden(tmp_path, classifier.spec.preprocess, {"fp32": classifier.session.logits})

    def ask(path: Path) -> list[float]:
        [answer] = client.post("/api/predict", files=images(path.read_bytes(), name=path.name)).json()
        return answer["logits"]  # type: ignore[no-any-return]

    assert check_golden(tmp_path, ask) <= 1e-4
    assert len(list(tmp_path.glob("*.jpg"))) + len(list(tmp_path.glob("*.png"))) == 20


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"{}", {"content-type": "application/json"}, 415, "multipart/form-data"),
        (b"", {}, 415, "multipart/form-data"),
        (b"xx", {"content-type": "multipart/form-data"}, 400, "boundary"),
        (b"xx", {"content-type": "multipart/form-data; boundary=b"}, 400, "multipart"),
        (b"--b--\r\n", {"content-type": "multipart/form-data; boundary=b"}, 422, "found none"),
        (
            b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nhalf',
            {"content-type": "multipart/form-data; boundary=b"},
            400,
            "middle",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\n1\r\n--b--\r\n',
            {"content-type": "multipart/form-data; boundary=b"},
            422,
            "'other'",
        ),
        (b"--b\r\n\r\n1\r\n--b--\r\n", {"content-type": "multipart/form-data; boundary=b"}, 422, "found ''"),
    ],
)
def test_requests_that_are_no_uploads(
    client: TestClient, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    answer = client.post("/api/predict", content=body, headers=headers)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert answer.json()["remedy"]


def test_a_wrong_query_is_told_without_repeating_it(client: TestClient) -> None:
    answer = client.post("/api/predict?heatmap=<script>", files=images(jpeg()))
    assert answer.status_code == 422
    assert "heatmap" in answer.json()["error"]
    assert "script" not in answer.text


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ([bytes(60_001)], "lesion.jpg is larger"),
        ([bytes(59_000)] * 3, "the request is larger"),
        ([b"small"] * 5, "more than 4 files"),
    ],
)
def test_what_is_too_large_or_too_many(client: TestClient, contents: list[bytes], said: str) -> None:
    answer = client.post("/api/predict", files=images(*contents))
    assert answer.status_code == 413
    assert said in answer.json()["error"]


def upload_scope() -> dict[str, Any]:
    """A request with images, as a server hands it over."""
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/api/predict", "raw_path": b"/api/predict", "root_path": "", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip


def stream_request(app: FastAPI, chunks: list[bytes], *, pause_s: float = 0.0) -> tuple[int, dict[str, Any], int]:
    """Status, body and how many chunks were asked for, of a body without a length."""
    asked, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked > len(chunks):
            await asyncio.sleep(60)
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": chunks[asked - 1], "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(upload_scope(), receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"]), asked


HEAD = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'


def test_a_body_of_no_announced_length_is_cut_off_while_it_arrives(app: FastAPI) -> None:
    status, answer, asked = stream_request(app, [HEAD, *[bytes(10_000)] * 100])
    assert (status, "larger" in answer["error"]) == (413, True)
    assert asked == 8, "60 000 bytes, and one chunk that was too much, after the head"


def test_the_whole_request_is_counted_while_it_arrives(app: FastAPI) -> None:
    one_file = [HEAD + bytes(50_000) + b"\r\n"]
    status, answer, asked = stream_request(app, one_file * 10)
    assert (status, answer["error"].startswith("the request is larger")) == (413, True)
    assert asked == 3, "the third is beyond 150 000 bytes"


def test_a_body_that_never_ends_times_out(classifier: Classifier) -> None:
    app = create_app(classifier, limits=ServiceLimits(timeout_s=0.2))
    status, answer, _ = stream_request(app, [HEAD])
    assert (status, "did not arrive" in answer["error"]) == (408, True)


class SlowClassifier:
    """Stands for a classifier whose decoding waits until it is let go."""

    def __init__(self, classifier: Classifier) -> None:
        self.spec, self.variant, self.views = classifier.spec, classifier.variant, classifier.views
        self.calibrated, self._own = classifier.calibrated, classifier
        self.go, self.began = threading.Event(), threading.Semaphore(0)

    def prepare(self, image: bytes, name: str) -> Any:
        self.began.release()
        assert self.go.wait(20)
        return self._own.prepare(image, name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


def test_a_full_service_says_when_to_come_back_and_loses_nobody(classifier: Classifier) -> None:
    slow = SlowClassifier(classifier)
    app = create_app(slow, limits=SMALL)  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as threads, TestClient(app, base_url=BASE) as client:
        waiting = [threads.submit(client.post, "/api/predict", files=images(jpeg(i))) for i in range(2)]
        assert slow.began.acquire(timeout=20)
        assert slow.began.acquire(timeout=20)
        refused = client.post("/api/predict", files=images(jpeg()))
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "2"
        assert "too busy" in refused.json()["error"]
        assert "lentigo_requests_open 2" in client.get("/metrics").text
        assert client.get("/api/health").status_code == 200, "health answers while all is busy"
        slow.go.set()
        assert [one.result(20).status_code for one in waiting] == [200, 200]
        gauges = client.get("/metrics").text
        assert "lentigo_requests_open 0" in gauges
        assert "lentigo_held_bytes 0" in gauges


def test_work_that_takes_too_long_is_given_up(classifier: Classifier) -> None:
    slow = SlowClassifier(classifier)
    app = create_app(slow, limits=ServiceLimits(timeout_s=0.3, workers=1))  # type: ignore[arg-type]
    client = TestClient(app, base_url=BASE)
    late = client.post("/api/predict", files=images(jpeg(), jpeg(1), jpeg(2)))
    slow.go.set()
    assert late.status_code == 503
    assert "no answer within 0.3 s" in late.json()["error"]
    assert slow.began.acquire(blocking=False)
    assert not slow.began.acquire(blocking=False), "the two images that waited were dropped"


def test_work_for_a_client_who_left_is_dropped(classifier: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    slow = SlowClassifier(classifier)
    app = create_app(slow, limits=ServiceLimits(workers=1))  # type: ignore[arg-type]
    image = HEAD + jpeg() + b"\r\n"
    messages = [{"type": "http.request", "body": image * 3 + b"--b--\r\n"}, {"type": "http.request"}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.to_thread(slow.began.acquire)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def ask() -> None:
        await asyncio.wait_for(app(upload_scope(), receive, send), 20)

    with caplog.at_level(logging.INFO):
        asyncio.run(ask())
    assert sent == []
    assert "POST /api/predict 499" in caplog.text
    slow.go.set()
    client = TestClient(app, base_url=BASE)
    assert client.post("/api/predict", files=images(jpeg())).status_code == 200
    assert slow.began.acquire(blocking=False)
    assert not slow.began.acquire(blocking=False), "the two images that waited were dropped"
    gauges = client.get("/metrics").text
    assert 'lentigo_requests_total{method="POST",route="/api/predict",status="499"} 1' in gauges
    assert "lentigo_held_bytes 0" in gauges


def test_a_bug_at_one_image_drops_those_that_wait(classifier: Classifier) -> None:
    slow = SlowClassifier(classifier)

    def prepare(image: bytes, name: str) -> Any:
        return classifier.prepare(image, name) if name == "bug.jpg" else SlowClassifier.prepare(slow, image, name)

    def judge(pixels: Any) -> Any:
        if not slow.began.acquire(blocking=False):
            raise RuntimeError
        slow.began.release()
        return classifier.judge(pixels)

    slow.prepare, slow.judge = prepare, judge  # type: ignore[method-assign]
    app = create_app(slow, limits=ServiceLimits(workers=1))  # type: ignore[arg-type]
    client = TestClient(app, base_url=BASE, raise_server_exceptions=False)
    said = client.post("/api/predict", files=images(jpeg(), name="bug.jpg") + images(jpeg(), jpeg(1)))
    assert said.status_code == 500
    slow.go.set()
    assert client.post("/api/predict", files=images(jpeg())).status_code == 200
    began = sum(slow.began.acquire(blocking=False) for _ in range(9))
    assert began <= 2, "the last request's image, perhaps the one after the bug, but not the third"


def test_requests_share_the_memory_for_images(classifier: Classifier) -> None:
    app = create_app(classifier, limits=ServiceLimits(max_held_bytes=1000))
    answer = TestClient(app, base_url=BASE).post("/api/predict", files=images(bytes(2000)))
    assert answer.status_code == 503
    assert "memory" in answer.json()["error"]


def test_many_clients_at_once_get_their_own_answers(app: FastAPI, classifier: Classifier) -> None:
    contents = [jpeg(i, size_px=60 + i) for i in range(12)]
    expected = [
        classifier.logits(classifier.prepare(content).pixels[None])[0].tolist() for content in contents
    ]  # alone, one after the other
    wide = create_app(classifier, limits=ServiceLimits(workers=4))
    with ThreadPoolExecutor(8) as threads, TestClient(wide, base_url=BASE) as client:

        def ask(i: int) -> bool:
            [answer] = client.post("/api/predict", files=images(contents[i % 12])).json()
            return bool(answer["logits"] == expected[i % 12])

        assert all(threads.map(ask, range(96)))


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    for method, path in ALL_ROUTES:
        said = client.request(method, path)
        for name, value in SECURITY_HEADERS.items():
            allowed = {value, "no-cache"} if name == "cache-control" else {value}
            assert said.headers[name] in allowed, (method, path, name)
        assert "server" not in said.headers
    policy = SECURITY_HEADERS["content-security-policy"]
    assert "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy
    assert not re.search(r"https?:|\*", policy), "no other host"


def test_a_bug_shows_no_traceback_and_no_name(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret-name.jpg in /home/someone")

    monkeypatch.setattr(answers_module.AnswerPool, "answer_one", fail)
    client = TestClient(create_app(classifier), base_url=BASE, raise_server_exceptions=False)
    with caplog.at_level(logging.INFO):
        said = client.post("/api/predict", files=images(jpeg(), name="secret-name.jpg"))
    assert said.status_code == 500
    assert set(said.json()) == {"error", "remedy"}
    assert said.headers["content-security-policy"] == SECURITY_HEADERS["content-security-policy"]
    assert "RuntimeError" in caplog.text
    assert "fail:" in caplog.text, "the place of the bug"
    for text in (said.text, caplog.text):
        assert "secret" not in text
        assert "Traceback" not in text


def test_the_log_knows_no_names(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="lentigo"):
        client.post("/api/predict?heatmap=0&x=private", files=images(jpeg(), b"no image", name="private.jpg"))
        client.get("/private")
        client.request("PRIVATE", "/private")
    assert "POST /api/predict 200" in caplog.text
    assert "private" not in caplog.text.lower()


def test_nothing_is_stored(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    for name in ("TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        original = getattr(tempfile, name)
        monkeypatch.setattr(
            tempfile, name, lambda *a, name=name, original=original, **k: opened.append(name) or original(*a, **k)
        )
    content = jpeg() + bytes(3 * MEBIBYTE)
    client = TestClient(create_app(classifier), base_url=BASE)
    assert client.post("/api/predict", files=images(content)).status_code == 200
    assert opened == []


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST", "localhost.", "10.1.2.3"]
)
def test_known_names_and_addresses_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[::1",
        "a@localhost",
        "localhost:x",
        "localhost/x",
        "localhost?",
        "[localhost]",
        "testserver",
    ],
)
def test_other_host_names_are_refused(client: TestClient, host: str) -> None:
    """A page that has its own name point at this machine (DNS rebinding) still sends that name."""
    said = client.get("/api/health", headers={"host": host})
    assert said.status_code == 400
    assert "--allow-host" in said.json()["remedy"]


def test_a_given_host_name_is_answered(classifier: Classifier) -> None:
    client = TestClient(create_app(classifier, hosts=["Skin.Example"]), base_url="http://skin.example")
    assert client.get("/api/health").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": ""}, 403),
        ({"origin": "http://localhost:9999"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_pages_of_other_sites_cannot_make_it_work(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.post("/api/predict", files=images(jpeg()), headers=headers).status_code == status


def test_the_token_guards_all_but_the_page_and_its_health(classifier: Classifier, tiny_model: Path) -> None:
    app = create_app(classifier, token=TOKEN, model_folder=tiny_model)
    client = TestClient(app, base_url=BASE, follow_redirects=False)
    for path in ("/api/model", "/metrics", "/model/model.onnx", "/api/docs", "/api/openapi.json", "/nothing"):
        said = client.get(path)
        assert (said.status_code, said.headers["www-authenticate"]) == (401, "Bearer"), path
        assert client.get(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code in (200, 404)
    assert client.post("/api/predict", files=images(jpeg())).status_code == 401
    assert client.get("/api/health").status_code == 200
    assert client.get("/pages.css").status_code == 200
    for wrong in ("Bearer nonsense", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", "Bearer ünwahr".encode()):
        assert client.get("/api/model", headers={"authorization": wrong}).status_code == 401
    for wrong in (f"lentigo={TOKEN}", "lentigo=", "lentigo"):
        assert client.get("/api/model", headers={"cookie": wrong}).status_code == 401


def test_a_host_header_does_not_stand_for_an_open_path(classifier: Classifier) -> None:
    """URLs that are put together from that header would say that the path is the one of the health."""
    client = TestClient(create_app(classifier, token=TOKEN), base_url=BASE)
    for host in ("localhost/api/health?", "localhost/api/health#", "localhost:80/api/health?x="):
        assert client.get("/api/model", headers={"host": host}).status_code == 400


def test_the_page_opened_with_the_token_keeps_a_cookie(classifier: Classifier) -> None:
    client = TestClient(create_app(classifier, token=TOKEN), base_url=BASE, follow_redirects=False)
    assert "set-cookie" not in client.get("/?token=wrong").headers
    said = client.get(f"/?token={TOKEN}")
    assert (said.status_code, said.headers["location"]) == (303, "/")
    cookie = said.headers["set-cookie"]
    assert TOKEN not in cookie
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict"))
    assert client.get("/api/model").status_code == 200
    foreign = client.post("/api/predict", files=images(jpeg()), headers={"origin": "http://evil.example"})
    assert foreign.status_code == 403, "the cookie does not help another site's page"
    for path in ("//evil.example", "/\\evil.example", "/%5Cevil.example", "/nothing"):
        assert client.get(f"{BASE}{path}?token={TOKEN}").headers["location"] == "/", path


@pytest.mark.parametrize("token", ["", "short", "long enough but\nof two lines", "ä" * 20])
def test_tokens_that_will_not_do(classifier: Classifier, token: str) -> None:
    with pytest.raises(ConfigError, match="16 ASCII"):
        create_app(classifier, token=token)


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_files, timeout_s"):
        ServiceLimits(max_files=0, timeout_s=0)


@pytest.mark.parametrize(
    "path",
    [
        "/../service.py",
        "/..%2fservice.py",
        "/%2e%2e/service.py",
        "/..\\service.py",
        "//etc/passwd",
        "/web/../../classifier.py",
        "/pages.css/",
        "/pages.css%00.html",
        "/./pages.css",
        "/model/../model/model.json",
        "/model/..%2f..%2f..%2fetc%2fpasswd",
        "/model/parity.json",
        "/.git/config",
        "/runs.html",
        "/runs/..%2f..%2fx/report.html",
        "/api/runs",
    ],
)
def test_no_path_of_a_client_opens_a_file(app: FastAPI, path: str) -> None:
    """The raw path is sent as it is; an HTTP client would tidy it."""
    sent: list[Any] = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": unquote(path), "raw_path": path.encode(), "root_path": "", "query_string": b"",
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 404, sent


def test_the_site_is_what_lies_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    for name in ("index.html", "vendor/runtime.wasm", "notes.py", ".hidden.js", "runs.html"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link.js").symlink_to("/etc/passwd")
    assert sorted(read_site(tmp_path)) == ["/", "/index.html", "/vendor/runtime.wasm"]
    assert sorted(read_site(tmp_path, with_runs=True))[-2:] == ["/runs.html", "/vendor/runtime.wasm"]
    assert read_site(tmp_path)["/vendor/runtime.wasm"].media_type == "application/wasm"
    assert read_site(tmp_path)["/"].content == b"index.html"


def test_the_model_for_the_browser_is_the_exported_one(client: TestClient, tiny_model: Path) -> None:
    for name in ("model.json", "model.onnx", "model.int8.onnx"):
        said = client.get(f"/model/{name}")
        assert said.content == (tiny_model / name).read_bytes()
        again = client.get(f"/model/{name}", headers={"if-none-match": said.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_the_facts_about_the_model(client: TestClient) -> None:
    facts = client.get("/api/model").json()
    assert [one["code"] for one in facts["classes"]] == list(CLASS_CODES)
    assert facts["limits"]["max_file_bytes"] == SMALL.max_file_bytes
    assert (facts["name"], facts["variant"], facts["calibrated"]) == ("tiny", "fp32", True)
    assert facts["notice"] == NOTICE


@pytest.mark.parametrize("path", ["/api/health", "/api/model", "/metrics"])
def test_monitors_may_ask_for_the_head_alone(client: TestClient, path: str) -> None:
    said, full = client.head(path), client.get(path)
    assert (said.status_code, said.content) == (200, b"")
    assert said.headers["content-type"] == full.headers["content-type"]
    assert int(said.headers["content-length"]) > 0
    assert client.delete(path).status_code == 405


def test_a_path_of_other_methods_names_them(classifier: Classifier, tmp_path: Path) -> None:
    client = TestClient(create_app(classifier, runs=tmp_path), base_url=BASE)
    for method, path, allowed in (
        ("GET", "/api/predict", "POST"),
        ("HEAD", "/api/predict", "POST"),
        ("DELETE", "/api/predict", "POST"),
        ("GET", "/api/suspects", "POST"),
        ("HEAD", "/api/runs", "GET"),
    ):
        said = client.request(method, path)
        assert (said.status_code, said.headers["allow"]) == (405, allowed), (method, path)
    said = client.get("/api/predict")
    assert "method not allowed" in said.json()["error"]
    assert said.json()["remedy"]
    assert client.get("/api/predict/other").status_code == 404


def test_long_bodies_are_for_images_alone(client: TestClient) -> None:
    for path in ("/api/health", "/api/model", "/nothing/here", "/api/predict/"):
        said = client.request("GET", path, content=bytes(MAX_BODY_BYTES + 1))
        assert said.status_code == 413, path
        assert set(said.json()) == {"error", "remedy"}
    said = client.post("/api/predict", files=images(jpeg(4, 600)))
    assert said.status_code == 200


def test_the_counters_count(classifier: Classifier) -> None:
    client = TestClient(create_app(classifier), base_url=BASE)
    client.post("/api/predict", files=images(jpeg(), jpeg(1), b"no image"))
    client.post("/api/predict", content=b"")
    client.get("/never/heard/of")
    text = client.get("/metrics").text
    values = dict(re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE))
    assert values['lentigo_images_total{outcome="refused"}'] == "1"
    answered = sum(int(values[f'lentigo_images_total{{outcome="{kind}"}}']) for kind in ("answered", "abstained"))
    assert answered == 2 == sum(int(value) for key, value in values.items() if key.startswith("lentigo_labels_total"))
    assert values['lentigo_requests_total{method="POST",route="/api/predict",status="200"}'] == "1"
    assert values['lentigo_requests_total{method="POST",route="/api/predict",status="415"}'] == "1"
    assert values['lentigo_predict_seconds_bucket{le="+Inf"}'] == values["lentigo_predict_seconds_count"] == "2"
    assert "never" not in text
    helps = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    families = {re.sub(r"(_bucket|_sum|_count)?(\{.*)?$", "", key) for key in values}
    assert families <= helps, "every value belongs to a family with a type"


def test_resident_memory_is_that_of_a_process() -> None:
    found = resident_bytes()
    assert found is None or 10 * MEBIBYTE < found < 64 * 1024 * MEBIBYTE


def test_the_page_of_operations_needs_no_script_and_no_other_host(client: TestClient) -> None:
    page = client.get("/api/docs").text
    assert "POST /api/predict" in page
    assert NOTICE in page
    assert "`" not in page, "it is HTML, not Markdown"
    assert not re.search(r"<script|style=|https?://|onclick", page)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("lesion.jpg", "lesion.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\patients\\smith.png", "smith.png"),
        ("", "image-3"),
        ("..", "image-3"),
        ("a\r\nb\x00c\u202e.jpg", "abc.jpg"),
        ("Muttermal äöü 痣.jpg", "Muttermal äöü 痣.jpg"),
        ("x" * 500 + ".jpg", "x" * (MAX_NAME_CHARACTERS - 4) + ".jpg"),
    ],
)
def test_names_are_cleaned(given: str, shown: str) -> None:
    assert clean_name(given, 3) == shown
