// Maps in the page: the gene explorer and the maps of spots. Their data are made by explorer.py: #explorer-facts (JSON) and
// #explorer-values (a line of base64 per gene, unpacked when the gene is shown). Names from data are only ever set as text.
"use strict";
(() => {
  const holder = document.getElementById("explorer-facts");
  if (!holder) return;
  const facts = JSON.parse(holder.textContent);
  const lines = document.getElementById("explorer-values").textContent.split("\n");
  const MISSING = 255;
  const GREY = "#c4cad0";
  const VIRIDIS = Array.from({ length: 255 }, (_, k) => d3.interpolateViridis(k / 254)).concat(GREY);
  // Okabe and Ito's colours, then lighter and darker ones; beyond 14 groups colours repeat, and the legend's buttons show a group alone
  const GROUPS =
    "#0072b2 #e69f00 #009e73 #cc79a7 #d55e00 #56b4e9 #8c6d00 #4d4d4d #9fd8c4 #7b3294 #f0c987 #00465f #b5b5b5 #7f1d1d".split(
      " ",
    );

  const number = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits).replace("-", "\u2212") : "n/a");
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // ---- a row of maps with one zoom and one hovered spot

  const xy = facts.x.map((x, k) => [x, facts.y[k]]);
  const delaunay = d3.Delaunay.from(xy);
  /** Lowest and highest finite value. */
  function range(values) {
    let [low, high] = [Infinity, -Infinity];
    for (const v of values) {
      if (v < low) low = v;
      if (v > high) high = v;
    }
    return [low, high];
  }
  const [x0, x1] = range(facts.x);
  const [y0, y1] = range(facts.y);
  const RATIO = Math.min(1.1, Math.max(0.45, (y1 - y0 + 2 * facts.step) / (x1 - x0 + 2 * facts.step)));

  /** Positions in a map of this size before any zoom. */
  function fitted(width, height) {
    const scale = Math.min(width / (x1 - x0 + 2 * facts.step), height / (y1 - y0 + 2 * facts.step));
    return { scale, left: width / 2 - (scale * (x0 + x1)) / 2, top: height / 2 - (scale * (y0 + y1)) / 2 };
  }

  /** Positions of spots in the order of their colours, and where each colour ends: a colour is filled at once. */
  function byColour(codes, n) {
    const ends = new Int32Array(n);
    for (const code of codes) ends[code] += 1;
    for (let k = 1; k < n; k += 1) ends[k] += ends[k - 1];
    const next = new Int32Array(n);
    for (let k = 1; k < n; k += 1) next[k] = ends[k - 1];
    const order = new Int32Array(codes.length);
    codes.forEach((code, i) => (order[next[code]++] = i));
    return { order, ends };
  }

  function draw(context, panel, width, height, view) {
    const { scale, left, top } = fitted(width, height);
    const radius = Math.max(0.7, facts.step * (facts.binned ? 0.5 : 0.52) * scale * view.k);
    const square = facts.binned || radius < 1.6;
    const { order, ends } = panel.sorted;
    panel.colours.forEach((colour, code) => {
      const begin = code ? ends[code - 1] : 0;
      if (begin === ends[code]) return;
      context.fillStyle = colour;
      context.globalAlpha = panel.alone == null || panel.alone === code ? 1 : 0.12;
      context.beginPath();
      for (let j = begin; j < ends[code]; j += 1) {
        const i = order[j];
        const x = (facts.x[i] * scale + left) * view.k + view.x;
        const y = (facts.y[i] * scale + top) * view.k + view.y;
        if (x < -radius || y < -radius || x > width + radius || y > height + radius) continue;
        if (square) context.rect(x - radius, y - radius, 2 * radius, 2 * radius);
        else {
          context.moveTo(x + radius, y);
          context.arc(x, y, radius, 0, 2 * Math.PI);
        }
      }
      context.fill();
    });
    context.globalAlpha = 1;
  }

  class Maps {
    /** Maps in ``host``, which takes the keys + - 0; ``said(i)``: the hovered place in words, null for none. */
    constructor(host, said) {
      this.host = host;
      this.said = said;
      this.view = d3.zoomIdentity;
      this.cards = [];
      this.place = null;
      this.zoom = d3
        .zoom()
        .scaleExtent([1, 60])
        .filter((event) => {
          // the page must still scroll over a map: the wheel zooms with Ctrl, or once the maps were clicked; fingers pan with two
          if (event.type === "wheel") return event.ctrlKey || event.metaKey || host.contains(document.activeElement);
          return !event.button && !(event.touches && event.touches.length < 2);
        })
        .on("zoom", ({ transform }) => {
          this.view = transform;
          for (const card of this.cards) card.top.__zoom = transform;
          this.redraw();
        });
      host.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        if (event.key === "+" || event.key === "=") this.scaleBy(1.5);
        else if (event.key === "-") this.scaleBy(1 / 1.5);
        else if (event.key === "0") this.reset();
        else return;
        event.preventDefault();
      });
      new ResizeObserver(() => this.redraw()).observe(host);
    }

    scaleBy(factor) {
      if (this.cards.length) d3.select(this.cards[0].top).call(this.zoom.scaleBy, factor);
    }

    reset() {
      if (this.cards.length) d3.select(this.cards[0].top).call(this.zoom.transform, d3.zoomIdentity);
    }

    /** Show these panels: title, codes and colours (code -> colour), value(i) as text, legend (an element), alt. */
    show(panels) {
      while (this.cards.length < panels.length) this.add();
      this.cards.forEach((card, k) => {
        const panel = panels[k];
        card.figure.hidden = !panel;
        card.panel = panel;
        if (!panel) return;
        panel.sorted = panel.codes ? byColour(panel.codes, panel.colours.length) : null;
        card.title.textContent = panel.title;
        card.empty.textContent = panel.codes ? "" : panel.empty;
        card.canvas.setAttribute("aria-label", panel.alt);
        card.legend.replaceChildren(panel.legend || "");
      });
      this.paint();
    }

    add() {
      const canvas = element("canvas");
      canvas.setAttribute("role", "img");
      const top = element("canvas", { className: "over" });
      top.setAttribute("aria-hidden", "true");
      const title = element("figcaption");
      const empty = element("p", { className: "empty" });
      const legend = element("div", { className: "legend" });
      const frame = element("div", { className: "frame" }, canvas, top, empty);
      frame.style.aspectRatio = `1 / ${RATIO}`;
      const figure = element("figure", {}, title, frame, legend);
      this.host.append(figure);
      this.cards.push({ canvas, top, title, empty, legend, figure, frame });
      d3.select(top).call(this.zoom);
      top.addEventListener("pointerdown", () => this.host.focus({ preventScroll: true }));
      top.addEventListener("pointermove", (event) => this.hover(event));
      top.addEventListener("pointerleave", () => this.point(null));
    }

    hover(event) {
      const { scale, left, top } = fitted(event.target.clientWidth, event.target.clientHeight);
      const [px, py] = this.view.invert([event.offsetX, event.offsetY]);
      const [x, y] = [(px - left) / scale, (py - top) / scale];
      const i = delaunay.find(x, y);
      this.point(Math.hypot(xy[i][0] - x, xy[i][1] - y) < 1.5 * facts.step ? i : null);
    }

    /** Mark a place on all maps, with its value beside it. */
    point(i) {
      if (i === this.place) return;
      this.place = i;
      this.said(i);
      this.mark();
    }

    sized(canvas) {
      const ratio = window.devicePixelRatio || 1;
      const [width, height] = [canvas.parentElement.clientWidth, canvas.parentElement.clientHeight];
      const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
      const context = canvas.getContext("2d");
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      return [context, width, height];
    }

    redraw() {
      cancelAnimationFrame(this.waiting);
      this.waiting = requestAnimationFrame(() => this.paint());
    }

    paint() {
      for (const { canvas, panel, frame } of this.cards) {
        if (!panel || !frame.clientWidth) continue;
        const [context, width, height] = this.sized(canvas);
        if (panel.codes) draw(context, panel, width, height, this.view);
      }
      this.mark();
    }

    mark() {
      for (const { top, panel, frame } of this.cards) {
        if (!panel || !frame.clientWidth) continue;
        const [context, width, height] = this.sized(top);
        const i = this.place;
        if (i === null || !panel.codes) continue;
        const { scale, left, top: above } = fitted(width, height);
        const x = (facts.x[i] * scale + left) * this.view.k + this.view.x;
        const y = (facts.y[i] * scale + above) * this.view.k + this.view.y;
        const radius = Math.max(5, facts.step * 0.6 * scale * this.view.k);
        for (const [colour, line] of [
          ["#fff", 4],
          ["#000", 1.75],
        ]) {
          context.strokeStyle = colour;
          context.lineWidth = line;
          context.beginPath();
          context.arc(x, y, radius, 0, 2 * Math.PI);
          context.stroke();
        }
        const text = panel.value(i);
        context.font = "600 13px system-ui, sans-serif";
        const long = context.measureText(text).width + 12;
        const tx = Math.max(2, Math.min(x + radius + 5, width - long - 2));
        const ty = y - radius - 26 > 2 ? y - radius - 26 : y + radius + 5;
        context.fillStyle = "#14191ef0";
        context.fillRect(tx, ty, long, 22);
        context.fillStyle = "#fff";
        context.fillText(text, tx + 6, ty + 15.5);
      }
    }
  }

  function bar(low, high, show = number) {
    const strip = element("span", { className: "strip" });
    strip.style.background = `linear-gradient(to right, ${VIRIDIS.slice(0, 255)
      .filter((_, k) => k % 15 === 0)
      .concat(VIRIDIS[254])})`;
    return element(
      "div",
      { className: "colourbar" },
      element("span", { textContent: show(low) }),
      strip,
      element("span", { textContent: show(high) }),
    );
  }

  /** Values as positions in a scale of colours. Plain loops here and below: they run for every spot when a gene is shown. */
  function coded(values, low, high) {
    const codes = new Uint8Array(values.length);
    const by = 254 / (high - low || 1);
    for (let i = 0; i < codes.length; i += 1) {
      const v = values[i];
      codes[i] = Number.isFinite(v) ? Math.round(Math.min(254, Math.max(0, (v - low) * by))) : MISSING;
    }
    return codes;
  }

  // ---- maps of spots

  const spots = document.getElementById("spot-maps");
  if (spots) {
    document.getElementById("tissue-section").hidden = false; // without a script there would be nothing to see
    const line = document.getElementById("spot-place");
    const maps = new Maps(spots, (i) => (line.textContent = i === null ? line.dataset.idle : facts.names[i]));
    const thousands = d3.format(",.3~r");
    const percent = (v) => `${number(100 * v, 1)} %`;
    const panels = facts.spots.map((map) => {
      if (map.kind === "group") {
        const colours = map.labels.map((_, k) => GROUPS[k % GROUPS.length]);
        const panel = {
          title: map.title,
          codes: Uint8Array.from(map.values),
          colours,
          value: (i) => map.labels[map.values[i]],
        };
        panel.alt = `Map of ${map.title}: ${map.labels.length} groups. ${map.note}`;
        panel.legend = element("div", { className: "groups" });
        map.labels.forEach((label, k) => {
          const dot = element("span", { className: "dot" });
          dot.style.background = colours[k];
          const button = element("button", { type: "button", title: "show alone" }, dot, label);
          button.setAttribute("aria-pressed", "false");
          button.addEventListener("click", () => {
            panel.alone = panel.alone === k ? null : k;
            [...panel.legend.children].forEach((b, j) => b.setAttribute("aria-pressed", String(panel.alone === j)));
            maps.redraw();
          });
          panel.legend.append(button);
        });
        return panel;
      }
      const log = map.kind === "log";
      const bend = (v) => (v === null ? NaN : log ? Math.log10(Math.max(v, 1)) : v);
      const show = map.kind === "share" ? percent : thousands;
      return {
        title: log ? `${map.title} (log scale)` : map.title,
        codes: coded(map.values.map(bend), bend(map.low), bend(map.high)),
        colours: VIRIDIS,
        value: (i) => (map.values[i] === null ? "n/a" : show(map.values[i])),
        legend: bar(map.low, map.high, show),
        alt: `Map of ${map.title} per spot, ${show(map.low)} to ${show(map.high)}. ${map.note}`,
      };
    });
    maps.show(panels);
  }

  // ---- the gene explorer

  const host = document.getElementById("explorer");
  const $ = (id) => document.getElementById(id);
  const index = new Map(facts.genes.map((gene, k) => [gene.name, k]));
  let order = facts.genes.map((gene) => gene.name);
  let current = null; // { gene, panels, values }
  let wanted = null;

  const maps = new Maps($("gene-maps"), (i) => {
    $("gene-place").textContent = i === null ? $("gene-place").dataset.idle : facts.names[i];
  });

  async function unpack(k) {
    const bytes = Uint8Array.from(atob(lines[k]), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")); // zlib's format
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /** The gene's values per place: imputed, lower, upper (null where not known) and measured (or null). */
  function values(gene, bytes) {
    const n = facts.x.length;
    const parts = gene.ranges.map(([low, high], p) => {
      const part = new Float32Array(n);
      for (let i = 0; i < n; i += 1) {
        const code = bytes[p * n + i];
        part[i] = code === MISSING ? NaN : low + (code / 254) * (high - low);
      }
      return part;
    });
    const imputed = parts[0];
    const lower = gene.half === null ? parts[1] : imputed.map((v) => Math.max(v - gene.half, 0));
    const upper = gene.half === null ? null : imputed.map((v) => v + gene.half);
    return { imputed, lower, upper, measured: gene.measured ? parts[parts.length - 1] : null };
  }

  const extremes = (v) => {
    const [a, b] = range(v);
    return `${number(a)} to ${number(b)}`;
  };

  function panelsOf(gene, v) {
    const shared = $("scale").value === "shared";
    const panel = (title, data, what) => {
      const [low, high] = shared || !data ? gene.scale : range(data);
      return {
        title,
        codes: data && coded(data, low, high),
        colours: VIRIDIS,
        value: (i) => number(data[i]),
        legend: data && bar(low, high),
        empty: "This slide did not measure the gene.",
        alt: data ? `Map of ${gene.name}, ${what}: ${extremes(data)}` : `${gene.name} was not measured on this slide`,
      };
    };
    const made = [
      panel("imputed", v.imputed, "imputed"),
      panel("lower end of the 90 % interval", v.lower, "lower end of the 90 % interval"),
      panel("measured", v.measured, "measured"),
    ];
    if (v.upper) made[0].value = (i) => `${number(v.imputed[i])}  (${number(v.lower[i])} to ${number(v.upper[i])})`;
    return made;
  }

  async function select(name, remember = true) {
    const k = index.get(name);
    if (k === undefined) return false;
    const begun = performance.now();
    wanted = name;
    const gene = facts.genes[k];
    const bytes = await unpack(k);
    if (wanted !== name) return true; // another gene was asked for meanwhile
    const v = values(gene, bytes);
    current = { gene, v, panels: panelsOf(gene, v) };
    maps.show(current.panels);
    $("gene-name").textContent = name;
    $("gene-class").textContent = gene.class;
    $("gene-class").className = `tag ${{ reliable: "reliable", "use with care": "care" }[gene.class] || "not"}`;
    const said = [`expected PCC ${number(gene.reliability)}`];
    if (gene.pcc !== null) said.push(`true PCC while hidden ${number(gene.pcc)}`);
    if (gene.half !== null) said.push(`90 % interval: imputed ± ${number(gene.half)}`);
    $("gene-numbers").textContent = said.join(" · ");
    $("gene-why").textContent = gene.why ? `Why: ${gene.why}.` : "";
    const at = order.indexOf(name);
    $("gene-at").textContent = at < 0 ? "" : `${(at + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}`;
    document.querySelectorAll("#genes tr[aria-current]").forEach((row) => row.removeAttribute("aria-current"));
    document.querySelector(`#genes tr[data-k="${k}"]`)?.setAttribute("aria-current", "true");
    if (remember) {
      try {
        history.replaceState(null, "", `#gene=${encodeURIComponent(name)}`);
      } catch {
        // a page without an address of its own (a mail program's preview) has nothing to remember it in
      }
    }
    host.dataset.gene = name;
    host.dataset.milliseconds = (performance.now() - begun).toFixed(1);
    return true;
  }

  function step(by) {
    if (!order.length) return;
    const at = order.indexOf(current?.gene.name);
    select(order[at < 0 ? 0 : (at + by + order.length) % order.length]);
  }

  // search box with suggestions: a combobox as WAI-ARIA has it
  const search = $("search");
  const list = $("suggestions");
  let active = -1;

  function suggest() {
    const text = search.value.trim().toLowerCase();
    const names = facts.genes.map((gene) => gene.name);
    const begins = names.filter((name) => name.toLowerCase().startsWith(text));
    const holds = names.filter((name) => !name.toLowerCase().startsWith(text) && name.toLowerCase().includes(text));
    const found = begins
      .sort((a, b) => a.length - b.length || (a < b ? -1 : 1))
      .concat(holds)
      .slice(0, 10);
    list.replaceChildren(
      ...found.map((name, k) => {
        const gene = facts.genes[index.get(name)];
        const option = element(
          "li",
          { id: `suggestion-${k}` },
          element("span", { textContent: name }),
          element("span", { className: "note", textContent: gene.class }),
        );
        option.dataset.name = name;
        option.setAttribute("role", "option");
        option.setAttribute("aria-selected", "false");
        option.addEventListener("pointerdown", (event) => {
          event.preventDefault();
          take(name);
        });
        return option;
      }),
    );
    if (!found.length)
      list.replaceChildren(element("li", { className: "note", textContent: "no gene of this name in the explorer" }));
    open(true);
    mark(found.length && text ? 0 : -1);
  }

  function open(yes) {
    list.hidden = !yes;
    search.setAttribute("aria-expanded", String(yes));
    if (!yes) mark(-1);
  }

  function mark(k) {
    active = k;
    [...list.children].forEach((option, j) => option.role && option.setAttribute("aria-selected", String(j === k)));
    if (k < 0) search.removeAttribute("aria-activedescendant");
    else {
      search.setAttribute("aria-activedescendant", `suggestion-${k}`);
      list.children[k].scrollIntoView({ block: "nearest" });
    }
  }

  function take(name) {
    search.value = "";
    open(false);
    select(name);
  }

  search.addEventListener("input", suggest);
  search.addEventListener("focus", suggest);
  search.addEventListener("blur", () => open(false));
  search.addEventListener("keydown", (event) => {
    const options = [...list.children].filter((o) => o.dataset.name);
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && options.length) {
      if (list.hidden) suggest();
      mark((active + (event.key === "ArrowDown" ? 1 : -1) + options.length) % options.length);
      event.preventDefault();
    } else if (event.key === "Enter" && options[active]) {
      take(options[active].dataset.name);
      $("gene-maps").focus({ preventScroll: true });
    } else if (event.key === "Escape") open(false);
  });

  host.addEventListener("keydown", (event) => {
    if (event.target === search || event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey)
      return;
    if (event.key === "ArrowLeft" || event.key === "ArrowUp") step(-1);
    else if (event.key === "ArrowRight" || event.key === "ArrowDown") step(1);
    else return;
    event.preventDefault();
  });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("nearer").addEventListener("click", () => maps.scaleBy(1.5));
  $("farther").addEventListener("click", () => maps.scaleBy(1 / 1.5));
  $("whole").addEventListener("click", () => maps.reset());
  $("scale").addEventListener("change", () => {
    if (!current) return;
    current.panels = panelsOf(current.gene, current.v);
    maps.show(current.panels);
  });

  // ---- downloads

  function download(blob, ending) {
    const name = `${host.dataset.sample}.${current.gene.name}`.replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 100);
    const link = element("a", { href: URL.createObjectURL(blob), download: `${name}.${ending}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  /** A field of a CSV. What a spreadsheet would take for a formula gets an apostrophe before it. */
  const field = (text) => `"${(/^[=+@\t\r-]/.test(text) ? "'" : "") + text.replaceAll('"', '""')}"`;

  $("csv").addEventListener("click", () => {
    if (!current) return;
    const { imputed, lower, upper, measured } = current.v;
    const columns = [imputed, lower, upper, measured];
    const rows = facts.names.map((name, i) =>
      [
        field(name),
        facts.x[i],
        facts.y[i],
        ...columns.map((c) => (c && Number.isFinite(c[i]) ? c[i].toFixed(4) : "")),
      ].join(","),
    );
    download(new Blob(["spot,x,y,imputed,lower,upper,measured\n", rows.join("\n"), "\n"], { type: "text/csv" }), "csv");
  });

  $("png").addEventListener("click", () => {
    if (!current) return;
    const panels = current.panels.filter((panel) => panel.codes);
    const [size, gap, head, foot] = [900, 30, 155, 90];
    const tall = Math.round(size * RATIO);
    const canvas = element("canvas", { width: panels.length * (size + gap) + gap, height: head + tall + foot });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = "#1b2733";
    context.font = "700 40px system-ui, sans-serif";
    context.fillText(current.gene.name, gap, 52);
    context.font = "26px system-ui, sans-serif";
    const about = `${host.dataset.sample} · ${current.gene.class} · ${$("gene-numbers").textContent}`;
    context.fillText(about, gap, 92, canvas.width - 2 * gap);
    // what the page shows, as it is zoomed there
    const factor = size / (maps.cards[0].frame.clientWidth || size);
    const view = { k: maps.view.k, x: maps.view.x * factor, y: maps.view.y * factor };
    panels.forEach((panel, p) => {
      const left = gap + p * (size + gap);
      context.save();
      context.translate(left, head);
      context.beginPath();
      context.rect(0, 0, size, tall);
      context.clip();
      draw(context, panel, size, tall, view);
      context.restore();
      context.fillStyle = "#1b2733";
      context.font = "600 26px system-ui, sans-serif";
      context.fillText(panel.title, left, head - 8);
      const shade = context.createLinearGradient(left + 90, 0, left + size - 90, 0);
      for (let k = 0; k <= 16; k += 1) shade.addColorStop(k / 16, d3.interpolateViridis(k / 16));
      context.fillStyle = shade;
      context.fillRect(left + 90, head + tall + 34, size - 180, 22);
      context.fillStyle = "#1b2733";
      context.font = "24px system-ui, sans-serif";
      const [low, high] = panel.legend.querySelectorAll("span:not(.strip)");
      context.textAlign = "right";
      context.fillText(low.textContent, left + 80, head + tall + 54);
      context.textAlign = "left";
      context.fillText(high.textContent, left + size - 80, head + tall + 54);
    });
    canvas.toBlob((blob) => download(blob, "png"), "image/png");
  });

  // ---- which gene: the address, the table, the best one

  const asked = () => {
    const found = /^#gene=(.+)$/.exec(location.hash);
    try {
      return found && decodeURIComponent(found[1]);
    } catch {
      return null;
    }
  };
  addEventListener("hashchange", async () => {
    const name = asked();
    if (name === null || name === current?.gene.name) return;
    if (await select(name, false)) host.scrollIntoView({ block: "start" });
  });
  document.getElementById("genes")?.addEventListener("click", async (event) => {
    const link = event.target.closest("a[href^='#gene=']");
    if (!link) return;
    event.preventDefault();
    if (await select(link.textContent)) {
      host.scrollIntoView({ block: "start" });
      $("gene-maps").focus({ preventScroll: true });
    }
  });
  document.addEventListener("spadit-genes", ({ detail }) => {
    order = detail.filter((name) => index.has(name));
    const at = order.indexOf(current?.gene.name);
    $("gene-at").textContent = at < 0 ? "" : `${(at + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}`;
  });
  if (typeof DecompressionStream === "undefined") {
    $("gene-name").textContent = "This browser is too old to unpack the maps: use one of 2023 or newer.";
    return;
  }
  host.classList.add("ready");
  (async () => {
    const name = asked();
    if (name !== null && (await select(name, false))) host.scrollIntoView({ block: "start", behavior: "instant" });
    else if (facts.genes.length) await select(host.dataset.first, false);
  })();
})();
