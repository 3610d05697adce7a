"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // Light and dark: the system's choice until the reader makes one.
  const button = byId("theme");
  const remembered = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("theme");
      localStorage.setItem("theme", value);
    } catch { /* pages from disk may have no memory */ }
    return null;
  };
  const isDark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const offer = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  const kept = remembered();
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    offer();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", offer);
  button.hidden = false;
  offer();

  // Tables: sorted by a heading, filtered by words and choices.
  const collator = new Intl.Collator("en", { numeric: true });
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    if (text === "" || text === "–" || text === "None" || text === "nan") return null;
    const number = Number(text.replace("−", "-").split(" ±")[0]);
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number"
    ? a - b
    : collator.compare(String(a), String(b));
  for (const table of all("table.sortable")) {
    const headings = all("thead th", table);
    headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
      const first = heading.classList.contains("number") ? "descending" : "ascending";
      const other = first === "descending" ? "ascending" : "descending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      for (const each of headings) each.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
      rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * compare(a, b)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  }
  const filters = byId("filters");
  if (filters) {
    const rows = [...byId("configs").tBodies[0].rows];
    const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const chosen = (id) => byId(id)?.value ?? "";
    const show = () => {
      const asked = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
      const where = chosen("where");
      const length = chosen("length");
      let count = 0;
      for (const row of rows) {
        row.hidden = !(asked.every((word) => words.get(row).includes(word))
          && (where === "" || row.dataset.where === where)
          && (length === "" || (length === "longest" ? "longest" in row.dataset : row.dataset.epochs === length)));
        count += !row.hidden;
      }
      const lengths = new Set(rows.filter((row) => !row.hidden).map((row) => row.dataset.epochs));
      byId("configs").classList.toggle("one-place", where !== "");
      byId("configs").classList.toggle("one-length", lengths.size < 2);
      byId("found").textContent = `${count} of ${rows.length} rows`;
    };
    filters.addEventListener("input", show);
    filters.hidden = false;
    show();
  }

  // Charts: drawn when they come near the window, all of them before printing.
  const figures = JSON.parse(byId("charts").textContent);
  const rowsOf = (columns) => {
    const names = Object.keys(columns);
    return (columns[names[0]] ?? []).map((_, row) => Object.fromEntries(names.map((name) => [name, columns[name][row]])));
  };
  const sans = getComputedStyle(root).getPropertyValue("--sans").trim();
  const quiet = { aria: false };
  const config = {
    background: null,
    font: sans,
    padding: { left: 2, right: 8, top: 6, bottom: 2 },
    aria: false,
    mark: quiet,
    view: { stroke: null },
    axis: {
      ...quiet, labelColor: "var(--soft)", titleColor: "var(--ink)", gridColor: "var(--rule)", domainColor: "var(--soft)",
      tickColor: "var(--soft)", labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal", titlePadding: 8,
      gridWidth: 0.7, tickSize: 4, labelPadding: 4,
    },
    axisX: { grid: false, tickCount: 6, labelOverlap: true, labelSeparation: 6 },
    axisY: { tickCount: 6 },
    legend: { ...quiet, labelColor: "var(--soft)", titleColor: "var(--ink)", titleFontWeight: "normal", labelFontSize: 11, titleFontSize: 12 },
    title: quiet,
    text: { fontSize: 11 },
  };
  const views = [];
  let dimmedBut = null;
  const draw = async ({ place, spec, columns }) => {
    const whole = { ...spec, data: { values: rowsOf(columns) }, config };
    try {
      const drawn = await window.vegaEmbed(place, whole, {
        mode: "vega-lite", renderer: "svg", actions: false, ast: true, logLevel: 1,
        tooltip: { disableDefaultStyle: true },
      });
      views.push(drawn.view);
      place.style.minHeight = "";
      if (dimmedBut !== null) drawn.view.signal("chosen", dimmedBut).runAsync();
    } catch (problem) {
      place.classList.add("failed");
      place.textContent = `This chart cannot be drawn: ${problem.message}`;
    }
  };
  const waiting = new Map();
  for (const figure of figures) {
    figure.panels.forEach((panel, number) => {
      const place = byId(`${figure.id}-${number}`);
      place.style.minHeight = `${typeof panel.spec.height === "number" ? panel.spec.height : 160}px`;
      waiting.set(place, { ...panel, place });
    });
  }
  const start = (place) => {
    const chart = waiting.get(place);
    waiting.delete(place);
    return chart ? draw(chart) : Promise.resolve();
  };
  const drawAll = () => Promise.all([...waiting.keys()].map(start));
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        near.unobserve(target);
        start(target);
      }
    }
  }, { rootMargin: "900px" });
  for (const place of waiting.keys()) near.observe(place);
  window.addEventListener("beforeprint", drawAll);

  // Legends: a config is chosen in all charts, or none is.
  const buttons = all(".key button");
  for (const each of buttons) {
    each.addEventListener("click", () => {
      dimmedBut = dimmedBut === each.dataset.config ? null : each.dataset.config;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other.dataset.config === dimmedBut));
      for (const view of views) view.signal("chosen", dimmedBut).runAsync();
    });
  }

  // The numbers behind a figure, as tables, once they are asked for.
  const element = (name, text) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const shown = (value) => value === null ? "–" : typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
  const tableOf = (columns, title) => {
    const table = element("table");
    if (title) table.append(element("caption", title));
    const names = Object.keys(columns).filter((name) => name !== "place");
    const head = table.createTHead().insertRow();
    for (const name of names) {
      const heading = element("th", name);
      heading.scope = "col";
      head.append(heading);
    }
    const body = table.createTBody();
    for (const row of rowsOf(columns)) {
      const line = body.insertRow();
      for (const name of names) {
        const time = name === "start" || name === "end";
        line.insertCell().textContent = time && row[name] !== null ? new Date(row[name]).toISOString() : shown(row[name]);
      }
    }
    return table;
  };
  for (const details of all("details.numbers")) {
    details.addEventListener("toggle", () => {
      const figure = figures.find((each) => each.id === details.dataset.figure);
      if (!details.open || details.dataset.made || !figure) return;
      details.dataset.made = "yes";
      figure.panels.forEach((panel, number) => {
        const title = byId(`${figure.id}-${number}`).closest(".panel").querySelector(".panel-title");
        const frame = element("div");
        frame.className = "scroll";
        frame.tabIndex = 0;
        frame.setAttribute("role", "region");
        frame.setAttribute("aria-label", [details.querySelector("summary").textContent, title?.textContent].filter(Boolean).join(", "));
        frame.append(tableOf(panel.columns, title?.textContent));
        details.append(frame);
      });
    });
  }
})();
