// The first screen and the gallery. Their data are `data.hero` and `data.gallery`; see pictures.py.

// --- the seed that is looked at, in every part of the page --------------------------------------

const explorable = new Map((data.path?.seeds ?? []).map(({ seed }, i) => [seed, i]));

// A button that shows where the sample of a seed comes from, or the words alone.
function seedButton(seed, ...words) {
  if (!explorable.has(seed)) return element("span", {}, ...words);
  const button = element("button", {
    type: "button", class: "seed", "data-seed": seed, title: `where the sample of seed ${seed} comes from`,
  }, ...words);
  button.addEventListener("click", () => {
    const chooser = $("seed");
    chooser.value = explorable.get(seed);
    chooser.dispatchEvent(new Event("change"));
    $("origins").scrollIntoView({ behavior: still.matches ? "auto" : "smooth" });
  });
  return button;
}

function markSeed(seed) {
  for (const button of document.querySelectorAll("button.seed"))
    button.setAttribute("aria-pressed", Number(button.dataset.seed) === seed);
}

// --- the first screen ---------------------------------------------------------------------------

function hero({ noise, columns, rows }, path) {
  const slider = $("hero-t"), table = $("hero");
  table.style.setProperty("--columns", columns.length + 1);
  const heading = ({ name, detail = "", colour }) => element("div",
    { class: "heading", style: colour ? `--own: ${ownColour(colour)}` : "" }, name, element("small", {}, detail));
  table.append(...[{ name: "noise" }, ...columns].map(heading));
  const moving = [];
  rows.forEach(({ seed, name, note }, i) => {
    const start = tile(`noise of ${name}`);
    draw(start, noise, 0, i);
    table.append(element("figure", {}, start,
      element("figcaption", {}, seedButton(seed, note || `seed ${seed}`))));
    for (const column of columns) {
      const canvas = tile(`${column.name}, ${name}`);
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
  if (!still.matches) play();
}

// --- network, machines and seeds side by side ---------------------------------------------------

const MOST_COLUMNS = 9;  // side by side

// What a picture has less (dark) or more (bright) than another; grey where they are alike.
async function drawDifference(canvas, sheet, column, other, row) {
  const ticket = (canvas.ticket = Symbol());  // a later call wins, whatever loads first
  const [mine, theirs] = await Promise.all([column, other].map((one) => pixelsOf(sheet, one, row)));
  if (canvas.ticket !== ticket) return;
  for (let i = 0; i < mine.data.length; i++)
    if (i % 4 < 3) mine.data[i] = 128 + (mine.data[i] - theirs.data[i]) / 2;
  canvas.width = sheet.width;
  canvas.height = sheet.height;
  canvas.getContext("2d").putImageData(mine, 0, 0);
}

function gallery({ sheet, columns, rows, primary }) {
  const table = $("gallery"), metric = $("gallery-metric"), differences = $("gallery-differences");
  const body = element("tbody"), header = element("tr"), network = columns.findIndex((c) => c.network);
  let by = "", descending = true;
  const machines = new Map(columns.filter((c) => c.metrics).map((c) => [c.name, c]));
  for (const { name, paper = "", colour } of [{ name: "seed" }, ...columns]) {
    const cell = element("th", { scope: "col", "data-name": name,
      style: colour ? `--own: ${ownColour(colour)}` : "" });
    if (name === "seed" || machines.has(name)) {
      const button = element("button", { type: "button", title: `sort by ${name}`, "aria-label": name },
        element("span", { class: "sorts" }, name), element("small", {}, paper));
      button.addEventListener("click", () => {
        descending = by === name ? !descending : name !== "seed";
        by = name;
        fill();
      });
      cell.append(button);
    } else cell.append(name);
    header.append(cell);
  }
  const lines = rows.map(({ seed, note }) => {
    const line = element("tr", { "data-seed": seed });
    line.append(element("th", { scope: "row" }, seedButton(seed, `${seed}`), element("small", {}, note)));
    line.append(...columns.map(({ name, paper }) => element("td",
      { "data-name": paper ? `${name} (${paper})` : name }, tile(`${name}, seed ${seed}`), element("small"))));
    return line;
  });
  function pictures() {
    lines.forEach((line, row) => line.querySelectorAll("canvas").forEach((canvas, column) => {
      if (differences.checked && columns[column].metrics)
        drawDifference(canvas, sheet, column, network, row);
      else draw(canvas, sheet, column, row);
    }));
  }
  function fill() {
    lines.forEach((line, row) => line.querySelectorAll("td small").forEach((told, column) => {
      const values = columns[column].metrics?.[metric.value];
      told.textContent = values ? fixed(values[row]) : "";
    }));
    const order = [...rows.keys()];
    if (by) {
      const value = by === "seed" ? (i) => rows[i].seed : (i) => machines.get(by).metrics[metric.value][i] ?? -Infinity;
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
  differences.addEventListener("change", pictures);
  $("gallery-first").addEventListener("click", () => { by = ""; fill(); });
  table.style.setProperty("--columns", columns.length + 1);
  const narrow = window.matchMedia("(max-width: 640px)");
  const wrap = () => table.classList.toggle("wrapped", narrow.matches || columns.length > MOST_COLUMNS);
  narrow.addEventListener("change", wrap);
  wrap();
  table.append(element("thead", {}, header), body);
  fill();
  pictures();
}

if (data.gallery) gallery(data.gallery);
if (data.hero) hero(data.hero, data.path);
