/** Before a head is chosen: what the squares are, and the heads that stand out. */
import { dark } from "../../parts/colours";
import { Bars } from "../../parts/Bars";
import { ranked } from "../../parts/HeadsGrid";
import { shown, titleOf } from "../../parts/words";
import type { Heads, Score } from "../../types";
import { openUnit } from "./open";
import type { Says } from "./shading";

interface Props {
  heads: Heads;
  score: Score | undefined;
  says: Says;
  note: string | null | undefined;
}

export function Start({ heads, score, says, note }: Props) {
  const best = ranked(heads.units).filter((one) => one.value !== null && one.head !== null).slice(0, 6);
  const known = new Set(heads.units.filter((one) => one.head !== null).map((one) => one.unit));
  const clear = [...says.values()].filter((one) => one.text && known.has(one.unit)).sort((a, b) => b.value - a.value).slice(0, 6);
  return (
    <div class="card stack start">
      <h2>What each head sees</h2>
      <p>
        A vision transformer looks at a picture with many <em>heads</em>. What it says of the picture is the sum of what
        they add, each on its own, so each can be looked at on its own. Every square is one head: {score?.signed ? "orange is for more, blue for less" : `${dark.value ? "brighter" : "darker"} means more`}{" "}
        {score?.label ?? "of the score"}.{" "}
        {heads.units.some((one) => one.kind === "mlp" && one.value !== null) && "The column at the right is for the MLPs, one a layer."}
      </p>
      <h3>{score ? `Heads with the most ${score.label}` : "Heads that stand out"}</h3>
      <Bars
        label={`Heads with the most ${score?.label ?? "of the score"}`}
        format={(value) => shown(score, value)}
        bars={best.map((one) => ({
          value: one.value!,
          label: <span class="linked">{titleOf(one.unit)}</span>,
          onClick: () => openUnit(one.unit),
        }))}
      />
      {clear.length > 0 && (
        <>
          <h3>Heads whose texts are clearest</h3>
          <Bars
            label="Heads by the share of what varies in them that lies along their nearest text"
            bars={clear.map((one) => ({
              value: one.value,
              label: (
                <>
                  <span class="linked">{titleOf(one.unit)}</span> “{one.text}”
                </>
              ),
              onClick: () => openUnit(one.unit),
            }))}
          />
          <p class="small soft">The share of what varies in a head that lies along one text of the dictionary.</p>
        </>
      )}
      {note && <p class="small soft">{note}</p>}
    </div>
  );
}
