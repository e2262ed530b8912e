// The page: shows /state and /events, and nothing it was not told.  Names and sentences from the
// agent are data: they reach the page through textContent only.

import { make, pairs, pill, span, ago, whole, number } from "/draw.js";
import { newCard, showModel } from "/model.js";

const POLL_MS = 2000;
const EVENTS_MAX = 100;
const EVENT_TONES = {
  swap: "good", recovered: "good", rollback: "bad", refusal: "bad", breach: "bad", trust: "bad",
  gap: "doubt", degraded: "doubt",
};

const byId = (id) => document.getElementById(id);
const cards = new Map();

// ---- the whole agent ----------------------------------------------------------------------------

function showAgent(report, alive, silence) {
  const agent = report.agent ?? {};
  document.title = `${alive && report.ready ? "✓" : "✗"} ${report.device}`;
  byId("device").textContent = report.device;
  byId("about").textContent = `edge-agent ${agent.version} · up ${span(agent.uptime_s)}`;
  const reasons = alive ? report.reasons : [silence, ...report.reasons];
  const tone = !alive || !report.ready ? "bad" : reasons.length ? "doubt" : "good";
  pill(byId("ready"), !alive ? "stalled" : report.ready ? "ready" : "not ready", tone);
  const list = byId("reasons");
  list.hidden = reasons.length === 0;
  list.dataset.tone = tone;
  list.replaceChildren(...reasons.map((reason) => make("li", "", reason)));
  const { records = 0, bytes = 0, gaps = 0 } = report.outbox ?? {};
  const outbox = records ? `${whole.format(records)} waiting, ${number(bytes / 1024)} KiB` : "empty";
  const facts = [
    ["broker", agent.broker || "connected"],
    ["outbox", gaps ? `${outbox}; ${whole.format(gaps)} rows given up` : outbox],
    ["desired", `revision ${report.revision}, ${report.code}${report.why ? `: ${report.why}` : ""}`],
    ["providers", (agent.providers ?? []).join(", ") || "none"],
    ["onnxruntime", agent.onnxruntime || "–"],
    ["jail", agent.jail || "none"],
    ["memory", `${number(agent.rss_mb ?? 0)} MiB`],
  ];
  for (const name of ["trust", "receipts"]) if (agent[name]) facts.push([name, agent[name]]);
  pairs(byId("facts"), facts);
}

// ---- streams and events -------------------------------------------------------------------------

function showStreams(streams) {
  const entries = Object.entries(streams ?? {});
  byId("streams-section").hidden = entries.length === 0;
  byId("streams").replaceChildren(...entries.map(([name, stream]) => {
    const word = stream.paused ? "paused" : stream.trouble ? "no readings" : "flowing";
    const flow = pill(make("span", "pill"), word, word === "flowing" ? "good" : "doubt");
    const about = [`${whole.format(stream.in)} readings`];
    for (const [why, n] of Object.entries(stream.rejected)) about.push(`${whole.format(n)} ${why}`);
    if (stream.seq_gaps) about.push(`${whole.format(stream.seq_gaps)} gaps in its numbers`);
    if (stream.last_reading) about.push(`last ${ago(stream.last_reading)}`);
    return make("li", "", make("b", "", name), make("span"), flow, make("p", "quiet", stream.trouble || about.join(" · ")));
  }));
}

function showEvent(event) {
  const type = pill(make("span", "pill"), event.type ?? "event", EVENT_TONES[event.type] ?? "quiet");
  const when = new Date(event.time ?? NaN);
  const time = make("time", "quiet small", Number.isNaN(+when) ? "" : when.toLocaleTimeString());
  if (!Number.isNaN(+when)) time.title = when.toLocaleString();
  const line = make("li", "", type, make("b", "", event.model ?? ""), time);
  if (event.why) line.append(make("p", "", event.why));
  const list = byId("events");
  list.prepend(line);
  while (list.children.length > EVENTS_MAX) list.lastElementChild.remove();
  byId("no-events").hidden = true;
}

function listen() {
  const source = new EventSource("/events");
  source.onmessage = (message) => {
    showEvent(JSON.parse(message.data));
    wake();
  };
  // The browser comes back by itself after a broken line, but not after a refusal.
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5 * POLL_MS);
  };
}

// ---- the pulse ----------------------------------------------------------------------------------

let wake = () => {};

async function poll() {
  const limit = { signal: AbortSignal.timeout(4 * POLL_MS) };
  const [state, live] = await Promise.all([fetch("/state", limit), fetch("/livez", limit)]);
  const silence = (await live.text()).trim();
  if (!state.ok) throw new Error((await state.text()).trim());
  const report = await state.json();
  showAgent(report, live.ok, silence);
  const now = performance.now();
  for (const [name, model] of Object.entries(report.models)) {
    if (!cards.has(name)) cards.set(name, newCard(byId("model"), byId("models"), name));
    showModel(cards.get(name), model, now);
  }
  for (const [name, card] of cards) {
    if (name in report.models) continue;
    card.root.remove();
    cards.delete(name);
  }
  byId("no-models").hidden = cards.size > 0;
  showStreams(report.streams);
}

async function run() {
  listen();
  for (;;) {
    try {
      await poll();
      document.body.classList.remove("lost");
    } catch (error) {
      document.body.classList.add("lost");
      pill(byId("ready"), "unreachable", "bad");
      document.title = "✗ edge-agent";
      byId("about").textContent = `${error.message}; asking again …`;
    }
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, POLL_MS);
    });
  }
}

run();
