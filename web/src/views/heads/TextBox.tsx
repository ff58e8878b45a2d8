/** "Which head speaks of …?": heads light up while one types. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { AskError } from "../../ask";
import { CannotBecause, Problem } from "../../parts/Answer";
import { field, go } from "../../state";
import type { About } from "../../types";

const text = field("text");
const FIRST = "red"; // beside it, texts that heads of this store speak
const REST = 350; // milliseconds without a key before a text is looked up

export function TextBox({ about, problem, examples }: { about: About; problem: AskError | null; examples: string[] }) {
  const typed = useSignal(text.value);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => text.subscribe((value) => {
    if (value !== typed.peek()) typed.value = value;
  }), []);

  if (about.can.text !== true) return <CannotBecause why={about.can.text} />;
  const look = (value: string, replace: boolean) => {
    clearTimeout(timer.current);
    if (value.trim() !== text.peek()) go({ text: value.trim() }, replace);
  };
  return (
    <form
      class="text-box"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        look(typed.value, false);
      }}
    >
      <label for="text">Which head speaks of…</label>
      <input
        id="text"
        class="field"
        type="search"
        autocomplete="off"
        spellcheck={false}
        maxLength={300}
        placeholder={`type a word, such as ${FIRST}`}
        value={typed.value}
        onInput={(event) => {
          typed.value = event.currentTarget.value;
          clearTimeout(timer.current);
          timer.current = setTimeout(() => look(typed.value, true), REST);
        }}
      />
      <p class="examples small">
        <span class="soft">Try</span>
        {[...new Set([FIRST, ...examples])].map((example) => (
          <button key={example} type="button" class="chip" aria-pressed={text.value === example} onClick={() => ((typed.value = example), look(example, false))}>
            {example}
          </button>
        ))}
      </p>
      {problem && <Problem error={problem} />}
    </form>
  );
}
