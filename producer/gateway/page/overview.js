// The pool at a glance: how fast, how much waits, who serves.

import { html } from "./vendor/preact-htm.js";
import { clock, exact, plural, share, short, span } from "./format.js";
import { JobsGlance } from "./jobs.js";
import { Badge, Bar, Empty, Panel } from "./parts.js";
import { Plot } from "./plot.js";
import { DecisionLine } from "./scaler.js";
import { chosenPool, now, useApp } from "./store.js";

const LANES = ["interactive", "standard", "bulk"];

export function Overview() {
  const app = useApp();
  const pool = chosenPool();
  if (!app.overview) return html`<p class="quiet-line">Looking…</p>`;
  if (!pool) {
    return html`<div class="panel"><${Empty} title="No pool yet"
      commands=${["penstock up", "penstock consumer --engine.model Qwen/Qwen2.5-7B-Instruct"]}>
      A pool appears when its first consumer is ready; a large model takes minutes to load. If none is starting:<//></div>`;
  }
  return html`
    <${Figures} pool=${pool} />
    <div class="columns">
      <div>
        <${Panel} title="Tokens per second" aside=${pool.models.join(", ")}>
          <${Plot} values=${pool.history} label="Tokens per second" />
        <//>
        <${Consumers} pool=${pool} />
        <${JobsGlance} />
      </div>
      <div>
        <${Backlog} pool=${pool} />
        <${Lately} decisions=${app.overview.decisions.filter((one) => one.pool === pool.pool)} />
      </div>
    </div>`;
}

function Figures({ pool }) {
  const running = sum(pool.consumers, "running");
  const door = sum(pool.consumers, "at_door");
  const backlog = Object.values(pool.lanes);
  const waiting = sum(backlog, "jobs") + pool.ready + door;
  const draining = pool.consumers.filter((one) => one.is_draining).length;
  const parts = [
    sum(backlog, "jobs") ? `${short(sum(backlog, "tokens"))} tokens` : "",
    door ? `${exact(door)} at the door` : "",
  ];
  return html`
    <dl class="figures">
      <${Figure} name="Tokens/s" value=${short(pool.tokens_per_s)}
        more=${pool.jobs_per_s ? `${short(pool.jobs_per_s)} jobs/s while at work` : "no jobs measured yet"} />
      <${Figure} name="Running" value=${exact(running)} more=${plural(pool.consumers.length - draining, "consumer")} />
      <${Figure} name="Waiting" value=${short(waiting)} more=${parts.filter(Boolean).join(", ") || "nobody waits"} />
      <${Figure} name="Held" value=${short(pool.held.jobs)}
        more=${pool.is_paused ? "the pool is paused" : pool.held.jobs ? "until their time or a resume" : "nothing held back"} />
      <${Figure} name="Empty in" value=${drained(waiting, pool.jobs_per_s)} more=${waiting ? "at the measured rate" : "nothing waits"} />
    </dl>`;
}

function Figure({ name, value, more }) {
  return html`<div><dt>${name}</dt><dd class="value">${value}</dd><dd class="more">${more}</dd></div>`;
}

function drained(waiting, jobsPerS) {
  if (!waiting) return "–";
  return jobsPerS ? span(waiting / jobsPerS) : "unknown";
}

function Backlog({ pool }) {
  const lanes = [...LANES.filter((lane) => pool.lanes[lane]).map((lane) => [lane, pool.lanes[lane]])];
  if (pool.held.jobs) lanes.push(["held", pool.held]);
  const tenants = Object.entries(pool.tenants)
    .filter(([name, one]) => one.jobs || pool.paused.includes(name))
    .sort(([, a], [, b]) => b.tokens - a.tokens);
  const known = Object.keys(pool.tenants).length;
  const aside = pool.is_paused ? html`<${Badge} kind="warn">paused<//>` : pool.dispatcher ? "" : "no dispatcher";
  const hasAny = lanes.some(([, one]) => one.jobs) || tenants.some(([, one]) => one.jobs);
  return html`
    <${Panel} title="Backlog" className="second" aside=${aside}>
      ${!hasAny && html`<${Empty} title=${pool.ready ? `${plural(pool.ready, "job")} not pulled yet` : "Nothing waits"}
        commands=${['penstock submit "What is a penstock?" --lane bulk']}>
        ${pool.dispatcher ? "Jobs that wait their turn are shown here by lane and tenant."
          : "No dispatcher orders this pool: jobs go straight to the consumers, first come, first served."}<//>`}
      ${hasAny && html`
        <${Amounts} head="Lane" rows=${lanes} paused=${[]} />
        ${tenants.length > 0 && html`<${Amounts} head="Tenant" rows=${tenants} paused=${pool.paused} />`}
        ${pool.tenants_total > known && html`
          <p class="hint">The largest ${known} of ${exact(pool.tenants_total)} tenants.</p>`}
        ${pool.paused.filter((name) => name.startsWith("batch:")).map((name) => html`
          <p class="hint">Paused: batch ${name.slice(6)}</p>`)}`}
    <//>`;
}

