/**
 * Turning of whole units in the page itself, for one that was exported and has no server.
 *
 * A class's logit is a sum of the units' parts, so a unit at weight w adds w times its part, and a prediction is
 * the class with the largest sum. Accuracy comes with Wilson's 95 % interval, as everywhere in the library.
 */

import type { TurnAnswer, TurnState } from "./types";

/** What the page holds for it: bytes are base64, little-endian, row by row. */
export interface RecordedTurn {
  samples: number;
  note: string | null;
  labels: string; // int16, (n,)
  groups: string | null; // int16, (n,)
  units: string[];
  encoding: "float16" | "int8";
  scale: number[]; // (u,)
  parts: string; // (n, u, c): of each class's logit, divided by the unit's scale
  rest: string; // float32, (n, c): of all that `units` leaves out
  means: number[][]; // (u, c), over the whole store
  positions: number[];
}

const Z = 1.959964;
const MOST_CLASSES = 40;
const MOST_CHANGED = 48;

/** Wilson's 95 % interval of `right` of `n`. */
export function wilson(right: number, n: number): [number, number] {
  const share = right / n;
  const centre = (share + Z ** 2 / (2 * n)) / (1 + Z ** 2 / n);
  const half = (Z * Math.sqrt((share * (1 - share)) / n + Z ** 2 / (4 * n * n))) / (1 + Z ** 2 / n);
  return [Math.max(0, Math.min(share, centre - half)), Math.min(1, Math.max(share, centre + half))];
}

function bytesOf(base64: string): DataView {
  return new DataView(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer);
}

/** A number of IEEE 754 half precision from its 16 bits. */
export function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Index of the first largest of `values[from … from + count)`, less `from`. */
function largest(values: Float64Array, from: number, count: number): number {
  let best = 0;
  for (let k = 1; k < count; k++) if (values[from + k]! > values[from + best]!) best = k;
  return best;
}

type Turn = Pick<TurnState, "off" | "weights" | "mode" | "pictures">;
type Group = NonNullable<TurnAnswer["worst_group"]>;

export class Turning {
  readonly labels: Int16Array;
  private readonly groups: Int16Array | null;
  private readonly parts: Float32Array;
  private readonly rest: Float32Array;
  private readonly rowOf: Map<number, number>;
  private readonly was: Int16Array;

  constructor(
    readonly recorded: RecordedTurn,
    readonly classes: string[],
    readonly groupNames: string[] | null,
  ) {
    const { samples, units, scale } = recorded;
    const count = classes.length;
    const small = (text: string) => {
      const view = bytesOf(text);
      return Int16Array.from({ length: samples }, (_, k) => view.getInt16(2 * k, true));
    };
    this.labels = small(recorded.labels);
    this.groups = recorded.groups && groupNames ? small(recorded.groups) : null;
    const rest = bytesOf(recorded.rest);
    this.rest = Float32Array.from({ length: samples * count }, (_, k) => rest.getFloat32(4 * k, true));
    const parts = bytesOf(recorded.parts);
    const read =
      recorded.encoding === "int8"
        ? (k: number) => parts.getInt8(k)
        : (k: number) => half(parts.getUint16(2 * k, true));
    this.parts = new Float32Array(samples * units.length * count);
    for (let k = 0; k < this.parts.length; k++) {
      this.parts[k] = read(k) * scale[Math.floor(k / count) % units.length]!;
    }
    this.rowOf = new Map(recorded.positions.map((position, row) => [position, row]));
    this.was = this.predicted(this.logits([], {}, "zero"));
  }

  /** (n, c) row by row: the classes' logits with some units off or at other weights. */
  private logits(off: string[], weights: Record<string, number>, mode: "zero" | "mean"): Float64Array {
    const { samples, units, means } = this.recorded;
    const count = this.classes.length;
    const weight = units.map((unit) => (off.includes(unit) ? 0 : (weights[unit] ?? 1)));
    const sums = new Float64Array(samples * count);
    const shared = new Float64Array(count);
    if (mode === "mean") {
      weight.forEach((w, u) => means[u]!.forEach((mean, k) => (shared[k]! += (1 - w) * mean)));
    }
    for (let n = 0; n < samples; n++) {
      for (let k = 0; k < count; k++) sums[n * count + k] = this.rest[n * count + k]! + shared[k]!;
      for (let u = 0; u < units.length; u++) {
        const w = weight[u]!;
        if (w === 0) continue;
        const from = (n * units.length + u) * count;
        for (let k = 0; k < count; k++) sums[n * count + k]! += w * this.parts[from + k]!;
      }
    }
    return sums;
  }

