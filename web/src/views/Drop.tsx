/** A picture of one's own: what it is taken for, which units made that, where they look, and what is like it. */
import { signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { ask, AskError, path, post } from "../ask";
import { CannotBecause, Problem, Skeleton } from "../parts/Answer";
import { Bars } from "../parts/Bars";
import { Guesses } from "../parts/Guesses";
import { MapPanel } from "../parts/MapPanel";
import { short } from "../parts/MapOverlay";
import { Pictures, PictureTile } from "../parts/PictureTile";
import { number, percent, titleOf } from "../parts/words";
import { field, go } from "../state";
import type { About, DropAnswer } from "../types";
import "./views.css";

const [picture, heads] = [field("picture"), field("heads")];
const dropped = signal<DropAnswer | null>(null); // stays while one looks elsewhere

export function Drop({ about }: { about: About }) {
  const can = about.can.drop;
  return can === true ? <Dropped about={about} /> : <CannotBecause why={can} />;
}

function Dropped({ about }: { about: About }) {
  const problem = useSignal<AskError | null>(null);
  const busy = useSignal(false);
  const over = useSignal(false);
  const input = useRef<HTMLInputElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const named = picture.value?.startsWith("drop:") ? picture.value : null;

  async function look(file: Blob | null | undefined) {
    if (!file) return;
    busy.value = true;
    problem.value = null;
    try {
      const found = await post<DropAnswer>("api/drop", file);
      dropped.value = found;
      go({ picture: found.picture, map: null, heads: headsIn(found) });
      requestAnimationFrame(() => heading.current?.focus());
    } catch (error) {
      problem.value = error instanceof AskError ? error : new AskError(String(error));
    } finally {
      busy.value = false;
    }
  }

  // An address that was pasted: the server may still know the picture.
  useEffect(() => {
    if (!named || dropped.peek()?.picture === named) return;
    busy.value = true;
    ask<DropAnswer>(path("api/drop", { picture: named }))
      .then(
        (found) => (dropped.value = found),
        (error: unknown) => (problem.value = error as AskError),
      )
      .finally(() => (busy.value = false));
  }, [named]);

  useEffect(() => {
    const onPaste = (event: ClipboardEvent) => {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      void look(file);
    };
    window.addEventListener("paste", onPaste);
    return () => window.removeEventListener("paste", onPaste);
  }, []);

  const found = dropped.value;
  return (
    <section class="stack">
      <div>
        <h2>A picture of your own</h2>
        <p class="soft small">It goes to the explorer that runs on your machine, is held in memory, and leaves it for nowhere.</p>
      </div>
      <div
        class={over.value ? "dropzone over" : "dropzone"}
        onDragOver={(event) => {
          event.preventDefault();
          over.value = true;
        }}
        onDragLeave={() => (over.value = false)}
        onDrop={(event) => {
          event.preventDefault();
          over.value = false;
          const file = event.dataTransfer?.files[0];
          if (file) void look(file);
          else problem.value = new AskError("That is no file.", "Drop a picture from a folder, or save it first and choose it here.");
        }}
      >
        <p>Drop a picture here, paste one, or</p>
        <button type="button" class="button primary" disabled={busy.value} onClick={() => input.current?.click()}>
          choose a file
        </button>
        <input
          ref={input}
          class="unseen"
          type="file"
          accept="image/*"
          aria-label="A picture from this machine"
          tabIndex={-1}
          onChange={(event) => {
            void look(event.currentTarget.files?.[0]);
            event.currentTarget.value = "";
          }}
        />
        <p class="small soft" role="status">{busy.value ? "Looking at it…" : ""}</p>
      </div>
      {problem.value && <Problem error={problem.value} />}
      {busy.value && !found && <Skeleton height="16rem" />}
      {found && (
        <div class="drop-found">
          <section class="card stack" aria-labelledby="drop-prediction">
            <h3 id="drop-prediction" ref={heading} tabIndex={-1}>
              Taken for {about.classes[found.prediction[0]?.class ?? -1] ?? "nothing"}
              {found.prediction[0]?.probability != null && `, ${percent(found.prediction[0].probability)}`}
            </h3>
            <div class="picture-top">
              <img class="picture-large" src={found.src} alt="The picture that was dropped" />
              <Guesses guesses={found.prediction} classes={about.classes} />
            </div>
            {found.note && <p class="small soft">{found.note}</p>}
            <h3>The units that made it</h3>
            {found.what && <p class="small soft">{found.what}</p>}
            <Bars
              label="Units by what they added to the prediction"
              format={short}
              bars={found.units.map(({ unit, value }) => ({ label: titleOf(unit), value, onClick: () => go({ view: "heads", unit }) }))}
            />
          </section>
          <section class="card stack" aria-labelledby="drop-maps">
            <h3 id="drop-maps">Where they see it</h3>
            {heads.value !== headsIn(found) && (
              <button type="button" class="plain linked" onClick={() => go({ heads: headsIn(found) })}>
                The heads that made it, each
              </button>
            )}
            <MapPanel about={about} picture={found.picture} src={found.src} alt="the picture that was dropped" start={`class:${found.prediction[0]?.class ?? 0}`} />
          </section>
          <section class="card stack" aria-labelledby="drop-near">
            <h3 id="drop-near">Nearest pictures of the store</h3>
            <Pictures label="Nearest pictures" row>
              {found.near.map((one) => (
                <PictureTile
                  key={one.position}
                  picture={one}
                  classes={about.classes}
                  caption={
                    <>
                      {one.class == null ? "" : about.classes[one.class]} {one.value != null && <span class="tile-value">{number(one.value)}</span>}
                    </>
                  }
                  onClick={() => go({ view: "pictures", picture: String(one.position) })}
                />
              ))}
            </Pictures>
          </section>
        </div>
      )}
    </section>
  );
}

/** Those of its units that are heads: MLPs have no map. */
const headsIn = (found: DropAnswer): string =>
  found.units
    .map(({ unit }) => unit)
    .filter((unit) => /^\d/.test(unit))
    .join(",");
