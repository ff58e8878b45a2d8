/** What the colours mean, with numbers; a mark where chance (or another reference) is. */
import { stops, type Scale } from "./colours";

interface Props {
  scale: Scale;
  format: (value: number) => string;
  reference?: number | null;
  referenceName?: string;
  beyond?: [boolean, boolean]; // whether something lies below, or above, what the colours tell apart
}

export function Legend({ scale, format, reference, referenceName = "chance", beyond = [false, false] }: Props) {
  const span = scale.high - scale.low;
  const inside = reference !== null && reference !== undefined && span > 0 && reference >= scale.low && reference <= scale.high;
  return (
    <div class="legend">
      <div class="legend-strip" aria-hidden="true" style={{ background: `linear-gradient(to right, ${stops(scale.signed).join(", ")})` }}>
        {inside && <span class="legend-mark" style={{ left: `${((reference - scale.low) / span) * 100}%` }} />}
      </div>
      <div class="legend-numbers">
        <span>{format(scale.low)}{beyond[0] && " or less"}</span>
        {reference !== null && reference !== undefined && (
          <span class="legend-reference">
            <span class="legend-tick" aria-hidden="true" /> {referenceName} {format(reference)}
          </span>
        )}
        <span>{format(scale.high)}{beyond[1] && " or more"}</span>
      </div>
    </div>
  );
}
