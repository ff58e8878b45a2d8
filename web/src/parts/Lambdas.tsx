/** A unit's weight, and the weights λ of its components beside their share of its variance: sliders. */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import type { Component } from "../types";
import { percent } from "./words";

const FEW = 8;
const STEP = 0.05;
const LOW = -1;
const HIGH = 3;

interface SliderProps {
  label: string;
  value: number;
  low?: number;
  high?: number;
  disabled?: boolean;
  set: (value: number) => void;
  children?: ComponentChildren;
}

/** From low to high, a tick at 1 (as it is); a double click, or Delete, puts it back there. */
function Slider({ label, value, low = LOW, high = HIGH, disabled, set, children }: SliderProps) {
  const [from, to] = [Math.min(low, value), Math.max(high, value)];
  return (
    <div class={value === 1 ? "slider" : "slider turned"}>
      <span class="slider-name">{children}</span>
      <input
        type="range"
        min={from}
        max={to}
        step={STEP}
        value={value}
        disabled={disabled}
        aria-label={label}
        aria-valuetext={value === 1 ? "1, as it is" : String(value)}
        title="Double-click, or Delete: back to 1"
        style={{ "--one": String((1 - from) / (to - from)), "--at": String((value - from) / (to - from)) }}
        onInput={(event) => set(Math.round(event.currentTarget.valueAsNumber / STEP) / Math.round(1 / STEP))}
        onDblClick={() => set(1)}
        onKeyDown={(event) => {
          if (event.key === "Delete" || event.key === "Backspace") set(1);
        }}
      />
      <span class="slider-value" aria-hidden="true">{value.toFixed(2).replace("-", "−")}</span>
    </div>
  );
}

interface Props {
  spectrum: number[]; // each component's share of the unit's variance
  components: Component[] | null; // with their texts; null while these aren't known
  lambdas: Record<string, number>;
  set: (component: number, value: number) => void;
}

export function Lambdas({ spectrum, components, lambdas, set }: Props) {
  const all = useSignal(false);
  const largest = Math.max(...spectrum, 1e-12);
  const shown = spectrum.map((ratio, index) => ({ ratio, index })).filter(({ index }) => all.value || index < FEW || String(index) in lambdas);
  const said = components?.some((one) => one.positive.length + one.negative.length > 0);
  const wordsOf = (index: number) => {
    const found = components?.find((component) => component.index === index);
    return [found?.positive[0], found?.negative[0]].filter(Boolean).join(" ↔ ");
  };
  return (
    <div class="lambdas" role="group" aria-label="Weights of its components">
      {shown.map(({ ratio, index }) => {
        const words = wordsOf(index);
        return (
          <Slider key={index} label={`λ of component ${index}, ${percent(ratio)} of the variance${words ? `, ${words}` : ""}`} value={lambdas[index] ?? 1} set={(value) => set(index, value)}>
            <span class="lambda-name" title={words || undefined}>
              <b>{index}</b> {words || <span class="soft">{said && components?.some((one) => one.index === index) ? "no text near it" : "component"}</span>}
            </span>
            <span class="lambda-ratio" aria-hidden="true">
              <span style={{ width: `${(100 * ratio) / largest}%` }} />
            </span>
            <span class="lambda-share soft">{percent(ratio)}</span>
          </Slider>
        );
      })}
      {spectrum.length > FEW && (
        <button type="button" class="plain linked" aria-expanded={all.value} onClick={() => (all.value = !all.value)}>
          {all.value ? "The first ones only" : `All ${spectrum.length} components`}
        </button>
      )}
    </div>
  );
}

/** The weight of one component, where the component is told of. */
export function ComponentLambda({ index, value, set }: { index: number; value: number; set: (value: number) => void }) {
  return (
    <Slider label={`λ of component ${index}`} value={value} set={set}>
      <span class="soft">its weight λ</span>
    </Slider>
  );
}

/** The weight of a whole unit, 0 (off) to 2. */
export function UnitWeight({ unit, value, set }: { unit: string; value: number; set: (value: number) => void }) {
  return (
    <Slider label={`Weight of the whole unit ${unit}`} value={value} low={0} high={2} set={set}>
      Whole unit
    </Slider>
  );
}
