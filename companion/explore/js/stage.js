/** What every figure stands on: controls with labels, numbers, a sentence, drawings, the theme. */

import { Plot } from "./plot.js";
import css from "./style.css";

const QUIET = 500; // milliseconds without a change before a screen reader is told

/** Make an element: `make("p", {class: "x"}, child, "text")`. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Light text means a dark page: true in every front end, whatever it calls its themes. */
function isDark(element) {
  const [red, green, blue] = getComputedStyle(element).color.match(/[\d.]+/g).map(Number);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 140;
}

export class Stage {
  /** @param host element with the figure's data; @param figure draws it: see figures/ */
  constructor(host, figure) {
    const { title, start, palette } = JSON.parse(host.dataset.bnFigure);
    Object.assign(this, { host, figure, start, palette });
    const root = host.attachShadow({ mode: "open" });
    this.description = make("p", { id: "description", class: "unseen" }, host.querySelector("img").alt);
    this.frame = make("div", { class: "frame", role: "group", "aria-label": title, "aria-describedby": "description" });
    const picture = make("div", { class: "picture" }, make("slot"));
    root.append(make("style", {}, css), this.frame, picture);
    // A key that moves a point must not turn the page or leave the notebook's cell.
    this.frame.addEventListener("keydown", (event) => event.stopPropagation());
    this.followTheme();
    this.begin();
    new ResizeObserver(() => this.resized()).observe(this.frame);
  }

  /** Build the figure from its starting values, at first and whenever the reader asks for it. */
  begin() {
    this.plots = [];
    this.controls = make("div", { class: "controls" });
    this.drawings = make("div", { class: "plots" });
    this.numbers = make("dl", { class: "readouts" });
    this.sentence = make("p", { "aria-hidden": "true" });
    this.spoken = make("p", { class: "unseen", role: "status" });
    const again = make("button", { type: "button" }, "Start again");
    again.addEventListener("click", () => {
      this.begin();
      this.frame.querySelector("button").focus();
    });
    const foot = make("div", { class: "foot" }, this.sentence, again);
    this.frame.replaceChildren(
      this.description, this.controls, this.drawings, this.numbers, foot, this.spoken,
    );
    this.draw = this.figure(this, structuredClone(this.start));
    this.width = this.frame.clientWidth;
    this.plots.forEach((plot) => plot.layout());
    this.changed();
  }

  /** Redraw after any change. */
  changed() {
    this.draw();
    this.plots.forEach((plot) => plot.placeHandles());
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => (this.spoken.textContent = this.sentence.textContent), QUIET);
  }

  resized() {
    if (this.frame.clientWidth === this.width) return;
    this.width = this.frame.clientWidth;
    this.plots.forEach((plot) => plot.layout());
    this.changed();
  }

  followTheme() {
    const apply = () => {
      if (!this.host.isConnected) return; // its cell has run again and shows another
      const dark = isDark(this.host);
      this.frame.dataset.theme = dark ? "dark" : "light";
      for (const [name, [light, onDark]] of Object.entries(this.palette)) {
        this.frame.style.setProperty(`--${name}`, dark ? onDark : light);
      }
    };
    const watch = new MutationObserver(apply);
    for (const element of [document.documentElement, document.body]) {
      watch.observe(element, { attributes: true });
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
    apply();
  }

  /** A drawing: see Plot. */
  plot(options) {
    const plot = new Plot(this.drawings, options, () => this.changed());
    this.plots.push(plot);
    return plot;
  }

  /**
   * A labelled slider over `values`, or from `min` to `max` by `step`.
   *
   * @returns an object whose `value` is read and set; `snaps` are values it stops at beside its steps
   */
  slider({ name, label, values, min, max, step, snaps = [], value, format = String }) {
    const count = values ? values.length - 1 : Math.round((max - min) / step);
    const input = make("input", { id: name, type: "range", min: 0, max: count, step: 1, "data-control": name });
    // Not an <output>: that would be read aloud at every step, after the slider's own value.
    const shown = make("span", { class: "value", "aria-hidden": "true", "data-number": name });
    this.controls.append(
      make("div", { class: "control" }, make("label", { for: name }, label), shown, input),
    );
    const valueOf = (index) => {
      if (values) return values[index];
      const place = min + index * step;
      return snaps.find((snap) => Math.abs(snap - place) <= step / 2) ?? Number(place.toPrecision(12));
    };
    const indexOf = (wanted) => (values ? values.indexOf(wanted) : Math.round((wanted - min) / step));
    const control = {
      get value() {
        return this.current;
      },
      set value(wanted) {
        this.current = wanted;
        input.value = indexOf(wanted);
        shown.textContent = format(wanted).replace("-", "−");
        shown.dataset.value = wanted;
        input.setAttribute("aria-valuetext", format(wanted));
      },
      /** The largest value that can be chosen from now on. */
      set most(wanted) {
        input.max = indexOf(wanted);
        if (this.current > wanted) this.value = wanted;
      },
    };
    input.addEventListener("input", () => {
      control.value = valueOf(Number(input.value));
      this.changed();
    });
    control.value = value;
    return control;
  }

  /** One of several: radio buttons under a legend. `options` maps values to labels. */
  choice({ name, label, options, value }) {
    const control = { value };
    const set = make("fieldset", { class: "choices" }, make("legend", {}, label));
    // Names of radio buttons are apart in every shadow tree, so two figures do not share one.
    for (const [key, text] of Object.entries(options)) {
      const input = make("input", { type: "radio", name, value: key, "data-control": name });
      input.checked = key === value;
      input.addEventListener("change", () => {
        control.value = key;
        this.changed();
      });
      set.append(make("label", {}, input, text));
    }
    this.controls.append(set);
    return control;
  }

  /** A number under the drawings; `set(value, text)` shows it, and keeps all its digits for tests. */
  number({ name, label }) {
    const shown = make("dd", { "data-number": name });
    this.numbers.append(make("div", {}, make("dt", {}, label), shown));
    return (value, text) => {
      shown.dataset.value = value;
      shown.textContent = text.replace("-", "−");
    };
  }

  /** The sentence that says what is to be seen now. */
  say(text) {
    this.sentence.textContent = text;
  }
}
