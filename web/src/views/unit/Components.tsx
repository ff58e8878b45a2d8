/** Components of a unit: the pictures at both ends, and the texts that lie there. */
import { PictureTile, Pictures } from "../../parts/PictureTile";
import { percent } from "../../parts/words";
import { field, go } from "../../state";
import type { About, Component, Picture, Unit } from "../../types";

const picture = field("picture");

export function Components({ about, unit, components }: { about: About; unit: Unit; components: Component[] }) {
  return (
    <ol class="components">
      {components.map((one) => (
        <li key={one.index} class="component" data-component={`${unit}:${one.index}`}>
          <h4>
            Component {one.index} <span class="soft">{percent(one.ratio)} of what varies</span>
          </h4>
          <div class="ends">
            <End about={about} name="High end" words={one.positive} pictures={one.largest} />
            <End about={about} name="Low end" words={one.negative} pictures={one.smallest} />
          </div>
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
