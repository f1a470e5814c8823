// The page's behaviour. All content is in the JSON element `data`; see page.py for its parts.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const number = (value, digits = 3) =>
  value === null || value === undefined ? "–" : Number(value).toPrecision(digits).replace("e+", "e");

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// --- sheets: many small images in one -------------------------------------------------------

const loaded = new Map();
function imageOf(url) {
  if (!loaded.has(url)) {
    loaded.set(url, new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error("an image of this page is damaged"));
      image.src = url;
    }));
  }
  return loaded.get(url);
}

// Draw cell (column, row) of a sheet of h x w images on a canvas of that size.
async function draw(canvas, sheet, column, row) {
  const ticket = (canvas.ticket = Symbol());  // a later call wins, whatever loads first
  const image = await imageOf(sheet.url);
  if (canvas.ticket !== ticket) return;
  canvas.width = sheet.width;
  canvas.height = sheet.height;
  canvas.getContext("2d").drawImage(
    image, column * sheet.width, row * sheet.height, sheet.width, sheet.height,
    0, 0, sheet.width, sheet.height);
}

function tile(label) {
  return element("canvas", { class: "tile", role: "img", "aria-label": label, width: 1, height: 1 });
}

// --- charts -----------------------------------------------------------------------------------

const dark = window.matchMedia("(prefers-color-scheme: dark)");

function chartStyle() {
  const style = getComputedStyle(document.body);
  const ink = style.color, line = dark.matches ? "#363a42" : "#d9dce1";
  const text = { labelColor: ink, titleColor: ink };
  return {
    background: null, font: style.fontFamily, view: { stroke: line },
    axis: { ...text, gridColor: line, domainColor: line, tickColor: line, titleFontWeight: "normal",
            labelFontSize: 12, titleFontSize: 13 },
    legend: { ...text, labelFontSize: 12 }, title: { color: ink, anchor: "start", fontSize: 13 },
  };
}

// Colours that are made for white paper, and what stands for them on black.
const onBlack = new Map([["#000000", "#e6e7ea"], ["#0072B2", "#4a9fd8"], ["#8B5E3C", "#c79a75"]]);

async function embed(holder, spec) {
  if (dark.matches)
    spec = JSON.parse(JSON.stringify(spec), (key, value) => onBlack.get(value) ?? value);
  try {
    await vegaEmbed(holder, spec, { actions: false, renderer: "svg", config: chartStyle(), ast: true });
  } catch (error) {
    holder.textContent = `This chart cannot be drawn (${error.message}).`;
  }
}

function chartSection(name, specs) {
  const holder = $(`chart-${name}`);
  if (!holder) return;
  const shown = () => holder.replaceChildren(...specs.map((spec) => {
    const box = element("div", { class: "chart" });
    embed(box, spec);
    return box;
  }));
  const chooser = $(`choose-${name}`);
  const one = () => {
    const box = element("div", { class: "chart" });
    holder.replaceChildren(box);
    embed(box, specs[Number(chooser.value)]);
  };
  const show = chooser ? one : shown;
  if (chooser) chooser.addEventListener("change", show);
  dark.addEventListener("change", show);
  show();
}

// --- contents -------------------------------------------------------------------------------------

function contents() {
  const links = [...document.querySelectorAll("main section[id]")].flatMap((section) => {
    const heading = section.querySelector("h2");
    return heading ? [element("a", { href: `#${section.id}` }, heading.textContent)] : [];
  });
  $("contents").append(...links);
  const visible = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries)
      if (isIntersecting)
        for (const link of links) link.classList.toggle("here", link.hash === `#${target.id}`);
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("main section[id]")) visible.observe(section);
}

// --- time: a slider that can play ---------------------------------------------------------------

function player(slider, button, show, { every = 350, spoken = null } = {}) {
  let timer = null;
  const last = () => Number(slider.max);
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
    if (spoken) spoken.setAttribute("aria-live", "polite");
  };
  const play = () => {
    if (Number(slider.value) === last()) slider.value = 0;
    button.textContent = "Stop";
    if (spoken) spoken.setAttribute("aria-live", "off");  // else it is read out at every step
    show();
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) >= last()) stop();
    }, every);
  };
  button.addEventListener("click", () => (timer ? stop() : play()));
  slider.addEventListener("input", () => { stop(); show(); });
  return { play, stop };
}

// --- the first screen ---------------------------------------------------------------------------

