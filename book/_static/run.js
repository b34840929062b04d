/* "Run" at the cells of a page that a kernel can run: one on this machine, whose server says so in the header
   Server-Timing (tools/live.py), or Binder's, where the page names it. All else is loaded at the first click. */

{
  const nav = document.querySelector(".run-page[data-live]");
  const [{ serverTiming = [] } = {}] = performance.getEntriesByType("navigation");
  const local = serverTiming.some(({ name }) => name === "kernel");
  const binder = location.protocol !== "file:" && nav?.dataset.binder;

  if (nav && (local || binder)) {
    const folder = new URL("../live/", document.currentScript.src);
    let page;

    const button = (label, place, cell) => {
      const made = document.createElement("button");
      made.type = "button";
      made.className = "run";
      made.textContent = label;
      made.onclick = async () => {
        page ??= import(new URL("cells.js", folder)).then(({ open }) => open(folder, local || JSON.parse(binder)));
        try {
          await (await page).run(cell);
        } catch ({ message }) {
          made.after(` ${message}`);
        }
      };
      place(made);
    };

    // Where the code of a cell is not shown, the page has it as a script that no browser runs.
    for (const cell of document.querySelectorAll("article .cell:not(:has(.bn-questions))")) {
      const code = cell.querySelector(".cell_input, [type='text/x-python']");
      button("Run", (made) => code.after(made), cell);
    }
    button("Run all cells", (made) => nav.firstElementChild.appendChild(document.createElement("li")).append(made));
  }
}
