/** Layers x heads by a score; a head opens beside them. */
import { path, useAsk } from "../ask";
import { Answer, Skeleton } from "../parts/Answer";
import { scaleOf } from "../parts/colours";
import { HeadsGrid } from "../parts/HeadsGrid";
import { Legend } from "../parts/Legend";
import { shown } from "../parts/words";
import { field, go } from "../state";
import type { About, Heads as HeadsAnswer } from "../types";

const unit = field("unit");
const key = field("score");
const sort = field("sort");

export function Heads({ about }: { about: About }) {
  const score = about.scores.find((one) => one.key === key.value) ?? about.scores[0];
  const heads = useAsk<HeadsAnswer>(score ? path("api/heads", { score: score.key }) : null);
  return (
    <section>
      <Answer of={heads} waiting={<Skeleton height="20rem" />}>
        {(data) => {
          const scale = scaleOf(data.low, data.high, score?.signed);
          return (
            <>
              <HeadsGrid units={data.units} scale={scale} format={(value) => shown(score, value)} label={score?.label ?? data.key} sort={sort.value} selected={unit.value} onOpen={(unit) => go({ unit })} />
              <Legend scale={scale} format={(value) => shown(score, value)} reference={data.reference} />
            </>
          );
        }}
      </Answer>
    </section>
  );
}
