// Sorting, copying, saving, the theme, and what is open in print. The page is whole without it.
"use strict";
(() => {
  const root = document.documentElement;
  const THEMES = ["auto", "light", "dark"];
  const stored = {
    get: () => { try { return localStorage.getItem("bagoftricks-theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("bagoftricks-theme", value); } catch { /* the choice lasts for this visit */ } },
  };
  const setTheme = (theme) => { root.dataset.theme = THEMES.includes(theme) ? theme : "auto"; };
  setTheme(stored.get()); // before anything is drawn

  const button = (text, label, onClick) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    if (label) made.setAttribute("aria-label", label);
    made.addEventListener("click", onClick);
    return made;
  };

  const say = (text) => {
    const status = document.getElementById("status");
    status.textContent = "";
    requestAnimationFrame(() => { status.textContent = text; });
  };

  // A page from disk may have no clipboard: then a selection is copied.
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "away";
      document.body.append(area);
      const focused = document.activeElement;
      area.select();
      let done = false;
      try { done = document.execCommand("copy"); } catch { done = false; }
      area.remove();
      focused?.focus();
      return done;
    }
  };

  const save = (name, text, kind) => {
    const address = URL.createObjectURL(new Blob([text], { type: kind }));
    const link = document.createElement("a");
    link.href = address;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };

  const NAMES = { csv: "CSV", md: "Markdown", tex: "LaTeX", text: "text" };
  const addTools = (holder) => {
    for (const source of holder.querySelectorAll(":scope > [data-copy]")) {
      const kind = source.dataset.copy;
      const made = button(`Copy ${NAMES[kind]}`, `Copy ${holder.dataset.what} as ${NAMES[kind]}`, async () => {
        const done = await copy(source.textContent);
        made.textContent = done ? "Copied" : "Not copied";
        say(done ? `Copied as ${NAMES[kind]}` : "This browser does not let the page copy");
        setTimeout(() => { made.textContent = `Copy ${NAMES[kind]}`; }, 1500);
      });
      holder.querySelector(".buttons").append(made);
      if (source.dataset.file) {
        holder.querySelector(".buttons").append(
          button("Save", `Save ${source.dataset.file}`, () => save(source.dataset.file, source.textContent, "text/csv")),
        );
      }
    }
  };

  const MISSING = new Set(["", "–"]);
  const read = (row, column) => {
    const cell = row.cells[column];
    const text = cell.textContent.trim();
    const value = cell.dataset.value === undefined ? NaN : Number(cell.dataset.value);
    return { row, text, value, missing: MISSING.has(text) };
  };
  const collator = new Intl.Collator(undefined, { numeric: true });

  // Numbers by their value, the greatest first; texts from A on; what is missing last either way; then as it was.
  const addSorting = (table) => {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const cells = original.map((row) => read(row, column)).filter((cell) => !cell.missing);
      const numeric = cells.length > 0 && cells.every((cell) => !Number.isNaN(cell.value));
      const order = numeric ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
      head.setAttribute("aria-sort", "none");
      const label = head.textContent;
      head.textContent = "";
      head.append(button(label, "", () => {
        const now = order[(order.indexOf(head.getAttribute("aria-sort")) + 1) % order.length];
        heads.forEach((other) => other.setAttribute("aria-sort", other === head ? now : "none"));
        if (now === "none") { body.append(...original); return; }
        const sign = now === "ascending" ? 1 : -1;
        const compare = numeric ? (a, b) => a.value - b.value : (a, b) => collator.compare(a.text, b.text);
        const rows = original.map((row) => read(row, column));
        rows.sort((a, b) => a.missing - b.missing || (a.missing ? 0 : sign * compare(a, b)));
        body.append(...rows.map((cell) => cell.row));
      }));
    });
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-what]").forEach(addTools);
    document.querySelectorAll("table.sortable").forEach(addSorting);

    const themes = document.getElementById("theme");
    const show = () => { themes.textContent = `Theme: ${root.dataset.theme}`; };
    themes.addEventListener("click", () => {
      setTheme(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]);
      stored.set(root.dataset.theme);
      show();
    });
    themes.hidden = false;
    show();

    // In print everything that is meant to be read is open; data and lists of runs stay folded.
    let opened = [];
    addEventListener("beforeprint", () => {
      opened = [...document.querySelectorAll("details.printed:not([open])")];
      opened.forEach((details) => { details.open = true; });
    });
    addEventListener("afterprint", () => { opened.forEach((details) => { details.open = false; }); });

    // A link to something folded opens it.
    const reveal = () => {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      const details = target?.closest("details:not([open])");
      if (details) { details.open = true; target.scrollIntoView(); }
    };
    addEventListener("hashchange", reveal);
    reveal();
  });
})();
