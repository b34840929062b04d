"""What is asked of a page in a browser: each check gives a line for every fault that it sees."""

from axe_playwright_python.sync_playwright import Axe

# What axe looks for. Colours take most of its time, and are the same at every width.
COLOURS = ("color-contrast", "link-in-text-block")
NO_COLOURS = {"rules": {rule: {"enabled": False} for rule in COLOURS}}
ONLY_COLOURS = {"runOnly": list(COLOURS)}

LIMIT = 500_000  # bytes of a page as they are sent, images aside
# Whatever is wider than the text and scrolls inside itself, but not by keyboard.
NOT_BY_KEYBOARD = """() => [...document.querySelectorAll("article *")]
  .filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1 && e.tabIndex !== 0
                 && /auto|scroll/.test(getComputedStyle(e).overflowX))
  .map((e) => e.outerHTML.slice(0, 120))"""
# Whatever a reader cannot get to see: cut off by the window or a box, with nothing to scroll it in.
CUT_OFF = """() => {
  const unseen = ".katex-mathml, .katex-html *, details:not([open]), .toggle-hidden, svg *, "
    + ".visually-hidden";
  const edges = (e) => {
    for (let box = e.parentElement; box; box = box.parentElement) {
      const overflow = getComputedStyle(box).overflowX;
      const { left, right } = box.getBoundingClientRect();
      if (/auto|scroll/.test(overflow)) return [left - box.scrollLeft, Infinity];
      if (/hidden|clip/.test(overflow)) return [left, right];
    }
    return [0, innerWidth];
  };
  return [...document.querySelectorAll("article *")].filter((e) => {
    const { left, right, width } = e.getBoundingClientRect();
    if (!width || e.closest(unseen) || e.checkVisibility?.() === false) return false;
    const [from, to] = edges(e);
    return left < from - 1 || right > to + 1;
  }).map((e) => `${e.outerHTML.slice(0, 100)} in
    ${e.closest("p, li, td, div")?.textContent.slice(0, 60)}`);
}"""
# Code that does not fit its column where it is wide, and what goes on to the right unseen.
CODE_TOO_WIDE = """() => [...document.querySelectorAll("article .cell_input pre")]
  .filter((e) => innerWidth >= 1280 && e.scrollWidth > e.clientWidth)
  .map((e) => `${e.scrollWidth - e.clientWidth} pixels of ${e.textContent.slice(0, 100)}`)"""
WITHOUT_CUE = """() => [...document.querySelectorAll("article :is(.picture, pre)")]
  .filter((e) => (e.scrollWidth - e.clientWidth > 2) !== (getComputedStyle(e).maskImage !== "none"))
  .map((e) => e.outerHTML.slice(0, 120))"""
# Images are loaded when they come near, and have a height only then.
LOAD_IMAGES = """() => Promise.all([...document.querySelectorAll("article img")]
  .filter((image) => image.checkVisibility() && !image.closest(".bn-explore"))
  .map((image) => {
    image.loading = "eager";
    return image.decode().then(() => [], () => [`${image.src} is no picture`]);
  })).then((faults) => faults.flat())"""
# Fulfilled when the page has loaded and nothing in it has moved for ten frames.
STILL = """() => new Promise((done) => {
  let place, frames = 0;
  const look = () => {
    const now = [scrollX, scrollY, innerWidth, document.documentElement.scrollHeight].join();
    frames = now === place ? frames + 1 : 0;
    place = now;
    const loaded = document.readyState === "complete" && document.fonts.status === "loaded";
    if (loaded && frames >= 10) done(true);
    else requestAnimationFrame(look);
  };
  look();
})"""
# Whether the page has taken on a theme, and no colour is on its way.
SHOWS = """(theme) => document.documentElement.dataset.theme === theme
  && document.getAnimations().every((each) => each.playState !== "running")"""
# Numbers of equations that stand on their formula.
NUMBERED = """() => [...document.querySelectorAll("article .eqno")]
  .filter((e) => e.getBoundingClientRect().width)
  .filter((e) => e.getBoundingClientRect().left
    < e.parentElement.querySelector(".katex-display").getBoundingClientRect().right)
  .map((e) => e.textContent)"""