function Amounts({ head, rows, paused }) {
  const most = Math.max(1, ...rows.map(([, one]) => one.tokens));
  return html`
    <table class="amounts">
      <thead><tr><th>${head}</th><th class="n">Jobs</th><th class="n">Tokens</th><th class="n">Oldest</th></tr></thead>
      <tbody>${rows.map(([name, one]) => html`
        <tr key=${name}>
          <th scope="row">
            <span class="name">${name} ${paused.includes(name) && html`<${Badge} kind="warn">paused<//>`}</span>
            <${Bar} value=${one.tokens / most} kind=${head === "Lane" ? name : "tenant"}
              label=${`${name}: share of the most tokens waiting`} />
          </th>
          <td class="n">${short(one.jobs)}</td>
          <td class="n" title=${exact(one.tokens)}>${short(one.tokens)}</td>
          <td class="n">${one.jobs && one.oldest_at ? span(now() - one.oldest_at) : "–"}</td>
        </tr>`)}
      </tbody>
    </table>`;
}

function Consumers({ pool }) {
  return html`
    <${Panel} title="Consumers" className="third" aside=${pool.consumers.length || ""}>
      ${pool.consumers.length === 0 ? html`
        <${Empty} title="Nobody serves this pool" commands=${[`penstock consumer --consumer.pool ${pool.pool}`]}>
          Jobs are kept and wait. Start a consumer:<//>` : html`
        <table class="consumers">
          <thead><tr><th>Consumer</th><th>KV cache</th><th class="n">Tokens/s</th><th class="n">Running</th>
            <th class="n">At door</th><th class="n">Preempted</th></tr></thead>
          <tbody>${pool.consumers.map((one) => html`<${Consumer} key=${one.consumer} one=${one} />`)}</tbody>
        </table>`}
    <//>`;
}

function Consumer({ one }) {
  const used = one.kv_blocks_total - one.kv_blocks_free;
  const isSilent = one.age_s > 6;
  return html`
    <tr>
      <th scope="row"><span class="name">${one.consumer}</span>
        ${one.is_draining && html`<${Badge} kind="warn">draining<//>`}
        ${isSilent && html`<${Badge} kind="bad">silent for ${span(one.age_s)}<//>`}
        <span class="hint">${one.models.join(", ")}${one.started_at ? `, since ${clock(one.started_at)}` : ""}</span></th>
      <td class="kv" data-label="KV cache">
        <${Bar} value=${used / one.kv_blocks_total} kind="kv" label=${`KV cache of ${one.consumer}`} />
        <span class="hint"><b>${share(used / (one.kv_blocks_total || 1))}</b>, ${exact(one.kv_blocks_free)} of
          ${" "}${exact(one.kv_blocks_total)} blocks free</span></td>
      <td class="n" data-label="Tokens/s">${short(one.tokens_per_s)}</td>
      <td class="n" data-label="Running">${exact(one.running)}</td>
      <td class="n" data-label="At door">${exact(one.at_door)}</td>
      <td class="n" data-label="Preempted" title="Times a running job's cache was taken from it, since it started">
        ${exact(one.preemptions)}</td>
    </tr>`;
}

function Lately({ decisions }) {
  return html`
    <${Panel} title="Scaler" className="fifth" aside=${decisions.length ? html`<a href="#/scaler">all decisions</a>` : ""}>
      ${decisions.length === 0 ? html`<p class="quiet-line">No decision yet: no scaler watches this pool.</p>` : html`
        <ol class="decisions brief">${decisions.slice(0, 4).map((one) => html`
          <${DecisionLine} key=${one.at} one=${one} />`)}</ol>`}
    <//>`;
}

const sum = (rows, field) => rows.reduce((total, row) => total + row[field], 0);
