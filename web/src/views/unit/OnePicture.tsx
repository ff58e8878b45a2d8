/** One picture as a unit sees it: where it looks, and which pictures it holds to be alike. */
import { useSignal } from "@preact/signals";
import { answerable, useAsk } from "../../ask";
import { Answer, CannotBecause, Skeleton } from "../../parts/Answer";
import { LOOKS, MapLegend, MapOverlay } from "../../parts/MapOverlay";
import { mapAddress } from "../../parts/MapPanel";
import { PictureTile, sourceOf } from "../../parts/PictureTile";
import { nameOf } from "../../parts/words";
import { field, go } from "../../state";
import { recordedPicture } from "../../turned";
import type { About, MapAnswer, UnitAnswer } from "../../types";
import { Near } from "./Neighbours";

const picture = field("picture");
const text = field("text");
const map = field("map");

export function OnePicture({ about, data }: { about: About; data: UnitAnswer }) {
  const first = data.components[0]?.largest[0]?.position ?? 0;
  const chosen = picture.value && /^\d+$/.test(picture.value) ? picture.value : String(first);
  return (
    <section class="card stack" aria-label="One picture">
      <h3>One picture, as {nameOf(data.unit)} sees it</h3>
      <p class="soft">Choose any picture on this page to see it here.</p>
      {data.kind === "head" ? <Where about={about} data={data} chosen={chosen} /> : <PictureTile picture={recordedPicture(Number(chosen))} classes={about.classes} />}
      <Near about={about} unit={data.unit} chosen={chosen} />
    </section>
  );
}

function Where({ about, data, chosen }: { about: About; data: UnitAnswer; chosen: string }) {
  const can = about.can.map;
  const { unit } = data;
  const every: [string, string][] = data.components.map(({ index }) => [`component:${unit}:${index}`, `component ${index}`]);
  if (text.value && about.can.text === true) every.unshift([`text:${text.value}`, `“${text.value}”`]);
  about.classes.forEach((name, index) => every.push([`class:${index}`, `class ${name}`]));
  const addressOf = (key: string) => mapAddress(chosen, key, key.startsWith("component:") ? "" : unit);
  const maps = every.filter(([key]) => answerable(addressOf(key) ?? ""));
  const wanted = maps.find(([key]) => key === map.value)?.[0] ?? maps[0]?.[0];
  const found = useAsk<MapAnswer>(can === true && wanted ? addressOf(wanted) : null);
  const src = sourceOf(recordedPicture(Number(chosen)), 320);
  const looks = useSignal(LOOKS);
  return (
    <div class="stack">
      {wanted && <label class="row">
        <span>Where in it is</span>
        <select class="select" value={wanted} onChange={(event) => go({ map: event.currentTarget.value })}>
          {maps.map(([key, name]) => <option key={key} value={key}>{name}</option>)}
        </select>
      </label>}
      <div class="where">
        <PictureTile picture={recordedPicture(Number(chosen))} classes={about.classes} side={320} caption={`picture ${chosen}`} />
        {can !== true ? (
          <CannotBecause why={can} />
        ) : (
          <Answer of={found} waiting={<Skeleton height="12rem" />}>
            {({ maps: [first], scale, box }) =>
              first && <MapOverlay src={src} alt={`picture ${chosen}`} map={first} scale={scale} box={box} looks={looks.value} name={first.name} whole />
            }
          </Answer>
        )}
      </div>
      {found.value.data && <MapLegend scale={found.value.data.scale} />}
    </div>
  );
}
