// Tables of models, differences, prompts and images.

const comparisons = new Map(data.comparisons.map((row) => [`${row.other}\n${row.measure}`, row]));

/** A triangle where a model differs from the baseline: filled after Holm's correction, hollow before it alone. */
function mark(row) {
  if (!row || !isNumber(row.p) || row.p >= 0.05 || !row.difference.value) return null;
  const up = row.difference.value > 0;
  const better = up === (measures.get(row.measure).better === "higher");
  const sure = isNumber(row.p_holm) && row.p_holm < 0.05;
  const words = `${better ? "better" : "worse"} than ${row.baseline}: p ${formatP(row.p)}, after Holm ${formatP(row.p_holm)}`;
  const sign = up ? (sure ? "▲" : "△") : sure ? "▼" : "▽";
  return el("span", { class: `mark ${better ? "better" : "worse"}`, title: words, "aria-label": words, role: "img" }, ` ${sign}`);
}

function scoreTable(label, columns, part, count = null) {
  const rows = data.models.map((model) => ({ name: model.name, scores: model[part], model }));
  if (part === "scores") rows.push(...data.reference_rows.map((row) => ({ ...row, reference: true })));
  else rows.push({ name: part === "quality" ? "reference, its halves" : "reference", scores: data.reference[part], reference: true });
  const first = [{ title: "model", text: true, value: (row) => row.name }];
  if (count) first.push({ title: count, value: (row) => (row.model || data.reference)[count] });
  const used = columns.filter((column) => rows.some((row) => row.scores[column.name] && isNumber(row.scores[column.name].value)));
  if (!used.length) return null;
  const made = used.map((column) => ({
    title: column.title, help: column.help, warning: column.warning,
    value: (row) => (row.scores[column.name] ? row.scores[column.name].value : null),
    cell: (row) => {
      const score = row.scores[column.name];
      if (!score || !isNumber(score.value)) return "–";
      const sign = part === "scores" && row.model ? mark(comparisons.get(`${row.name}\n${column.name}`)) : null;
      return [el("span", {}, format(score.value, column), sign || ""), el("span", { class: "interval" }, intervalText(score, column))];
    },
  }));
  const rowClass = (row) => (row.reference ? "reference" : null);
  return el("div", {}, el("h3", {}, label), new DataTable({ columns: [...first, ...made], rows, label, rowClass }).node);
}

function helpOf(measure) {
  return `${measure.description} Better: ${measure.better}.${measure.warning ? ` Caution: ${measure.warning}` : ""}`;
}

function modelsSection() {
  const titles = { detector: "Detector (MediaPipe)", network: "Second judge", both: "Both judges" };
  const tables = Object.entries(titles).map(([judge, title]) =>
    scoreTable(title, data.measures.filter((one) => one.judge === judge).map((one) => ({ ...one, help: helpOf(one) })), "scores"));
  const quality = data.quality.map((one) => ({ ...one, help: `Better: ${one.better}. Usual number of images: ${one.usual_images.toLocaleString("en")}.` }));
  for (const table of new Set(quality.map((one) => one.table))) {
    const columns = quality.filter((one) => one.table === table);
    tables.push(scoreTable(table, columns, "quality", columns[0].region));
  }
  tables.push(scoreTable("Agreement of the two judges", data.agreement.map((one) => ({ ...one, digits: 2 })), "agreement"));
  const legend = ["Below each figure: its 95% interval. Click a heading to sort, point at it for what it means."];
  if (data.comparisons.length) {
    legend.push(` ▲ ▼ higher or lower than ${data.models[0].name} at 5% after Holm's correction for all comparisons, △ ▽ before it alone; `);
    legend.push(el("span", { class: "better" }, "green"), " is better, ", el("span", { class: "worse" }, "red"), " worse.");
  }
  if ([...data.measures, ...data.quality].some((one) => one.warning)) legend.push(el("span", { class: "warned" }, " ⚠ read its note: it fails a control, or the sets are small."));
  section("models", "Models and measures", el("p", { class: "soft" }, ...legend), ...tables.filter(Boolean));
}

