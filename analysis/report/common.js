// What both pages share. All content is in the JSON element `data`; see page.py for its parts.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const number = (value, digits = 3) =>
  value === null || value === undefined ? "–" : Number(value).toPrecision(digits).replace("e+", "e");
const fixed = (value) => (value === null ? "–" : value.toFixed(2)); // of no agreement, null

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

// A cell of a sheet as a picture of its own, whose pixels can be read.
async function cut(sheet, column, row) {
  const image = await imageOf(sheet.url), piece = new OffscreenCanvas(sheet.width, sheet.height);
  piece.getContext("2d", { willReadFrequently: true }).drawImage(
    image, column * sheet.width, row * sheet.height, sheet.width, sheet.height,
    0, 0, sheet.width, sheet.height);
  return piece;
}

async function pixelsOf(sheet, column, row) {
  return (await cut(sheet, column, row)).getContext("2d").getImageData(0, 0, sheet.width, sheet.height);
}

function tile(label) {
  return element("canvas", { class: "tile", role: "img", "aria-label": label, width: 1, height: 1 });
}

const still = window.matchMedia("(prefers-reduced-motion: reduce)");

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
const onBlack = new Map([["#000000", "#e6e7ea"], ["#0072B2", "#4a9fd8"], ["#8B5E3C", "#c79a75"], ["#882255", "#d480a8"]]);

// A colour as CSS that follows the colour scheme.
const ownColour = (colour) => `light-dark(${colour}, ${onBlack.get(colour) ?? colour})`;

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

(function contents() {
  const links = [...document.querySelectorAll("main section[id]")].flatMap((section) => {
    const heading = section.querySelector("h2");
    return heading ? [element("a", { href: `#${section.id}` }, heading.textContent)] : [];
  });
  $("contents").append(element("nav", { "aria-label": "Contents" }, ...links));
  const visible = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries)
      if (isIntersecting)
        for (const link of links) link.classList.toggle("here", link.hash === `#${target.id}`);
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("main section[id]")) visible.observe(section);
  // On a narrow screen the list is folded, as it would fill the first one.
  $("contents").open = window.matchMedia("(min-width: 1200px)").matches;
})();

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

for (const [name, specs] of Object.entries(data.charts)) if (specs.length) chartSection(name, specs);
