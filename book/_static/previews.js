/* What a link in the text refers to (an equation, a figure, a theorem, an exercise, the check of a number, a term of the
   glossary, a source) is shown beside the link while the mouse or the keyboard's focus is on it; Escape puts it away. A
   finger follows the link at once; to a source, at its second tap. Where pages are opened from disk they cannot read each other: there,
   only what the same page holds is shown. */

{
  const LINKS = "article a.reference.internal[href*='#']";
  const SHOWN = "figure, div.math, .proof, .exercise, .checked";
  const TERM = "dl.glossary > dt";
  const SOURCE = "article a[href*='bibliography.html#'][title]"; // the title says what the bibliography does
  const PAUSE = 250; // milliseconds: a mouse that only passes shows nothing, and one that slips off loses nothing
  const EDGE = 8; // pixels between the box and the window
  const pages = new Map();
  const box = document.createElement("div");
  box.className = "preview";
  box.popover = "manual";
  let link; // whose target is shown, or will be
  let waiting;

  async function read(address) {
    try {
      const answer = await fetch(address);
      return new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      return undefined; // no network: the link is still a link
    }
  }

  function pageOf({ protocol, pathname }) {
    if (pathname === location.pathname) return document;
    if (protocol === "file:") return undefined;
    if (!pages.has(pathname)) pages.set(pathname, read(pathname));
    return pages.get(pathname);
  }

  /* One definition may serve several terms. */
  function definition(term) {
    return term.matches("dd") ? term : definition(term.nextElementSibling);
  }

  /* Only to be seen: it has no names, which the page has already, and cannot be entered. */
  function copyOf(target, address) {
    const copy = document.createElement("div");
    copy.className = "cell_output"; // what styles a picture
    copy.inert = true;
    copy.append(document.importNode(target, true));
    for (const each of copy.querySelectorAll("[id]")) each.removeAttribute("id");
    for (const each of copy.querySelectorAll(".headerlink, .katex-mathml")) each.remove();
    for (const each of copy.querySelectorAll("img")) each.src = new URL(each.getAttribute("src"), address);
    return copy;
  }

  function place() {
    const { left, top, bottom } = link.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = box;
    const furthest = document.documentElement.clientWidth - width - EDGE;
    const below = bottom + height + EDGE <= innerHeight;
    box.style.left = `${Math.max(EDGE, Math.min(left, furthest))}px`;
    box.style.top = `${below ? bottom : Math.max(EDGE, top - height)}px`;
  }

  function showCopy(copy) {
    box.replaceChildren(copy);
    document.querySelector(".bd-article").append(box);
    box.showPopover();
    place();
  }

  async function show() {
    const wanted = link;
    if (wanted.dataset.source) return showCopy(wanted.dataset.source);
    const address = new URL(wanted.href);
    const page = await pageOf(address);
    const named = page?.getElementById(decodeURIComponent(address.hash.slice(1)));
    const target = named?.matches(TERM) ? definition(named) : named?.closest(SHOWN);
    if (target && link === wanted) showCopy(copyOf(target, address));
  }

  function hide() {
    clearTimeout(waiting);
    link = undefined;
    if (box.isConnected) box.hidePopover();
  }

  function tap(event) {
    const found = event.target.closest?.(LINKS);
    if (event.pointerType !== "touch" || found === link) return;
    hide();
    if (!found?.dataset.source) return;
    event.preventDefault();
    link = found;
    show();
  }

  function soon(action) {
    clearTimeout(waiting);
    waiting = setTimeout(action, PAUSE);
  }

  function enter(element) {
    if (box.contains(element)) return clearTimeout(waiting);
    const found = element.closest?.(LINKS);
    // A mouse that lies still while the page moves under it takes nothing from the keyboard.
    if (!found) return link && !link.matches(":focus-visible") && soon(hide);
    if (found === link && box.matches(":popover-open")) return clearTimeout(waiting);
    if (found !== link) hide();
    link = found;
    return soon(show);
  }

  for (const source of document.querySelectorAll(SOURCE)) {
    source.dataset.source = source.title;
    source.removeAttribute("title");
  }
  document.addEventListener("pointerover", ({ pointerType, target }) => pointerType === "mouse" && enter(target));
  document.addEventListener("focusin", ({ target }) => target.matches(":focus-visible") && enter(target));
  document.addEventListener("click", tap);
  document.addEventListener("keydown", ({ key }) => key === "Escape" && hide());
  addEventListener("scroll", () => box.isConnected && link && place(), { passive: true });
}
