/** What the colours mean, with numbers; a mark where chance (or another reference) is. */
import { stops, type Scale } from "./colours";

interface Props {
  scale: Scale;
  format: (value: number) => string;
  reference?: number | null;
  referenceName?: string;
  ends?: [string, string]; // words at the ends, under the numbers
}

export function Legend({ scale, format, reference, referenceName = "chance", ends }: Props) {
  const span = scale.high - scale.low;
  const inside = reference !== null && reference !== undefined && span > 0 && reference >= scale.low && reference <= scale.high;
  return (
    <div class="legend">
      <div class="legend-strip" aria-hidden="true" style={{ background: `linear-gradient(to right, ${stops(scale.signed).join(", ")})` }}>
        {inside && <span class="legend-mark" style={{ left: `${((reference - scale.low) / span) * 100}%` }} />}
      </div>
      <div class="legend-numbers">
        <span>{format(scale.low)}{ends && ` ${ends[0]}`}</span>
        {reference !== null && reference !== undefined && (
          <span class="legend-reference">
            <span class="legend-tick" aria-hidden="true" /> {referenceName} {format(reference)}
          </span>
        )}
        <span>{format(scale.high)}{ends && ` ${ends[1]}`}</span>
      </div>
    </div>
  );
}
