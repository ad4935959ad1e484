// The frame of the page: which view, whose key, and whether what is shown is live.

import { html, render, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { Batches } from "./batches.js";
import { DropAnywhere } from "./drop.js";
import { follow } from "./feed.js";
import { Jobs } from "./jobs.js";
import { key } from "./net.js";
import { Overview } from "./overview.js";
import { Badge, Notice } from "./parts.js";
import { Playground } from "./playground.js";
import { Scaler } from "./scaler.js";
import { chosenPool, set, useApp } from "./store.js";

const VIEWS = [
  ["overview", "Overview", Overview],
  ["jobs", "Jobs", Jobs],
  ["batches", "Batches", Batches],
  ["playground", "Playground", Playground],
  ["scaler", "Scaler", Scaler],
];

function App() {
  const app = useApp();
  const view = useView();
  const main = useRef(null);
  const [name, label, View] = VIEWS.find(([id]) => id === view) ?? VIEWS[0];
  useEffect(() => {
    document.title = `${label} · penstock`;
  }, [label]);
  return html`
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      main.current.focus();
    }}>Skip to content</a>
    <header class="top">
      <a class="brand" href="#/overview"><${Mark} />penstock</a>
      ${!app.needsKey && html`<nav aria-label="Views">
        ${VIEWS.map(([id, text]) => html`
          <a href=${`#/${id}`} aria-current=${id === name ? "page" : undefined}>${text}</a>`)}
      </nav>`}
      <${Status} app=${app} />
    </header>
    <main id="main" tabindex="-1" ref=${main}>
      <h1 class="unseen">${label}</h1>
      ${app.needsKey ? html`<${AskKey} problem=${app.keyProblem} />` : html`
        <${Trouble} app=${app} />
        <${View} />
        <${DropAnywhere} />`}
    </main>`;
}

function Mark() {
  return html`<svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
    <path d="M4 11h10v10H4z" /><path d="M18 14h10v4H18z" /><path class="gate" d="M16 5v22" /></svg>`;
}

function Status({ app }) {
  const pools = app.overview?.pools ?? [];
  const words = { connecting: "connecting", live: "live", lost: "no connection" };
  return html`
    <div class="status">
      ${pools.length > 1 && html`<label class="pick"><span class="unseen">Pool</span>
        <select value=${chosenPool()?.pool} onChange=${(event) => set({ pool: event.target.value })}>
          ${pools.map((pool) => html`<option value=${pool.pool}>${pool.pool}</option>`)}
        </select></label>`}
      ${key.get() && !app.needsKey && html`
        <span class="tenant" title="Whose key this tab holds">${app.overview?.tenant ?? ""}</span>
        <button class="quiet" onClick=${() => {
          key.forget();
          location.reload();
        }}>Forget key</button>`}
      ${!app.needsKey && html`<span class=${`link ${app.link}`} role="status">
        <span class="dot" aria-hidden="true"></span>${words[app.link]}</span>`}
    </div>`;
}

// What an operator must not overlook, on whichever view.
function Trouble({ app }) {
  const closed = (app.overview?.pools ?? []).filter((pool) => pool.closed);
  return html`
    ${app.link === "lost" && html`<${Notice} kind="bad">
      ${app.problem} ${app.overview ? "What you see is old. " : ""}Trying again…<//>`}
    ${closed.map((pool) => html`<${Notice} kind="warn">
      <${Badge} kind="warn">closed<//> Pool <b>${pool.pool}</b> takes no requests: ${pool.closed}.<//>`)}`;
}

function AskKey({ problem }) {
  const [value, setValue] = useState("");
  const submit = (event) => {
    event.preventDefault();
    if (!value.trim()) return;
    key.set(value.trim());
    set({ needsKey: false, keyProblem: "", link: "connecting" });
    follow();
  };
  return html`
    <form class="ask-key panel" onSubmit=${submit}>
      <h2>This gateway asks for a key</h2>
      ${problem && html`<${Notice} kind="bad">${problem}<//>`}
      <label>API key
        <input type="password" autocomplete="off" spellcheck="false" placeholder="sk-ps-…" autofocus
          value=${value} onInput=${(event) => setValue(event.target.value)} /></label>
      <button class="primary">Open</button>
      <p class="hint">It is kept in this tab only. An operator makes one: <code>penstock keys create --tenant NAME</code></p>
    </form>`;
}

function useView() {
  const read = () => location.hash.replace(/^#\/?/, "").split("/")[0] || "overview";
  const [view, setView] = useState(read);
  useEffect(() => {
    const onChange = () => {
      setView(read());
      window.scrollTo(0, 0);
    };
    addEventListener("hashchange", onChange);
    return () => removeEventListener("hashchange", onChange);
  }, []);
  return view;
}

render(html`<${App} />`, document.getElementById("app"));
follow();
