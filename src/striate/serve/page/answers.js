// The answers: one card for each model that is asked, side by side.

import { make } from "./make.js";
import { className, count, percent, stepInWords, t } from "./words.js";

const MOST_BARS = 10;

export class Answer {
  constructor(model) {
    this.model = model;
    this.result = null;
    this.trouble = "";
    this.title = make("h3", { textContent: model.name, title: model.name });
    this.about = make("p", { className: "small faint about" });
    this.seen = make("img", { className: "seen", hidden: true, alt: "" });
    this.caption = make("figcaption", { className: "small faint" });
    this.label = make("p", { className: "label" });
    this.sure = make("p", { className: "sureness" });
    this.why = make("p", { className: "small why" });
    this.bars = make("ol", { className: "bars" });
    this.steps = make("details", { className: "small steps", hidden: true });
    const verdict = make("div", { className: "verdict" },
      make("figure", {}, make("div", { className: "frame" }, this.seen), this.caption),
      make("div", { className: "says" }, this.label, this.sure, this.why));
    this.element = make("article", { className: "card answer" }, make("header", {}, this.title, this.about), verdict, this.bars, this.steps);
    this.show(null);
  }

  /** Show one entry of `results`, or nothing; `trouble` is a sentence that takes its place. */
  show(result, trouble = "", said = "") {
    this.result = result;
    this.trouble = [trouble, said];
    const { model } = this;
    this.element.setAttribute("aria-label", model.name);
    this.about.replaceChildren(...aboutModel(model));
    const isBlank = Boolean(result?.steps?.includes("no ink found"));
    const isAnswer = Boolean(result && !result.error && !isBlank);
    const isUnknown = isAnswer && result.rejected;
    this.element.classList.toggle("empty", !isAnswer);
    this.element.classList.toggle("unknown", isUnknown);
    this.seen.hidden = !result?.seen;
    if (result?.seen) {
      this.seen.src = result.seen;
      this.seen.alt = t("seenAlt", { model: model.name, size: model.input_size.join(" × ") });
    } else {
      this.seen.removeAttribute("src");
    }
    this.caption.textContent = t("seen");
    const name = isAnswer ? className(result.label) : "";
    this.label.textContent = isUnknown ? "?" : name;
    this.label.classList.toggle("wordy", !isUnknown && [...name].length > 2);
    this.sure.textContent = !isAnswer ? "" : isUnknown ? t("unknown") : percent(result.probability);
    const told = said || result?.error?.cause;
    this.why.replaceChildren(this.#why(result, trouble, isAnswer, isBlank), told ? make("span", { className: "told", lang: "en", textContent: told }) : "");
    this.why.classList.toggle("bad", Boolean(trouble || result?.error));
    this.#showBars(isAnswer ? result : null);
    this.#showSteps(isAnswer ? result.steps : []);
  }

  again() { this.show(this.result, ...this.trouble); }

  /** What a screen reader is told of it. */
  spoken() {
    const { result } = this;
    if (!result || result.error || result.steps?.includes("no ink found")) return this.why.textContent;
    if (result.rejected) return `${t("saidUnknown", { model: this.model.name })} ${this.why.textContent}`;
    return t("said", { model: this.model.name, label: className(result.label), p: percent(result.probability) });
  }

  #why(result, trouble, isAnswer, isBlank) {
    if (trouble) return trouble;
    if (!result) return t("nothing");
    if (result.error) return t("e_422");
    if (isBlank) return t("noInk");
    if (result.rejected) return result.unlike ? t("unlike") : t("unsure", { label: className(result.label), p: percent(result.probability) });
    return isAnswer && result.unlike ? t("maybe") : "";
  }

  #showBars(result) {
    const { classes } = this.model;
    const share = (name) => result?.probabilities?.[name] ?? 0;
    const isMany = classes.length > MOST_BARS;
    const shown = isMany ? [...classes].sort((one, other) => share(other) - share(one)).slice(0, MOST_BARS) : classes;
    const isShort = shown.every((name) => [...className(name)].length <= 2);
    this.bars.classList.toggle("letters", isShort);
    // The same rows are kept, so that bars glide and nothing jumps while one draws.
    while (this.bars.children.length > shown.length) this.bars.lastChild.remove();
    while (this.bars.children.length < shown.length) {
      this.bars.append(make("li", {}, make("span", { className: "name" }), make("span", { className: "bar" }, make("i")), make("span", { className: "value" })));
    }
    shown.forEach((name, at) => {
      const row = this.bars.children[at], [label, bar, value] = row.children;
      label.textContent = label.title = className(name);
      bar.firstChild.style.width = `${share(name) * 100}%`;
      value.textContent = result ? percent(share(name)) : "";
      row.classList.toggle("best", Boolean(result) && name === result.label);
    });
    if (isMany && result) {
      const rest = classes.length - shown.length, together = Math.max(0, 1 - shown.reduce((sum, name) => sum + share(name), 0));
      this.bars.lastChild.title = t("others", { n: rest, p: percent(together) });
    }
  }

  #showSteps(steps) {
    this.steps.hidden = !steps?.length;
    if (!steps?.length) return;
    const list = steps.map((step) => make("li", { textContent: stepInWords(step) }));
    this.steps.replaceChildren(make("summary", { textContent: t("steps") }), make("ul", {}, ...list));
  }
}

function aboutModel(model) {
  const parts = [model.net?.class];
  if (model.net?.parameters) parts.push(t("parameters", { n: count(model.net.parameters) }));
  const tested = model.metrics?.test_accuracy;
  if (typeof tested === "number") parts.push(t("tested", { p: percent(tested) }));
  return [parts.filter(Boolean).join(" · ")];
}
