// The caller's own jobs: where each one is, when it will be done, and a way to end it.

import { html, useCallback, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { ago, clock, exact, plural, short, span, until } from "./format.js";
import { askJson } from "./net.js";
import { Badge, Empty, Notice, Panel } from "./parts.js";
import { chosenPool, useApp } from "./store.js";

const EVERY_MS = 2000;
const LIMIT = 50;
const GLANCE = 8;
const LIVE = new Set(["queued", "held", "running"]);
const FILTERS = [
  ["all", "All", () => true],
  ["running", "Running", (job) => job.status === "running"],
  ["waiting", "Waiting", (job) => job.status === "queued" || job.status === "held"],
  ["ended", "Ended", (job) => !LIVE.has(job.status)],
];
const KINDS = { running: "good", completed: "", held: "warn", cancelled: "", failed: "bad", expired: "bad", dead: "bad" };

export function Jobs() {
  useApp();
  const [filter, setFilter] = useState("all");
  const asked = useJobs(LIMIT);
  const { jobs, problem } = asked;
  const shown = jobs?.filter(FILTERS.find(([id]) => id === filter)[2]) ?? [];
  return html`
    <${Panel} title="Your jobs" aside=${html`<${Choice} value=${filter} onChange=${setFilter} jobs=${jobs ?? []} />`}>
      <p class="said" role="status">${asked.said}</p>
      ${problem && html`<${Notice} kind="bad">${problem}<//>`}
      ${!jobs && !problem && html`<p class="quiet-line">Looking…</p>`}
      ${jobs?.length === 0 && html`
        <${Empty} title="No jobs yet" commands=${['penstock submit "What is a penstock?"', "penstock run-batch -i requests.jsonl -o answers.jsonl"]}>
          Submit one, or try the <a href="#/playground">playground</a>:<//>`}
      ${jobs?.length > 0 && shown.length === 0 && html`<p class="quiet-line">None now.</p>`}
      <${Table} jobs=${shown} asked=${asked} />
      ${jobs && FILTERS.slice(1).some(([, , keep]) => jobs.filter(keep).length >= LIMIT) && html`
        <p class="hint">The first ${LIMIT} of each kind; all of them: <code>penstock jobs</code></p>`}
    <//>`;
}

// The first few, beside everything else.
export function JobsGlance() {
  const asked = useJobs(GLANCE);
  const lively = (asked.jobs ?? []).filter((job) => LIVE.has(job.status)).slice(0, GLANCE);
  const ended = (asked.jobs ?? []).filter((job) => !LIVE.has(job.status));
  const shown = [...lively, ...ended].slice(0, GLANCE);
  return html`
    <${Panel} title="Your jobs" className="fourth" aside=${html`<a href="#/jobs">all jobs</a>`}>
      <p class="said" role="status">${asked.said}</p>
      ${asked.problem && html`<${Notice} kind="bad">${asked.problem}<//>`}
      ${shown.length === 0 && !asked.problem && html`<p class="quiet-line">${asked.jobs ? "None yet." : "Looking…"}</p>`}
      <${Table} jobs=${shown} asked=${asked} />
    <//>`;
}

function Table({ jobs, asked }) {
  return jobs.length > 0 && html`
    <table class="jobs">
      <thead><tr><th>Job</th><th>Status</th><th>Lane</th><th>Progress</th><th class="n">Submitted</th>
        <th><span class="unseen">Actions</span></th></tr></thead>
      <tbody>${jobs.map((job) => html`
        <${Job} key=${job.id} job=${job} isEnding=${asked.ending.has(job.id)} onCancel=${() => asked.cancel(job)} />`)}</tbody>
    </table>`;
}

// What runs, what waits by its place in line, what has ended; and how to end one.
function useJobs(limit) {
  const [said, setSaid] = useState("");
  const [ending, setEnding] = useState(() => new Set());
  const { data, problem, again } = usePolled(`/v1/jobs?order=service&limit=${limit}`, EVERY_MS);
  const cancel = async (job) => {
    setEnding((known) => new Set([...known, job.id]));
    try {
      const now = await askJson("POST", `/v1/jobs/${job.id}/cancel`);
      setSaid(now.status === "cancelled" ? `Job ${job.id} is cancelled.` : `Job ${job.id} had ended already: ${now.status}.`);
    } catch (error) {
      setSaid(`Job ${job.id} was not cancelled: ${error.message}`);
    }
    await again();
    setEnding((known) => new Set([...known].filter((id) => id !== job.id)));
  };
  return { jobs: data?.data, problem, said, ending, cancel };
}

function Choice({ value, onChange, jobs }) {
  return html`
    <span class="choice" role="group" aria-label="Which jobs">${FILTERS.map(([id, label, keep]) => html`
      <button type="button" aria-pressed=${id === value} onClick=${() => onChange(id)}>
        ${label}${" "}<span class="count">${counted(id, jobs.filter(keep).length)}</span></button>`)}</span>`;
}

// More than were asked for may be there.
const counted = (id, count) => (id === "all" ? "" : count < LIMIT ? count : `${LIMIT}+`);

function Job({ job, isEnding, onCancel }) {
  const [isOpen, setOpen] = useState(false);
  return html`
    <tr>
      <th scope="row"><button class="fold" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
        <span class="mono">${job.custom_id || job.id}</span></button>
        ${job.batch && html`<span class="hint">batch ${job.batch}</span>`}</th>
      <td data-label="Status"><${Badge} kind=${KINDS[job.status]}>${job.status}<//></td>
      <td data-label="Lane">${job.lane || "–"}</td>
      <td data-label="Progress">${progress(job)}</td>
      <td class="n" data-label="Submitted">${ago(job.created_at)}</td>
      <td class="act">${LIVE.has(job.status) && html`
        <button class="danger" disabled=${isEnding} onClick=${onCancel}
          aria-label=${`Cancel job ${job.custom_id || job.id}`}>${isEnding ? "Ending…" : "Cancel"}</button>`}</td>
    </tr>
    ${isOpen && html`<tr class="more"><td colspan="6"><${Details} id=${job.id} status=${job.status} /></td></tr>`}`;
}

function progress(job) {
  if (job.status === "running") {
    const since = job.started_at ? ` for ${ago(job.started_at).replace(" ago", "")}` : "";
    return job.output_tokens ? `${plural(job.output_tokens, "token")}${since}` : `at work${since}`;
  }
  if (job.status === "held") return inWords(job.why_held) || "held";
  if (job.status === "queued") {
    const eta = job.eta_at ? `done ${until(job.eta_at)}` : "";
    const place = job.position ? `number ${exact(job.position)} in line` : "";
    return [place, eta].filter(Boolean).join(", ") || "next";
  }
  if (job.error) return job.error.message;
  const took = job.finished_at && job.started_at ? ` in ${span(job.finished_at - job.started_at)}` : "";
  return job.output_tokens ? `${plural(job.output_tokens, "token")}${took}` : "";
}

// The dispatcher names times in UTC, as machines do.
function inWords(why) {
  return why.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, (text) => clock(Date.parse(text) / 1000));
}

