/** Components of a unit: the pictures at both ends, and the texts that lie there. */
import { path, useAsk } from "../../ask";
import { ComponentLambda } from "../../parts/Lambdas";
import { PictureTile, Pictures } from "../../parts/PictureTile";
import { percent } from "../../parts/words";
import { field, go } from "../../state";
import { setLambda, turning } from "../../turned";
import type { About, Component, Picture, TextAnswer, Unit } from "../../types";

const picture = field("picture");
const text = field("text");
const lam = field("lam");

export function Components({ about, unit, components }: { about: About; unit: Unit; components: Component[] }) {
  const asked = about.can.text === true ? text.value.trim() : "";
  const spoken = useAsk<TextAnswer>(asked ? path("api/text", { text: asked }) : null).value.data;
  const speaks = (index: number) => spoken?.components.find((one) => one.unit === unit && one.index === index);
  return (
    <ol class="components">
      {components.map((one) => (
        <li key={one.index} class="component" data-component={`${unit}:${one.index}`}>
          <h4>
            Component {one.index} <span class="soft">{percent(one.ratio)} of what varies</span>
            {speaks(one.index) && (
              <span class="lit">
                speaks of “{asked}” at its {speaks(one.index)!.sign < 0 ? "low" : "high"} end
              </span>
            )}
          </h4>
          <div class="ends">
            <End about={about} name="High end" words={one.positive} pictures={one.largest} />
            <End about={about} name="Low end" words={one.negative} pictures={one.smallest} />
          </div>
          {about.can.turn === true && !turning && (
            <ComponentLambda index={one.index} value={lam.value[unit]?.[one.index] ?? 1} set={(value) => setLambda(unit, one.index, value)} />
          )}
        </li>
      ))}
    </ol>
  );
}

function End({ about, name, words, pictures }: { about: About; name: string; words: string[]; pictures: Picture[] }) {
  return (
    <div class="end">
      <p class="small">
        <span class="soft">{name}{words.length ? ":" : ""}</span> {words.join(", ")}
      </p>
      <Pictures label={`${name}: pictures`} row>
        {pictures.map((one) => (
          <PictureTile
            key={one.position}
            picture={one}
            classes={about.classes}
            side={96}
            selected={picture.value === String(one.position)}
            onClick={() => go({ picture: String(one.position) })}
          />
        ))}
      </Pictures>
    </div>
  );
}
