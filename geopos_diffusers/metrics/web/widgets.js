"use strict";
// Builds the page out of the JSON in #data. Every text enters the page as a text node or attribute, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const measures = new Map(data.measures.map((measure) => [measure.name, measure]));
const models = data.sets.filter((set) => !set.reference);
const CHAINS = [1, 5, 9, 13, 17].map((first) => [0, first, first + 1, first + 2, first + 3]);
const COLORS = ["#ff5050", "#ffb400", "#5ad23c", "#3caaff", "#c864ff"];

function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const collator = new Intl.Collator("en", { numeric: true });  // much faster than localeCompare
const isNumber = (value) => typeof value === "number";
const sum = (values) => values.reduce((total, value) => total + value, 0);
const signed = (text, value) => (value > 0 ? `+${text}` : text);

function format(value, measure) {
  if (!isNumber(value)) return "–";
  return measure.kind === "share" ? `${(100 * value).toFixed(1)}%` : value.toFixed(measure.digits);
}

function formatP(p) {
  if (!isNumber(p)) return "–";
  return p < 0.0001 ? "<0.0001" : p.toFixed(p < 0.001 ? 4 : 3);
}

function intervalText(interval, measure, points = false) {
  if (!interval || !isNumber(interval.low)) return "";
  const one = (value) => (measure.kind === "share" ? (100 * value).toFixed(1) : value.toFixed(measure.digits));
  return `[${[interval.low, interval.high].map((end) => (points ? signed(one(end), end) : one(end))).join(", ")}]`;
}

function section(id, title, ...children) {
  const made = el("section", { id, "aria-label": title }, el("h2", {}, title), ...children);
  page.append(made);
  return made;
}

function select(label, options, onchange) {
  const box = el("select", { onchange: () => onchange(box.value) });
  for (const [value, text] of options) box.append(el("option", { value }, text));
  return { node: el("label", {}, label, box), box };
}

function search(label, oninput) {
  return el("label", {}, label, el("input", { type: "search", oninput: (event) => oninput(event.target.value.toLowerCase()) }));
}

/** Buttons for pages of `size` items; `show(start, stop)` draws one. */
class Pager {
  constructor(size, show) {
    Object.assign(this, { size, show, page: 0, count: 0 });
    this.back = el("button", { type: "button", onclick: () => this.go(this.page - 1) }, "← Back");
    this.next = el("button", { type: "button", onclick: () => this.go(this.page + 1) }, "Next →");
    this.place = el("span", { "aria-live": "polite" });
    this.node = el("div", { class: "pager" }, this.back, this.next, this.place);
  }
  reset(count) {
    this.count = count;
    this.go(0);
  }
  go(number) {
    this.page = Math.max(0, Math.min(number, Math.ceil(this.count / this.size) - 1));
    const start = this.page * this.size;
    const stop = Math.min(this.count, start + this.size);
    this.back.disabled = this.page === 0;
    this.next.disabled = stop >= this.count;
    this.back.hidden = this.next.hidden = this.count <= this.size;
    this.place.textContent = this.count ? `${start + 1} to ${stop} of ${this.count.toLocaleString("en")}` : "nothing to show";
    this.show(start, stop);
  }
}

/** A table that sorts by a click on a header. columns: {title, value(row), cell(row), text, help, warning}. */
class DataTable {
  constructor({ columns, rows, label, size = 50, rowClass = () => null, filter = null }) {
    Object.assign(this, { columns, rows, rowClass, filter, needle: "", sorted: null, descending: false });
    this.body = el("tbody");
    this.headers = columns.map((column, index) => {
      const button = el("button", { type: "button", title: column.help, onclick: () => this.sort(index) }, column.title);
      const warning = column.warning ? el("span", { class: "warned", title: column.warning }, " ⚠") : null;
      return el("th", { scope: "col", class: column.text ? "text" : null, "aria-sort": "none" }, button, warning);
    });
    const table = el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, ...this.headers)), this.body);
    this.pager = new Pager(size, (start, stop) => this.draw(start, stop));
    const pager = rows.length > size || filter ? this.pager.node : null;
    this.node = el("div", {}, pager, el("div", { class: "box", tabindex: "0", role: "region", "aria-label": label }, table));
    this.update();
  }
  sort(index) {
    this.descending = this.sorted === index ? !this.descending : !this.columns[index].text;
    this.sorted = index;
    this.headers.forEach((header, other) => {
      header.setAttribute("aria-sort", other === index ? (this.descending ? "descending" : "ascending") : "none");
    });
    this.update();
  }
  search(needle) {
    this.needle = needle;
    this.update();
  }
  update() {
    this.shown = this.needle ? this.rows.filter((row) => this.filter(row).toLowerCase().includes(this.needle)) : [...this.rows];
    if (this.sorted !== null) {
      const value = this.columns[this.sorted].value;
      const sign = this.descending ? -1 : 1;
      const empty = (key) => key === null || key === undefined;
      const keyed = this.shown.map((row) => [value(row), row]);
      keyed.sort(([a], [b]) => {
        if (empty(a) || empty(b)) return empty(a) - empty(b);
        return sign * (typeof a === "string" ? collator.compare(a, b) : a - b);
      });
      this.shown = keyed.map(([, row]) => row);
    }
    this.pager.reset(this.shown.length);
  }
  draw(start, stop) {
    this.body.replaceChildren(
      ...this.shown.slice(start, stop).map((row) =>
        el("tr", { class: this.rowClass(row) }, ...this.columns.map((column, index) => this.cell(column, row, index)))));
  }
  cell(column, row, index) {
    const content = column.cell ? column.cell(row) : column.value(row);
    const parts = (Array.isArray(content) ? content : [content]).map((part) => (part === null || part === undefined ? "–" : part));
    const attributes = { class: column.text ? (column.wide ? "text wide" : "text") : null };
    return index === 0 ? el("th", { scope: "row", ...attributes }, ...parts) : el("td", attributes, ...parts);
  }
}
