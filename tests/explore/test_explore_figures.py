"""Every interactive figure, moved by mouse, finger and keys, and its numbers read back."""

import pytest
from _oracles import MOVED, ORACLES, check_numbers
from _page import FIGURES, Page

SLOW = pytest.mark.slow(reason="other figures or devices move the same controls")
# The mouse moves all figures in the short run, a finger and the keys one each.
SHORT = {*((name, "mouse") for name in FIGURES), ("descent", "touch"), ("ranks", "keyboard")}
DEVICES = ["mouse", "touch", "keyboard"]
MOVES = [
    pytest.param(name, device, marks=() if (name, device) in SHORT else SLOW)
    for name in FIGURES
    for device in DEVICES
]


def by_device(short):
    """The devices, one of them in the short run."""
    return [pytest.param(each, marks=() if each == short else SLOW) for each in DEVICES]


@pytest.fixture
def opened(visit, tmp_path):
    """Open a figure in a page of its own."""

    def opened(name, *, device="mouse", **options):
        return Page(visit, name, tmp_path, device=device, **options)

    return opened


def test_every_figure_is_tested():
    assert set(ORACLES) == set(FIGURES)
    assert set(FIGURES) - set(MOVED) == {"company", "histograms", "roofline", "stack"}, (
        "they have no handle"
    )


def move_handle(page, device):
    handle = MOVED[page.figure.name]
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
    words = page.page.locator(f"[data-handle={handle}]").get_attribute("aria-valuetext")
    assert words.strip()


def move_sliders(page, device):
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


def make_choices(page, device):
    for control in page.choices():
        options = page.page.locator(f"input[type=radio][data-control={control}]")
        for index in range(1, options.count()):
            if device == "keyboard":
                options.nth(index - 1).press("ArrowDown")
            elif device == "touch":
                options.nth(index).tap()
            else:
                options.nth(index).click()
            assert page.choices()[control] == options.nth(index).get_attribute("value")
            check_numbers(page)


@pytest.mark.browser
@pytest.mark.parametrize(("name", "device"), MOVES)
def test_a_figure_is_moved_and_starts_again(opened, name, device):
    page = opened(name, device=device)
    numbers, places = page.numbers(), page.handles()
    check_numbers(page)
    if name in MOVED:
        move_handle(page, device)
    move_sliders(page, device)
    make_choices(page, device)
    assert page.numbers() != numbers
    again = page.page.get_by_role("button", name="Start again")
    again.click()
    assert (page.numbers(), page.handles()) == (numbers, places)
    assert again.evaluate("button => button.getRootNode().activeElement === button")


def check_fit(page, width, theme):
    """Nothing is cut off or hangs out, and every control is large enough for a finger."""
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.page.locator(".frame").get_attribute("data-theme") == theme
    for box, words in page.drawings():
        assert 0 <= box["left"] <= box["right"] <= width
        for text, place in words:
            assert 0 <= place["left"] <= place["right"] <= width, f"{text!r} is cut off"
            assert place["bottom"] <= box["bottom"] + 2, f"{text!r} hangs out"
    for box in page.targets():
        assert min(box["width"], box["height"]) >= 24, "too small for a finger"


@pytest.mark.browser
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ((1280, "light"), (390, "dark")),
        pytest.param((390, "light"), (1280, "dark"), marks=SLOW),
    ],
)
@pytest.mark.parametrize("name", FIGURES)
def test_it_fits_the_page_and_its_theme_and_follows_both(opened, name, first, then):
    page = opened(name, width=first[0], theme=first[1])
    check_fit(page, *first)
    page.turn(*then)
    check_fit(page, *then)
    check_numbers(page)


@pytest.mark.browser
@pytest.mark.parametrize("name", FIGURES)
def test_it_is_reached_by_keys_told_to_a_screen_reader_still_and_printed(opened, name):
    page = opened(name)
    check_names(page)
    check_tab_stops(page)
    check_stillness(page)
    check_print(page)


def check_tab_stops(page):
    """The whole figure is reached by keys."""
    stops = page.page.locator("[tabindex='0'], .frame button, input[type=range]").count()
    stops += page.page.locator("fieldset").count()
    page.page.locator("h1").evaluate("heading => { heading.tabIndex = -1; heading.focus(); }")
    reached = set()
    for _ in range(stops):
        page.page.keyboard.press("Tab")
        reached.add(
            page.page.evaluate(
                """() => {
                  const element = document.activeElement.shadowRoot?.activeElement;
                  return element?.dataset.handle ?? element?.dataset.control ?? element?.tagName;
                }"""
            )
        )
    assert None not in reached, "the focus left the figure"
    assert len(reached) == stops


