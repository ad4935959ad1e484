// The caller's batches: a file in, progress, files out.

import { html, useRef, useState } from "./vendor/preact-htm.js";
import { submitFile } from "./drop.js";
import { ago, exact, share } from "./format.js";
import { usePolled } from "./jobs.js";
import { ask, askJson, key } from "./net.js";
import { Badge, Bar, Empty, Notice, Panel } from "./parts.js";
import { set, useApp } from "./store.js";

const EVERY_MS = 2000;
const LIMIT = 50;
const SURE_MS = 4000;
const LIVE = new Set(["validating", "in_progress", "finalizing", "cancelling"]);
const KINDS = { in_progress: "good", failed: "bad", expired: "bad", cancelling: "warn" };
const EXAMPLE = '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "…", "messages": […]}}';

export function Batches() {
  const { upload } = useApp();
  const [said, setSaid] = useState("");
  const { data, refusal, problem, again } = usePolled(`/v1/batches?limit=${LIMIT}`, EVERY_MS);
  const isMissing = refusal?.status === 404;
  const batches = data?.data ?? [];
  const act = async (what, work) => {
    try {
      setSaid((await work()) ?? "");
    } catch (error) {
      setSaid(`${what}: ${error.message}`);
    }
    again();
  };
  return html`
    <${DropZone} />
    ${upload && html`<${Upload} upload=${upload} />`}
    <${Panel} title="Batches" aside=${batches.length || ""}>
      <p class="said" role="status">${said}</p>
      ${isMissing && html`<${Notice} kind="warn">This gateway has no files and batches. From a shell:
        ${" "}<code>penstock run-batch -i requests.jsonl -o answers.jsonl</code><//>`}
      ${problem && !isMissing && html`<${Notice} kind="bad">${problem}<//>`}
      ${data && batches.length === 0 && html`
        <${Empty} title="No batches yet" commands=${[EXAMPLE]}>
          Drop a file of requests above. One request a line, as OpenAI's batches have it:<//>`}
      ${batches.length > 0 && html`
        <table class="batches">
          <thead><tr><th>Batch</th><th>Status</th><th>Progress</th><th class="n">Submitted</th>
            <th><span class="unseen">Actions</span></th></tr></thead>
          <tbody>${batches.map((batch) => html`<${Batch} key=${batch.id} batch=${batch} act=${act} />`)}</tbody>
        </table>`}
    <//>`;
}

function DropZone() {
  const input = useRef(null);
  return html`
    <section class="panel drop" aria-label="Submit a batch">
      <p><b>Drop a JSONL file anywhere on this page</b>, or${" "}
        <button class="primary" onClick=${() => input.current.click()}>choose one…</button></p>
      <input ref=${input} class="unseen" type="file" accept=".jsonl,.ndjson,application/jsonl" tabindex="-1"
        aria-label="File of requests" onChange=${(event) => {
          const [file] = event.target.files;
          // The same file may be chosen again after it was mended.
          event.target.value = "";
          if (file) submitFile(file);
        }} />
      <p class="hint">It is done within 24 hours; answers can be read while it runs.</p>
    </section>`;
}

function Upload({ upload }) {
  const close = html`<button class="quiet" onClick=${() => set({ upload: null })}>Dismiss</button>`;
  if (upload.problem) return html`<${Notice} kind="bad"><b>${upload.name}</b>: ${upload.problem} ${close}<//>`;
  if (upload.batch) return html`<${Notice}><b>${upload.name}</b> is batch <code>${upload.batch}</code>. ${close}<//>`;
  return html`
    <div class="notice upload" role="status">
      <span>${upload.step} <b>${upload.name}</b>${upload.step === "Sending" ? ` ${share(upload.done)}` : ""}</span>
      <${Bar} value=${upload.done} kind="kv" label="Sent" />
    </div>`;
}

function Batch({ batch, act }) {
  const counts = batch.request_counts ?? { total: 0, completed: 0, failed: 0 };
  const done = counts.completed + counts.failed;
  const trouble = batch.errors?.data?.[0];
  return html`
    <tr>
      <th scope="row"><span class="mono">${batch.id}</span><span class="hint">${batch.endpoint}</span></th>
      <td data-label="Status"><${Badge} kind=${KINDS[batch.status]}>${batch.status.replace("_", " ")}<//></td>
      <td class="kv" data-label="Progress">
        <${Bar} value=${counts.total ? done / counts.total : 0} kind="kv" label=${`Progress of ${batch.id}`} />
        <span class="hint">${trouble ? html`<span class="wrong">${trouble.message}</span>` : html`
          ${counts.total ? `${exact(done)} of ${exact(counts.total)}` : "not counted yet"}
          ${counts.failed ? html`, <span class="wrong">${exact(counts.failed)} failed</span>` : ""}`}</span></td>
      <td class="n" data-label="Submitted">${ago(batch.created_at)}</td>
      <td class="act">
        ${batch.output_file_id && html`<${Download} id=${batch.output_file_id} name=${`${batch.id}_output.jsonl`} act=${act}>Output<//>`}
        ${batch.error_file_id && html`<${Download} id=${batch.error_file_id} name=${`${batch.id}_errors.jsonl`} act=${act}>Errors<//>`}
        ${LIVE.has(batch.status) && batch.status !== "cancelling" && html`<${Cancel} batch=${batch} act=${act} />`}
      </td>
    </tr>`;
}

// Many jobs hang on it, so it asks twice.
function Cancel({ batch, act }) {
  const [isSure, setSure] = useState(false);
  const onClick = () => {
    if (!isSure) {
      setSure(true);
      setTimeout(() => setSure(false), SURE_MS);
      return;
    }
    act("Not cancelled", async () => {
      const now = await askJson("POST", `/v1/batches/${batch.id}/cancel`);
      return `Batch ${batch.id} is ${now.status}.`;
    });
  };
  return html`<button class="danger" onClick=${onClick}
    aria-label=${isSure ? undefined : `Cancel batch ${batch.id}`}>${isSure ? "Really cancel?" : "Cancel"}</button>`;
}

function Download({ id, name, act, children }) {
  const path = `/v1/files/${id}/content`;
  // A link goes straight to disk, but can carry no key.
  if (!key.get()) return html`<a class="button" href=${path} download=${name}>${children}</a>`;
  const onClick = () => act("Not downloaded", async () => {
    const url = URL.createObjectURL(await (await ask("GET", path)).blob());
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  });
  return html`<button onClick=${onClick}>${children}</button>`;
}
