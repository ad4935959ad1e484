// What the scaler decided, and why, in its own sentences.

import { html } from "./vendor/preact-htm.js";
import { ago, clock, plural } from "./format.js";
import { Badge, Empty, Panel } from "./parts.js";
import { useApp } from "./store.js";

const VERBS = { start: "started", stop: "stopped", hold: "held still", none: "no change" };
const KINDS = { start: "good", stop: "warn", hold: "warn", none: "" };

export function Scaler() {
  const app = useApp();
  const decisions = app.overview?.decisions ?? [];
  return html`
    <${Panel} title="Decisions" aside=${decisions.length ? `the latest ${decisions.length}` : ""}>
      ${decisions.length === 0 ? html`
        <${Empty} title="No scaler has decided anything yet" commands=${["penstock up --scale", "penstock scaler"]}>
          It starts and stops consumers by what waits, and says why each time. Everything on one machine, or a scaler beside a broker that runs:<//>` : html`
        <ol class="decisions">${decisions.map((one) => html`
          <li key=${`${one.pool} ${one.at}`}>
            <div class="when"><time datetime=${new Date(one.at * 1000).toISOString()}>${clock(one.at)}</time>
              <span class="hint">${ago(one.at)}</span></div>
            <div>
              <p class="head"><${Verdict} one=${one} /> <span class="hint">
                pool ${one.pool}, target ${plural(one.target, "consumer")}</span></p>
              <details open=${one.action !== "none"}>
                <summary>${one.why || "How it came to that"}</summary>
                <ul>${one.sentences.map((sentence) => html`<li>${sentence}</li>`)}</ul>
              </details>
            </div>
          </li>`)}</ol>`}
    <//>`;
}

// One decision in the few words that fit beside others.
export function DecisionLine({ one }) {
  return html`
    <li>
      <p class="head"><${Verdict} one=${one} /> <span class="hint">${ago(one.at)}</span></p>
      <p class="why">${one.why}</p>
    </li>`;
}

function Verdict({ one }) {
  const count = one.action === "start" || one.action === "stop" ? ` ${plural(one.count, "consumer")}` : "";
  return html`<${Badge} kind=${KINDS[one.action]}>${VERBS[one.action]}${count}<//>`;
}
