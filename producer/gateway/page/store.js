// What all views share, and who is told when it changes.

import { useEffect, useState } from "./vendor/preact-htm.js";

export const state = {
  // The latest overview, with what news leave out filled in.
  overview: null,
  // connecting, live, or lost.
  link: "connecting",
  problem: "",
  needsKey: false,
  keyProblem: "",
  // The chosen pool; empty is the first.
  pool: "",
  // A file on its way to become a batch: { name, step, done, problem }.
  upload: null,
  // The server's clock minus ours.
  clockSkewMs: 0,
};

const listeners = new Set();
let changes = 0;

export function set(patch) {
  Object.assign(state, patch);
  changes += 1;
  for (const listener of [...listeners]) listener();
}

export function useApp() {
  const [, bump] = useState(0);
  const drawn = changes;
  useEffect(() => {
    const listener = () => bump((count) => count + 1);
    listeners.add(listener);
    // The first answer may come between the first drawing and here.
    if (changes !== drawn) listener();
    return () => listeners.delete(listener);
  }, []);
  return state;
}

// In Unix seconds, by the gateway's clock: a phone's own may be minutes off.
export function now() {
  return (Date.now() + state.clockSkewMs) / 1000;
}

export function chosenPool() {
  const pools = state.overview?.pools ?? [];
  return pools.find((pool) => pool.pool === state.pool) ?? pools[0] ?? null;
}
