// The live page: asks for the state once a second, draws it, and sends what the buttons say.
"use strict";

const byId = (id) => document.getElementById(id);
const say = (id, text) => { const at = byId(id); if (at.textContent !== text) at.textContent = text; };
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const EVERY = 1000;

let shown = null;
let since = 0;
let ceiling = 0;

// --- numbers ---

function duration(micros) {
  if (micros === null || micros === undefined) return "–";
  if (micros < 1000) return `${micros} µs`;
  const ms = micros / 1000;
  return `${ms < 100 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

function range(micros) {
  return micros < 1000 ? `${micros} µs` : `${micros / 1000} ms`;
}

function show(state) {
  const { cache, database, traffic, latency, seconds } = state;
  const last = seconds.values[seconds.values.length - 1] || { reads: 0, queries: 0 };
  say("hit-rate", !cache.on ? "off" : state.hit_rate === null ? "–" : `${(Math.floor(state.hit_rate * 1000) / 10).toFixed(1)}%`);
  say("queries", String(last.queries));
  say("reads", String(last.reads));
  for (const name of ["cache", "source"]) {
    say(`${name}-median`, duration(latency[name].median));
    say(`${name}-p95`, duration(latency[name].p95));
  }
  const pending = cache.pending ? `, ${cache.pending} invalidation${cache.pending === 1 ? "" : "s"} queued` : "";
  const down = "cache: unreachable, reads answered by the source";
  status(cache.reachable ? (cache.on ? `cache: ${cache.backend}` : "cache: off") + pending : down + pending, cache.reachable);
  say("backend", cache.backend);
  say("database", database.name);
  say("delay", database.delay_ms
    ? `Each query is delayed by ${database.delay_ms} ms to stand for a database across a network.` : "");
  byId("cache").setAttribute("aria-checked", String(cache.on));
  byId("traffic").setAttribute("aria-checked", String(traffic.on));
  recent(state.recent);
  ranges(latency);
}

function status(text, good) {
  say("status", text);
  byId("status").dataset.state = good ? "ok" : "bad";
}

// --- the last reads ---

function recent(reads) {
  const list = byId("recent");
  const newest = reads.length ? String(reads[0].number) : "";
  if (list.dataset.newest === newest) return;
  list.dataset.newest = newest;
  list.replaceChildren(...reads.map((read) => {
    const [item, what, took, why] = ["li", "b", "span", "small"].map((name) => document.createElement(name));
    item.dataset.from = read.from;
    what.textContent = read.what;
    took.textContent = duration(read.micros);
    why.textContent = why.title = read.explained;
    item.append(what, took, why);
    return item;
  }));
}

// --- how long reads take ---

function ranges(latency) {
  const box = byId("ranges");
  if (!box.firstChild) {
    latency.cache.ranges.forEach((_, at) => {
      const column = document.createElement("div");
      const label = document.createElement("span");
      label.textContent = at % 3 === 0 && at < latency.bounds.length ? range(latency.bounds[at]) : "";
      column.append(document.createElement("i"), document.createElement("i"), label);
      box.append(column);
    });
  }
  const share = (all) => { const sum = all.reduce((a, b) => a + b, 0) || 1; return all.map((n) => n / sum); };
  const [cached, source] = [share(latency.cache.ranges), share(latency.source.ranges)];
  const most = Math.max(...cached, ...source, 0.01);
  [...box.children].forEach((column, at) => {
    column.children[0].style.height = `${(cached[at] / most) * 100}%`;
    column.children[1].style.height = `${(source[at] / most) * 100}%`;
  });
  const said = (name) => `${name}: median ${duration(latency[name].median)}, 95% ${duration(latency[name].p95)}`;
  box.setAttribute("aria-label", `Distribution of latencies. ${said("cache")}; ${said("source")}.`);
}

// --- the picture ---

function draw(now) {
  const canvas = byId("pulse");
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name);
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  // Until there is something to draw, it is as high as it will be.
  if (!shown) ceiling = 0;
  const { kept, values } = shown ? shown.seconds : { kept: 60, values: [] };
  const [left, right, bottom, head] = [38, 2, 20, 10];
  const most = Math.max(10, ...values.map((second) => Math.max(second.reads, second.queries))) * 1.1;
  ceiling = calm.matches || !ceiling || !values.length ? most : ceiling + (most - ceiling) * 0.12;
  const step = (width - left - right) / (kept - 2);
  // Between two answers the picture moves on, so that it runs and does not jump.
  const moved = calm.matches ? 1 : Math.min(1, (now - since) / EVERY);
  const x = (at) => width - right - (values.length - 2 - at + moved) * step;
  const y = (n) => head + (height - head - bottom) * (1 - Math.min(1, n / ceiling));

  pen.font = "11px system-ui, sans-serif";
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  const unit = tick(ceiling);
  for (let n = 0; n <= ceiling; n += unit) {
    pen.strokeStyle = colour("--line");
    pen.beginPath();
    pen.moveTo(left, Math.round(y(n)) + 0.5);
    pen.lineTo(width - right, Math.round(y(n)) + 0.5);
    pen.stroke();
    pen.fillStyle = colour("--soft");
    pen.textAlign = "right";
    pen.fillText(String(n), left - 8, y(n));
  }
  pen.textAlign = "left";
  pen.fillText("60 s ago", left, height - 7);
  pen.textAlign = "right";
  pen.fillText("now", width - right, height - 7);
  if (values.length < 2) return;

  pen.save();
  pen.beginPath();
  pen.rect(left, 0, width - left - right, height - bottom + 1);
  pen.clip();
  // One area for each time that it was off.
  const off = [];
  values.forEach((second, at) => {
    if (second.cache_on) return;
    if (at && !values[at - 1].cache_on) off[off.length - 1].to = at;
    else off.push({ from: at - 1, to: at });
  });
  pen.fillStyle = colour("--off");
  for (const { from, to } of off) pen.fillRect(x(from), head, x(to) - x(from), height - head - bottom);
  const along = (field) => {
    pen.beginPath();
    values.forEach((second, at) => { at ? pen.lineTo(x(at), y(second[field])) : pen.moveTo(x(0), y(second[field])); });
  };
  const close = () => { pen.lineTo(x(values.length - 1), y(0)); pen.lineTo(x(0), y(0)); pen.closePath(); };
  along("reads");
  close();
  pen.globalAlpha = 0.55;
  pen.fillStyle = colour("--fill");
  pen.fill();
  pen.globalAlpha = 0.14;
  along("queries");
  close();
  pen.fillStyle = colour("--accent");
  pen.fill();
  pen.globalAlpha = 1;
  along("queries");
  pen.strokeStyle = colour("--accent");
  pen.lineWidth = 2;
  pen.lineJoin = "round";
  pen.stroke();
  pen.fillStyle = colour("--soft");
  pen.textAlign = "center";
  for (const { from, to } of off) {
    const [begin, end] = [Math.max(left, x(from)), Math.min(width - right, x(to))];
    if (end - begin > 64) pen.fillText("cache off", (begin + end) / 2, head + 8);
  }
  pen.restore();
}

function tick(most) {
  let unit = 1;
  while (most / unit > 4) unit *= [2, 2.5, 2][Math.round(Math.log10(unit) * 3) % 3];
  return unit;
}

function frame(now) {
  draw(now);
  if (!calm.matches) requestAnimationFrame(frame);
}

// --- asking and telling ---

async function ask() {
  try {
    const answer = await fetch("/live/state", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const state = await answer.json();
    if (!shown || state.seconds.latest !== shown.seconds.latest) since = performance.now();
    shown = state;
    show(state);
    if (calm.matches) draw(since);
    const last = state.seconds.values.at(-1);
    if (last) byId("pulse").setAttribute("aria-label", `${last.reads} reads and ${last.queries} source queries in the last second`);
  } catch {
    status("application: unreachable", false);
  }
}

async function tell(button, path, body) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    const told = await answer.json();
    say("done", answer.ok ? told.done : `${told.error.message}.`);
  } catch {
    say("done", "The application did not answer.");
  }
  button.removeAttribute("aria-busy");
  await ask();
}

for (const button of document.querySelectorAll("[data-action]")) {
  const name = button.dataset.action;
  button.addEventListener("click", () => tell(button, `/live/${name}`, name === "flood" ? { readers: 500 } : {}));
}
for (const name of ["cache", "traffic"]) {
  const button = byId(name);
  button.addEventListener("click", () => tell(button, `/live/${name}`, { on: button.getAttribute("aria-checked") !== "true" }));
}
dark.addEventListener("change", () => draw(performance.now()));
addEventListener("resize", () => draw(performance.now()));
calm.addEventListener("change", () => requestAnimationFrame(frame));
ask();
setInterval(ask, EVERY);
requestAnimationFrame(frame);
