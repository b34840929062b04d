"""Every interactive figure, moved by mouse, finger and keys, and its numbers read back."""

import numpy as np
import pytest
import torch
from _page import FIGURES, Page

from companion import reference
from companion.experiments import memory_traffic
from companion.explore.boundary import draws, output
from companion.statistics import RunningMoments, merge
from companion.whitening import gd_steps

DEVICES = ["mouse", "touch", "keyboard"]


def identity(page):
    start, shown = page.figure.start, page.numbers()
    x, m, eps = np.array(start["x"]), int(shown["m"]), start["eps"]
    mean, var = (each.item() for each in reference.moments(x[:, None]))
    # One batch of m values a column.
    batches = x.reshape(-1, m).T
    columns = batches.shape[1]
    y = reference.forward(batches, [shown["gamma"]] * columns, [shown["beta"]] * columns, eps).y
    best = reference.forward(batches, [(var + eps) ** 0.5] * columns, [mean] * columns, eps).y
    return {
        "mse": np.square(y - batches).mean(),
        "cost": np.square(best - batches).mean(),
    }


def batch(page):
    x = np.array([place[0] for place in page.handles().values()])
    found = reference.forward(x[:, None], eps=page.figure.start["eps"])
    assert len(x) == page.numbers()["m"]
    return {
        "mean": found.batch_mean.item(),
        "var": found.batch_var.item(),
        "square": np.square(found.x_hat).mean(),
        "largest": np.abs(found.x_hat).max(),
        "bound": (len(x) - 1) ** 0.5,
    }


def jacobian(page):
    x = np.array([place[0] for place in page.handles().values()])
    m, eps = len(x), page.numbers()["eps"]
    entries = reference.jacobian(x, eps=eps)
    found = reference.forward(x[:, None], eps=eps)
    inv_std = found.inv_std.item()
    assert m == page.numbers()["m"]
    values = np.linalg.eigvalsh(entries) / inv_std
    ratio = eps / (found.batch_var.item() + eps)
    assert np.abs(values - ratio).min() == pytest.approx(0, abs=1e-9)
    return {
        "std": 1 / inv_std,
        "largest": np.abs(entries).max(),
        "passed": values.sum(),
        "ratio": ratio,
    }


def boundary(page):
    start, m = page.figure.start, int(page.numbers()["m"])
    points = np.array(start["points"])
    drawn = np.reshape(draws(start["seed"], len(points), 16 * m), (16, m))
    settled = output(start, points, points)
    outputs = np.stack([output(start, points, points[batch]) for batch in drawn])
    probe = page.handles()["probe"]
    noise = np.square(outputs - settled).mean()
    return {
        "votes": sum(output(start, probe, points[batch]) > 0 for batch in drawn),
        "logit": output(start, probe, points),
        "flips": ((outputs > 0) != (settled > 0)).mean(),
        "noise": noise,
        "scaled": noise * m,
    }


def roofline(page):
    start, shown, chosen = page.figure.start, page.numbers(), page.choices()
    n, c, side = start["shapes"][int(chosen["shape"])]
    tensor = 4 * n * c * side**2
    in_flight = tensor // c * min(int(shown["block"]), c)
    kept = int(shown["cache"]) * 2**20
    moved = memory_traffic.bytes_moved(chosen["pass"], tensor, in_flight, kept)
    operations = memory_traffic.OPERATIONS[chosen["pass"]] * tensor / 4
    speed = memory_traffic.attainable(operations / moved, **start["machine"])
    return {
        "tensor": tensor,
        "inFlight": in_flight,
        "traffic": moved / tensor,
        "intensity": operations / moved,
        "least": operations / speed,
    }


def ranks(page):
    x, owners = np.array(list(page.handles().values())).T
    parts = [torch.tensor(x[owners == rank, None]) for rank in set(owners)]
    merged = merge(*(RunningMoments.of(part) for part in parts))
    inside = sum(len(part) * part.var(unbiased=False).item() for part in parts) / len(x)
    return {
        "whole": reference.moments(x[:, None])[1].item(),
        "merged": merged.m2.item() / len(x),
        "averaged": inside,
        "between": x.var() - inside,
    }


