/**
 * What the page shows, all of it, as it stands in the address behind "#": every state can be pasted.
 *
 * `state` is read; `go` changes it. Going somewhere (a view, a unit) makes an entry of the browser's history, so that
 * "back" works; a drag or a text being typed replaces the entry instead.
 */
import { signal, computed, type ReadonlySignal } from "@preact/signals";
import type { Unit } from "./types";

export const VIEWS = ["heads", "pictures", "turn", "drop", "stores"] as const;
export type View = (typeof VIEWS)[number];
export const SORTS = ["layout", "value", "table"] as const;
export type Sort = (typeof SORTS)[number];
export type Lambdas = Record<Unit, Record<string, number>>;

export interface State {
  view: View;
  unit: Unit | null;
  score: string | null; // null: the first that the server offers
  sort: Sort;
  text: string;
  off: Unit[];
  weight: Record<Unit, number>;
  lam: Lambdas;
  adapter: string | null;
  mode: "zero" | "mean";
  picture: string | null; // a position, or "drop:HASH"
  map: string | null; // class:3, class:3:5, text:…, component:11.4:0
  class: number | null;
  order: string; // store, text, wrong, near:12, component:11.4:0:largest
  page: number;
  heads: string; // whose maps: "" all heads together, "ten" the ten that do most, or "11.4,10.2"
}

const START: State = {
  view: "heads",
  unit: null,
  score: null,
  sort: "layout",
  text: "",
  off: [],
  weight: {},
  lam: {},
  adapter: null,
  mode: "zero",
  picture: null,
  map: null,
  class: null,
  order: "store",
  page: 0,
  heads: "",
};

// Every unit's name has a digit, but the embedding's; what is "constructor" to an object is none.
const isUnit = (text: string | null | undefined): text is Unit => text === "emb" || /\d/.test(text ?? "");

function numberOf(text: string | undefined): number | null {
  const value = text === undefined || text === "" ? NaN : Number(text);
  return Number.isFinite(value) ? value : null;
}

function parseLambdas(text: string): Lambdas {
  const found: Lambdas = {};
  for (const part of text.split(",")) {
    const [unit, index, value] = part.split(":");
    const number = numberOf(value);
    if (isUnit(unit) && /^\d+$/.test(index ?? "") && number !== null) (found[unit] ??= {})[index!] = number;
  }
  return found;
}

function parseWeights(text: string): Record<Unit, number> {
  const found: Record<Unit, number> = {};
  for (const part of text.split(",")) {
    const [unit, value] = part.split(":");
    const number = numberOf(value);
    if (isUnit(unit) && number !== null) found[unit] = number;
  }
  return found;
}

/** The state that an address names; what it leaves out, or what is no state, is as at the start. */
export function parse(hash: string): State {
  const values = new URLSearchParams(hash.replace(/^#/, ""));
  const get = (key: string) => values.get(key);
  return {
    view: VIEWS.find((view) => view === get("view")) ?? START.view,
    unit: [get("unit")].find(isUnit) ?? null,
    score: get("score") || null,
    sort: SORTS.find((sort) => sort === get("sort")) ?? START.sort,
    text: get("text") ?? "",
    off: (get("off") ?? "").split(",").filter(isUnit),
    weight: parseWeights(get("weight") ?? ""),
    lam: parseLambdas(get("lam") ?? ""),
    adapter: get("adapter") || null,
    mode: get("mode") === "mean" ? "mean" : "zero",
    picture: get("picture") || null,
    map: get("map") || null,
    class: numberOf(get("class") ?? undefined),
    order: get("order") || START.order,
    page: Math.max(0, Math.floor(numberOf(get("page") ?? undefined) ?? 0)),
    heads: get("heads") ?? "",
  };
}

// ":" and "," are safe behind "#" and stay readable there.
const encode = (text: string) => encodeURIComponent(text).replace(/%3A/g, ":").replace(/%2C/g, ",").replace(/%20/g, "+");

/** The address behind "#" of a state, in one order; what is as at the start is left out. */
export function format(state: State): string {
  const parts: [string, string][] = [];
  if (state.view !== START.view) parts.push(["view", state.view]);
  if (state.unit) parts.push(["unit", state.unit]);
  if (state.score) parts.push(["score", state.score]);
  if (state.sort !== START.sort) parts.push(["sort", state.sort]);
  if (state.text) parts.push(["text", state.text]);
  if (state.off.length) parts.push(["off", state.off.join(",")]);
  const weights = Object.entries(state.weight).map(([unit, value]) => `${unit}:${value}`);
  if (weights.length) parts.push(["weight", weights.join(",")]);
  const lambdas = Object.entries(state.lam).flatMap(([unit, values]) =>
    Object.entries(values).map(([index, value]) => `${unit}:${index}:${value}`),
  );
  if (lambdas.length) parts.push(["lam", lambdas.join(",")]);
  if (state.adapter) parts.push(["adapter", state.adapter]);
  if (state.mode !== START.mode) parts.push(["mode", state.mode]);
  if (state.picture) parts.push(["picture", state.picture]);
  if (state.map) parts.push(["map", state.map]);
  if (state.class !== null) parts.push(["class", String(state.class)]);
  if (state.order !== START.order) parts.push(["order", state.order]);
  if (state.page) parts.push(["page", String(state.page)]);
  if (state.heads) parts.push(["heads", state.heads]);
  return parts.map(([key, value]) => `${key}=${encode(value)}`).join("&");
}

const current = signal<State>(parse(location.hash));
export const state: ReadonlySignal<State> = current;

/** One field of the state as a signal of its own: `field("unit").value` re-renders only when the unit changes. */
export function field<K extends keyof State>(key: K): ReadonlySignal<State[K]> {
  return computed(() => current.value[key]);
}

/** The address of the state with `change`, for links. */
export function link(change: Partial<State>): string {
  return `#${format({ ...current.value, ...change })}`;
}

// Browsers allow some hundred changes of the address in half a minute; a drag makes sixty a second.
const PAUSE = 300;
let waiting: ReturnType<typeof setTimeout> | undefined;

function write(replace: boolean): void {
  clearTimeout(waiting);
  waiting = undefined;
  const address = `#${format(current.peek())}`;
  if (address === (location.hash || "#")) return;
  // An empty "#" would stay in the address; the page's own path is the same state.
  const url = address === "#" ? location.pathname + location.search : address;
  if (replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
}

/** Change the state, at once. `replace` keeps the entry of the history, and the address follows when the hand rests
 *  (drags, typing); otherwise "back" undoes the change. */
export function go(change: Partial<State>, replace = false): void {
  if (!replace && waiting !== undefined) write(true); // what was dragged before stays where "back" finds it
  current.value = { ...current.peek(), ...change };
  if (!replace) write(false);
  else waiting ??= setTimeout(() => write(true), PAUSE);
}

function read(): void {
  clearTimeout(waiting);
  waiting = undefined;
  if (location.hash.slice(1) !== format(current.peek())) current.value = parse(location.hash);
}
// A link, or leaving the page, right after a drag: the address of before keeps all of it.
for (const event of ["click", "pagehide"]) window.addEventListener(event, () => waiting !== undefined && write(true), true);
window.addEventListener("popstate", read);
window.addEventListener("hashchange", read);
