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

// --- network, machines and seeds side by side ---------------------------------------------------

function gallery({ sheet, names, rows, metrics, primary }) {
  const table = $("gallery"), metric = $("gallery-metric"), body = element("tbody");
  let by = "", descending = true;
  const header = element("tr");
  const sortable = { seed: "seed", ...Object.fromEntries(Object.keys(metrics).map((m) => [m, m])) };
  for (const name of ["seed", ...names]) {
    const cell = element("th", { scope: "col", "data-name": name });
    if (name in sortable) {
      const button = element("button", { type: "button", title: `sort by ${name}` }, name);
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
      const cell = element("td", {}, canvas);
      draw(canvas, sheet, column, i);
      if (name in metrics)
        for (const [key, values] of Object.entries(metrics[name]))
          cell.append(element("small", {}, `${key} ${values[i].toFixed(2)}`));
      line.append(cell);
    });
    return line;
  });
  function fill() {
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

// --- along the path -------------------------------------------------------------------------------

function walk({ t, size, names, captions, primary, seeds }) {
  const slider = $("walk-t"), chooser = $("walk-seed"), play = $("walk-play");
  const figures = names.map((name) => {
    const canvas = tile(name), caption = element("figcaption");
    $("walk").append(element("figure", {}, canvas, caption));
    return { canvas, caption };
  });
  function show() {
    const i = Number(slider.value), seed = seeds[Number(chooser.value)];
    $("walk-now").textContent = `t = ${t[i].toFixed(2)}` +
      (size ? `, k = ${size[i]}` : "") + `, pearson_r of network and ${primary} ${seed.pearson_r[i].toFixed(2)}`;
    slider.setAttribute("aria-valuetext", $("walk-now").textContent);
    figures.forEach(({ canvas, caption }, row) => {
      draw(canvas, seed.sheet, i, row);
      const note = seed.notes[row] ? `: ${seed.notes[row][i]}` : "";
      caption.replaceChildren(element("strong", {}, names[row]), note,
        element("br"), captions[row]);
    });
  }
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    $("walk-now").setAttribute("aria-live", "polite");
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === t.length - 1) slider.value = 0;
    play.textContent = "Stop";
    $("walk-now").setAttribute("aria-live", "off");  // else it is read out at every step
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) === t.length - 1) stop();
    }, 350);
  });
  slider.addEventListener("input", () => { stop(); show(); });
  chooser.addEventListener("change", show);
  show();
}

// --- the mosaic explorer --------------------------------------------------------------------------

const CELL = 24;  // canvas pixels for each pixel of the image

