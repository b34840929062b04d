"""A page with one figure, as a notebook's output carries it, moved by mouse, finger or keys."""

import json
import re
from functools import cache

from companion import explore

FIGURES = [name for name in explore.__all__ if name[0].islower()]
DOCUMENT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>A figure</title>
<meta name="viewport" content="width=device-width">
<style>
  :root { color-scheme: light dark; }
  body { color: #222; background: #fff; font-family: sans-serif; margin: 16px; }
  @media (prefers-color-scheme: dark) { body { color: #ddd; background: #121212; } }
</style><main><h1>A figure</h1>BODY</main><div style="height: 100vh"></div></html>"""


@cache
def output(name):
    """A figure and what a notebook gets of it."""
    figure = getattr(explore, name)()
    return figure, figure._repr_mimebundle_()


class Page:
    """One figure in a browser, its numbers, and the errors that the page has reported."""

    def __init__(self, visit, name, folder, *, device="mouse", width=None, theme="light"):
        self.figure, bundle = output(name)
        file = folder / f"{name}.html"
        file.write_text(DOCUMENT.replace("BODY", bundle["text/html"]), encoding="utf-8")
        touch = device == "touch"
        width = width or (390 if touch else 1280)
        self.page = visit(file.as_uri(), width=width, theme=theme, has_touch=touch)
        self.root = self.page.locator("body")
        self.frame = self.root.locator(".frame")
        self.frame.wait_for()

    def turn(self, width, theme):
        """Change the window's width and the theme while the figure is open."""
        self.page.emulate_media(color_scheme=theme)
        self.page.set_viewport_size({"width": width, "height": 844})
        self.frame.and_(self.page.locator(f"[data-theme={theme}]")).wait_for()
        # The drawings follow in the frame after, where they are as wide as their boxes again.
        self.page.wait_for_function(
            """([frame, width]) => {
              const fits = (box) =>
                Math.max(box.clientWidth, 200) === box.querySelector("svg").clientWidth;
              return innerWidth === width && [...frame.querySelectorAll(".plot")].every(fits);
            }""",
            arg=[self.frame.element_handle(), width],
        )

    def numbers(self):
        """Every number shown, with all its digits."""
        return {name: float(value) for name, (value, _) in self._shown().items()}

    def texts(self):
        """Every number as it is shown."""
        return {name: text for name, (_, text) in self._shown().items()}

    def _shown(self):
        return self.root.locator("[data-number]").evaluate_all(
            "all => Object.fromEntries("
            "all.map(e => [e.dataset.number, [e.dataset.value, e.innerText]]))"
        )

    def handles(self):
        """Where every handle is, in the units of its axes."""
        places = self.root.locator("[data-handle]").evaluate_all(
            "all => Object.fromEntries(all.map(e => [e.dataset.handle, e.dataset.at]))"
        )
        return {name: json.loads(place) for name, place in places.items()}

    def drawings(self):
        """The box of every drawing, and its words with their boxes."""
        return self.root.locator("svg").evaluate_all(
            """all => all.map((drawing) => [
              drawing.getBoundingClientRect().toJSON(),
              [...drawing.querySelectorAll("text")].map(
                (e) => [e.textContent, e.getBoundingClientRect().toJSON()]),
            ])"""
        )

    def targets(self):
        """The box of everything that takes a finger: of a label, where that takes it too."""
        return self.root.locator("input, button, .handle").evaluate_all(
            "all => all.map((e) => (e.closest('label') ?? e).getBoundingClientRect().toJSON())"
        )

    def choices(self):
        """The chosen value of every set of radio buttons."""
        values = "all => Object.fromEntries(all.map(e => [e.name, e.value]))"
        return self.root.locator("input[type=radio]:checked").evaluate_all(values)

    def middle(self, selector):
        box = self.root.locator(selector).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag_by(self, handle, dx, dy, device="mouse"):
        """Drag a handle by so many pixels."""
        self.root.locator(f"[data-handle={handle}]").scroll_into_view_if_needed()
        x, y = self.middle(f"[data-handle={handle}] .knob")
        path = [(x + dx * part / 4, y + dy * part / 4) for part in range(5)]
        if device == "mouse":
            self.page.mouse.move(*path[0])
            self.page.mouse.down()
            for place in path[1:]:
                self.page.mouse.move(*place)
            self.page.mouse.up()
            return
        fingers = [("touchStart", path[0]), *(("touchMove", place) for place in path[1:])]
        session = self.page.context.new_cdp_session(self.page)
        for kind, (left, top) in fingers:
            points = [{"x": left, "y": top}]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def press(self, selector, *keys):
        self.root.locator(selector).focus()
        for key in keys:
            self.page.keyboard.press(key)

    def slide(self, control, part, device="mouse"):
        """Touch a slider's track at a part of its length."""
        track = self.root.locator(f"input[type=range][data-control={control}]")
        box = track.bounding_box()
        place = {"x": 8 + part * (box["width"] - 16), "y": box["height"] / 2}
        if device == "mouse":
            track.click(position=place)
        else:
            track.tap(position=place)


def addresses(text):
    """Third-party addresses that a script or a page names, XML's namespaces left out."""
    urls = re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s\"'`)]*", text)
    return [each for each in urls if "www.w3.org/" not in each]
