// The list of runs, and a labelling aid for the suspects of hard mining. Text from the server is only ever set as text.

const METRICS = {
  balanced_accuracy: "balanced accuracy",
  accuracy: "accuracy",
  macro_auc: "mean AUC",
  macro_f1: "mean F1",
};
const said = document.querySelector("#said");

const classes = new Map();

/** JSON of a path, or an Error with the server's own words. */
async function ask(path, options) {
  const answer = await fetch(path, options);
  const content = await answer.json();
  if (!answer.ok) throw new Error(`${content.error}. ${content.remedy}`);
  return content;
}

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

const percent = (value) => (value === null ? "undefined" : `${(100 * value).toFixed(1)}%`);

function estimate(found) {
  const cell = element("td");
  if (!found) return cell;
  cell.append(percent(found.value));
  const interval = found.ci_low === null ? "no interval" : `${percent(found.ci_low)} to ${percent(found.ci_high)}`;
  cell.append(element("span", `${interval}, n = ${found.n}`, "sub"));
  return cell;
}

function facts(run) {
  const parts = [];
  if (run.epoch !== null) parts.push(run.epochs === null ? `epoch ${run.epoch}` : `epoch ${run.epoch} of ${run.epochs}`);
  if (run.synthetic) parts.push("drawings: its numbers say nothing about real lesions");
  if (run.message) parts.push(run.message);
  return parts.join(" · ");
}

function showRun(run) {
  const section = document.querySelector("#run").content.firstElementChild.cloneNode(true);
  const heading = section.querySelector("h2");
  heading.append(run.name, " ", element("span", run.state ?? "unknown", "state"));
  const line = section.querySelector(".facts-line");
  line.textContent = facts(run);
  if (run.problems.length) line.append(" ", element("span", run.problems.join("; "), "problem"));
  const splits = Object.entries(run.scores);
  if (splits.length) {
    const head = section.querySelector("thead tr");
    for (const text of ["split", ...Object.values(METRICS)]) {
      const cell = element("th", text);
      cell.scope = "col";
      head.append(cell);
    }
    for (const [split, scores] of splits) {
      const row = element("tr");
      const name = element("th", split);
      name.scope = "row";
      name.append(element("span", `${scores.n_images} images, ${scores.n_lesions} lesions`, "sub"));
      name.title = scores.interval;
      row.append(name, ...Object.keys(METRICS).map((metric) => estimate(scores.metrics[metric])));
      section.querySelector("tbody").append(row);
    }
  } else {
    section.querySelector(".scroll").replaceWith(element("p", "Not judged yet."));
  }
  const actions = section.querySelector(".actions");
  if (run.report) {
    const link = element("a", "Report");
    link.href = `/runs/${encodeURIComponent(run.name)}/report.html`;
    actions.append(link);
  }
  if (run.suspects) actions.append(galleryButton(run, section.querySelector(".gallery")));
  return section;
}

function galleryButton(run, gallery) {
  const button = element("button");
  const count = (reviewed) => {
    button.textContent = `Review ${run.suspects} suspects (${reviewed} reviewed)`;
  };
  count(run.reviewed);
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", async () => {
    const open = button.getAttribute("aria-expanded") === "true";
    gallery.replaceChildren();
    button.setAttribute("aria-expanded", String(!open));
    if (open) return;
    try {
      const suspects = await ask(`/api/runs/${encodeURIComponent(run.name)}/suspects`);
      const list = element("ul", "", "suspects");
      const recount = () => count(list.querySelectorAll(".decided:not(:empty)").length);
      list.append(...suspects.map((suspect) => showSuspect(run.name, suspect, recount)));
      gallery.replaceChildren(list);
    } catch (error) {
      gallery.replaceChildren(element("p", error.message, "problem"));
    }
  });
  return button;
}

const className = (code) => classes.get(code) ?? code.toUpperCase();

function showSuspect(run, suspect, recount) {
  const item = element("li");
  const image = element("img");
  image.loading = "lazy";
  image.alt = `Suspect ${suspect.number + 1}, labelled ${className(suspect.label)}`;
  image.addEventListener("error", () => image.replaceWith(element("p", "The image cannot be read any more.", "missing")));
  image.src = `/api/runs/${encodeURIComponent(run)}/suspects/${suspect.number}.jpg`;
  const agreement = suspect.agreement === null ? "" : `; ${percent(suspect.agreement)} of its neighbours agree with the label`;
  const claim = element("p", `Labelled ${className(suspect.label)}. `);
  claim.append(`Every model says ${className(suspect.answered)}, with at least ${percent(suspect.wrong_confidence)}${agreement}.`);
  const decided = element("p", "", "decided");
  decided.setAttribute("role", "status");
  showDecision(decided, suspect.review);
  const failed = element("p", "", "problem");
  failed.setAttribute("role", "alert");

  const actions = element("div", "", "actions");
  const accept = element("button", "Label is right");
  accept.type = "button";
  const choice = element("select");
  choice.setAttribute("aria-label", `New label of suspect ${suspect.number + 1}`);
  for (const code of classes.keys()) {
    if (code === suspect.label) continue;
    const option = element("option", className(code));
    option.value = code;
    option.selected = code === (suspect.review?.new_label || suspect.answered);
    choice.append(option);
  }
  const relabel = element("button", "Relabel", "primary");
  relabel.type = "button";
  const decide = async (decision, label) => {
    accept.disabled = relabel.disabled = true;
    failed.textContent = "";
    try {
      const review = await ask("/api/suspects", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ run, image_id: suspect.image_id, decision, label }),
      });
      showDecision(decided, review);
      recount();
    } catch (error) {
      failed.textContent = `Not written: ${error.message}`;
    }
    accept.disabled = relabel.disabled = false;
  };
  accept.addEventListener("click", () => decide("accept", ""));
  relabel.addEventListener("click", () => decide("relabel", choice.value));
  actions.append(accept, choice, relabel);
  item.append(image, claim, actions, decided, failed);
  return item;
}

function showDecision(place, review) {
  if (!review) return;
  const what = review.decision === "accept" ? "The label is right" : `Relabelled ${className(review.new_label)}`;
  place.textContent = `${what} (${review.time.slice(0, 10)})`;
}

async function load() {
  try {
    const [found, runs] = await Promise.all([ask("/api/classes"), ask("/api/runs")]);
    for (const one of found) classes.set(one.code, one.name);
    said.textContent = runs.length ? `${runs.length} ${runs.length === 1 ? "run" : "runs"}, the newest first` : "No runs yet: start one with `lentigo train`.";
    document.querySelector("#runs").replaceChildren(...runs.reverse().map(showRun));
  } catch (error) {
    said.textContent = error.message;
  }
}

load();
