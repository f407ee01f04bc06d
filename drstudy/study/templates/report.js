// The page works without this script: it only adds sorting, filtering, large figures, the theme and a layout for narrow windows.
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const NARROWEST_FILTER = 6; // rows from which on a table can be filtered
const PAGE = 25; // rows of a page of a long table

// --- theme ---------------------------------------------------------------------------------------
const theme = document.querySelector("#theme");
const themes = ["system", "light", "dark"];
const showTheme = (name) => {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  theme.querySelector("span").textContent = name;
};
theme.hidden = false;
showTheme(document.documentElement.dataset.theme ?? "system");
theme.addEventListener("click", () => {
  const name = themes[(themes.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % themes.length];
  showTheme(name);
  try { localStorage.setItem("drstudy-theme", name === "system" ? "" : name); } catch { /* not kept */ }
});

// --- links to files beside the page --------------------------------------------------------------
if (!/\/report\/[^/]*$/.test(location.pathname)) {
  for (const link of all("a.beside")) {
    const text = document.createElement("span");
    text.textContent = link.textContent;
    text.title = `${link.getAttribute("href")}, in the folder of the report; this page was opened without it`;
    link.replaceWith(text);
  }
}

// --- tables --------------------------------------------------------------------------------------
const grids = all(".grid");
for (const table of all("table.data")) {
  const headings = all("thead th", table).map((cell) => cell.textContent);
  for (const row of all("tbody tr", table)) all("td", row).forEach((cell, place) => { cell.dataset.label = headings[place]; });
}

/** Tables that are wider than their place get smaller letters, and if that is not enough one card per row. */
function fit() {
  for (const grid of grids) grid.classList.remove("stacked", "tight");
  const wide = () => grids.filter((grid) => grid.clientWidth > 0 && grid.scrollWidth > grid.clientWidth + 1);
  for (const way of ["tight", "stacked"]) for (const grid of wide()) grid.classList.add(way);
  // A narrow window has no room for the five texts of a verdict side by side, although they would fit.
  if (innerWidth < 760) for (const grid of grids) if (grid.querySelector(".ledger")) grid.classList.add("stacked");
}

let waiting;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(fit, 100); });
document.addEventListener("toggle", fit, true);

async function datatables() {
  const packed = Uint8Array.from(atob(document.querySelector("#datatables").textContent), (letter) => letter.charCodeAt(0));
  const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const { jQuery } = await import(address);
  URL.revokeObjectURL(address);
  return jQuery;
}

const language = { search: "Filter", infoEmpty: "No row", infoFiltered: "(of _MAX_)", zeroRecords: "No row fits the filter.", lengthMenu: "_MENU_ rows" };

function sortable($, table) {
  const rows = table.tBodies[0].rows.length;
  const long = rows > PAGE && !table.classList.contains("ledger");
  const filtered = rows >= NARROWEST_FILTER;
  return $(table).DataTable({
    autoWidth: false, order: [], paging: long, pageLength: PAGE, lengthMenu: [PAGE, 100, { label: "all", value: -1 }], info: filtered, searching: true,
    language: { ...language, info: long ? "Rows _START_ to _END_ of _TOTAL_" : "_TOTAL_ rows" },
    layout: { topStart: filtered ? "info" : null, topEnd: filtered ? "search" : null, bottomStart: long ? "pageLength" : null, bottomEnd: long ? "paging" : null },
  });
}

const tables = new Map();
try {
  const $ = await datatables();
  for (const table of all("table.data")) if (table.tBodies[0].rows.length > 1) tables.set(table, sortable($, table));
  for (const row of all(".dt-layout-row")) if (!row.querySelector("table")) row.classList.add("tools");
} catch (error) {
  console.warn("Tables are shown without sorting and filtering:", error);
}
fit();

const ledger = tables.get(document.querySelector(".ledger"));
for (const chip of all(".chips button")) {
  chip.disabled = !ledger;
  chip.addEventListener("click", () => {
    for (const other of all(".chips button")) other.setAttribute("aria-pressed", String(other === chip));
    const wanted = chip.dataset.verdict;
    ledger.column(0).search(wanted ? `^${wanted}$` : "", { regex: true, smart: false }).draw();
  });
}

// --- large figures -------------------------------------------------------------------------------
const large = document.querySelector("#large");
const [picture, words] = [large.querySelector("img"), large.querySelector("p")];
const figures = all(".enlarge");
let shown = 0;

function enlarge(place) {
  shown = (place + figures.length) % figures.length;
  const small = figures[shown].querySelector("img");
  [picture.src, picture.alt, words.textContent] = [small.src, small.alt, small.alt];
  large.classList.remove("zoomed");
  if (!large.open) large.showModal();
}

figures.forEach((button, place) => button.addEventListener("click", () => enlarge(place)));
for (const button of all("[data-step]", large)) button.addEventListener("click", () => enlarge(shown + Number(button.dataset.step)));
for (const one of [picture, large.querySelector("[data-zoom]")]) one.addEventListener("click", () => large.classList.toggle("zoomed"));
large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
large.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") enlarge(shown - 1);
  if (event.key === "ArrowRight") enlarge(shown + 1);
});
large.addEventListener("close", () => { picture.removeAttribute("src"); figures[shown].focus(); });

// --- contents ------------------------------------------------------------------------------------
const entries = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((changes) => {
  for (const change of changes) {
    if (!change.isIntersecting) continue;
    for (const link of entries.values()) link.removeAttribute("aria-current");
    entries.get(change.target.getAttribute("aria-labelledby"))?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-10% 0px -85% 0px" });
for (const section of all("main > section")) seen.observe(section);
if (innerWidth <= 900) document.querySelector(".contents > details").open = false;

// A link to a folded part, such as a checklist, opens it.
const unfold = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let place = target; place; place = place.parentElement) if (place.tagName === "DETAILS") place.open = true;
  target?.scrollIntoView();
};
addEventListener("hashchange", unfold);
if (location.hash) unfold();

// --- print: every row, nothing folded but explanations --------------------------------------------
const closed = [];
addEventListener("beforeprint", () => {
  for (const part of all("details.checklist:not([open])")) { part.open = true; closed.push(part); }
  for (const table of tables.values()) if (table.settings()[0].oFeatures.bPaginate) table.page.len(-1).draw(false);
});
addEventListener("afterprint", () => {
  while (closed.length) closed.pop().open = false;
  for (const table of tables.values()) if (table.settings()[0].oFeatures.bPaginate) table.page.len(PAGE).draw(false);
});
document.documentElement.dataset.ready = "true";
