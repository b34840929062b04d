"use strict";
// A slide that would be higher or wider than its frame takes smaller letters.
const SIZE = { width: 1280, height: 720 };
const MARGIN = 24;
const LEAST = 55; // per cent

function fit(slide) {
  const { display } = slide.style;
  slide.style.display = "block";
  const overflows = () =>
    slide.scrollHeight > SIZE.height - MARGIN ||
    [slide, ...slide.querySelectorAll(".shown, .answer, .katex-display, pre, table")].some(
      (box) => box.scrollWidth > Math.max(box.clientWidth, 1) + 1,
    );
  for (let size = 100; size > LEAST && overflows(); size -= 5) slide.style.fontSize = `${size - 5}%`;
  slide.style.display = display;
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
  document.querySelectorAll(".slides section:not(:has(section))").forEach(fit);
  document.body.dataset.fitted = "";
});
