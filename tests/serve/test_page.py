"""The page in Chromium: drawing with real pointer events, the inside of the net, both languages, and every trouble."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.data.strokes import STROKES

import striate
from striate.data.builtin import load_named
from striate.data.named import NAMED
from striate.explain.looking import net_batches
from striate.serve.app import make_app
from striate.serve.models import prepare

uvicorn = pytest.importorskip("uvicorn")

FOLDER = Path(striate.__file__).parent / "serve" / "page"
HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>\'"&{{7*7}}'
SOON = 20_000  # ms; nothing takes a second, but the machine may be busy


@contextmanager
def served(*targets: str, **options: Any) -> Iterator[tuple[str, Any]]:
    """Serve targets on a free port; yield the address and the application."""
    app = make_app(prepare(targets), threads=1, **options)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/", app
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def site(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """A net of convolutions and one without, side by side."""
    mlp = tmp_path_factory.mktemp("page") / "mlp"
    striate.train("digits", model="mlp", epochs=2, out=mlp, quiet=True, device="cpu", threads=1)
    with served(f"cnn={digits_run}", f"mlp={mlp}") as found:
        yield found


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return what opens a page. At the end no script failed, nothing was blocked, and nothing foreign was asked for.

    What a test expects of the console it takes out of `page.told` itself.
    """
    pages = []

    def go(address: str, **options: Any) -> Any:
        given = {"viewport": {"width": 1400, "height": 900}, "locale": "en-US", **options}
        page = browser.new_context(**given).new_page()
        page.set_default_timeout(SOON)
        page.told, page.asked = [], []
        page.on("console", lambda message: page.told.append(message.text))
        page.on("pageerror", lambda error: page.told.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        page.wait_for_selector(".answer, dialog[open], #trouble:not([hidden])")
        pages.append((page, address))
        return page

    yield go
    for page, address in pages:
        assert page.told == []
        assert all(url.startswith((address, "data:", "blob:")) for url in page.asked)
        page.context.close()


def draw(page: Any, digit: int, by: Callable[[str, float, float], None] | None = None) -> None:
    """Draw a digit with real pointer events; `by` (down, move or up, across, down) is another pointer."""
    box = page.locator("#pad").bounding_box()

    def mouse(kind: str, x: float, y: float) -> None:
        page.mouse.move(x, y)
        if kind != "move":
            getattr(page.mouse, kind)()

    send = by or mouse
    for line in STROKES[digit]:
        points = [
            (box["x"] + box["width"] * (0.2 + 0.6 * x), box["y"] + box["height"] * (0.15 + 0.7 * y)) for x, y in line
        ]
        send("down", *points[0])
        for point in points[1:]:
            send("move", *point)
        send("up", *points[-1])


def answer(page: Any, number: int = 0) -> Any:
    return page.locator(".answer").nth(number)


def wait_for_answer(page: Any, number: int = 0) -> str:
    """Wait until the answer to all that is drawn stands there; return its label."""
    page.wait_for_function(
        "(n) => document.querySelectorAll('.answer')[n].querySelector('.sureness').textContent !== ''", arg=number
    )
    settle(page)
    return answer(page, number).locator(".label").inner_text()


def settle(page: Any) -> None:
    """Wait until all that was asked has been answered and shown."""
    page.evaluate(
        """async () => {
            const {page} = await import("/page/main.js");
            while (!page.isIdle) await new Promise((resolve) => setTimeout(resolve, 20));
        }"""
    )


def results_of(page: Any) -> list[dict[str, Any]]:
    return page.evaluate(
        "async () => [...(await import('/page/main.js')).page.answers.values()].map(({result}) => result)"
    )


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def photograph() -> bytes:
    """A JPEG like one of a camera: colour, not square, a little noise."""
    down, across = np.mgrid[0:240, 0:320]
    picture = np.stack([across * 0.7, down * 0.9, (across + down) * 0.4], axis=2)
    return png((picture + np.random.default_rng(0).normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8), "JPEG")


def give(page: Any, content: bytes, name: str = "picture.png", kind: str = "image/png") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})


