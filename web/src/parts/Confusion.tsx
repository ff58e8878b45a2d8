/** Of each class (rows), what it is seen as (columns). A cell opens its pictures; arrows move between cells. */
import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
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
          {confusion.counts.map((row, at) => {
            const ofClass = shown[at]!;
            const total = row.reduce((sum, n) => sum + n, 0);
            return (
              <tr key={ofClass}>
                <th scope="row" title={name(ofClass)}>
                  <span>{name(ofClass)}</span>
                </th>
                {row.map((n, across) => {
                  const as = shown[across]!;
                  const right = ofClass === as;
                  const share = total ? n / total : 0;
                  const isSelected = selected?.row === ofClass && selected.column === as;
                  const words = `${name(ofClass)} seen as ${name(as)}: ${plural(n, "picture")}, ${percent(share)}`;
                  return (
                    <td key={as} class={isSelected ? "selected" : undefined} aria-selected={isSelected}>
                      <button
                        type="button"
                        data-cell={`${at}-${across}`}
                        tabIndex={stop.value.row === at && stop.value.column === across ? 0 : -1}
                        class={right ? "right" : "wrong"}
                        style={{ "--share": String(right ? share : Math.min(1, n ? 0.15 + 2 * share : 0)) }}
                        aria-label={words}
                        aria-disabled={n === 0}
                        title={words}
                        onClick={() => {
                          stop.value = { row: at, column: across };
                          if (n) onOpen(ofClass, as);
                        }}
                      >
                        {n && shown.length <= 20 ? count(n) : ""}
                      </button>
                    </td>
                  );
                })}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
