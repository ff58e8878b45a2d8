/** One picture of the store: what it is taken for, its maps, and the pictures nearest to it. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { AskError, path, recorded, useAsk, type Asked } from "../ask";
import { go, state } from "../state";
import { askTurn, isPlain, recordedPicture, turnOf } from "../turned";
import type { About, Pictures as PicturesAnswer, TurnAnswer } from "../types";
import { Answer, Skeleton } from "./Answer";
import { Guesses } from "./Guesses";
import { MapPanel } from "./MapPanel";
import { Pictures, PictureTile, sourceOf } from "./PictureTile";
import { UnitOptions } from "./PicturesBar";

const NEAR = 8;
const SETTLED = 150;

export function PicturePanel({ about, position }: { about: About; position: number }) {
  const { unit, off, weight, lam, adapter, mode } = state.value;
  const heading = useRef<HTMLHeadingElement>(null);
  const predicted = useSignal<Asked<TurnAnswer>>({ data: null, error: null, loading: true });
  const wish = turnOf({ off, weight, lam, adapter, mode }, [position]);
  useEffect(() => {
    let waits = true;
    const timer = setTimeout(
      () =>
        askTurn(wish).then(
          (data) => waits && (predicted.value = { data, error: null, loading: false }),
          (error: unknown) => waits && (predicted.value = { data: null, error: error as AskError, loading: false }),
        ),
      predicted.peek().data ? SETTLED : 0,
    );
    return () => {
      waits = false;
      clearTimeout(timer);
    };
  }, [JSON.stringify(wish)]);
  useEffect(() => heading.current?.focus(), [position]);
  const found = predicted.value.data?.predictions.find((one) => one.position === position);
  const truth = found ? about.classes[found.class] : undefined;
  const src = sourceOf(recordedPicture(position), 320);
  const alt = `picture ${position}${truth ? `, ${truth}` : ""}`;

  return (
    <aside class="card stack picture-panel" aria-labelledby="picture-name">
      <header class="row spread">
        <h2 id="picture-name" ref={heading} tabIndex={-1}>
          Picture {position}
          {truth && <span class="soft"> · {truth}</span>}
        </h2>
        <button type="button" class="button" onClick={() => go({ picture: null })}>
          Close
        </button>
      </header>
      <div class="picture-top">
        <img class="picture-large" src={src} alt={alt} />
        <div>
          <h3>{isPlain.value ? "Prediction" : "Prediction as turned"}</h3>
          <Answer of={predicted} waiting={<Skeleton />}>
            {() =>
              found ? (
                <>
                  <Guesses guesses={found.now} classes={about.classes} truth={found.class} />
                  {found.now[0]?.class !== found.was && <p class="small">The plain encoder says {about.classes[found.was]}.</p>}
                </>
              ) : (
                <p class="cannot">This page holds no prediction of it.</p>
              )
            }
          </Answer>
        </div>
      </div>
      <section class="stack" aria-labelledby="map-name">
        <h3 id="map-name">Where it is seen</h3>
        {found && <MapPanel about={about} picture={String(position)} src={src} alt={alt} start={`class:${found.now[0]?.class ?? found.class}`} />}
      </section>
      {!recorded && <Near about={about} position={position} unit={unit} />}
    </aside>
  );
}

function Near({ about, position, unit }: { about: About; position: number; unit: string | null }) {
  const near = useAsk<PicturesAnswer>(path("api/pictures", { order: "near", limit: NEAR, offset: 0, unit, position }));
  return (
    <section class="stack" aria-labelledby="near-name">
      <div class="row spread">
        <h3 id="near-name">Nearest pictures</h3>
        <label class="row small">
          seen through
          <select class="select" value={unit ?? ""} onChange={(event) => go({ unit: event.currentTarget.value || null })}>
            <option value="">the whole output</option>
            <UnitOptions about={about} chosen={unit} />
          </select>
        </label>
      </div>
      <Answer of={near} waiting={<Skeleton height="6rem" />}>
        {(data) => (
          <Pictures label="Nearest pictures" row>
            {data.pictures.map((one) => (
              <PictureTile key={one.position} picture={one} classes={about.classes} caption={one.class == null ? undefined : about.classes[one.class]} onClick={() => go({ picture: String(one.position) })} />
            ))}
          </Pictures>
        )}
      </Answer>
      <button type="button" class="plain linked" onClick={() => go({ view: "pictures", order: `near:${position}`, page: 0 })}>
        All pictures by how near they are
      </button>
    </section>
  );
}

/** The position of a picture of the store that the state names; null for one that was dropped. */
export function chosenPosition(picture: string | null): number | null {
  const position = picture === null ? NaN : Number(picture);
  return Number.isInteger(position) && position >= 0 ? position : null;
}
