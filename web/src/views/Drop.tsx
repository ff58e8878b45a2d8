import type { About } from "../types";

export function Drop({ about: _about }: { about: About }) {
  return <p class="cannot">This view isn't there yet.</p>;
}
