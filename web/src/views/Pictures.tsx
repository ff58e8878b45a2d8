/** The store's pictures, in an order that is chosen; one opens a panel. */
import { useSignalEffect } from "@preact/signals";
import { PAGE, partsOf, usePictures } from "../listed";
import { Answer, Skeleton } from "../parts/Answer";
import { chosenPosition, PicturePanel } from "../parts/PicturePanel";
import { Pager, PicturesBar } from "../parts/PicturesBar";
import { Pictures as Tiles, PictureTile } from "../parts/PictureTile";
import { number } from "../parts/words";
import { go, state } from "../state";
import { isPlain, turnOf } from "../turned";
import type { About } from "../types";
import "./views.css";

export function Pictures({ about }: { about: About }) {
  const now = state.value;
  const found = usePictures(now, JSON.stringify(turnOf(now, [])));
  const position = chosenPosition(now.picture);
  const [kind] = partsOf(now.order);
  useSignalEffect(() => {
    if (state.value.order === "changed") go({ order: "store", page: 0 }, true); // of the turned view alone
  });
  return (
    <section class={position === null ? "stack" : "beside"}>
      <div class="stack">
        <div>
          <h2>Pictures</h2>
          {!isPlain.value && (
            <p class="small soft">
              Units are turned: predictions here are as turned. <a href="#view=turn" onClick={(event) => (event.preventDefault(), go({ view: "turn" }))}>To the turned view</a>
            </p>
          )}
        </div>
        {about.can.pictures !== true && <p class="cannot">{about.can.pictures}</p>}
        <PicturesBar about={about} />
        {kind === "text" && !now.text ? (
          <p class="soft">Type a text above, and the pictures come in the order in which they speak of it.</p>
        ) : (
          <Answer of={found} waiting={<Skeleton height="20rem" />}>
            {(data) => (
              <div class="stack">
                {data.about && <p class="small soft">{data.about}</p>}
                {data.pictures.length ? (
                  <Tiles label="Pictures">
                    {data.pictures.map((picture) => (
                      <PictureTile
                        key={picture.position}
                        picture={picture}
                        classes={about.classes}
                        selected={position === picture.position}
                        caption={
                          <>
                            {picture.class == null ? "" : about.classes[picture.class]}
                            {picture.value != null && <span class="tile-value"> {number(picture.value)}</span>}
                          </>
                        }
                        onClick={() => go({ picture: String(picture.position) })}
                      />
                    ))}
                  </Tiles>
                ) : (
                  <p>No picture.</p>
                )}
                <Pager total={data.total} limit={PAGE} />
              </div>
            )}
          </Answer>
        )}
      </div>
      {position !== null && <PicturePanel about={about} position={position} />}
    </section>
  );
}
