/** The answers of the server, as the explorer's contract names them. Shares and probabilities are fractions. */

export type Unit = string; // "11.4" (layer.head), "mlp.3", "emb"

export interface Score {
  key: string;
  label: string;
  what: string;
  percent: boolean;
  signed: boolean;
}

export interface Adapter {
  key: string;
  name: string;
  method: string;
  parameters: number;
}

export type Ability = "text" | "drop" | "map" | "pictures" | "turn" | "save";

export interface About {
  version: string;
  live: boolean;
  encoder: { name: string; layers: number; heads: number; output_dim: number; has_text: boolean };
  stores: { name: string; dataset: string; samples: number }[];
  classes: string[];
  groups: string[] | null;
  notes?: string[];
  samples: number;
  scores: Score[];
  adapters: Adapter[];
  dictionary: { name: string; texts: number } | null;
  can: Record<Ability, true | string>;
  baseline: {
    accuracy: number | null;
    interval: [number, number] | null;
    worst_group: { name: string; accuracy: number } | null;
  } | null; // null where nothing tells the classes apart
}

export interface UnitValue {
  unit: Unit;
  value: number | null;
}

export interface HeadsUnit extends UnitValue {
  kind: string;
  layer: number | null;
  head: number | null;
}

export interface Heads {
  key: string;
  units: HeadsUnit[];
  low: number;
  high: number;
  reference: number | null;
  note: string | null;
}

export interface Picture {
  position: number | string;
  id?: string;
  class?: number | null;
  src: string | null;
  value?: number | null;
}

export interface Component {
  index: number;
  ratio: number;
  positive: string[];
  negative: string[];
  largest: Picture[];
  smallest: Picture[];
}

export interface UnitAnswer {
  unit: Unit;
  kind: string;
  layer: number | null;
  head: number | null;
  scores: Record<string, number | null>;
  ranks: Record<string, number | null>;
  of: number;
  named: boolean;
  verdict: string;
  told: number | null;
  chance: number | null;
  texts: { text: string; share: number }[];
  spectrum: number[];
  linear_dimension: number | null;
  participation_ratio: number | null;
  components: Component[];
}

export interface Pictures {
  total: number;
  pictures: Picture[];
  about: string;
}

export interface TextAnswer {
  text: string;
  /** `above`: the value less the mean of the dictionary's texts in the same unit. */
  units: (UnitValue & { above?: number | null })[];
  chance: number | null;
  components: { unit: Unit; index: number; value: number; ratio: number; sign: number }[];
  like: string[];
}

/** Which text of the dictionary each unit speaks most, and its share; no text where chance does better. */
export interface Words {
  examples: string[]; // texts to try
  units: { unit: Unit; text: string | null; value: number }[];
  note: string | null; // where the dictionary can't describe the pictures
}

export interface Guess {
  class: number;
  probability: number | null;
}

export interface TurnState {
  off: Unit[];
  weights: Record<Unit, number>;
  lambdas: Record<Unit, Record<string, number>>;
  adapter: string | null;
  mode: "zero" | "mean";
  pictures: number[];
}

export interface TurnAnswer {
  accuracy: number | null;
  interval: [number, number] | null;
  before: number | null;
  changed: number;
  worst_group: { name: string; accuracy: number } | null;
  per_class: (number | null)[];
  confusion: { classes: number[]; counts: number[][] };
  predictions: { position: number; class: number; was: number; now: Guess[] }[];
  changed_pictures: number[];
  milliseconds: number;
  command: string;
}

export interface DropAnswer {
  picture: string;
  src: string;
  prediction: Guess[];
  units: { unit: Unit; value: number }[];
  near: Picture[];
  note?: string | null;
  what?: string; // what the units' values are
}

export interface MapAnswer {
  maps: { name: string; values: number[][]; elsewhere: number; rest: number | null; total: number }[];
  scale: number;
  box: [number, number, number, number];
  rows: number;
  cols: number;
}

export interface Moves {
  units: {
    unit: Unit;
    layer: number | null;
    head: number | null;
    value: number | null;
    accuracy: [number | null, number | null];
    dimension: [number | null, number | null];
  }[];
  what: string;
}