function differencesSection() {
  if (!data.comparisons.length) return;
  const measure = (row) => measures.get(row.measure);
  const columns = [
    { title: "measure", text: true, value: (row) => measure(row).title },
    { title: "model", text: true, value: (row) => row.other },
    {
      title: `difference from ${data.models[0].name}`, value: (row) => row.difference.value,
      cell: (row) => {
        const value = row.difference.value;
        if (!isNumber(value)) return "–";
        const text = signed(format(value, measure(row)).replace("%", " points"), value);
        return [el("span", {}, text, mark(row) || ""), el("span", { class: "interval" }, intervalText(row.difference, measure(row), true))];
      },
    },
    { title: "better", value: (row) => row.wins, help: "pairs in which the model is better" },
    { title: "worse", value: (row) => row.losses, help: "pairs in which the model is worse" },
    { title: "same", value: (row) => row.ties },
    { title: "pairs", value: (row) => row.pairs, help: "of images to which the measure applies on both sides" },
    { title: "p", value: (row) => row.p, cell: (row) => formatP(row.p) },
    { title: "p, Holm", value: (row) => row.p_holm, cell: (row) => formatP(row.p_holm), help: "corrected for all rows" },
    { title: "method", text: true, value: (row) => row.method },
  ];
  const table = new DataTable({ columns, rows: data.comparisons, label: "differences", size: 20, filter: (row) => `${row.other} ${measure(row).title}` });
  section("differences", `Differences from ${data.models[0].name}`, el("div", { class: "controls" },
    search("Filter by model or measure", (needle) => table.search(needle))), table.node);
}

/** Draws an element anew whenever one of its controls changes. */
function redrawn(make) {
  const host = el("div");
  const draw = () => host.replaceChildren(make());
  return { host, draw };
}

const measureOptions = data.measures.map((measure) => [measure.name, measure.title]);

function promptsSection() {
  if (data.texts.length < 2) return;
  let needle = "", name = data.main_measure;
  const counts = models.map((set) => countBy(set.text, data.texts.length));
  const { host, draw } = redrawn(() => {
    const measure = measures.get(name);
    const means = models.map((set) => meanBy(set.text, set.values[name], data.texts.length));
    const rows = data.texts.map((text, index) => ({ text, index })).filter((row) => counts.some((count) => count[row.index]));
    const columns = [
      { title: "prompt", text: true, wide: true, value: (row) => row.text },
      { title: "images", value: (row) => sum(counts.map((count) => count[row.index])) },
      ...models.map((set, place) => ({ title: set.name, value: (row) => means[place][row.index], cell: (row) => format(means[place][row.index], measure) })),
      ...models.slice(1).map((set, place) => ({
        title: `${set.name} − ${models[0].name}`,
        value: (row) => difference(means[place + 1][row.index], means[0][row.index]),
        cell: (row) => {
          const value = difference(means[place + 1][row.index], means[0][row.index]);
          return value === null ? "–" : signed(format(value, measure), value);
        },
      })),
    ];
    const table = new DataTable({ columns, rows, label: "prompts", size: 25, filter: (row) => row.text });
    promptTable = table;
    table.search(needle);
    return table.node;
  });
  let promptTable = null;
  draw();
  const chooser = select("Measure", measureOptions, (value) => { name = value; draw(); });
  chooser.box.value = name;
  section("prompts", "By prompt", el("div", { class: "controls" }, chooser.node,
    search("Filter prompts", (value) => { needle = value; promptTable.search(needle); })), host);
}

const difference = (one, other) => (isNumber(one) && isNumber(other) ? one - other : null);

function countBy(keys, size) {
  const counts = new Array(size).fill(0);
  for (const key of keys) if (key !== null) counts[key] += 1;
  return counts;
}

