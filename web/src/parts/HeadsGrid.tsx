/**
 * Layers x heads, coloured by a value; MLPs beside their layer and the embedding above, where they have values. One
 * stop of the Tab key: arrows move inside, Enter opens. Sorted, the same cells lie in order of their values.
 */
import { useEffect, useRef } from "preact/hooks";
import { useSignal } from "@preact/signals";
import type { HeadsUnit, Unit } from "../types";
import type { Scale } from "./colours";
import { nameOf } from "./words";

interface Props {
  units: HeadsUnit[];
  scale: Scale;
  format: (value: number | null) => string;
  label: string; // what the value is: "accuracy alone"
  sort?: "layout" | "value";
  selected?: Unit | null;
  off?: ReadonlySet<Unit>; // drawn crossed out
  marked?: ReadonlySet<Unit>; // drawn with a dot (turned)
  onOpen: (unit: Unit, event: MouseEvent) => void;
  onHover?: (unit: Unit | null) => void;
  action?: string; // what Enter does, for the label of the grid: "opens it"
}

type Row = { name: string; cells: (HeadsUnit | null)[]; aside: HeadsUnit | null };

function layOut(units: HeadsUnit[]): { rows: Row[]; columns: number; aside: boolean } {
  const heads = units.filter((unit) => unit.head !== null && unit.layer !== null);
  const columns = 1 + Math.max(-1, ...heads.map((unit) => unit.head!));
  const layers = 1 + Math.max(-1, ...heads.map((unit) => unit.layer!));
  const rows: Row[] = [];
  const byUnit = new Map(units.map((unit) => [unit.unit, unit]));
  const embedding = byUnit.get("emb");
  const told = (unit: HeadsUnit | undefined) => (unit && unit.value !== null ? unit : null);
  if (told(embedding)) rows.push({ name: "", cells: [], aside: embedding! });
  for (let layer = 0; layer < layers; layer++) {
    const cells = Array.from({ length: columns }, (_, head) => byUnit.get(`${layer}.${head}`) ?? null);
    const row = { name: String(layer), cells, aside: told(byUnit.get(`mlp.${layer}`)) };
    if (row.aside || cells.some(Boolean)) rows.push(row); // a store may keep some layers only
  }
  return { rows, columns, aside: rows.some((row) => row.aside) };
}

/** The largest first; what has no value last. */
export function ranked(units: HeadsUnit[]): HeadsUnit[] {
  const of = (unit: HeadsUnit) => unit.value ?? -Infinity;
  return [...units].sort((a, b) => of(b) - of(a) || 0);
}

