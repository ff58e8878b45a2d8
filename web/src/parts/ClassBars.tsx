/** Accuracy of each class, with a tick where it was before and the difference. */
import { useSignal } from "@preact/signals";
import { percent } from "./words";

interface Props {
  now: (number | null)[];
  before: (number | null)[] | null;
  classes: string[];
}

const FEW = 12;

/** "+1.2 points". */
export function points(difference: number): string {
  const value = 100 * difference;
  const text = Math.abs(value).toFixed(1);
  return text === "0.0" ? "no change" : `${value > 0 ? "+" : "−"}${text} points`;
}

export function ClassBars({ now, before, classes }: Props) {
  const all = useSignal(false);
  const rows = now.flatMap((value, index) => {
    const was = before?.[index] ?? null;
    return value === null ? [] : [{ index, value, was, change: was === null ? 0 : value - was }];
  });
  const order = [...rows].sort((a, b) => Math.abs(b.change) - Math.abs(a.change) || a.value - b.value);
  const shown = all.value || rows.length <= FEW ? rows : order.slice(0, FEW).sort((a, b) => a.index - b.index);
  return (
    <>
      <ol class="class-bars" aria-label="Accuracy by class">
        {shown.map(({ index, value, was, change }) => (
          <li key={index}>
            <span class="class-name">{classes[index] ?? index}</span>
            <span class="bar-track" aria-hidden="true">
              <span class="bar-fill" style={{ width: `${100 * value}%` }} />
              {was !== null && <span class="bar-was" style={{ left: `${100 * was}%` }} />}
            </span>
            <span class="class-value">
              {percent(value)}
              <span class={change < -0.0005 ? "worse" : change > 0.0005 ? "better" : "soft"}>
                {Math.abs(change) < 0.0005 ? "" : ` ${points(change).replace(" points", "")}`}
              </span>
            </span>
          </li>
        ))}
      </ol>
      {rows.length > FEW && (
        <button type="button" class="plain linked" aria-expanded={all.value} onClick={() => (all.value = !all.value)}>
          {all.value ? "Those that changed most" : `All ${rows.length} classes`}
        </button>
      )}
    </>
  );
}
