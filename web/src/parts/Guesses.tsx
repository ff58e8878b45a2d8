/** What a picture is taken for: the best classes, with probabilities where they are known. */
import type { Guess } from "../types";
import { percent } from "./words";

interface Props {
  guesses: Guess[];
  classes: string[];
  truth?: number | null;
}

export function Guesses({ guesses, classes, truth }: Props) {
  return (
    <ol class="guesses" aria-label="Prediction">
      {guesses.map((guess, place) => (
        <li key={guess.class}>
          <span class="bar-label">
            {place === 0 ? <b>{classes[guess.class] ?? guess.class}</b> : (classes[guess.class] ?? guess.class)}
            {truth === guess.class && <span class="soft small"> (its class)</span>}
          </span>
          {guess.probability !== null && (
            <>
              <span class="bar-track" aria-hidden="true">
                <span class="bar-fill" style={{ width: `${100 * guess.probability}%` }} />
              </span>
              <span class="bar-value">{percent(guess.probability)}</span>
            </>
          )}
        </li>
      ))}
    </ol>
  );
}
