// The picture on the stage: where it speaks for a class.

import { heat } from "./colours.js";
import { make, roving } from "./make.js";
import { latest, unpack } from "./server.js";
import { className, short, t } from "./words.js";

const METHODS = ["grad-cam", "layer-cam"], STRENGTH = 0.8, SIDE = 448, MOST_BUTTONS = 20;

export class ClassMap {
  constructor(inside, box, kept = {}) {
    this.inside = inside;
    this.blob = null;
    this.target = kept.target ?? null; // null: the class that the net answers
    this.method = kept.method ?? METHODS[0];
    this.asked = latest((blob, signal) => this.#ask(blob, signal));
    this.canvas = make("canvas", { className: "where", role: "img", width: 1, height: 1 });
    this.told = make("p", { className: "small faint" });
    this.box = make("div", { className: "where-body" });
    box.replaceChildren(make("div", { className: "stage-head" }, make("h3", { textContent: t("picture") }, make("span", { className: "small faint", textContent: t("whereTab") }))), this.box);
    this.#build();
  }

  get pumps() { return [this.asked]; }

  kept() { return { target: this.target, method: this.method }; }

  drop() { this.asked.drop(); }

  picture(blob) {
    this.blob = blob;
    this.#drawPicture();
    if (this.inside.info.cam_layer) this.asked.ask(blob);
  }

  clear() {
    this.blob = null;
    this.drop();
    this.canvas.width = this.canvas.height = 1;
    this.told.textContent = "";
  }

  #build() {
    const { info, model } = this.inside;
    if (!info.cam_layer) {
      this.box.replaceChildren(make("div", { className: "where-frame" }, this.canvas), make("p", { className: "faint", textContent: t("camNone") }));
      return;
    }
    const choose = (name) => {
      this.target = name;
      if (this.blob) this.asked.now(this.blob);
    };
    let classes;
    if (model.classes.length <= MOST_BUTTONS) {
      classes = make("div", { className: "classes", role: "group", "aria-label": t("camTitle") }, ...model.classes.map((name) => {
        const button = make("button", { type: "button", textContent: className(name), "aria-pressed": "false", data: { name } });
        button.addEventListener("click", () => choose(name));
        return button;
      }));
      roving(classes, "button");
    } else {
      classes = make("select", { "aria-label": t("camTitle") }, ...model.classes.map((name) => make("option", { value: name, textContent: className(name) })));
      classes.addEventListener("change", () => choose(classes.value));
    }
    this.classes = classes;
    const methods = make("select", {}, ...METHODS.map((name) => make("option", { value: name, textContent: name, selected: name === this.method })));
    methods.addEventListener("change", () => {
      this.method = methods.value;
      if (this.blob) this.asked.now(this.blob);
    });
    this.box.replaceChildren(make("div", { className: "where-frame" }, this.canvas),
      make("div", { className: "where-side" }, make("h4", { textContent: t("camTitle") }), classes, this.told,
        make("label", { className: "small" }, `${t("camMethod")} `, methods)));
  }

  #drawPicture() {
    const { seen } = this.inside;
    if (!seen.naturalWidth) return;
    const scale = Math.max(1, Math.floor(SIDE / Math.max(seen.naturalWidth, seen.naturalHeight)));
    [this.canvas.width, this.canvas.height] = [seen.naturalWidth * scale, seen.naturalHeight * scale];
    const pen = this.canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(seen, 0, 0, this.canvas.width, this.canvas.height);
  }

  async #ask(blob, signal) {
    let found;
    try {
      found = await this.inside.ask("cam", { ...(this.target === null ? {} : { class: this.target }), method: this.method }, blob, signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.inside.trouble(error, this.box);
      return;
    }
    const { values, shape: [height, width] } = unpack(found.map);
    this.#drawPicture();
    heat(this.canvas, values, width, height, STRENGTH);
    const label = className(found.class);
    this.canvas.setAttribute("aria-label", t("camAlt", { label }));
    const isZero = values.every((value) => value === 0);
    this.told.textContent = `${t("camLayer", { layer: found.layer })} · ${t("camScore", { s: short(found.score) })}${isZero ? ` · ${t("camZero")}` : ""}`;
    if (this.classes.matches("select")) this.classes.value = found.class;
    for (const button of this.classes.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.name === found.class));
  }
}
