// Keeps the page, the runtime and the model for use without a network. Images never pass through here: they are not
// fetched, and requests to the service are left alone.

const CACHE = "lentigo";
const FILES = [
  "./",
  "./app.js",
  "./card.js",
  "./decide.js",
  "./decode.js",
  "./engine.js",
  "./export.js",
  "./facts.js",
  "./heatmap.js",
  "./icon-maskable.svg",
  "./icon.svg",
  "./index.html",
  "./manifest.webmanifest",
  "./model.js",
  "./preprocess.js",
  "./quality.js",
  "./style.css",
  "./vendor/ort-wasm-simd-threaded.wasm",
  "./vendor/ort.wasm.bundle.min.mjs",
  "./wording.js",
  "./worker.js",
  "./model/model.json",
];

self.addEventListener("install", (event) => event.waitUntil(keepAll().then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const address = new URL(event.request.url);
  const scope = new URL(self.registration.scope);
  const ours = address.origin === scope.origin && address.pathname.startsWith(scope.pathname);
  const kept = ours && FILES.some((file) => new URL(file, scope).pathname === address.pathname);
  if (event.request.method === "GET" && (kept || address.searchParams.has("sha256"))) event.respondWith(answer(event));
});

async function keepAll() {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES);
  const { variants } = await (await cache.match("./model/model.json")).json();
  // As chooseVariant in decide.js: browsers that run workers like this one may not know modules in them.
  const { file, sha256 } = variants.fp32 ?? variants.fp16 ?? variants.int8;
  await cache.add(`./model/${encodeURIComponent(file)}?sha256=${sha256}`);
}

/** A file whose address has its digest never changes; of the others the newest is taken where there is a network. */
async function answer(event) {
  const { request } = event;
  const cache = await caches.open(CACHE);
  const fixed = new URL(request.url).searchParams.has("sha256");
  const kept = await cache.match(request);
  if (fixed && kept) return kept;
  let response;
  try {
    response = await fetch(request);
  } catch (error) {
    if (kept) return kept;
    throw error;
  }
  // The page does not wait for it, and a full disk does not stop it.
  if (response.ok) event.waitUntil(keep(cache, request, response.clone(), fixed).catch(() => {}));
  return response;
}

async function keep(cache, request, response, fixed) {
  if (fixed) await cache.delete(request, { ignoreSearch: true }); // the model that this one replaces
  await cache.put(request, response);
}
