/** What is near by one unit: pictures to a picture, pictures to a text. */
import { answerable, path, useAsk } from "../../ask";
import { Answer, Skeleton } from "../../parts/Answer";
import { PictureTile, Pictures } from "../../parts/PictureTile";
import { nameOf } from "../../parts/words";
import { field, go } from "../../state";
import type { About, Pictures as PicturesAnswer, Unit } from "../../types";

const picture = field("picture");
const NEAR = 12;

function Found({ about, address, label }: { about: About; address: string; label: string }) {
  const found = useAsk<PicturesAnswer>(address);
  return (
    <Answer of={found} waiting={<Skeleton height="5rem" />}>
      {(data) => (
        <Pictures label={label} small>
          {data.pictures.map((one) => (
            <PictureTile
              key={one.position}
              picture={one}
              classes={about.classes}
              side={96}
              caption={one.class === null || one.class === undefined ? undefined : about.classes[one.class]}
              selected={picture.value === String(one.position)}
              onClick={() => go({ picture: String(one.position) })}
            />
          ))}
        </Pictures>
      )}
    </Answer>
  );
}

export function ByText({ about, text, unit }: { about: About; text: string; unit: Unit | null }) {
  const address = path("api/pictures", { order: "text", limit: NEAR, text, unit });
  return <Found about={about} address={address} label={`Pictures with most “${text}”`} />;
}

/** The pictures nearest to one, by this unit and by the whole encoder. */
export function Near({ about, unit, chosen }: { about: About; unit: Unit; chosen: string }) {
  const near = (by: Unit | null) => path("api/pictures", { order: "near", limit: NEAR, unit: by, position: chosen });
  const ways = [unit, null].filter((by) => answerable(near(by)));
  if (!ways.length) return null;
  const name = (by: Unit | null) => (by ? nameOf(by) : "the whole encoder");
  return (
    <>
      <h4>Pictures most like it</h4>
      {ways.map((by) => (
        <div key={by} class="stack">
          <p class="small soft">by {name(by)}</p>
          <Found about={about} address={near(by)} label={`Nearest pictures by ${name(by)}`} />
        </div>
      ))}
    </>
  );
}
