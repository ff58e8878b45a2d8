/** A picture of the store, or one that was dropped, with what is to be said of it under it. */
import type { ComponentChildren } from "preact";
import { known, path, recorded, withToken } from "../ask";
import type { About, Picture } from "../types";

interface Props {
  picture: Picture;
  classes: string[];
  caption?: ComponentChildren;
  selected?: boolean;
  side?: number;
  onClick?: () => void;
  children?: ComponentChildren; // laid over the picture (a map)
}

/** The address of a picture's bytes. */
export function sourceOf(picture: Picture, side = 160): string {
  const held = picture.src ?? recorded?.pictures?.[picture.position];
  const none = recorded || known<About>("api/about")?.can.pictures !== true; // its name stands there
  return withToken(held ?? (none ? "data:," : path("api/picture", { position: picture.position, side })));
}

export function describePicture(picture: Picture, classes: string[]): string {
  const name = picture.class === null || picture.class === undefined ? undefined : classes[picture.class];
  const place = typeof picture.position === "number" ? `picture ${picture.position}` : "dropped picture";
  return name ? `${name}, ${place}` : place;
}

export function PictureTile({ picture, classes, caption, selected, side = 160, onClick, children }: Props) {
  const words = describePicture(picture, classes);
  const image = (
    <span class="tile-picture">
      <img src={sourceOf(picture, side)} alt={words} title={words} width={side} height={side} loading="lazy" decoding="async" draggable={false} />
      {children}
    </span>
  );
  return (
    <figure class={selected ? "tile selected" : "tile"}>
      {onClick ? (
        <button type="button" class="plain" aria-pressed={selected} onClick={onClick}>
          {image}
        </button>
      ) : (
        image
      )}
      {caption !== undefined && <figcaption>{caption}</figcaption>}
    </figure>
  );
}

/** Pictures in a row or in rows, as many as fit. */
export function Pictures({ label, children, row = false, small = false }: { label: string; children: ComponentChildren; row?: boolean; small?: boolean }) {
  return (
    <div class={`tiles${row ? " in-row" : ""}${small ? " small" : ""}`} role="group" aria-label={label} tabIndex={row ? 0 : undefined}>
      {children}
    </div>
  );
}