function Details({ id, status }) {
  const [job, setJob] = useState(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    askJson("GET", `/v1/jobs/${id}`).then(setJob, (error) => setProblem(error.message));
  }, [id, status]);
  if (problem) return html`<${Notice} kind="bad">${problem}<//>`;
  if (!job) return html`<p class="quiet-line">Looking…</p>`;
  const text = answerOf(job.response);
  const times = [["Submitted", job.created_at], ["Started", job.started_at], ["Ended", job.finished_at], ["Deadline", job.deadline_at]];
  return html`
    <dl class="facts">
      <div><dt>Id</dt><dd class="mono">${job.id}</dd></div>
      <div><dt>Pool</dt><dd>${job.pool}</dd></div>
      ${times.filter(([, at]) => at).map(([name, at]) => html`<div><dt>${name}</dt><dd>${clock(at)}</dd></div>`)}
      ${job.eta_at > 0 && html`<div><dt>Done</dt><dd>${until(job.eta_at)}, at the latest ${until(job.latest_at)}</dd></div>`}
      ${job.attempt > 0 && html`<div><dt>Attempt</dt><dd>${job.attempt}</dd></div>`}
      ${job.usage && html`<div><dt>Tokens</dt><dd>${short(job.usage.prompt_tokens)} in, ${short(job.usage.completion_tokens)} out</dd></div>`}
    </dl>
    ${job.error && html`<${Notice} kind="bad">${job.error.message}${job.error.code ? ` (${job.error.code})` : ""}<//>`}
    ${text && html`<pre class="answer">${text}</pre>`}`;
}

function answerOf(response) {
  const parts = (response?.choices ?? []).map((choice) => choice.message?.content ?? choice.text ?? "");
  return parts.filter(Boolean).join("\n\n");
}

// Asks again and again while the view is open and the page can be seen.
export function usePolled(path, everyMs) {
  const [data, setData] = useState(null);
  const [refusal, setRefusal] = useState(null);
  const isHere = useRef(true);
  const again = useCallback(async () => {
    try {
      const found = await askJson("GET", path);
      if (isHere.current) setData(found), setRefusal(null);
    } catch (error) {
      if (isHere.current) setRefusal(error);
    }
  }, [path]);
  useEffect(() => {
    isHere.current = true;
    let timer;
    const turn = async () => {
      if (!document.hidden) await again();
      if (isHere.current) timer = setTimeout(turn, everyMs);
    };
    turn();
    return () => {
      isHere.current = false;
      clearTimeout(timer);
    };
  }, [again, everyMs]);
  return { data, refusal, problem: refusal?.message ?? "", again };
}
