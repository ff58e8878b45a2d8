/** One unit: what its texts say, how much of it they tell, its components, what is near to it, and where it looks. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { path, tries, useAsk } from "../../ask";
import { Answer, Problem, Skeleton } from "../../parts/Answer";
import { Bars } from "../../parts/Bars";
import { UnitWeight } from "../../parts/Lambdas";
import { Spectrum } from "../../parts/Spectrum";
import { number, percent, shown, titleOf } from "../../parts/words";
import { field, go, link, state } from "../../state";
import { follow, isPlain, offUnits, problem, turnOf, weigh } from "../../turned";
import type { About, Unit, UnitAnswer } from "../../types";
import { Outcome } from "../turn/Outcome";
import { Components } from "./Components";
import { ByText } from "./Neighbours";
import { OnePicture } from "./OnePicture";

const text = field("text");
const weight = field("weight");

export function UnitPanel({ about, unit }: { about: About; unit: Unit }) {
  const asked = useAsk<UnitAnswer>(path("api/unit", { unit }));
  return (
    <article class="unit stack" aria-label={titleOf(unit)}>
      <header class="unit-head">
        <h2>{titleOf(unit)}</h2>
        <a class="button close" href={link({ view: "turn", unit })}>Turn it</a>
        <button type="button" class="button close" onClick={() => go({ unit: null })}>
          Close<span class="unseen"> {titleOf(unit)}</span>
        </button>
      </header>
      {about.can.turn === true && !isPlain.value && <WhatBecomes about={about} />}
      <Answer of={asked} waiting={<div class="card"><Skeleton lines={7} /></div>}>
        {(data) => (data.unit === unit ? <Described about={about} data={data} /> : <div class="card"><Skeleton lines={7} /></div>)}
      </Answer>
    </article>
  );
}

/** Of the accuracy, while something is turned. */
function WhatBecomes({ about }: { about: About }) {
  useEffect(() => follow([]), [JSON.stringify(turnOf(state.value, [])), tries.value]);
  return problem.value ? <Problem error={problem.value} /> : <Outcome about={about} />;
}

const FEW = 4;

function Described({ about, data }: { about: About; data: UnitAnswer }) {
  const { unit } = data;
  const all = useSignal(false);
  const components = all.value ? data.components : data.components.slice(0, FEW);
  return (
    <div class="stack">
      <section class="card stack" aria-label="What it says">
        <p class="verdict">{data.verdict}</p>
        {data.texts.length > 0 && (
          <>
            <h3>{data.named ? "Its texts" : "The texts that come nearest"}</h3>
            <Bars
              label="Texts, and the share of what varies in it that each tells"
              bars={data.texts.map((one) => ({
                label: one.text,
                value: one.share,
                onClick: about.can.text === true ? () => go({ text: one.text, unit: null }) : undefined,
              }))}
            />
          </>
        )}
        {data.told !== null && <Told told={data.told} chance={data.chance} />}
        <Scores about={about} data={data} />
      </section>
      {data.components.length > 0 && (
        <section class="card stack" aria-label="Components">
          <h3>How it varies</h3>
          <p class="soft">
            What changes in it from picture to picture, as independent components, largest first
            {data.linear_dimension !== null && `: ${number(data.linear_dimension)} hold nearly all of it`}
            {data.participation_ratio !== null && `, as if ${number(data.participation_ratio)} were equally large`}. Filled bars are shown below.
          </p>
          <Spectrum
            ratios={data.spectrum}
            shown={components.map((one) => one.index)}
            label={`Variance of the components: ${data.spectrum.slice(0, 5).map((ratio) => percent(ratio)).join(", ")} …`}
          />
          {about.can.turn === true && (
            <UnitWeight unit={unit} value={offUnits.value.has(unit) ? 0 : (weight.value[unit] ?? 1)} set={(value) => weigh(unit, value)} />
          )}
          <Components about={about} unit={unit} components={components} />
          {data.components.length > FEW && (
            <p>
              <button type="button" class="plain linked" aria-expanded={all.value} onClick={() => (all.value = !all.value)}>
                {all.value ? "The first ones only" : `${data.components.length - FEW} more components`}
              </button>
            </p>
          )}
        </section>
      )}
      {text.value && about.can.text === true && (
        <section class="card stack" aria-label="Pictures by a text">
          <h3>Pictures with most “{text.value}”, to this {data.kind === "head" ? "head" : "unit"}</h3>
          <ByText about={about} text={text.value} unit={unit} />
        </section>
      )}
      <OnePicture about={about} data={data} />
    </div>
  );
}

/** A share beside what chance tells. */
function Told({ told, chance }: { told: number; chance: number | null }) {
  return (
    <div class="told">
      <div class="told-track" aria-hidden="true">
        <span class="bar-fill" style={{ width: `${told * 100}%` }} />
        {chance !== null && <span class="legend-mark" style={{ left: `${chance * 100}%` }} />}
      </div>
      <p class="small soft">
        Together they tell {percent(told)} of what varies in it
        {chance !== null && (
          <>
            ; as many random directions <span class="legend-tick" aria-hidden="true" /> {percent(chance)}
          </>
        )}
        .
      </p>
    </div>
  );
}

function Scores({ about, data }: { about: About; data: UnitAnswer }) {
  return (
    <dl class="scores">
      {about.scores
        .filter((score) => data.scores[score.key] !== null && data.scores[score.key] !== undefined)
        .map((score) => (
          <div key={score.key} title={score.what}>
            <dt>{score.label}</dt>
            <dd>
              {shown(score, data.scores[score.key])}
              {data.ranks[score.key] ? <span class="soft small"> {ordinal(data.ranks[score.key]!)} of {data.of}</span> : null}
            </dd>
          </div>
        ))}
    </dl>
  );
}

function ordinal(rank: number): string {
  const tens = rank % 100;
  const ending = tens > 10 && tens < 14 ? "th" : (["th", "st", "nd", "rd"][rank % 10] ?? "th");
  return `${rank}${ending}`;
}
