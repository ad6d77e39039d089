"""The viewer of runs: what it lists, what it serves, and decisions about suspects that end in the run alone."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from lentigo.core.errors import DataError
from lentigo.core.files import write_json_atomic
from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.catalog import Catalog
from lentigo.deploy import run_viewer
from lentigo.deploy.guard import MAX_BODY_BYTES
from lentigo.deploy.run_routes import REPORT_POLICY
from lentigo.deploy.run_viewer import PICTURE_PX, RunViewer
from lentigo.deploy.server import listen, page_url
from lentigo.deploy.service import create_app
from lentigo.deploy.suspect_review import read_reviews, write_review
from lentigo.evaluation.evaluate import judge

BASE = "http://localhost"
NAME = "20261124-1200-mobilenet ä"


def write_run(folder: Path, catalog: Catalog) -> RunDir:
    """A judged and mined run with five suspects, the last of them without its image."""
    folder.mkdir(parents=True)
    run = RunDir(folder)
    run.config.write_text("")
    run.write_status("done", epoch=3, epochs=4, best_score=0.5, synthetic=True)
    generator = np.random.default_rng(1)
    names = tuple(f"i{i}" for i in range(70))
    table = Predictions(names, names, np.arange(70) % 7, generator.normal(size=(70, 7)).astype(np.float32))
    write_json_atomic(run.metrics, {"val": judge(table, split="val", resamples=100, synthetic=True).as_dict()})
    run.report.write_text("<!doctype html><style>p{}</style><p>report</p><script>document.title = 1</script>")
    catalog.to_csv(run.catalog)
    run.mining.mkdir()
    with (run.mining / "suspects.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("image_id", "lesion_id", "label", "answered", "wrong_confidence", "agreement", "file"))
        for row in catalog.rows[:4]:
            answered = CLASS_CODES[(row.label + 1) % 7]
            writer.writerow(
                (row.image_id, row.lesion_id, CLASS_CODES[row.label], answered, "0.9", "0.1", row.path.name)
            )
        writer.writerow(("gone", "L", "nv", "mel", "0.8", "nan", "../../etc/passwd"))
    return run


@pytest.fixture
def root(tmp_path: Path, tiny_catalog: Catalog) -> Path:
    write_run(tmp_path / "runs" / NAME, tiny_catalog)
    bare = RunDir(tmp_path / "runs" / "bare")
    bare.path.mkdir()
    bare.config.write_text("")
    (tmp_path / "runs" / "no-run").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def run(root: Path) -> RunDir:
    return RunDir(root / NAME)


@pytest.fixture
def client(root: Path) -> TestClient:
    return TestClient(create_app(None, runs=root), base_url=BASE, follow_redirects=False)


def review(client: TestClient, **changes: Any) -> Any:
    """The answer to a decision about the first suspect."""
    first = client.get(f"/api/runs/{NAME}/suspects").json()[0]
    body = {"run": NAME, "image_id": first["image_id"], "decision": "accept"} | changes
    return client.post("/api/suspects", json=body)


def rows(run: RunDir) -> list[dict[str, str]]:
    """The content of mining/review.csv."""
    return list(csv.DictReader(io.StringIO((run.mining / "review.csv").read_text(encoding="utf-8"))))


def test_without_a_model_it_shows_runs_alone(client: TestClient) -> None:
    assert client.get("/").headers["location"] == "/runs"
    assert client.get("/runs").status_code == 200
    assert client.get("/api/health").json()["model"] is None
    assert client.post("/api/predict").status_code == 405
    assert client.get("/api/model").status_code == 404


def test_the_list_has_scores_with_interval_and_n(client: TestClient) -> None:
    bare, full = sorted(client.get("/api/runs").json(), key=lambda one: len(one["name"]))
    assert (full["name"], full["state"], full["report"], full["suspects"], full["reviewed"]) == (
        NAME,
        "done",
        True,
        5,
        0,
    )
    assert (full["epoch"], full["epochs"], full["synthetic"], full["problems"]) == (3, 4, True, [])
    scores = full["scores"]["val"]
    assert (scores["n_images"], scores["n_lesions"]) == (70, 70)
    headline = scores["metrics"]["balanced_accuracy"]
    assert headline["ci_low"] < headline["value"] < headline["ci_high"]
    assert headline["n"] == 70
    assert (bare["scores"], bare["report"], bare["suspects"]) == ({}, False, 0)
    assert bare["state"] == "interrupted"


def test_a_damaged_run_does_not_hide_the_others(client: TestClient, run: RunDir) -> None:
    for content in ("{", "[]", '{"val": {}}', '{"val": 3}'):
        run.metrics.write_text(content)
        [full] = [one for one in client.get("/api/runs").json() if one["name"] == NAME]
        assert full["problems"] == ["metrics.json is damaged"], content
    (run.mining / "suspects.csv").write_text("image_id\nx\n")
    (run.mining / "review.csv").write_bytes(b"\xff\xfe\x00")
    found = client.get("/api/runs").json()
    [full] = [one for one in found if one["name"] == NAME]
    assert full["problems"][1:] == ["mining/suspects.csv is damaged", "mining/review.csv is damaged"]
    said = client.get(f"/api/runs/{NAME}/suspects")
    assert said.status_code == 404
    assert str(run.path) not in said.text


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (".lock", "status.json or the lock cannot be read"),
        ("status.json", "status.json or the lock cannot be read"),
        ("mining/suspects.csv", "mining/suspects.csv cannot be read"),
        ("mining/review.csv", "mining/review.csv cannot be read"),
    ],
)
def test_a_run_that_cannot_be_read_does_not_hide_the_others(
    client: TestClient, run: RunDir, place: str, said: str
) -> None:
    if place == ".lock":
        run.write_status("running")
    (run.path / place).unlink(missing_ok=True)
    (run.path / place).mkdir()  # opening it fails as without the right to, which root always has
    found = {one["name"]: one for one in client.get("/api/runs").json()}
    assert (found[NAME]["problems"], found["bare"]["problems"]) == ([said], [])
    if place.startswith("mining"):
        answer = client.get(f"/api/runs/{NAME}/suspects")
        assert (answer.status_code, answer.json()["error"]) == (404, "a file of this run cannot be read")


def test_metrics_that_cannot_be_read_are_told_from_damaged_ones(
    client: TestClient, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: RunDir) -> dict[str, Any]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run_viewer, "_scores", refuse)
    assert [one["problems"] for one in client.get("/api/runs").json()] == [["metrics.json cannot be read"]] * 2


def test_a_report_is_served_in_a_sandbox(client: TestClient) -> None:
    said = client.get(f"/runs/{NAME}/report.html")
    assert said.status_code == 200
    assert said.headers["content-security-policy"] == REPORT_POLICY
    assert "sandbox;" in REPORT_POLICY
    assert "script" not in REPORT_POLICY
    assert said.headers["x-content-type-options"] == "nosniff"
    assert client.get("/runs/bare/report.html").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/runs/no-run/report.html",
        "/runs/..%2f..%2fx/report.html",
        "/runs/../report.html",
        "/runs/%2e%2e/report.html",
        "/runs/bare%00/report.html",
        f"/runs/{NAME}/config.toml",
        "/api/runs/nobody/suspects",
        f"/api/runs/{NAME}/suspects/99.jpg",
        f"/api/runs/{NAME}/suspects/-1.jpg",
        f"/api/runs/{NAME}/suspects/4.jpg",
        "/api/runs/bare/suspects/0.jpg",
    ],
)
def test_what_is_not_there_is_404_without_a_path(client: TestClient, root: Path, path: str) -> None:
    said = client.get(path)
    assert said.status_code == 404
    assert said.json()["remedy"]
    assert str(root) not in said.text


def test_suspects_and_their_pictures(client: TestClient, tiny_catalog: Catalog) -> None:
    found = client.get(f"/api/runs/{NAME}/suspects").json()
    assert [one["image_id"] for one in found] == [*(row.image_id for row in tiny_catalog.rows[:4]), "gone"]
    assert (found[0]["wrong_confidence"], found[0]["agreement"], found[4]["agreement"]) == (0.9, 0.1, None)
    assert found[0]["review"] is None
    assert "passwd" not in json.dumps(found), "the table's file names are not used"
    said = client.get(f"/api/runs/{NAME}/suspects/2.jpg")
    assert said.headers["content-type"] == "image/jpeg"
    with Image.open(tiny_catalog.rows[2].path) as source:
        assert Image.open(io.BytesIO(said.content)).size == source.size
        assert max(source.size) <= PICTURE_PX
    assert client.get(f"/api/runs/{NAME}/suspects/two.jpg").status_code == 422


def test_decisions_go_to_the_run_and_can_be_changed(client: TestClient, run: RunDir, tiny_catalog: Catalog) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    first = tiny_catalog.rows[0]
    said = review(client)
    assert said.status_code == 200
    other = CLASS_CODES[(first.label + 2) % 7]
    second = review(client, image_id=tiny_catalog.rows[1].image_id, decision="relabel", label=_other(tiny_catalog, 1))
    assert second.status_code == 200
    assert review(client, decision="relabel", label=other).json()["new_label"] == other
    written = rows(run)
    assert list(written[0]) == ["image_id", "decision", "new_label", "time"]
    assert [(one["image_id"], one["decision"]) for one in written] == [
        (first.image_id, "relabel"),
        (tiny_catalog.rows[1].image_id, "relabel"),
    ]
    assert written[0]["new_label"] == other
    when = datetime.fromisoformat(written[0]["time"])
    assert when.utcoffset() == timedelta(0)
    [full] = [one for one in client.get("/api/runs").json() if one["name"] == NAME]
    assert (full["suspects"], full["reviewed"]) == (5, 2)
    assert client.get(f"/api/runs/{NAME}/suspects").json()[0]["review"]["new_label"] == other
    for path, content in before.items():
        assert path.read_bytes() == content, "nothing else is changed"
    assert {path.name for path in run.mining.iterdir()} == {"suspects.csv", "review.csv"}


def _other(catalog: Catalog, place: int) -> str:
    return CLASS_CODES[(catalog.rows[place].label + 3) % 7]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"run": "nobody"}, 404),
        ({"run": "../x"}, 404),
        ({"image_id": "no-suspect"}, 422),
        ({"decision": "delete"}, 422),
        ({"decision": "relabel"}, 422),
        ({"decision": "relabel", "label": "melanoma!"}, 422),
        ({"decision": "accept", "label": "mel"}, 422),
        ({"more": 1}, 422),
        ({"image_id": 5}, 422),
    ],
)
def test_decisions_that_do_not_fit(client: TestClient, run: RunDir, changes: dict[str, Any], status: int) -> None:
    assert review(client, **changes).status_code == status
    assert not (run.mining / "review.csv").exists()


def test_a_folder_that_cannot_be_written_is_told(
    client: TestClient, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(30, "Read-only file system", str(run.path))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    said = review(client)
    assert (said.status_code, said.json()["error"]) == (409, "this folder of runs cannot be written")
    assert said.json()["remedy"]
    assert str(run.path) not in said.text


def test_a_long_decision_is_refused_before_it_is_read(client: TestClient, run: RunDir) -> None:
    said = review(client, label="x" * (MAX_BODY_BYTES - 200))
    assert said.status_code == 422, "just not too long"
    for announced in (True, False):
        body = json.dumps({"run": NAME, "label": "x" * MAX_BODY_BYTES}).encode()
        content = body if announced else iter([body])
        said = client.post("/api/suspects", content=content, headers={"content-type": "application/json"})
        assert said.status_code == 413, announced
        assert set(said.json()) == {"error", "remedy"}
        assert "64 KiB" in said.json()["error"]
        assert "/api/predict" in said.json()["remedy"]


def test_a_decision_without_end_is_cut_off_while_it_arrives(root: Path) -> None:
    asked = 0
    sent: list[Any] = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/api/suspects", "raw_path": b"/api/suspects", "root_path": "", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": bytes(10_000), "more_body": asked < 100}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(create_app(None, runs=root)(scope, receive, send))
    assert (sent[0]["status"], asked) == (413, 7)


def test_a_suspects_own_label_is_no_new_label(client: TestClient, tiny_catalog: Catalog) -> None:
    said = review(client, decision="relabel", label=CLASS_CODES[tiny_catalog.rows[0].label])
    assert said.status_code == 422
    assert "another class" in said.json()["error"]


def test_only_the_own_page_may_decide(client: TestClient, run: RunDir) -> None:
    first = client.get(f"/api/runs/{NAME}/suspects").json()[0]
    body = json.dumps({"run": NAME, "image_id": first["image_id"], "decision": "accept"})
    for headers, status in (
        ({"origin": "http://evil.example", "content-type": "application/json"}, 403),
        ({"sec-fetch-site": "cross-site", "content-type": "application/json"}, 403),
        ({"content-type": "text/plain"}, 422),  # what a form of another site could send without being asked first
        ({"content-type": "application/x-www-form-urlencoded"}, 422),
    ):
        assert client.post("/api/suspects", content=body, headers=headers).status_code == status, headers
    assert not (run.mining / "review.csv").exists()


def test_decisions_at_once_are_all_kept(root: Path, run: RunDir, tiny_catalog: Catalog) -> None:
    viewer = RunViewer(root)
    ids = [row.image_id for row in tiny_catalog.rows[:4]] + ["gone"]
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda image_id: viewer.review(NAME, image_id, "accept", ""), ids))
    assert {one["image_id"] for one in rows(run)} == set(ids)


def test_a_damaged_review_is_never_overwritten(run: RunDir) -> None:
    path = run.mining / "review.csv"
    path.write_text("image_id,decision,new_label,time\nx,maybe,,\n")
    with pytest.raises(DataError, match=r"review\.csv is damaged"):
        write_review(run, "gone", "accept", "")
    assert "maybe" in path.read_text()
    path.unlink()
    assert read_reviews(run) == {}


def test_runs_are_hidden_without_the_option(tiny_model: Path) -> None:
    from lentigo.deploy.classifier import Classifier

    client = TestClient(create_app(Classifier.load(tiny_model, threads=1)), base_url=BASE)
    for path in ("/runs", "/runs.js", "/api/runs", f"/runs/{NAME}/report.html"):
        assert client.get(path).status_code == 404, path


def test_a_token_guards_runs_too(root: Path) -> None:
    client = TestClient(create_app(None, runs=root, token="a-token-of-some-length"), base_url=BASE)
    for path in ("/api/runs", f"/runs/{NAME}/report.html", f"/api/runs/{NAME}/suspects/0.jpg"):
        assert client.get(path).status_code == 401, path
    assert client.get("/runs").status_code == 200, "the page itself says nothing"


CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application's address while a server runs it in a thread."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield page_url(listener)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}")
def test_the_page_of_runs_in_a_browser(root: Path, run: RunDir) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    said: list[str] = []
    foreign: list[str] = []
    with served(create_app(None, runs=root)) as url, playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=str(CHROMIUM), args=list(CHROMIUM_FLAGS))
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith(url) else None)
        page.goto(f"{url}runs")
        page.get_by_role("button", name="Review 5 suspects (0 reviewed)").click()
        page.get_by_role("button", name="Label is right").nth(0).click()
        page.get_by_text("The label is right (").wait_for()
        page.get_by_role("combobox", name="New label of suspect 2").select_option("vasc")
        page.get_by_role("button", name="Relabel", exact=True).nth(1).click()
        page.get_by_text("Relabelled Vascular lesion").wait_for()
        page.get_by_role("button", name="Review 5 suspects (2 reviewed)").wait_for()
        assert "n = 70" in page.inner_text("table")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "no sideways scroll on a phone"
        page.get_by_role("listitem").nth(4).scroll_into_view_if_needed()
        page.get_by_text("The image cannot be read any more.").wait_for()
        assert [line for line in said if "404" not in line] == [], "the picture that is gone is the one message"
        page.get_by_role("link", name="Report").click()
        page.get_by_text("report").wait_for()
        assert page.title() == "", "the report's script did not run"
        browser.close()
    assert foreign == []
    assert [(one["decision"], one["new_label"]) for one in rows(run)] == [("accept", ""), ("relabel", "vasc")]
