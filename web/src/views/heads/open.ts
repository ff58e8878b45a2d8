import { go } from "../../state";
import type { Unit } from "../../types";

/** Show a unit; where it lies under the heads, go there. */
export function openUnit(unit: Unit): void {
  go({ unit, view: "heads" });
  if (window.matchMedia("(max-width: 64rem)").matches) {
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    requestAnimationFrame(() => document.querySelector(".heads-main")?.scrollIntoView({ behavior: calm ? "auto" : "smooth" }));
  }
}
