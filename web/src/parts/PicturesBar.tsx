/** Which pictures are in view: order, through which unit, class; and the pages of what was found. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { recorded } from "../ask";
import { partsOf, PAGE } from "../listed";
import { go, state } from "../state";
import { isPlain } from "../turned";
import type { About } from "../types";
import { headsOf } from "./units";
import { count, nameOf } from "./words";

interface Props {
  about: About;
  changed?: boolean; // whether "changed" is an order here
}

export function PicturesBar({ about, changed = false }: Props) {
  const { order, text, unit, picture, class: ofClass } = state.value;
  const [kind = "store", ...rest] = partsOf(order);
  const can = about.can;
  const typed = useSignal(text);
  useEffect(() => void (typed.value = text), [text]);
  const through = ["text", "near"].includes(kind);

  function choose(next: string) {
    const orders: Record<string, string> = {
      near: `near:${picture ?? 0}`,
      component: `component:${unit ?? headsOf(about).at(-1)}:0:largest`,
    };
    go({ order: orders[next] ?? next, page: 0 });
  }

  return (
    <div class="pictures-bar">
      <label>
        <span>Order</span>
        <select class="select" value={kind} onChange={(event) => choose(event.currentTarget.value)}>
          <option value="store">as in the store</option>
          {(!recorded || kind === "text") && <option value="text" disabled={can.text !== true}>by a text</option>}
          {(!recorded || kind === "near") && <option value="near">nearest to a picture</option>}
          {(!recorded || kind === "component") && <option value="component">along a component</option>}
          <option value="wrong">{isPlain.value ? "wrong ones" : "wrong ones, as turned"}</option>
          {changed && <option value="changed">whose prediction changed</option>}
          {kind === "cell" && <option value="cell">of a cell of the matrix</option>}
        </select>
      </label>
      {kind === "text" && (
        <form
          class="grow"
          onSubmit={(event) => {
            event.preventDefault();
            go({ text: typed.value.trim(), page: 0 });
          }}
        >
          <label>
            <span>Text (Enter)</span>
            <input class="field" value={typed.value} placeholder="a red thing" onInput={(event) => (typed.value = event.currentTarget.value)} />
          </label>
        </form>
      )}
      {kind === "near" && (
        <label>
          <span>To picture</span>
          <input class="field position" type="number" min={0} max={about.samples - 1} value={rest.join(":")} onChange={(event) => go({ order: `near:${event.currentTarget.value}`, page: 0 })} />
        </label>
      )}
      {kind === "component" && <ComponentChoice about={about} of={rest} />}
      {through && (
        <label>
          <span>Seen through</span>
          <select class="select" value={unit ?? ""} onChange={(event) => go({ unit: event.currentTarget.value || null, page: 0 })}>
            <option value="">the whole output</option>
            <UnitOptions about={about} chosen={unit} />
          </select>
        </label>
      )}
      {kind !== "cell" && kind !== "changed" && (
        <label>
          <span>Class</span>
          <select class="select" value={ofClass ?? ""} onChange={(event) => go({ class: event.currentTarget.value === "" ? null : Number(event.currentTarget.value), page: 0 })}>
            <option value="">all</option>
            {about.classes.map((name, index) => (
              <option key={index} value={index}>{name}</option>
            ))}
          </select>
        </label>
      )}
      {recorded && <p class="small soft whole">Other orders need `residual explore`: this page holds no more.</p>}
    </div>
  );
}

export function UnitOptions({ about, chosen }: { about: About; chosen?: string | null }) {
  const heads = headsOf(about);
  return (
    <>
      {chosen && !heads.includes(chosen) && <option value={chosen}>{nameOf(chosen)}</option>}
      {heads.map((name) => (
        <option key={name} value={name}>{nameOf(name)}</option>
      ))}
    </>
  );
}

function ComponentChoice({ about, of: [unit = "", component = "0", end = "largest"] }: { about: About; of: string[] }) {
  const to = (unit: string, component: string, end: string) => go({ order: `component:${unit}:${component}:${end}`, page: 0 });
  return (
    <>
      <label>
        <span>Unit</span>
        <select class="select" value={unit} onChange={(event) => to(event.currentTarget.value, "0", end)}>
          <UnitOptions about={about} chosen={unit} />
        </select>
      </label>
      <label>
        <span>Component</span>
        <input class="field position" type="number" min={0} value={component} onChange={(event) => to(unit, event.currentTarget.value, end)} />
      </label>
      <label>
        <span>End</span>
        <select class="select" value={end} onChange={(event) => to(unit, component, event.currentTarget.value)}>
          <option value="largest">largest</option>
          <option value="smallest">smallest</option>
        </select>
      </label>
    </>
  );
}

export function Pager({ total, limit = PAGE }: { total: number; limit?: number }) {
  const page = state.value.page;
  const pages = Math.max(1, Math.ceil(total / limit));
  if (pages === 1 && page === 0) return null;
  const from = page * limit;
  return (
    <nav class="pager row" aria-label="Pages of pictures">
      <button type="button" class="button" disabled={page === 0} onClick={() => go({ page: Math.min(page, pages) - 1 })}>
        Earlier
      </button>
      <span class="small soft">{from < total ? `${count(from + 1)} to ${count(Math.min(total, from + limit))} of ${count(total)}` : `none of ${count(total)}`}</span>
      <button type="button" class="button" disabled={page >= pages - 1} onClick={() => go({ page: page + 1 })}>
        Later
      </button>
    </nav>
  );
}
