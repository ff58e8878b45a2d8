/** A map in words, for those who hear the page, and beside the picture for everyone. */

const ROWS = ["upper", "middle", "lower"];
const COLUMNS = ["left", "centre", "right"];

export interface Where {
  place: string;
  /** Of all that has the stronger sign, how much lies there. */
  share: number;
  /** Whether the stronger sign is +: it speaks for what was asked. */
  favours: boolean;
}

/** "upper left", "middle right", "centre". */
function placeOf(row: number, column: number): string {
  if (row === 1 && column === 1) return "centre";
  if (column === 1) return `${ROWS[row]} centre`;
  return `${ROWS[row]} ${COLUMNS[column]}`;
}

/**
 * The ninth of the picture that has most of the stronger sign; null where the map is zero everywhere.
 *
 * A cell on a border of two ninths counts for both by the share that lies in each.
 */
export function where(values: number[][]): Where | null {
  const rows = values.length;
  const columns = values[0]?.length ?? 0;
  let above = 0;
  let below = 0;
  for (const row of values) for (const value of row) value > 0 ? (above += value) : (below -= value);
  const favours = above >= below;
  const total = favours ? above : below;
  if (!(total > 0)) return null;
  const thirds = (at: number, count: number, third: number) =>
    Math.max(0, Math.min((at + 1) / count, (third + 1) / 3) - Math.max(at / count, third / 3)) * count;
  let best: Where | null = null;
  for (let r = 0; r < 3; r++) {
    for (let c = 0; c < 3; c++) {
      let sum = 0;
      values.forEach((row, i) =>
        row.forEach((value, j) => {
          const part = favours ? Math.max(value, 0) : Math.max(-value, 0);
          sum += part * thirds(i, rows, r) * thirds(j, columns, c);
        }),
      );
      if (!best || sum / total > best.share) best = { place: placeOf(r, c), share: sum / total, favours };
    }
  }
  return best;
}

/** One sentence: "strongest in the upper left, 62 % of the positive part". */
export function inWords(values: number[][]): string {
  const found = where(values);
  if (!found) return "nothing in any place";
  const sign = found.favours ? "positive" : "negative";
  return `strongest in the ${found.place}, ${Math.round(100 * found.share)} % of the ${sign} part`;
}
