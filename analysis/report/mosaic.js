// Where a sample comes from: one widget for the path and for the mosaic. Its data are `data.path`
// and `data.mosaic`; see pictures.py.

const CELL = 24;  // canvas pixels for each pixel of the image
const COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99"];
const FRAME = "#56b4e9";

function unpack(text, Kind) {
  return new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

// Everything from one noise at one t, side by side, and whose noise it is.
function along(path) {
  const slider = $("walk-t"), chooser = $("seed");
  const figures = path.names.map((name) => {
    const canvas = tile(name), caption = element("figcaption");
    $("walk").append(element("figure", {}, canvas, caption));
    return { canvas, caption };
  });
  return () => {
    const i = Number(slider.value), seed = path.seeds[Number(chooser.value)];
    $("walk-now").textContent = `t = ${path.t[i].toFixed(2)}` +
      (path.size ? `, k = ${path.size[i]}` : "") +
      `, pearson_r of network and ${path.primary} ${fixed(seed.pearson_r[i])}`;
    slider.setAttribute("aria-valuetext", $("walk-now").textContent);
    figures.forEach(({ canvas, caption }, row) => {
      draw(canvas, seed.sheet, i, row);
      const note = seed.notes[row] ? `: ${seed.notes[row][i]}` : "";
      caption.replaceChildren(element("strong", {}, path.names[row]), note, element("br"),
        path.captions[row]);
    });
  };
}

function mosaic(path, { height: h, width: w, moved, traced, opens, training, seeds }) {
  const canvas = $("mosaic"), context = canvas.getContext("2d"), size = h * w;
  const slot = new Map(training.indices.map((image, i) => [image, i]));
  const known = new Map();  // a sample's numbers, unpacked when they are first asked for
  let at = opens.pixel, pinned = false, lit = null, view = null, ticket = null;
  canvas.width = w * CELL;
  canvas.height = h * CELL;
  canvas.style.aspectRatio = `${w} / ${h}`;

  function sample() {
    const seed = Number($("seed").value), name = $("mosaic-side").value, key = `${seed} ${name}`;
    if (!known.has(key)) {
      const side = seeds[seed][name];
      known.set(key, {
        ...side, name, traced: name === traced, row_of: path.sides.indexOf(name), pictures: path.seeds[seed].sheet,
        image: unpack(side.image, Uint32Array), row: unpack(side.row, Uint16Array),
        column: unpack(side.column, Uint16Array), weight: unpack(side.weight, Float32Array),
        effective: unpack(side.effective, Float32Array), top: unpack(side.top, Float32Array),
      });
    }
    return known.get(key);
  }

  // What is shown: the sample at the step of the slider, or at the first that it has.
  function look() {
    const side = sample(), step = Math.max(Number($("walk-t").value), side.first);
    const offset = (step - side.first) * size;
    const pixel = (p) => ({
      image: side.image[offset + p], row: side.row[offset + p], column: side.column[offset + p],
      weight: side.weight[offset + p], effective: side.effective[offset + p], top: side.top[offset + p],
    });
    const pixels = Array.from({ length: size }, (_, p) => pixel(p));
    // Neighbours belong together when they come from one image at one displacement.
    const pieces = pixels.map(({ image, row, column }, p) =>
      `${image} ${row - Math.floor(p / w)} ${column - (p % w)}`);
    const sources = new Map();
    for (const { image, weight } of pixels) {
      const found = sources.get(image) ?? { pixels: 0, weight: 0 };
      sources.set(image, { pixels: found.pixels + 1, weight: found.weight + weight });
    }
    const largest = [...sources].sort((a, b) => b[1].weight - a[1].weight).slice(0, COLOURS.length);
    return { side, step, k: side.k[step - side.first], pixels, pieces, sources,
             colours: new Map(largest.map(([image], i) => [image, COLOURS[i]])) };
  }

  // --- pictures as pixels that can be read -------------------------------------------------------

  const trainingImage = (image) => {
    const found = slot.get(image);
    return found === undefined ? null
      : cut(training.sheet, found % training.columns, Math.floor(found / training.columns));
  };

  // The k x k pixels around a place, drawn on a small canvas; how bright the middle one is, 0 to 1.
  function square(name, piece, row, column, k) {
    const target = $(`patch-${name}`), r = (k - 1) / 2;
    target.width = target.height = k;
    target.closest("figure").classList.toggle("none", !piece);
    $(`value-${name}`).textContent = "";
    if (!piece) return;
    target.getContext("2d").drawImage(piece, column - r, row - r, k, k, 0, 0, k, k);
    const [red, green, blue] = piece.getContext("2d").getImageData(column, row, 1, 1).data;
    $(`value-${name}`).textContent = ((red + green + blue) / 765).toFixed(2);
  }

  // --- drawing -------------------------------------------------------------------------------------

  const box = (x, y, width, height, colour, line) => {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(x, y, width, height);
  };

  function paint() {
    if (!view) return;
    const { pixels, colours, k, base, winner } = view, mine = pixels[at];
    const kind = $("mosaic-view").value;
    context.imageSmoothingEnabled = false;
    context.globalAlpha = 1;
    context.drawImage(base, 0, 0, w * CELL, h * CELL);
    if (kind === "pieces")
      pixels.forEach(({ image, top }, p) => {
        const colour = colours.get(image);
        context.globalAlpha = lit === image ? 0.75 : lit !== null ? 0.05 : (colour ? 0.2 : 0) + 0.6 * top;
        context.fillStyle = colour ?? "#888888";
        context.fillRect((p % w) * CELL, Math.floor(p / w) * CELL, CELL, CELL);
      });
    context.globalAlpha = 1;
    if (kind === "pieces") borders(view);
    const x = (at % w) * CELL, y = Math.floor(at / w) * CELL, r = (k - 1) / 2;
    if (winner && !moved)
      context.drawImage(winner, mine.column - r, mine.row - r, k, k,
        x - r * CELL, y - r * CELL, k * CELL, k * CELL);
    box(x - r * CELL, y - r * CELL, k * CELL, k * CELL, FRAME, pinned ? 5 : 3);
    box(x, y, CELL, CELL, "#000", 5);
    box(x, y, CELL, CELL, "#fff", 2);
  }

  // Lines around the pieces of the images that have a colour.
  function borders({ pixels, pieces, colours }) {
    const apart = (p, q) => pieces[p] !== pieces[q] &&
      (colours.has(pixels[p].image) || colours.has(pixels[q].image));
    context.strokeStyle = "rgba(255, 255, 255, 0.85)";
    context.lineWidth = 1.5;
    context.beginPath();
    for (let p = 0; p < size; p++) {
      const x = (p % w) * CELL, y = Math.floor(p / w) * CELL;
      if (p % w < w - 1 && apart(p, p + 1)) {
        context.moveTo(x + CELL, y);
        context.lineTo(x + CELL, y + CELL);
      }
      if (p + w < size && apart(p, p + w)) {
        context.moveTo(x, y + CELL);
        context.lineTo(x + CELL, y + CELL);
      }
    }
    context.stroke();
  }

  function link() {
    const frame = $("explorer").getBoundingClientRect(), line = $("link").firstElementChild;
    const from = canvas.getBoundingClientRect(), to = $("source").getBoundingClientRect();
    $("link").style.display = view && view.winner ? "" : "none";
    if (!view || !view.winner) return;
    const { row, column } = view.pixels[at];
    const place = (area, y, x) => [area.left - frame.left + (x + 0.5) / w * area.width,
                                   area.top - frame.top + (y + 0.5) / h * area.height];
    const [x1, y1] = place(from, Math.floor(at / w), at % w), [x2, y2] = place(to, row, column);
    for (const [name, value] of Object.entries({ x1, y1, x2, y2 })) line.setAttribute(name, value);
  }

  function source() {
    const { winner, k, pixels } = view, { row, column } = pixels[at], scale = 8, r = (k - 1) / 2;
    const target = $("source"), big = target.getContext("2d");
    target.hidden = !winner;
    if (!winner) return;
    target.width = w * scale;
    target.height = h * scale;
    big.imageSmoothingEnabled = false;
    big.drawImage(winner, 0, 0, w * scale, h * scale);
    big.strokeStyle = FRAME;
    big.lineWidth = 3;
    big.strokeRect((column - r) * scale, (row - r) * scale, k * scale, k * scale);
  }

  // --- words -----------------------------------------------------------------------------------------

  const label = (image) => {
    const found = slot.get(image);
    return found === undefined || !training.labels ? "" : ` (${training.labels[found]})`;
  };

  // One rule: more than half of the weight is a copy, more than a tenth mostly one.
  function origin({ image, weight, effective }) {
    const name = `training image ${image}${label(image)}`, share = `${number(100 * weight, 2)}\u00a0%`;
    if (weight > 0.5) return `copied from ${name}, whose patch has ${share} of the weight`;
    if (weight > 0.1) return `mostly from ${name}, whose patch has ${share} of the weight`;
    return `an average of ${Math.round(effective).toLocaleString("en")} patches, none of which has ` +
      `more than ${share} of the weight`;
  }

  function describe() {
    const { pixels, sources, side, step, k } = view, mine = pixels[at];
    const row = Math.floor(at / w), column = at % w, same = sources.get(mine.image).pixels - 1;
    const piece = same === 0 ? "" :
      ` ${same === 1 ? "1 other pixel has its" : `${same} other pixels have their`} best patch in that image.`;
    const when = side.k.length > 1 ? ""
      : `The mosaic of the ${side.name} is known at t = ${path.t[step].toFixed(2)} alone, which is shown. `;
    $("mosaic-text").textContent =
      `${when}Row ${row}, column ${column}: ${origin(mine)}.${piece}${pinned ? " Kept." : ""}`;
    $("what-mean").textContent = side.traced ? "average, at this t" : `${side.name}'s answer, at this t`;
    $("source-text").textContent = `training image ${mine.image}${label(mine.image)}, row ${mine.row}, ` +
      `column ${mine.column}; k = ${k}` + (moved ? "; the patch may be mirrored or turned" : "") +
      (view.winner ? "" : " (left out of this page to keep it small)");
    Object.assign($("source").dataset, { image: mine.image, row: mine.row, column: mine.column });
    Object.assign(canvas.dataset, { row, column, step, pinned });
    square("sample", view.finished, row, column, k);
    square("winner", moved ? null : view.winner, mine.row, mine.column, k);
    square("mean", view.answer, row, column, k);
  }

  function thumbnails() {
    const { colours, sources, pixels } = view;
    $("pieces").replaceChildren(...[...colours].map(([image, colour]) => {
      const picture = tile(`training image ${image}`);
      const button = element("button", { type: "button", style: `border-color: ${colour}` }, picture,
        element("small", {}, `${sources.get(image).pixels} px`));
      if (slot.has(image)) {
        const found = slot.get(image);
        draw(picture, training.sheet, found % training.columns, Math.floor(found / training.columns));
      }
      const light = (on) => () => { lit = on ? image : null; paint(); };
      for (const [event, on] of [["pointerenter", true], ["focus", true], ["pointerleave", false], ["blur", false]])
        button.addEventListener(event, light(on));
      button.addEventListener("click", () => {
        pinned = true;
        const mine = pixels.flatMap((one, p) => (one.image === image ? [p] : []));
        go(mine.reduce((best, p) => (pixels[p].weight > pixels[best].weight ? p : best)));
      });
      return button;
    }));
  }

  // --- what follows from a change ----------------------------------------------------------------

  async function show() {
    const mine = (ticket = Symbol()), next = look(), { side, step } = next;
    const last = path.t.length - 1, kind = $("mosaic-view").value;
    next.answer = await cut(side.pictures, step, side.row_of);
    next.finished = await cut(side.pictures, last, side.row_of);
    next.base = kind === "mosaic" ? await cut(side.mosaic, step - side.first, 0) : next.answer;
    next.winner = await trainingImage(next.pixels[at].image);
    if (ticket !== mine) return;
    view = next;
    lit = null;
    thumbnails();
    all();
  }

  function all() {
    source();
    describe();
    paint();
    link();
  }

  async function go(next) {
    at = next;
    const mine = (ticket = Symbol()), winner = await trainingImage(view.pixels[at].image);
    if (ticket !== mine) return;
    view.winner = winner;
    all();
  }

  function place(event) {
    const area = canvas.getBoundingClientRect();
    const clamp = (value, most) => Math.min(most - 1, Math.max(0, Math.floor(value)));
    return clamp((event.clientY - area.top) / area.height * h, h) * w +
      clamp((event.clientX - area.left) / area.width * w, w);
  }

  canvas.addEventListener("pointermove", (event) => {
    if (view && !pinned && event.pointerType === "mouse" && place(event) !== at) go(place(event));
  });
  canvas.addEventListener("pointerdown", (event) => {
    if (!view) return;
    pinned = !(pinned && place(event) === at);
    go(place(event));
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -w, ArrowDown: w, ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!view || (!step && !["Enter", " ", "Escape"].includes(event.key))) return;
    event.preventDefault();
    if (!step) {
      pinned = event.key !== "Escape";
      return all();
    }
    const beyond = Math.abs(step) === 1 ? Math.floor(at / w) !== Math.floor((at + step) / w) : false;
    if (!beyond && at + step >= 0 && at + step < size) go(at + step);
  });
  new ResizeObserver(link).observe($("explorer"));
  $("mosaic-view").addEventListener("change", show);
  $("mosaic-side").addEventListener("change", () => {
    const { first } = sample();
    if (Number($("walk-t").value) >= first) return show();
    $("walk-t").value = first;  // where its mosaic begins
    $("walk-t").dispatchEvent(new Event("input"));
  });
  $("seed").value = opens.seed;
  $("walk-t").value = opens.step;
  return show;
}

if (data.path) {
  const changed = [along(data.path)];
  if (data.mosaic) changed.push(mosaic(data.path, data.mosaic));
  const show = () => {
    markSeed(data.path.seeds[Number($("seed").value)].seed);
    changed.forEach((one) => one());
  };
  player($("walk-t"), $("walk-play"), show, { spoken: $("walk-now") });
  $("seed").addEventListener("change", show);
  show();
}
