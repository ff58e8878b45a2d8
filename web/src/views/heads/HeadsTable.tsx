/** The same numbers as a plain table, largest first. */
import { CopyButton } from "../../parts/CopyButton";
import { ranked } from "../../parts/HeadsGrid";
import { percent, titleOf } from "../../parts/words";
import type { Unit } from "../../types";
import type { Says, Shading } from "./shading";

interface Props {
  shading: Shading;
  says: Says;
  selected: Unit | null;
  onOpen: (unit: Unit) => void;
}

const nearest = (said: ReturnType<Says["get"]>) => said?.text && (
  <>
    {said.text} <span class="soft">{percent(said.value)}</span>
  </>
);

export function HeadsTable({ shading, says, selected, onOpen }: Props) {
  return (
    <div class="table-holder" tabIndex={0} role="group" aria-label="Table of heads">
      <table class="table">
        <caption class="unseen">Units by {shading.label}, largest first</caption>
        <thead>
          <tr>
            <th scope="col">unit</th>
            <th scope="col" class="figure">{shading.label}</th>
            {says.size > 0 && <th scope="col">nearest text, and its share</th>}
          </tr>
        </thead>
        <tbody>
          {ranked(shading.units).map((one) => (
            <tr key={one.unit} class={selected === one.unit ? "selected" : undefined}>
              <th scope="row">
                <button type="button" class="plain linked" onClick={() => onOpen(one.unit)}>{titleOf(one.unit)}</button>
              </th>
              <td class="figure" title={one.value === null ? undefined : String(one.value)}>{shading.format(one.value)}</td>
              {says.size > 0 && <td>{nearest(says.get(one.unit))}</td>}
            </tr>
          ))}
        </tbody>
      </table>
      <CopyButton what="table" text={() => tsvOf(shading, says)} />
    </div>
  );
}

/** For a sheet: all digits, and shares as fractions. */
function tsvOf(shading: Shading, says: Says): string {
  const rows = ranked(shading.units).map((one) => [one.unit, one.value ?? "", says.get(one.unit)?.text ?? "", says.get(one.unit)?.value ?? ""]);
  return [["unit", shading.label, "nearest text", "its share"], ...rows].map((row) => row.join("\t")).join("\n");
}
