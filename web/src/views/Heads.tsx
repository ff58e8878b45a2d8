/** Layers x heads by a score, or by how far they speak a text; a head opens beside them. */
import { useSignal } from "@preact/signals";
import { answerable, path, useAsk } from "../ask";
import { Answer } from "../parts/Answer";
import { scaleOf } from "../parts/colours";
import { HeadsGrid } from "../parts/HeadsGrid";
import { Legend } from "../parts/Legend";
import { nameOf, percent, titleOf } from "../parts/words";
import { field, go, state, type Sort } from "../state";
import type { About, Heads as HeadsAnswer, TextAnswer, Unit, Words } from "../types";
import { offUnits, turnedUnits } from "../turned";
import { HeadsTable } from "./heads/HeadsTable";
import { openUnit } from "./heads/open";
import { shadingOfScore, shadingOfText, type Says, type Shading } from "./heads/shading";
import { heardOf, Speaking } from "./heads/Speaking";
import { Start } from "./heads/Start";
import { TextBox } from "./heads/TextBox";
import { UnitPanel } from "./unit/UnitPanel";
import "./heads.css";

const unit = field("unit");
const key = field("score");
const sort = field("sort");
const text = field("text");

const DEFAULT_SCORE = "accuracy";

/** What the first view asks besides what there is: known before the server has said which scores it has. */
export const firstQuestion = () => path("api/heads", { score: state.value.score ?? DEFAULT_SCORE });

const SORT_NAMES: Record<Sort, string> = { layout: "By layer", value: "Ranked", table: "Table" };

export function Heads({ about }: { about: About }) {
  const score = about.scores.find((one) => one.key === (key.value ?? DEFAULT_SCORE)) ?? about.scores[0];
  const heads = useAsk<HeadsAnswer>(score ? path("api/heads", { score: score.key }) : null);
  const canText = about.can.text === true;
  const asked = text.value.trim();
  const spoken = useAsk<TextAnswer>(asked && canText ? path("api/text", { text: asked }) : null);
  // Not before the first view: for this the dictionary is embedded.
  const words = useAsk<Words>(heads.value.data && about.dictionary && answerable("api/words") ? "api/words" : null);
  const says = new Map((words.value.data?.units ?? []).map((one) => [one.unit, one]));
  const hovered = useSignal<Unit | null>(null);

  const speaking = asked && spoken.value.data ? spoken.value.data : null;
  return (
    <div class="heads-view">
      <div class="heads-ask">
        <TextBox about={about} problem={spoken.value.error} examples={words.value.data?.examples ?? []} />
      </div>
      <section class="heads-side" aria-label="All heads">
        <Answer of={heads} waiting={<Placeholder about={about} />}>
          {(data) => {
            const shading = speaking ? shadingOfText(speaking, data.units) : shadingOfScore(data, score);
            return (
              <Shaded shading={shading} says={says} hovered={hovered.value} onHover={(unit) => (hovered.value = unit)}>
                {speaking ? (
                  <p class="what-it-is">
                    <strong>How far each head speaks of “{speaking.text}”.</strong>{" "}
                    <span class="soft">
                      The share of what varies in the head that lies along this text{speaking.units.some((one) => typeof one.above === "number") && ", less what lies along the usual text"}.
                    </span>{" "}
                    <button type="button" class="plain linked" onClick={() => go({ text: "" })}>Back to scores</button>
                  </p>
                ) : (
                  <ScoreMenu about={about} chosen={score?.key ?? ""} what={score?.what ?? ""} note={data.note} />
                )}
              </Shaded>
            );
          }}
        </Answer>
      </section>
      <div class="heads-main">
        <p class="unseen" aria-live="polite">{unit.value ? `${titleOf(unit.value)} is shown.` : speaking && heardOf(speaking)}</p>
        {speaking && !unit.value && <Speaking about={about} answer={speaking} />}
        {unit.value ? (
          <UnitPanel about={about} unit={unit.value} />
        ) : (
          !asked && heads.value.data && <Start heads={heads.value.data} score={score} says={says} note={words.value.data?.note} />
        )}
      </div>
    </div>
  );
}

function ScoreMenu({ about, chosen, what, note }: { about: About; chosen: string; what: string; note: string | null }) {
  return (
    <div class="score-menu">
      <label for="score">Colour by</label>
      <select id="score" class="select" value={chosen} onChange={(event) => go({ score: event.currentTarget.value })}>
        {about.scores.map((one) => (
          <option key={one.key} value={one.key}>{one.label}</option>
        ))}
      </select>
      <p class="what-it-is soft">{what}</p>
      {note && <p class="small soft">{note}</p>}
    </div>
  );
}

interface ShadedProps {
  shading: Shading;
  says: Says;
  hovered: Unit | null;
  onHover: (unit: Unit | null) => void;
  children: preact.ComponentChildren;
}

function Shaded({ shading, says, hovered, onHover, children }: ShadedProps) {
  const scale = scaleOf(shading.low, shading.high, shading.signed);
  return (
    <>
      {children}
      {sort.value === "table" ? (
        <HeadsTable shading={shading} says={says} selected={unit.value} onOpen={openUnit} />
      ) : (
        <HeadsGrid
          units={shading.units}
          scale={scale}
          format={shading.format}
          label={shading.label}
          sort={sort.value}
          selected={unit.value}
          onOpen={openUnit}
          onHover={onHover}
          off={offUnits.value}
          marked={turnedUnits.value}
        />
      )}
      {sort.value !== "table" && <p class="readout small" aria-hidden="true">{readout(shading, says, hovered ?? unit.value)}</p>}
      <div class="heads-foot">
        {sort.value !== "table" && <Legend
          scale={scale}
          format={shading.format}
          reference={shading.reference}
          referenceName={shading.referenceName}
          beyond={shading.beyond}
        />}
        <div class="segments" role="group" aria-label="Order">
          {(Object.keys(SORT_NAMES) as Sort[]).map((name) => (
            <button key={name} type="button" class="segment" aria-pressed={sort.value === name} onClick={() => go({ sort: name })}>
              {SORT_NAMES[name]}
            </button>
          ))}
        </div>
      </div>
    </>
  );
}

function readout(shading: Shading, says: Says, unit: Unit | null): string {
  const found = unit ? shading.units.find((one) => one.unit === unit) : undefined;
  if (!found) return "One row a layer, one square a head. Choose one to see what it does.";
  const said = says.get(found.unit);
  const text = said?.text ? ` · nearest text “${said.text}”, ${percent(said.value)}` : "";
  return `${nameOf(found.unit)}: ${shading.format(found.value)} ${shading.label}${text}`;
}

function Placeholder({ about }: { about: About }) {
  const { layers, heads } = about.encoder;
  return (
    <div class="heads">
      <div class="heads-grid waiting" aria-hidden="true" style={{ gridTemplateColumns: `repeat(${heads}, minmax(0, 1fr))`, "--across": String(heads), "--down": String(layers) }}>
        {Array.from({ length: layers * heads }, (_, index) => <span key={index} class="cell" />)}
      </div>
    </div>
  );
}
