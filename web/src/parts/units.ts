/** Which units there are, by what is known of the encoder. */
import type { About } from "../types";

export const headsOf = ({ encoder }: About): string[] =>
  Array.from({ length: encoder.layers }, (_, layer) => Array.from({ length: encoder.heads }, (_, head) => `${layer}.${head}`)).flat();
