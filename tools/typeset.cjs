/* Typesets formulas for static_math.py: one JSON request a line on standard input, one reply a line.

   Request: {"tex": "...", "display": true}. Reply: {"html": "..."} or {"error": "..."}.

   MathJax draws each glyph as an element of its own, inside the groups of the formula's structure; a chapter
   has ten thousand of them, which a phone lays out for a second. Here a formula is one path, or a few
   where it may be broken. */

"use strict";

const readline = require("node:readline");
const mathjax = process.argv[2];
/* Coordinates are rounded to this many thousandths of an em: a thirtieth of a pixel. */
const UNIT = 2;
/* A formula in running text that is wider, in thousandths of an em, can be broken at the end of a line. */
const LONG = 9000;
const code = (character) => character.codePointAt(0).toString(16).toUpperCase();
const codes = (characters) => new Set(Array.from(characters, code));
const RELATIONS = codes("=<>≤≥≪≫≈≠≡∼∝∈⊂→⟶↦⇒⇔");
const SIGNS = codes("+−±⋅×");
const OPENING = codes("([{⟨⌊⌈");
const CLOSING = codes(")]}⟩⌋⌉");
const SCRIPTS = new Set(["msup", "msub", "msubsup"]);
const ZERO_WIDTH_SPACE = "\u200b";
const COMMA = "2C";
const ORIGIN = { x0: 0, y0: 0, k: 1 };
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
    const written = steps.join(" ").replaceAll(" -", "-");
    d += d ? kind.toLowerCase() + written : `M${Math.round(x0) + x} ${Math.round(y0) + y}`;
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

/* The character that a part draws, if it draws one only. */
function characterOf(adaptor, part) {
  const inside = adaptor.kind(part) === "g" ? adaptor.childNodes(part) : [];
  return inside.length === 1 ? characterOf(adaptor, inside[0]) : adaptor.getAttribute(part, "data-c");
}

/* What carries an exponent: it may be a closing bracket. */
function baseOf(adaptor, part) {
  const [base] = adaptor.childNodes(part);
  return base && SCRIPTS.has(adaptor.getAttribute(part, "data-mml-node")) ? characterOf(adaptor, base) : undefined;
}

const xOf = (adaptor, node) => within(ORIGIN, adaptor.getAttribute(node, "transform")).x0;

/* Which parts of a formula a line may end after: relations and commas, and if `sums` also a plus or minus
   between two terms; nothing inside brackets. */
function ends(adaptor, parts, sums) {
  let depth = 0;
  let term = false; // a sign that no term stands before is the next term's own
  return parts.map((part) => {
    const character = characterOf(adaptor, part);
    const stands = term;
    term = !RELATIONS.has(character) && !SIGNS.has(character) && character !== COMMA;
    if (OPENING.has(character)) depth += 1;
    if (CLOSING.has(character ?? baseOf(adaptor, part))) depth -= 1;
    if (depth || !stands) return false;
    return RELATIONS.has(character) || character === COMMA || (sums && SIGNS.has(character));
  });
}

/* A long formula in running text, in pieces that may stand on lines of their own: parts, and where they lie. */
function pieces(adaptor, parts, [left, , width], sums = false) {
  const last = ends(adaptor, parts, sums);
  const found = [{ left, parts: [] }];
  parts.forEach((part, i) => {
    if (i && last[i - 1]) found.push({ left: xOf(adaptor, part), parts: [] });
    found.at(-1).parts.push(part);
  });
  found.forEach((piece, i) => {
    piece.width = (found[i + 1]?.left ?? left + width) - piece.left;
  });
  const long = found.some((piece) => piece.width > LONG);
  return long && !sums ? pieces(adaptor, parts, [left, 0, width], true) : found;
}

/* The drawing of one piece, beside the others on the same line or below them on the next. */
function drawn(adaptor, svg, { left, width, parts }, wholeWidth) {
  const outlines = parts.map((part) => flat(adaptor, part, { x0: 0, y0: 0, k: 1 / UNIT }));
  if (outlines.includes(null)) return null;
  const [, top, , height] = adaptor.getAttribute(svg, "viewBox").split(" ");
  const copy = adaptor.clone(svg);
  const ex = (Number.parseFloat(adaptor.getAttribute(svg, "width")) * width) / wholeWidth;
  adaptor.setAttribute(copy, "width", `${Number(ex.toFixed(3))}ex`);
  adaptor.setAttribute(copy, "viewBox", [left, top, Number(width.toFixed(1)), height].join(" "));
  const transform = `scale(${UNIT},${-UNIT})`;
  const path = adaptor.node("path", { transform, d: outlines.join("") });
  adaptor.replace(path, adaptor.lastChild(copy));
  return copy;
}

function flatten(adaptor, container, display) {
  const svg = adaptor.firstChild(container);
  const outer = adaptor.lastChild(svg);
  const box = adaptor.getAttribute(svg, "viewBox").split(" ").map(Number);
  const [left, , width] = box;
  const math = adaptor.firstChild(outer);
  const inline = !display && width > LONG;
  const parts = adaptor.childNodes(inline ? math : outer);
  const cut = inline ? pieces(adaptor, parts, box) : [{ left, width, parts }];
  const drawings = cut.map((piece) => drawn(adaptor, svg, piece, width));
  if (drawings.includes(null)) return;
  drawings.forEach((drawing, i) => {
    if (i) adaptor.insert(adaptor.node("span", {}, [adaptor.text(ZERO_WIDTH_SPACE)]), svg);
    adaptor.insert(drawing, svg);
  });
  adaptor.remove(svg);
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
    if (!error) flatten(adaptor, container, display);
    const reply = error ? { error } : { html: adaptor.outerHTML(container) };
    process.stdout.write(`${JSON.stringify(reply)}\n`);
  }
}

main();
