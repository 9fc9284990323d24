"use strict";

const MINUTE = 60;
const RETRY = 10_000; // milliseconds, when the server refuses one more viewer
const points = []; // [time in seconds, handshakes completed, parked now], oldest first

const find = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const rateFormat = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/* The next of some round numbers: an axis whose end moves seldom. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((end) => end >= value);
}

/* Draw [time, value] pairs over the last minute. */
function plot(element, values, now) {
  const { width, height } = element.getBoundingClientRect();
  const top = ceiling(Math.max(...values.map(([, value]) => value), 1));
  const x = (time) => width - ((now - time) / MINUTE) * width;
  const y = (value) => height - 1 - (value / top) * (height - 15);
  const line = values.map(([time, value]) => `${x(time).toFixed(1)},${y(value).toFixed(1)}`).join(" L");
  const parts = [svg("text", { x: 0, y: 10 }, number.format(top))];
  if (values.length > 1) {
    const start = x(values[0][0]).toFixed(1);
    parts.push(svg("path", { class: "area", d: `M${start},${height} L${line} L${width},${height} Z` }));
    parts.push(svg("path", { class: "line", d: `M${line}` }));
  }
  element.replaceChildren(...parts);
}

function rates() {
  return points.slice(1).map(([time, completed], index) => {
    const [before, completedBefore] = points[index];
    return [time, (completed - completedBefore) / Math.max(time - before, 0.001)];
  });
}

function draw() {
  const last = points.at(-1);
  if (!last) return;
  const perSecond = rates();
  plot(find("rate-plot"), perSecond, last[0]);
  plot(find("parked-plot"), points.map(([time, , parked]) => [time, parked]), last[0]);
  find("rate").textContent = rateFormat.format(perSecond.at(-1)?.[1] ?? 0);
  find("parked").textContent = number.format(last[2]);
}

const duration = (seconds) => (seconds < 1 ? `${+(seconds * 1000).toPrecision(1)} ms` : `${seconds} s`);

/* Bars for the buckets between the first and the last that hold something. */
function bars({ bounds, counts, count }) {
  find("parks").hidden = count === 0;
  if (count === 0) return;
  const filled = counts.flatMap((value, index) => (value ? [index] : []));
  const first = Math.max(filled[0] - 1, 0);
  const last = Math.min(filled.at(-1) + 1, counts.length - 1);
  const most = Math.max(...counts);
  const children = [];
  for (let index = first; index <= last; index += 1) {
    const bar = document.createElement("div");
    const room = document.createElement("b");
    const fill = document.createElement("i");
    const label = document.createElement("span");
    fill.style.height = `${(counts[index] / most) * 100}%`;
    label.textContent = index < bounds.length ? `≤ ${duration(bounds[index])}` : "more";
    bar.title = `${number.format(counts[index])} of ${number.format(count)}`;
    room.append(fill);
    bar.append(room, label);
    children.push(bar);
  }
  document.querySelector("#parks .bars").replaceChildren(...children);
}

function addPoint(point) {
  const last = points.at(-1);
  if (last && (point[0] < last[0] || point[1] < last[1])) points.length = 0; // another server answers now
  if (last && point[0] === last[0]) return;
  points.push(point);
  while (points[0][0] < point[0] - MINUTE - 2) points.shift();
}

function show(sample) {
  addPoint([sample.time, sample.handshakes_completed, sample.parked_now]);
  for (const element of document.querySelectorAll("[data-counter]")) {
    element.textContent = number.format(sample[element.dataset.counter]);
  }
  bars(sample.park_seconds);
  draw();
}

function status(text, isLive) {
  find("status").hidden = false;
  find("status").textContent = text;
  find("status").className = isLive ? "live" : "";
}

function watch() {
  const source = new EventSource("/events");
  source.addEventListener("open", () => status("live", true));
  source.addEventListener("history", (event) => JSON.parse(event.data).forEach(addPoint));
  source.addEventListener("sample", (event) => show(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    status("reconnecting", false);
    if (source.readyState === EventSource.CLOSED) setTimeout(watch, RETRY);
  });
}

new ResizeObserver(draw).observe(find("rate-plot"));
watch();
