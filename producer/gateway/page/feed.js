// Follows /v1/overview into the store, for as long as the page can be seen: a browser opens six lines to one host at
// most, and tabs in the background must not hold them all.

import { ask, events, refused } from "./net.js";
import { set, state } from "./store.js";

const FIRST_WAIT_MS = 1000;
const WAIT_MAX_MS = 10000;
const SILENT_AFTER_MS = 5000;
const HISTORY = 120;

let stop = new AbortController();
let isRunning = false;

export async function follow() {
  if (isRunning) return;
  isRunning = true;
  let waitMs = FIRST_WAIT_MS;
  while (!state.needsKey) {
    await seen();
    stop = new AbortController();
    try {
      const response = await ask("GET", "/v1/overview?stream=true", { signal: stop.signal });
      for await (const overview of watched(events(response))) {
        if (overview.error) throw refused(overview.error.code === "invalid_api_key" ? 401 : 503, overview.error.message);
        waitMs = FIRST_WAIT_MS;
        take(overview);
      }
      throw new Error("The gateway is stopping.");
    } catch (error) {
      if (state.needsKey) break;
      if (document.hidden) continue;
      const problem = error.name === "AbortError" ? "The gateway has gone silent." : error.message;
      set({ link: "lost", problem });
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
    waitMs = Math.min(WAIT_MAX_MS, 2 * waitMs);
  }
  isRunning = false;
}

function seen() {
  if (!document.hidden) return null;
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

document.addEventListener("visibilitychange", () => document.hidden && stop.abort());

// An overview comes each second; a line that is dead without saying so must not look like a quiet queue.
async function* watched(source) {
  let timer = setTimeout(() => stop.abort(), SILENT_AFTER_MS);
  try {
    for await (const event of source) {
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), SILENT_AFTER_MS);
      yield event;
    }
  } finally {
    clearTimeout(timer);
  }
}

function take(overview) {
  const before = state.overview;
  overview.decisions ??= before?.decisions ?? [];
  for (const pool of overview.pools) {
    if (pool.history.length) continue;
    const known = before?.pools.find((one) => one.pool === pool.pool)?.history ?? [];
    pool.history = [...known, pool.tokens_per_s].slice(-HISTORY);
  }
  set({ overview, link: "live", problem: "", clockSkewMs: overview.at * 1000 - Date.now() });
}
