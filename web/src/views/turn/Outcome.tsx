/** Accuracy as it is turned, beside the plain encoder's; in view while one scrolls, and said when the hand rests. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { points } from "../../parts/ClassBars";
import { percent, plural } from "../../parts/words";
import { answer, isPlain } from "../../turned";
import type { About } from "../../types";

const RESTS = 700; // milliseconds after which it is said

export function Outcome({ about }: { about: About }) {
  const found = answer.value;
  const accuracy = found?.accuracy ?? about.baseline?.accuracy;
  const interval = found?.interval ?? about.baseline?.interval;
  const worst = found?.worst_group ?? about.baseline?.worst_group;
  const difference = found?.accuracy != null && found.before != null ? found.accuracy - found.before : null;
  const said = useSignal("");
  const words = found && accuracy != null ? `Accuracy ${percent(accuracy, 1)}, ${points(difference ?? 0)}; ${plural(found.changed, "prediction")} changed.` : "";
  useEffect(() => {
    const timer = setTimeout(() => (said.value = words), RESTS);
    return () => clearTimeout(timer);
  }, [words]);
  return (
    <div class="outcome">
      <p class="outcome-main">
        <span class="outcome-number">{percent(accuracy, 1)}</span>
        <span class="outcome-more">
          <span class="soft small">accuracy{interval && ` (${percent(interval[0], 1)} to ${percent(interval[1], 1)})`}</span>
          {!isPlain.value && difference !== null && (
            <span class={difference < -0.0005 ? "worse" : difference > 0.0005 ? "better" : "soft"}>
              {points(difference)}
              {found?.before != null && <span class="soft small"> from {percent(found.before, 1)}</span>}
            </span>
          )}
        </span>
      </p>
      <p class="outcome-side small">
        {found && <span>{isPlain.value ? "nothing turned" : `${plural(found.changed, "prediction")} changed`}</span>}
        {worst && (
          <span>
            worst group: {worst.name} {percent(worst.accuracy, 1)}
          </span>
        )}
      </p>
      <p class="unseen" role="status">{said.value}</p>
    </div>
  );
}
