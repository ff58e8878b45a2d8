/** Two stores side by side: which heads move from one to the other. */
import { plot, dot, ruleY, ruleX, tip, pointer, link as linkMark } from "@observablehq/plot";
import { useEffect, useRef } from "preact/hooks";
import { path, useAsk } from "../ask";
import { Answer, Skeleton } from "../parts/Answer";
import { scaleOf } from "../parts/colours";
import { HeadsGrid } from "../parts/HeadsGrid";
import { Legend } from "../parts/Legend";
import { nameOf, number, percent, titleOf } from "../parts/words";
import { field, go } from "../state";
import type { About, Moves } from "../types";
import "./views.css";

const unit = field("unit");
const MOST = 30;

export function Stores({ about }: { about: About }) {
  const two = about.stores.length > 1;
  const moves = useAsk<Moves>(two ? path("api/moves") : null);
  if (!two) {
    return <p class="cannot">One store is open. `residual explore STORE OTHER` shows which heads move between two.</p>;
  }
  const [first, second] = about.stores.map((store) => store.name) as [string, string];
  return (
    <section class="stack">
      <h2>
        From {first} to {second}
      </h2>
      <Answer of={moves} waiting={<Skeleton height="20rem" />}>
        {(data) => {
          const values = data.units.map((one) => one.value).filter((value) => value !== null);
          const scale = scaleOf(Math.min(0, ...values), Math.max(...values, 1e-9));
          const order = [...data.units].filter((one) => one.value !== null).sort((a, b) => b.value! - a.value!);
          return (
            <div class="stack">
              <p class="soft small">{data.what}</p>
              <div class="turn-columns">
                <section class="card stack" aria-labelledby="moving">
                  <h3 id="moving">Which heads move</h3>
                  <HeadsGrid
                    units={data.units.map((one) => ({ ...one, kind: one.head === null ? "mlp" : "head" }))}
                    scale={scale}
                    format={number}
                    label="how far it moves"
                    selected={unit.value}
                    action="chooses it"
                    onOpen={(name) => go({ unit: name })}
                  />
                  <Legend scale={scale} format={number} />
                  <Chosen moves={data} names={[first, second]} />
                </section>
                <section class="card stack" aria-labelledby="both">
                  <h3 id="both">Accuracy alone, in one against the other</h3>
                  <Scatter moves={data} names={[first, second]} selected={unit.value} />
                </section>
              </div>
              <section class="card stack" aria-labelledby="most">
                <h3 id="most">Those that move most</h3>
                <div class="scroll">
                  <table class="moves">
                    <thead>
                      <tr>
                        <th scope="col" rowSpan={2}>Unit</th>
                        <th scope="col" rowSpan={2}>Moves</th>
                        <th scope="colgroup" colSpan={2}>Accuracy alone</th>
                        <th scope="colgroup" colSpan={2}>Dimension</th>
                      </tr>
                      <tr>
                        {[first, second, first, second].map((name, index) => (
                          <th key={index} scope="col">{name}</th>
                        ))}
                      </tr>
                    </thead>
                    <tbody>
                      {order.slice(0, MOST).map((one) => (
                        <tr key={one.unit} class={one.unit === unit.value ? "selected" : undefined}>
                          <th scope="row">
                            <button type="button" class="plain linked" onClick={() => go({ unit: one.unit })}>
                              {nameOf(one.unit)}
                            </button>
                          </th>
                          <td>{number(one.value)}</td>
                          <td>{percent(one.accuracy[0])}</td>
                          <td>{percent(one.accuracy[1])}</td>
                          <td>{number(one.dimension[0])}</td>
                          <td>{number(one.dimension[1])}</td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                </div>
              </section>
            </div>
          );
        }}
      </Answer>
    </section>
  );
}

function Chosen({ moves, names: [first, second] }: { moves: Moves; names: [string, string] }) {
  const one = moves.units.find((each) => each.unit === unit.value);
  if (!one) return null;
  return (
    <p role="status">
      <b>{titleOf(one.unit)}</b> moves {number(one.value)}: accuracy alone {percent(one.accuracy[0])} in {first}, {percent(one.accuracy[1])} in {second}; dimension{" "}
      {number(one.dimension[0])} and {number(one.dimension[1])}.{" "}
      <button type="button" class="plain linked" onClick={() => go({ view: "heads", unit: one.unit })}>
        Look into it
      </button>
    </p>
  );
}

type Point = { unit: string; x: number; y: number; value: number };

function Scatter({ moves, names, selected }: { moves: Moves; names: [string, string]; selected: string | null }) {
  const holder = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = holder.current;
    if (!element) return;
    const points: Point[] = moves.units.flatMap(({ unit, accuracy: [x, y], value }) => (x === null || y === null ? [] : [{ unit, x, y, value: value ?? 0 }]));
    const most = Math.max(0.01, ...points.flatMap(({ x, y }) => [x, y]));
    const reach = most * 1.04;
    const draw = () => {
      const width = Math.min(element.clientWidth || 320, 480);
      const format = (value: number) => percent(value, 0);
      const chart = plot({
        width,
        height: width,
        marginLeft: 52,
        marginBottom: 44,
        style: { background: "none", fontSize: "12px", fontFamily: "inherit" },
        x: { label: names[0], domain: [0, reach], tickFormat: format, ticks: 5 },
        y: { label: names[1], domain: [0, reach], tickFormat: format, ticks: 5, grid: true },
        r: { range: [2, 9] },
        marks: [
          ruleX([0], { stroke: "var(--line)" }),
          ruleY([0], { stroke: "var(--line)" }),
          linkMark([0], { x1: 0, y1: 0, x2: reach, y2: reach, stroke: "var(--soft)", strokeDasharray: "3 4" }),
          dot(points, { x: "x", y: "y", r: "value", fill: "var(--accent)", fillOpacity: 0.55, stroke: "var(--surface)" }),
          dot(points.filter((point) => point.unit === selected), { x: "x", y: "y", r: 9, stroke: "var(--ink)", strokeWidth: 2 }),
          tip(points, pointer({ x: "x", y: "y", title: (point: Point) => `${nameOf(point.unit)}\n${names[0]} ${percent(point.x)}\n${names[1]} ${percent(point.y)}`, fill: "var(--surface)", stroke: "var(--line)" })),
        ],
      });
      chart.setAttribute("aria-hidden", "true");
      chart.addEventListener("click", () => {
        const point = (chart as unknown as { value: Point | null }).value;
        if (point) go({ unit: point.unit });
      });
      element.replaceChildren(chart);
    };
    draw();
    const watcher = new ResizeObserver(draw);
    watcher.observe(element);
    return () => watcher.disconnect();
  }, [moves, names.join("\n"), selected]);
  return (
    <>
      <div class="scatter" role="img" aria-label={`Each head's accuracy alone in ${names[0]} (across) and in ${names[1]} (up); the list below has the numbers.`} ref={holder} />
      <p class="small soft">Above the dashed line a head does better in {names[1]}; larger dots move more.</p>
    </>
  );
}
