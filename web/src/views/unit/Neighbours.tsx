/** What is near by one unit: pictures to a picture, pictures to a text. */
import { path, useAsk } from "../../ask";
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
  return (
    <>
      <h4>Pictures most like it</h4>
      <p class="small soft">by {nameOf(unit)}</p>
      <Found about={about} address={near(unit)} label={`Nearest pictures by ${nameOf(unit)}`} />
      <p class="small soft">by the whole encoder</p>
      <Found about={about} address={near(null)} label="Nearest pictures by the whole encoder" />
    </>
  );
}
