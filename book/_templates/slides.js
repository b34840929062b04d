"use strict";
// A slide that would be higher or wider than its frame takes smaller letters.
const SIZE = { width: 1280, height: 720 };
const MARGIN = 24;
const LEAST = 55; // per cent

function fit(slide) {
  const overflows = () =>
    slide.scrollHeight > SIZE.height - MARGIN ||
    [slide, ...slide.querySelectorAll(".shown, .answer, .katex-display, pre, table")].some(
      (box) => box.scrollWidth > Math.max(box.clientWidth, 1) + 1,
    );
  for (let size = 100; size > LEAST && overflows(); size -= 5) slide.style.fontSize = `${size - 5}%`;
}

Reveal.initialize({
  ...SIZE,
  center: false,
  controls: true,
  hash: true,
  margin: 0.05,
  pdfSeparateFragments: false,
  plugins: [RevealNotes],
  slideNumber: "c/t",
  transition: "none",
}).then(async () => {
  await document.fonts.ready;
  const images = [...document.images].map((image) => image.decode().catch(() => null));
  await Promise.all(images);
  document.body.classList.add("fitting"); // with all slides laid out
  document.querySelectorAll(".slides section:not(:has(section))").forEach(fit);
  document.body.classList.remove("fitting");
  document.body.dataset.fitted = "";
});
