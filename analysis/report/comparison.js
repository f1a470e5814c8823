// The same noise through several networks. Its data are `data.compared`; see pictures.py.

function compared({ sheet, networks, rows }) {
  const picture = (column, row, label) => {
    const canvas = tile(label);
    draw(canvas, sheet, column, row);
    return canvas;
  };
  const figure = (pictures, ...words) => element("figure", {},
    element("div", { class: "pair" }, ...pictures), element("figcaption", {}, ...words));
  $("compared").append(...rows.map((row, i) => element("div", { class: "same", role: "group", "aria-label": row },
    figure([picture(0, i, `noise of ${row}`)], row),
    ...networks.map(({ name, machine, colour, pearson_r: score }, n) => {
      const made = figure([picture(1 + 2 * n, i, `${name}, ${row}`),
                           picture(2 + 2 * n, i, `${machine} for ${name}, ${row}`)],
        element("strong", {}, name), element("br"), `and ${machine}: ${fixed(score[i])}`);
      made.style.setProperty("--own", ownColour(colour));
      return made;
    }))));
}

if (data.compared) compared(data.compared);
