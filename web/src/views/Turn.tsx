/** Switch units off, weigh them and their components, and see at once what becomes of the predictions. */
import { useEffect } from "preact/hooks";
import { path, tries, useAsk } from "../ask";
import { partsOf, usePictures } from "../listed";
import { Answer, CannotBecause, Problem, Skeleton } from "../parts/Answer";
import { ClassBars } from "../parts/ClassBars";
import { scaleOf } from "../parts/colours";
import { Confusion } from "../parts/Confusion";
import { HeadsGrid } from "../parts/HeadsGrid";
import { Lambdas, UnitWeight } from "../parts/Lambdas";
import { Legend } from "../parts/Legend";
import { chosenPosition, PicturePanel } from "../parts/PicturePanel";
import { Pager, PicturesBar, UnitOptions } from "../parts/PicturesBar";
import { Pictures as Tiles, PictureTile } from "../parts/PictureTile";
import { SaveMenu } from "../parts/SaveMenu";
import { chanceName, nameOf, percent, plural, shown, titleOf } from "../parts/words";
import { field, go, state } from "../state";
import { answer, canUndo, follow, followPlain, isPlain, offUnits, plain, PLAIN, problem, resetUnit, setLambda, toggle, turn, turnedUnits, turning, turnOf, undo, weigh } from "../turned";
import type { About, Heads, Picture, UnitAnswer } from "../types";
import { Outcome } from "./turn/Outcome";
import "./views.css";

const IN_VIEW = 12;

// What a part reads, and no more: a drag draws anew only what it changes.
const [score, unit, weight, lam, adapter, mode] = [field("score"), field("unit"), field("weight"), field("lam"), field("adapter"), field("mode")];
const [order, open] = [field("order"), field("picture")];

export function Turn({ about }: { about: About }) {
  const can = about.can.turn;
  return can === true ? <Turned about={about} /> : <CannotBecause why={can} />;
}

function Turned({ about }: { about: About }) {
  const now = state.value;
  const pictures = usePictures(now, JSON.stringify(turnOf(now, [])), IN_VIEW);
  const inView = pictures.value.data?.pictures ?? [];
  const positions = inView.map((picture) => picture.position).filter((place) => typeof place === "number");
  const turned = JSON.stringify(turnOf(now, positions));
  useEffect(() => follow(positions), [turned, tries.value]);
  useEffect(() => void followPlain().catch(() => undefined), []); // what is wrong, `follow` says
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const typing = event.target instanceof HTMLElement && event.target.matches("input[type=text], input[type=number], input:not([type]), textarea");
      if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || typing) return;
      event.preventDefault();
      undo();
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, []);
  const position = chosenPosition(now.picture);
  return (
    <section class="turn">
      <h2 class="unseen">Turn and look</h2>
      <Outcome about={about} />
      {problem.value && <Problem error={problem.value} />}
      {turning?.recorded.note && <p class="small soft">Computed in this page of {turning.recorded.note}.</p>}
      {turning && (Object.keys(now.lam).length > 0 || now.adapter) && (
        <p class="cannot">λ and adapters need the server: those of this address are left out here.</p>
      )}
      <div class="turn-columns">
        <div class="stack">
          <Switches about={about} />
          <Chosen about={about} />
          <Whole about={about} />
        </div>
        <div class="stack">
          {position !== null && <PicturePanel about={about} position={position} />}
          <InView about={about} pictures={inView} of={pictures} />
          <Classes about={about} />
        </div>
      </div>
    </section>
  );
}

