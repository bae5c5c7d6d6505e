// One cell: its receptive field on the picture, and the very multiply-adds that its number comes from.

import { colourOf, css, farthest, inkOn, paint } from "./colours.js";
import { make } from "./make.js";
import { unpack } from "./server.js";
import { count, short, t } from "./words.js";

const MOST_CHANNELS = 6, MOST_TERMS = 12, MOST_NUMBERED = 5, MOST_DRAWN = 12;

/** Draw the picture that the net saw, with a frame around the pixels that a number hangs on. */
export function drawField(canvas, image, field) {
  const { naturalWidth: width, naturalHeight: height } = image;
  const scale = Math.max(1, Math.floor(320 / Math.max(width, height)));
  [canvas.width, canvas.height] = [width * scale, height * scale];
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (!field) return;
  const [top, left, bottom, right] = field.map((edge) => edge * scale);
  const style = getComputedStyle(document.documentElement);
  // A light and a coloured line, so that the frame shows on every picture.
  const line = Math.max(3, canvas.width / 50);
  for (const [name, inset] of [["--halo", -line / 2], ["--mark", line / 2]]) {
    pen.strokeStyle = style.getPropertyValue(name);
    pen.lineWidth = line;
    const at = (edge, most, sign) => (inset < 0 ? Math.min(most - line / 2, Math.max(line / 2, edge + sign * inset)) : edge + sign * inset);
    const [x, y] = [at(left, canvas.width, 1), at(top, canvas.height, 1)];
    pen.strokeRect(x, y, at(right, canvas.width, -1) - x, at(bottom, canvas.height, -1) - y);
  }
}

/** The label of the picture with its frame. */
export function fieldInWords(field, height, width) {
  if (!field) return t("fieldNone");
  const [top, left, bottom, right] = field;
  return bottom - top >= height && right - left >= width ? t("fieldAll") : t("field", { h: bottom - top, w: right - left });
}

export function fieldLabel(field) {
  if (!field) return t("fieldNone");
  return t("pictureField", { a: field[0] + 1, b: field[2], c: field[1] + 1, d: field[3] });
}

/**
 * The elements that tell how a cell comes about. `cell` as /explain gives it; `layer` its entry in the list of layers;
 * `before` {layer, isPicture} what it reads, where that is known; `classes` of a last layer.
 */
export function explainCell(cell, layer, before, isAll, showAll) {
  if (cell.terms) {
    const terms = Object.fromEntries(["inputs", "weights", "products"].map((name) => [name, unpack(cell.terms[name])]));
    const { shape } = terms.inputs;
    const parts = shape.length === 3 ? kernelRows(cell, terms, before, isAll, showAll) : linearRows(cell, terms, before, isAll, showAll);
    return [...parts, totalLine(cell, terms)];
  }
  if (cell.window) {
    const { values, shape } = unpack(cell.window.inputs);
    const limit = farthest(values);
    return [
      make("p", { className: "small" }, t(`rule_${cell.window.rule}`, { kind: layer.kind })),
      make("div", { className: "sum" }, grid(values, shape[1], limit, t("inputs"), cell.window.rule === "max" ? values.indexOf(Math.max(...values)) : -1),
        make("span", { className: "op", textContent: "→" }), make("strong", { textContent: short(cell.value) })),
    ];
  }
  return [make("p", { className: "small faint", textContent: t("noTerms", { kind: layer.kind }) })];
}

function kernelRows(cell, { inputs, weights, products }, before, isAll, showAll) {
  const [channels, height, width] = inputs.shape, size = height * width;
  const part = (values, channel) => values.subarray(channel * size, (channel + 1) * size);
  const sums = Array.from({ length: channels }, (_, channel) => part(products.values, channel).reduce((sum, value) => sum + value, 0));
  let shown = sums.map((_, channel) => channel);
  if (channels > MOST_CHANNELS && !isAll) {
    shown = shown.sort((one, other) => Math.abs(sums[other]) - Math.abs(sums[one])).slice(0, MOST_CHANNELS);
  }
  const limits = [inputs, weights, products].map(({ values }) => farthest(values));
  const rows = shown.map((channel) => {
    const source = before?.isPicture ? (channels === 1 ? t("fromPicture") : t("fromChannel", { n: ["R", "G", "B"][channel] ?? channel + 1 })) : t("fromMap", { n: cell.terms.channels[channel] + 1 });
    const grids = [[inputs, "inputs"], [weights, "weights"], [products, "products"]].map(([values, name], at) => {
      return grid(part(values.values, channel), width, limits[at], `${source}, ${t(name)}`);
    });
    const sign = (text) => make("span", { className: "op", textContent: text });
    return make("li", {},
      make("div", { className: "part small" }, make("span", { className: "from", textContent: source }), make("span", { className: "subtotal", textContent: `${t("sumOf")} ${short(sums[channel])}` })),
      make("div", { className: "sum" }, grids[0], make("span", { className: "pair" }, sign("×"), grids[1]), make("span", { className: "pair" }, sign("="), grids[2])));
  });
  const list = make("ol", { className: "sums" }, ...rows);
  const left = channels - shown.length;
  const rest = left ? sums.reduce((sum, value) => sum + value, 0) - shown.reduce((sum, channel) => sum + sums[channel], 0) : 0;
  return [
    left ? make("p", { className: "small faint", textContent: t("strongest", { n: shown.length, all: channels }) }) : null,
    make("p", { className: "small faint", textContent: `${t("inputs")} × ${t("weights")} = ${t("products")}` }),
    list,
    left ? restLine(left, rest, showAll) : null,
  ].filter(Boolean);
}

