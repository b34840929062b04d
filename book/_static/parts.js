/* Parts of a page that are not laid out yet (book.css): once the reader moves, they are, one at a time while nothing
   else is to do. Their heights, and those of the interactive figures, are kept for the next visit, so that the
   browser finds the reader's place again. */

{
  const parts = [...document.querySelectorAll("article > section > section")];
  const whenIdle = window.requestIdleCallback ?? setTimeout;
  const left = [...parts];

  function layOutNext() {
    const part = left.shift();
    if (!part) return;
    part.style.contentVisibility = "visible";
    whenIdle(layOutNext);
  }

  const moves = ["scroll", "pointerdown", "keydown"];

  function begin() {
    for (const move of moves) removeEventListener(move, begin);
    whenIdle(layOutNext);
  }

  for (const move of moves) addEventListener(move, begin, { passive: true });

  /* A browser keeps its place when what is above grows, except after a jump to an anchor. */
  const above = Number.parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop) || 0;
  let place; // where the jump led to, as long as the reader stays there

  /* What a link leads to may be in closed boxes; not every browser opens them. */
  function jumped() {
    const target = document.querySelector(":target");
    for (let box = target?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    if (target?.closest("details")) target.scrollIntoView();
    const top = target?.getBoundingClientRect().top;
    place = Math.abs(top - above) < 2 ? scrollY : undefined;
  }

  addEventListener("load", jumped);
  addEventListener("hashchange", jumped);
  new ResizeObserver(() => {
    if (place !== scrollY) return;
    document.querySelector(":target").scrollIntoView();
    place = scrollY;
  }).observe(document.body);

  addEventListener("pagehide", () => {
    const figures = [...document.querySelectorAll(".bn-explore")];
    const heightOf = (element) => element.getBoundingClientRect().height;
    const kept = [
      ...parts.map((part) => [`#${CSS.escape(part.id)}`, "contain-intrinsic-height: auto", heightOf(part)]),
      ...figures.map((figure) => [`[data-name="${figure.dataset.name}"]`, "min-height:", heightOf(figure)]),
    ];
    try {
      sessionStorage.setItem(`parts ${location.pathname}`, JSON.stringify([innerWidth, kept]));
    } catch {
      // Without storage the place is found again less well.
    }
  });
}
