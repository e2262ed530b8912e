// Small tools of the page: elements, numbers, times, lines.  All text goes in as text.

export const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const exact = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
export const number = (value) => (Math.abs(value) >= 100 ? whole : exact).format(value);

export const brief = (digest) => digest.replace("sha256:", "").slice(0, 8);

/** An element with a class and children; a child that is no element becomes text. */
export function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

/** Set the words and the tone (good, doubt, bad, busy, quiet) of a pill. */
export function pill(node, words, tone) {
  node.textContent = words;
  node.dataset.tone = tone;
  return node;
}

/** Fill a description list with [name, text or nodes]. */
export function pairs(list, entries) {
  list.replaceChildren(...entries.map(([name, value]) =>
    make("div", "", make("dt", "", name), make("dd", "", ...[value].flat()))));
}

export function span(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const at = units.findIndex(([, size]) => seconds >= size);
  if (at < 0) return "0 s";
  const [unit, size] = units[at];
  const rest = at < 2 ? Math.floor((seconds % size) / units[at + 1][1]) : 0;
  return `${Math.floor(seconds / size)} ${unit}` + (rest ? ` ${rest} ${units[at + 1][0]}` : "");
}

export function ago(time) {
  const then = Date.parse(time);
  return Number.isNaN(then) ? "" : `${span(Math.max(0, Date.now() - then) / 1000)} ago`;
}

const WIDTH = 120;
const HEIGHT = 32;
const POINTS_MIN = 30; // fewer are drawn as if there were so many, from the right

/** A line from zero up, the newest value at the right edge. */
export function draw(svg, values) {
  const top = Math.max(...values, 1e-9) * 1.15;
  const step = WIDTH / (Math.max(values.length, POINTS_MIN) - 1);
  const x = (i) => (WIDTH - (values.length - 1 - i) * step).toFixed(1);
  const y = (value) => (HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1);
  const line = values.map((value, i) => `${i ? "L" : "M"}${x(i)} ${y(value)}`).join("");
  const area = `${line}L${WIDTH} ${HEIGHT}L${x(0)} ${HEIGHT}Z`;
  const paths = values.length < 2 ? [] : [["area", area], ["line", line]];
  svg.replaceChildren(...paths.map(([name, d]) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", name);
    path.setAttribute("d", d);
    return path;
  }));
}
