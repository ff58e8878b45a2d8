/** Of each class (rows), what it is seen as (columns). A cell opens its pictures; arrows move between cells. */
import { useSignal } from "@preact/signals";
import { useMemo, useRef } from "preact/hooks";
import type { TurnAnswer } from "../types";
import { count, percent, plural } from "./words";

interface Props {
  confusion: TurnAnswer["confusion"];
  classes: string[];
  selected?: { row: number; column: number } | null; // classes
  onOpen: (row: number, column: number) => void;
}

export function Confusion({ confusion, classes, selected, onOpen }: Props) {
  const grid = useRef<HTMLTableElement>(null);
  const stop = useSignal({ row: 0, column: 0 });
  const shown = confusion.classes;
  const name = (index: number) => classes[index] ?? String(index);
  const last = shown.length - 1;

  function move(event: KeyboardEvent) {
    const { row, column } = stop.value;
    const moves: Record<string, [number, number]> = {
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      Home: [row, 0],
      End: [row, last],
    };
    const next = moves[event.key];
    if (!next) return;
    event.preventDefault();
    const [to, across] = next.map((place) => Math.min(Math.max(place, 0), last)) as [number, number];
    stop.value = { row: to, column: across };
    grid.current?.querySelector<HTMLElement>(`[data-cell="${to}-${across}"]`)?.focus();
  }

  return (
    <div class="confusion-frame">
      <table ref={grid} class="confusion" role="grid" aria-label="Confusion matrix. Arrow keys move, Enter shows the pictures." onKeyDown={move} style={{ "--classes": String(shown.length) }}>
        <thead>
          <tr>
            <td />
            {shown.map((index) => (
              <th key={index} scope="col" title={name(index)}>
                <span>{name(index)}</span>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {confusion.counts.map((counts, at) => (
            <Row
              key={shown[at]}
              at={at}
              counts={counts}
              shown={shown}
              classes={classes}
              selected={selected?.row === shown[at] ? selected!.column : null}
              stop={stop.value.row === at ? stop.value.column : null}
              onOpen={(across) => {
                stop.value = { row: at, column: across };
                if (counts[across]) onOpen(shown[at]!, shown[across]!);
              }}
            />
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface RowProps {
  at: number;
  counts: number[];
  shown: number[];
  classes: string[];
  selected: number | null; // a class
  stop: number | null; // a column
  onOpen: (column: number) => void;
}

/** One class. While something is dragged most rows stay as they are: those aren't drawn anew. */
function Row({ at, counts, shown, classes, selected, stop, onOpen }: RowProps) {
  const open = useRef(onOpen);
  open.current = onOpen;
  return useMemo(() => {
    const name = (index: number) => classes[index] ?? String(index);
    const ofClass = shown[at]!;
    const total = counts.reduce((sum, n) => sum + n, 0);
    return (
      <tr>
        <th scope="row" title={name(ofClass)}>
          <span>{name(ofClass)}</span>
        </th>
        {counts.map((n, across) => {
          const as = shown[across]!;
          const right = ofClass === as;
          const share = total ? n / total : 0;
          const words = `${name(ofClass)} seen as ${name(as)}: ${plural(n, "picture")}, ${percent(share)}`;
          return (
            <td key={as} class={selected === as ? "selected" : undefined} aria-selected={selected === as}>
              <button
                type="button"
                data-cell={`${at}-${across}`}
                tabIndex={stop === across ? 0 : -1}
                class={right ? "right" : "wrong"}
                style={n ? { "--share": (right ? share : Math.min(1, 0.15 + 2 * share)).toFixed(3) } : undefined}
                aria-label={words}
                aria-disabled={n === 0}
                title={words}
                onClick={() => open.current(across)}
              >
                {n && shown.length <= 20 ? count(n) : ""}
              </button>
            </td>
          );
        })}
      </tr>
    );
  }, [at, counts.join(), shown.join(), classes, selected, stop]);
}