def descent(page):
    start, tips = page.figure.start, page.handles()
    stretch = np.array([tips["long"], tips["short"]]).T
    weights = np.array(start["weights"])
    if page.choices()["inputs"] == "whitened":
        stretch, weights = np.eye(2), stretch.T @ weights
    x = np.array(start["z"]) @ stretch.T
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    rate = (1.8 if values[1] / values[0] > 1 + 1e-9 else 1.0) / values[1]
    excess = values * (vectors.T @ weights) ** 2 / 2
    steps = gd_steps(torch.tensor(values), torch.tensor(excess), rate, 0.001)
    return {"kappa": values[1] / values[0], "rate": rate, "steps": steps}


def bands(page):
    start, run = page.figure.start, page.figure.start["runs"][int(page.choices()["seed"])]
    (look, _), expected = page.handles()["step"], {}
    for network in ("plain", "batch"):
        ends = np.array([run[network]["low"][look], run[network]["high"][look]])
        low, high = 1 / (1 + np.exp(-ends))
        expected[f"{network}Spread"] = high - low
        expected[f"{network}Accuracy"] = run[network]["accuracy"][look]
    shown = page.page.locator("[data-handle=step]").get_attribute("aria-valuetext")
    assert shown == f"step {start['steps'][look]:,}"
    return expected


# What the oracle says of a figure's present state, and the handle or slider that a test moves.
ORACLES = {
    "bands": bands,
    "batch": batch,
    "boundary": boundary,
    "descent": descent,
    "identity": identity,
    "jacobian": jacobian,
    "ranks": ranks,
    "roofline": roofline,
}
MOVED = {
    "bands": "step",
    "batch": "x7",
    "boundary": "probe",
    "descent": "long",
    "identity": "parameters",
    "jacobian": "x5",
    "ranks": "x9",
}


@pytest.fixture
def opened(browser, tmp_path):
    """Open a figure in a page of its own; no error and no request may have come by the end."""
    pages = []

    def opened(name, **options):
        pages.append(Page(browser, name, tmp_path, **options))
        return pages[-1]

    yield opened
    for page in pages:
        assert not page.errors, page.errors
        strange = [url for url in page.requests if not url.startswith(("file:", "data:"))]
        assert not strange, strange
        page.close()


def check_numbers(page):
    """Hold all numbers against the oracle, and their short forms against themselves."""
    shown, expected = page.numbers(), ORACLES[page.figure.name](page)
    assert expected
    for name, value in expected.items():
        assert shown[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
        text = page.page.locator(f"[data-number={name}]").inner_text()
        assert text.strip(), name


def test_every_figure_is_tested():
    assert set(ORACLES) == set(FIGURES)
    assert set(FIGURES) - set(MOVED) == {"roofline"}, "it has no handle"


@pytest.mark.browser
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MOVED)
def test_a_handle_is_moved(opened, name, device):
    page = opened(name, width=390 if device == "touch" else 1280, touch=device == "touch")
    check_numbers(page)
    handle = MOVED[name]
    before, place = page.numbers(), page.handles()[handle]
    if device == "keyboard":
        page.press(f"[data-handle={handle}]", "ArrowLeft", "ArrowLeft", "ArrowDown", "PageDown")
    else:
        left, _ = page.middle(f"[data-handle={handle}] .knob")
        page.drag_by(handle, -25, -12, device)
        arrived, _ = page.middle(f"[data-handle={handle}] .knob")
        assert arrived == pytest.approx(left - 25, abs=8), "it is where the pointer let it go"
    assert page.handles()[handle] != place
    assert page.numbers() != before
    check_numbers(page)
    said = page.page.locator(f"[data-handle={handle}]").get_attribute("aria-valuetext")
    assert said.strip()


