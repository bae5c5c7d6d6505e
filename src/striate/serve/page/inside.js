// See inside the net: the row of layers, and on the stage what one of them holds.

import { farthest, paint } from "./colours.js";
import { ClassMap } from "./classmap.js";
import { make, roving } from "./make.js";
import { Refused, ask, latest, sleep, unpack } from "./server.js";
import { LayerStage } from "./stage.js";
import { t } from "./words.js";

export const PICTURE = "";

export class Inside {
  /** `root` the section; `say` tells a screen reader; `modelOf` the choice of the model. */
  constructor(root, say) {
    this.say = say;
    this.flow = root.querySelector("#flow");
    this.stageBox = root.querySelector("#stage");
    this.missing = root.querySelector("#missing");
    this.hint = root.querySelector("#inside-hint");
    this.choice = root.querySelector("#inside-model");
    this.model = null;
    this.info = null;
    this.blob = null; // the picture that is looked at
    this.seen = new Image(); // as the net saw it
    this.selected = PICTURE;
    this.tiles = new Map();
    this.stage = null;
    this.overviews = latest((blob, signal) => this.#overview(blob, signal));
    this.openings = latest((model, signal) => this.#open(model, signal));
    this.choice.querySelector("select").addEventListener("change", (event) => this.open(this.models.find(({ name }) => name === event.target.value)));
  }

  get isIdle() { return [this.overviews, this.openings, ...(this.stage?.pumps ?? [])].every((pump) => pump.isIdle); }

  setModels(models) {
    this.models = models;
    const able = models.filter((model) => model.explain);
    this.choice.hidden = able.length < 2;
    this.choice.querySelector("select").replaceChildren(...able.map(({ name }) => make("option", { value: name, textContent: name })));
    this.open(able[0] ?? models[0]);
  }

  open(model) {
    this.model = model;
    this.info = null;
    this.overviews.drop();
    this.openings.now(model);
  }

  /** Look at another picture; `seen` is the data URL of what the net saw of it. */
  async show(model, blob, seen, isSettled) {
    if (model !== this.model) return;
    this.blob = blob;
    if (this.seen.src !== seen) {
      this.seen.src = seen;
      await this.seen.decode().catch(() => {});
    }
    if (!this.info || this.blob !== blob) return;
    this.#paintPicture();
    this.overviews.ask(blob);
    this.stage?.picture(blob, isSettled);
    this.#hint();
  }

  clear() {
    this.blob = null;
    this.seen.removeAttribute("src");
    this.overviews.drop();
    for (const { canvases } of this.tiles.values()) for (const canvas of canvases) canvas.width = canvas.height = 1;
    this.stage?.clear();
    this.#hint();
  }

  again() {
    this.#hint();
    if (this.info) this.#buildFlow();
    this.#showMissing();
    if (this.info) this.select(this.selected, this.stage?.kept());
    if (this.info && this.blob) this.overviews.ask(this.blob);
  }

  /** Ask about a layer of the model that is looked into. A busy server is asked again. */
  async ask(part, values, body, signal) {
    const model = this.model;
    const query = new URLSearchParams({ model: model.name, part, ...values });
    for (let times = 0; ; times += 1) {
      try {
        return await ask(`explain?${query}`, { body: body ?? new Blob([]), signal });
      } catch (error) {
        if (!(error instanceof Refused) || ![429, 503].includes(error.status) || times === 4) throw error;
        await sleep(Math.min(5, error.wait || 1), signal);
      }
    }
  }

  /** Say in words why something of the inside is not shown; what cannot be said is thrown on. */
  trouble(error, box) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 501) {
      this.#showMissing(error.said);
      return;
    }
    const told = [error.said.what, error.said.cause].filter(Boolean).join(": ");
    box.replaceChildren(make("p", { className: "notice", role: "alert" }, t(error.key), told ? make("span", { className: "small told", lang: "en", textContent: told }) : null));
  }

  async #open(model, signal) {
    this.tiles.clear();
    this.flow.replaceChildren();
    this.stageBox.replaceChildren();
    this.stage = null;
    this.#showMissing();
    this.#hint();
    if (!model?.explain) return;
    this.stageBox.replaceChildren(make("p", { className: "faint loading", textContent: t("opening") }));
    try {
      this.info = await this.ask("layers", {}, undefined, signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.trouble(error, this.stageBox);
      return;
    }
    this.#buildFlow();
    const first = this.info.kernel_layers[0] ?? this.info.layers[0]?.name ?? PICTURE;
    this.select(this.info.layers.some(({ name }) => name === first) ? first : PICTURE);
    this.dispatchOpened?.();
  }

