// Small pieces that several views are made of.

import { html } from "./vendor/preact-htm.js";
import { share } from "./format.js";

export function Panel({ title, aside, className = "", children }) {
  const id = `panel-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return html`
    <section class=${`panel ${className}`} aria-labelledby=${id}>
      <header><h2 id=${id}>${title}</h2>${aside && html`<span class="aside">${aside}</span>`}</header>
      ${children}
    </section>`;
}

// A filled share of a line. `kind` colours it.
export function Bar({ value, label, kind = "" }) {
  const part = Math.min(1, Math.max(0, value || 0));
  return html`
    <div class="bar" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
      aria-valuenow=${Math.round(100 * part)} aria-valuetext=${share(part)}>
      <div class=${`fill ${kind}`} style=${{ width: `${100 * part}%` }}></div>
    </div>`;
}

export function Badge({ kind = "", children }) {
  return html`<span class=${`badge ${kind}`}>${children}</span>`;
}

// Nothing here yet, and what a person would type next.
export function Empty({ title, children, commands = [] }) {
  return html`
    <div class="empty">
      <p class="what">${title}</p>
      ${children && html`<p>${children}</p>`}
      ${commands.map((command) => html`<pre><code>${command}</code></pre>`)}
    </div>`;
}

export function Notice({ kind = "", children }) {
  return html`<p class=${`notice ${kind}`} role=${kind === "bad" ? "alert" : undefined}>${children}</p>`;
}