@pytest.mark.browser
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_slider_is_moved(opened, name, device):
    page = opened(name, width=390 if device == "touch" else 1280, touch=device == "touch")
    sliders = page.page.locator("input[type=range]").all()
    for control in [slider.get_attribute("data-control") for slider in sliders]:
        for part, key in [(0.0, "Home"), (0.6, "PageUp"), (1.0, "End"), (0.3, "ArrowLeft")]:
            before = page.numbers()[control]
            if device == "keyboard":
                page.press(f"input[data-control={control}]", key)
            else:
                page.slide(control, part, device)
            if (part, before) != (0.0, page.numbers()[control]):
                assert page.numbers()[control] != before, (control, part)
            check_numbers(page)


@pytest.mark.browser
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_choice_is_made(opened, name, device):
    page = opened(name, width=390 if device == "touch" else 1280, touch=device == "touch")
    choices = page.choices()
    for control in choices:
        options = page.page.locator(f"input[type=radio][data-control={control}]")
        for index in range(1, options.count()):
            if device == "keyboard":
                page.press(f"input[data-control={control}]:checked", "ArrowDown")
            elif device == "touch":
                options.nth(index).tap()
            else:
                options.nth(index).click()
            assert page.choices()[control] == options.nth(index).get_attribute("value")
            check_numbers(page)


@pytest.mark.browser
@pytest.mark.parametrize("name", FIGURES)
def test_the_whole_figure_is_reached_by_keys(opened, name):
    page = opened(name)
    wanted = page.page.locator("[tabindex='0'], .frame button, input[type=range]").count()
    wanted += page.page.locator("fieldset").count()
    page.page.locator("h1").evaluate("heading => { heading.tabIndex = -1; heading.focus(); }")
    seen = set()
    for _ in range(wanted):
        page.page.keyboard.press("Tab")
        focus = "document.activeElement.shadowRoot?.activeElement"
        assert page.page.evaluate(f"{focus} !== undefined && {focus} !== null")
        seen.add(
            page.page.evaluate(
                f"(e => e.dataset.handle ?? e.dataset.control ?? e.tagName)({focus})"
            )
        )
    assert len(seen) == wanted


@pytest.mark.browser
@pytest.mark.parametrize("name", FIGURES)
def test_start_again(opened, name):
    page = opened(name)
    numbers, places = page.numbers(), page.handles()
    if name in MOVED:
        page.press(f"[data-handle={MOVED[name]}]", "ArrowLeft", "ArrowUp", "PageDown")
        assert page.handles() != places
    else:
        page.press("input[type=range] >> nth=0", "ArrowLeft")
    assert page.numbers() != numbers
    page.page.get_by_role("button", name="Start again").click()
    assert (page.numbers(), page.handles()) == (numbers, places)
    assert page.page.get_by_role("button", name="Start again").evaluate(
        "button => button.getRootNode().activeElement === button"
    )


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", FIGURES)
def test_it_fits_the_page_and_its_theme(opened, name, width, theme):
    page = opened(name, width=width, theme=theme)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.page.locator(".frame").get_attribute("data-theme") == theme
    for drawing in page.page.locator("svg").all():
        box = drawing.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        words = drawing.locator("text").evaluate_all(
            "all => all.map(e => [e.textContent, e.getBoundingClientRect().toJSON()])"
        )
        for text, place in words:
            assert 0 <= place["left"] <= place["right"] <= width, f"{text!r} is cut off"
            assert place["bottom"] <= box["y"] + box["height"] + 2, f"{text!r} hangs out"
    for target in page.page.locator("input, button, .handle").all():
        box = target.bounding_box()
        label = target.locator("xpath=ancestor::label")
        if label.count():
            box = label.bounding_box()
        assert min(box["width"], box["height"]) >= 24, "too small for a finger"


@pytest.mark.browser
def test_it_follows_the_theme_and_the_width_while_open(opened):
    page = opened("identity", theme="light")
    page.page.emulate_media(color_scheme="dark")
    page.page.locator(".frame[data-theme=dark]").wait_for()
    page.page.set_viewport_size({"width": 390, "height": 844})
    page.page.wait_for_function(
        "document.querySelector('.bn-explore').shadowRoot.querySelector('svg').clientWidth < 390"
    )
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
    check_numbers(page)


