/* Cells that run in the page: thebe makes their editors and talks to the kernel; here is their order, and what the
   page says meanwhile. Loaded by run.js, at the first click. */

const EXERCISE = ".tag_exercise"; // the reader's own, which nothing else on a page needs
const SOLUTION = "details.solution"; // nor these
const OUTPUTS = ".cell_output, details.claims:not(:has(.cell_input))";

const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

const loaded = (element) =>
  new Promise((resolve, reject) => {
    element.onload = resolve;
    element.onerror = () => reject(new Error(`${element.src ?? element.href} is missing`));
    document.head.append(element);
  });

/* What the build printed and drew in a cell. The captions of its figures stay. */
function built(element) {
  if (element.matches("figcaption")) return [];
  return element.querySelector("figcaption") ? [...element.children].flatMap(built) : [element];
}

/** A cell of the page, and what has become of it. */
class Cell {
  constructor(element, number) {
    this.element = element;
    this.button = element.querySelector("button.run");
    this.note = make("span", { className: "run-note" });
    this.button.after(this.note);
    this.own = element.matches(EXERCISE) ? EXERCISE : element.closest(SOLUTION);
    this.built = [...element.querySelectorAll(OUTPUTS)].flatMap(built);
    this.alternatives = [...element.querySelectorAll("img")].map(({ alt }) => alt);
    const code = element.querySelector(".cell_input, [type='text/x-python']");
    this.original = (code.querySelector("pre") ?? code).textContent.trim();
    const editor = make("pre", { textContent: this.original });
    editor.dataset.executable = "";
    if (code.matches(".cell_input")) code.replaceChildren(editor);
    else code.replaceWith(editor);
    this.output = make("div", { className: "run-output" });
    this.output.dataset.output = "";
    const caption = element.querySelector("figcaption");
    if (caption) caption.before(this.output);
    else this.note.after(this.output);
    this.number = number;
  }

  /* `cell` is thebe's. */
  join(cell, run) {
    this.cell = cell;
    const editor = this.element.querySelector(".CodeMirror").CodeMirror;
    editor.getInputField().setAttribute("aria-label", `Code of cell ${this.number}`);
    // Tab leaves an editor, so that it is no trap; Ctrl-] and Ctrl-[ indent.
    editor.setOption("extraKeys", { Tab: false, "Shift-Tab": false, "Shift-Enter": run, "Ctrl-Enter": run });
    editor.on("changes", () => {
      editor.refresh(); // it shrinks only then
      this.show();
    });
    this.editor = editor;
  }

  get source() {
    return this.editor.getValue();
  }

  get edited() {
    return this.source.trim() !== this.original;
  }

  get stale() {
    return this.ran !== this.source;
  }

  show(note = this.ran === undefined ? "" : this.stale ? "edited since it ran" : "✓ ran") {
    this.note.textContent = note;
  }

  async execute() {
    const source = this.source;
    this.ran = undefined;
    this.show("running…");
    for (const each of this.built) each.hidden = true;
    const result = await this.cell.execute(source);
    [...this.output.querySelectorAll("img")].forEach((image, i) => {
      image.alt ||= this.alternatives[i] ?? "What this cell drew";
    });
    if (!result) this.cell.clear(); // thebe's advice, to open the page again: the next run starts a kernel
    const error = result ? result.error?.[0].ename : "the loss of its kernel";
    if (!error) this.ran = source;
    this.show(error && `✗ ${error}`);
    return error;
  }

  reveal() {
    for (let box = this.output.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    this.output.scrollIntoView({ block: "nearest" });
  }
}

/** The cells of the page in their order, their kernel, and the bar that says what goes on. */
class Page {
  constructor() {
    this.cells = [...document.querySelectorAll(".cell:has(button.run)")].map((each, i) => new Cell(each, i + 1));
    this.turn = Promise.resolve();
    this.round = 0;
    this.text = make("output");
    this.progress = make("progress", { hidden: true, max: 1 });
    this.progress.setAttribute("aria-label", "Cells run");
    this.stop = make("button", { type: "button", textContent: "Stop", hidden: true, onclick: () => this.interrupt() });
    this.restart = make("button", { type: "button", textContent: "Restart", onclick: () => this.startAnew() });
    this.restart.title = "Forget what the cells have computed";
    this.bar = make("section", { className: "run-bar" }, this.text, this.progress, this.stop, this.restart);
    this.bar.setAttribute("aria-label", "Kernel");
    document.querySelector(".bd-article").append(this.bar);
    addEventListener("beforeunload", (event) => this.cells.some((cell) => cell.edited) && event.preventDefault());
  }

