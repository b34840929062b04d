/* Loads an interactive figure's scripts when a reader comes near it; its picture stands there until then.

   They take a phone longer than all else on the page. */

"use strict";

{
  const folder = document.currentScript.src;
  const loaded = new Set();

  const load = (name) => {
    if (loaded.has(name)) return;
    loaded.add(name);
    const script = document.createElement("script");
    script.async = false; // they run in this order
    script.src = new URL(`${name}.js?v=VERSION`, folder);
    document.head.append(script);
  };

  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        load("core");
        load(target.dataset.name);
      }
    },
    { rootMargin: "100% 0px" },
  );
  for (const figure of document.querySelectorAll(".bn-explore")) near.observe(figure);
}