function explorer({ height: h, width: w, moved, training, seeds }) {
  const canvas = $("mosaic"), context = canvas.getContext("2d");
  const slot = new Map(training.indices.map((image, i) => [image, i]));
  let at = Math.floor(h / 2) * w + Math.floor(w / 2), picture = null;
  canvas.width = w * CELL;
  canvas.height = h * CELL;
  canvas.style.aspectRatio = `${w} / ${h}`;

  const current = () => seeds[Number($("mosaic-seed").value)].sides[$("mosaic-side").value];
  const box = (x, y, width, height, colour, line) => {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(x, y, width, height);
  };

  function paint() {
    if (!picture) return;
    const side = current(), mine = side.image[at];
    context.imageSmoothingEnabled = false;
    context.drawImage(picture.image, picture.column * w, 0, w, h, 0, 0, w * CELL, h * CELL);
    context.fillStyle = "rgba(230, 159, 0, 0.45)";
    side.image.forEach((image, p) => {
      if (image === mine && p !== at) context.fillRect((p % w) * CELL, Math.floor(p / w) * CELL, CELL, CELL);
    });
    if ($("mosaic-view").value === "mosaic") borders(side.image);
    const x = (at % w) * CELL, y = Math.floor(at / w) * CELL, r = (side.k - 1) / 2;
    box(x - r * CELL, y - r * CELL, side.k * CELL, side.k * CELL, "#56b4e9", 3);
    box(x, y, CELL, CELL, "#000", 5);
    box(x, y, CELL, CELL, "#fff", 2);
  }

  function borders(image) {
    context.strokeStyle = "rgba(213, 94, 0, 0.75)";
    context.lineWidth = 1.5;
    context.beginPath();
    image.forEach((one, p) => {
      const x = (p % w) * CELL, y = Math.floor(p / w) * CELL;
      if (p % w < w - 1 && image[p + 1] !== one) {
        context.moveTo(x + CELL, y);
        context.lineTo(x + CELL, y + CELL);
      }
      if (p + w < h * w && image[p + w] !== one) {
        context.moveTo(x, y + CELL);
        context.lineTo(x + CELL, y + CELL);
      }
    });
    context.stroke();
  }

  // The training image with the patch's window in it, and the patch alone.
  async function source(name, image, row, column, k, text) {
    const whole = $(`${name}-image`), zoom = $(`${name}-patch`), r = (k - 1) / 2;
    const found = slot.get(image);
    Object.assign(whole.dataset, { image, row, column });
    $(`${name}-text`).textContent = text;
    whole.hidden = zoom.hidden = found === undefined;
    if (found === undefined) {
      if (image !== null) $(`${name}-text`).textContent += " (left out of this page to keep it small)";
      return;
    }
    zoom.hidden = moved;
    if (moved) $(`${name}-text`).textContent += " (it may be mirrored or turned)";
    const scale = 8, ticket = (whole.ticket = Symbol());
    const sheet = await imageOf(training.sheet.url);
    if (whole.ticket !== ticket) return;
    const sx = (found % training.columns) * w, sy = Math.floor(found / training.columns) * h;
    whole.width = w * scale;
    whole.height = h * scale;
    const big = whole.getContext("2d");
    big.imageSmoothingEnabled = false;
    big.drawImage(sheet, sx, sy, w, h, 0, 0, w * scale, h * scale);
    big.strokeStyle = "#56b4e9";
    big.lineWidth = 3;
    big.strokeRect((column - r) * scale, (row - r) * scale, k * scale, k * scale);
    zoom.width = zoom.height = k;
    const small = zoom.getContext("2d");
    for (let dy = -r; dy <= r; dy++)
      for (let dx = -r; dx <= r; dx++)
        if (row + dy >= 0 && row + dy < h && column + dx >= 0 && column + dx < w)
          small.drawImage(sheet, sx + column + dx, sy + row + dy, 1, 1, dx + r, dy + r, 1, 1);
  }

  const label = (image) => {
    const found = slot.get(image);
    return found === undefined || !training.labels ? "" : ` (${training.labels[found]})`;
  };

  function describe() {
    const side = current(), image = side.image[at], next = side.second[at];
    const others = side.image.filter((one) => one === image).length - 1;
    const place = `row ${Math.floor(at / w)}, column ${at % w}`;
    const share = side.top[at], patches = Math.round(side.effective[at]).toLocaleString("en");
    const decided = share < 0.01
      ? `no single source: ${patches} patches share it, and the best, of training image ` +
        `${image}${label(image)}, has weight ${number(side.weight[at])}`
      : `training image ${image}${label(image)} wins with weight ${number(side.weight[at])}; ` +
        `${patches === "1" ? "1 patch counts" : `${patches} patches count`}, and one image holds ` +
        `${number(share)} of the weight`;
    const same = others === 1 ? "1 other pixel has its winner" : `${others} other pixels have their winner`;
    $("mosaic-text").textContent = `Pixel at ${place}: ${decided}. ${same} in this image (orange).`;
    source("best", image, side.row[at], side.column[at], side.k,
      `image ${image}${label(image)}, row ${side.row[at]}, column ${side.column[at]}, ` +
      `weight ${number(side.weight[at])}`);
    const none = side.second_weight[at] === 0;
    source("next", none ? null : next, side.second_row[at], side.second_column[at], side.k,
      none ? "no other image counts" :
      `best of another image: ${next}${label(next)}, row ${side.second_row[at]}, ` +
      `column ${side.second_column[at]}, weight ${number(side.second_weight[at])}`);
    Object.assign(canvas.dataset, { row: Math.floor(at / w), column: at % w });
  }

  async function show() {
    const side = current(), view = $("mosaic-view").value;
    const image = await imageOf(side.sheet.url);
    if (current() !== side) return;
    picture = { image, column: view === "mosaic" ? 1 : 0 };
    paint();
    describe();
  }

  function go(row, column) {
    const next = Math.min(h - 1, Math.max(0, row)) * w + Math.min(w - 1, Math.max(0, column));
    if (next === at) return;
    at = next;
    paint();
    describe();
  }

  function point(event) {
    const area = canvas.getBoundingClientRect();
    go(Math.floor((event.clientY - area.top) / area.height * h),
       Math.floor((event.clientX - area.left) / area.width * w));
  }
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" || event.buttons) point(event);
  });
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    go(Math.floor(at / w) + step[0], (at % w) + step[1]);
  });
  for (const id of ["mosaic-seed", "mosaic-side", "mosaic-view"]) $(id).addEventListener("change", show);
  show();
}

// --- start ------------------------------------------------------------------------------------------

if (data.gallery) gallery(data.gallery);
for (const [name, specs] of Object.entries(data.charts)) if (specs.length) chartSection(name, specs);
if (data.walk) walk(data.walk);
if (data.explorer) explorer(data.explorer);
