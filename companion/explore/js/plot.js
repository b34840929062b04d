/** One drawing with axes: marks that are joined to data by name, and handles to drag. */

import { axisBottom, axisLeft, axisTop, drag, line, scaleLinear, scaleLog, select } from "./vendor/d3.js";

const MARGIN = { top: 12, right: 14, bottom: 44, left: 50 };
const REACH = 16; // pixels around a handle's centre that take hold of it
const KNOB = 8;
const PULL = 7; // pixels around a value of interest from which a drag falls into it

let plotCount = 0; // for ids

const clamp = (value, [low, high]) => Math.min(Math.max(value, low), high);

/** The multiple of `step` nearest to `value`; `snaps` take the place of the multiple next to them. */
export function quantize(value, { step, limits, snaps = [] }) {
  const nearest = snaps.find((snap) => Math.abs(snap - value) <= step / 2);
  if (nearest !== undefined) return nearest;
  return clamp(Number((Math.round(value / step) * step).toPrecision(12)), limits);
}

function scaleOf({ domain, log }) {
  return (log ? scaleLog() : scaleLinear()).domain(domain);
}

/**
 * @param parent  element that the drawing is put into
 * @param options `x`, `y` and, for a second axis at the top, `top`: {domain, label, log, ticks,
 *                format, hidden}; `height` as a fraction of the width, between `least` and `most`
 *                pixels; `title`; `margin`
 */
export class Plot {
  constructor(parent, { x, y, top, title, height = 0.75, least = 220, most = 380, margin = {} }, changed) {
    Object.assign(this, { changed, height, least, most, handles: [] });
    this.axes = { x, y, ...(top && { top }) };
    this.margin = { ...MARGIN, ...margin };
    const box = select(parent).append("div").attr("class", "plot");
    // Not a heading: a figure does not know which level its page is at.
    if (title) box.append("p").attr("class", "name").text(title);
    this.box = box.node();
    // What the marks say, the description and the numbers say too; the handles are the exception.
    this.svg = box.append("svg").attr("role", "group").attr("aria-label", title ?? "Drawing");
    this.axisLayer = this.svg.append("g").attr("aria-hidden", "true");
    this.marks = this.svg.append("g").attr("aria-hidden", "true");
    plotCount += 1;
    this.inside = `inside-${plotCount}`;
    this.window = this.svg.append("clipPath").attr("id", this.inside).append("rect");
    this.grips = this.svg.append("g");
    this.scales = Object.fromEntries(
      Object.entries(this.axes).map(([name, axis]) => [name, scaleOf(axis)]),
    );
    this.x = this.scales.x;
    this.y = this.scales.y;
    this.top = this.scales.top;
  }

  /** Fit the drawing to its box; the figure's marks are drawn after this. */
  layout() {
    const width = Math.max(this.box.clientWidth, 200);
    const height = clamp(width * this.height, [this.least, this.most]);
    const { top, right, bottom, left } = this.margin;
    this.inner = { left, top, right: width - right, bottom: height - bottom };
    this.svg.attr("width", width).attr("height", height).attr("viewBox", [0, 0, width, height]);
    this.x.range([left, width - right]);
    this.top?.range([left, width - right]);
    this.y.range([height - bottom, top]);
    this.window.attr("x", left).attr("y", top);
    this.window.attr("width", width - left - right).attr("height", height - top - bottom);
    this.axisLayer.selectAll("*").remove();
    for (const name of Object.keys(this.axes)) this.drawAxis(name);
  }

  /** Show what is at most `reach` above or below a place, in the same units along both axes: circles are round. */
  frame([x, y], reach) {
    const { left, top, right, bottom } = this.inner;
    const across = (reach * (right - left)) / (bottom - top);
    this.x.domain([x - across, x + across]);
    this.y.domain([y - reach, y + reach]);
    this.layout();
  }

  drawAxis(name) {
    const { label, ticks, format, hidden } = this.axes[name];
    if (hidden) return;
    const { left, top, right, bottom } = this.inner;
    const along = name === "y" ? bottom - top : right - left;
    const make = { x: axisBottom, y: axisLeft, top: axisTop }[name](this.scales[name]);
    if (Array.isArray(ticks)) make.tickValues(ticks);
    else make.ticks(ticks ?? Math.max(3, Math.round(along / 70)), format);
    if (typeof format === "function") make.tickFormat(format);
    make.tickSizeOuter(0);
    const at = { x: [0, bottom], y: [left, 0], top: [0, top] }[name];
    const axis = this.axisLayer.append("g").attr("class", "axis").attr("transform", `translate(${at})`);
    axis.call(make).attr("font-family", null).attr("font-size", null);
    if (name !== "top") {
      const grid = axis.selectAll(".tick").append("line").attr("class", "grid");
      if (name === "x") grid.attr("y2", top - bottom);
      else grid.attr("x2", right - left);
    }
    const text = this.axisLayer.append("text").text(label ?? "").attr("text-anchor", "middle");
    const middle = (left + right) / 2;
    if (name === "x") text.attr("x", middle).attr("y", bottom + 36);
    else if (name === "top") text.attr("x", middle).attr("y", top - 26);
    else text.attr("transform", `translate(${left - 38},${(top + bottom) / 2}) rotate(-90)`);
  }

  /** A group of marks that keeps its place in the order of drawing. */
  group(name) {
    const found = this.marks.selectChildren(`[data-mark="${name}"]`);
    return found.empty() ? this.marks.append("g").attr("data-mark", name) : found;
  }

