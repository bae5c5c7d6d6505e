// Numbers as colours, pixel by pixel: below zero blue, zero the ground, above zero orange.

const GAMMA = 0.8; // small numbers would be lost on the ground

let palette = null;
addEventListener("theme", () => { palette = null; });

function colours() {
  if (!palette) {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => [1, 3, 5].map((at) => Number.parseInt(style.getPropertyValue(name).trim().slice(at, at + 2), 16));
    palette = { zero: read("--zero"), positive: read("--positive"), negative: read("--negative") };
  }
  return palette;
}

/** The colour [r, g, b] of a value, where ±limit is the full colour. */
export function colourOf(value, limit) {
  const { zero, positive, negative } = colours();
  const share = Math.min(1, Math.abs(value) / (limit || 1)) ** GAMMA;
  const full = value < 0 ? negative : positive;
  return zero.map((start, channel) => Math.round(start + (full[channel] - start) * share));
}

export const css = (colour) => `rgb(${colour.join(" ")})`;

/** Black or white, whichever is read better on a colour. */
export function inkOn([r, g, b]) {
  const light = [r, g, b].map((level) => (level / 255 <= 0.04045 ? level / 255 / 12.92 : ((level / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2] > 0.18 ? "#000" : "#fff";
}

/** Paint values (height × width) into a canvas of just so many pixels. */
export function paint(canvas, values, width, height, limit) {
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(width, height);
  const { zero, positive, negative } = colours();
  for (let at = 0; at < width * height; at += 1) {
    const value = values[at];
    const full = value < 0 ? negative : positive;
    const share = Math.min(1, Math.abs(value) / (limit || 1)) ** GAMMA || 0;
    for (let channel = 0; channel < 3; channel += 1) image.data[at * 4 + channel] = zero[channel] + (full[channel] - zero[channel]) * share;
    image.data[at * 4 + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
}

/** Paint a kernel that reads red, green and blue as a small colour picture; gray is zero. */
export function paintColour(canvas, values, width, height, limit) {
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(width, height);
  const size = width * height;
  for (let at = 0; at < size; at += 1) {
    for (let channel = 0; channel < 3; channel += 1) image.data[at * 4 + channel] = 127.5 + (127.5 * values[channel * size + at]) / (limit || 1);
    image.data[at * 4 + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
}

/** Lay heat 0–1 (height × width) over a picture that the canvas shows already. */
export function heat(canvas, values, width, height, strength) {
  const layer = document.createElement("canvas");
  [layer.width, layer.height] = [width, height];
  const image = layer.getContext("2d").createImageData(width, height);
  const { positive } = colours();
  for (let at = 0; at < width * height; at += 1) {
    image.data.set([...positive, Math.round(255 * strength * values[at])], at * 4);
  }
  layer.getContext("2d").putImageData(image, 0, 0);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = true;
  pen.drawImage(layer, 0, 0, canvas.width, canvas.height);
}

export const farthest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
