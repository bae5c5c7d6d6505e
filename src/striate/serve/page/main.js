// The page: the pad on the left asks the models, the answers stand beneath it, the inside of one net beside it.

import { Answer } from "./answers.js";
import { Inside } from "./inside.js";
import { make, roving } from "./make.js";
import { Pad } from "./pad.js";
import { Refused, ask, hasToken, keepToken, latest, sleep } from "./server.js";
import { count, language, percent, setLanguage, t, translate } from "./words.js";

const DEBOUNCE = 60, AGAIN = 2;
const SURE = [0.99, 0.95, 0.9, 0];
const INKS = ["#000000", "#c0392b", "#d68910", "#1e8449", "#2471a3", "#7d3c98", "#8d6e63", "#ffffff"];

const element = (id) => document.getElementById(id);
const pad = new Pad(element("pad"), element("cross"));
const inside = new Inside(element("inside"), (text) => say(text));
export const page = {
  models: [], answers: new Map(), shown: new Set(), pad, inside,
  /** Whether everything that is on the pad has been answered. */
  get isIdle() { return !timer && !reading && inside.isIdle && [...page.answers.values()].every(({ asked }) => asked.isIdle); },
};

let timer = 0;
let reading = 0; // pictures that are being read off the pad
let isGone = false;
let wanted = kept("striate-sure") ?? "0.99";

function kept(name) {
  try { return localStorage.getItem(name); } catch { return null; }
}

function keep(name, value) {
  try { localStorage.setItem(name, value); } catch { /* private windows may keep nothing */ }
}

function say(text) {
  const said = element("said");
  said.textContent = said.textContent === text ? `${text}\u00a0` : text; // the same words are said again
}

// ---- models -------------------------------------------------------------------------------------------------------

async function loadModels() {
  for (;;) {
    try {
      const { models } = await ask("models");
      if (JSON.stringify(models) !== JSON.stringify(page.models)) useModels(models);
      return;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401) return askToken();
      tell(error);
      if (error.status === 0) return; // it is looked for until it is back
      await sleep(AGAIN);
    }
  }
}

function useModels(models) {
  page.models = models;
  page.answers = new Map(models.map((model) => [model.name, new Answer(model)]));
  page.shown = new Set(models.slice(0, 4).map(({ name }) => name));
  for (const answer of page.answers.values()) answer.asked = latest((job, signal) => askModel(answer, job, signal));
  const chips = models.map(({ name }) => {
    const box = make("input", { type: "checkbox", checked: page.shown.has(name), value: name });
    box.addEventListener("change", () => {
      if (box.checked) page.shown.add(name);
      else page.shown.delete(name);
      layOut();
      if (box.checked) askAll(true);
    });
    return make("label", { className: "chip" }, box, make("span", { textContent: name }));
  });
  const field = element("models");
  field.hidden = models.length < 2;
  field.replaceChildren(field.firstElementChild, ...chips);
  setUp();
  layOut();
  inside.setModels(models);
  if (!models.length) tell(new Refused(404), t("noModels"));
  else if (!pad.isEmpty) askAll(true);
}

function setUp() {
  const isPhoto = page.models.length > 0 && page.models.every(({ drawing, in_channels: channels }) => !drawing && channels === 3);
  const [big, small] = element("invitation").querySelectorAll("p");
  big.dataset.t = isPhoto ? "invitePhoto" : "inviteDraw";
  small.dataset.t = isPhoto ? "invitePhotoMore" : "inviteMore";
  element("invitation").classList.toggle("photo", isPhoto);
  element("choose").classList.toggle("main", isPhoto);
  element("inks").hidden = !page.models.some(({ in_channels: channels }) => channels === 3);
  element("serving").textContent = page.models.length > 1 ? t("serving", { n: page.models.length }) : page.models[0]?.name ?? "";
  document.title = page.models.length === 1 ? `${page.models[0].name} · striate` : "striate";
  translate();
  labelControls();
}

function layOut() {
  const cards = [...page.answers].filter(([name]) => page.shown.has(name)).map(([, { element: card }]) => card);
  element("answers").replaceChildren(...cards);
  element("answers").classList.toggle("many", cards.length > 1);
  document.body.classList.toggle("compares", cards.length > 1);
  element("sure").parentElement.hidden = !page.models.some(({ unlike }) => unlike);
}

