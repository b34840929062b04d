/* Typesets formulas for static_math.py: one JSON request a line on standard input, one reply a line.

   Request: {"tex": "...", "display": true}. Reply: {"html": "..."} or {"error": "..."}.

   MathJax draws each glyph as an element of its own, inside the groups of the formula's structure; a chapter
   has ten thousand of them, which a phone lays out for a second. Here a formula is one path. */

"use strict";

const readline = require("node:readline");
const mathjax = process.argv[2];
/* Coordinates are rounded to this many thousandths of an em: a thirtieth of a pixel. */
const UNIT = 2;
const STEP = /(translate|scale)\(([^)]+)\)/g;
const SEGMENT = /([MLHVQTCZ])([^MLHVQTCZ]*)/g;

/* A point (x, y) of a group lies at (x0 + k x, y0 + k y) of the drawing. */
function within({ x0, y0, k }, transform) {
  for (const [, kind, values] of (transform ?? "").matchAll(STEP)) {
    const [first, second = 0] = values.split(/[\s,]+/).map(Number);
    if (kind === "scale" && second) return null;
    if (kind === "scale") k *= first;
    else [x0, y0] = [x0 + k * first, y0 + k * second];
  }
  return { x0, y0, k };
}

/* A glyph's outline from its start on, in steps: the same wherever it stands, so that it compresses. */
function moved(outline, { x0, y0, k }) {
  let [x, y] = [0, 0];
  let start = [0, 0];
  let d = "";
  for (const [, kind, values] of outline.matchAll(SEGMENT)) {
    const at = (values.match(/-?[\d.]+/g) ?? []).map((value) => Math.round(k * value));
    if (kind === "Z") {
      d += "z";
      [x, y] = start;
      continue;
    }
    const steps = at.map((value, i) => value - (kind === "V" || (kind !== "H" && i % 2) ? y : x));
    const last = at.length - 1;
    if (kind === "H") x = at[last];
    else if (kind === "V") y = at[last];
    else [x, y] = [at[last - 1], at[last]];
    if (kind === "M") start = [x, y];
    d += d ? kind.toLowerCase() + steps.join(" ") : `M${Math.round(x0) + x} ${Math.round(y0) + y}`;
  }
  return d;
}

/* What a node draws as one path's data; null if it draws more than glyphs and bars. */
function flat(adaptor, node, place) {
  const here = within(place, adaptor.getAttribute(node, "transform"));
  if (here === null) return null;
  const number = (name) => Number(adaptor.getAttribute(node, name) ?? 0);
  switch (adaptor.kind(node)) {
    case "g": {
      const parts = adaptor.childNodes(node).map((child) => flat(adaptor, child, here));
      return parts.includes(null) ? null : parts.join("");
    }
    case "path":
      return moved(adaptor.getAttribute(node, "d"), here);
    case "rect": {
      if (adaptor.getAttribute(node, "fill") === "none") return null;
      const [x, y, w, h] = ["x", "y", "width", "height"].map(number);
      return moved(`M${x} ${y}V${y + h}H${x + w}V${y}Z`, here);
    }
    default:
      return null;
  }
}

function flatten(adaptor, container) {
  const svg = adaptor.firstChild(container);
  const outer = adaptor.lastChild(svg);
  const whole = { x0: 0, y0: 0, k: 1 / UNIT };
  const parts = adaptor.childNodes(outer).map((child) => flat(adaptor, child, whole));
  if (parts.includes(null)) return;
  const transform = `scale(${UNIT},${-UNIT})`;
  adaptor.replace(adaptor.node("path", { transform, d: parts.join("") }), outer);
}

function errorIn(adaptor, node) {
  if (adaptor.kind(node) === "#text") return null;
  if (adaptor.getAttribute(node, "data-mml-node") === "merror") {
    return adaptor.getAttribute(node, "data-mjx-error") ?? "bad TeX";
  }
  for (const child of adaptor.childNodes(node)) {
    const found = errorIn(adaptor, child);
    if (found) return found;
  }
  return null;
}

async function main() {
  const MathJax = await require(`${mathjax}/node-main.js`).init({
    loader: {
      paths: { mathjax },
      load: ["input/tex", "output/svg", "adaptors/liteDOM", "a11y/assistive-mml"],
      require,
      versionWarnings: false,
    },
    startup: { typeset: false },
    // An unknown command is an error, not red text.
    tex: { packages: { "[-]": ["noundefined"] } },
    svg: { fontCache: "none" },
  });
  const { adaptor } = MathJax.startup;

  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { tex, display } = JSON.parse(line);
    const container = MathJax.tex2svg(tex, { display });
    const error = errorIn(adaptor, container);
    if (!error) flatten(adaptor, container);
    const reply = error ? { error } : { html: adaptor.outerHTML(container) };
    process.stdout.write(`${JSON.stringify(reply)}\n`);
  }
}

main();