  /**
   * Lines through lists of points, cut off at the axes; `color` is a name of the palette, and `fill`
   * tints what they enclose.
   */
  lines(name, lists, { color = "ink", width = 2, dash = null, opacity = 1, fill = false, x = this.x } = {}) {
    const path = line((point) => x(point[0]), (point) => this.y(point[1]));
    this.group(name)
      .attr("clip-path", `url(#${this.inside})`)
      .selectAll("path")
      .data(lists)
      .join("path")
      .attr("d", path)
      .style("stroke", `var(--${color})`)
      .style("stroke-width", `${width}px`)
      .style("stroke-opacity", opacity)
      .style("fill", fill ? `var(--${color})` : "none")
      .style("fill-opacity", 0.2)
      .attr("stroke-dasharray", dash);
  }

  /** Round marks at points; `hollow` draws their outline alone, `inside` cuts them off at the axes. */
  dots(name, points, { color = "ink", r = 3, opacity = 1, hollow = false, inside = false, x = this.x } = {}) {
    this.group(name)
      .attr("clip-path", inside ? `url(#${this.inside})` : null)
      .selectAll("circle")
      .data(points)
      .join("circle")
      .attr("cx", (point) => x(point[0]))
      .attr("cy", (point) => this.y(point[1]))
      .attr("r", r)
      .style("fill", hollow ? "none" : `var(--${color})`)
      .style("stroke", hollow ? `var(--${color})` : null)
      .style("fill-opacity", opacity);
  }

  /** Words at points: {at: [x, y], text, anchor, dx, dy}, the offsets in pixels. */
  words(name, words, { x = this.x } = {}) {
    this.group(name)
      .selectAll("text")
      .data(words)
      .join("text")
      .attr("class", "halo")
      .attr("x", (word) => x(word.at[0]) + (word.dx ?? 0))
      .attr("y", (word) => this.y(word.at[1]) + (word.dy ?? 0))
      .attr("text-anchor", (word) => word.anchor ?? "middle")
      .text((word) => word.text);
  }

  /**
   * A point to drag, or to move by the arrow keys: an ARIA slider.
   *
   * @param options `name`, for tests; `label`; `at()` its place; `move(x, y)` what a new place means;
   *                `text()` the place in words; `x`, `y`: {step, limits, snaps}, one alone if it moves
   *                along one axis; `color`; `scale` if not the lower axis
   */
  handle(options) {
    const along = options.x ? "x" : "y";
    const grip = this.grips
      .append("g")
      .attr("class", "handle")
      .attr("data-handle", options.name)
      .attr("role", "slider")
      .attr("tabindex", 0)
      .attr("aria-label", options.label)
      .attr("aria-orientation", options.x ? "horizontal" : "vertical")
      .attr("aria-valuemin", options[along].limits[0])
      .attr("aria-valuemax", options[along].limits[1]);
    grip.append("circle").attr("class", "reach").attr("r", REACH);
    grip.append("circle").attr("class", "ring").attr("r", KNOB + 4);
    grip.append("circle").attr("class", "knob").attr("r", KNOB).style("fill", `var(--${options.color ?? "batch"})`);
    const handle = { grip, scale: this.x, ...options };
    const pulled = (value, scale, { snaps = [] } = {}) =>
      snaps.find((snap) => Math.abs(scale(snap) - value) <= PULL) ?? scale.invert(value);
    const move = (place) => {
      const old = options.at();
      const [x, y] = ["x", "y"].map((axis, i) =>
        options[axis] ? quantize(clamp(place[i], options[axis].limits), options[axis]) : old[i],
      );
      options.move(x, y);
      this.changed();
    };
    grip.call(
      drag()
        .container(this.svg.node())
        .subject(() => {
          const [x, y] = options.at();
          return { x: handle.scale(x), y: this.y(y) };
        })
        .on("start", () => grip.node().focus({ preventScroll: true }))
        .on("drag", (event) =>
          move([pulled(event.x, handle.scale, options.x), pulled(event.y, this.y, options.y)]),
        ),
    );
    grip.on("keydown", (event) => {
      const place = this.keyed(event.key, options);
      if (!place) return;
      event.preventDefault();
      move(place);
    });
    this.handles.push(handle);
    return handle;
  }

  /** Where a key sends a handle, or null if the key means nothing to it. */
  keyed(key, { at, x, y }) {
    const place = at();
    const both = x && y;
    const [axis, other] = x ? [0, 1] : [1, 0];
    const option = x ?? y;
    const by = (i, steps) => place.map((value, k) => (k === i ? value + steps * (k === 0 ? x : y).step : value));
    const up = this.y(1) < this.y(0) ? 1 : -1; // an axis may count downwards
    if (key === "ArrowRight") return by(axis, 1);
    if (key === "ArrowLeft") return by(axis, -1);
    if (key === "ArrowUp") return both ? by(other, up) : by(axis, 1);
    if (key === "ArrowDown") return both ? by(other, -up) : by(axis, -1);
    if (key === "PageUp") return by(axis, 10);
    if (key === "PageDown") return by(axis, -10);
    if (key === "Home") return place.map((value, k) => (k === axis ? option.limits[0] : value));
    if (key === "End") return place.map((value, k) => (k === axis ? option.limits[1] : value));
    return null;
  }

  /** Take away every handle, before a figure makes others. */
  clearHandles() {
    this.handles = [];
    this.grips.selectAll("*").remove();
  }

  /** Put the handles where the numbers are. */
  placeHandles() {
    for (const { grip, scale, at, text, x } of this.handles) {
      const [left, up] = at();
      grip
        .attr("transform", `translate(${scale(left)},${this.y(up)})`)
        .attr("data-at", JSON.stringify([left, up]))
        .attr("aria-valuenow", x ? left : up)
        .attr("aria-valuetext", text());
    }
  }
}
