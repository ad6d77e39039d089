// Decodes, judges and maps images off the page's thread, one request after the other.

import { decide } from "./decide.js";
import { decodeImage } from "./decode.js";
import { loadModel } from "./model.js";
import { finishedSquare } from "./preprocess.js";
import { measureQuality, qualityFlags } from "./quality.js";

let model;
let queue = Promise.resolve();

const TASKS = {
  async load({ threads }) {
    model = await loadModel(threads);
    return { spec: model.spec, variant: model.variant };
  },

  async predict({ file }) {
    const image = await decodeImage(file);
    const quality = measureQuality(image);
    const square = finishedSquare(image, model.spec.preprocess);
    const prediction = decide({
      name: file.name,
      ...(await model.judge(square)),
      flags: qualityFlags(quality),
      spec: model.spec,
      variant: model.variant,
    });
    return { prediction, quality, square };
  },

  heat: ({ square, label }) => model.heat(square, label),
};

self.addEventListener("message", ({ data: { id, task, ...values } }) => {
  queue = queue.then(async () => {
    try {
      self.postMessage({ id, result: await TASKS[task](values) });
    } catch (error) {
      self.postMessage({ id, error: error.message, remedy: error.remedy ?? "" });
    }
  });
});
