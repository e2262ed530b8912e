// One model's card: where its rollout stands, what runs, what was counted, how fast, the receipt.

import { ago, brief, draw, make, number, pairs, pill, whole } from "/draw.js";
import { showReceipt } from "/receipt.js";

const POINTS_MAX = 120;
const RATE_MS_MIN = 1000;
const PHASES = ["fetching", "verifying", "preflight", "shadow", "canary", "promoting", "probation", "steady"];
const TONES = { Healthy: "good", Transitioning: "busy", Unhealthy: "doubt", Unschedulable: "bad", Failed: "bad" };

/** An empty card for the model `name`, from `template`, at the end of `list`. */
export function newCard(template, list, name) {
  const root = template.content.cloneNode(true).firstElementChild;
  const slots = {};
  for (const node of root.querySelectorAll("[data-slot]")) slots[node.dataset.slot] = node;
  slots.name.textContent = name;
  slots.phases.append(...PHASES.map((phase) => make("li", "", make("span", "", phase))));
  list.append(root);
  return { root, slots, name, rates: [], latencies: [], before: null, receipt: "" };
}

/** Show `model`, a member of `models` in /state, as it was at `now` (ms, monotonic). */
export function showModel(card, model, now) {
  const { slots } = card;
  const tone = TONES[model.state] ?? "quiet";
  slots.stream.textContent = model.stream ? `on ${model.stream}` : "";
  pill(slots.state, model.state, tone);
  slots.why.hidden = !model.why;
  slots.why.textContent = model.why;
  slots.why.dataset.tone = tone;
  showPhases(slots.phases, model);
  showVersions(slots.versions, model);
  showRate(card, model.counts.scored, now);
  showLatency(card, model.latency_ms);
  showLaw(slots, model.counts);
  showEvidence(slots.evidence, model);
  showReceipt(card, model.receipt);
  showFoot(slots.foot, model);
}

function showPhases(list, model) {
  const aside = !PHASES.includes(model.phase); // rolling back or retiring: drawn where promoting is
  const at = PHASES.indexOf(aside ? "promoting" : model.phase);
  const steady = model.phase === "steady";
  const part = steady ? Number(Boolean(model.active)) : model.progress;
  const percent = !steady && part > 0 && part < 1 ? ` ${Math.round(part * 100)}\u00a0%` : "";
  list.dataset.tone = aside ? "bad" : !steady ? "busy" : model.active ? "good" : "quiet";
  [...list.children].forEach((item, i) => {
    // At rest the line is whole if a version came through it, and empty if none ever has.
    item.className = i === at ? "now" : i < at && (!steady || model.active) ? "done" : "";
    item.firstChild.textContent = i === at ? model.phase + percent : PHASES[i];
    item.style.setProperty("--part", part);
    if (i === at) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  });
}

/** What each phase of this rollout has shown; the words are the agent's own. */
function showEvidence(list, { evidence, trail = [], phase }) {
  const left = phase === "steady" ? [] : trail.filter((one) => one.phase !== evidence?.phase);
  const shown = evidence ? [...left, evidence] : left;
  list.hidden = shown.length === 0;
  list.replaceChildren(...shown.map(({ words, verdict }) => {
    const line = make("li", "", words);
    line.dataset.tone = { PASS: "good", FAIL: "bad" }[verdict] ?? "busy";
    return line;
  }));
}

function showVersions(list, model) {
  const show = (version) => version
    ? [make("b", "", version.version ?? version.release), " ", make("code", "", brief(version.digest))]
    : make("span", "quiet", "none");
  const entries = [["active", show(model.active)], ["known good", show(model.known_good)]];
  if (model.candidate) entries.push(["candidate", show(model.candidate)]);
  const { provider, wanted } = model.active ?? {};
  if (provider) {
    const fell = wanted && wanted !== provider;
    const got = pill(make("span", "pill"), provider, fell ? "doubt" : "good");
    entries.push(["runs on", fell ? [got, make("span", "quiet", ` wanted ${wanted}`)] : got]);
  }
  pairs(list, entries);
}

function showRate(card, scored, now) {
  const { slots, before, rates } = card;
  if (before && now - before.now < RATE_MS_MIN) return; // an event woke us: too short to measure
  if (before) {
    push(rates, (Math.max(0, scored - before.scored) / (now - before.now)) * 1000);
    const newest = rates.slice(-3);
    slots.rate.textContent = number(newest.reduce((sum, rate) => sum + rate, 0) / newest.length);
    draw(slots["rate-line"], rates);
  }
  card.before = { now, scored };
}

function showLatency(card, { p50, p99 }) {
  const { slots, latencies } = card;
  slots.p99.textContent = Number.isFinite(p99) ? `${number(p99)} ms` : "–";
  slots.p50.textContent = Number.isFinite(p50) ? ` · p50 ${number(p50)}` : "";
  if (Number.isFinite(p99)) push(latencies, p99);
  draw(slots["p99-line"], latencies);
}

function push(values, value) {
  values.push(value);
  if (values.length > POINTS_MAX) values.shift();
}

/** The law: in = scored + rejected + expired + pending. */
function showLaw(slots, counts) {
  const total = (numbers) => Object.values(numbers).reduce((sum, n) => sum + n, 0);
  const { scored, expired, pending } = counts;
  const parts = { scored, rejected: total(counts.rejected), expired, pending };
  slots.bar.replaceChildren(...Object.entries(parts).filter(([, n]) => n > 0).map(([name, n]) => {
    const piece = make("i", name);
    piece.style.flexGrow = n;
    return piece;
  }));
  const why = Object.entries(counts.rejected).map(([reason, n]) => `${reason} ${whole.format(n)}`);
  const words = Object.entries(parts).map(([name, n]) => `${whole.format(n)} ${name}`);
  if (why.length) words[1] += ` (${why.join(", ")})`;
  const missing = counts.in - total(parts);
  const verdict = missing === 0
    ? make("span", "holds", " ✓ holds")
    : make("span", "broken", ` ✗ ${whole.format(missing)} unaccounted for`);
  const account = counts.in ? ` = ${words.join(" + ")}` : "";
  slots.law.replaceChildren(make("b", "", `${whole.format(counts.in)} in`), account, verdict);
}

function showFoot(line, model) {
  const parts = [model.last_score ? `last score ${ago(model.last_score)}` : "never scored"];
  if (model.rss_mb) parts.push(`${number(model.rss_mb)} MiB`);
  const tally = [["swap", model.swaps], ["rollback", model.rollbacks], ["worker death", model.worker_deaths]];
  for (const [word, n] of tally) if (n) parts.push(`${n} ${word}${n > 1 ? "s" : ""}`);
  if (model.quarantined.length) parts.push(`${model.quarantined.length} in quarantine`);
  line.textContent = parts.join(" · ");
}
