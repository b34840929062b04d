"""A page with one figure, as a notebook's output carries it, moved by mouse, finger or keys."""

import json
import re

from companion import explore

FIGURES = [name for name in explore.__all__ if name[0].islower()]
DOCUMENT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>A figure</title>
<meta name="viewport" content="width=device-width">
<style>
  :root { color-scheme: light dark; }
  body { color: #222; background: #fff; font-family: sans-serif; margin: 16px; }
  @media (prefers-color-scheme: dark) { body { color: #ddd; background: #121212; } }
</style><main><h1>A figure</h1>BODY</main><div style="height: 100vh"></div></html>"""


class Page:
    """One figure in a browser, its numbers, and the errors that the page has reported."""

    def __init__(self, browser, name, folder, *, width=1280, theme="light", touch=False):
        self.figure = getattr(explore, name)()
        file = folder / f"{name}.html"
        body = self.figure._repr_mimebundle_()["text/html"]
        file.write_text(DOCUMENT.replace("BODY", body), encoding="utf-8")
        self.context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme=theme, has_touch=touch
        )
        self.page = self.context.new_page()
        self.errors, self.requests = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda entry: self.errors.append(entry.text))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.root = self.page.locator("body")
        self.page.locator(".frame").wait_for()

    def close(self):
        self.context.close()

    def numbers(self):
        """Every number shown, with all its digits."""
        values = "all => Object.fromEntries(all.map(e => [e.dataset.number, e.dataset.value]))"
        found = self.root.locator("[data-number]").evaluate_all(values)
        return {name: float(value) for name, value in found.items()}

    def handles(self):
        """Where every handle is, in the units of its axes."""
        places = "all => Object.fromEntries(all.map(e => [e.dataset.handle, e.dataset.at]))"
        found = self.root.locator("[data-handle]").evaluate_all(places)
        return {name: json.loads(place) for name, place in found.items()}

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
        session = self.context.new_cdp_session(self.page)
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
    found = re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s\"'`)]*", text)
    return [each for each in found if "www.w3.org/" not in each]
