// A file of requests becomes a batch: looked at, sent to /v1/files, then named to /v1/batches.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { askJson, authorization, refused } from "./net.js";
import { set, state } from "./store.js";

const LOOKED_AT_BYTES = 1024 * 1024;
const WINDOW = "24h";
// Of a gateway without files and batches: what does the same from a shell.
const NONE_HERE = "This gateway has no files and batches. From a shell: penstock run-batch -i requests.jsonl -o answers.jsonl";

export async function submitFile(file) {
  if (state.upload && !state.upload.problem && !state.upload.batch) return;
  const tell = (patch) => set({ upload: { ...state.upload, ...patch } });
  set({ upload: { name: file.name, step: "Looking at it", done: 0 } });
  location.hash = "#/batches";
  try {
    const endpoint = await endpointOf(file);
    tell({ step: "Sending" });
    const stored = await send(file, (done) => tell({ done }));
    tell({ step: "Submitting", done: 1 });
    const asked = { input_file_id: stored.id, endpoint, completion_window: WINDOW };
    const batch = await askJson("POST", "/v1/batches", { json: asked });
    tell({ step: "Submitted", batch: batch.id });
  } catch (error) {
    tell({ problem: error.status === 404 || error.status === 405 ? NONE_HERE : error.message });
  }
}

// By its first line: what is wrong there is better said before 200 MB are on their way.
async function endpointOf(file) {
  const [line] = (await file.slice(0, LOOKED_AT_BYTES).text()).trimStart().split("\n");
  if (!line) throw new Error(`${file.name} is empty.`);
  let request;
  try {
    request = JSON.parse(line);
  } catch {
    throw new Error(`${file.name} is not JSONL: its first line is no JSON.`);
  }
  if (typeof request?.url !== "string" || typeof request?.custom_id !== "string") {
    throw new Error(`The first line of ${file.name} needs "custom_id", "method", "url" and "body", as OpenAI's batches have it.`);
  }
  return request.url;
}

// fetch does not tell how far an upload is.
function send(file, onProgress) {
  const form = new FormData();
  form.append("purpose", "batch");
  form.append("file", file, file.name);
  const request = new XMLHttpRequest();
  request.open("POST", "/v1/files");
  for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
  request.responseType = "json";
  request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
  return new Promise((resolve, reject) => {
    request.onerror = () => reject(refused(0, "The gateway did not take the file: the line broke."));
    request.onload = () => {
      const error = request.response?.error;
      if (request.status < 300) resolve(request.response);
      else reject(refused(request.status, error?.message, error?.code));
    };
    request.send(form);
  });
}

// Wherever on the page a file is dropped.
export function DropAnywhere() {
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
    const onOver = (event) => {
      if (!holdsFile(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const onLeave = (event) => event.relatedTarget === null && setOver(false);
    const onDrop = (event) => {
      if (!holdsFile(event)) return;
      event.preventDefault();
      setOver(false);
      submitFile(event.dataTransfer.files[0]);
    };
    addEventListener("dragover", onOver);
    addEventListener("dragleave", onLeave);
    addEventListener("drop", onDrop);
    return () => {
      removeEventListener("dragover", onOver);
      removeEventListener("dragleave", onLeave);
      removeEventListener("drop", onDrop);
    };
  }, []);
  return isOver && html`<div class="drop-over" aria-hidden="true"><p>Drop the file to submit it as a batch</p></div>`;
}
