// The evaluation contract in the browser: lentigo.data.preprocess, equal to it in every bit.
//
// Pillow's resize is the definition. For 8-bit pixels it is two passes, along rows and along columns, each a weighted
// sum over the source pixels under a filter that widens with the reduction; weights are whole numbers of 22 fractional
// bits, and each pass rounds and clips to 0..255.
//
// An image is {data, width, height, channels}: row by row, channels last, 0..255.

const FRACTION_BITS = 22;
const HALF = 1 << (FRACTION_BITS - 1);

const FILTERS = {
  bilinear: { support: 1, weigh: (x) => (Math.abs(x) < 1 ? 1 - Math.abs(x) : 0) },
  bicubic: { support: 2, weigh: weighCubic },
};

/** Keys' cubic with a = -0.5. */
function weighCubic(signed) {
  const a = -0.5;
  const x = Math.abs(signed);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/** For each of `to` places: where its source pixels start among `from`, and their weights, which sum to 1. */
export function resizeWeights(from, to, interpolation) {
  const filter = FILTERS[interpolation];
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  const inverse = 1 / stretch;
  return Array.from({ length: to }, (_, place) => {
    const center = (place + 0.5) * scale;
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), from);
    // Times the inverse, not divided: the last bit decides some weights' rounding, and this is Pillow's.
    const weights = Float64Array.from({ length: end - start }, (_, i) => filter.weigh((i + start - center + 0.5) * inverse));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { start, weights: sum === 0 ? weights : weights.map((weight) => weight / sum) };
  });
}

/** The image at another size, as Pillow's `resize` makes it. */
export function resizeImage(image, width, height, interpolation) {
  const across = (part) => (width === part.width ? part : resizeRows(part, width, interpolation));
  const down = (part) => (height === part.height ? part : resizeColumns(part, height, interpolation));
  return columnsFirst(image, width, height) ? across(down(image)) : down(across(image));
}

/** Since version 13 Pillow takes the passes in the other order where that saves work; the rounding between them tells. */
function columnsFirst(image, width, height) {
  return height < image.height && image.height - height > 2 * (image.width - width);
}

/** A finished square (S x S x 3, Uint8Array) of an RGB image of any size: what the graph takes as `pixels`. */
export function finishedSquare(image, preprocess) {
  const gray = preprocess.color_mode === "gray";
  const [first, ...later] = preprocess.resize_steps_px;
  let square = gray ? toGray(image) : image;
  if (preprocess.resize_rule === "crop") square = shorterSideCrop(square, first, preprocess.interpolation);
  for (const size of [first, ...later]) square = resizeImage(square, size, size, preprocess.interpolation);
  return gray ? stackGray(square) : new Uint8Array(square.data);
}

/** The part of an image that the finished square shows: shares of its width and height. */
export function shownPart(width, height, preprocess) {
  if (preprocess.resize_rule !== "crop") return { left: 0, top: 0, width: 1, height: 1 };
  const side = Math.min(width, height);
  const shares = { width: side / width, height: side / height };
  return { left: (1 - shares.width) / 2, top: (1 - shares.height) / 2, ...shares };
}

/** ITU-R 601 luma in 16-bit fixed point, as Pillow converts RGB to L. */
export function toGray({ data, width, height }) {
  const gray = new Uint8Array(width * height);
  for (let i = 0, j = 0; i < gray.length; i += 1, j += 3) {
    gray[i] = (data[j] * 19595 + data[j + 1] * 38470 + data[j + 2] * 7471 + 0x8000) >> 16;
  }
  return { data: gray, width, height, channels: 1 };
}

function stackGray({ data }) {
  const stacked = new Uint8Array(data.length * 3);
  for (let i = 0; i < data.length; i += 1) stacked.fill(data[i], 3 * i, 3 * i + 3);
  return stacked;
}

function shorterSideCrop(image, size, interpolation) {
  const { width, height } = image;
  const portrait = width <= height;
  const resized = portrait
    ? resizeImage(image, size, Math.trunc((size * height) / width), interpolation)
    : resizeImage(image, Math.trunc((size * width) / height), size, interpolation);
  return crop(resized, halfEven((resized.width - size) / 2), halfEven((resized.height - size) / 2), size);
}

/** Python's `round`: a half goes to the even neighbour. */
function halfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}

function crop({ data, width, channels }, left, top, size) {
  const square = new Uint8Array(size * size * channels);
  for (let y = 0; y < size; y += 1) {
    const start = ((top + y) * width + left) * channels;
    square.set(data.subarray(start, start + size * channels), y * size * channels);
  }
  return { data: square, width: size, height: size, channels };
}

function fixedPoint({ start, weights }) {
  // `| 0` cuts towards 0, so that adding half a unit with the weight's sign rounds to the nearest.
  const whole = Int32Array.from(weights, (weight) => (weight * 2 ** FRACTION_BITS + (weight < 0 ? -0.5 : 0.5)) | 0);
  return { start, weights: whole };
}

function resizeRows({ data, width, height, channels }, to, interpolation) {
  const places = resizeWeights(width, to, interpolation).map(fixedPoint);
  const out = new Uint8ClampedArray(to * height * channels);
  for (let y = 0; y < height; y += 1) {
    const row = y * width * channels;
    let write = y * to * channels;
    for (const { start, weights } of places) {
      for (let channel = 0; channel < channels; channel += 1) {
        let sum = HALF;
        for (let i = 0, read = row + start * channels + channel; i < weights.length; i += 1, read += channels) {
          sum += data[read] * weights[i];
        }
        out[write] = sum >> FRACTION_BITS;
        write += 1;
      }
    }
  }
  return { data: out, width: to, height, channels };
}

function resizeColumns({ data, width, height, channels }, to, interpolation) {
  const rowLength = width * channels;
  const out = new Uint8ClampedArray(rowLength * to);
  const sums = new Int32Array(rowLength);
  resizeWeights(height, to, interpolation).map(fixedPoint).forEach(({ start, weights }, y) => {
    sums.fill(HALF);
    weights.forEach((weight, i) => {
      const read = (start + i) * rowLength;
      for (let x = 0; x < rowLength; x += 1) sums[x] += data[read + x] * weight;
    });
    const write = y * rowLength;
    for (let x = 0; x < rowLength; x += 1) out[write + x] = sums[x] >> FRACTION_BITS;
  });
  return { data: out, width, height: to, channels };
}
