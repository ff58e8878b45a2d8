/** What the encoder does as it is turned: the request that the state makes, its answer, and the way back. */
import { computed, signal } from "@preact/signals";
import { path, post, recorded, type AskError } from "./ask";
import { latest } from "./latest";
import { field, go, state, type State } from "./state";
import { Turning, type RecordedTurn } from "./turning";
import type { Picture, Pictures, TurnAnswer, TurnState } from "./types";

type Turned = Pick<State, "off" | "weight" | "lam" | "adapter" | "mode">;

export const PLAIN: Turned = { off: [], weight: {}, lam: {}, adapter: null, mode: "zero" };

/** In an exported page, what turns the units in the page itself; null where a server answers. */
export const turning: Turning | null =
  recorded?.turn ? new Turning(recorded.turn as RecordedTurn, recorded.about.classes, recorded.about.groups) : null;

export function turnOf({ off, weight, lam, adapter, mode }: Turned, pictures: number[]): TurnState {
  return { off, weights: weight, lambdas: lam, adapter, mode, pictures };
}

const [off, weight, lam, adapter] = [field("off"), field("weight"), field("lam"), field("adapter")];

export const isPlain = computed(
  () => !off.value.length && !Object.keys(weight.value).length && !Object.keys(lam.value).length && !adapter.value,
);

// As a string, so that a drag, which changes numbers alone, makes no new set.
const turnedNames = computed(() => [...Object.keys(weight.value), ...Object.keys(lam.value)].join(","));
/** Units of which something is turned, off or not. */
export const turnedUnits = computed(() => new Set(turnedNames.value.split(",")));
export const offUnits = computed(() => new Set(off.value));

export const askTurn = async (turn: TurnState): Promise<TurnAnswer> =>
  turning ? turning.answer(turn) : post<TurnAnswer>("api/turn", turn);

export const answer = signal<TurnAnswer | null>(null);
/** Of the plain encoder, to compare with. */
export const plain = signal<TurnAnswer | null>(null);
export const problem = signal<AskError | null>(null);

let sent = "";
const send = latest(
  askTurn,
  (found) => {
    answer.value = found;
    problem.value = null;
  },
  (error) => {
    sent = "";
    problem.value = error as AskError;
  },
);

/** Asks for what the state is turned to, with predictions of these pictures; once for the same. */
export function follow(pictures: number[]): void {
  const wish = turnOf(state.value, pictures);
  const key = JSON.stringify(wish);
  if (key === sent) return;
  sent = key;
  send(wish);
}

export async function followPlain(): Promise<void> {
  if (!plain.peek()) plain.value = await askTurn(turnOf(PLAIN, []));
}

// The way back: what stood before each step; a drag is one step.
const PAUSE = 1000; // milliseconds after which the same slider's next move is another step
const MOST = 200;
const before = signal<Turned[]>([]);
export const canUndo = computed(() => before.value.length > 0);
let last = { what: "", at: -Infinity };

/** Turn something. Moves of the same `slider` one soon after another are one step. */
export function turn(change: Partial<Turned>, slider = ""): void {
  const now = performance.now();
  const goesOn = slider !== "" && slider === last.what && now - last.at < PAUSE;
  last = { what: slider, at: now };
  if (!goesOn) {
    const { off, weight, lam, adapter, mode } = state.peek();
    before.value = [...before.peek().slice(-MOST), { off, weight, lam, adapter, mode }];
  }
  go(change, goesOn);
}

// "Back" and "forward" of the browser go the same way: what they undid isn't undone once more.
window.addEventListener("popstate", () => {
  const now = JSON.stringify(turnOf(state.peek(), []));
  const steps = before.peek();
  const at = steps.map((step) => JSON.stringify(turnOf(step, []))).lastIndexOf(now);
  if (at >= 0) before.value = steps.slice(0, at);
  last = { what: "", at: -Infinity };
});

export function undo(): void {
  const steps = before.peek();
  const step = steps[steps.length - 1];
  if (!step) return;
  before.value = steps.slice(0, -1);
  last = { what: "", at: -Infinity };
  go(step);
}

const without = <V>(values: Record<string, V>, key: string): Record<string, V> =>
  Object.fromEntries(Object.entries(values).filter(([name]) => name !== key));

/** Switch a unit off, or on again. */
export function toggle(unit: string): void {
  const { off } = state.peek();
  turn({ off: off.includes(unit) ? off.filter((name) => name !== unit) : [...off, unit] });
}

/** The weight of a whole unit; 1 is as it is, and nothing of the address. */
export function weigh(unit: string, value: number): void {
  const { off, weight } = state.peek();
  const rest = without(weight, unit);
  turn({ off: off.filter((name) => name !== unit), weight: value === 1 ? rest : { ...rest, [unit]: value } }, `weight ${unit}`);
}

/** The weight of one of a unit's components; 1 is as it is. */
export function setLambda(unit: string, component: number, value: number): void {
  const { lam } = state.peek();
  const { [component]: _, ...rest } = lam[unit] ?? {};
  const values: Record<string, number> = value === 1 ? rest : { ...rest, [component]: value };
  const units = Object.keys(values).length ? { ...lam, [unit]: values } : without(lam, unit);
  turn({ lam: units }, `lambda ${unit} ${component}`);
}

/** Everything of one unit as it is. */
export function resetUnit(unit: string): void {
  const { off, weight, lam } = state.peek();
  turn({ off: off.filter((name) => name !== unit), weight: without(weight, unit), lam: without(lam, unit) });
}

/** Pictures by what is predicted of them as the state is turned: all wrong ones, or those of a class seen as another. */
export async function askPredicted(ofClass: number | null, as: number | null, limit: number, offset: number, signal?: AbortSignal): Promise<Pictures> {
  const wish = turnOf(state.peek(), []);
  if (turning) return recordedPage(turning.picked(wish, ofClass, as), limit, offset);
  return post<Pictures>(path("api/pictures", { order: "wrong", class: ofClass, as, limit, offset }), wish, signal);
}

/** A page of pictures that an exported page holds. */
export const recordedPage = (positions: number[], limit: number, offset: number, about = ""): Pictures => ({
  total: positions.length,
  pictures: positions.slice(offset, offset + limit).map(recordedPicture),
  about,
});

/** A picture by its position alone. */
export function recordedPicture(position: number): Picture {
  return { position, src: null, class: turning?.classOf(position) ?? null };
}
