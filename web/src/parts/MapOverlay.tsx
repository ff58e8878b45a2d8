/**
 * A map over its picture, drawn as the library's figures are: the picture grey and paler, blue against and orange for,
 * the more solid the larger. The grid lies on `box`, the part that the encoder saw; one scale holds for a set.
 */
import { useLayoutEffect, useRef } from "preact/hooks";
import type { MapAnswer } from "../types";
import { inWords } from "./where";
import { percent } from "./words";

export type OneMap = MapAnswer["maps"][number];

/** How maps are drawn, the same for all of a page. */
export interface Looks {
  opacity: number;
  smooth: boolean;
}
export const LOOKS: Looks = { opacity: 0.9, smooth: true };

// Okabe and Ito's vermilion and blue.
const FOR = [213, 94, 0] as const;
const AGAINST = [0, 114, 178] as const;
const SIDE = 192; // pixels of a smooth map's longer side

/** The value at a place in cells: between their middles in proportion, at the rim as in the last cell. */
export function between(values: number[][], row: number, column: number): number {
  const inside = (at: number, count: number) => Math.max(0, Math.min(count - 1, at));
  const [rows, columns] = [values.length, values[0]?.length ?? 0];
  const [y, x] = [inside(row - 0.5, rows), inside(column - 0.5, columns)];
  const [top, left] = [Math.floor(y), Math.floor(x)];
  const [bottom, right] = [Math.min(rows - 1, top + 1), Math.min(columns - 1, left + 1)];
  const at = (i: number, j: number) => values[i]?.[j] ?? 0;
  const along = (i: number) => at(i, left) * (1 - (x - left)) + at(i, right) * (x - left);
  return along(top) * (1 - (y - top)) + along(bottom) * (y - top);
}

function draw(canvas: HTMLCanvasElement, values: number[][], scale: number, smooth: boolean): void {
  const [rows, columns] = [values.length, values[0]?.length ?? 0];
  const context = canvas.getContext("2d");
  if (!rows || !columns || !context) return;
  const factor = smooth ? SIDE / Math.max(rows, columns) : 1;
  const [height, width] = [Math.round(rows * factor), Math.round(columns * factor)];
  canvas.width = width;
  canvas.height = height;
  const image = context.createImageData(width, height);
  for (let i = 0; i < height; i++) {
    for (let j = 0; j < width; j++) {
      const value = between(values, ((i + 0.5) * rows) / height, ((j + 0.5) * columns) / width);
      const solid = scale > 0 ? Math.min(1, Math.abs(value) / scale) : 0;
      image.data.set([...(value < 0 ? AGAINST : FOR), Math.round(255 * solid)], 4 * (i * width + j));
    }
  }
  context.putImageData(image, 0, 0);
}

const length = (share: number) => `${(100 * share).toFixed(2)}%`;

interface Props {
  src: string;
  alt: string;
  map: OneMap;
  scale: number;
  box: MapAnswer["box"];
  looks: Looks;
  name: string; // as it is written under it
  whole: boolean; // whether what else makes the total is told
}

/** The picture with the map on it, and in words where it is strongest. */
export function MapOverlay({ src, alt, map, scale, box, looks, name, whole }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    if (canvas.current) draw(canvas.current, map.values, scale, looks.smooth);
  }, [map, scale, looks.smooth]);
  const [left, top, right, bottom] = box;
  const place = { left: length(left), top: length(top), width: length(right - left), height: length(bottom - top) };
  const words = inWords(map.values);
  return (
    <figure class="map">
      <div class="map-picture" role="img" aria-label={`${alt}; map of ${name}: ${words}`}>
        <img src={src} alt="" draggable={false} />
        <img class="map-seen" src={src} alt="" draggable={false} style={{ clipPath: `inset(${[top, 1 - right, 1 - bottom, left].map(length).join(" ")})` }} />
        <canvas ref={canvas} class={looks.smooth ? undefined : "blocks"} style={{ ...place, opacity: looks.opacity }} />
      </div>
      <figcaption>
        <b>{name}</b>
        <span class="map-words">{words}</span>
        {whole ? <Sums map={map} /> : <span class="soft">{short(patchesOf(map) + map.elsewhere)} in all</span>}
      </figcaption>
    </figure>
  );
}

/** A number with its sign, two digits of it. */
export const short = (value: number): string =>
  value === 0 ? "0" : `${value > 0 ? "+" : "−"}${Math.abs(value) >= 100 ? Math.abs(value).toFixed(0) : Math.abs(value).toPrecision(2)}`;

const patchesOf = (map: OneMap) => map.values.flat().reduce((sum, value) => sum + value, 0);

function Sums({ map }: { map: OneMap }) {
  const parts = [`patches ${short(patchesOf(map))}`, `other tokens ${short(map.elsewhere)}`];
  if (map.rest !== null) parts.push(`units without a map ${short(map.rest)}`);
  return (
    <span class="soft">
      In all {short(map.total)}: {parts.join(", ")}
    </span>
  );
}

/** The colours, with the numbers at their ends. */
export function MapLegend({ scale }: { scale: number }) {
  const words = `Blue is against, down to ${short(-scale)}; orange is for, up to ${short(scale)}; clear is neither.`;
  return (
    <div class="map-legend" role="img" aria-label={words}>
      <span>against {short(-scale)}</span>
      <span class="map-colours" />
      <span>{short(scale)} for</span>
    </div>
  );
}

/** How solid the map is, and whether its cells are seen. */
export function MapLooks({ looks, set }: { looks: Looks; set: (looks: Looks) => void }) {
  return (
    <div class="row small">
      <label class="row">
        Map over picture
        <input
          type="range"
          min="0"
          max="1"
          step="0.05"
          value={looks.opacity}
          aria-valuetext={percent(looks.opacity, 0)}
          onInput={(event) => set({ ...looks, opacity: event.currentTarget.valueAsNumber })}
        />
      </label>
      <label class="row">
        <input type="checkbox" checked={!looks.smooth} onChange={(event) => set({ ...looks, smooth: !event.currentTarget.checked })} />
        patches as blocks
      </label>
    </div>
  );
}
