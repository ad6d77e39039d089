// Is a photograph fit to be judged? The checks of lentigo.data.quality, with the same values; limits in facts.js.

import { QUALITY_LIMITS } from "./facts.js";
import { resizeImage } from "./preprocess.js";

const SIDE = 128;
const CELLS = 16;
const DISC_RADIUS = 0.45;
const LUMA_SCALE = 1000;
const DARK_LEVEL = 16;
const BRIGHT_LEVEL = 250;
const REBLUR_PX = 5;
const OFFSET = 8;
const LOW_SHARE = 0.05;
const GRAY_TOLERANCE = 3;

/** Name -> value of every check, null where it cannot be known; `image` is RGB of any size. */
export function measureQuality(image) {
  const { data } = resizeImage(image, SIDE, SIDE, "bilinear");
  const count = SIDE * SIDE;
  const luma = new Float64Array(count);
  let colored = false;
  for (let i = 0, j = 0; i < count; i += 1, j += 3) {
    const [red, green, blue] = [data[j], data[j + 1], data[j + 2]];
    luma[i] = 299 * red + 587 * green + 114 * blue;
    colored ||= Math.max(red, green, blue) - Math.min(red, green, blue) > GRAY_TOLERANCE;
  }
  const inside = placesInDisc(SIDE);
  const ratio = (upper, lower) => inside.map((i) => Math.fround((data[3 * i + upper] + OFFSET) / (data[3 * i + lower] + OFFSET)));
  const share = (test) => inside.filter((i) => test(luma[i])).length / inside.length;
  return {
    size_px: Math.min(image.width, image.height),
    blur: Math.max(blurAlong(luma, SIDE, 1), blurAlong(luma, 1, SIDE)),
    brightness: mean(inside.map((i) => luma[i])) / LUMA_SCALE,
    dark_share: share((value) => value <= DARK_LEVEL * LUMA_SCALE),
    bright_share: share((value) => value >= BRIGHT_LEVEL * LUMA_SCALE),
    contrast: relativeContrast(data),
    redness: colored ? lowQuantile(ratio(0, 1)) : null,
    green_to_blue: colored ? Math.exp(mean(ratio(1, 2).map(Math.log))) : null,
    texture: (meanStep(luma, SIDE, 1) + meanStep(luma, 1, SIDE)) / LUMA_SCALE,
  };
}

/** Names of the checks whose value lies outside its limits, in their fixed order. */
export function qualityFlags(values) {
  return Object.keys(QUALITY_LIMITS).filter((name) => qualityText(name, values[name]) !== "");
}

/** What is wrong, in plain words, or nothing; a check without a value is not flagged. */
export function qualityText(name, value) {
  const { low, high, too_low: tooLow, too_high: tooHigh } = QUALITY_LIMITS[name];
  if (value === null) return "";
  if (low !== null && value < low) return tooLow;
  return high !== null && value > high ? tooHigh : "";
}

/** How little of the differences along one direction another blur takes away; `along` and `across` are strides. */
function blurAlong(luma, along, across) {
  const margin = (REBLUR_PX - 1) / 2;
  let [total, lost] = [0, 0];
  for (let line = 0; line < SIDE; line += 1) {
    for (let place = 0; place < SIDE - REBLUR_PX; place += 1) {
      const at = (offset) => luma[line * across + (place + offset) * along];
      const sharp = REBLUR_PX * Math.abs(at(margin + 1) - at(margin));
      total += sharp;
      lost += Math.max(0, sharp - Math.abs(at(REBLUR_PX) - at(0)));
    }
  }
  return total > 0 ? 1 - lost / total : 1;
}

function meanStep(luma, along, across) {
  let total = 0;
  for (let line = 0; line < SIDE; line += 1) {
    for (let place = 0; place < SIDE - 1; place += 1) {
      const at = line * across + place * along;
      total += Math.abs(luma[at + along] - luma[at]);
    }
  }
  return total / (SIDE * (SIDE - 1));
}

function relativeContrast(data) {
  const cell = SIDE / CELLS;
  const sums = new Float64Array(CELLS * CELLS * 3);
  for (let y = 0; y < SIDE; y += 1) {
    for (let x = 0; x < SIDE; x += 1) {
      const write = 3 * (Math.floor(y / cell) * CELLS + Math.floor(x / cell));
      for (let channel = 0; channel < 3; channel += 1) sums[write + channel] += data[3 * (y * SIDE + x) + channel];
    }
  }
  const colors = placesInDisc(CELLS).map((i) => [0, 1, 2].map((channel) => sums[3 * i + channel] / cell ** 2));
  const center = [0, 1, 2].map((channel) => mean(colors.map((color) => color[channel])));
  const squares = colors.map((color) => color.reduce((total, value, channel) => total + (value - center[channel]) ** 2, 0));
  return Math.sqrt(mean(squares)) / Math.max(mean(center), 1);
}

function lowQuantile(ratios) {
  const sorted = Float64Array.from(ratios).sort();
  const place = LOW_SHARE * (sorted.length - 1);
  const below = Math.floor(place);
  return sorted[below] * (sorted[below + 1] / sorted[below]) ** (place - below);
}

function mean(values) {
  return values.reduce((total, value) => total + value, 0) / values.length;
}

function placesInDisc(side) {
  const offset = (place) => (place + 0.5) / side - 0.5;
  return Array.from({ length: side * side }, (_, i) => i).filter(
    (i) => Math.hypot(offset(Math.floor(i / side)), offset(i % side)) <= DISC_RADIUS,
  );
}