# ---- drawing ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist_site(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """LeNet-5 after two epochs on a sixth of MNIST."""
    train = load_named("mnist", data_root).train
    folder = tmp_path_factory.mktemp("page") / "mnist"
    striate.train(
        (train.images[:10_000], train.labels[:10_000]),
        model="lenet5",
        model_option={"activation": "relu", "pool": "max"},
        epochs=2,
        batch_size=64,
        optimizer="adamw",
        lr=0.004,
        schedule="one-cycle",
        augment="shift:2",
        out=folder,
        quiet=True,
        device="cpu",
    )
    with served(f"mnist={folder}") as (address, _):
        yield address


@pytest.mark.slow
def test_each_digit_that_is_drawn_is_read(mnist_site: str, visit: Callable[..., Any]) -> None:
    page = visit(mnist_site)
    page.select_option("#sure", "0")
    found = []
    for digit in range(10):
        page.click("#clear", force=True) if digit else None
        draw(page, digit)
        found.append(wait_for_answer(page))
    assert "".join(found) == "0123456789"


def test_drawing_asks_while_the_pen_moves_and_shows_what_the_net_saw(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    page.select_option("#sure", "0")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "predict" in request.url else None)
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 60)
    page.mouse.down()
    for step in range(40):
        page.mouse.move(box["x"] + 100, box["y"] + 60 + step * 4)
        page.wait_for_timeout(5)
    page.wait_for_function("() => document.querySelector('.sureness').textContent !== ''")  # the pen is still down
    assert 1 <= sum("model=cnn" in url for url in asked) < 20
    page.mouse.up()
    assert wait_for_answer(page) == results_of(page)[0]["label"] and wait_for_answer(page, 1)
    seen = answer(page).locator("img.seen")
    assert seen.evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [8, 8]
    assert "8 × 8" in seen.get_attribute("alt")
    shares = results_of(page)[0]["probabilities"]
    assert len(shares) == 10 and answer(page).locator(".bars li").count() == 10
    widths = answer(page).locator(".bars i").evaluate_all("(bars) => bars.map((bar) => parseFloat(bar.style.width))")
    assert np.allclose(widths, [100 * share for share in shares.values()], atol=0.01)
    assert "cnn:" in page.locator("#said").inner_text() and "mlp:" in page.locator("#said").inner_text()


def test_finger_and_pen_draw_too(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0], has_touch=True)
    page.select_option("#sure", "0")
    client = page.context.new_cdp_session(page)
    kinds = page.evaluate_handle(
        """() => {
            const kinds = [];
            document.querySelector("#pad").addEventListener("pointerdown", ({pointerType}) => kinds.push(pointerType));
            return kinds;
        }"""
    )

    def finger(kind: str, x: float, y: float) -> None:
        name = {"down": "touchStart", "move": "touchMove", "up": "touchEnd"}[kind]
        client.send(
            "Input.dispatchTouchEvent", {"type": name, "touchPoints": [] if kind == "up" else [{"x": x, "y": y}]}
        )

    def pen(kind: str, x: float, y: float) -> None:
        name = {"down": "mousePressed", "move": "mouseMoved", "up": "mouseReleased"}[kind]
        client.send(
            "Input.dispatchMouseEvent",
            {"type": name, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1, "pointerType": "pen"},
        )

    for pointer in (finger, pen):
        draw(page, 4, pointer)
        assert wait_for_answer(page)
        assert page.evaluate("async () => (await import('/page/main.js')).page.pad.strokes.length") == 2
        page.click("#clear")
        assert answer(page).locator(".sureness").inner_text() == ""
    assert kinds.json_value() == ["touch", "touch", "pen", "pen"]


