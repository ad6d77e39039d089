// A file -> upright RGB pixels, by the browser's own decoders. Runs in the worker; the page uses it for what it shows.

const MAX_PIXELS = 100_000_000;
const MAX_SIDE_PX = 16_384; // beyond it some browsers' canvases stay blank without a word
const STRIP_ROWS = 256; // a canvas of the whole picture would be too large for phones
const PNG_COLOURS = ["gAMA", "cHRM", "cICP"];
const WEBP_HEAD_BYTES = 21;
const WEBP_HAS_EXIF = 0x08;
const ORIENTATION = 0x0112;
const SHORT = 3;

/** A problem with the file, in words for whoever chose it. */
class ImageProblem extends Error {
  constructor(message, remedy) {
    super(message);
    this.remedy = remedy;
  }
}

/** {data: RGB, width, height, channels: 3}; EXIF turns and colour profiles applied, transparency over white. */
export async function decodeImage(file) {
  if (file.size === 0) throw new ImageProblem("The file is empty.", "Copy or download it again.");
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (isCut(bytes)) throw new ImageProblem("The picture is cut off: its end is missing.", "Copy or download the file again.");
  const turn = takeWebpTurn(bytes);
  const picture = new Blob([withoutPngColours(bytes)], { type: file.type });
  let bitmap;
  try {
    bitmap = await createImageBitmap(picture, { imageOrientation: "from-image", premultiplyAlpha: "none" });
  } catch {
    throw new ImageProblem("This file cannot be read as an image.", "It may be damaged, or of a kind that this browser does not know. Try a JPEG or PNG file.");
  }
  try {
    return readPixels(bitmap, turn);
  } finally {
    bitmap.close();
  }
}

/** The file as the page shows it: itself, or a PNG of a WebP file that browsers would not turn. */
export async function uprightFile(file) {
  const head = new Uint8Array(await file.slice(0, WEBP_HEAD_BYTES).arrayBuffer());
  if (!hasWebpExif(head) || takeWebpTurn(new Uint8Array(await file.arrayBuffer())) === 1) return file;
  const { data, width, height } = await decodeImage(file);
  const pixels = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let read = 0, write = 0; read < data.length; read += 3, write += 4) {
    for (let channel = 0; channel < 3; channel += 1) pixels[write + channel] = data[read + channel];
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  return canvas.convertToBlob();
}

function readPixels(bitmap, turn) {
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS || Math.max(width, height) > MAX_SIDE_PX) {
    throw new ImageProblem(`The picture is too large: ${width} x ${height} pixels.`, "Crop or shrink it first.");
  }
  const rows = Math.min(STRIP_ROWS, height);
  const context = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
  const data = new Uint8Array(width * height * 3);
  const { start, column, row } = turnedPlaces(width, height, turn);
  for (let top = 0; top < height; top += rows) {
    context.fillStyle = "white";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const strip = context.getImageData(0, 0, width, rows).data;
    for (let y = top, read = 0; y < Math.min(top + rows, height); y += 1) {
      for (let x = 0, write = 3 * (start + y * row); x < width; x += 1, read += 4, write += 3 * column) {
        data[write] = strip[read];
        data[write + 1] = strip[read + 1];
        data[write + 2] = strip[read + 2];
      }
    }
  }
  return turn < 5 ? { data, width, height, channels: 3 } : { data, width: height, height: width, channels: 3 };
}

/** Where the first pixel goes when an EXIF orientation is followed, and how far on the next column and row go. */
function turnedPlaces(width, height, turn) {
  let [start, column, row] = turn < 5 ? [0, 1, width] : [0, height, 1];
  if ([2, 3, 7, 8].includes(turn)) [start, column] = [start + (width - 1) * column, -column];
  if ([3, 4, 6, 7].includes(turn)) [start, row] = [start + (height - 1) * row, -row];
  return { start, column, row };
}

/** Whether a JPEG file ends before its picture does: browsers fill the rest with gray and say nothing. */
function isCut(bytes) {
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

/** PNG bytes, in place, without the chunks that browsers take colours from and Python does not; others as they are. */
export function withoutPngColours(bytes) {
  const signature = 8;
  if (textAt(bytes, 0, signature) !== "\x89PNG\r\n\x1a\n") return bytes;
  const view = new DataView(bytes.buffer);
  let write = signature;
  for (let place = signature, end; place + 8 <= bytes.length; place = end) {
    end = Math.min(place + 12 + view.getUint32(place), bytes.length); // length, kind, content, checksum
    if (PNG_COLOURS.includes(textAt(bytes, place + 4))) continue;
    bytes.copyWithin(write, place, end);
    write += end - place;
  }
  return bytes.subarray(0, write);
}

/** EXIF orientation 1..8 of a WebP file; set to 1 in the bytes, so that a browser that knows it does not turn as well. */
export function takeWebpTurn(bytes) {
  try {
    return takeTurn(webpExif(bytes));
  } catch (error) {
    if (error instanceof RangeError) return 1; // broken EXIF: as in Python the pixels are still good
    throw error;
  }
}

function hasWebpExif(bytes) {
  return textAt(bytes, 0) === "RIFF" && textAt(bytes, 8, 8) === "WEBPVP8X" && (bytes[20] & WEBP_HAS_EXIF) !== 0;
}

/** Content of a WebP file's EXIF chunk, empty where there is none. */
function webpExif(bytes) {
  const view = new DataView(bytes.buffer);
  let place = hasWebpExif(bytes) ? 12 : bytes.length;
  while (place + 8 <= bytes.length) {
    const length = view.getUint32(place + 4, true);
    if (textAt(bytes, place) === "EXIF") return bytes.subarray(place + 8, place + 8 + length);
    place += 8 + length + (length % 2);
  }
  return new Uint8Array(0);
}

/** Of the first directory, as a number of 16 bits (EXIF 2.32, 4.6.4); throws RangeError where the content is cut. */
function takeTurn(exif) {
  const prefix = [12, 6].find((length) => textAt(exif, 0, length) === "Exif\0\0".repeat(length / 6)) ?? 0; // as in JPEG
  const tiff = new DataView(exif.buffer, exif.byteOffset + prefix, exif.length - prefix);
  const little = textAt(exif, prefix, 2) === "II";
  if (!little && textAt(exif, prefix, 2) !== "MM") return 1;
  const directory = tiff.getUint32(4, little);
  const count = tiff.getUint16(directory, little);
  for (let i = 0; i < count; i += 1) {
    const entry = directory + 2 + 12 * i;
    if (tiff.getUint16(entry, little) !== ORIENTATION) continue;
    const turn = tiff.getUint16(entry + 8, little);
    if (tiff.getUint16(entry + 2, little) !== SHORT || turn < 1 || turn > 8) return 1;
    tiff.setUint16(entry + 8, 1, little);
    return turn;
  }
  return 1;
}

function textAt(bytes, place, length = 4) {
  return String.fromCharCode(...bytes.subarray(place, place + length));
}
