"use strict";
// The page's data is one JSON object; report/html.rs says what is in it. Every string is put on the
// page as text, never as markup. Rows are made only for what is scrolled into view, so that ten
// thousand processes are no more work than fifty.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  // Lanes are drawn in these units and stretched to their width.
  const LANE = 1000, LANE_HEIGHT = 24, THINNEST = 2.5;
  const PRINTED_MAX = 1500, TABLE_MAX = 2000, OVERSCAN = 8;
  const byId = (id) => document.getElementById(id);

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function duration(ns) {
    const units = [["s", 1e9], ["ms", 1e6], ["us", 1e3]];
    for (const [unit, size] of units) {
      const value = ns / size;
      if (value >= 1) return `${value < 999.5 ? value.toPrecision(3) : Math.round(value)} ${unit}`;
    }
    return `${Math.round(ns)} ns`;
  }

  function table(into, heads, rows) {
    if (rows.length === 0) {
      into.append(make("p", "", "none"));
      return;
    }
    const element = make("table");
    const head = element.createTHead().insertRow();
    // Columns with nothing in them are left out.
    const used = heads.map((_, at) => rows.some((row) => row[at] !== ""));
    const shown = rows.slice(0, TABLE_MAX);
    // Long texts get room, and short ones are not broken for it.
    const widths = heads.map((_, at) => {
      const longest = shown.reduce((most, row) => Math.max(most, row[at].length), 0);
      return longest <= 16 ? " short" : longest > 36 ? " long" : "";
    });
    for (const [title, kind] of heads.filter((_, at) => used[at])) {
      const cell = make("th", kind === "number" ? "number" : "", title);
      cell.scope = "col";
      head.append(cell);
    }
    const body = element.createTBody();
    for (const row of shown) {
      const line = body.insertRow();
      row.forEach((text, at) => used[at] && line.append(make("td", heads[at][1] + widths[at], text)));
    }
    into.append(element);
    if (rows.length > TABLE_MAX) {
      into.append(make("p", "", `... and ${rows.length - TABLE_MAX} more, in the recording`));
    }
  }

  function pairs(into, list) {
    for (const [name, value] of list) {
      into.append(make("dt", "", name), make("dd", "", value));
    }
  }

  // The rows: each process before its connections and its children, each connection before its calls, as
  // a list with depths.
  const rows = data.rows;
  const isWire = (row) => row.destination !== undefined;
  const isCall = (row) => row.call !== undefined;
  const isProcess = (row) => row.execs !== undefined;
  const lastExec = (row) => row.execs[row.execs.length - 1];
  const label = (row) => {
    if (!isProcess(row)) return row.call ?? row.destination;
    return row.execs.length > 0 ? lastExec(row).line : "(fork, no exec)";
  };
  const note = (row) => (isProcess(row) ? `[${row.pid}] ${row.end}` : row.outcome);
  // Of a call that was not read to its end, the last moment that is known.
  const until = (row) => row.to ?? (isCall(row) ? row.answered ?? row.from : data.span);
  const isBad = (row) => (isProcess(row) ? row.execs.some((exec) => exec.bad) : row.bad === true);
  const hasChildren = (at) => at + 1 < rows.length && rows[at + 1].depth > rows[at].depth;

  const closed = new Set();
  let shown = [];
  let chosen = 0;
  let from = 0, to = Math.max(data.span, 1);
  let printing = false;

  function matching() {
    const words = byId("filter").value.toLowerCase();
    const onlyBad = byId("only-bad").checked;
    const wires = byId("with-connections").checked, calls = byId("with-calls").checked;
    const wanted = (row) =>
      (wires || !isWire(row)) &&
      (calls || !isCall(row)) &&
      (!onlyBad || isBad(row)) &&
      (words === "" || `${label(row)} ${note(row)}`.toLowerCase().includes(words));
    if (words === "" && !onlyBad) return rows.map(wanted);
    // What is above a match is shown with it.
    const keep = new Array(rows.length).fill(false);
    let needed = -1;
    for (let at = rows.length - 1; at >= 0; at -= 1) {
      keep[at] = wanted(rows[at]) || rows[at].depth < needed;
      if (keep[at]) needed = rows[at].depth;
    }
    return keep;
  }

  function choose_rows() {
    const keep = matching();
    shown = [];
    let above = Infinity;
    rows.forEach((row, at) => {
      if (row.depth > above) return;
      above = closed.has(at) ? row.depth : Infinity;
      if (keep[at]) shown.push(at);
    });
    if (!shown.includes(chosen)) chosen = shown[0] ?? -1;
    byId("shown").textContent = `${shown.length} of ${rows.length} rows`;
    byId("rows").setAttribute("aria-rowcount", String(shown.length));
    byId("board").classList.toggle("short", shown.length * LANE_HEIGHT < 500);
    draw();
  }

  // Position in a lane, cut at its ends.
  const place = (ns) => Math.min(Math.max((ns - from) / (to - from), -0.01), 1.01) * LANE;

  function bar(svg, className, start, end, top, height) {
    if (end < from || start > to) return;
    const rect = document.createElementNS(SVG, "rect");
    const x = place(start);
    rect.setAttribute("class", className);
    rect.setAttribute("x", x.toFixed(2));
    rect.setAttribute("y", top);
    rect.setAttribute("width", Math.max(place(end) - x, THINNEST).toFixed(2));
    rect.setAttribute("height", height);
    svg.append(rect);
  }

  function lane(row, marks) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${LANE} ${LANE_HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    for (const at of marks) bar(svg, "grid", at, at, 0, LANE_HEIGHT);
    if (isCall(row)) {
      const answered = row.answered ?? until(row);
      bar(svg, row.went_well ? "waiting" : "failed", row.from, answered, 7, 10);
      bar(svg, row.went_well ? "call" : "failed", answered, until(row), 7, 10);
      return svg;
    }
    if (isWire(row)) {
      const connected = row.connected ?? until(row);
      const early = row.established ? "early" : "failed";
      bar(svg, early, row.from, connected, 8, 8);
      if (row.established) bar(svg, "wire", connected, until(row), 8, 8);
      return svg;
    }
    const first = row.execs.length > 0 ? row.execs[0].at : until(row);
    bar(svg, "fork", row.from, first, 9, 6);
    row.execs.forEach((exec, index) => {
      const end = row.execs[index + 1]?.at ?? until(row);
      const kind = index % 2 === 0 ? "program" : "program next";
      bar(svg, exec.bad ? "bad" : kind, exec.at, end, 5, 14);
    });
    for (const at of row.marks ?? []) bar(svg, "mark", at, at, 1, 22);
    return svg;
  }

  // Round times, as many as have room for their names.
  function ticks() {
    const most = Math.min(Math.max(Math.floor(byId("ticks").clientWidth / 75), 1), 10);
    let size = 10 ** Math.floor(Math.log10((to - from) / most));
    for (const by of [2, 2.5, 2, 2]) if ((to - from) / size > most) size *= by;
    const list = [];
    for (let at = Math.ceil(from / size) * size; at <= to && list.length <= most; at += size) list.push(at);
    return list;
  }

  function row_element(at, index, marks) {
    const row = rows[at];
    const element = make("div", "row");
    element.classList.toggle("bad", isBad(row));
    element.classList.toggle("wire", isWire(row));
    element.classList.toggle("call", isCall(row));
    element.classList.toggle("failed", (isWire(row) && !row.established) || (isCall(row) && !row.went_well));
    element.classList.toggle("chosen", at === chosen);
    element.id = `row-${at}`;
    element.setAttribute("role", "row");
    element.setAttribute("aria-level", String(row.depth + 1));
    element.setAttribute("aria-rowindex", String(index + 1));
    element.setAttribute("aria-selected", String(at === chosen));
    if (hasChildren(at)) element.setAttribute("aria-expanded", String(!closed.has(at)));
    const name = make("div", "name");
    name.setAttribute("role", "gridcell");
    const twig = make("span", "twig", hasChildren(at) ? (closed.has(at) ? "\u25b8" : "\u25be") : "");
    twig.setAttribute("aria-hidden", "true");
    name.style.paddingLeft = `${Math.min(row.depth, 24) * 0.9}rem`;
    const text = isBad(row) ? `\u2716 ${label(row)}` : label(row);
    name.append(twig, make("span", "label", text), make("span", "note", note(row)));
    const cell = make("div", "lane");
    cell.setAttribute("role", "gridcell");
    cell.setAttribute("aria-label", `from ${duration(row.from)} to ${duration(until(row))}`);
    cell.append(lane(row, marks));
    element.append(name, cell);
    return element;
  }

  function draw() {
    const box = byId("rows");
    const marks = ticks();
    const line = LANE_HEIGHT;
    // Before the box is measured, whose height may depend on it.
    byId("space").style.height = printing ? "auto" : `${shown.length * line}px`;
    let first = Math.max(0, Math.floor(box.scrollTop / line) - OVERSCAN);
    let end = Math.min(shown.length, Math.ceil((box.scrollTop + box.clientHeight) / line) + OVERSCAN);
    if (printing) [first, end] = [0, Math.min(shown.length, PRINTED_MAX)];
    byId("window").style.transform = printing ? "none" : `translateY(${first * line}px)`;
    const elements = shown.slice(first, end).map((at, index) => row_element(at, first + index, marks));
    byId("window").replaceChildren(...elements);
    byId("ticks").replaceChildren(
      ...marks.map((at) => {
        const tick = make("i", "", at === 0 ? "0" : duration(at));
        tick.style.left = `${place(at) / LANE * 100}%`;
        return tick;
      }),
    );
    if (chosen >= 0 && byId(`row-${chosen}`)) box.setAttribute("aria-activedescendant", `row-${chosen}`);
    else box.removeAttribute("aria-activedescendant");
  }

  let asked = false;
  function draw_soon() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  }

  function details() {
    const panel = byId("details");
    panel.replaceChildren();
    const row = rows[chosen];
    if (!row) return;
    const add = (title, list) => {
      const dl = make("dl");
      pairs(dl, list.filter(([, value]) => value !== undefined && value !== ""));
      panel.append(make("h3", "", title), dl);
    };
    const times = [
      ["from", duration(row.from)],
      ["to", row.to === undefined ? "not seen to end" : duration(row.to)],
    ];
    if (isCall(row)) {
      const answered = row.answered === undefined ? "not read" : duration(row.answered);
      const ended = row.to === undefined ? "not read to its end" : duration(row.to);
      const took = row.to === undefined ? "" : duration(row.to - row.from);
      const known = [["from", times[0][1]], ["first byte", answered], ["to", ended], ["took", took]];
      add(row.call, [["outcome", row.outcome], ...known, ...row.more]);
      return;
    }
    if (isWire(row)) {
      add(row.destination, [["outcome", row.outcome], ...times, ...row.more]);
      return;
    }
    const inside = row.inside === undefined ? [] : [["pid in its namespace", `${row.inside}`]];
    add(`Process ${row.pid}`, [...inside, ["ended", row.end], ...times]);
    for (const exec of row.execs) {
      const [path, sha256] = data.programs[exec.program] ?? [];
      add(exec.bad ? "Violates: executed" : "Executed", [
        ["command", exec.line],
        ["at", duration(exec.at)],
        ["file", path],
        ["SHA-256", sha256],
        ["through", exec.through],
        ["in", exec.cwd],
        ["user", exec.uid],
        ["note", exec.note],
      ]);
    }
  }

  function choose(at, into_view) {
    chosen = at;
    const index = shown.indexOf(at);
    if (into_view && index >= 0) {
      const box = byId("rows");
      const top = index * LANE_HEIGHT, room = box.clientHeight - 2 * LANE_HEIGHT;
      if (top < box.scrollTop) box.scrollTop = top;
      else if (top > box.scrollTop + room) box.scrollTop = top - room;
    }
    details();
    draw();
  }

  function toggle(at, close) {
    if (!hasChildren(at) || closed.has(at) === close) return;
    if (close) closed.add(at);
    else closed.delete(at);
    choose_rows();
  }

  // Shows a row wherever it is hidden.
  function reveal(at) {
    byId("filter").value = "";
    byId("only-bad").checked = false;
    closed.clear();
    choose_rows();
    choose(at, true);
    byId("rows").focus({ preventScroll: true });
    byId("timeline").scrollIntoView();
  }

  // What zooming keeps where it is: the selected row if it is in view, else the middle.
  function centre() {
    const row = rows[chosen];
    const at = row ? (row.from + until(row)) / 2 : -1;
    return at >= from && at <= to ? at : (from + to) / 2;
  }

  function zoom(by, around = centre()) {
    const size = Math.min(Math.max((to - from) * by, 100), data.span || 100);
    const left = around - ((around - from) / (to - from)) * size;
    from = Math.min(Math.max(left, 0), Math.max(data.span - size, 0));
    to = from + size;
    draw_soon();
  }

  function pan(by) {
    const size = to - from;
    from = Math.min(Math.max(from + by * size, 0), Math.max(data.span - size, 0));
    to = from + size;
    draw_soon();
  }

  function whole() {
    [from, to] = [0, Math.max(data.span, 1)];
    draw_soon();
  }

  function on_key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const index = shown.indexOf(chosen);
    const page = Math.max(1, Math.floor(byId("rows").clientHeight / LANE_HEIGHT) - 2);
    const move = (to_index) => {
      const at = shown[Math.min(Math.max(to_index, 0), shown.length - 1)];
      if (at !== undefined) choose(at, true);
    };
    const parent = () => {
      for (let at = chosen - 1; at >= 0; at -= 1) if (rows[at].depth < rows[chosen].depth) return at;
      return chosen;
    };
    const actions = {
      ArrowDown: () => move(index + 1),
      ArrowUp: () => move(index - 1),
      PageDown: () => move(index + page),
      PageUp: () => move(index - page),
      Home: () => move(0),
      End: () => move(shown.length - 1),
      ArrowLeft: () => (hasChildren(chosen) && !closed.has(chosen) ? toggle(chosen, true) : choose(parent(), true)),
      ArrowRight: () => (closed.has(chosen) ? toggle(chosen, false) : move(index + 1)),
      "+": () => zoom(0.5),
      "=": () => zoom(0.5),
      "-": () => zoom(2),
      0: whole,
      ",": () => pan(-0.25),
      ".": () => pan(0.25),
      "/": () => byId("filter").focus(),
    };
    if (!Object.hasOwn(actions, event.key) || shown.length === 0) return;
    event.preventDefault();
    actions[event.key]();
  }

  const row_at = (target) => {
    const element = target.closest?.(".row");
    return element ? Number(element.id.slice("row-".length)) : undefined;
  };

  function time_at(event) {
    const box = byId("ticks").getBoundingClientRect();
    const part = (event.clientX - box.left) / box.width;
    return part >= 0 && part <= 1 ? from + part * (to - from) : undefined;
  }

  function on_wheel(event) {
    if (event.ctrlKey) {
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, time_at(event));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      pan(Math.sign(event.deltaX || event.deltaY) * 0.1);
    }
  }

  let drag;
  function on_pointer(event) {
    if (event.type === "pointerdown" && event.target.closest(".lane") && event.button === 0) {
      drag = { x: event.clientX, from };
    } else if (event.type === "pointermove" && drag && event.buttons === 1) {
      const width = byId("ticks").clientWidth || 1;
      const by = (drag.x - event.clientX) / width - (from - drag.from) / (to - from);
      if (by !== 0) pan(by);
    } else if (event.type === "pointerup") {
      drag = undefined;
    }
  }

  function on_hover(event) {
    const tip = byId("tip");
    const at = row_at(event.target);
    tip.hidden = at === undefined || event.buttons !== 0;
    if (tip.hidden) return;
    const row = rows[at];
    const unknown = isCall(row) ? "an unread end" : "the end";
    const lasted = `${duration(row.from)} to ${row.to === undefined ? unknown : duration(row.to)}`;
    const took = row.to === undefined ? "" : `, ${duration(row.to - row.from)}`;
    tip.textContent = `${label(row)}\n${note(row)}\n${lasted}${took}`;
    const { innerWidth, innerHeight } = window;
    tip.style.left = `${Math.min(event.clientX + 14, Math.max(innerWidth - tip.offsetWidth - 8, 0))}px`;
    tip.style.top = `${Math.min(event.clientY + 18, Math.max(innerHeight - tip.offsetHeight - 8, 0))}px`;
  }

  function fill() {
    const ruling = data.ruling ?? "traced";
    const symbol = { proven: "\u2714", violated: "\u2716", inconclusive: "?", traced: "" }[ruling];
    byId("banner").className = ruling;
    byId("ruling").textContent = `${symbol} ${ruling.toUpperCase()}`.trim();
    byId("command").textContent = data.command;
    byId("totals").textContent = data.totals;
    byId("left-out").hidden = data.left_out === undefined;
    byId("left-out").textContent = data.left_out ?? "";
    document.title = `${ruling.toUpperCase()} ${data.command}`;
    byId("claims").hidden = data.claims.length === 0;
    for (const claim of data.claims) {
      const item = make("li");
      item.append(make("span", `ruling ${claim.ruling}`, claim.ruling), ` ${claim.what}`);
      const list = make("ul");
      for (const finding of claim.findings.slice(0, TABLE_MAX)) {
        const line = make("li", "", `${finding.how} `);
        line.append(make("span", "lineage", finding.lineage), `: ${finding.detail} `);
        if (finding.row !== undefined) {
          const button = make("button", "", "show");
          button.type = "button";
          button.setAttribute("aria-label", "show in the timeline");
          button.addEventListener("click", () => reveal(finding.row));
          line.append(button);
        }
        list.append(line);
      }
      for (const reason of claim.reasons.slice(0, TABLE_MAX)) list.append(make("li", "", `because ${reason}`));
      const hidden = [claim.findings, claim.reasons].map((all) => Math.max(all.length - TABLE_MAX, 0));
      if (hidden[0] + hidden[1] > 0) list.append(make("li", "", `... and ${hidden[0] + hidden[1]} more`));
      item.append(list);
      byId("claim-list").append(item);
    }
    const number = "number", code = "code";
    table(byId("endpoints"), data.endpoints.head, data.endpoints.rows);
    for (const [index, other] of data.others.entries()) {
      const section = make("section");
      const title = make("h2", "", other.title);
      const into = make("div", "scroll");
      title.id = `other-${index}`;
      section.setAttribute("aria-labelledby", title.id);
      into.tabIndex = 0;
      table(into, other.head, other.rows);
      section.append(title, into);
      byId("others").append(section);
    }
    table(byId("programs"), [["file", code], ["SHA-256", code], ["execs", number]], data.programs);
    for (const sentence of data.unseen) byId("unseen").append(make("li", "", sentence));
    const holding = data.completeness.filter((line) => line.holds).length;
    byId("holding").textContent = `${holding} of ${data.completeness.length} requirements hold.`;
    const lines = data.completeness.map((line) => [line.name, line.holds ? "\u2714 holds" : "\u2716 does not hold", line.detail]);
    table(byId("completeness"), [["requirement", ""], ["", ""], ["what was found", ""]], lines);
    for (const cell of byId("completeness").querySelectorAll("td:nth-child(2)")) {
      cell.className = cell.textContent.startsWith("\u2714") ? "holds" : "fails";
    }
    pairs(byId("facts"), data.facts);
  }

  function print(on) {
    printing = on;
    const note = byId("print-note");
    note.hidden = !on || shown.length <= PRINTED_MAX;
    note.textContent = `The first ${PRINTED_MAX} of ${shown.length} rows are printed.`;
    draw();
  }

  const hasCalls = rows.some(isCall);
  for (const element of document.querySelectorAll(".of-calls")) element.hidden = !hasCalls;
  fill();
  choose_rows();
  choose(rows.findIndex(isBad) >= 0 ? rows.findIndex(isBad) : chosen, true);
  for (const id of ["filter", "only-bad", "with-connections", "with-calls"]) byId(id).addEventListener("input", choose_rows);
  byId("zoom-in").addEventListener("click", () => zoom(0.5));
  byId("zoom-out").addEventListener("click", () => zoom(2));
  byId("zoom-all").addEventListener("click", whole);
  const box = byId("rows");
  box.addEventListener("scroll", draw_soon, { passive: true });
  box.addEventListener("keydown", on_key);
  box.addEventListener("wheel", on_wheel, { passive: false });
  for (const type of ["pointerdown", "pointermove", "pointerup"]) box.addEventListener(type, on_pointer);
  box.addEventListener("pointermove", on_hover);
  box.addEventListener("pointerleave", () => (byId("tip").hidden = true));
  box.addEventListener("click", (event) => {
    const at = row_at(event.target);
    if (at === undefined) return;
    if (event.target.closest(".twig")) toggle(at, !closed.has(at));
    choose(at, false);
  });
  window.addEventListener("resize", draw_soon);
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));
})();