def test_undo_thickness_and_clear(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    page.fill("#thickness", "12")
    draw(page, 4)
    widths = "async () => (await import('/page/main.js')).page.pad.strokes.map(({width}) => width)"
    assert page.evaluate(widths) == [0.12, 0.12]
    page.click("#undo")
    assert len(page.evaluate(widths)) == 1
    page.keyboard.press("Control+z")
    assert page.evaluate(widths) == [] and page.locator("#invitation").is_visible()
    draw(page, 1)
    wait_for_answer(page)
    page.click("#clear")
    assert answer(page).locator(".why").inner_text() == "Draw, and the answer appears here."
    assert page.locator("#undo").is_disabled()


def test_a_late_answer_is_not_shown(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    held = []
    page.route("**/predict*", lambda route: held.append(route))
    draw(page, 1)
    page.wait_for_timeout(300)
    page.click("#clear")
    assert held
    for route in held:
        route.continue_()
    page.unroute("**/predict*")
    settle(page)
    assert answer(page).locator(".sureness").inner_text() == ""
    draw(page, 0)
    assert wait_for_answer(page)


# ---- pictures ---------------------------------------------------------------------------------------------------


def test_a_photograph_is_uploaded_dropped_and_pasted(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    page.evaluate(
        """() => {
            const ask = window.fetch;
            window.sent = [];
            window.fetch = async (path, given) => {
                if (path.startsWith("predict")) window.sent.push([...new Uint8Array(await given.body.arrayBuffer())]);
                return ask(path, given);
            };
        }"""
    )
    content = photograph()
    give(page, content, "holiday.jpg", "image/jpeg")
    wait_for_answer(page)
    assert page.locator("#picture-name").inner_text() == "holiday.jpg"
    sent = page.evaluate("() => window.sent")
    assert sent and all(bytes(body) == content for body in sent)  # as it came, so that the server reads its EXIF
    wanted = striate.load(site[1].state.models[0]._prepared.run, device="cpu").predict(content)
    assert results_of(page)[0]["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)
    for event, carrier in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.click("#clear")
        page.evaluate(
            """([event, carrier, bytes]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], event + ".jpg", {type: "image/jpeg"}));
                const kind = event === "drop" ? DragEvent : ClipboardEvent;
                document.body.dispatchEvent(new kind(event, {[carrier]: transfer, bubbles: true, cancelable: true}));
            }""",
            [event, carrier, list(content)],
        )
        wait_for_answer(page)
        assert page.locator("#picture-name").inner_text() == f"{event}.jpg"
    draw(page, 1)  # over the picture
    settle(page)
    sent = bytes(page.evaluate("() => window.sent.at(-1)"))
    assert sent[:4] == b"\x89PNG" and Image.open(io.BytesIO(sent)).size == (320, 240)


def test_what_is_no_picture_is_told_in_plain_words(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    give(page, b"not a picture", "notes.png")
    page.wait_for_function("() => document.querySelector('.why').textContent.includes('no picture')")
    assert answer(page).locator(".sureness").inner_text() == ""
    assert "no picture that can be read" in page.locator("#said").inner_text()
    assert all("422" in line for line in page.told)
    page.told.clear()
    draw(page, 0)
    page.click("#clear")
    draw(page, 0)
    wait_for_answer(page)


def test_hostile_names_run_no_script(site: Any, visit: Callable[..., Any]) -> None:
    address = site[0]

    def with_names(route: Any) -> None:
        reply = route.fetch()
        hostile = json.dumps(HOSTILE)[1:-1]
        body = (
            reply.text().replace('"3"', f'"{hostile}"').replace('"LeNet5"', f'"{hostile}"').replace("inverted", hostile)
        )
        route.fulfill(response=reply, body=body)

    page = visit(address)
    page.route("**/models", with_names)
    page.route("**/predict*", with_names)
    page.reload()
    page.wait_for_selector(".answer")
    give(page, png(np.full((20, 20), 255, np.uint8)), HOSTILE + ".png")
    draw(page, 3)
    wait_for_answer(page)
    answer(page).locator("summary").click()
    page.locator(".tile").first.click()
    page.click("#language")
    settle(page)
    text = page.locator("body").inner_text()
    assert HOSTILE in text and HOSTILE + ".png" in text
    assert page.evaluate("() => window.hit") is None and page.locator("img[src=x], main script").count() == 0


def test_noise_is_not_known(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    give(page, png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    page.wait_for_function("() => document.querySelector('.sureness').textContent !== ''")
    assert results_of(page)[0]["rejected"]
    assert answer(page).locator(".label").inner_text() == "?"
    assert answer(page).locator(".sureness").inner_text() == "I don’t know"
    page.select_option("#sure", "0")
    page.wait_for_function("() => document.querySelector('.label').textContent !== '?'")


# ---- inside -----------------------------------------------------------------------------------------------------


def open_layer(page: Any, name: str) -> None:
    page.locator(f".tile[title^='{name} ']").click()
    settle(page)


MAPS = """async () => {
    const {stage} = (await import("/page/main.js")).page.inside;
    return {name: stage.layer.name, shape: stage.maps.shape, values: [...stage.maps.values]};
}"""


def test_the_numbers_of_every_layer_equal_the_forward_hooks(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    draw(page, 5)
    wait_for_answer(page)
    predictor = site[1].state.models[0].torch_predictor()
    url = results_of(page)[0]["seen"]
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))[None, :, :, None]
    wanted: dict[str, np.ndarray] = {}
    handles = []
    for name, module in predictor.net.named_modules():

        def keep(_module: Any, _inputs: Any, output: Any, name: str = name) -> None:
            wanted[name] = output.detach().clone().numpy()[0]

        handles.append(module.register_forward_hook(keep))
    predictor.net.eval()(next(net_batches(predictor, seen.copy())))
    for handle in handles:
        handle.remove()
    names = page.evaluate("async () => (await import('/page/main.js')).page.inside.info.layers.map(({name}) => name)")
    assert len(names) > 4
    for name in names:
        open_layer(page, name)
        page.wait_for_selector(".map, .unit")
        found = page.evaluate(MAPS)
        values = np.float32(found["values"])
        assert found["name"] == name and found["shape"] == list(wanted[name].shape)
        np.testing.assert_allclose(values, wanted[name].ravel()[: len(values)], rtol=0, atol=1e-5)
        assert page.locator(".map, .unit").count() == min(64, len(wanted[name]))


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_a_cell_shows_its_field_and_its_sum(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    draw(page, 2)
    wait_for_answer(page)
    page.wait_for_selector(".map")
    box = page.locator(".map canvas").nth(1).bounding_box()
    _, height, width = page.evaluate(MAPS)["shape"]
    page.mouse.click(box["x"] + box["width"] * 2.5 / width, box["y"] + box["height"] * 1.5 / height)
    page.wait_for_selector(".total")
    values = np.reshape(page.evaluate(MAPS)["values"], page.evaluate(MAPS)["shape"])
    assert page.locator(".number").inner_text().split("\n")[-1] == "map 2, row 2, column 3"
    assert number(page.locator(".amount").get_attribute("title")) == pytest.approx(values[1, 1, 2], abs=1e-5)
    products, bias, total = (
        number(part.strip("()")) for part in re.split(r" [+=] ", page.locator(".total strong").inner_text())
    )
    assert products + bias == pytest.approx(total, abs=0.002) and total == pytest.approx(values[1, 1, 2], abs=0.001)
    first = page.locator(".sums li").first.locator(".grid")
    inputs, weights, made = (
        [number(b.get_attribute("title")) for b in first.nth(at).locator("b").all()] for at in range(3)
    )
    assert np.allclose(np.multiply(inputs, weights), made, atol=0.003)
    assert "pixels" in page.locator(".of-cell figcaption").first.inner_text()
    marked = page.evaluate("() => document.querySelector('.of-cell canvas').getAttribute('aria-label')")
    assert "rows 1 to" in marked
    page.locator(".tile").last.click()  # the last layer: a linear one
    page.locator(".unit").nth(2).click()
    page.wait_for_selector(".terms li")
    assert page.locator(".unit").nth(2).get_attribute("aria-label").startswith("2: ")


def test_kernels_and_class_maps(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    page.wait_for_selector(".map canvas")  # without a picture the kernels are there
    assert page.locator(".views [aria-pressed=true]").inner_text() == "Kernels"
    draw(page, 3)
    wait_for_answer(page)
    page.wait_for_selector("button.map")
    assert page.locator(".views [aria-pressed=true]").inner_text() == "Maps"
    page.locator(".tile").first.click()
    page.wait_for_selector(".classes [aria-pressed=true]")
    before = page.locator("canvas.where").evaluate("(canvas) => canvas.toDataURL()")
    page.locator(".classes button", has_text="7").click()
    page.wait_for_selector(".classes [aria-pressed=true] >> text=7")
    settle(page)
    assert page.locator("canvas.where").evaluate("(canvas) => canvas.toDataURL()") != before
    assert "7" in page.locator("canvas.where").get_attribute("aria-label")
    page.select_option("#inside-model select", "mlp")
    page.wait_for_selector(".tile >> text=Flatten")
    page.locator(".tile").first.click()
    assert "no maps" in page.locator(".where-body").inner_text()


def test_models_side_by_side_and_one_put_away(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    draw(page, 6)
    assert wait_for_answer(page) and wait_for_answer(page, 1)
    boxes = [answer(page, at).bounding_box() for at in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[1]["x"] >= boxes[0]["x"] + boxes[0]["width"]
    page.locator("#models input").nth(1).uncheck()
    assert page.locator(".answer").count() == 1
    page.locator("#models input").nth(1).check()
    assert wait_for_answer(page, 1)


def test_without_torch_the_page_classifies_and_says_what_is_missing(
    digits_onnx: Path, visit: Callable[..., Any]
) -> None:
    with served(str(digits_onnx)) as (address, _):
        page = visit(address)
        draw(page, 0)
        assert wait_for_answer(page)
        text = page.locator("#missing").inner_text()
        assert "PyTorch" in text and "striate serve runs/latest" in text and page.locator("#flow").is_hidden()
        page.click("#language")
        assert "PyTorch" in page.locator("#missing").inner_text()
        assert not any("explain" in url for url in page.asked)


# ---- everybody --------------------------------------------------------------------------------------------------


def test_with_the_keyboard_alone(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    page.select_option("#sure", "0")
    press = page.keyboard.press

    def tab_to(selector: str) -> None:
        for _ in range(60):
            press("Tab")
            if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    page.evaluate("() => document.body.focus()")
    tab_to("#pad")
    for _ in range(8):
        press("ArrowUp")
    press(" ")
    for _ in range(16):
        press("ArrowDown")
    press(" ")
    assert wait_for_answer(page)
    assert "1 strokes" in page.locator("#pad").get_attribute("aria-label")
    tab_to(".tile")
    press("Home")
    press("ArrowRight")
    press("Enter")
    page.wait_for_selector("button.map")
    tab_to(".map")
    press("ArrowRight")
    press("Enter")
    page.wait_for_selector(".enlarged:focus")
    at = page.evaluate("async () => (await import('/page/main.js')).page.inside.stage.cell")
    press("ArrowRight")
    page.wait_for_selector(".total")
    assert page.evaluate("async () => (await import('/page/main.js')).page.inside.stage.cell") == [1, at[1], at[2] + 1]
    said = page.locator("#said").inner_text()
    assert said.startswith(f"Row {at[1] + 1}, column {at[2] + 2}: ")
    for control in ("#theme", "#language", "#thickness", "#choose", "#sure", "#clear", ".chip input", ".views button"):
        page.locator(control).first.focus()
        assert page.locator(control).first.evaluate("(one) => one === document.activeElement"), control
    page.locator("#pad").focus()
    press("Delete")
    assert page.locator("#invitation").is_visible()


def test_everything_that_can_be_used_has_a_name(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    draw(page, 8)
    wait_for_answer(page)
    page.locator("button.map").first.click()
    page.wait_for_selector(".total")
    nameless = page.evaluate(
        """() => {
            const all = document.querySelectorAll("button, input:not([type=file]), select, [tabindex='0'], [role=img]");
            const label = (one) => one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent;
            const name = (one) => label(one) || one.textContent;
            return [...all].filter((one) => one.offsetParent && !name(one).trim()).map((one) => one.outerHTML);
        }"""
    )
    assert nameless == []
    assert (
        page.locator("[role=status][aria-live=polite]").count() == 1
        and page.locator("html").get_attribute("lang") == "en"
    )


CONTRAST = r"""() => {
    const linear = (level) => (level / 255 <= 0.04045 ? level / 255 / 12.92 : ((level / 255 + 0.055) / 1.055) ** 2.4);
    const light = ([red, green, blue]) => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
    const read = (text) => text.match(/[\d.]+/g).map(Number);
    const left = ".hidden, .skip, :disabled, option, noscript, dialog";
    const bad = [];
    for (const element of document.querySelectorAll("body *")) {
        const isText = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!isText || !element.getClientRects().length || element.closest(left)) continue;
        let ground = [255, 255, 255], up = element;
        for (; up; up = up.parentElement) {
            const colour = read(getComputedStyle(up).backgroundColor);
            if ((colour[3] ?? 1) > 0.99) { ground = colour; break; }
        }
        const pair = [light(read(getComputedStyle(element).color)), light(ground)];
        const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        if (ratio < 4.5) bad.push([element.className, element.textContent.slice(0, 30), ratio.toFixed(2)]);
    }
    return bad;
}"""


@pytest.mark.parametrize(
    ("width", "scheme", "locale"),
    [
        (400, "light", "zh-CN"),
        (1400, "dark", "en-US"),
        pytest.param(400, "dark", "en-US", marks=pytest.mark.slow),
        pytest.param(1400, "light", "zh-CN", marks=pytest.mark.slow),
    ],
)
def test_widths_themes_and_contrast(site: Any, visit: Callable[..., Any], width: int, scheme: str, locale: str) -> None:
    page = visit(site[0], viewport={"width": width, "height": 850}, color_scheme=scheme, locale=locale)
    assert page.locator("html").get_attribute("data-theme") == scheme
    assert page.locator("html").get_attribute("lang") == locale[:2]
    draw(page, 7)
    wait_for_answer(page)
    page.locator("button.map").nth(3).click()
    page.wait_for_selector(".total")
    page.wait_for_timeout(300)  # transitions
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    assert page.evaluate(CONTRAST) == []
    page.click("#theme")
    page.wait_for_timeout(300)
    assert page.evaluate(CONTRAST) == []
    other = page.locator("html").get_attribute("data-theme")
    assert other != scheme
    page.click("#language")
    lang = page.locator("html").get_attribute("lang")
    page.reload()
    page.wait_for_selector(".answer")
    assert page.locator("html").get_attribute("data-theme") == other
    assert page.locator("html").get_attribute("lang") == lang != locale[:2]


def test_both_languages_are_complete(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    words = page.evaluate("async () => (await import('/page/words.js')).WORDS")
    assert set(words["en"]) == set(words["zh"])
    holes = {name: {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in words[name].items()} for name in words}
    assert holes["en"] == holes["zh"]
    assert all(
        re.search("[\u4e00-\u9fff]", text)
        or key in ("language", "languageLabel", "sure_n", "total", "ofSize", "gridLabel", "said")
        for key, text in words["zh"].items()
    )
    scripts = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.js") if path.name != "words.js")
    scripts += (FOLDER / "index.html").read_text("utf-8") + (FOLDER / "words.js").read_text("utf-8").rpartition(
        "export const language"
    )[2]
    used = set(re.findall(r"""(?:\bt\(|data-t=|data-t-label=)"(\w+)\"""", scripts))
    assert used <= set(words["en"]), used - set(words["en"])
    unused = [key for key in words["en"] if key not in scripts and not re.match("(e|theme|to|sure|rule)_", key)]
    assert unused == []
    page.click("#language")
    assert page.locator("#invitation").inner_text().startswith("在这里画一个数字")
    left = page.evaluate(
        "() => [...document.querySelectorAll('[data-t]')].filter((one) => one.textContent === one.dataset.t).length"
    )
    assert left == 0


def test_class_names_in_chinese_are_those_of_the_data_sets(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    names = page.evaluate("async () => (await import('/page/words.js')).CLASSES")
    wanted: dict[str, str] = {}
    for known in ("cifar100", "cifar10", "fashion-mnist"):
        wanted |= dict(zip(NAMED[known].classes, NAMED[known].classes_zh, strict=True))
    assert names == wanted


def test_files_are_small_and_hold_nothing_inline_or_foreign() -> None:
    files = {path.name: path.read_text("utf-8") for path in FOLDER.iterdir()}
    assert sum(len(text.encode()) for text in files.values()) < 200_000
    for name, text in files.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), name
        foreign = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)) - {"http://www.w3.org"}
        assert not foreign, (name, foreign)
    index = files["index.html"]
    assert " style=" not in index and "<style" not in index and not re.search(r"<script(?![^>]*src=)|\son\w+=", index)


# ---- troubles ---------------------------------------------------------------------------------------------------


def test_a_token_is_asked_for_and_kept(digits_run: Path, visit: Callable[..., Any]) -> None:
    with served(str(digits_run), token="open sesame") as (address, _):
        page = visit(address)
        page.wait_for_selector("dialog[open]")
        page.fill("#token", "wrong")
        page.press("#token", "Enter")
        page.wait_for_function("() => document.querySelector('#token-wrong').textContent !== ''")
        page.fill("#token", "open sesame")
        page.press("#token", "Enter")
        page.wait_for_selector(".answer")
        draw(page, 1)
        assert wait_for_answer(page)
        page.reload()
        page.wait_for_selector(".answer")
        assert page.locator("dialog[open]").count() == 0
        assert page.evaluate("() => [sessionStorage.length, document.cookie]") == [1, ""]
        assert len(page.told) == 2 and all("401" in line for line in page.told)
        page.told.clear()


def test_a_server_that_is_gone_is_told_and_comes_back(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    settle(page)
    for path in ("**/predict*", "**/models", "**/explain*"):
        page.route(path, lambda route: route.abort())
    draw(page, 0)
    page.wait_for_selector("#trouble:not([hidden])")
    assert "does not answer" in page.locator("#trouble").inner_text()
    for path in ("**/predict*", "**/models", "**/explain*"):
        page.unroute(path)
    assert wait_for_answer(page)
    assert page.locator("#trouble").is_hidden()
    page.wait_for_selector("button.map")
    page.told[:] = [line for line in page.told if "ERR_FAILED" not in line]


@pytest.mark.slow
def test_a_busy_server_is_asked_again(site: Any, visit: Callable[..., Any]) -> None:
    page = visit(site[0])
    left = [3]

    def busy(route: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            route.continue_()
            return
        error = {"error": {"code": "busy", "what": "too much waits", "cause": "", "fix": "ask again later"}}
        route.fulfill(status=429, headers={"retry-after": "1"}, json=error)

    page.route("**/predict*", busy)
    draw(page, 0)
    page.wait_for_selector("#trouble:not([hidden])")
    assert "busy" in page.locator("#trouble").inner_text()
    assert wait_for_answer(page)
    page.wait_for_selector("#trouble", state="hidden")
    page.told[:] = [line for line in page.told if "429" not in line]


@pytest.mark.parametrize(("status", "said"), [(500, "failed"), (404, "does not know"), (413, "too large")])
def test_errors_are_told_in_plain_words(site: Any, visit: Callable[..., Any], status: int, said: str) -> None:
    page = visit(site[0])
    error = {"error": {"code": "x", "what": HOSTILE, "cause": "why", "fix": ""}}
    page.route("**/predict*", lambda route: route.fulfill(status=status, json=error))
    draw(page, 0)
    page.wait_for_function("(said) => document.querySelector('.hand').innerText.includes(said)", arg=said)
    assert HOSTILE in page.locator(".hand").inner_text() and page.evaluate("() => window.hit") is None
    page.told[:] = [line for line in page.told if str(status) not in line]
