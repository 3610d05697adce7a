"use strict";

const EVERY = 2000; // milliseconds between two looks
const byId = (id) => document.getElementById(id);
const page = byId("page");
let shownVersion = null; // of the page in the frame

function words(state) {
  if (state.cells === null) return "nothing of this sweep is in the store yet";
  const runs = Object.entries(state.runs).map(([name, count]) => `${count} ${name}`).join(", ");
  let text = `${state.cells_done} of ${state.cells} cells done; runs: ${runs}`;
  if (state.made_at) text += `; page of ${new Date(state.made_at).toLocaleTimeString()}`;
  return state.making ? `${text}; a newer one is being made` : text;
}

// The page again, at the place where it was being read.
function refresh(version) {
  shownVersion = version;
  const [x, y] = [page.contentWindow.scrollX, page.contentWindow.scrollY];
  page.addEventListener("load", () => page.contentWindow.scrollTo(x, y), { once: true });
  page.contentWindow.location.reload();
}

function show(state) {
  byId("standing").textContent = words(state);
  const bar = byId("done");
  bar.hidden = state.cells === null;
  if (state.cells) bar.value = state.cells_done / state.cells;
  byId("problem").hidden = !state.problem;
  byId("problem").textContent = state.problem;
  const links = Object.entries(state.links);
  const nav = byId("links");
  if ([...nav.children].map((each) => each.textContent).join() !== links.map(([name]) => name).join()) {
    nav.replaceChildren(...links.map(([name, url]) => {
      const link = document.createElement("a");
      Object.assign(link, { href: url, textContent: name, target: "_blank", rel: "noopener" });
      return link;
    }));
  }
  if (shownVersion === null) shownVersion = state.version;
  if (state.version !== shownVersion && byId("follow").checked) refresh(state.version);
}

async function look() {
  try {
    const answer = await fetch("/-/state");
    show(await answer.json());
  } catch {
    byId("standing").textContent = "sweeps serve has ended; what is shown is the last page";
  }
  setTimeout(look, EVERY);
}

look();
