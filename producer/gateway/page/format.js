// Numbers and times as a person reads them at a glance.

import { now } from "./store.js";

const exactly = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const exact = (value) => exactly.format(value);

// 950, 12.3k, 4.56M: three digits that matter.
export function short(value) {
  const size = Math.abs(value);
  if (size < 10 && !Number.isInteger(value)) return value.toFixed(1);
  if (size < 10000) return exact(value);
  const [unit, by] = size < 999500 ? ["k", 1e3] : size < 999.5e6 ? ["M", 1e6] : ["B", 1e9];
  const scaled = value / by;
  return scaled.toFixed(scaled < 10 ? 2 : scaled < 100 ? 1 : 0) + unit;
}

export const share = (value) => `${Math.round(100 * value)}%`;

export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 1) return "under 1 s";
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 36 * 3600) {
    const minutes = Math.round(s / 60);
    return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
  }
  return `${Math.round(s / 86400)} days`;
}

export function ago(at) {
  return at ? `${span(now() - at)} ago` : "";
}

export function until(at) {
  const left = at - now();
  return left < 1 ? "any moment" : `in ${span(left)}`;
}

export function clock(at) {
  const date = new Date(at * 1000);
  const isToday = date.toDateString() === new Date(now() * 1000).toDateString();
  const time = date.toLocaleTimeString("en-GB");
  return isToday ? time : `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })}, ${time}`;
}

export const plural = (count, one, many = `${one}s`) => `${exact(count)} ${count === 1 ? one : many}`;
