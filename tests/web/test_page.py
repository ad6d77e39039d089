"""The page in headless Chromium: what a visitor does, sees and is promised."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from lentigo.core.taxonomy import CLASS_CODES, CLASSES
from lentigo.data.synthetic import write_synthetic
from lentigo.deploy.activation_map import activation_maps
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.exported import NOTICE
from lentigo.deploy.golden import write_golden

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright in this environment")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

    from tests.web.conftest import Site

PATIENCE_MS = 60_000
NAMES = {one.code: one.name for one in CLASSES}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A drawn lesion, others as a tall PNG, a gray JPEG, one with an EXIF turn, and one that is blurred away."""
    folder = tmp_path_factory.mktemp("page images")
    table = write_synthetic(folder / "drawn", num_images=2, size_px=200, seed=6)
    first, second = (
        Image.open(path).convert("RGB") for path in sorted(table.parent.rglob("*")) if path.suffix in (".jpg", ".png")
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    first.save(folder / "läsion 1.jpg", quality=92)
    second.resize((123, 271)).save(folder / "tall.png")
    first.convert("L").save(folder / "gray.jpg", quality=90)
    second.crop((0, 0, 200, 120)).save(folder / "turned.jpg", exif=exif, quality=95)
    first.resize((4, 4)).resize((150, 150)).save(folder / "blurred.png")
    return [folder / name for name in ("läsion 1.jpg", "tall.png", "gray.jpg", "turned.jpg", "blurred.png")]


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """An empty tab of a fresh profile, desktop size; fails the test for errors that the page does not catch."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(PATIENCE_MS)
    tab = context.new_page()
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda line: problems.append(line.text) if "Content Security Policy" in line.text else None)
    yield tab
    context.close()
    assert not problems


def opened(page: Page, site: Site) -> Page:
    """The page with its model loaded."""
    page.goto(site.address)
    sync_api.expect(page.locator("#status")).to_have_text("Ready.", timeout=PATIENCE_MS)
    return page


def judged(page: Page, paths: list[Path]) -> Page:
    """The page with an answer, or a refusal, for each of these files."""
    before = page.locator(".card").count()
    page.set_input_files("#files", paths)
    finished = page.locator(".judged:not([hidden]), .failed:not([hidden])")
    sync_api.expect(finished).to_have_count(before + len(paths), timeout=PATIENCE_MS)
    return page


def saved_json(page: Page) -> list[dict[str, Any]]:
    """What the page's button saves."""
    with page.expect_download() as download:
        page.click("#save-json")
    answers: list[dict[str, Any]] = json.loads(download.value.path().read_text(encoding="utf-8"))
    return answers


def agrees(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """All of an answer, numbers to what decoders may differ by."""
    assert list(found) == list(expected)
    for key, value in expected.items():
        if key in ("name", "abstain_reasons"):
            continue  # a browser knows no folders; reasons quote numbers
        numeric = isinstance(value, float) or key in ("probs", "logits")
        assert found[key] == (pytest.approx(value, abs=1e-3) if numeric else value), key


def test_answers_are_those_of_python(page: Page, site: Site, images: list[Path]) -> None:
    judged(opened(page, site), images)
    assert page.evaluate("crossOriginIsolated"), "the headers must allow threads"
    expected = Classifier.load(site.model).predict(images)
    answers = saved_json(page)
    for found, one, path in zip(answers, expected, images, strict=True):
        assert found["name"] == path.name
        agrees(found, one.as_dict())
    assert {one.abstain for one in expected} == {True, False}
    with page.expect_download() as download:
        page.click("#save-csv")
    rows = list(csv.DictReader(download.value.path().read_text(encoding="utf-8").splitlines()))
    assert [row["p_mel"] for row in rows] == [f"{one['probs']['mel']:.6f}" for one in answers]
    assert {row["model"] for row in rows} == {"tiny"}


PROFILE = "13-colour-profile.jpg"
"""Chromium's colour management ends a level away from Pillow's; the other nineteen are equal to the last bit."""


def test_golden_inputs(page: Page, site: Site, tmp_path: Path) -> None:
    classifier = Classifier.load(site.model)
    golden = write_golden(tmp_path, classifier.spec.preprocess, {"fp32": classifier.session.logits})
    judged(opened(page, site), [tmp_path / one.file for one in golden.images])
    answers = {one["name"]: one["logits"] for one in saved_json(page)}
    assert len(answers) == len(golden.images) == 20
    worst = {one.file: float(np.abs(np.subtract(answers[one.file], one.logits["fp32"])).max()) for one in golden.images}
    assert worst.pop(PROFILE) <= 1e-2
    assert max(worst.values()) <= 1e-4, worst


def test_a_card_says_it_in_words(page: Page, site: Site, images: list[Path]) -> None:
    judged(opened(page, site), images)
    for card, one in zip(page.locator(".card").all(), Classifier.load(site.model).predict(images), strict=True):
        expected = "No answer" if one.abstain else NAMES[one.label]
        assert card.locator(".verdict").inner_text() == expected
        assert card.locator(".callout.quality").is_visible() == bool(one.quality_flags)
        bars = card.locator(".bar").evaluate_all("bars => bars.map(bar => bar.dataset.code)")
        assert bars == sorted(CLASS_CODES, key=lambda code: -one.probs[code])
        assert NAMES[bars[0]] in card.locator(".bar").first.inner_text()
    assert page.get_by_text(NOTICE).is_visible()


def test_images_can_be_dropped_and_pasted(page: Page, site: Site, images: list[Path]) -> None:
    opened(page, site)
    content = base64.b64encode(images[0].read_bytes()).decode()
    give = """([kind, content, name]) => {
      const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
      const event = kind === "drop"
        ? new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true })
        : new ClipboardEvent(kind, { clipboardData: transfer, bubbles: true });
      document.querySelector("#drop").dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(give, [kind, content, f"{kind}.jpg"])
    sync_api.expect(page.locator(".judged:not([hidden])")).to_have_count(2, timeout=PATIENCE_MS)
    first, second = saved_json(page)
    assert (first["name"], second["name"]) == ("drop.jpg", "paste.jpg")
    assert first["probs"] == second["probs"]


def test_heat_map_lies_on_the_image(page: Page, site: Site, images: list[Path]) -> None:
    judged(opened(page, site), images[:1])
    layer = page.locator(".heat")
    assert layer.is_hidden()
    page.locator(".slider input").fill("65")
    sync_api.expect(layer).to_have_css("opacity", "0.65")
    photo, heat = page.locator(".photo").bounding_box(), layer.bounding_box()
    assert heat == pytest.approx(photo, abs=1)
    data = base64.b64decode(str(layer.get_attribute("src")).partition(",")[2])
    target = images[0].with_name("heat.png")
    target.write_bytes(data)
    strength = np.asarray(Image.open(target).getchannel("A"), dtype=np.float32) / 255
    classifier = Classifier.load(site.model)
    pixels = classifier.prepare(images[0]).pixels[None]
    expected = activation_maps(classifier, pixels, [classifier.predict(images[0])[0].label])[0]
    stretched = np.asarray(Image.fromarray(expected).resize(strength.shape, Image.Resampling.BILINEAR))
    assert np.abs(strength - stretched).max() < 0.02


def test_turned_webp_is_shown_as_it_is_judged(page: Page, site: Site, images: list[Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = images[0].with_name("turned.webp")
    Image.open(images[0]).crop((0, 0, 200, 120)).save(path, exif=exif, lossless=True)
    judged(opened(page, site), [path])
    agrees(saved_json(page)[0], Classifier.load(site.model).predict(path)[0].as_dict())
    sync_api.expect(page.locator(".slider")).to_be_visible()
    shown = page.locator(".photo").evaluate("photo => [photo.naturalWidth, photo.naturalHeight]")
    assert shown == [120, 200], "the heat map lies on it"


def test_files_that_are_no_images_get_plain_words(page: Page, site: Site, images: list[Path]) -> None:
    folder = images[0].parent
    broken = {
        "empty.jpg": (b"", "empty"),
        "text.png": (b"this is no picture", "cannot be read"),
        "cut.jpg": (images[0].read_bytes()[:-2000], "cut off"),
        "cut.png": (images[1].read_bytes()[:-2000], "cannot be read"),
    }
    for name, (content, _) in broken.items():
        (folder / name).write_bytes(content)
    judged(opened(page, site), [*(folder / name for name in broken), images[0]])
    for card, (_, words) in zip(page.locator(".card").all()[:-1], broken.values(), strict=True):
        text = card.locator(".failed").inner_text()
        assert words in text
        assert not re.search(r"Error|undefined|null|\bat\b.*:\d", text)
    *refused, answered = saved_json(page)
    assert [one["name"] for one in refused] == list(broken)
    assert all(set(one) == {"name", "error", "remedy"} for one in refused)
    assert answered["probs"], "the others are judged all the same"


def test_nothing_leaves_the_origin(page: Page, site: Site, images: list[Path]) -> None:
    asked: list[tuple[str, str]] = []
    page.context.on("request", lambda request: asked.append((request.method, request.url)))
    judged(opened(page, site), images[:1])
    page.locator(".slider input").fill("50")
    saved_json(page)
    own = urlsplit(site.address).netloc
    assert len(asked) > 10
    foreign = [url for _, url in asked if urlsplit(url).scheme not in ("blob", "data") and urlsplit(url).netloc != own]
    assert not foreign
    assert {method for method, _ in asked} == {"GET"}, "nothing is sent"


def test_page_works_without_a_network_once_loaded(
    page: Page, site_folder: Path, tiny_model: Path, images: list[Path], site_type: type[Site]
) -> None:
    own = site_type.serve(site_folder, tiny_model)
    opened(page, own)
    kept = "Promise.race([navigator.serviceWorker.ready, new Promise((_, reject) => setTimeout(reject, 60000))])"
    page.evaluate(f"{kept}.then(() => true)")
    own.stop()
    page.reload()
    sync_api.expect(page.locator("#status")).to_have_text("Ready.", timeout=PATIENCE_MS)
    judged(page, images[:1])
    agrees(saved_json(page)[0], Classifier.load(own.model).predict(images[0])[0].as_dict())


def test_simple_hosts_without_headers_get_one_thread(
    page: Page, site_folder: Path, tiny_model: Path, images: list[Path], site_type: type[Site]
) -> None:
    plain = site_type.serve(site_folder, tiny_model, bare=True)
    judged(opened(page, plain), images[:1])
    assert not page.evaluate("crossOriginIsolated")
    agrees(saved_json(page)[0], Classifier.load(plain.model).predict(images[0])[0].as_dict())
    plain.stop()


def test_model_without_calibration_and_linear_head(
    page: Page, tiny_gray_model: Path, images: list[Path], tmp_path: Path, site_type: type[Site]
) -> None:
    from lentigo.deploy.static_site import build_static

    bare = site_type.serve(build_static(tiny_gray_model, tmp_path / "site"), tiny_gray_model)
    judged(opened(page, bare), images)
    expected = Classifier.load(tiny_gray_model).predict(images)
    for found, one in zip(saved_json(page), expected, strict=True):
        agrees(found, one.as_dict())
    assert page.locator(".slider:visible").count() == 0
    assert "Not calibrated" in page.locator(".card").first.inner_text()
    bare.stop()


@pytest.mark.parametrize("missing", ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"])
def test_page_without_its_runtime_names_the_remedy(
    page: Page, site_folder: Path, tiny_model: Path, tmp_path: Path, site_type: type[Site], missing: str
) -> None:
    shutil.copytree(site_folder, tmp_path / "site")
    (tmp_path / "site" / "vendor" / missing).unlink()
    broken = site_type.serve(tmp_path / "site", tiny_model)
    page.goto(broken.address)
    status = page.locator("#status")
    sync_api.expect(status).to_contain_text("python tools/vendor_web.py", timeout=PATIENCE_MS)
    assert missing in status.inner_text()
    broken.stop()


@pytest.mark.parametrize("width", [390, 320])
def test_phones_need_no_sideways_scrolling(page: Page, site: Site, images: list[Path], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    judged(opened(page, site), images)
    for summary in page.locator(".points:not([hidden]) summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = """(width) => [...document.querySelectorAll("main *")]
      .filter((one) => one.checkVisibility() && one.getBoundingClientRect().right > width + 1
        && !one.closest(".hidden-input, .hidden-text")).map((one) => one.className)"""
    assert page.evaluate(beyond, width) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(page: Page, site: Site, images: list[Path], scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="no axe in this environment")
    page.emulate_media(color_scheme=scheme)
    opened(page, site)
    source = axe.AXE_FILE_PATH.read_text(encoding="utf-8")
    page.evaluate(source)
    for files in ([], images):
        judged(page, files)
        page.locator(".points:not([hidden]) summary").first.click() if files else None
        found = page.evaluate("axe.run().then(({ violations, passes }) => ({ violations, passes }))")
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
        assert {"color-contrast", "label", "image-alt", "region"} <= {one["id"] for one in found["passes"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_of_the_system_show_choice_and_bars(
    page: Page, service_address: str, images: list[Path], scheme: str
) -> None:
    """Windows' contrast themes take backgrounds away."""
    page.emulate_media(color_scheme=scheme, forced_colors="active")
    page.goto(service_address)
    sync_api.expect(page.locator("#mode")).to_be_visible()
    judged(page, images[:1])
    background = "(one) => getComputedStyle(one).backgroundColor"
    for inner, outer in (
        (".mode input:checked + span", ".mode input:not(:checked) + span"),
        (".gauge .fill", ".gauge"),
        (".gauge .line", ".gauge .fill"),
        (".bar.left .fill", ".bar.left .track"),
        (".bar:not(.left) .fill", ".bar:not(.left) .track"),
    ):
        found = [page.locator(one).first.evaluate(background) for one in (inner, outer)]
        without_opacity = {tuple(re.findall(r"[0-9.]+", color)[:3]) for color in found}
        assert len(without_opacity) == 2, (inner, found)


def test_keyboard_alone_is_enough(page: Page, site: Site, images: list[Path]) -> None:
    judged(opened(page, site), images[:2])
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.locator("body").press("Tab")
    reached = []
    for _ in range(16):
        focused = "(({ tagName, id, className, ariaLabel }) => id || ariaLabel || className || tagName)"
        reached.append(page.evaluate(f"{focused}(document.activeElement)"))
        page.keyboard.press("Tab")
    for name in ("files", "save-json", "save-csv", "print", "clear", f"Remove {images[0].name}"):
        assert name in reached, reached
    assert reached[0] == "skip"
    page.get_by_role("button", name=f"Remove {images[0].name}").press("Enter")
    assert page.locator(".card").count() == 1
    assert page.evaluate("document.activeElement.id") == "results"
    page.locator("#clear").press("Enter")
    assert page.locator("#results").is_hidden()
    assert page.evaluate("document.activeElement.id") == "files"


def test_answers_are_announced(page: Page, site: Site, images: list[Path]) -> None:
    judged(opened(page, site), images[:1])
    status = page.get_by_role("status").inner_text()
    assert images[0].name in status
    assert page.locator(".verdict").first.inner_text() in status


def test_print_shows_the_answers_alone(page: Page, site: Site, images: list[Path]) -> None:
    judged(opened(page, site), images)
    page.emulate_media(media="print")
    assert page.locator("#drop").is_hidden()
    assert page.locator(".verdict").first.is_visible()
    assert page.get_by_text(NOTICE).is_visible()


@pytest.fixture(scope="module")
def service_address(tiny_model: Path) -> Iterator[str]:
    """The page with a service behind it."""
    uvicorn = pytest.importorskip("uvicorn", reason="the service is an extra")
    from lentigo.deploy.service import create_app

    classifier = Classifier.load(tiny_model, threads=1)
    app = create_app(classifier, model_folder=tiny_model)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://localhost:{port}/"
    server.should_exit = True
    thread.join(timeout=20)


def test_server_mode_gives_the_same_answers(
    page: Page, service_address: str, tiny_model: Path, images: list[Path]
) -> None:
    page.goto(service_address)
    page.get_by_label("On the server").check()
    assert "server" in page.locator("#promise").inner_text()
    sync_api.expect(page.locator("#status")).to_have_text("Ready.", timeout=PATIENCE_MS)
    foreign = images[0].with_name("notes.jpg")
    foreign.write_bytes(b"no picture")
    judged(page, [*images, foreign])
    assert "not an image" in page.locator(".failed:visible").inner_text()
    page.get_by_label("In this browser").check()
    sync_api.expect(page.locator("#promise")).to_have_text("The images do not leave this browser.")
    judged(page, images)
    page.locator(".slider input").first.fill("65")
    sync_api.expect(page.locator(".heat").first).to_have_attribute("src", re.compile("^data:image/png"))
    answers = saved_json(page)
    refused = answers.pop(len(images))
    assert (refused["name"], set(refused)) == ("notes.jpg", {"name", "error", "remedy"})
    assert len(answers) == 2 * len(images)
    for place, one in enumerate(Classifier.load(tiny_model).predict(images)):
        agrees(answers[place], one.as_dict())
        agrees(answers[place + len(images)], one.as_dict())


@pytest.fixture
def sent(page: Page) -> list[str]:
    """Addresses of the requests that carry something."""
    addresses: list[str] = []
    page.context.on("request", lambda one: addresses.append(one.url) if one.method != "GET" else None)
    return addresses


def held(page: Page, address: str) -> list[Route]:
    """Requests that wait until a test lets them go."""
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    page.route(address, hold)
    return waiting


def first_of(waiting: list[Route], page: Page) -> Route:
    """The request that waits, once there is one."""
    while not waiting:
        page.wait_for_timeout(50)
    return waiting.pop(0)


def test_images_that_wait_in_the_browser_stay_there(
    page: Page, service_address: str, images: list[Path], sent: list[str]
) -> None:
    graphs = held(page, "**/model/*.onnx*")
    page.goto(service_address)
    page.set_input_files("#files", images)
    page.get_by_label("On the server").check()
    first_of(graphs, page).continue_()
    sync_api.expect(page.locator(".judged:not([hidden])")).to_have_count(len(images), timeout=PATIENCE_MS)
    assert sent == []


def test_nothing_more_is_sent_once_the_browser_is_chosen(
    page: Page, service_address: str, images: list[Path], sent: list[str]
) -> None:
    uploads = held(page, "**/api/predict")
    page.goto(service_address)
    page.get_by_label("On the server").check()
    page.set_input_files("#files", images)
    upload = first_of(uploads, page)
    page.get_by_label("In this browser").check()
    upload.continue_()
    sync_api.expect(page.locator(".judged:not([hidden])")).to_have_count(len(images), timeout=PATIENCE_MS)
    assert len(sent) == 1


def test_a_mode_that_fails_late_does_not_speak_for_the_one_chosen_since(page: Page, service_address: str) -> None:
    graphs = held(page, "**/model/*.onnx*")
    page.goto(service_address)
    graph = first_of(graphs, page)
    page.get_by_label("On the server").check()
    status = page.locator("#status")
    sync_api.expect(status).to_have_text("Ready.", timeout=PATIENCE_MS)
    graph.abort()
    first_of(graphs, page).abort()  # it tries again with one thread
    page.wait_for_timeout(500)
    assert status.inner_text() == "Ready."


def test_going_back_shows_the_mode_that_is_used(page: Page, service_address: str) -> None:
    page.goto(service_address)
    page.get_by_label("On the server").check()
    page.goto(f"{service_address}api/docs")
    page.go_back()
    sync_api.expect(page.locator("#mode")).to_be_visible()
    sync_api.expect(page.get_by_label("In this browser")).to_be_checked()
    assert page.locator("#promise").inner_text() == "The images do not leave this browser."


def test_advice_for_programs_is_not_given_to_visitors(page: Page, service_address: str, images: list[Path]) -> None:
    refusal = {"error": "lesion.jpg is larger than 32 MiB", "remedy": "Send the images in several requests."}
    page.route("**/api/predict", lambda route: route.fulfill(status=413, json=refusal))
    page.goto(service_address)
    page.get_by_label("On the server").check()
    said = judged(page, images[:1]).locator(".failed:visible").inner_text()
    assert refusal["error"] in said
    assert "requests" not in said
    assert "Shrink the image" in said


def test_another_mode_is_ready_also_with_cards(page: Page, service_address: str, images: list[Path]) -> None:
    page.goto(service_address)
    status = page.locator("#status")
    sync_api.expect(status).to_have_text("Ready.", timeout=PATIENCE_MS)
    judged(page, images[:1])
    page.get_by_label("On the server").check()
    sync_api.expect(status).to_have_text("Ready.")


def test_no_heat_map_on_a_picture_that_cannot_be_shown(page: Page, service_address: str, images: list[Path]) -> None:
    tiff = images[0].with_suffix(".tif")
    Image.open(images[0]).save(tiff)
    page.goto(service_address)
    page.get_by_label("On the server").check()
    judged(page, [tiff, images[0]])
    first, second = page.locator(".card").all()
    sync_api.expect(second.locator(".slider")).to_be_visible()
    sync_api.expect(first.locator(".no-place")).to_be_visible()
    assert "cannot show this kind of file" in first.locator(".picture").inner_text()
    assert first.locator(".slider").is_hidden()
    assert second.locator(".no-place").is_hidden()
