/* What scrolls inside itself can be scrolled by keyboard, and fades where it goes on (book.css). An element that is
   not laid out yet, because its part of the page is far away, is not asked: the observer reports it when it comes
   near. */

{
  /* The theme's script, which comes later, would make tab stops too, and have the whole page laid out for it: half of
     what a phone does to open a page. */
  addEventListener("load", (event) => event.stopImmediatePropagation());

  // An interactive figure fits its column; only while it comes to life, it is wider for a moment.
  const output = ".output:not(:has(.bn-explore))";
  const wide = `article :is(.picture, pre, .katex-display, ${output}, .pst-scrollable-table-container)`;

  const goesOn = ({ scrollWidth, clientWidth, scrollLeft }) => scrollWidth - clientWidth - scrollLeft > 2;

  const scrolling = new ResizeObserver((entries) => {
    const elements = entries.map((entry) => entry.target);
    // All sizes are read before anything is written, so that the page is laid out once.
    const scrolls = elements.map(
      (each) => each.scrollWidth > each.clientWidth && each.clientWidth > 0,
    );
    const ends = elements.map(goesOn);
    elements.forEach((element, i) => {
      if (scrolls[i]) element.tabIndex = 0;
      else element.removeAttribute("tabindex");
      element.classList.toggle("goes-on", ends[i]);
    });
  });
  const elements = [...document.querySelectorAll(wide)];
  for (const each of elements) each.onscroll = () => each.classList.toggle("goes-on", goesOn(each));

  function look() {
    for (const element of elements) scrolling.unobserve(element);
    for (const element of elements) scrolling.observe(element);
  }

  look();
  // A formula becomes wider inside its box when its font arrives.
  document.fonts.addEventListener("loadingdone", look);
}
