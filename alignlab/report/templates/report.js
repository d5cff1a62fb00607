"use strict";
(function () {
  document.documentElement.classList.add("js");

  // ---- filter the answers
  const table = document.getElementById("asked");
  if (table) {
    const rows = Array.from(table.tBodies[0].rows);
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const get = (id) => document.getElementById(id);
    const kind = get("kind"), verdict = get("verdict"), search = get("search"), changed = get("changed"), marks = get("marks");
    const show = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      rows.forEach((row, i) => {
        const shown = (!kind.value || row.dataset.kind === kind.value) &&
          (!verdict || !verdict.value || row.dataset.verdicts.split(" ").includes(verdict.value)) &&
          (!changed.checked || row.dataset.changed === "1") && words.every((w) => texts[i].includes(w));
        row.hidden = !shown;
        count += shown ? 1 : 0;
      });
      get("count").textContent = count + " of " + rows.length + " prompts";
      get("empty").hidden = count > 0;
    };
    kind.addEventListener("change", show);
    if (verdict) verdict.addEventListener("change", show);
    search.addEventListener("input", show);
    changed.addEventListener("change", show);
    marks.addEventListener("change", () => table.classList.toggle("unmarked", !marks.checked));
    get("filters").addEventListener("submit", (event) => event.preventDefault());
    show();  // a browser may have kept what was typed before a reload
  }

  // ---- a link to what is folded away opens it
  const unfold = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
  };
  window.addEventListener("hashchange", unfold);
  unfold();

  // ---- read a chart under the pointer
  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, attributes) => {
    const element = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    return element;
  };
  const text = (value) => (Math.abs(value) >= 0.001 && Math.abs(value) < 1e5 ? +value.toPrecision(4) : value.toExponential(2));
  document.querySelectorAll("svg.chart").forEach((chart) => {
    const lines = JSON.parse(chart.dataset.lines);
    const [left, right, top, bottom, step0, step1, low, high] = JSON.parse(chart.dataset.frame);
    const hover = chart.querySelector(".hover");
    const readout = chart.closest("figure").querySelector(".readout");
    const x = (step) => left + ((right - left) * (step - step0)) / (step1 - step0 || 1);
    const y = (value) => bottom - ((bottom - top) * (value - low)) / (high - low);
    const clear = () => { hover.replaceChildren(); readout.textContent = ""; };
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
      const nearest = lines.map(([name, points]) => [name, points.reduce((a, b) => (Math.abs(x(b[0]) - at) < Math.abs(x(a[0]) - at) ? b : a))]);
      const step = nearest[0][1][0];
      hover.replaceChildren(make("line", { x1: x(step), x2: x(step), y1: top, y2: bottom, class: "cursor" }),
        ...nearest.map(([name, p]) => make("circle", { cx: x(p[0]), cy: y(p[1]), r: 3.5, class: "point " + name })));
      readout.textContent = "step " + step + ": " + nearest.map(([name, p]) => name + " " + text(p[1])).join(", ");
    });
    chart.addEventListener("pointerleave", clear);
  });
})();
