/** Colours of values: one scale from pale to deep, one with a sign (blue against, orange for). Both are read without
 *  telling red from green, and both turn with the page between light and dark. */
import { signal } from "@preact/signals";

type Rgb = readonly [number, number, number];

const SEQUENTIAL = {
  light: ["#edf2f6", "#c8dae6", "#95bbd1", "#5c97b7", "#2d739a", "#115078", "#0a3253"],
  dark: ["#1c2630", "#1f3a4e", "#245677", "#2f769d", "#5199bb", "#8abed5", "#d0e7f0"],
};
const DIVERGING = {
  light: ["#174a87", "#4a80bb", "#a6c4df", "#f3f1ed", "#f3bf88", "#db7b24", "#9c4500"],
  dark: ["#93c3f4", "#4a8ed6", "#2a527d", "#23272c", "#7b4815", "#d27a28", "#ffc17c"],
};

const query = window.matchMedia("(prefers-color-scheme: dark)");
export const dark = signal(query.matches);
query.addEventListener("change", () => (dark.value = query.matches));

function rgb(hex: string): Rgb {
  const value = parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

function between(stops: readonly string[], share: number): Rgb {
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const index = Math.min(Math.floor(place), stops.length - 2);
  const [from, to] = [rgb(stops[index]!), rgb(stops[index + 1]!)];
  const part = place - index;
  return [0, 1, 2].map((i) => Math.round(from[i]! + (to[i]! - from[i]!) * part)) as unknown as Rgb;
}

export const stops = (signed: boolean): readonly string[] => (signed ? DIVERGING : SEQUENTIAL)[dark.value ? "dark" : "light"];

/** The colour of a share 0..1 of the scale without sign. */
export const sequentialRgb = (share: number): Rgb => between(stops(false), share);
/** The colour of a value -1..1 of the scale with sign: blue is against, orange for. */
export const divergingRgb = (value: number): Rgb => between(stops(true), (value + 1) / 2);

export const css = (colour: Rgb): string => `rgb(${colour.join(" ")})`;

export interface Scale {
  low: number;
  high: number;
  signed: boolean;
  fill: (value: number) => string;
  /** Black or white, whichever is read on the fill. */
  ink: (value: number) => string;
}

function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** A scale over [low, high]; with sign it is even about 0. */
export function scaleOf(low: number, high: number, signed = false): Scale {
  const reach = Math.max(Math.abs(low), Math.abs(high)) || 1;
  const [from, to] = signed ? [-reach, reach] : [low, high];
  const colour = (value: number) => between(stops(signed), to > from ? (value - from) / (to - from) : 0.5);
  return {
    low: from,
    high: to,
    signed,
    fill: (value) => css(colour(value)),
    ink: (value) => (luminance(colour(value)) > 0.179 ? "#000" : "#fff"),
  };
}