  private predicted(logits: Float64Array): Int16Array {
    const count = this.classes.length;
    return Int16Array.from({ length: this.recorded.samples }, (_, n) => largest(logits, n * count, count));
  }

  answer(turn: Turn): TurnAnswer {
    const begun = performance.now();
    const { samples, positions } = this.recorded;
    const count = this.classes.length;
    const logits = this.logits(turn.off, turn.weights, turn.mode);
    const now = this.predicted(logits);
    const right = (predicted: Int16Array) => predicted.reduce((sum, k, n) => sum + Number(k === this.labels[n]), 0);
    const accuracy = right(now) / samples;
    const changed = positions.filter((_, n) => now[n] !== this.was[n]);
    return {
      accuracy,
      interval: wilson(right(now), samples),
      before: right(this.was) / samples,
      changed: changed.length,
      worst_group: this.worst(now),
      per_class: shares(this.labels, now, this.labels, count),
      confusion: this.confusion(now),
      predictions: turn.pictures.flatMap((position) => {
        const row = this.rowOf.get(position);
        if (row === undefined) return [];
        const best = Array.from({ length: count }, (_, k) => k)
          .sort((a, b) => logits[row * count + b]! - logits[row * count + a]! || a - b)
          .slice(0, 3);
        return [{ position, class: this.labels[row]!, was: this.was[row]!, now: best.map((k) => ({ class: k, probability: null })) }];
      }),
      changed_pictures: changed.slice(0, MOST_CHANGED),
      milliseconds: performance.now() - begun,
      command: "",
    };
  }

  private worst(now: Int16Array): Group | null {
    if (!this.groups || !this.groupNames) return null;
    const names = this.groupNames;
    const told = shares(this.labels, now, this.groups, names.length)
      .map((accuracy, k) => ({ name: names[k]!, accuracy }))
      .filter((group): group is Group => group.accuracy !== null);
    return told.length ? told.reduce((a, b) => (b.accuracy < a.accuracy ? b : a)) : null;
  }

  private confusion(now: Int16Array): TurnAnswer["confusion"] {
    const count = this.classes.length;
    const all = Array.from({ length: count }, () => new Array<number>(count).fill(0));
    now.forEach((k, n) => all[this.labels[n]!]![k]!++);
    let classes = all.map((_, k) => k);
    if (count > MOST_CLASSES) {
      const wrong = all.map((row, k) => row.reduce((sum, found, j) => sum + (j === k ? 0 : found + all[j]![k]!), 0));
      classes = [...classes].sort((a, b) => wrong[b]! - wrong[a]! || a - b).slice(0, MOST_CLASSES).sort((a, b) => a - b);
    }
    return { classes, counts: classes.map((row) => classes.map((column) => all[row]![column]!)) };
  }

  classOf(position: number): number | null {
    const row = this.rowOf.get(position);
    return row === undefined ? null : this.labels[row]!;
  }

  /** Positions of the pictures of a class, or of all. */
  ofClass(ofClass: number | null): number[] {
    return this.recorded.positions.filter((_, n) => ofClass === null || this.labels[n] === ofClass);
  }

  /** Positions of what isn't predicted as its class; or of a class, of what is predicted as `as`. */
  picked(turn: Turn, ofClass: number | null, as: number | null): number[] {
    const now = this.predicted(this.logits(turn.off, turn.weights, turn.mode));
    return this.recorded.positions.filter((_, n) => {
      const label = this.labels[n];
      return (ofClass === null || label === ofClass) && (as === null ? now[n] !== label : now[n] === as);
    });
  }
}

/** Of each kind, the share that is right; null where there is none. */
function shares(labels: Int16Array, now: Int16Array, kinds: Int16Array, count: number): (number | null)[] {
  const right = new Array<number>(count).fill(0);
  const all = new Array<number>(count).fill(0);
  kinds.forEach((kind, n) => {
    if (kind < 0) return;
    all[kind]!++;
    right[kind]! += Number(now[n] === labels[n]);
  });
  return all.map((n, k) => (n ? right[k]! / n : null));
}
