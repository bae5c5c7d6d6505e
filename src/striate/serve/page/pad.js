// The drawing pad: mouse, finger, pen or keyboard; strokes in shares of the side, so that they fit every size.

const SENT = 392; // pixels of the side that the server gets
const LARGEST = 1600; // of an uploaded picture that was drawn on
const STEP = 0.03;

export class Pad extends EventTarget {
  constructor(canvas, cross) {
    super();
    this.canvas = canvas;
    this.cross = cross;
    this.strokes = [];
    this.width = 0.07;
    this.ink = "";
    this.picture = null; // {blob, name, image}
    this.active = null; // the stroke that is being drawn
    this.at = [0.5, 0.5];
    this.isPenDown = false;
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#end(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => this.#showCross());
    canvas.addEventListener("blur", () => { this.lift(); this.cross.hidden = true; });
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  get isEmpty() { return !this.strokes.length && !this.picture; }

  undo() {
    this.lift();
    if (this.strokes.length) this.strokes.pop();
    else this.picture = null;
    this.#changed(true);
  }

  clear() {
    this.lift();
    this.strokes = [];
    this.picture = null;
    this.#changed(true);
  }

  /** Show a picture; it is sent as it came until something is drawn on it. */
  async show(blob, name) {
    this.lift();
    const image = await createImageBitmap(blob).catch(() => null); // what the browser cannot show the server may read
    this.strokes = [];
    this.picture = { blob, name, image };
    this.#changed(true);
  }

  /** The picture to ask about: a PNG of the strokes, or the file that was given. */
  blob() {
    if (this.picture && !this.strokes.length) return Promise.resolve(this.picture.blob);
    const image = this.picture?.image;
    const scale = image ? Math.min(1, LARGEST / Math.max(image.width, image.height)) : 1;
    const [width, height] = image ? [Math.round(image.width * scale), Math.round(image.height * scale)] : [SENT, SENT];
    const sheet = document.createElement("canvas");
    [sheet.width, sheet.height] = [width, height];
    const pen = sheet.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    if (image) pen.drawImage(image, 0, 0, width, height);
    // A picture stands in the middle of the square pad: strokes are moved by what is free beside it.
    const side = Math.max(width, height);
    pen.translate((width - side) / 2, (height - side) / 2);
    for (const stroke of this.strokes) trace(pen, stroke, side, stroke.ink || "#000");
    return new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
  }

  paint() {
    const side = Math.max(1, Math.round(this.canvas.clientWidth * devicePixelRatio));
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, side, side);
    const image = this.picture?.image;
    if (image) {
      const scale = side / Math.max(image.width, image.height);
      pen.imageSmoothingEnabled = scale < 4;
      pen.drawImage(image, (side - image.width * scale) / 2, (side - image.height * scale) / 2, image.width * scale, image.height * scale);
    }
    if (this.picture && !image) this.#paintName(pen, side);
    const ink = image ? "#000" : getComputedStyle(this.canvas).color;
    for (const stroke of this.strokes) trace(pen, stroke, side, stroke.ink || ink);
  }

  /** A file that the browser cannot show, but the server perhaps can, is there by its name. */
  #paintName(pen, side) {
    pen.fillStyle = getComputedStyle(this.canvas).color;
    pen.font = `${side / 20}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.fillText([...this.picture.name].slice(0, 28).join(""), side / 2, side / 2, side * 0.9);
  }

  lift() {
    this.active = null;
    this.isPenDown = false;
    this.cross.classList.remove("down");
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #begin(point) {
    if (this.picture && !this.picture.image) this.picture = null; // nobody draws on what cannot be seen
    this.active = { points: [point], width: this.width, ink: this.ink };
    this.strokes.push(this.active);
  }

  #start(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.cross.hidden = true;
    this.lift();
    this.#begin(this.#place(event));
    this.#changed(false);
  }

  #move(event) {
    if (!this.active || this.isPenDown || !event.isPrimary) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length ? all : [event]) this.active.points.push(this.#place(one));
    this.#changed(false);
  }

  #end(event) {
    if (!this.active || this.isPenDown || !event.isPrimary) return;
    this.active = null;
    this.#changed(true);
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in moves) {
      const step = event.shiftKey ? STEP / 3 : STEP;
      this.at = this.at.map((value, axis) => Math.min(0.98, Math.max(0.02, value + step * moves[event.key][axis])));
      if (this.isPenDown) {
        this.active.points.push([...this.at]);
        this.#changed(false);
      }
    } else if (event.key === " " && !event.repeat) {
      const wasDown = this.isPenDown;
      this.lift();
      if (!wasDown) {
        this.#begin([...this.at]);
        this.isPenDown = true;
        this.cross.classList.add("down");
      }
      this.dispatchEvent(new CustomEvent("pen", { detail: this.isPenDown }));
      this.#changed(wasDown);
    } else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
      this.undo();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else {
      return;
    }
    event.preventDefault();
    this.#showCross();
  }

  #showCross() {
    if (!this.canvas.matches(":focus-visible")) return;
    this.cross.hidden = false;
    this.cross.style.left = `${this.at[0] * 100}%`;
    this.cross.style.top = `${this.at[1] * 100}%`;
  }

  #changed(isSettled) {
    this.paint();
    this.dispatchEvent(new CustomEvent("drawn", { detail: { isSettled } }));
  }
}

/** Draw one stroke, its corners rounded: each point is the handle of a curve between the middles beside it. */
function trace(pen, { points, width }, side, ink) {
  pen.strokeStyle = pen.fillStyle = ink;
  pen.lineWidth = width * side;
  pen.lineCap = pen.lineJoin = "round";
  const [first, ...rest] = points.map(([x, y]) => [x * side, y * side]);
  pen.beginPath();
  pen.moveTo(...first);
  if (!rest.length) pen.lineTo(first[0] + 0.01, first[1]);
  let before = first;
  for (const point of rest) {
    pen.quadraticCurveTo(...before, (before[0] + point[0]) / 2, (before[1] + point[1]) / 2);
    before = point;
  }
  pen.lineTo(...before);
  pen.stroke();
}
