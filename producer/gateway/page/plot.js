// One line over the last two minutes, drawn in SVG at the size it has.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { exact, short, span } from "./format.js";

const SPAN_S = 120;
const HEIGHT = 148;
const PAD = { top: 10, right: 4, bottom: 20, left: 44 };

export function Plot({ values, label }) {
  const [box, width] = useWidth();
  const [at, setAt] = useState(null);
  const top = niceTop(Math.max(...values, 10));
  const inner = { width: Math.max(1, width - PAD.left - PAD.right), height: HEIGHT - PAD.top - PAD.bottom };
  const x = (age) => PAD.left + inner.width * (1 - age / (SPAN_S - 1));
  const y = (value) => PAD.top + inner.height * (1 - value / top);
  const points = values.map((value, index) => [x(values.length - 1 - index), y(value)]);
  const line = points.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join(" ");
  const now = values.at(-1) ?? 0;
  const onMove = (event) => {
    const place = event.clientX - event.currentTarget.getBoundingClientRect().left - PAD.left;
    const age = Math.round((1 - place / inner.width) * (SPAN_S - 1));
    setAt(age >= 0 && age < values.length ? age : null);
  };
  const shown = at === null ? null : values[values.length - 1 - at];
  return html`
    <div class="plot" ref=${box}>
      <svg width=${width} height=${HEIGHT} role="img" onPointerMove=${onMove} onPointerLeave=${() => setAt(null)}
        aria-label=${`${label} over the last two minutes: now ${exact(now)}, highest ${exact(Math.max(...values, 0))}`}>
        ${[0, top / 2, top].map((tick) => html`
          <line class="rule" x1=${PAD.left} x2=${width - PAD.right} y1=${y(tick)} y2=${y(tick)} />
          <text class="tick" x=${PAD.left - 8} y=${y(tick) + 4} text-anchor="end">${short(tick)}</text>`)}
        ${[120, 60, 0].map((age) => html`
          <text class="tick" x=${age === 120 ? PAD.left : age ? x(age) : width - PAD.right} y=${HEIGHT - 4}
            text-anchor=${age === 120 ? "start" : age ? "middle" : "end"}>${age ? `−${age} s` : "now"}</text>`)}
        ${points.length > 1 && html`
          <polygon class="area" points=${`${points[0][0]},${y(0)} ${line} ${points.at(-1)[0]},${y(0)}`} />
          <polyline class="line" points=${line} />`}
        ${shown !== null && shown !== undefined && html`
          <line class="cross" x1=${x(at)} x2=${x(at)} y1=${PAD.top} y2=${y(0)} />
          <circle class="spot" cx=${x(at)} cy=${y(shown)} r="3" />
          <text class="read" x=${Math.min(width - 8, Math.max(PAD.left + 60, x(at)))} y=${PAD.top + 2}
            text-anchor="end">${short(shown)}/s, ${at ? `${span(at)} ago` : "now"}</text>`}
      </svg>
    </div>`;
}

// Round numbers, few of them: an axis that can be read does not jump with every second.
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value);
}

function useWidth() {
  const box = useRef(null);
  const [width, setWidth] = useState(320);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  return [box, width];
}