def check_stillness(page):
    """Nothing moves by itself, however long the page is open."""
    page.page.clock.install()
    page.page.reload()  # timers set from here on are the clock's
    page.frame.wait_for()
    page.page.clock.run_for(1000)  # the sentence is told to screen readers once
    still = page.page.locator(".frame").evaluate("frame => frame.outerHTML")
    page.page.clock.run_for(60_000)
    assert page.page.locator(".frame").evaluate("frame => frame.outerHTML") == still
    assert page.page.evaluate("document.getAnimations().length") == 0


def check_print(page):
    """Paper has the picture in place of the figure."""
    picture, frame = page.page.locator("img"), page.page.locator(".frame")
    assert not picture.is_visible()
    page.page.emulate_media(media="print")
    assert picture.is_visible()
    assert picture.evaluate("image => image.naturalWidth") > 300
    assert not frame.is_visible()


def check_names(page):
    """A screen reader is told what the figure is and, once it rests, what it shows."""
    frame = page.page.locator(".frame")
    assert frame.get_attribute("aria-label") == page.figure.title
    described = page.page.locator(f"#{frame.get_attribute('aria-describedby')}")
    assert described.inner_text() == page.figure.description
    sentence = page.page.locator(".foot p").inner_text()
    assert len(sentence) > 20
    page.page.get_by_role("status").filter(has_text=sentence).wait_for(state="attached")


@pytest.mark.browser
@pytest.mark.parametrize("device", by_device("mouse")[:2])
def test_one_drag_restores_the_identity(opened, device):
    page = opened("identity", device=device)
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
@pytest.mark.parametrize("device", by_device("mouse"))
def test_two_values_collapse(opened, device):
    page = opened("batch", device=device)
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


@pytest.mark.browser
def test_any_learning_rate_turns_the_weights_to_the_best_direction(opened):
    page = opened("circle")
    steps = []
    for times in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9):  # half decades, from 0.01 on
        page.press("input[data-control=rate]", "Home", *["ArrowRight"] * times)
        shown = page.numbers()
        assert shown["norm"] > 1, "descent makes the weights longer"
        assert shown["second"] < shown["first"]
        steps.append(shown["steps"])
    least = steps.index(min(steps))
    assert min(steps) > 0, "each arrives"
    assert steps == sorted(steps[: least + 1], reverse=True) + sorted(steps[least + 1 :])
    assert min(steps[0], steps[-1]) > 20 * steps[least]


@pytest.mark.browser
def test_the_steps_of_descent_follow_the_condition_number(opened):
    page = opened("descent")
    steps = {}
    for times, key in ((14, "ArrowRight"), (0, "ArrowRight"), (60, "ArrowLeft")):
        page.page.get_by_role("button", name="Start again").click()
        page.press("[data-handle=long]", *["ArrowUp"] * 20)  # as long as it gets
        page.press("[data-handle=short]", *[key] * times)  # as short, as it was, as long
        check_numbers(page)
        check_seen(page)
        shown = page.numbers()
        steps[round(shown["kappa"], 1)] = shown["steps"]
    # ρ = 399/401, 24/26 and 0: the least t with ρ to the power 2t under 0.001.
    assert steps == {400: 691, 25: 44, 1: 1}
    page.page.locator("input[value=whitened]").click()
    assert page.numbers()["steps"] == 1
    check_seen(page)


def check_seen(page):
    """Start and minimum are in the frame of the loss, and the path goes from one to the other."""
    frame = page.page.locator(".plot").nth(1).locator("svg").bounding_box()
    start, goal = (
        page.page.locator("[data-mark=labels] text").nth(i).bounding_box() for i in range(2)
    )
    for box in (start, goal):
        assert frame["x"] < box["x"] < frame["x"] + frame["width"] - box["width"]
        assert frame["y"] < box["y"] < frame["y"] + frame["height"] - box["height"]
    path = page.page.locator("[data-mark=path] path").bounding_box()
    assert path["width"] + path["height"] > 0.1 * frame["height"], "the way is seen"
