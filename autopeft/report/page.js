"use strict";
// Figures, and what the page does when it is pointed at, clicked, typed into.

const autopeft = (() => {
  const style = getComputedStyle(document.documentElement);
  const shade = (name) => style.getPropertyValue(name).trim();

  // The colours of the page, light or dark, for those that figures are written with.
  function themed(figure) {
    const text = JSON.stringify(figure)
      .replaceAll("#1f2933", shade("--ink"))
      .replaceAll("#e6e9ed", shade("--faint"));
    const { data, layout } = JSON.parse(text);
    const clear = "rgba(0,0,0,0)";
    const modebar = { bgcolor: clear, color: shade("--muted"), activecolor: shade("--ink") };
    return [data, { ...layout, paper_bgcolor: clear, plot_bgcolor: clear, modebar }];
  }

  function draw(figure) {
    const place = document.currentScript.previousElementSibling;
    const show = () => {
      if (place.dataset.drawn) return;
      place.dataset.drawn = "true";
      Plotly.newPlot(place, ...themed(figure), { displaylogo: false, responsive: true });
      place.on("plotly_click", (event) => {
        const trial = event.points[0].customdata;
        if (trial !== undefined) choose(trial);
      });
    };
    const folded = place.closest("details");
    if (folded && !folded.open) folded.addEventListener("toggle", show);
    else show();
  }

  // Marks a trial wherever the page tells of it.
  function mark(trial) {
    document.querySelectorAll(".chosen").forEach((each) => each.classList.remove("chosen"));
    const told = [...document.querySelectorAll(`[data-trial="${trial}"]`)];
    told.forEach((each) => each.classList.add("chosen"));
    return told;
  }

  function choose(trial) {
    const told = mark(trial);
    told.filter((each) => each.tagName === "DETAILS").forEach((each) => (each.open = true));
    if (told.length) told[0].scrollIntoView({ block: "nearest", behavior: "smooth" });
    document.dispatchEvent(new CustomEvent("trial", { detail: trial }));
  }

  function sort(button) {
    const head = button.closest("th");
    const table = head.closest("table");
    const column = [...head.parentNode.children].indexOf(head);
    const falling = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent;
    // Rows without a value are last, whichever way.
    const compare = (a, b) => {
      const [left, right] = [key(a), key(b)];
      const numbers = [parseFloat(left), parseFloat(right)];
      const told = numbers.map(Number.isFinite);
      if (told[0] !== told[1]) return told[0] ? -1 : 1;
      const order = told[0] ? numbers[0] - numbers[1] : left.localeCompare(right);
      return falling ? -order : order;
    };
    const rows = [...table.tBodies[0].rows];
    rows.sort(compare);
    table.tBodies[0].append(...rows);
  }

  function filter(field) {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...document.getElementById(field.dataset.table).tBodies[0].rows];
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    field.nextElementSibling.textContent = words.length ? `${shown} of ${rows.length}` : "";
  }

  async function copy(button) {
    const text = button.nextElementSibling.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.nextElementSibling);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.classList.contains("copy")) copy(button);
    else if (button?.closest("th")) sort(button);
    else if (button?.classList.contains("number")) choose(button.textContent);
  });
  document.addEventListener("input", (event) => {
    if (event.target.type === "search") filter(event.target);
  });
  return { draw, mark };
})();