// ---- asking -------------------------------------------------------------------------------------------------------

async function askAll(isSettled) {
  clearTimeout(timer);
  timer = 0;
  if (pad.isEmpty) {
    for (const answer of page.answers.values()) {
      answer.asked.drop();
      answer.show(null);
    }
    inside.clear();
    quiet();
    return;
  }
  reading += 1;
  const blob = await pad.blob().finally(() => { reading -= 1; });
  const job = { blob, name: pad.picture?.name, isSettled };
  if (pad.isEmpty) return;
  for (const [name, answer] of page.answers) {
    if (!page.shown.has(name)) answer.asked.drop();
    else if (isSettled) answer.asked.now(job);
    else answer.asked.ask(job);
  }
  const { model } = inside; // who is looked into is asked too, for what it saw
  if (model && !page.shown.has(model.name)) page.answers.get(model.name).asked.ask(job);
}

async function askModel(answer, job, signal) {
  const { model } = answer;
  const query = new URLSearchParams({ model: model.name, seen: "true" });
  if (model.unlike && Number(wanted) && !answer.cannotReject?.has(wanted)) query.set("reject", wanted);
  try {
    const { results } = await ask(`predict?${query}`, { body: job.blob, signal });
    await show(answer, job, results[0]);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (query.has("reject") && error.status === 422) {
      // This precision may be more than the model can give: then it answers without.
      query.delete("reject");
      try {
        const { results } = await ask(`predict?${query}`, { body: job.blob, signal });
        (answer.cannotReject ??= new Set()).add(wanted);
        await show(answer, job, results[0]);
        return;
      } catch (again) {
        if (!(again instanceof Refused)) throw again;
        error = again;
      }
    }
    if (error.status === 401) return askToken();
    if ([413, 415, 422].includes(error.status)) {
      quiet();
      answer.show(null, t(error.key), [error.said.what, error.said.cause].filter(Boolean).join(": "));
      say(answer.spoken());
      return;
    }
    tell(error);
    if ([429, 503].includes(error.status)) {
      await sleep(Math.min(5, error.wait || AGAIN), signal);
      answer.asked.ask(job);
    }
  }
}

async function show(answer, job, result) {
  quiet();
  answer.show(result);
  if (job.isSettled && page.shown.has(answer.model.name)) {
    const spoken = [...page.answers].filter(([name]) => page.shown.has(name)).map(([, one]) => one.spoken());
    say(spoken.join(" "));
  }
  if (result.seen) await inside.show(answer.model, job.blob, result.seen, job.isSettled);
}

// ---- troubles -----------------------------------------------------------------------------------------------------

function tell(error, text) {
  const box = element("trouble");
  const told = [error.said?.what, error.said?.cause, error.said?.fix].filter(Boolean).join(" · ");
  box.hidden = false;
  box.replaceChildren(text ?? t(error.key), told && error.status ? make("span", { className: "small told", lang: "en", textContent: told }) : "");
  box.dataset.status = error.status;
  if (error.status === 0 && !isGone) {
    isGone = true;
    waitForServer();
  }
}

function quiet() {
  element("trouble").hidden = true;
}

/** Look for a server that is gone until it is back, and ask anew what is on the pad. */
async function waitForServer() {
  while (isGone) {
    await sleep(AGAIN);
    try {
      const { models } = await ask("models");
      isGone = false;
      quiet();
      say(t("e_back"));
      if (JSON.stringify(models) !== JSON.stringify(page.models)) useModels(models);
      else if (inside.model?.explain && !inside.info) inside.open(inside.model);
      askAll(true);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401) {
        isGone = false;
        askToken();
      }
    }
  }
}

function askToken() {
  const dialog = element("ask-token");
  if (dialog.open) return;
  element("token-wrong").textContent = hasToken() ? t("tokenWrong") : "";
  element("token").value = "";
  quiet();
  dialog.showModal();
}

element("ask-token").addEventListener("close", async () => {
  const token = element("token").value.trim();
  if (!token) return askToken();
  keepToken(token);
  await loadModels();
  if (!pad.isEmpty) askAll(true);
});