NUMBERS = "frame => [...frame.querySelectorAll('[data-number]')].map((e) => e.dataset.value)"


def settle(page):
    """Wait until the page is loaded and nothing in it moves."""
    page.wait_for_function(STILL)


def lay_out(page):
    """Have the browser lay out all of a page, also what is out of sight or folded."""
    page.add_style_tag(
        content="article > section > section { content-visibility: visible !important }"
    )
    page.evaluate("document.querySelectorAll('article details').forEach((d) => d.open = true)")
    settle(page)


def misjudged(page):
    """A page whose height, as long as its parts are not laid out, is far from its own."""
    guess, actual = page.evaluate(
        """() => {
          const heights = [document.documentElement.scrollHeight];
          const style = document.body.appendChild(document.createElement("style"));
          style.textContent =
            "article > section > section { content-visibility: visible !important }";
          heights.push(document.documentElement.scrollHeight);
          style.remove();
          return heights;
        }"""
    )
    return [] if 0.6 < guess / actual < 1.6 else [f"{guess} pixels high at first, then {actual}"]


def turn(page, width, theme):
    """Show an open page at another width, in another theme."""
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 844})
    page.wait_for_function(SHOWS, arg=theme)
    settle(page)


def too_heavy(page):
    """What the page has loaded so far, as it was sent, if that is too much."""
    sizes = {
        request.url: request.sizes()["responseBodySize"]
        for request in page.requests
        if request.resource_type != "image"
    }
    assert page.url in sizes
    total = sum(sizes.values())
    return [f"{total} bytes: {sizes}"] if total > LIMIT else []


def unreachable(page):
    """What a reader cannot get to see, or not without a mouse."""
    settle(page)
    width = page.viewport_size["width"]
    actual = page.evaluate("document.documentElement.scrollWidth")
    return [
        *([f"goes sideways: {actual} pixels of {width}"] if actual > width else []),
        *(f"number on a formula: {each}" for each in page.evaluate(NUMBERED)),
        *(f"cut off: {each}" for each in page.evaluate(CUT_OFF)),
        *(f"code too wide: {each}" for each in page.evaluate(CODE_TOO_WIDE)),
        *(f"goes on without a cue: {each}" for each in page.evaluate(WITHOUT_CUE)),
        *(f"not by keyboard: {each}" for each in page.evaluate(NOT_BY_KEYBOARD)),
    ]


def lifeless(page, names, theme, key):
    """Interactive figures that do not come to life when a reader comes near them."""
    faults = []
    for name in names:
        host = page.locator(f".bn-explore[data-name={name}]")
        host.scroll_into_view_if_needed()
        frame = host.locator(".frame")
        frame.and_(page.locator(f"[data-theme={theme}]")).wait_for()
        background = host.evaluate("host => getComputedStyle(host.parentElement).backgroundColor")
        if background != "rgba(0, 0, 0, 0)":
            faults.append(f"{name}: stands in the theme's light box around an output")
        if host.evaluate("host => Boolean(host.closest('.goes-on, .output[tabindex]'))"):
            faults.append(f"{name}: fades as if it scrolled, or is a tab stop of its own")
        before = frame.evaluate(NUMBERS)
        host.locator("input[type=range], input:checked").first.focus()
        page.keyboard.press(key)
        if frame.evaluate(NUMBERS) == before:
            faults.append(f"{name}: its numbers do not follow its first control")
        box = frame.bounding_box()
        if box["x"] < 0 or box["x"] + box["width"] > page.viewport_size["width"]:
            faults.append(f"{name}: wider than the page")
        if not page.locator(f"figure:has([data-name={name}]) figcaption").is_visible():
            faults.append(f"{name}: without a caption")
    return faults


def violations(page, context=None, **options):
    """What axe objects to in a page, or in a part of it."""
    results = Axe().run(page, context, options={"resultTypes": ["violations"], **options})
    return [
        f"{violation['id']}: {node['html'][:120]} ({node['failureSummary']})"
        for violation in results.response["violations"]
        for node in violation["nodes"]
    ]
