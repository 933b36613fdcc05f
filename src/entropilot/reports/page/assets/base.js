// Small helpers. Text from files enters the page through textContent only, never as markup.

const COLOURS = ["#2f7ed8", "#d97a1f", "#1f9d78", "#b8559f", "#7b6fd6", "#8a8a2c", "#c8504f", "#2f9fb3"];
const DASHES = [[], [8, 4], [2, 3], [8, 3, 2, 3]];
const GLYPHS = ["●", "■", "◆", "▲", "▼", "✚", "✖", "⬢"];
const pick = (list, i) => list[i % list.length];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function shown(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(digits)));
}

const grouping = new Intl.NumberFormat("en"); // made once: toLocaleString makes one at every call
const whole = (value) => grouping.format(value);

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function debounced(work, wait = 60) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...args), wait);
  };
}

function download(name, blob) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function readout(text) {
  document.getElementById("readout").textContent = text;
}

const escapeXml = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
