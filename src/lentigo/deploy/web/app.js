// The page: images come in, cards go out.

import { Card } from "./card.js";
import { findCalibration } from "./decide.js";
import { BrowserEngine, ServerEngine } from "./engine.js";
import { download, toCsv, toJson } from "./export.js";
import { modelWords, promiseWords, verdictWords } from "./wording.js";

const PROMISES = {
  browser: "The images do not leave this browser.",
  server: "The images go to the server that this page came from, which keeps none.",
};
const ENGINES = { browser: BrowserEngine, server: ServerEngine };

const find = (selector) => document.querySelector(selector);
const started = new Map(); // mode -> promise of {engine, facts}
let mode = "browser";
let cards = [];
let queue = Promise.resolve();

function say(text) {
  find("#status").textContent = text;
}

/** The engine of a mode, started once; a failed start may be tried again. */
function engineOf(name) {
  if (!started.has(name)) {
    const engine = new ENGINES[name]();
    const start = engine.start().then((facts) => ({ engine, facts }));
    start.catch(() => started.delete(name));
    started.set(name, start);
  }
  return started.get(name);
}

/** The engine for a card by the mode it was added in: it is sent only where that was chosen then and still is. */
async function engineFor(chosen) {
  const place = chosen === "server" && mode === "server" ? "server" : "browser";
  const found = await engineOf(place);
  return place === "server" && mode !== "server" ? engineFor(chosen) : found; // it may change while the engine starts
}

async function chooseMode(name) {
  mode = name;
  find("#promise").textContent = PROMISES[name];
  say("Loading the model …");
  try {
    const { facts } = await engineOf(name);
    if (mode !== name) return;
    describeModel(facts);
    if (!cards.some((card) => card.isWaiting)) say("Ready.");
  } catch (error) {
    if (mode === name) say(`The model cannot be used here: ${error.message}${error.remedy ? `. ${error.remedy}` : ""}`);
  }
}

function describeModel({ spec, variant, views }) {
  find("#synthetic").hidden = !spec.synthetic;
  find("#model-line").textContent = modelWords(spec, variant, views);
  find("#model-licence").textContent = spec.licence;
  find("#set-promise").textContent = promiseWords(findCalibration(spec, variant, views));
}

function addFiles(files) {
  const added = Array.from(files, (file) => new Card(file, removeCard));
  if (added.length === 0) return;
  cards.push(...added);
  find("#cards").append(...added.map((card) => card.element));
  updateTools();
  const chosen = mode;
  for (const card of added) queue = queue.then(() => judge(card, chosen));
}

/** Fill one card. One after the other: the order of answers is that of the files, and memory holds one picture. */
async function judge(card, chosen) {
  if (!cards.includes(card)) return;
  const place = `Image ${cards.indexOf(card) + 1} of ${cards.length}`;
  card.setWaiting("Looking …");
  say(`${place}: looking at ${card.file.name} …`);
  try {
    const { engine, facts } = await engineFor(chosen);
    card.facts = facts;
    card.show(await engine.predict(card.file));
    const { verdict, detail } = verdictWords(card.prediction);
    say(`${place}, ${card.file.name}: ${verdict}. ${detail}`);
  } catch (error) {
    card.fail(error.message, error.remedy ?? "");
    say(`${place}, ${card.file.name}: ${error.message}`);
  }
  updateTools();
}

function removeCard(card) {
  cards = cards.filter((one) => one !== card);
  card.close();
  updateTools();
  say(`${card.file.name} was removed.`);
  if (cards.length > 0) find("#results").focus();
  else find("#files").focus();
}

function updateTools() {
  for (const part of ["#results", ".skip"]) find(part).hidden = cards.length === 0;
  const none = finishedCards().length === 0;
  for (const id of ["save-json", "save-csv", "print"]) find(`#${id}`).disabled = none;
}

function finishedCards() {
  return cards.filter((card) => !card.isWaiting);
}

function listenForImages() {
  for (const id of ["files", "camera"]) {
    const input = find(`#${id}`);
    input.addEventListener("change", () => {
      addFiles(input.files);
      input.value = ""; // the same file may be chosen again
    });
  }
  addEventListener("paste", ({ clipboardData }) => addFiles(clipboardData.files));
  const drop = find("#drop");
  let depth = 0; // enter and leave also come from the children
  addEventListener("dragenter", () => drop.classList.toggle("over", ++depth > 0));
  addEventListener("dragleave", () => drop.classList.toggle("over", --depth > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault(); // else the browser leaves the page for the image
    depth = 0;
    drop.classList.remove("over");
    addFiles(event.dataTransfer.files);
  });
}

function listenForTools() {
  find("#save-json").addEventListener("click", () => download(toJson(finishedCards()), "lentigo.json", "application/json"));
  find("#save-csv").addEventListener("click", () => download(toCsv(finishedCards()), "lentigo.csv", "text/csv"));
  find("#print").addEventListener("click", () => print());
  addEventListener("beforeprint", () => {
    find("#print-line").textContent = `${find("#model-line").textContent} Printed ${new Date().toLocaleString()}.`;
  });
  find("#clear").addEventListener("click", () => {
    for (const card of cards) card.close();
    cards = [];
    updateTools();
    say("Ready.");
    find("#files").focus();
  });
}

async function offerServer() {
  if (!(await ServerEngine.answers())) return;
  find(`#mode [value="${mode}"]`).checked = true; // browsers that go back restore what was chosen before
  find("#mode").hidden = false;
  find("#mode").addEventListener("change", ({ target }) => chooseMode(target.value));
}

async function keepOffline() {
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register("./service-worker.js");
  } catch {
    // Without it (private windows, plain http) the page works, but only online.
  }
}

listenForImages();
listenForTools();
updateTools();
offerServer();
chooseMode(mode).then(keepOffline);