function hero({ noise, columns, rows }, path) {
  const slider = $("hero-t"), table = $("hero");
  table.style.setProperty("--columns", columns.length + 1);
  const rank = (row) => row.split(", ").slice(1).join(", ") || row;
  const heading = (name, detail = "") =>
    element("div", { class: "heading" }, name, element("small", {}, detail));
  table.append(heading("noise"), ...columns.map(({ name, kind }) =>
    heading(name, name === kind ? "" : kind)));
  const moving = [];
  rows.forEach((row, i) => {
    const start = tile(`noise of ${row}`);
    draw(start, noise, 0, i);
    table.append(element("figure", {}, start, element("figcaption", {}, rank(row))));
    for (const column of columns) {
      const canvas = tile(`${column.name}, ${row}`);
      moving.push([canvas, path.seeds[i].sheet, column.row]);
      table.append(canvas);
    }
  });
  const show = () => {
    const step = Number(slider.value);
    $("hero-now").textContent = `t = ${path.t[step].toFixed(2)}`;
    slider.setAttribute("aria-valuetext", $("hero-now").textContent);
    for (const [canvas, sheet, row] of moving) draw(canvas, sheet, step, row);
  };
  const { play } = player(slider, $("hero-play"), show, { every: 250 });
  show();
  if (!window.matchMedia("(prefers-reduced-motion: reduce)").matches) play();
}

// --- the same noise through several networks ------------------------------------------------------

function compared({ sheet, names, rows }) {
  const table = $("compared");
  table.style.setProperty("--columns", names.length);
  table.append(...names.map(([network, what]) =>
    element("div", { class: "heading" }, what, element("small", {}, network))));
  rows.forEach((row, i) => names.forEach(([network, what], column) => {
    const canvas = tile(`${network} ${what}, ${row}`);
    draw(canvas, sheet, column, i);
    table.append(column ? canvas
      : element("figure", {}, canvas, element("figcaption", {}, row)));
  }));
}

// --- network, machines and seeds side by side ---------------------------------------------------

function gallery({ sheet, names, paper, rows, metrics, primary }) {
  const table = $("gallery"), metric = $("gallery-metric"), body = element("tbody");
  let by = "", descending = true;
  const header = element("tr");
  const sortable = { seed: "seed", ...Object.fromEntries(Object.keys(metrics).map((m) => [m, m])) };
  for (const name of ["seed", ...names]) {
    const cell = element("th", { scope: "col", "data-name": name });
    if (name in sortable) {
      const button = element("button", { type: "button", title: `sort by ${name}`, "aria-label": name }, name);
      if (paper[name]) button.append(element("small", {}, paper[name]));
      button.addEventListener("click", () => {
        descending = by === name ? !descending : name !== "seed";
        by = name;
        fill();
      });
      cell.append(button);
    } else cell.append(name);
    header.append(cell);
  }
  const lines = rows.map((row, i) => {
    const line = element("tr", { "data-seed": row.seed });
    line.append(element("th", { scope: "row" }, `${row.seed}`, element("small", {}, row.note)));
    names.forEach((name, column) => {
      const canvas = tile(`${name}, seed ${row.seed}`);
      const cell = element("td", { "data-name": name }, canvas);
      draw(canvas, sheet, column, i);
      if (name in metrics) cell.append(element("small", { "data-machine": name, "data-row": i }));
      line.append(cell);
    });
    return line;
  });
  function tell() {
    for (const line of lines)
      for (const number of line.querySelectorAll("small[data-machine]")) {
        const { machine, row } = number.dataset;
        number.textContent = `${metric.value} ${metrics[machine][metric.value][row].toFixed(2)}`;
      }
  }
  function fill() {
    tell();
    const order = [...rows.keys()];
    if (by) {
      const value = by === "seed" ? (i) => rows[i].seed : (i) => metrics[by][metric.value][i];
      order.sort((a, b) => (descending ? value(b) - value(a) : value(a) - value(b)));
    }
    for (const cell of header.children) {
      cell.removeAttribute("aria-sort");
      if (cell.dataset.name === by)
        cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    }
    body.replaceChildren(...order.map((i) => lines[i]));
  }
  metric.addEventListener("change", () => { by = by || primary; fill(); });
  $("gallery-first").addEventListener("click", () => { by = ""; fill(); });
  table.append(element("thead", {}, header), body);
  fill();
}

// --- start ----------------------------------------------------------------------------------------

contents();
if (data.gallery) gallery(data.gallery);
if (data.hero) hero(data.hero, data.path);
if (data.compared) compared(data.compared);
for (const [name, specs] of Object.entries(data.charts)) if (specs.length) chartSection(name, specs);