function Switches({ about }: { about: About }) {
  const colour = about.scores.find((one) => one.key === score.value) ?? about.scores[0];
  const heads = useAsk<Heads>(colour ? path("api/heads", { score: colour.key }) : null);
  return (
    <section class="card stack" aria-labelledby="switches">
      <div class="row spread">
        <h3 id="switches">Heads, on and off</h3>
        <label class="row small">
          coloured by
          <select class="select" value={colour?.key} onChange={(event) => go({ score: event.currentTarget.value })}>
            {about.scores.map((one) => (
              <option key={one.key} value={one.key}>{one.label}</option>
            ))}
          </select>
        </label>
      </div>
      <p class="small soft">Click or Space switches a head; shift-click only chooses it. The dot marks what is weighed.</p>
      <Answer of={heads} waiting={<Skeleton height="16rem" />}>
        {(data) => {
          const scale = scaleOf(data.low, data.high, colour?.signed);
          return (
            <div class="stack">
              <HeadsGrid
                units={data.units}
                scale={scale}
                format={(value) => shown(colour, value)}
                label={colour?.label ?? data.key}
                selected={unit.value}
                off={offUnits.value}
                marked={turnedUnits.value}
                action="switches it"
                onOpen={(name, event) => {
                  go({ unit: name }, true);
                  if (!event.shiftKey) toggle(name);
                }}
              />
              <Legend scale={scale} format={(value) => shown(colour, value)} reference={data.reference} referenceName={chanceName(colour)} />
            </div>
          );
        }}
      </Answer>
    </section>
  );
}

/** The unit that was chosen: its switch, its weight, its components. */
function Chosen({ about }: { about: About }) {
  const name = unit.value;
  const spectrum = useAsk<{ unit: string; spectrum: number[] }>(name && !turning ? path("api/spectrum", { unit: name }) : null);
  const described = useAsk<UnitAnswer>(name && spectrum.value.data ? path("api/unit", { unit: name }) : null);
  const words = described.value.data?.unit === name ? described.value.data : null; // they come later
  const frozen = turning ? "This page turns whole units only: open the store with `residual explore` to turn single components." : null;
  if (!name) {
    return (
      <section class="card">
        <p class="soft">Choose a head above, and its weight and those of its components can be dragged here.</p>
      </section>
    );
  }
  const off = offUnits.value.has(name);
  return (
    <section class="card stack" aria-labelledby="chosen">
      <div class="row spread">
        <h3 id="chosen">{titleOf(name)}</h3>
        <div class="row">
          <label class="unseen" for="other-unit">Another unit</label>
          <select id="other-unit" class="select" value={name} onChange={(event) => go({ unit: event.currentTarget.value })}>
            <UnitOptions about={about} chosen={name} />
          </select>
          <button type="button" class="button" role="switch" aria-checked={!off} onClick={() => toggle(name)}>
            {off ? "Off" : "On"}
          </button>
        </div>
      </div>
      <UnitWeight unit={name} value={off ? 0 : (weight.value[name] ?? 1)} set={(value) => weigh(name, value)} />
      {frozen ? (
        <p class="cannot">{frozen}</p>
      ) : (
        <Answer of={spectrum} waiting={<Skeleton lines={6} />}>
          {({ unit: of, spectrum }) =>
            of === name ? (
              <Lambdas key={name} spectrum={spectrum} components={words?.components ?? null} lambdas={lam.value[name] ?? {}} set={(component, value) => setLambda(name, component, value)} />
            ) : (
              <Skeleton lines={6} />
            )
          }
        </Answer>
      )}
      {words && <p class="small soft">{words.verdict}</p>}
      <button type="button" class="plain linked" disabled={!off && !(name in weight.value) && !(name in lam.value)} onClick={() => resetUnit(name)}>
        Reset {nameOf(name)}
      </button>
    </section>
  );
}

/** What holds for all units: adapter, what takes the place of a unit; the way back; and saving. */
function Whole({ about }: { about: About }) {
  return (
    <section class="card stack" aria-label="Of all units">
      {about.adapters.length > 0 && !turning && (
        <label class="choice">
          <span>Adapter</span>
          <select class="select" value={adapter.value ?? ""} onChange={(event) => turn({ adapter: event.currentTarget.value || null })}>
            <option value="">none</option>
            {about.adapters.map((one) => (
              <option key={one.key} value={one.key}>
                {one.name} ({one.method}, {plural(one.parameters, "weight")})
              </option>
            ))}
          </select>
        </label>
      )}
      <fieldset class="row small modes">
        <legend>In the place of a unit that is off</legend>
        {(["zero", "mean"] as const).map((one) => (
          <label key={one} class="row">
            <input type="radio" name="mode" checked={mode.value === one} onChange={() => turn({ mode: one })} />
            {one === "zero" ? "nothing" : "its mean over the store"}
          </label>
        ))}
      </fieldset>
      <div class="row">
        <button type="button" class="button" disabled={!canUndo.value} onClick={undo}>
          Undo
        </button>
        <button type="button" class="button" disabled={isPlain.value} onClick={() => turn(PLAIN)}>
          Reset all
        </button>
        <SaveMenu about={about} command={answer.value?.command ?? ""} />
      </div>
    </section>
  );
}

