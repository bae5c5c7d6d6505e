// One layer on the stage: its maps or numbers, its kernels, and the cell that was chosen.

import { drawField, explainCell, fieldInWords, fieldLabel } from "./cell.js";
import { colourOf, css, farthest, inkOn, paint, paintColour } from "./colours.js";
import { make, roving } from "./make.js";
import { latest, unpack } from "./server.js";
import { className, count, short, t } from "./words.js";

const AT_A_TIME = 64;
// A map is drawn as large as its fellows leave room.
const SIDES = [[4, "huge"], [9, "large"], [20, "middle"], [40, "small"], [Infinity, "tiny"]];

export class LayerStage {
  constructor(inside, box, layer, kept = {}) {
    this.inside = inside;
    this.layer = layer;
    this.blob = null;
    this.maps = null; // {shape, values, channels, low, high}
    this.many = AT_A_TIME;
    this.cell = kept.cell ?? null;
    this.isAll = false;
    this.input = kept.input ?? 0;
    this.hasKernels = inside.info.kernel_layers.includes(layer.name.replace(/#\d+$/, ""));
    this.view = kept.view ?? (inside.blob || !this.hasKernels ? "maps" : "kernels");
    this.wantsMaps = !kept.view;
    this.mapsAsked = latest((blob, signal) => this.#askMaps(blob, signal));
    this.cellAsked = latest((cell, signal) => this.#askCell(cell, signal));
    this.grid = make("div", { className: "grid-box" });
    this.detail = make("aside", { className: "detail" });
    this.switch = make("div", { className: "views", role: "group", "aria-label": t("views") });
    const words = layer.has_maps ? t("layerMaps", { n: count(layer.shape[0]), size: `${layer.shape[1]} × ${layer.shape[2]}` }) : t("layerUnits", { n: count(layer.shape[0]) });
    const about = [words, layer.parameters ? t("parameters", { n: count(layer.parameters) }) : ""].filter(Boolean).join(" · ");
    const text = `${layer.kind}(${layer.settings})`;
    this.range = make("span", { className: "small faint range" });
    box.replaceChildren(
      make("div", { className: "stage-head" }, make("h3", {}, layer.name, make("code", { className: "small faint", textContent: text, title: text })), this.switch),
      make("p", { className: "small faint" }, about, " ", this.range),
      make("div", { className: "stage-body" }, this.grid, this.detail));
    this.#buildSwitch();
    this.#emptyDetail();
    if (this.view === "kernels") this.#kernels();
  }

  get pumps() { return [this.mapsAsked, this.cellAsked]; }

  kept() { return { view: this.view, cell: this.cell, input: this.input }; }

  drop() {
    this.mapsAsked.drop();
    this.cellAsked.drop();
  }

  picture(blob, isSettled) {
    this.blob = blob;
    if (this.wantsMaps && this.view === "kernels") this.#setView("maps");
    this.wantsMaps = false;
    if (this.view === "maps") this.mapsAsked.ask(blob);
    if (this.cell && isSettled) this.cellAsked.ask(this.cell);
  }

  clear() {
    this.blob = this.maps = null;
    this.drop();
    this.range.textContent = "";
    if (this.view === "maps") this.grid.replaceChildren(make("p", { className: "faint", textContent: t("needPicture") }));
    this.cell = null;
    this.#emptyDetail();
  }

  #buildSwitch() {
    if (!this.hasKernels) return;
    this.switch.replaceChildren(...["maps", "kernels"].map((view) => {
      const button = make("button", { type: "button", "aria-pressed": String(view === this.view), textContent: t(view === "maps" && !this.layer.has_maps ? "numbers" : view) });
      button.addEventListener("click", () => this.#setView(view));
      return button;
    }));
  }

  #setView(view) {
    this.view = view;
    this.wantsMaps = false;
    [...this.switch.children].forEach((button, at) => button.setAttribute("aria-pressed", String(["maps", "kernels"][at] === view)));
    this.grid.replaceChildren();
    if (view === "kernels") this.#kernels();
    else if (this.blob) this.mapsAsked.ask(this.blob);
    else this.clear();
    if (!this.cell) this.#emptyDetail();
  }

  #emptyDetail() {
    const hint = this.view === "kernels" ? "kernelHint" : this.layer.has_maps ? "mapHint" : "unitHint";
    this.enlarged = null;
    this.detail.replaceChildren(this.blob || this.view === "kernels" ? make("p", { className: "faint small", textContent: t(hint) }) : "");
  }

  async #askMaps(blob, signal) {
    let found;
    try {
      found = await this.inside.ask("maps", { layer: this.layer.name, channels: `0:${this.many}` }, blob, signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.inside.trouble(error, this.grid);
      return;
    }
    this.maps = { ...found, values: unpack(found.values).values };
    this.range.replaceChildren(`· ${t("lowHigh", { low: short(found.low), high: short(found.high) })}`, make("i", {}));
    if (this.layer.has_maps) this.#paintMaps();
    else this.#paintUnits();
    this.#paintEnlarged();
  }

  #paintMaps() {
    const { shape: [all, height, width], channels: [, shown], values, low, high } = this.maps;
    const limit = Math.max(Math.abs(low), Math.abs(high)), size = height * width;
    if (this.grid.dataset.of !== `maps ${shown}` || !this.grid.querySelector(".map")) {
      this.grid.dataset.of = `maps ${shown}`;
      const side = SIDES.find(([most]) => shown <= most)[1];
      const buttons = Array.from({ length: shown }, (_, channel) => {
        const canvas = make("canvas", {});
        const button = make("button", { type: "button", className: "map", "aria-label": t("mapLabel", { n: channel + 1 }), title: t("mapLabel", { n: channel + 1 }) }, canvas, make("span", { className: "small faint", textContent: channel + 1 }));
        button.addEventListener("click", (event) => this.#chooseIn(canvas, channel, event));
        return button;
      });
      const group = make("div", { className: `maps ${side}`, role: "group", "aria-label": t("maps") }, ...buttons);
      this.grid.replaceChildren(group, this.#moreButton(all - shown) ?? "");
      roving(group, ".map", this.cell?.[0] ?? 0);
    }
    [...this.grid.querySelectorAll(".map canvas")].forEach((canvas, channel) => paint(canvas, values.subarray(channel * size, (channel + 1) * size), width, height, limit));
    this.#markMap();
  }

  #paintUnits() {
    const { shape: [all], channels: [, shown], values } = this.maps;
    const { classes } = this.inside.model;
    const isNamed = all === classes.length && this.layer.name === this.inside.info.layers.at(-1).name;
    const limit = farthest(values);
    if (this.grid.dataset.of !== `units ${shown}` || !this.grid.querySelector(".unit")) {
      this.grid.dataset.of = `units ${shown}`;
      const buttons = Array.from({ length: shown }, (_, unit) => {
        const button = make("button", { type: "button", className: "unit" }, make("b", {}), make("span", { className: "small faint", textContent: isNamed ? className(classes[unit]) : unit + 1 }));
        button.addEventListener("click", () => this.choose([unit, 0, 0], true));
        return button;
      });
      const group = make("div", { className: `units${isNamed ? " named" : ""}`, role: "group", "aria-label": this.layer.name }, ...buttons);
      this.grid.replaceChildren(group, this.#moreButton(all - shown) ?? "");
      roving(group, ".unit", this.cell?.[0] ?? 0);
    }
    [...this.grid.querySelectorAll(".unit")].forEach((button, unit) => {
      const box = button.firstChild, colour = colourOf(values[unit], limit);
      box.textContent = short(values[unit]).replace(/(\.\d\d)\d$/, "$1");
      box.style.backgroundColor = css(colour);
      box.style.color = inkOn(colour);
      button.setAttribute("aria-label", `${isNamed ? className(classes[unit]) : t("unitLabel", { n: unit + 1 })}: ${short(values[unit])}`);
    });
    this.#markMap();
  }

  #moreButton(left) {
    if (left <= 0) return null;
    const button = make("button", { type: "button", className: "quiet", textContent: t("more", { n: count(Math.min(left, AT_A_TIME)) }) });
    button.addEventListener("click", () => {
      this.many += AT_A_TIME;
      if (this.view === "kernels") this.#kernels();
      else this.mapsAsked.now(this.blob);
    });
    return button;
  }

  /** A cell of a map was pointed at; from the keyboard its middle, and the arrow keys go on from there. */
  #chooseIn(canvas, channel, event) {
    const [, height, width] = this.layer.shape;
    const box = canvas.getBoundingClientRect();
    const at = (share, length) => Math.min(length - 1, Math.max(0, Math.floor(share * length)));
    const isPointed = event.detail > 0;
    const y = isPointed ? at((event.clientY - box.top) / box.height, height) : this.cell?.[1] ?? height >> 1;
    const x = isPointed ? at((event.clientX - box.left) / box.width, width) : this.cell?.[2] ?? width >> 1;
    this.choose([channel, y, x], true);
    if (!isPointed) this.enlarged?.focus();
  }

  choose(cell, isNew = false) {
    this.cell = cell;
    this.isAll = false;
    this.#markMap();
    this.#buildDetail();
    this.cellAsked.ask(cell);
    if (isNew && matchMedia("(max-width: 61rem)").matches) this.detail.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  #markMap() {
    [...this.grid.querySelectorAll(".map, .unit")].forEach((button, at) => {
      if (at === this.cell?.[0]) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
  }

  #buildDetail() {
    const [channel] = this.cell;
    if (this.detail.dataset.of === `${channel}` && this.value?.isConnected) return;
    this.detail.dataset.of = `${channel}`;
    this.place = make("p", { className: "small faint" });
    this.value = make("output", { className: "amount" });
    this.fieldCanvas = make("canvas", { role: "img" });
    this.fieldWords = make("figcaption", { className: "small faint" });
    this.sums = make("div", { className: "how" });
    this.enlarged = null;
    const figures = [make("figure", {}, this.fieldCanvas, this.fieldWords)];
    if (this.layer.has_maps) figures.push(this.#enlargedFigure(channel));
    this.detail.replaceChildren(make("h4", { textContent: t("cellTitle") }),
      make("div", { className: "of-cell" }, ...figures, make("div", { className: "number" }, this.value, this.place)), this.sums);
    this.#paintEnlarged();
  }

  #enlargedFigure(channel) {
    this.enlargedCanvas = make("canvas", {});
    this.cursor = make("i", {});
    this.enlarged = make("div", { className: "enlarged", tabIndex: 0, role: "application", "aria-label": t("cellKeys", { c: channel + 1 }) }, this.enlargedCanvas, this.cursor);
    this.enlarged.addEventListener("click", (event) => this.#chooseIn(this.enlargedCanvas, channel, event));
    this.enlarged.addEventListener("keydown", (event) => {
      const [, height, width] = this.layer.shape, [, y, x] = this.cell;
      const to = { ArrowLeft: [y, x - 1], ArrowRight: [y, x + 1], ArrowUp: [y - 1, x], ArrowDown: [y + 1, x], Home: [y, 0], End: [y, width - 1] }[event.key];
      if (!to) return;
      event.preventDefault();
      if (to[0] < 0 || to[1] < 0 || to[0] >= height || to[1] >= width) return;
      this.choose([channel, ...to]);
      this.#paintEnlarged();
      const value = this.#valueAt(this.cell);
      this.inside.say(t("cellSaid", { y: to[0] + 1, x: to[1] + 1, v: value === undefined ? "" : short(value) }));
    });
    return make("figure", {}, this.enlarged, make("figcaption", { className: "small faint", textContent: t("mapLabel", { n: channel + 1 }) }));
  }

  #valueAt([channel, y, x]) {
    const [, height, width] = this.layer.shape;
    return this.maps?.values[channel * height * width + y * width + x];
  }

  #paintEnlarged() {
    if (!this.enlarged || !this.maps || !this.cell) return;
    const { shape: [, height, width], values, low, high } = this.maps;
    const [channel, y, x] = this.cell, size = height * width;
    const part = values.subarray(channel * size, (channel + 1) * size);
    if (part.length === size) paint(this.enlargedCanvas, part, width, height, Math.max(Math.abs(low), Math.abs(high)));
    const { style } = this.cursor;
    [style.left, style.top, style.width, style.height] = [x / width, y / height, 1 / width, 1 / height].map((share) => `${share * 100}%`);
  }

  async #askCell(cell, signal) {
    if (!this.blob) return;
    const [channel, y, x] = cell;
    let found;
    try {
      found = await this.inside.ask("cell", { layer: this.layer.name, channel, y, x }, this.blob, signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.inside.trouble(error, this.detail);
      return;
    }
    this.found = found;
    this.#buildDetail();
    this.#showCell();
  }

  #showCell() {
    const { found, layer, inside } = this, [channel, y, x] = found.cell;
    this.value.textContent = short(found.value);
    this.value.title = String(found.value);
    this.place.textContent = layer.has_maps ? t("cellAt", { c: channel + 1, y: y + 1, x: x + 1 }) : t("unitAt", { c: channel + 1 });
    const [, height, width] = inside.info.input_shape;
    drawField(this.fieldCanvas, inside.seen, found.field);
    this.fieldCanvas.setAttribute("aria-label", fieldLabel(found.field));
    this.fieldWords.textContent = fieldInWords(found.field, height, width);
    this.#paintEnlarged();
    const showAll = () => { this.isAll = true; this.#showCell(); };
    this.sums.replaceChildren(...explainCell(found, layer, readBy(layer, inside.info), this.isAll, showAll));
  }

  async #kernels() {
    const box = this.grid, { layer } = this;
    let found;
    try {
      found = await this.inside.ask("kernels", { layer: layer.name, channels: `0:${this.many}` });
    } catch (error) {
      this.inside.trouble(error, box);
      return;
    }
    if (this.view !== "kernels") return;
    const { values, shape: [shown, inputs, height, width] } = unpack(found.kernels);
    const limit = farthest(values), size = height * width;
    const isColour = inputs === 3 && this.inside.info.input_shape[0] === 3;
    const bias = found.bias ? unpack(found.bias).values : null;
    const tools = [];
    if (inputs > 1 && !isColour) {
      const stepper = make("input", { type: "number", min: 1, max: inputs, value: Math.min(this.input, inputs - 1) + 1 });
      stepper.addEventListener("input", () => {
        this.input = Math.min(inputs, Math.max(1, Number(stepper.value) || 1)) - 1;
        draw();
      });
      tools.push(make("label", { className: "small" }, `${t("kernelInput")} `, stepper, ` / ${count(inputs)}`));
    }
    const canvases = Array.from({ length: shown }, () => make("canvas", {}));
    const draw = () => canvases.forEach((canvas, at) => {
      const of = values.subarray(at * inputs * size, (at + 1) * inputs * size);
      if (isColour) paintColour(canvas, of, width, height, limit);
      else paint(canvas, of.subarray(Math.min(this.input, inputs - 1) * size, (Math.min(this.input, inputs - 1) + 1) * size), width, height, limit);
    });
    draw();
    const side = SIDES.find(([most]) => shown <= most)[1];
    const figures = canvases.map((canvas, at) => make("figure", { className: "map", title: [t("kernelLabel", { n: at + 1 }), bias ? t("kernelBias", { b: short(bias[at]) }) : ""].join(", ") }, canvas, make("figcaption", { className: "small faint", textContent: at + 1 })));
    box.dataset.of = "kernels";
    box.replaceChildren(...tools, make("div", { className: `maps ${side}`, role: "img", "aria-label": `${t("kernels")}: ${count(found.shape[0])} × ${inputs} × ${height} × ${width}` }, ...figures), this.#moreButton(found.shape[0] - shown) ?? "");
  }
}

/** What a layer reads, as far as the order of the layers tells: {shape, isPicture}, or null. */
function readBy(layer, { layers, input_shape: picture }) {
  const same = ["Flatten", "Dropout", "Identity"];
  for (let at = layers.findIndex(({ name }) => name === layer.name) - 1; at >= 0; at -= 1) {
    if (layers[at].has_maps) return { shape: layers[at].shape, isPicture: false };
    if (!same.includes(layers[at].kind)) return null;
  }
  return { shape: picture, isPicture: true };
}
