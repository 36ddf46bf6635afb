"use strict";
// The forest plot and the gallery of one task. Every text of the data enters the page as a text node or attribute.
const data = JSON.parse(document.getElementById("data").textContent);
const explore = document.getElementById("explore");
const SVG = "http://www.w3.org/2000/svg";
const ROW = 24, LEFT = 210, RIGHT = 230, WIDTH = 1000, TOP = 14;

function make(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
const el = (tag, attributes = {}, ...children) => make(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => make(document.createElementNS(SVG, tag), attributes, children);

/** Mean of one value a seed with its 95% interval of Student's t; low and high are null of a single one. */
function estimate(values) {
  const count = values.length;
  if (!count) return null;
  const mean = values.reduce((total, value) => total + value, 0) / count;
  if (count === 1) return { mean, low: null, high: null, count };
  const variance = values.reduce((total, value) => total + (value - mean) ** 2, 0) / (count - 1);
  const reach = data.t_quantiles[count - 2] * Math.sqrt(variance / count);
  return { mean, low: mean - reach, high: mean + reach, count };
}

/**
 * What an arm's row shows: its mean, or its paired difference from the reference over the seeds that both have.
 * What was not trained has one value, whatever the seed.
 */
function rowEstimate(arm, reference, measure) {
  const own = arm.scores[measure.name] ?? {};
  if (!reference) return estimate(Object.values(own));
  const others = reference.scores[measure.name] ?? {};
  if (!Object.keys(others).length || !Object.keys(own).length) return null;
  const value = (from, scores, seed) => (from.trained ? scores[seed] : Object.values(scores)[0]);
  const seeds = Object.keys(arm.trained ? own : others).filter((seed) => !arm.trained || !reference.trained || seed in others);
  return estimate(seeds.map((seed) => value(arm, own, seed) - value(reference, others, seed)));
}

function format(value, measure, signed) {
  const text = value.toFixed(measure.digits);
  return signed && value > 0 ? `+${text}` : text;
}

function intervalText(found, measure, signed) {
  return found.low === null ? "" : `[${format(found.low, measure, signed)}, ${format(found.high, measure, signed)}]`;
}

/** Round numbers between two ends. */
function ticks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const found = [];
  for (let index = Math.ceil(low / step); index * step <= high; index += 1) found.push(index * step);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function forest(rows, line, measure, signed, title) {
  const ends = rows.flatMap(({ found }) => [found.low ?? found.mean, found.high ?? found.mean]);
  if (line !== null) ends.push(line);
  const margin = (Math.max(...ends) - Math.min(...ends)) * 0.05 || 0.5;
  const low = Math.min(...ends) - margin, high = Math.max(...ends) + margin;
  const x = (value) => LEFT + ((value - low) / (high - low)) * (WIDTH - LEFT - RIGHT);
  const bottom = TOP + rows.length * ROW;
  const axis = ticks(low, high);
  const plot = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${bottom + 30}`, role: "img", "aria-labelledby": "plot-title plot-text" },
    svg("title", { id: "plot-title" }, title), svg("desc", { id: "plot-text" }, "The table below the plot has the same figures."));
  for (const value of axis.found) {
    plot.append(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: TOP, y2: bottom }),
      svg("text", { x: x(value), y: bottom + 18, "text-anchor": "middle" }, value.toFixed(axis.digits)));
  }
  if (line !== null) plot.append(svg("line", { class: "zero", x1: x(line), x2: x(line), y1: TOP - 6, y2: bottom, "data-value": line }));
  rows.forEach(({ arm, found }, index) => {
    const y = TOP + (index + 0.5) * ROW;
    const row = svg("g", { class: "row", "data-arm": arm.name });
    row.append(svg("text", { class: "name", x: LEFT - 10, y: y + 4, "text-anchor": "end" }, arm.name));
    if (found.low !== null) row.append(svg("line", { class: "reach", x1: x(found.low), x2: x(found.high), y1: y, y2: y }));
    row.append(svg("circle", { cx: x(found.mean), cy: y, r: 4.5 }),
      svg("text", { class: "value", x: WIDTH - RIGHT + 12, y: y + 4 }, `${format(found.mean, measure, signed)} ${intervalText(found, measure, signed)}`.trim()));
    plot.append(row);
  });
  return plot;
}

function valuesTable(rows, measure, signed, title) {
  const head = ["arm", "seeds", signed ? "difference" : "mean", "95% interval"].map((text) => el("th", { scope: "col" }, text));
  const body = rows.map(({ arm, found }) => el("tr", {}, el("th", { scope: "row" }, arm.name), el("td", {}, String(found.count)),
    el("td", {}, format(found.mean, measure, signed)), el("td", {}, intervalText(found, measure, signed))));
  return el("table", { id: "values" }, el("caption", {}, title), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
}

function gallery(task) {
  return task.pictures.map((picture) => el("figure", {}, el("img", { src: picture.file, alt: picture.caption }), el("figcaption", {}, picture.caption)));
}

function control(id, label, onchange) {
  const box = el("select", { id });
  box.addEventListener("change", onchange);
  return { box, node: el("label", { for: id }, label, box) };
}

function fill(box, options, chosen) {
  box.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
  box.value = options.some(([value]) => value === chosen) ? chosen : options[0][0];
}

const plotted = el("div", { id: "forest" });
const shown = el("div", { id: "gallery" });
const status = el("p", { id: "shown", "aria-live": "polite" });
const taskControl = control("task", "Task", taskChosen);
const measureControl = control("measure", "Measure", draw);
const referenceControl = control("reference", "Show", draw);
const chosenTask = () => data.tasks.find((task) => task.name === taskControl.box.value);

function taskChosen() {
  const task = chosenTask();
  fill(measureControl.box, task.measures.map((measure) => [measure.name, measure.label]), task.primary);
  fill(referenceControl.box, [["", "means"], ...task.arms.map((arm) => [arm.name, `differences from ${arm.name}`])], "");
  shown.replaceChildren(...gallery(task));
  draw();
}

function draw() {
  const task = chosenTask();
  const measure = task.measures.find((one) => one.name === measureControl.box.value);
  const reference = task.arms.find((arm) => arm.name === referenceControl.box.value);
  const rows = task.arms.filter((arm) => arm !== reference)
    .map((arm) => ({ arm, found: rowEstimate(arm, reference, measure) })).filter(({ found }) => found !== null);
  const base = task.arms.find((arm) => arm.name === task.base);
  const line = reference ? 0 : (base && rowEstimate(base, undefined, measure)?.mean) ?? null;
  const subject = reference ? `difference from ${reference.name} in ${measure.label}` : measure.label;
  const title = `${task.title}: ${subject}, 95% intervals over seeds; ${measure.better} is better`;
  const meaning = line === null ? "" : ` The dashed line is ${reference ? reference.name : `${base.name}, ${format(line, measure)}`}.`;
  if (rows.length) {
    plotted.replaceChildren(forest(rows, line, measure, Boolean(reference), title), valuesTable(rows, measure, Boolean(reference), title));
    status.textContent = `${title}.${meaning}`;
  } else {
    plotted.replaceChildren();
    status.textContent = `Nothing shares a seed with ${reference.name} in ${measure.label}.`;
  }
}

if (data.tasks.length) {
  explore.append(el("div", { class: "controls" }, taskControl.node, measureControl.node, referenceControl.node), status, plotted, shown);
  fill(taskControl.box, data.tasks.map((task) => [task.name, `${task.name}: ${task.title}`]), data.tasks[0].name);
  taskChosen();
} else {
  explore.append(el("p", {}, "No task was run yet."));
}
