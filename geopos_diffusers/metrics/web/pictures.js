// Pictures with landmarks: side by side, and in a gallery.

function drawn(thumb) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", `0 0 ${thumb.w} ${thumb.h}`);
  svg.setAttribute("aria-hidden", "true");
  for (const hand of thumb.hands) {
    CHAINS.forEach((chain, finger) => {
      const line = document.createElementNS(namespace, "polyline");
      line.setAttribute("points", chain.map((joint) => `${hand[2 * joint]},${hand[2 * joint + 1]}`).join(" "));
      line.setAttribute("stroke", COLORS[finger]);
      line.setAttribute("vector-effect", "non-scaling-stroke");
      svg.append(line);
    });
  }
  return svg;
}

function outcome(set, index) {
  if (!set.hands[index]) return ["missing", "no hand found"];
  const counted = `counted ${set.counted[index]}`;
  if (set.asked[index] === null) return ["", counted];
  return [set.asked[index] === set.counted[index] ? "right" : "wrong", `asked ${set.asked[index]}, ${counted}`];
}

/** A picture with its landmarks, framed by the outcome; it opens larger, with all of its values. */
function picture(set, index, ...captions) {
  const thumb = data.thumbs[set.thumb[index]];
  const [kind, words] = outcome(set, index);
  const hands = set.hands[index] > 1 ? `, ${set.hands[index]} hands` : "";
  if (!thumb) return el("figure", {}, el("div", { class: "picture none" }, "no picture"), el("figcaption", {}, set.name));
  const image = el("img", { src: thumb.src, alt: `${set.name}, ${words}${hands}`, width: thumb.w, height: thumb.h, class: thumb.w < 128 ? "pixels" : null });
  const button = el("button", { type: "button", class: `picture ${kind}`, title: set.file[index], onclick: () => enlarge(set, index) }, image, drawn(thumb));
  return el("figure", {}, button, el("figcaption", {}, ...captions, `${words}${hands}`));
}

function enlarge(set, index) {
  const thumb = data.thumbs[set.thumb[index]];
  const [kind, words] = outcome(set, index);
  const list = data.measures.filter((one) => isNumber(set.values[one.name][index])).map((one) =>
    el("tr", {}, el("th", { scope: "row" }, one.title), el("td", {}, format(set.values[one.name][index], one))));
  const box = el("dialog", { "aria-label": set.file[index], onclose: () => box.remove() },
    el("div", { class: "split" },
      el("div", {}, el("div", { class: `picture ${kind}` }, el("img", { src: thumb.src, alt: words, class: thumb.w < 128 ? "pixels" : null }), drawn(thumb)),
        el("p", {}, el("strong", {}, set.name), ` ${set.file[index]}`), el("p", {}, set.text[index] === null ? "" : data.texts[set.text[index]]),
        el("p", { class: "soft" }, `${words}; ${set.hands[index]} hands found${set.seed[index] === null ? "" : `; seed ${set.seed[index]}`}`)),
      el("div", { class: "box" }, el("table", {}, el("tbody", {}, ...list)))),
    el("div", { class: "pager" }, el("button", { type: "button", onclick: () => box.close() }, "Close")));
  page.append(box);
  box.showModal();
}

const frames = () => el("p", { class: "soft" }, "Frame:", ...[["right", "as many fingers as asked for"], ["wrong", "another number"],
  ["missing", "no hand found"], ["", "nothing asked for"]].flatMap(([kind, text]) => [el("span", { class: `key ${kind}` }), text]));

function checkbox(label, onchange) {
  return el("label", { class: "check" }, el("input", { type: "checkbox", checked: true, onchange: (event) => onchange(event.target.checked) }), label);
}

/** Groups of images of one prompt and noise: [{key, members: [index or null, a model each]}], where a picture is there. */
function groups() {
  const found = new Map();
  models.forEach((set, place) => set.group.forEach((key, index) => {
    if (key === null) return;
    if (!found.has(key)) found.set(key, new Array(models.length).fill(null));
    found.get(key)[place] = index;
  }));
  const shown = (members) => members.filter((index, place) => index !== null && models[place].thumb[index] !== null).length > 1;
  return [...found.values()].filter((members) => members[0] !== null && shown(members));
}

