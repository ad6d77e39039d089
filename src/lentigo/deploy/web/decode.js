// A file -> upright RGB pixels, by the browser's own decoders. Runs in the worker.

const MAX_PIXELS = 100_000_000;
const MAX_SIDE_PX = 16_384; // beyond it some browsers' canvases stay blank without a word
const STRIP_ROWS = 256; // a canvas of the whole picture would be too large for phones

/** A problem with the file, in words for whoever chose it. */
export class ImageProblem extends Error {
  constructor(message, remedy) {
    super(message);
    this.remedy = remedy;
  }
}

/** {data: RGB, width, height, channels: 3}; EXIF turns and colour profiles applied, transparency over white. */
export async function decodeImage(file) {
  if (file.size === 0) throw new ImageProblem("The file is empty.", "Copy or download it again.");
  if (await isCut(file)) throw new ImageProblem("The picture is cut off: its end is missing.", "Copy or download the file again.");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", premultiplyAlpha: "none" });
  } catch {
    throw new ImageProblem("This file cannot be read as an image.", "It may be damaged, or of a kind that this browser does not know. Try a JPEG or PNG file.");
  }
  try {
    return readPixels(bitmap);
  } finally {
    bitmap.close();
  }
}

function readPixels(bitmap) {
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS || Math.max(width, height) > MAX_SIDE_PX) {
    throw new ImageProblem(`The picture is too large: ${width} x ${height} pixels.`, "Crop or shrink it first.");
  }
  const rows = Math.min(STRIP_ROWS, height);
  const context = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
  const data = new Uint8Array(width * height * 3);
  for (let top = 0; top < height; top += rows) {
    context.fillStyle = "white";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const count = Math.min(rows, height - top) * width;
    const strip = context.getImageData(0, 0, width, rows).data;
    for (let i = 0, read = 0, write = top * width * 3; i < count; i += 1, read += 4, write += 3) {
      data[write] = strip[read];
      data[write + 1] = strip[read + 1];
      data[write + 2] = strip[read + 2];
    }
  }
  return { data, width, height, channels: 3 };
}

/** Whether a JPEG file ends before its picture does: browsers fill the rest with gray and say nothing. */
async function isCut(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  return bytes[0] === 0xff && bytes[1] === 0xd8 && !hasJpegEnd(bytes);
}

/** Walk the segments to the first scan, so that the end of an embedded thumbnail does not count, then seek the end. */
export function hasJpegEnd(bytes) {
  let place = 2;
  while (place + 3 < bytes.length && bytes[place + 1] !== 0xda) {
    if (bytes[place] !== 0xff) return true; // not our business: the decoder judges
    place += bytes[place + 1] === 0xff ? 1 : 2 + bytes[place + 2] * 256 + bytes[place + 3];
  }
  for (; place + 1 < bytes.length; place += 1) if (bytes[place] === 0xff && bytes[place + 1] === 0xd9) return true;
  return false;
}
