/** What colours the heads: a score, or how far they speak a text. */
import { chanceName, percent, shown } from "../../parts/words";
import type { Heads, HeadsUnit, Score, TextAnswer, Unit, Words } from "../../types";

/** The nearest text of each unit. */
export type Says = Map<Unit, Words["units"][number]>;

/** A number of each unit that colours it, and what the number is. */
export interface Shading {
  units: HeadsUnit[];
  label: string;
  format: (value: number | null) => string;
  low: number;
  high: number;
  signed: boolean;
  reference: number | null;
  referenceName: string;
  /** Whether units lie below and above the range of colours. */
  beyond?: [boolean, boolean];
}

/** Colours are over the range of the heads: an MLP, often far above all of them, would leave them pale. */
export function shadingOfScore(data: Heads, score: Score | undefined): Shading {
  const heads = data.units.flatMap((one) => (one.head !== null && one.value !== null ? [one.value] : []));
  const low = heads.length ? Math.min(...heads) : data.low;
  const high = heads.length ? Math.max(...heads) : data.high;
  return {
    beyond: [data.low < low, data.high > high],
    units: data.units,
    label: score?.label ?? data.key,
    format: (value) => shown(score, value),
    low,
    high,
    signed: score?.signed ?? false,
    reference: data.reference,
    referenceName: chanceName(score),
  };
}

/** How much more of a head a text tells than the usual text: a head that speaks every text a little isn't lit. */
export function shadingOfText(answer: TextAnswer, known: HeadsUnit[]): Shading {
  const values = new Map(answer.units.map((one) => [one.unit, one.above ?? one.value]));
  const units = known.map((one) => ({ ...one, value: values.get(one.unit) ?? null }));
  const compared = answer.units.some((one) => typeof one.above === "number");
  return {
    units,
    label: `“${answer.text}”`,
    format: (value) => (value !== null && value <= 0 ? "none" : percent(value)),
    low: 0,
    // Where nobody speaks of it more than of a random direction, nobody is lit as if.
    high: Math.max(...units.map((one) => one.value ?? 0), answer.chance ?? 0, 1e-9),
    signed: false,
    reference: compared ? null : answer.chance,
    referenceName: "chance",
  };
}
