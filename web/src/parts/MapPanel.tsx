/** Where in a picture a class, a text or a component is found: the choice, the maps, and what their colours mean. */
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { path, recorded, useAsk } from "../ask";
import { go, state } from "../state";
import type { About, MapAnswer } from "../types";
import { Answer, CannotBecause, Skeleton } from "./Answer";
import { LOOKS, MapLegend, MapLooks, MapOverlay } from "./MapOverlay";
import { UnitOptions } from "./PicturesBar";
import { headsOf } from "./units";
import { titleOf } from "./words";

const looks = signal(LOOKS);

/** What a map is of, and whose: null where that isn't said in full yet. */
export function mapAddress(picture: string, map: string, heads: string): string | null {
  const [kind = "", ...rest] = map.split(":");
  const whose = heads === "ten" ? { heads: "top", separate: 1 } : heads ? { heads, separate: heads.includes(",") ? 1 : null } : {};
  if (kind === "class" && rest[0]) return path("api/map", { picture, class: rest[0], against: rest[1], ...whose });
  if (kind === "text" && rest.join(":")) return path("api/map", { picture, text: rest.join(":"), ...whose });
  if (kind === "component" && rest[1]) return path("api/map", { picture, unit: rest[0], component: rest[1] });
  return null;
}

/** Of maps of a head each, "11.4: stripes" is "Head 11.4". */
function nameIn(data: MapAnswer, name: string): string {
  const unit = data.maps.length > 1 ? /^(\d+\.\d+)(?:: |$)/.exec(name)?.[1] : undefined;
  return unit ? titleOf(unit) : name;
}

interface Props {
  about: About;
  picture: string;
  src: string;
  alt: string;
  start: string; // the map where the state names none: "class:3"
}

export function MapPanel({ about, picture, src, alt, start }: Props) {
  const { map: chosen, heads } = state.value;
  const map = chosen ?? start;
  const isComponent = map.startsWith("component:");
  const can = about.can.map;
  const held = recorded ? heldMaps() : null;
  const found = useAsk<MapAnswer>(can !== true ? null : held ? (held.get(picture) ?? null) : mapAddress(picture, map, heads));
  if (can !== true) return <CannotBecause why={can} />;
  if (held && !held.has(picture)) return <Held positions={[...held.keys()]} />;
  return (
    <div class="stack map-panel">
      {!held && <MapChoice about={about} map={map} />}
      {!held && !isComponent && (
        <label class="choice">
          <span>Of</span>
          <select class="select" value={heads} onChange={(event) => go({ heads: event.currentTarget.value })}>
            <option value="">all heads together</option>
            <option value="ten">the ten heads that do most, each</option>
            {heads.includes(",") && <option value={heads}>{heads.split(",").length} heads, each</option>}
            <UnitOptions about={about} chosen={heads && heads !== "ten" && !heads.includes(",") ? heads : null} />
          </select>
        </label>
      )}
      <Answer of={found} waiting={<Skeleton height="14rem" />}>
        {(data) => (
          <div class="stack">
            <div class={data.maps.length > 1 ? "maps" : "maps single"}>
              {data.maps.map((one) => (
                <MapOverlay key={one.name} src={src} alt={alt} map={one} scale={data.scale} box={data.box} looks={looks.value} name={nameIn(data, one.name)} whole={data.maps.length === 1} />
              ))}
            </div>
            <MapLegend scale={data.scale} />
            <MapLooks looks={looks.value} set={(next) => (looks.value = next)} />
          </div>
        )}
      </Answer>
    </div>
  );
}

/** In an exported page, the maps that it holds: by picture, one each. */
function heldMaps(): Map<string, string> {
  const asked = Object.keys(recorded?.answers ?? {}).filter((address) => address.startsWith("api/map?"));
  return new Map(asked.map((address) => [new URLSearchParams(address.split("?")[1]).get("picture") ?? "", address]));
}

function Held({ positions }: { positions: string[] }) {
  if (!positions.length) return <CannotBecause why="This page holds no maps: open the store with `residual explore` to see them." />;
  return (
    <p class="cannot">
      This page holds maps of{" "}
      {positions.map((position, index) => (
        <>
          {index > 0 && ", "}
          <button type="button" class="plain linked" onClick={() => go({ picture: position, map: null })}>
            picture {position}
          </button>
        </>
      ))}
      ; open the store with `residual explore` to see others.
    </p>
  );
}

function MapChoice({ about, map }: { about: About; map: string }) {
  const [kind = "class", ...rest] = map.split(":");
  const versus = kind === "class" && rest.length > 1;
  const text = kind === "text" ? rest.join(":") : "";
  const typed = useSignal(text);
  useEffect(() => void (typed.value = text), [text]);
  const [first = "0", second = "0"] = rest;
  const other = about.classes.findIndex((_, index) => String(index) !== first);

  function choose(next: string) {
    const index = kind === "class" ? first : "0";
    const { unit, text } = state.peek();
    const maps: Record<string, string> = {
      class: `class:${index}`,
      against: `class:${index}:${Math.max(0, other)}`,
      text: `text:${text}`,
      component: `component:${unit ?? headsOf(about).at(-1)}:0`,
    };
    go({ map: maps[next] ?? null });
  }
  const classes = (value: string, set: (value: string) => void, label: string) => (
    <label class="choice">
      <span>{label}</span>
      <select class="select" value={value} onChange={(event) => set(event.currentTarget.value)}>
        {about.classes.map((name, index) => (
          <option key={index} value={index}>{name}</option>
        ))}
      </select>
    </label>
  );
  return (
    <>
      <label class="choice">
        <span>Map of</span>
        <select class="select" value={versus ? "against" : kind} onChange={(event) => choose(event.currentTarget.value)}>
          <option value="class">a class</option>
          <option value="against" disabled={about.classes.length < 2}>a class against another</option>
          <option value="text" disabled={about.can.text !== true}>a text</option>
          <option value="component">a component</option>
        </select>
      </label>
      {kind === "class" && classes(first, (value) => go({ map: ["class", value, ...rest.slice(1)].join(":") }), "Class")}
      {versus && classes(second, (value) => go({ map: `class:${first}:${value}` }), "Against")}
      {kind === "text" && (
        <form
          class="choice"
          onSubmit={(event) => {
            event.preventDefault();
            go({ map: `text:${typed.value.trim()}` });
          }}
        >
          <label for="map-text">Text (Enter)</label>
          <input id="map-text" class="field" value={typed.value} placeholder="something red" onInput={(event) => (typed.value = event.currentTarget.value)} />
        </form>
      )}
      {kind === "component" && (
        <>
          <label class="choice">
            <span>Unit</span>
            <select class="select" value={first} onChange={(event) => go({ map: `component:${event.currentTarget.value}:0` })}>
              <UnitOptions about={about} chosen={first} />
            </select>
          </label>
          <label class="choice">
            <span>Component</span>
            <input class="field position" type="number" min={0} value={second} onChange={(event) => go({ map: `component:${first}:${event.currentTarget.value}` })} />
          </label>
        </>
      )}
    </>
  );
}
