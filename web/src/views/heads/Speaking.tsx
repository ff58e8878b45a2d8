/** A text: which components speak it, like texts, and the pictures that have most of it. */
import { Bars } from "../../parts/Bars";
import { nameOf, percent, titleOf } from "../../parts/words";
import { go } from "../../state";
import type { About, TextAnswer } from "../../types";
import { openUnit } from "./open";
import { ByText } from "../unit/Neighbours";

const strength = (one: TextAnswer["units"][number]) => one.above ?? one.value ?? 0;
const NOBODY = "No head speaks of it more than of a random direction. Name one thing that a picture can show: “red” rather than “colour”.";

/** The units that speak of a text most, and more than of a random direction. */
function heardBy(answer: TextAnswer) {
  const best = [...answer.units].sort((a, b) => strength(b) - strength(a)).slice(0, 5);
  return best.filter((one) => (one.value ?? 0) > (answer.chance ?? 0) && strength(one) > 0);
}

/** The same in a sentence, for those who hear the page. */
export function heardOf(answer: TextAnswer): string {
  const units = heardBy(answer).slice(0, 3).map((one) => nameOf(one.unit));
  return `“${answer.text}”: ${units.length ? `most by ${units.join(", ")}.` : NOBODY}`;
}

export function Speaking({ about, answer }: { about: About; answer: TextAnswer }) {
  const heard = heardBy(answer);
  return (
    <div class="card stack">
      <h2>“{answer.text}”</h2>
      {heard.length ? (
        <>
          <h3>What speaks of it most</h3>
          <Bars
            label="What speaks of it most"
            bars={heard.map((one) => ({
              value: one.value ?? 0,
              label: (
                <>
                  <span class="linked">{titleOf(one.unit)}</span>
                  {typeof one.above === "number" && <span class="soft small"> {percent(one.above)} more than the usual text</span>}
                </>
              ),
              onClick: () => openUnit(one.unit),
            }))}
          />
          {answer.chance !== null && <p class="small soft">The best of as many random directions gets {percent(answer.chance)}.</p>}
        </>
      ) : (
        <p>{NOBODY}</p>
      )}
      {answer.like.length > 0 && (
        <p class="examples small">
          <span class="soft">Texts like it</span>
          {answer.like.slice(0, 6).map((text) => (
            <button key={text} type="button" class="chip" onClick={() => go({ text })}>{text}</button>
          ))}
        </p>
      )}
      <h3>Pictures with most of it, to the whole encoder</h3>
      <ByText about={about} text={answer.text} unit={null} />
      {answer.components.length > 0 && (
        <details>
          <summary>Components that speak of it</summary>
          <Bars
            label="Components that speak of it"
            bars={answer.components.slice(0, 10).map((one) => ({
              value: one.value,
              label: (
                <>
                  <span class="linked">{titleOf(one.unit)}, component {one.index}</span>
                  <span class="soft small"> {percent(one.ratio)} of the head; its {one.sign < 0 ? "low" : "high"} end</span>
                </>
              ),
              onClick: () => openUnit(one.unit),
            }))}
          />
        </details>
      )}
    </div>
  );
}