  say(text) {
    this.text.textContent = text;
  }

  join({ server, notebook }) {
    Object.assign(this, { server, notebook });
    this.cells.forEach((cell, i) => cell.join(notebook.cells[i], () => this.run(cell.element)));
  }

  /* A kernel; another one where the last has ended, for want of use or otherwise. */
  async connect() {
    if (this.session) {
      await this.server.check(); // fails if no one answers
      await this.server.refreshRunningSessions();
    }
    if (this.session && !this.session.connection.isDisposed) return;
    this.say("A kernel starts…");
    this.forget();
    await this.server.ready;
    this.session = await this.server.startNewSession(this.notebook.rendermime);
    this.notebook.attachSession(this.session);
  }

  forget() {
    for (const cell of this.cells) {
      cell.ran = undefined;
      cell.show();
    }
  }

  interrupt() {
    this.stopped = true;
    this.round += 1;
    return this.session?.kernel?.interrupt();
  }

  async startAnew() {
    await this.interrupt();
    await this.session?.restart();
    this.say("The kernel has forgotten everything.");
  }

  /* What has to run so that `element` can: what comes before it on the page and has not run as it stands now. A
     reader's answer to an exercise needs no more than the imports, which are the page's first cell. */
  upTo(element) {
    const place = this.cells.findIndex((cell) => cell.element === element);
    const { own } = this.cells[place];
    let first = place;
    while (own && this.cells[first - 1]?.own === own) first -= 1;
    const before = this.cells.slice(0, own === EXERCISE ? 1 : first);
    return [...before.filter((cell) => !cell.own && cell.stale), ...this.cells.slice(first, place + 1)];
  }

  /* When what runs now has ended; unless it is stopped, which stops what waits, too. */
  run(element) {
    const cell = this.cells.find((each) => each.element === element);
    const { round } = this;
    if (this.running) cell?.show("waits…");
    this.turn = this.turn.then(() => (round === this.round ? this.take(element) : cell?.show()));
    return this.turn;
  }

  async take(element) {
    this.running = true;
    this.stopped = false;
    try {
      await this.connect();
      await this.execute(element ? this.upTo(element) : this.cells.filter((cell) => !cell.own));
    } catch (error) {
      this.say(`No kernel: ${error.message ?? error}`);
    }
    this.running = false;
    this.progress.hidden = this.stop.hidden = true;
  }

  async execute(cells) {
    this.progress.hidden = this.stop.hidden = false;
    for (const [i, cell] of cells.entries()) {
      if (this.stopped) return this.say("Stopped.");
      this.progress.value = i / cells.length;
      this.say(`Running cell ${i + 1} of ${cells.length}…`);
      const error = await cell.execute();
      if (!error) continue;
      cell.reveal();
      return this.say(`A cell was stopped by ${error}.`);
    }
    this.say(cells.length === 1 ? "Done." : `Done: ${cells.length} cells.`);
  }
}

/**
 * Make the cells of the page editors, with a kernel to run them.
 *
 * @param {URL} folder where this file and thebe are
 * @param {object|true} binder thebe's options for Binder; true for a kernel of the page's own server
 */
export async function open(folder, binder) {
  const local = binder === true;
  await loaded(make("link", { rel: "stylesheet", href: new URL("cells.css", folder) }));
  const page = new Page();
  page.say("Editors are on their way…");
  await loaded(make("script", { src: new URL("thebe/index.js", folder) }));
  const { thebe } = window;
  thebe.on("status", (_, { subject, status, message }) => {
    if (subject === "server" && !local) page.say(message);
    if (subject === "session" && status !== "ready") page.forget();
  });
  const parts = await thebe.bootstrap({
    useBinder: !local,
    binderOptions: local ? {} : binder,
    // What the server's cookies allow needs no token.
    serverSettings: { baseUrl: location.origin, token: "" },
    // Every visit has a kernel of its own, in the folder in which the build executed the cells.
    kernelOptions: { kernelName: "python3", path: `book/${Math.random().toString(36).slice(2)}.ipynb` },
    requestKernel: false,
    mathjaxUrl: "",
    codeMirrorConfig: { theme: "book", lineNumbers: false, lineWrapping: true, viewportMargin: Infinity },
    ...Object.fromEntries(["Run", "RunAll", "Restart", "RestartAll"].map((name) => [`mount${name}Button`, false])),
  });
  page.join(parts);
  return page;
}
