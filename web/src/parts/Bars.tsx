/** Named shares as bars, longest as given; a mark where chance is. */
import type { ComponentChildren } from "preact";
import { percent } from "./words";

interface Bar {
  label: ComponentChildren;
  value: number;
  onClick?: () => void;
}

interface Props {
  bars: Bar[];
  high?: number; // what a full bar means; by default the largest value
  format?: (value: number) => string;
  label: string;
}

export function Bars({ bars, high, format = percent, label }: Props) {
  const reach = high ?? Math.max(...bars.map((bar) => Math.abs(bar.value)), 1e-12);
  return (
    <ol class="bars" aria-label={label}>
      {bars.map((bar, index) => (
        <li key={index}>
          {bar.onClick ? (
            <button type="button" class="plain bar-label" onClick={bar.onClick}>
              {bar.label}
            </button>
          ) : (
            <span class="bar-label">{bar.label}</span>
          )}
          <span class="bar-track" aria-hidden="true">
            <span class={bar.value < 0 ? "bar-fill against" : "bar-fill"} style={{ width: `${Math.min(Math.abs(bar.value) / reach, 1) * 100}%` }} />
          </span>
          <span class="bar-value">{format(bar.value)}</span>
        </li>
      ))}
    </ol>
  );
}
