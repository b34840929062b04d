/* What scrolls inside itself can be scrolled by keyboard. The theme does the same for code and tables. */

const wide = "article :is(figure, div.math)";

function updateTabStops() {
  const elements = [...document.querySelectorAll(wide)];
  // All sizes are read before anything is written, so that the page is laid out once.
  const scrolls = elements.map((element) => element.scrollWidth > element.clientWidth);
  elements.forEach((element, i) => {
    if (scrolls[i]) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  });
}

window.addEventListener("load", updateTabStops);
window.addEventListener("resize", updateTabStops);