function sideBySideSection() {
  const all = models.length > 1 ? groups() : [];
  if (!all.length) return;
  let needle = "", order = "given", name = data.main_measure;
  const list = el("div", { class: "groups", style: `--models: ${models.length}` });
  let shown = all;
  const first = (members) => models[0].text[members[0]];
  const gain = (members) => {
    const sign = measures.get(name).better === "higher" ? 1 : -1;
    const gains = members.slice(1).map((index, place) =>
      index === null ? null : difference(models[place + 1].values[name][index], models[0].values[name][members[0]]));
    const known = gains.filter(isNumber);
    return known.length ? sign * sum(known) / known.length : null;
  };
  const pager = new Pager(12, (start, stop) => list.replaceChildren(...shown.slice(start, stop).map((members) => {
    const text = first(members);
    const seed = models[0].seed[members[0]];
    const figures = members.map((index, place) => (index === null ? el("figure") :
      picture(models[place], index, el("strong", {}, models[place].name), el("br"),
        `${measures.get(name).title}: ${format(models[place].values[name][index], measures.get(name))}`, el("br"))));
    return el("div", { class: "group" }, el("p", {}, text === null ? models[0].file[members[0]] : data.texts[text],
      el("span", { class: "soft" }, seed === null ? "" : ` (seed ${seed})`)), el("div", { class: "row" }, ...figures));
  })));
  const update = () => {
    shown = all.filter((members) => !needle || (data.texts[first(members)] ?? models[0].file[members[0]]).toLowerCase().includes(needle));
    if (order !== "given") {
      const known = shown.filter((members) => gain(members) !== null);
      shown = known.sort((one, other) => (order === "gain" ? gain(other) - gain(one) : gain(one) - gain(other)));
    }
    pager.reset(shown.length);
  };
  const measure = select("Measure", measureOptions, (value) => { name = value; update(); });
  measure.box.value = name;
  const orders = select("Order", [["given", "as given"], ["gain", "largest gain first"], ["loss", "largest loss first"]], (value) => { order = value; update(); });
  section("same", "Side by side", frames(), el("p", { class: "soft" }, data.pairing),
    el("div", { class: "controls" }, measure.node, orders.node, search("Filter prompts", (value) => { needle = value; update(); }),
      checkbox("landmarks", (on) => list.classList.toggle("plain", !on))), pager.node, list);
  update();
}

function gallerySection() {
  let set = data.sets[0], view = "worst", name = data.main_measure;
  const grid = el("div", { class: "gallery" });
  let shown = [];
  const pager = new Pager(24, (start, stop) => grid.replaceChildren(...shown.slice(start, stop).map((index) =>
    picture(set, index, `${measures.get(name).title}: ${format(set.values[name][index], measures.get(name))}`, el("br")))));
  const update = () => {
    const value = (index) => set.values[name][index];
    shown = set.file.map((_, index) => index).filter((index) => set.thumb[index] !== null);
    if (view === "several") shown = shown.filter((index) => set.hands[index] > 1);
    if (view === "none") shown = shown.filter((index) => !set.hands[index]);
    if (view === "best" || view === "worst") {
      const sign = (measures.get(name).better === "higher") === (view === "best") ? -1 : 1;
      shown = shown.filter((index) => isNumber(value(index))).sort((one, other) => sign * (value(one) - value(other)));
    }
    pager.reset(shown.length);
  };
  const views = [["worst", "worst first"], ["best", "best first"], ["all", "all, as given"], ["several", "more than one hand"], ["none", "no hand found"]];
  const measure = select("Measure", measureOptions, (value) => { name = value; update(); });
  measure.box.value = name;
  section("gallery", "Gallery", frames(), el("p", { class: "soft" }, data.selection),
    el("div", { class: "controls" }, select("Images", data.sets.map((one, index) => [index, one.name]), (value) => { set = data.sets[value]; update(); }).node,
      select("Show", views, (value) => { view = value; update(); }).node, measure.node,
      checkbox("landmarks", (on) => grid.classList.toggle("plain", !on))), pager.node, grid);
  update();
}
