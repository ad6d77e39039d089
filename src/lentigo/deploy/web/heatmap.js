// Where the model looked: lentigo.deploy.activation_map in the browser.

import { HEAT_COLORS } from "./facts.js";
import { resizeWeights } from "./preprocess.js";

/**
 * What speaks for a class, `cells` numbers in 0..1 on the feature map's grid, all 0 where nothing does.
 *
 * features: D x cells of the square; turned: the same of the square turned by 180 degrees, which is turned back here,
 * since strided convolutions look half a cell to one side; weights: D, the head's row of the class.
 */
export function activationMap(features, turned, weights) {
  const cells = features.length / weights.length;
  const evidence = new Float32Array(cells);
  weights.forEach((weight, channel) => {
    for (let cell = 0; cell < cells; cell += 1) {
      const back = turned[channel * cells + cells - 1 - cell];
      evidence[cell] += (weight * (features[channel * cells + cell] + back)) / 2;
    }
  });
  const highest = evidence.reduce((most, value) => Math.max(most, value), 0);
  return evidence.map((value) => (highest > 0 ? Math.max(value, 0) / highest : 0));
}

/** A finished square (side x side x 3) turned by 180 degrees. */
export function turnSquare(pixels) {
  const turned = new Uint8Array(pixels.length);
  for (let i = 0; i < pixels.length; i += 3) turned.set(pixels.subarray(i, i + 3), pixels.length - 3 - i);
  return turned;
}

/** The heat (height x width) stretched to side x side, bilinear. */
export function stretchHeat(heat, width, height, side) {
  const [columns, rows] = [resizeWeights(width, side, "bilinear"), resizeWeights(height, side, "bilinear")];
  const weighted = ({ start, weights }, read) => weights.reduce((sum, weight, i) => sum + weight * read(start + i), 0);
  const wide = Array.from({ length: height }, (_, y) => columns.map((place) => weighted(place, (x) => heat[y * width + x])));
  return Float32Array.from(rows.flatMap((place) => columns.map((_, x) => weighted(place, (y) => wide[y][x]))));
}

/** RGBA pixels of a stretched heat; its strength is the opacity, so that a place without heat stays as it is. */
export function paintHeat(strengths) {
  const pixels = new Uint8ClampedArray(strengths.length * 4);
  strengths.forEach((strength, i) => {
    const place = strength * (HEAT_COLORS.length - 1);
    const below = Math.min(Math.floor(place), HEAT_COLORS.length - 2);
    const [low, high, share] = [HEAT_COLORS[below], HEAT_COLORS[below + 1], place - below];
    for (let channel = 0; channel < 3; channel += 1) pixels[4 * i + channel] = low[channel] + share * (high[channel] - low[channel]);
    pixels[4 * i + 3] = 255 * strength;
  });
  return pixels;
}
