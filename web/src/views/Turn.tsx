import type { About } from "../types";

export function Turn({ about: _about }: { about: About }) {
  return <p class="cannot">This view isn't there yet.</p>;
}
