/** How a unit's variance falls over its components; the components that are shown beside it stand out. */
import { useEffect, useRef } from "preact/hooks";
import { barY, plot, ruleY, tip, pointerX } from "@observablehq/plot";
import { percent } from "./words";

interface Props {
  ratios: number[];
  shown?: number[]; // indices of components that stand out
  label: string;
}

export function Spectrum({ ratios, shown = [], label }: Props) {
  const holder = useRef<HTMLDivElement>(null);
  const standing = shown.join(",");
  useEffect(() => {
    const element = holder.current;
    if (!element) return;
    const rows = ratios.map((ratio, index) => ({ index, ratio, shown: shown.includes(index) }));
    const draw = () => {
      const every = Math.ceil(ratios.length / ((element.clientWidth || 320) / 48));
      const chart = plot({
        width: element.clientWidth || 320,
        height: 132,
        marginTop: 8,
        marginLeft: 40,
        marginRight: 4,
        marginBottom: 32,
        style: { background: "none", fontSize: "12px", fontFamily: "inherit" },
        x: { label: "component", tickSize: 0, ticks: ratios.map((_, index) => index).filter((index) => index % every === 0) },
        y: { label: null, ticks: 3, tickFormat: (value: number) => percent(value, 0), grid: true },
        marks: [
          barY(rows, { x: "index", y: "ratio", fill: (row: { shown: boolean }) => (row.shown ? "var(--accent)" : "var(--quiet-fill)"), insetLeft: 0.5, insetRight: 0.5 }),
          ruleY([0], { stroke: "var(--line)" }),
          tip(rows, pointerX({ x: "index", y: "ratio", title: (row: { index: number; ratio: number }) => `component ${row.index}: ${percent(row.ratio)}`, fill: "var(--surface)", stroke: "var(--line)" })),
        ],
      });
      chart.setAttribute("aria-hidden", "true");
      element.replaceChildren(chart);
    };
    draw();
    const watcher = new ResizeObserver(draw);
    watcher.observe(element);
    return () => watcher.disconnect();
  }, [ratios, standing]);
  return <div class="spectrum" role="img" aria-label={label} ref={holder} />;
}