  #buildFlow() {
    this.tiles.clear();
    const [channels, height, width] = this.info.input_shape;
    const parts = [{ name: PICTURE, title: t("picture"), about: `${height} × ${width}${channels > 1 ? ` × ${channels}` : ""}`, count: 1 }];
    for (const layer of this.info.layers) {
      parts.push({ name: layer.name, title: layer.name, about: layer.kind, shape: layer.shape.join(" × "), count: layer.has_maps ? Math.min(4, layer.shape[0]) : 1, isUnits: !layer.has_maps });
    }
    this.flow.replaceChildren(...parts.map((part) => {
      const canvases = Array.from({ length: part.count }, () => make("canvas", { width: 1, height: 1 }));
      const tile = make("button", { type: "button", className: `tile${part.isUnits ? " of-units" : ""}`, role: "tab", "aria-controls": "stage", title: `${part.title} ${part.about}` },
        make("span", { className: `mosaic of${part.count}` }, ...canvases),
        make("span", { className: "name", textContent: tail(part.title) }), make("span", { className: "small faint", textContent: part.about }),
        part.shape ? make("span", { className: "small faint", textContent: part.shape }) : null);
      tile.addEventListener("click", () => this.select(part.name));
      this.tiles.set(part.name, { tile, canvases });
      return tile;
    }));
    this.#mark();
    this.#paintPicture();
  }

  /** Put a layer, or the picture itself, on the stage. */
  select(name, kept) {
    this.selected = name;
    this.#mark();
    const layer = this.info.layers.find((one) => one.name === name);
    this.stage?.drop();
    this.stage = layer ? new LayerStage(this, this.stageBox, layer, kept) : new ClassMap(this, this.stageBox, kept);
    if (this.blob) this.stage.picture(this.blob, true);
    else this.stage.clear();
  }

  #mark() {
    let at = 0, chosen = 0;
    for (const [name, { tile }] of this.tiles) {
      const isChosen = name === this.selected;
      tile.setAttribute("aria-selected", isChosen);
      if (isChosen) {
        chosen = at;
        const { offsetLeft, offsetWidth } = tile, { scrollLeft, clientWidth } = this.flow;
        if (offsetLeft < scrollLeft || offsetLeft + offsetWidth > scrollLeft + clientWidth) this.flow.scrollTo({ left: offsetLeft - clientWidth / 2 + offsetWidth / 2 });
      }
      at += 1;
    }
    roving(this.flow, ".tile", chosen);
  }

  #paintPicture() {
    const [canvas] = this.tiles.get(PICTURE)?.canvases ?? [];
    if (!canvas || !this.seen.naturalWidth) return;
    [canvas.width, canvas.height] = [this.seen.naturalWidth, this.seen.naturalHeight];
    canvas.getContext("2d").drawImage(this.seen, 0, 0);
  }

  async #overview(blob, signal) {
    let found;
    try {
      found = await this.ask("overview", {}, blob, signal);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      return; // the stage asks too, and says it
    }
    for (const { layer, low, high, thumbnails } of found.layers) {
      const { values: levels, shape } = unpack(thumbnails);
      const canvases = this.tiles.get(layer)?.canvases ?? [];
      const values = Float32Array.from(levels, (level) => low + (level / 255) * (high - low));
      const limit = farthest(values);
      const size = shape[1] * shape[2];
      canvases.forEach((canvas, at) => {
        if (canvas.closest(".of-units")) paintUnits(canvas, values, limit);
        else paint(canvas, values.subarray(at * size, (at + 1) * size), shape[2], shape[1], limit);
      });
    }
  }

  #hint() { this.hint.textContent = this.info ? t(this.blob ? "hintDrawn" : "hintEmpty") : ""; }

  #showMissing(said = null) {
    const isMissing = said || (this.model && !this.model.explain);
    this.missing.hidden = !isMissing;
    this.flow.hidden = this.stageBox.hidden = Boolean(isMissing);
    if (!isMissing) return;
    const told = [said?.what, said?.cause].filter(Boolean).join(": ");
    this.missing.replaceChildren(
      make("h3", { textContent: t("missingTitle") }), make("p", { textContent: t("missingText") }),
      make("pre", {}, make("code", { textContent: "pip install 'striate[serve]'\nstriate serve runs/latest" })),
      told ? make("p", { className: "small faint", lang: "en", textContent: told }) : "");
  }
}

/** The end of a long name, which tells layers apart. */
const tail = (name) => (name.length > 12 ? `…${name.slice(-11)}` : name);

/** A few hundred numbers as a block of squares. */
function paintUnits(canvas, values, limit) {
  const width = Math.max(1, Math.ceil(Math.sqrt(values.length))), height = Math.ceil(values.length / width);
  const padded = new Float32Array(width * height);
  padded.set(values);
  paint(canvas, padded, width, height, limit);
}
