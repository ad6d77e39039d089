// One image's card: it fills the template of index.html.

import { CLASSES } from "./facts.js";
import { findCalibration } from "./decide.js";
import { uprightFile } from "./decode.js";
import { shownPart } from "./preprocess.js";
import { abstainWords, className, malignantPoints, percent, pointRows, qualityWords, riskWords, setWords, verdictWords } from "./wording.js";

let lastNumber = 0;

/** A card that waits for its answer. */
export class Card {
  constructor(file, onRemove) {
    lastNumber += 1;
    this.file = file;
    this.prediction = null;
    this.problem = null;
    this.facts = null;
    this.element = document.querySelector("#card").content.cloneNode(true).firstElementChild;
    const name = this.find(".name");
    name.textContent = file.name;
    name.id = `card-${lastNumber}`;
    this.element.setAttribute("aria-labelledby", name.id);
    this.find(".remove").setAttribute("aria-label", `Remove ${file.name}`);
    this.find(".remove").addEventListener("click", () => onRemove(this));
    this.isShown = this.#showPhoto();
  }

  /** Whether neither an answer nor a refusal is there. */
  get isWaiting() {
    return !this.find(".waiting").hidden;
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /** Give the picture's memory back. */
  close() {
    this.element.remove();
    this.isShown.then(() => URL.revokeObjectURL(this.address)); // it may still be on its way
  }

  /** Whether the browser can show the file. */
  async #showPhoto() {
    const photo = this.find(".photo");
    photo.alt = `The image ${this.file.name}`;
    this.address = URL.createObjectURL(await uprightFile(this.file).catch(() => this.file));
    const shown = await new Promise((resolve) => {
      photo.addEventListener("load", () => resolve(true));
      photo.addEventListener("error", () => resolve(false));
      photo.src = this.address;
    });
    this.find(".frame").hidden = !shown;
    this.find(".no-photo").hidden = shown;
    return shown;
  }

  setWaiting(text) {
    this.find(".waiting").textContent = text;
  }

  /** Show why there is no prediction. */
  fail(message, remedy) {
    this.problem = { name: this.file.name, error: message, remedy };
    this.find(".waiting").hidden = true;
    const failed = this.find(".failed");
    failed.hidden = false;
    failed.querySelector(".callout-title").textContent = message;
    failed.querySelector(".remedy").textContent = remedy;
  }

  /** Show the answer of an engine, whose start gave `facts`. */
  show({ prediction, quality, heat }) {
    const { spec, variant, views } = this.facts;
    this.prediction = prediction;
    const calibration = findCalibration(spec, variant, views);
    this.find(".waiting").hidden = true;
    this.find(".judged").hidden = false;
    this.element.classList.toggle("unsure", prediction.abstain === true);
    for (const [part, text] of Object.entries(verdictWords(prediction))) this.find(`.${part}`).textContent = text;
    this.find(".set").textContent = setWords(prediction, calibration);
    this.#list(".abstain", abstainWords(prediction, calibration));
    this.#list(".quality", qualityWords(prediction.quality_flags, quality));
    this.#showRisk(prediction, calibration);
    this.find(".bars").replaceChildren(...barsOf(prediction));
    if (spec.head_weight.length) this.#offerHeat(heat, spec.preprocess);
    this.find(".no-heat").hidden = spec.head_weight.length > 0;
  }

  #list(selector, texts) {
    const callout = this.find(selector);
    callout.hidden = texts.length === 0;
    callout.querySelector("ul").replaceChildren(...texts.map((text) => element("li", "", text)));
  }

  #showRisk(prediction, calibration) {
    this.find(".risk-value").textContent = percent(prediction.malignant_risk);
    this.find(".fill").style.width = `${100 * prediction.malignant_risk}%`;
    for (const { threshold } of malignantPoints(calibration)) {
      const line = element("b", "line");
      line.style.left = `${100 * threshold}%`;
      this.find(".gauge").append(line);
    }
    this.find(".risk-text").textContent = riskWords(prediction, calibration);
    const rows = pointRows(prediction, calibration);
    this.find(".points").hidden = rows.length === 0;
    this.find(".points tbody").replaceChildren(
      ...rows.map((cells) => {
        const row = element("tr");
        row.append(...cells.map((text) => element("td", "", text)));
        return row;
      }),
    );
  }

  /** The map is made when the slider is first moved. */
  async #offerHeat(heat, preprocess) {
    if (!(await this.isShown)) {
      this.find(".no-place").hidden = false;
      return;
    }
    const [slider, layer, photo, note] = [this.find(".slider"), this.find(".heat"), this.find(".photo"), this.find(".slider-note")];
    const range = slider.querySelector("input");
    let address;
    slider.hidden = false;
    range.addEventListener("input", async () => {
      address ??= heat().catch(() => null);
      const found = await address;
      if (found === null) {
        note.hidden = false;
        note.textContent = "The map could not be made.";
        return;
      }
      if (layer.hidden) {
        placeLayer(layer, shownPart(photo.naturalWidth, photo.naturalHeight, preprocess));
        layer.src = found;
        layer.hidden = false;
      }
      layer.style.opacity = String(range.value / 100);
      range.setAttribute("aria-valuetext", `${range.value}% heat map`);
    });
  }
}

function placeLayer(layer, part) {
  for (const [side, share] of Object.entries(part)) layer.style[side] = `${100 * share}%`;
}

function barsOf({ probs, conformal_set: set, label }) {
  const sorted = [...CLASSES].sort((a, b) => probs[b.code] - probs[a.code]);
  return sorted.map(({ code, malignant }) => {
    const row = element("li", "bar");
    row.classList.toggle("left", set.includes(code) || (set.length === 0 && code === label));
    const name = element("span", "bar-name", className(code));
    if (malignant) name.append(" ", element("em", "tag", "malignant"));
    const track = element("span", "track");
    track.setAttribute("aria-hidden", "true");
    const fill = element("i", "fill");
    fill.style.width = `${100 * probs[code]}%`;
    track.append(fill);
    row.append(name, " ", element("span", "bar-value", percent(probs[code])), track);
    row.dataset.code = code;
    row.dataset.probability = String(probs[code]);
    return row;
  });
}

function element(tag, className_ = "", text = "") {
  return Object.assign(document.createElement(tag), { className: className_, textContent: text });
}
