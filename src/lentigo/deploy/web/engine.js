// The two places where images are judged. Both give {prediction, quality, heat()}; heat() is a picture's address or null.

import { CLASSES } from "./facts.js";

const MAX_TRIES = 5;
const RUNTIME = ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"];
/** What a visitor can do where the service's own advice is for programs; one image a request is sent anyway. */
const REMEDIES = {
  408: "Shrink the image, or judge it in this browser instead.",
  413: "Shrink the image, or judge it in this browser instead.",
};

/** Words for the user, as the service and the worker send them. */
class Problem extends Error {
  constructor(message, remedy = "") {
    super(message);
    this.remedy = remedy;
  }
}

/** The model in a worker of this page. */
export class BrowserEngine {
  #worker;
  #waiting = new Map();
  #lastId = 0;

  /** Load the model; with several threads where the page may have them, else with one. */
  async start() {
    const threads = globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
    try {
      this.facts = await this.#open(threads);
    } catch (error) {
      this.#worker.terminate(); // a runtime that has failed to start does not try again in the same worker
      const missing = await missingRuntime();
      if (missing || threads === 1) throw missing ?? error;
      this.facts = await this.#open(1);
    }
    return { ...this.facts, views: 1 };
  }

  async predict(file) {
    const { prediction, quality, square } = await this.#ask("predict", { file });
    const label = CLASSES.findIndex(({ code }) => code === prediction.label);
    return { prediction, quality, heat: async () => pictureAddress(await this.#ask("heat", { square, label })) };
  }

  #open(threads) {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#worker.addEventListener("message", ({ data }) => this.#settle(data));
    this.#worker.addEventListener("error", () => {
      for (const id of [...this.#waiting.keys()]) this.#settle({ id, error: "the model could not be started in this browser" });
    });
    return this.#ask("load", { threads });
  }

  #ask(task, values) {
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, task, ...values });
    });
  }

  #settle({ id, result, error, remedy }) {
    const { resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Problem(error, remedy));
  }
}

/** The service that this page came from. */
export class ServerEngine {
  /** Whether there is one that has a model. */
  static async answers() {
    try {
      const response = await fetch("./api/health");
      return response.ok && Boolean((await response.json()).model);
    } catch {
      return false; // a static page, or offline
    }
  }

  async start() {
    const [facts, spec] = await Promise.all(["./api/model", "./model/model.json"].map(async (address) => (await asked(address)).json()));
    return { spec, variant: facts.variant, views: facts.views };
  }

  async predict(file) {
    const prediction = await this.#send(file, "./api/predict");
    return { prediction, quality: null, heat: async () => (await this.#send(file, "./api/predict?heatmap=1")).heatmap };
  }

  async #send(file, address) {
    const body = new FormData();
    body.append("images", file, file.name);
    const [answer] = await (await asked(address, { method: "POST", body })).json();
    if (answer.error) throw new Problem(answer.error, answer.remedy);
    return answer;
  }
}

/** An answer, asked for again for a while where the service is too busy. */
async function asked(address, options, tries = MAX_TRIES) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Problem("the server does not answer", "Is it still running? Images can be judged in this browser instead.");
  }
  if (response.status === 503 && tries > 1) {
    const seconds = Number(response.headers.get("retry-after")) || 1;
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    return asked(address, options, tries - 1);
  }
  if (response.ok) return response;
  const { error, remedy } = await response.json().catch(() => ({ error: `the server answers with ${response.status}`, remedy: "" }));
  throw new Problem(error, REMEDIES[response.status] ?? remedy);
}

/** The problem of a page that was installed without its runtime, which no browser can help; else null. */
async function missingRuntime() {
  for (const file of RUNTIME) {
    const response = await fetch(`./vendor/${file}`, { method: "HEAD" }).catch(() => null);
    // 401: with a token set, the service keeps to itself what it does not have.
    if ([401, 404].includes(response?.status)) {
      return new Problem(
        `the page was installed without its runtime: there is no vendor/${file}`,
        "Whoever runs it can run `python tools/vendor_web.py` in the checkout, install Lentigo from there again and restart it.",
      );
    }
  }
  return null;
}

async function pictureAddress(heat) {
  if (heat === null) return null;
  const canvas = Object.assign(document.createElement("canvas"), { width: heat.side, height: heat.side });
  canvas.getContext("2d").putImageData(new ImageData(heat.pixels, heat.side, heat.side), 0, 0);
  return canvas.toDataURL("image/png");
}