export function HeadsGrid(props: Props) {
  const { units, scale, format, label, sort = "layout", selected, off, marked, onOpen, onHover, action = "opens it" } = props;
  const grid = useRef<HTMLDivElement>(null);
  const focused = useSignal<Unit | null>(selected ?? null);
  useEffect(() => {
    if (selected) focused.value = selected;
  }, [selected]);

  const { rows, columns, aside } = layOut(units);
  const sorted = sort === "value";
  const order = sorted ? ranked(units).filter((unit) => unit.head !== null || unit.value !== null) : [];
  const across = sorted ? Math.max(columns, Math.ceil(Math.sqrt(order.length))) : columns;
  const lines: (HeadsUnit | null)[][] = [];
  if (sorted) {
    for (let at = 0; at < order.length; at += across) lines.push(order.slice(at, at + across));
  } else {
    for (const row of rows) lines.push([...(row.cells.length ? row.cells : Array<null>(columns).fill(null)), ...(row.aside ? [row.aside] : [])]);
  }
  const everyone = lines.flat().filter((unit) => unit !== null);
  const stop = everyone.some((unit) => unit.unit === focused.value) ? focused.value : (everyone[0]?.unit ?? null);

  function move(event: KeyboardEvent) {
    const row = lines.findIndex((line) => line.some((unit) => unit?.unit === stop));
    const column = lines[row]?.findIndex((unit) => unit?.unit === stop) ?? 0;
    const line = (at: number) => lines[Math.min(Math.max(at, 0), lines.length - 1)] ?? [];
    // The nearest to a place in a line: not every place has a unit.
    const at = (units: (HeadsUnit | null)[], place: number) =>
      units.map((unit, index) => ({ unit, far: Math.abs(index - place) })).filter((one) => one.unit).sort((a, b) => a.far - b.far)[0]?.unit;
    const moves: Record<string, () => HeadsUnit | null | undefined> = {
      ArrowLeft: () => at(line(row), column - 1),
      ArrowRight: () => at(line(row), column + 1),
      ArrowUp: () => at(line(row - 1), column),
      ArrowDown: () => at(line(row + 1), column),
      Home: () => at(line(event.ctrlKey ? 0 : row), 0),
      End: () => at(line(event.ctrlKey ? lines.length : row), across + 1),
    };
    const next = moves[event.key]?.();
    if (!next) return;
    event.preventDefault();
    focused.value = next.unit;
    grid.current?.querySelector<HTMLElement>(`[data-unit="${next.unit}"]`)?.focus();
  }

  function cell(unit: HeadsUnit | null, key: string) {
    if (!unit) return <span key={key} class="cell none" role="gridcell" aria-hidden="true" />;
    const { value } = unit;
    const isOff = off?.has(unit.unit) ?? false;
    const isMarked = marked?.has(unit.unit) ?? false;
    const words = `${nameOf(unit.unit)}, ${label} ${value === null ? "not known" : format(value)}${isOff ? ", off" : ""}${isMarked ? ", turned" : ""}`;
    const kinds = ["cell", selected === unit.unit && "selected", value === null && "empty", isOff && "off", isMarked && "marked"];
    return (
      <button
        key={unit.unit}
        type="button"
        role="gridcell"
        class={kinds.filter(Boolean).join(" ")}
        data-unit={unit.unit}
        tabIndex={unit.unit === stop ? 0 : -1}
        aria-label={words}
        aria-selected={selected === unit.unit}
        title={words}
        style={value === null ? undefined : { background: scale.fill(value), color: scale.ink(value) }}
        onClick={(event) => {
          focused.value = unit.unit;
          onOpen(unit.unit, event);
        }}
        onMouseEnter={onHover && (() => onHover(unit.unit))}
        onMouseLeave={onHover && (() => onHover(null))}
      >
        <span class="cell-text" aria-hidden="true">{sorted ? unit.unit.replace("mlp.", "M") : short(format(value))}</span>
      </button>
    );
  }

  const template = sorted ? `repeat(${across}, minmax(0, 1fr))` : `auto repeat(${columns}, minmax(0, 1fr))${aside ? " 6px minmax(0, 1fr)" : ""}`;
  return (
    <div class="heads">
      <div
        ref={grid}
        class={sorted ? "heads-grid sorted" : "heads-grid"}
        role="grid"
        aria-label={`Heads by ${label}. Arrow keys move, Enter ${action}.`}
        onKeyDown={move}
        onFocusCapture={(event) => (focused.value = (event.target as HTMLElement).dataset.unit ?? focused.value)}
        style={{ gridTemplateColumns: template, "--across": String(across + (aside && !sorted ? 1 : 0)), "--down": String(lines.length) }}
      >
        {!sorted && (
          <div class="heads-row" role="row">
            <span class="heads-name" role="columnheader"><span class="unseen">layer</span></span>
            {Array.from({ length: columns }, (_, head) => (
              <span key={head} class="heads-name top" role="columnheader" aria-label={`head ${head}`}>{head}</span>
            ))}
            {aside && <span aria-hidden="true" role="presentation" />}
            {aside && <span class="heads-name top last" role="columnheader">MLP</span>}
          </div>
        )}
        {sorted
          ? lines.map((line, at) => (
              <div key={at} class="heads-row" role="row">
                {line.map((unit, place) => cell(unit, `${at}-${place}`))}
              </div>
            ))
          : rows.map((row) => (
              <div key={row.name || "emb"} class="heads-row" role="row">
                <span class="heads-name" role="rowheader" aria-label={row.name ? `layer ${row.name}` : undefined}>{row.name || <span class="unseen">embedding</span>}</span>
                {row.cells.length
                  ? row.cells.map((unit, head) => cell(unit, `${row.name}-${head}`))
                  : <span class="heads-name wide" role="presentation" aria-hidden="true" style={{ gridColumn: `span ${columns}` }}>embedding</span>}
                {aside && <span aria-hidden="true" role="presentation" />}
                {aside && (row.aside ? cell(row.aside, `aside-${row.name}`) : <span role="gridcell" class="cell none" aria-hidden="true" />)}
              </div>
            ))}
      </div>
    </div>
  );
}

// In a cell there is room for two digits; the legend has the unit, the label all of the number.
function short(text: string): string {
  const bare = text.replace(/[\u202f\s]?%$/, "");
  const value = Number(bare.replace("−", "-"));
  if (!Number.isFinite(value)) return ""; // "none"
  if (Math.abs(value) >= 1 || text !== bare) return bare;
  return Math.abs(value) < 0.005 ? "0" : value.toFixed(2).replace("-", "−").replace("0.", ".");
}
