import type { About } from "../types";

export function Stores({ about: _about }: { about: About }) {
  return <p class="cannot">This view isn't there yet.</p>;
}
