// What run.html adds where JavaScript runs: searched tables, an ordered matrix, and the images of a cell (#cell=3-5).
// Texts of the data become text nodes, never HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

// tables that can be searched

for (const table of document.querySelectorAll("table[data-searched]")) {
  const field = element("input", {type: "search", placeholder: `search ${table.dataset.searched}`});
  field.setAttribute("aria-label", field.placeholder);
  field.oninput = () => {
    const wanted = field.value.toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  };
  table.parentNode.before(element("div", {className: "controls"}, field));
}

// the confusion matrix

const matrix = document.querySelector("table.matrix");
const orders = {
  "order of the data set": (a, b) => a - b,
  "most mistakes first": (a, b) => data.mistakes[b] - data.mistakes[a] || a - b,
  "by name": (a, b) => data.classes[a].localeCompare(data.classes[b], "en", {numeric: true}) || a - b,
};

function sortMatrix(name) {
  const order = data.classes.map((_, number) => number).sort(orders[name]);
  for (const row of matrix.rows) {
    const cells = [...row.cells].slice(1).sort((a, b) => a.dataset.column - b.dataset.column);
    row.append(...order.map(number => cells[number]));
  }
  const rows = [...matrix.tBodies[0].rows].sort((a, b) => a.dataset.row - b.dataset.row);
  matrix.tBodies[0].append(...order.map(number => rows[number]));
}

function showShares(inPercent) {
  for (const link of matrix.querySelectorAll("td a"))
    link.textContent = inPercent ? link.dataset.percent : link.dataset.count;
}

if (matrix) {
  const order = element("select", {}, ...Object.keys(orders).map(name => element("option", {}, name)));
  order.onchange = () => sortMatrix(order.value);
  const shares = element("input", {type: "checkbox"});
  shares.onchange = () => showShares(shares.checked);
  const controls = element("div", {className: "controls"}, element("label", {}, "order: ", order),
    element("label", {}, shares, " % of the true class"));
  matrix.parentNode.before(controls);
}

// the images of a cell

function figure(image) {
  const [position, , , lines, name, short, size] = image;
  const frame = element("div", {className: "frame"});
  const shown = document.querySelector(`img[data-image="${position}"]`);
  const source = data.pictures[position] || (shown && shown.src);
  if (source) {
    const picture = element("img", {src: source, alt: name, title: name, width: size[0], height: size[1], loading: "lazy"});
    if (size[2]) picture.className = "tiny";
    frame.append(picture);
  } else frame.append("no picture");
  const caption = element("figcaption", {title: name});
  for (const [word, label, percent] of lines)
    caption.append(`${word} `, element("bdi", {}, label), ` (${percent})`, element("br"));
  caption.append(element("span", {className: "quiet"}, element("bdi", {}, short)));
  return element("figure", {}, frame, caption);
}

function openCell() {
  const place = document.getElementById("cell");
  const found = /^#cell=(\d+)-(\d+)$/.exec(location.hash);
  for (const each of document.querySelectorAll("td.open")) each.classList.remove("open");
  place.replaceChildren();
  if (!found) return;
  const [row, column] = [Number(found[1]), Number(found[2])];
  if (row >= data.classes.length || column >= data.classes.length) return;
  const cell = document.querySelector(`td[data-cell="${row}-${column}"]`);
  if (cell) cell.classList.add("open");
  const count = data.counts[`${row}-${column}`] || 0;
  const images = data.images.filter(image => image[1] === row && image[2] === column);
  const heading = element("h3", {}, "true ", element("bdi", {}, data.classes[row]), ", predicted ",
    element("bdi", {}, data.classes[column]), `: ${count.toLocaleString("en")} image${count === 1 ? "" : "s"}`);
  const pictures = element("div", {className: "pictures"}, ...images.map(figure));
  place.append(heading, pictures);
  if (images.length < count)
    place.append(element("p", {className: "quiet"}, `${images.length} of ${count.toLocaleString("en")} are shown: ${data.limit}`));
  if (row !== column) {
    const back = element("a", {href: `#cell=${column}-${row}`}, "the other way round");
    place.append(element("p", {}, back, `: ${(data.counts[`${column}-${row}`] || 0).toLocaleString("en")}`));
  }
  place.scrollIntoView({block: "nearest"});
}

window.addEventListener("hashchange", openCell);
openCell();
