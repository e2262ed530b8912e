// The receipts of one model: the last one in figures, and all that are kept in the agent's words.

import { brief, exact, make, pairs, whole } from "/draw.js";

const ASIDE = new Set(["schema", "device", "model", "edition", "complete", "evidence", "words"]);

/** Show `receipt`, the last one, on `card`; the older ones are asked for when it is a new one. */
export function showReceipt(card, receipt) {
  const { slots } = card;
  slots["receipt-box"].hidden = !receipt;
  if (!receipt) return;
  const { kind = "swap", why, time, from, to, number, ...rest } = receipt;
  slots["receipt-kind"].textContent = kind;
  const entries = [["release", `${from?.release ?? "none"} → ${to?.release ?? "none"}`]];
  if (to?.digest) entries.push(["digest", brief(to.digest)]);
  for (const [name, value] of Object.entries(rest)) {
    if (!ASIDE.has(name)) entries.push([name.replaceAll("_", " "), told(value)]);
  }
  if (time) entries.push(["at", when(time)]);
  if (why) entries.push(["why", why]);
  pairs(slots.receipt, entries);
  const edition = `${number}.${receipt.edition}`;
  if (card.receipt === edition) return;
  card.receipt = edition;
  showKept(card).catch(() => { card.receipt = ""; }); // asked for again with the next report
}

async function showKept({ name, slots }) {
  const answer = await fetch(`/receipts/${encodeURIComponent(name)}`);
  if (!answer.ok) throw new Error(await answer.text());
  const kept = (await answer.json()).receipts[name] ?? [];
  slots.receipts.replaceChildren(...kept.map(({ receipt, signature, words }) => {
    const [what, ...phases] = words;
    const signed = signature ? `signed by ${signature.keyid.slice(0, 8)}` : "not signed";
    const about = make("p", "quiet small", `#${receipt.number} · ${when(receipt.time)} · ${signed}`);
    return make("li", "", about, make("p", "", what), ...phases.map((line) => make("p", "quiet", line)));
  }));
}

const when = (time) => new Date(time * 1000).toLocaleString();

/** A figure of a receipt; what has a before, a during and an after reads as a row of them. */
function told(value) {
  if (value === null) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? whole.format(value) : exact.format(value);
  if (typeof value !== "object") return String(value);
  if ("before" in value) return Object.values(value).map(told).join(" → ");
  return Object.entries(value).map(([name, inner]) => `${name} ${told(inner)}`).join(", ");
}
