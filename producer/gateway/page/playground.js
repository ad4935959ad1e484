// A chat with the pool, streamed: to see that it answers, and how fast.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { exact, short } from "./format.js";
import { ask, askJson, events } from "./net.js";
import { Empty, Notice, Panel } from "./parts.js";
import { useApp } from "./store.js";

const TIERS = [["priority", "interactive"], ["default", "standard"], ["flex", "bulk"]];

// The talk outlives a look at another view.
const talk = { turns: [], draft: "", options: { model: "", tier: "priority", tokens: 256, temperature: 0.7 } };

export function Playground() {
  useApp();
  const [, bump] = useState(0);
  const redraw = () => bump((count) => count + 1);
  const models = useModels();
  const [running, setRunning] = useState(null);
  const end = useRef(null);
  const change = (patch) => {
    Object.assign(talk.options, patch);
    redraw();
  };
  const model = talk.options.model || models?.[0]?.id || "";
  const send = async () => {
    const text = talk.draft.trim();
    if (!text || running || !model) return;
    const stop = new AbortController();
    setRunning(stop);
    talk.turns.push({ role: "user", content: text });
    talk.draft = "";
    const answer = { role: "assistant", content: "", note: "waiting…" };
    talk.turns.push(answer);
    redraw();
    end.current?.scrollIntoView({ block: "nearest" });
    await stream(answer, model, stop.signal, redraw);
    setRunning(null);
  };
  // Leaving the view hangs up, and that ends the job.
  useEffect(() => () => running?.abort(), [running]);
  return html`
    <div class="play">
      <${Panel} title="Chat" aside=${talk.turns.length > 0 && html`<button class="quiet" disabled=${running} onClick=${() => {
        talk.turns = [];
        redraw();
      }}>Clear</button>`}>
        <div class="talk">
          ${talk.turns.length === 0 && html`<${Empty} title=${model ? `Ask ${model} something` : "Nothing to talk to"}
            commands=${model ? [] : ["penstock up --engine.kind simulated"]}>
            ${model ? "The answer is a job like any other: it waits its turn, and streams as it is made." : "No consumer serves a model yet. To try this without a GPU:"}<//>`}
          ${talk.turns.map((turn) => html`<${Turn} turn=${turn} />`)}
          <div ref=${end}></div>
        </div>
        <form class="say" onSubmit=${(event) => {
          event.preventDefault();
          send();
        }}>
          <label class="unseen" for="draft">Message</label>
          <textarea id="draft" rows="3" placeholder="Message" value=${talk.draft}
            onInput=${(event) => {
              talk.draft = event.target.value;
              redraw();
            }}
            onKeyDown=${(event) => {
              if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
              event.preventDefault();
              send();
            }}></textarea>
          ${running
            ? html`<button type="button" class="danger" onClick=${() => running.abort()}>Stop</button>`
            : html`<button class="primary" disabled=${!talk.draft.trim() || !model}>Send</button>`}
        </form>
        <p class="hint">Enter sends, Shift+Enter begins a line.</p>
      <//>
      <${Options} models=${models ?? []} model=${model} change=${change} />
    </div>`;
}

function Turn({ turn }) {
  return html`
    <article class=${`turn ${turn.role}`}>
      <h3>${turn.role === "user" ? "You" : "Answer"}</h3>
      <div class="text">${turn.content || (turn.problem ? "" : html`<span class="quiet-line">…</span>`)}</div>
      ${turn.problem && html`<${Notice} kind="bad">${turn.problem}<//>`}
      ${turn.note && html`<p class="hint" role="status">${turn.note}</p>`}
    </article>`;
}

function Options({ models, model, change }) {
  const { tier, tokens, temperature } = talk.options;
  return html`
    <${Panel} title="Options" className="options">
      <label>Model
        <select value=${model} onChange=${(event) => change({ model: event.target.value })}>
          ${models.map((one) => html`<option value=${one.id}>${one.id}</option>`)}
        </select></label>
      <label>Lane
        <select value=${tier} onChange=${(event) => change({ tier: event.target.value })}>
          ${TIERS.map(([value, lane]) => html`<option value=${value}>${lane}</option>`)}
        </select></label>
      <label>Tokens at most
        <input type="number" min="1" max="100000" value=${tokens} onInput=${(event) => change({ tokens: event.target.valueAsNumber || 1 })} /></label>
      <label>Temperature
        <input type="number" min="0" max="2" step="0.1" value=${temperature}
          onInput=${(event) => change({ temperature: event.target.valueAsNumber || 0 })} /></label>
    <//>`;
}

async function stream(answer, model, signal, redraw) {
  const { tier, tokens, temperature } = talk.options;
  // What failed or was stopped is no part of what was said.
  const messages = talk.turns.slice(0, -1).filter((turn) => turn.content && !turn.problem)
    .map(({ role, content }) => ({ role, content }));
  const json = { model, messages, stream: true, stream_options: { include_usage: true }, service_tier: tier, max_tokens: tokens, temperature };
  const began = performance.now();
  let first = 0;
  let usage = null;
  let isDrawn = false;
  // Hundreds of tokens a second need no more drawings than the screen shows.
  const draw = () => {
    if (isDrawn) return;
    isDrawn = true;
    requestAnimationFrame(() => {
      isDrawn = false;
      redraw();
    });
  };
  try {
    const response = await ask("POST", "/v1/chat/completions", { json, signal });
    const job = response.headers.get("x-penstock-job") ?? "";
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      usage = chunk.usage ?? usage;
      const text = chunk.choices?.[0]?.delta?.content ?? "";
      if (!text) continue;
      if (!first) {
        first = performance.now();
        answer.note = "";
      }
      answer.content += text;
      draw();
    }
    answer.note = told(began, first, usage, job);
  } catch (error) {
    if (error.name === "AbortError") answer.note = "Stopped; its job was cancelled.";
    else (answer.problem = error.message), (answer.note = "");
  }
  redraw();
}

function told(began, first, usage, job) {
  const seconds = (performance.now() - (first || began)) / 1000;
  const count = usage?.completion_tokens ?? 0;
  return [
    first ? `first token after ${exact(first - began)} ms` : "no text",
    count ? `${exact(count)} tokens` : "",
    count > 1 && seconds > 0.02 ? `${short((count - 1) / seconds)} tokens/s` : "",
    job ? `job ${job}` : "",
  ].filter(Boolean).join(" · ");
}

function useModels() {
  const [models, setModels] = useState(null);
  useEffect(() => {
    let isHere = true;
    let timer;
    const look = async () => {
      const found = await askJson("GET", "/v1/models").then((answer) => answer.data, () => null);
      if (!isHere) return;
      if (found) setModels(found);
      // Until there is one to talk to.
      if (!found?.length) timer = setTimeout(look, 2000);
    };
    look();
    return () => {
      isHere = false;
      clearTimeout(timer);
    };
  }, []);
  return models;
}
