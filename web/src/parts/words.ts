/** How units and numbers are written. */
import type { Score, Unit } from "../types";

const formats = new Map<number, Intl.NumberFormat>(); // making one takes longer than drawing what is dragged

function digits(value: number, places: number): string {
  let format = formats.get(places);
  if (!format) {
    format = new Intl.NumberFormat("en", { minimumFractionDigits: places, maximumFractionDigits: places });
    formats.set(places, format);
  }
  return format.format(value).replace("-", "−");
}

/** A fraction as "83 %" (one place below 10 %, where whole ones would hide a difference). */
export function percent(value: number | null | undefined, places?: number): string {
  if (value === null || value === undefined) return "–";
  const share = value * 100;
  return `${digits(share, places ?? (Math.abs(share) < 9.95 && share !== 0 ? 1 : 0))}\u202f%`;
}

export function number(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 100 || Number.isInteger(value)) return digits(value, 0);
  if (size >= 10) return digits(value, 1);
  return size >= 0.01 ? digits(value, 2) : String(Number(value.toPrecision(2))).replace("-", "−");
}

export const shown = (score: Score | undefined, value: number | null | undefined): string =>
  score?.percent ? percent(value) : number(value);

/** What gets the value that a score is held against. */
export const chanceName = (score: Score | undefined): string => (score?.key === "accuracy" ? "guessing" : "chance");

/** "head 11.4", "MLP 3", "the embedding". */
export function nameOf(unit: Unit): string {
  if (unit === "emb") return "the embedding";
  return unit.startsWith("mlp.") ? `MLP ${unit.slice(4)}` : `head ${unit}`;
}

export const titleOf = (unit: Unit): string => {
  const name = nameOf(unit).replace(/^the e/, "E");
  return name[0]!.toUpperCase() + name.slice(1);
};

export const count = (value: number): string => digits(value, 0);
export const plural = (value: number, one: string, many = `${one}s`): string => `${count(value)} ${value === 1 ? one : many}`;