function meanBy(keys, values, size) {
  const totals = new Array(size).fill(0), counts = new Array(size).fill(0);
  keys.forEach((key, index) => {
    if (key !== null && isNumber(values[index])) { totals[key] += values[index]; counts[key] += 1; }
  });
  return totals.map((total, index) => (counts[index] ? total / counts[index] : null));
}

/** A file's name; a button that shows the image where the page has it. */
function fileCell({ set, index }) {
  if (set.thumb[index] === null) return set.file[index];
  return el("button", { type: "button", class: "link", onclick: () => enlarge(set, index) }, set.file[index]);
}

function imagesSection() {
  const rows = data.sets.flatMap((set) => set.file.map((_, index) => ({ set, index })));
  const text = (row) => (row.set.text[row.index] === null ? null : data.texts[row.set.text[row.index]]);
  const field = (name) => (row) => row.set[name][row.index];
  const columns = [
    { title: "file", text: true, value: field("file"), cell: fileCell },
    { title: "model", text: true, value: (row) => row.set.name },
    { title: "prompt", text: true, wide: true, value: text },
    { title: "seed", value: field("seed") },
    { title: "hands", value: field("hands"), help: "hands found" },
    { title: "asked", value: field("asked"), help: "raised fingers asked for" },
    { title: "counted", value: field("counted"), help: "raised fingers counted" },
    ...data.measures.map((measure) => ({
      title: measure.title, help: helpOf(measure), warning: measure.warning, value: (row) => row.set.values[measure.name][row.index],
      cell: (row) => {
        const value = row.set.values[measure.name][row.index];
        return measure.kind === "share" && isNumber(value) ? (value ? "yes" : "no") : format(value, measure);
      },
    })),
  ];
  const table = new DataTable({ columns, rows, label: "images", size: 25, filter: (row) => `${row.set.name}\n${row.set.file[row.index]}\n${text(row) ?? ""}` });
  section("images", "All images", el("div", { class: "controls" }, search("Filter by prompt, file or model", (needle) => table.search(needle))), table.node);
}

function aboutSection() {
  const notes = el("ul", {}, ...data.notes.map((note) => el("li", {}, note)));
  const meanings = el("ul", {}, ...data.measures.map((one) => el("li", {}, el("strong", {}, one.title), `: ${helpOf(one)}`)));
  const skipped = [...data.models, data.reference].flatMap((model) => model.skipped.map((one) => `${model.name}: ${one.file_name} (${one.reason})`));
  const facts = Object.entries({ ...data.settings, ...data.versions }).map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "text wide" }, typeof value === "string" ? value : JSON.stringify(value))));
  section("about", "Notes, meanings, settings", notes,
    el("details", {}, el("summary", {}, "What the measures mean"), meanings),
    skipped.length ? el("details", {}, el("summary", {}, `${skipped.length} files that could not be read`), el("ul", {}, ...skipped.map((one) => el("li", {}, one)))) : null,
    el("details", {}, el("summary", {}, "Settings and versions"), el("div", { class: "box" }, el("table", {}, el("tbody", {}, ...facts)))));
}

function headline() {
  const counts = data.models.map((model) => `${model.name} (${model.images.toLocaleString("en")})`).join(", ");
  const lines = models.slice(1).map((set) => {
    const own = data.comparisons.filter((row) => row.other === set.name);
    const sure = own.filter((row) => isNumber(row.p_holm) && row.p_holm < 0.05);
    const better = sure.filter((row) => row.difference.value > 0 === (measures.get(row.measure).better === "higher"));
    return `${set.name}: after Holm's correction better than ${models[0].name} in ${better.length} and worse in ${sure.length - better.length} of ${own.length} measures.`;
  });
  document.title = `Hands: ${data.models.map((model) => model.name).join(", ")}`;
  page.append(el("h1", {}, `Hands of ${data.models.map((model) => model.name).join(", ")}`),
    el("p", { class: "soft" }, `Images: ${counts}; reference: ${data.reference.path} (${data.reference.images.toLocaleString("en")}). ${data.date}`),
    el("ul", {}, ...lines.map((line) => el("li", {}, line))));
}