function InView({ about, pictures, of }: { about: About; pictures: Picture[]; of: ReturnType<typeof usePictures> }) {
  const [kind, row, column] = partsOf(order.value);
  const name = (index: number | null | undefined) => (index == null ? "" : (about.classes[index] ?? String(index)));
  const predicted = new Map(answer.value?.predictions.map((one) => [one.position, one]));
  return (
    <section class="card stack" aria-labelledby="in-view">
      <h3 id="in-view">
        {kind === "cell" ? `${name(Number(row))} seen as ${name(Number(column))}` : "Pictures in view"}
        {kind === "cell" && (
          <button type="button" class="plain linked small" onClick={() => go({ order: "store", page: 0 })}>
            {" "}
            back to all
          </button>
        )}
      </h3>
      <PicturesBar about={about} changed />
      <Answer of={of} waiting={<Skeleton height="10rem" />}>
        {(data) => (
          <div class="stack">
            {pictures.length === 0 && <p class="soft">{kind === "changed" ? "No prediction has changed." : "No picture."}</p>}
            <Tiles label="Pictures in view">
              {pictures.map((picture) => {
                const found = typeof picture.position === "number" ? predicted.get(picture.position) : undefined;
                const [best] = found?.now ?? [];
                const truth = picture.class ?? found?.class;
                const changed = best && found && best.class !== found.was;
                return (
                  <PictureTile
                    key={picture.position}
                    picture={{ ...picture, class: truth }}
                    classes={about.classes}
                    selected={open.value === String(picture.position)}
                    onClick={() => go({ picture: String(picture.position) })}
                    caption={
                      best && (
                        <span class={best.class === truth ? "seen right" : "seen wrong"}>
                          {changed && (
                            <s>
                              <span class="unseen">before: </span>
                              {name(found.was)}
                              <span class="unseen">, now: </span>
                            </s>
                          )}{" "}
                          <b>{name(best.class)}</b>
                          {best.probability !== null && ` ${percent(best.probability)}`}
                        </span>
                      )
                    }
                  />
                );
              })}
            </Tiles>
            <Pager total={data.total} limit={IN_VIEW} />
          </div>
        )}
      </Answer>
    </section>
  );
}

function Classes({ about }: { about: About }) {
  const found = answer.value;
  if (!found) return problem.value ? null : <Skeleton height="16rem" />;
  const [kind, row, column] = partsOf(order.value);
  const selected = kind === "cell" ? { row: Number(row), column: Number(column) } : null;
  const few = found.confusion.classes.length < about.classes.length;
  return (
    <>
      <section class="card stack" aria-labelledby="confusion">
        <h3 id="confusion">What is seen as what</h3>
        {few && <p class="small soft">The {found.confusion.classes.length} classes that are confused most.</p>}
        <p class="small soft">A row is a class, a column what its pictures are seen as. Choose a cell, and its pictures come into view.</p>
        <Confusion confusion={found.confusion} classes={about.classes} selected={selected} onOpen={(of, as) => go({ order: `cell:${of}:${as}`, page: 0 })} />
      </section>
      <section class="card stack" aria-labelledby="class-by-class">
        <h3 id="class-by-class">Class by class</h3>
        <ClassBars now={found.per_class} before={plain.value?.per_class ?? null} classes={about.classes} />
      </section>
    </>
  );
}
