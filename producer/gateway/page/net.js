// Requests to the gateway this page came from, with the caller's key; and streams of server-sent events.

import { set, state } from "./store.js";

const KEY = "penstock.key";

// For this tab only, and gone with it.
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export class Refused extends Error {
  constructor(status, message, code) {
    super(sentence(message));
    this.status = status;
    this.code = code;
  }
}

export function authorization() {
  return key.get() ? { authorization: `Bearer ${key.get()}` } : {};
}

export async function ask(method, path, { json, signal } = {}) {
  const headers = authorization();
  if (json !== undefined) headers["content-type"] = "application/json";
  const body = json === undefined ? undefined : JSON.stringify(json);
  let response;
  try {
    response = await fetch(path, { method, headers, body, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The gateway does not answer.", "unreachable");
  }
  if (!response.ok) throw await refusalOf(response);
  return response;
}

export async function askJson(method, path, options) {
  return (await ask(method, path, options)).json();
}

async function refusalOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // Not in our words: something between us and the gateway.
  }
  return refused(response.status, error.message, error.code);
}

export function refused(status, message, code) {
  // Several requests may hear it at once; the first one says why. Without a key it is no problem, only a question.
  if (status === 401 && !state.needsKey) {
    set({ needsKey: true, keyProblem: key.get() ? sentence(message ?? "") : "" });
    key.forget();
  }
  return new Refused(status, message ?? `The gateway answered ${status}.`, code);
}

// As a person writes it; the gateway's own words are for programs, too.
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!…]$/.test(text) ? "" : ".");
}

// The `data` of each event, parsed; ends with the stream.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        if (!part.startsWith("data: ")) continue;
        const data = part.slice(6);
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