function linearRows(cell, { inputs, weights, products }, before, isAll, showAll) {
  const length = products.values.length;
  const parts = [];
  const shape = before?.shape;
  if (shape?.length === 3 && before.isPicture && shape[0] * shape[1] * shape[2] === length && shape[0] === 1) {
    const images = [[inputs, "inputs"], [weights, "weightsUnit"], [products, "products"]].map(([values, name]) => {
      const canvas = make("canvas", { className: "sheet", role: "img", "aria-label": t(name) });
      paint(canvas, values.values, shape[2], shape[1], farthest(values.values));
      return make("figure", {}, canvas, make("figcaption", { className: "small faint", textContent: t(name) }));
    });
    const signs = ["×", "="].map((sign) => make("span", { className: "op", textContent: sign }));
    parts.push(make("div", { className: "sheets" }, images[0], signs[0], images[1], signs[1], images[2]));
  }
  const order = Array.from(products.values.keys()).sort((one, other) => Math.abs(products.values[other]) - Math.abs(products.values[one]));
  const shown = order.slice(0, isAll ? 200 : MOST_TERMS);
  const most = Math.abs(products.values[order[0]]) || 1;
  const rows = shown.map((at) => {
    const value = products.values[at];
    const bar = make("i", { className: value < 0 ? "less" : "more" });
    bar.style.width = `${(Math.abs(value) / most) * 100}%`;
    return make("li", {}, make("span", { className: "from small", textContent: sourceOf(at, before) }),
      make("span", { className: "factors small", textContent: `${short(inputs.values[at])} × ${short(weights.values[at])}` }),
      make("span", { className: "signed" }, bar), make("span", { className: "subtotal", textContent: short(value) }));
  });
  const rest = products.values.reduce((sum, value) => sum + value, 0) - shown.reduce((sum, at) => sum + products.values[at], 0);
  const left = length - shown.length;
  parts.push(make("p", { className: "small faint", textContent: left ? t("strongestTerms", { n: shown.length, all: count(length) }) : `${t("inputs")} × ${t("weightsUnit")}` }));
  parts.push(make("ol", { className: "terms" }, ...rows));
  if (left) parts.push(restLine(left, rest, isAll ? null : showAll));
  return parts;
}

function sourceOf(at, before) {
  const shape = before?.shape;
  if (shape?.length !== 3) return t("termNumber", { n: at + 1 });
  const [, height, width] = shape, place = at % (height * width);
  return t("termFrom", { c: Math.floor(at / (height * width)) + 1, y: Math.floor(place / width) + 1, x: (place % width) + 1 });
}

function restLine(left, sum, showAll) {
  const line = make("p", { className: "rest small" }, make("span", { textContent: t("rest", { n: count(left) }) }), make("span", { className: "subtotal", textContent: short(sum) }));
  if (!showAll) return line;
  const button = make("button", { type: "button", className: "quiet small", textContent: t("more", { n: count(left) }) });
  button.addEventListener("click", showAll);
  line.firstChild.after(button);
  return line;
}

function totalLine(cell, { products }) {
  const sum = cell.terms.total - cell.terms.bias;
  return make("p", { className: "total" }, make("span", { className: "small faint", textContent: t("totalLabel", { n: count(products.values.length) }) }),
    make("strong", { textContent: t("total", { sum: short(sum), bias: cell.terms.bias < 0 ? `(${short(cell.terms.bias)})` : short(cell.terms.bias), total: short(cell.terms.total) }) }));
}

/** A small grid of coloured numbers; larger ones are a picture without numbers. */
function grid(values, width, limit, what, marked = -1) {
  const label = t("gridLabel", { what, values: [...values.slice(0, 49)].map(short).join(" ") });
  if (width > MOST_NUMBERED || values.length / width > MOST_DRAWN) {
    const canvas = make("canvas", { className: "grid picture", role: "img", "aria-label": label, title: label });
    paint(canvas, values, width, values.length / width, limit);
    return canvas;
  }
  const element = make("span", { className: `grid wide${width}`, role: "img", "aria-label": label });
  values.forEach((value, at) => {
    const box = make("b", { textContent: brief(value), title: short(value), className: at === marked ? "marked" : "" });
    const colour = colourOf(value, limit);
    box.style.backgroundColor = css(colour);
    box.style.color = inkOn(colour);
    element.append(box);
  });
  return element;
}

/** A number in as few letters as a small box holds. */
function brief(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size < 0.005 ? "0" : size >= 10 ? size.toFixed(0) : size >= 1 ? size.toFixed(1) : size.toFixed(2).replace(/^0/, "");
  return (value < 0 && text !== "0" ? "−" : "") + text;
}
