/** The frame: which stores are open, the way between the views, and what went wrong with the page as a whole. */
import type { FunctionComponent } from "preact";
import { useEffect } from "preact/hooks";
import { useAsk } from "./ask";
import { Answer, Skeleton } from "./parts/Answer";
import { count, percent } from "./parts/words";
import { field, link, VIEWS, type View } from "./state";
import type { About } from "./types";
import { Drop } from "./views/Drop";
import { Heads } from "./views/Heads";
import { Pictures } from "./views/Pictures";
import { Stores } from "./views/Stores";
import { Turn } from "./views/Turn";

const SHOWN: Record<View, { name: string; Show: FunctionComponent<{ about: About }> }> = {
  heads: { name: "Heads", Show: Heads },
  pictures: { name: "Pictures", Show: Pictures },
  turn: { name: "Turn", Show: Turn },
  drop: { name: "Drop", Show: Drop },
  stores: { name: "Stores", Show: Stores },
};

const view = field("view");

function Head({ about }: { about: About | null }) {
  return (
    <header class="page-head">
      <div class="page-name">
        <a class="brand" href={link({ view: "heads", unit: null, text: "" })}>ResiDual</a>
        {about && (
          <p class="what">
            <strong>{about.encoder.name}</strong>
            {about.stores.map((store, index) => (
              <span key={store.name}>
                {" "}· {store.dataset}, {count(store.samples)} pictures
                {index === 0 && about.baseline && about.baseline.accuracy !== null && `, accuracy ${percent(about.baseline.accuracy)}`}
              </span>
            ))}
          </p>
        )}
        {about?.notes?.map((note) => <p key={note} class="what">{note}</p>)}
      </div>
      <nav aria-label="Views">
        {VIEWS.map((name) => (
          <a key={name} href={link({ view: name })} aria-current={view.value === name ? "page" : undefined}>
            {SHOWN[name].name}
          </a>
        ))}
      </nav>
    </header>
  );
}

export function App() {
  const about = useAsk<About>("api/about");
  const { name, Show } = SHOWN[view.value];
  const encoder = about.value.data?.encoder.name;
  useEffect(() => {
    document.title = encoder ? `${name}: ${encoder}, ResiDual` : "ResiDual: what a head sees";
  }, [name, encoder]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
        To the content
      </a>
      <Head about={about.value.data} />
      <main id="main" tabIndex={-1}>
        <h1 class="unseen">{encoder ? `${name}: ${encoder}` : name}</h1>
        <Answer of={about} waiting={<Skeleton height="24rem" />}>
          {(data) => <Show about={data} />}
        </Answer>
      </main>
    </>
  );
}