// ---- the pad and its tools ----------------------------------------------------------------------------------------

pad.addEventListener("drawn", ({ detail: { isSettled } }) => {
  element("invitation").hidden = !pad.isEmpty;
  element("undo").disabled = element("clear").disabled = pad.isEmpty;
  element("picture-name").textContent = pad.picture?.name ?? "";
  labelPad();
  if (isSettled) {
    askAll(true);
    if (pad.isEmpty) say(t("cleared"));
    return;
  }
  // While one draws, at most one question every few hundredths of a second; the last one always.
  if (!timer) timer = setTimeout(() => { timer = 0; askAll(false); }, DEBOUNCE);
});
pad.addEventListener("pen", ({ detail }) => say(t(detail ? "penDown" : "penUp")));

element("undo").addEventListener("click", () => pad.undo());
element("clear").addEventListener("click", () => pad.clear());
element("thickness").addEventListener("input", setThickness);
element("choose").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", ({ target }) => {
  take(target.files);
  target.value = "";
});

function setThickness() {
  const share = Number(element("thickness").value) / 100;
  pad.width = share;
  element("dot").style.width = element("dot").style.height = `${4 + share * 110}px`;
}

function take(files) {
  const file = [...files].find((one) => one.type.startsWith("image/") || one.type === "");
  if (file) pad.show(file, file.name);
  else if (files.length) tell(new Refused(415), t("noPicture"));
}

addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").hidden = true;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").hidden = true;
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  else tell(new Refused(415), t("noPicture"));
});
addEventListener("paste", (event) => {
  if (event.target.matches?.("input[type=password], input[type=number]")) return;
  if (event.clipboardData?.files.length) take(event.clipboardData.files);
});
addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.target.matches("input, #pad")) {
    event.preventDefault();
    pad.undo();
  }
});

function buildInks() {
  const buttons = INKS.map((ink, at) => {
    const button = make("button", { type: "button", role: "radio", "aria-checked": String(at === 0), "aria-label": `${at + 1}` });
    button.style.backgroundColor = ink;
    button.addEventListener("click", () => {
      pad.ink = at ? ink : "";
      for (const other of element("inks").children) other.setAttribute("aria-checked", String(other === button));
    });
    return button;
  });
  element("inks").replaceChildren(...buttons);
  roving(element("inks"), "button");
}

// ---- language, theme, labels --------------------------------------------------------------------------------------

function labelPad() {
  const what = pad.picture ? t("padPicture", { name: pad.picture.name }) : pad.isEmpty ? t("padEmpty") : t("padDrawn", { n: count(pad.strokes.length) });
  element("pad").setAttribute("aria-label", t("padLabel", { what }));
}

function labelControls() {
  const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  element("theme").textContent = t(`theme_${other}`);
  element("theme").setAttribute("aria-label", t("themeLabel", { to: t(`to_${other}`) }));
  element("language").textContent = t("language");
  element("language").setAttribute("aria-label", t("languageLabel"));
  element("language").lang = language() === "en" ? "zh" : "en";
  const options = SURE.map((share) => make("option", { value: String(share), selected: String(share) === wanted, textContent: share ? t("sure_n", { p: `${Math.round(share * 100)} %` }) : t("sure_0") }));
  element("sure").replaceChildren(...options);
  labelPad();
}

element("sure").addEventListener("change", ({ target }) => {
  wanted = target.value;
  keep("striate-sure", wanted);
  if (!pad.isEmpty) askAll(true);
});
element("language").addEventListener("click", () => setLanguage(language() === "en" ? "zh" : "en"));
element("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  keep("striate-theme", theme);
  dispatchEvent(new Event("theme"));
});
addEventListener("language", () => {
  setUp();
  for (const answer of page.answers.values()) answer.again();
  inside.again();
});
addEventListener("theme", () => {
  labelControls();
  pad.paint();
  inside.again();
});

inside.dispatchOpened = () => { if (!pad.isEmpty) askAll(true); };
translate();
buildInks();
setThickness();
labelControls();
element("undo").disabled = element("clear").disabled = true;
loadModels();
