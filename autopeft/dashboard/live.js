"use strict";
// Keeps the page at what the record says, and asks for what its user wants of a trial.

addEventListener("DOMContentLoaded", () => {
  const EVERY = 3000;
  const bar = document.createElement("aside");
  bar.id = "live";
  bar.innerHTML = `<p><span id=connection>live</span><span id=trial>click a trial</span>
    <button type=button data-wish=stop hidden>stop</button>
    <button type=button data-wish=pause hidden>pause</button>
    <button type=button data-wish=resume hidden>resume</button>
    <button type=button id=vary hidden>try a variation</button>
    <a id=optuna hidden>Optuna's dashboard</a></p>
    <p id=told role=status hidden></p>
    <div id=editor hidden><textarea spellcheck=false aria-label="configuration to try"></textarea>
    <p><button type=button id=try>try this</button><button type=button id=close>close</button></p>
    </div>`;
  document.body.append(bar);
  const [connection, about, told, editor] = ["connection", "trial", "told", "editor"].map((name) =>
    document.getElementById(name),
  );
  const text = editor.querySelector("textarea");
  const wishes = [...bar.querySelectorAll("[data-wish]")];
  const optuna = document.getElementById("optuna");
  optuna.href = live.optuna;
  optuna.hidden = !live.optuna;
  let chosen = null;

  const WANTED = { stop: "stops at its next rung", pause: "pauses from its next rung on" };
  const UNDER_WAY = ["waiting", "running", "paused", "interrupted"];

  async function ask(path, sent) {
    const options = sent === undefined ? {} : { method: "POST", body: sent };
    const answer = await fetch(path, options);
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error);
    return content;
  }

  function tell(sentence) {
    told.textContent = sentence;
    told.hidden = !sentence;
  }

  function show(trial) {
    chosen = trial;
    const isUnderWay = UNDER_WAY.includes(trial.state);
    const isDone = trial.wanted === "pause" && ["paused", "interrupted"].includes(trial.state);
    const wanted = (isUnderWay && (isDone ? "pauses by hand" : WANTED[trial.wanted])) || "";
    about.textContent = `trial ${trial.trial} is ${trial.state}${wanted && `, ${wanted}`}`;
    for (const button of wishes) {
      const isFor = button.dataset.wish === "resume" ? trial.wanted === "pause" : true;
      button.hidden = !isUnderWay || !isFor || trial.wanted === button.dataset.wish;
    }
    document.getElementById("vary").hidden = false;
  }

  // What the user has set on the page outlives its content.
  function replace(content) {
    const main = document.querySelector("main");
    const field = main.querySelector("input[type=search]");
    const words = field?.value ?? "";
    const isTyping = document.activeElement === field;
    const sorted = main.querySelector("#trials th[aria-sort]");
    const column = sorted ? [...sorted.parentNode.children].indexOf(sorted) : -1;
    const isFalling = sorted?.getAttribute("aria-sort") === "descending";
    const open = [...main.querySelectorAll("details")].map((each) => each.open && key(each));
    main.querySelectorAll(".figure").forEach((figure) => Plotly.purge(figure));
    main.innerHTML = content;
    main.querySelectorAll("details").forEach((each) => (each.open = open.includes(key(each))));
    for (const script of main.querySelectorAll("script")) {
      const alive = document.createElement("script");
      alive.textContent = script.textContent;
      script.replaceWith(alive);
    }
    const head = main.querySelectorAll("#trials th")[column];
    for (let i = 0; head && i <= isFalling; i++) head.querySelector("button").click();
    const search = main.querySelector("input[type=search]");
    if (search && words) {
      search.value = words;
      search.dispatchEvent(new Event("input", { bubbles: true }));
    }
    if (search && isTyping) search.focus();
    if (chosen) autopeft.mark(chosen.trial);
  }

  const key = (details) => details.dataset.trial ?? details.querySelector("summary").textContent;

  async function look() {
    try {
      const answer = await fetch(`body?seen=${live.version}`);
      if (answer.status === 200) {
        const content = await answer.json();
        live.version = content.version;
        replace(content.body);
        if (chosen) show(await ask(`trials/${chosen.trial}`));
      } else if (!answer.ok) throw new Error((await answer.json()).error);
      connection.textContent = "live";
    } catch (error) {
      connection.textContent = `out of reach: ${error.message}`;
    }
    setTimeout(look, EVERY);
  }

  async function attempt(act) {
    try {
      await act();
    } catch (error) {
      tell(error.message);
    }
  }

  document.addEventListener("trial", (event) =>
    attempt(async () => {
      tell("");
      show(await ask(`trials/${event.detail}`));
    }),
  );
  for (const button of wishes) {
    button.addEventListener("click", () =>
      attempt(async () => {
        show(await ask(`trials/${chosen.trial}`, button.dataset.wish));
        tell("");
      }),
    );
  }
  document.getElementById("vary").addEventListener("click", () => {
    text.value = chosen.config;
    editor.hidden = false;
    text.focus();
  });
  document.getElementById("close").addEventListener("click", () => {
    editor.hidden = true;
    tell("");
  });
  document.getElementById("try").addEventListener("click", () =>
    attempt(async () => {
      tell("checking …");
      const trial = await ask("trials", text.value);
      editor.hidden = true;
      show(trial);
      tell(`trial ${trial.trial} waits for the next free worker of a run`);
    }),
  );
  setTimeout(look, EVERY);
});