@pytest.mark.browser
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_moves_by_itself(opened, name):
    page = opened(name)
    page.page.wait_for_timeout(700)
    still = page.page.locator(".frame").evaluate("frame => frame.outerHTML")
    page.page.wait_for_timeout(300)
    assert page.page.locator(".frame").evaluate("frame => frame.outerHTML") == still
    assert page.page.evaluate("document.getAnimations().length") == 0


@pytest.mark.browser
@pytest.mark.parametrize("name", FIGURES)
def test_print_has_the_picture(opened, name):
    page = opened(name)
    picture = page.page.locator("img")
    assert not picture.is_visible()
    page.page.emulate_media(media="print")
    assert picture.is_visible()
    assert picture.evaluate("image => image.naturalWidth") > 300
    assert not page.page.locator(".frame").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("name", FIGURES)
def test_a_screen_reader_is_told(opened, name):
    page = opened(name)
    frame = page.page.locator(".frame")
    assert frame.get_attribute("aria-label") == page.figure.title
    described = page.page.locator(f"#{frame.get_attribute('aria-describedby')}")
    assert described.inner_text() == page.figure.description
    spoken = page.page.get_by_role("status")
    page.page.wait_for_timeout(700)
    assert len(spoken.inner_text()) > 20
    assert spoken.inner_text() == page.page.locator(".foot p").inner_text()


@pytest.mark.browser
@pytest.mark.parametrize("device", ["mouse", "touch"])
def test_one_drag_restores_the_identity(opened, device):
    page = opened("identity", width=390 if device == "touch" else 1280, touch=device == "touch")
    page.page.locator("[data-handle=parameters]").scroll_into_view_if_needed()
    assert page.numbers()["mse"] > 100
    (x, y), (goal_x, goal_y) = (
        page.middle(each) for each in (".knob", "[data-mark=target] circle")
    )
    page.drag_by("parameters", goal_x - x, goal_y - y, device)
    assert page.numbers()["mse"] < 1e-9
    assert "undo the normalization" in page.page.locator(".foot p").inner_text()
    page.press("input[data-control=m]", "ArrowLeft")
    assert page.numbers()["mse"] > 1e-3


@pytest.mark.browser
@pytest.mark.parametrize("device", DEVICES)
def test_two_values_collapse(opened, device):
    page = opened("batch", touch=device == "touch")
    assert page.numbers()["largest"] > 2
    if device == "keyboard":
        page.press("input[data-control=m]", "Home")
    else:
        page.slide("m", 0.0, device)
    marks = page.page.locator("[data-mark=normalized] circle")
    places = [float(marks.nth(i).get_attribute("cx")) for i in range(2)]
    for _ in range(3):
        page.press("[data-handle=x1]", "ArrowRight", "PageUp")
        assert page.numbers()["largest"] == pytest.approx(1, abs=1e-3)
        assert [float(marks.nth(i).get_attribute("cx")) for i in range(2)] == pytest.approx(
            places, abs=0.1
        )


KEYS = {
    # the key, and where it takes a value at 4.4 on rank 1 of a row of ranks that counts downwards
    "ArrowRight": [4.5, 1],
    "ArrowLeft": [4.3, 1],
    "ArrowUp": [4.4, 0],
    "ArrowDown": [4.4, 2],
    "PageUp": [5.4, 1],
    "PageDown": [3.4, 1],
    "Home": [0.0, 1],
    "End": [10.0, 1],
    "a": [4.4, 1],
}


@pytest.mark.browser
def test_each_key_goes_its_way(opened):
    page = opened("ranks")
    for key, place in KEYS.items():
        page.page.get_by_role("button", name="Start again").click()
        assert page.handles()["x5"] == [4.4, 1]
        page.press("[data-handle=x5]", key)
        assert page.handles()["x5"] == pytest.approx(place), key
    page = opened("batch")
    for key, value in {
        "ArrowRight": 4.1,
        "ArrowLeft": 3.9,
        "ArrowUp": 4.1,
        "ArrowDown": 3.9,
    }.items():
        page.page.get_by_role("button", name="Start again").click()
        page.press("[data-handle=x4]", key)
        assert page.handles()["x4"][0] == pytest.approx(value), key
