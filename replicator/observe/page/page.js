"use strict";

// What the server tells at `events` becomes elements and text, never markup. Nothing here decides what is safe: answer
// and verdict come as they are. Between two events only ages are counted on, once a second, while somebody looks.

const RETRY_MS = 2000;
const SILENCE_MS = 15000; // the server speaks every 5 s
const CALM_MS = 10000;
const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "rect", "line"]);
const GRAVITY = ["blocked", "failing", "behind", "starting", "in-step"];
const WORTH_A_LINE = 20;

const loaded = {
  answer: document.getElementById("answer").textContent,
  mood: document.getElementById("safety").className,
  verdict: document.getElementById("verdict").textContent,
};
let told = null; // the last event, which replaces what was loaded
let toldMs = 0; // when it came, by a clock that nobody sets
let lately = null; // the last event that something is on its way, as it always is, and when it came
let latelyMs = 0;
let heardMs = 0; // when the server was last heard of
let heardAt = new Date(); // the same for people
let failures = 0; // since then
let source = null;
let retry = 0;

// Words

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (unit < units.length - 1 && Math.round(bytes) >= 1024) {
    bytes /= 1024;
    unit += 1;
  }
  const tenths = Math.round(bytes * 10) / 10;
  const isShort = unit > 0 && tenths < 10 && tenths % 1 !== 0;
  return `${isShort ? tenths.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

function age(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 1) return "under 1 s";
  const minutes = Math.floor(whole / 60);
  const hours = Math.floor(whole / 3600);
  const days = Math.floor(whole / 86400);
  if (days) return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
  if (hours) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return minutes ? `${minutes} min` : `${whole} s`;
}

function ago(thenTs, nowTs) {
  return thenTs === null ? "never" : `${age(Math.max(0, nowTs - thenTs))} ago`;
}

function totals(byReason) {
  return Object.entries(byReason)
    .sort((one, other) => other[1] - one[1])
    .map(([reason, number]) => `${number} ${reason}`)
    .join(", ");
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

function timeOf(date) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

// Elements

/** An element with attributes; children are elements, texts or lists of them, and nothing where they are null. */
function h(tag, attributes = {}, ...children) {
  const made = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children.flat(2).filter((child) => child !== null));
  return made;
}

/** Cells are texts, elements, or lists of them; the first of each row is its heading. Roles stay on a narrow screen. */
function table(headings, rows, caption = null) {
  const heads = headings.map((text) => h("th", { scope: "col", role: "columnheader" }, text));
  const bodies = rows.map(([first, ...rest]) =>
    h(
      "tr",
      { role: "row" },
      h("th", { scope: "row", role: "rowheader" }, first),
      rest.map((cell, place) => h("td", { role: "cell", "data-label": headings[place + 1] }, cell)),
    ),
  );
  return h(
    "table",
    { role: "table" },
    caption && h("caption", {}, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)),
    h("tbody", { role: "rowgroup" }, bodies),
  );
}

function facts(...pairs) {
  const listed = pairs.filter(Boolean);
  return h("dl", {}, listed.map(([term, fact, mood = null]) => [h("dt", {}, term), h("dd", { class: mood }, fact)]));
}

function quiet(text) {
  return h("span", { class: "quiet" }, text);
}

/** A target's name, which may break after a slash. */
function nameOf(view) {
  return view.id.split("/").flatMap((part, place) => (place ? ["/", h("wbr"), part] : [part]));
}

function bar(done, whole, label) {
  return h("progress", { max: Math.max(whole, 1), value: Math.min(done, whole), "aria-label": label });
}

/** Make `old` look like `fresh` and touch nothing else, so that focus, selection and place stay. */
function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  patchChildren(old, [...fresh.childNodes]);
}

function patchChildren(old, wanted) {
  const there = [...old.childNodes];
  wanted.forEach((node, place) => (place < there.length ? patch(there[place], node) : old.append(node)));
  there.slice(wanted.length).forEach((node) => node.remove());
}

/** Show these in a section, or hide the section when there are none. */
function fill(id, ...children) {
  const section = document.getElementById(id);
  const wanted = children.flat().filter((child) => child !== null);
  section.hidden = wanted.length === 0;
  patchChildren(section.querySelector("div"), wanted);
}

/** Set a text only when it is another one: a live region speaks at each change. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Sections

/** The status with ages as they are now: `now` is its time, `passed` the seconds since it was told. */
function draw() {
  const passed = (performance.now() - toldMs) / 1000;
  const status = told.status;
  const now = status.now_ts + passed;
  const targets = [...status.targets].sort((one, other) => GRAVITY.indexOf(one.state) - GRAVITY.indexOf(other.state));
  fill("attention", attention(status, targets, now, passed));
  fill("targets", targetTable(targets, now, passed));
  fill("moving", moving(targets));
  fill("throughput", throughput(status.throughput));
  fill("places", places(status, targets, now));
  fill("notes", notes(targets));
  fill("settings", settings(status, targets, now));
  say(document.getElementById("uptime"), `, up ${age(now - status.started_ts)}`);
}

function targetTable(targets, now, passed) {
  if (!targets.length) return h("p", {}, "No targets are configured.");
  const rows = targets.map((view) => [
    nameOf(view),
    h("span", { class: `state ${view.state}` }, view.state),
    view.pending_files ? age(view.oldest_pending_s + passed) : "-",
    view.pending_files ? `${count(view.pending_files, "file")} (${size(view.pending_bytes)})` : "0",
    String(sum(Object.values(view.failing_by_reason))),
    ago(view.last_success_ts, now),
  ]);
  return table(["Target", "State", "Oldest waits for", "Pending", "Failing", "Last moved"], rows);
}

function attention(status, targets, now, passed) {
  const items = [
    ...targets.map(whyStuck),
    ...targets.map((view) => failing(view, passed)),
    ...targets.map(noRoom),
    refused(status.config),
    ...targets.map(degraded),
    spent(status.link, now),
    status.is_draining ? item("wait", "replicator is stopping", "New changes are not taken up.") : null,
  ].filter(Boolean);
  return items.length ? h("ul", { class: "items" }, items) : null;
}

function item(mood, title, reason, fix = "", more = null) {
  return h(
    "li",
    { class: mood },
    h("h3", {}, title),
    reason ? h("p", {}, reason) : null,
    fix ? h("p", { class: "fix" }, fix) : null,
    more,
  );
}

function whyStuck(view) {
  if (!view.reason && view.state !== "blocked") return null;
  return item(view.state === "blocked" ? "bad" : "wait", `${view.id} is ${view.state}`, view.reason, view.fix);
}

function failing(view, passed) {
  const number = sum(Object.values(view.failing_by_reason));
  if (!number) return null;
  const rows = view.failing.map((file) => [
    h("code", {}, file.relpath),
    [h("span", {}, `${file.reason}: `), file.message],
    String(file.attempts),
    file.next_attempt_s > passed ? `in ${age(file.next_attempt_s - passed)}` : "now",
    age(file.age_s + passed),
  ]);
  const hidden = number - view.failing.length;
  const more = hidden > 0 ? `, ${hidden} of them not shown` : "";
  return item(
    "bad",
    `${view.id}: ${count(number, "file")} ${number === 1 ? "fails" : "fail"}${more}`,
    `${totals(view.failing_by_reason)}. Each is tried again by itself; the others go on.`,
    "",
    table(["File", "Why", "Attempts", "Next attempt", "Waits for"], rows),
  );
}

function noRoom(view) {
  if (!view.blocked_bytes) return null;
  const free = view.free_bytes === null ? "" : ` ${size(view.free_bytes)} are free.`;
  return item("bad", `${view.id}: ${size(view.blocked_bytes)} do not fit on the device`, `Nothing is deleted.${free}`);
}

function refused(config) {
  if (config.valid && !config.error) return null;
  return item("bad", "A newer configuration was refused", config.error, "Correct it; the last good one is in force.");
}

function degraded(view) {
  if (!view.watcher?.degraded) return null;
  return item("wait", `${view.id}: events are incomplete`, view.watcher.degraded, "", h("p", {}, "Sweeps go on."));
}

function spent(link, now) {
  if (link.budget_relief_ts === null) return null;
  const wait = age(Math.max(0, link.budget_relief_ts - now));
  return item("bad", "The data budget is spent", `Nothing moves for ${wait}.`, "Wait, or raise the budget.");
}

function moving(targets) {
  const files = targets.flatMap((view) => view.in_flight.map((file) => ({ ...file, view })));
  if (!files.length) return null;
  files.sort((one, other) => other.size - one.size);
  const rows = files.slice(0, WORTH_A_LINE).map((file) => [
    h("code", {}, file.relpath),
    nameOf(file.view),
    [
      h("span", {}, `${size(Math.max(0, file.moved_bytes))} of ${size(file.size)}`),
      bar(Math.max(0, file.moved_bytes), file.size, `progress of ${file.relpath}`),
    ],
  ]);
  const hidden = files.length - rows.length;
  return table(["File", "Target", "Progress"], rows, hidden ? `The ${rows.length} largest of ${files.length}` : null);
}

/** Bars upwards for what goes up, downwards for what comes down, on one scale. */
function throughput(recent) {
  if (!recent.up.length) return null;
  const ways = ["up", "down"].map((way) => wayOf(way, recent));
  const scale = 100 / Math.max(1, sum(ways.map((way) => way.peak)));
  const total = sum(ways.map((way) => way.total));
  const axis = ways[0].peak * scale;
  const bars = ways.flatMap(({ name, rates }) =>
    rates.map((rate, place) => {
      const height = rate * scale;
      const y = name === "up" ? axis - height : axis;
      return rate ? h("rect", { class: name, x: place, y: y.toFixed(2), width: 0.8, height: height.toFixed(2) }) : null;
    }),
  );
  const label = total ? ways.map((way) => way.text).join("; ") : "Nothing moved in the last ten minutes";
  const chart = h(
    "svg",
    { role: "img", "aria-label": label, viewBox: `0 0 ${recent.up.length} 100`, preserveAspectRatio: "none" },
    bars,
    h("line", { class: "axis", x1: 0, x2: recent.up.length, y1: axis, y2: axis }),
  );
  const minutes = Math.round((recent.up.length * recent.span_s) / 60);
  return h(
    "figure",
    {},
    h("figcaption", {}, total ? ways.map((way) => h("span", { class: `way ${way.name}` }, way.text)) : label),
    chart,
    h("div", { class: "ends", "aria-hidden": "true" }, h("span", {}, `${minutes} min ago`), h("span", {}, "now")),
  );
}

/** Bytes a second of each span, the last of which is not over, and what they say in words. */
function wayOf(name, recent) {
  const spans = recent[name];
  const last = spans.length - 1;
  const rates = spans.map((bytes, place) => bytes / (place === last ? Math.max(recent.last_s, 1) : recent.span_s));
  const lately = sum(spans.slice(-2)) / (recent.span_s + recent.last_s);
  const peak = Math.max(0, ...rates);
  const total = sum(spans);
  const text = `${name}: ${size(lately)}/s now, peak ${size(peak)}/s, ${size(total)} in all`;
  return { name, rates, peak, total, text };
}

function places(status, targets, now) {
  if (!targets.length) return null;
  const rows = targets.map((view) => [
    [nameOf(view), quiet(`${count(view.journal_rows, "file")} (${size(view.journal_bytes)}) in step`)],
    [
      h("span", {}, h("code", {}, view.path)),
      h("span", {}, h("code", {}, view.url)),
      quiet(`at ${view.endpoint}`),
      generation(view, now),
    ],
    room(view, status.free_space_floor_bytes),
    noticed(view, now),
  ]);
  return table(["Target", "Directory and bucket", "Room on the device", "Changes noticed by"], rows);
}

function generation(view, now) {
  if (!view.generation) return null;
  const { id, since_ts: since } = view.generation;
  return quiet(id ? `readers see ${id}, published ${ago(since, now)}` : "nothing published yet");
}

/** Ingress alone keeps to the floor: egress takes no room. */
function room(view, floorBytes) {
  const floor = view.direction === "ingress" && floorBytes ? `, ${size(floorBytes)} stay free` : "";
  return [
    h("span", {}, view.free_bytes === null ? "not known" : `${size(view.free_bytes)} free${floor}`),
    view.quota_bytes ? h("span", {}, `${size(view.journal_bytes)} of ${size(view.quota_bytes)} quota`) : null,
    view.quota_bytes ? bar(view.journal_bytes, view.quota_bytes, `quota of ${view.id}`) : null,
  ];
}

function noticed(view, now) {
  const compared = `${view.watcher ? "" : "listing; "}compared ${ago(view.last_sweep_ts, now)}`;
  if (!view.watcher) return compared;
  const { source: events, watches, needed, is_proven: isProven } = view.watcher;
  const proof = isProven ? ", proven" : "";
  const coverage = needed ? `${watches} of ${needed}` : String(watches);
  return [h("span", {}, `${events}: ${coverage} directories watched${proof}`), quiet(compared)];
}

function notes(targets) {
  const items = targets.flatMap((view) => [lateWrites(view), leftOut(view)]).filter(Boolean);
  return items.length ? h("ul", { class: "items" }, items) : null;
}

function lateWrites(view) {
  if (!view.late_writes) return null;
  const title = `${view.id}: ${count(view.late_writes, "file")} will be looked at again`;
  return item("", title, "A request for it was never answered and may come in late. Nothing has to be done.");
}

function leftOut(view) {
  const number = sum(Object.values(view.skipped_by_reason));
  if (!number) return null;
  const title = `${view.id}: ${count(number, "file")} left out (${totals(view.skipped_by_reason)})`;
  const hidden = number - view.skipped.length;
  const rows = view.skipped.map((file) => [h("code", {}, file.relpath), file.reason]);
  return item("", title, "", "", table(["File", "Rule"], rows, hidden > 0 ? `The first ${rows.length}` : null));
}

function settings(status, targets, now) {
  const { config, link } = status;
  const origins = [...new Set(targets.map((view) => view.origin).filter(Boolean))];
  const applied = config.applied_ts === null ? "not applied" : `applied ${ago(config.applied_ts, now)}`;
  const moves = `${status.transfers_in_flight} of ${status.transfers_limit} transfers, ${status.queue_jobs} queued`;
  return h(
    "div",
    { class: "beside" },
    facts(
      ["Source", config.source],
      ["In force", `generation ${config.generation}, ${applied}`],
      config.error ? ["Refused", config.error, "bad"] : null,
      origins.length ? ["From", origins.map((origin) => h("div", {}, origin))] : null,
      status.is_ready ? ["Ready", "yes"] : ["Ready", `no: ${status.not_ready.join("; ")}`, "bad"],
    ),
    facts(
      ["At work", moves],
      ["Up", wayText(link.up_limit, link.up_achieved)],
      ["Down", wayText(link.down_limit, link.down_achieved)],
      link.budget_bytes ? ["Data budget", budget(link)] : null,
      status.watch_limit ? ["inotify watches", `${status.watch_limit} allowed by the kernel`] : null,
    ),
  );
}

function wayText(limit, achieved) {
  const cap = limit === null ? "no cap" : `at most ${size(limit)}/s`;
  return achieved === null ? cap : `${cap}; one transfer achieves ${size(achieved)}/s`;
}

function budget(link) {
  const text = `${size(link.budget_used_bytes)} of ${size(link.budget_bytes)} used`;
  return [h("div", {}, text), bar(link.budget_used_bytes, link.budget_bytes, "data budget used")];
}

// One file

/** Ask where a file stands. The answer takes the focus, so that a screen reader reads it out. */
async function ask(event) {
  event.preventDefault();
  const result = document.querySelector("#find > div");
  patchChildren(result, [await explained(document.getElementById("asked").value)]);
  result.focus();
}

async function explained(asked) {
  try {
    const answer = await fetch(`explain?path=${encodeURIComponent(asked)}`);
    if (!answer.ok) return h("p", {}, `No answer: ${await answer.text()}`);
    const { places } = await answer.json();
    if (!places.length) return h("p", {}, "Not known here: no target takes such a path or key.");
    return h("ul", { class: "items" }, places.map(placeOf));
  } catch {
    return h("p", {}, "No answer: the replicator cannot be reached.");
  }
}

function placeOf(place) {
  const mood = { "in-step": "good", waiting: "wait", failing: "bad" }[place.verdict] ?? "";
  const ends = h("p", { class: "quiet" }, `${place.path}, ${place.url}`);
  return item(mood, `${place.target}: ${place.verdict}`, place.summary, place.fix, ends);
}

// The connection

function connect() {
  leave();
  heardMs = performance.now();
  source = new EventSource("events");
  source.onmessage = ({ data }) => {
    told = JSON.parse(data);
    toldMs = performance.now();
    if (told.mood === "lately") [lately, latelyMs] = [told, toldMs];
    heard();
    draw();
  };
  source.addEventListener("alive", heard);
  source.onerror = lost;
}

function leave() {
  clearTimeout(retry);
  source?.close();
  source = null;
}

function heard() {
  heardMs = performance.now();
  heardAt = new Date();
  failures = 0;
  show();
}

/** The browser's own reconnecting gives up at an answer that is none; ours does not. */
function lost() {
  leave();
  failures += 1;
  retry = setTimeout(connect, RETRY_MS);
  show();
}

/** A workload that writes every second must not make the answer flicker: it is all good after a while of calm. */
function steady() {
  return told?.mood === "good" && lately && performance.now() - latelyMs < CALM_MS ? lately : told;
}

/** Safety, and whether what is shown may be old. */
function show() {
  const isOld = failures > 1;
  const since = timeOf(heardAt);
  const state = failures ? "Connecting" : "Live";
  const connection = document.getElementById("connection");
  connection.hidden = false;
  connection.className = isOld ? "old" : "";
  say(connection, isOld ? `Not connected since ${since}: what you see may be old` : state);
  const { answer, mood } = steady() ?? loaded;
  document.getElementById("safety").className = isOld ? "old" : mood;
  say(document.querySelector("#answer strong"), isOld ? `${answer}, at ${since}` : answer);
  say(document.getElementById("verdict"), (told ?? loaded).verdict);
  document.title = `${isOld ? "Not connected" : answer} - replicator ${location.host}`;
}

function tick() {
  if (document.hidden) return;
  if (source && performance.now() - heardMs > SILENCE_MS) {
    failures += 1;
    lost();
  }
  if (told) {
    show();
    draw();
  }
}

/** A page that nobody looks at costs the device nothing; what it showed before is not called live. */
function look() {
  leave();
  if (document.hidden) return;
  failures = told ? 1 : 0;
  connect();
}

say(document.getElementById("host"), location.host);
document.getElementById("find").hidden = false;
document.querySelector("#find form").addEventListener("submit", ask);
document.addEventListener("visibilitychange", look);
setInterval(tick, 1000);
requestAnimationFrame(() => setTimeout(look)); // once what the HTML says is painted
