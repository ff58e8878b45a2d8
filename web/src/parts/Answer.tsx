/** Waiting, failing and showing, the same everywhere: grey shapes while nothing is known, then the answer; an error is
 *  a sentence with the way out. While a newer answer is on its way the older one stays, a little paler. */
import type { ComponentChildren } from "preact";
import type { Signal } from "@preact/signals";
import { NOT_HELD, tries, UNREACHED, type Asked, type AskError } from "../ask";

export function Problem({ error }: { error: AskError }) {
  if (error.status === NOT_HELD) return <p class="cannot">{error.message} {error.hint}</p>;
  return (
    <div class="problem" role="alert">
      <p>{error.message}</p>
      {error.hint && <p class="hint">{error.hint}</p>}
      {error.status === UNREACHED && <p><button type="button" class="button" onClick={() => tries.value++}>Try again</button></p>}
    </div>
  );
}

/** A thing that can't be done here, and why. */
export function CannotBecause({ why }: { why: string }) {
  return <p class="cannot">{why}</p>;
}

export function Skeleton({ lines = 3, height }: { lines?: number; height?: string }) {
  return (
    <div class="skeleton" aria-hidden="true" style={height ? { height } : undefined}>
      {!height && Array.from({ length: lines }, (_, index) => <span key={index} style={{ width: `${90 - index * 13}%` }} />)}
    </div>
  );
}

interface Props<T> {
  of: Signal<Asked<T>>;
  waiting?: ComponentChildren;
  children: (data: T) => ComponentChildren;
}

export function Answer<T>({ of, waiting = <Skeleton />, children }: Props<T>) {
  const { data, error, loading } = of.value;
  if (error) return <Problem error={error} />;
  if (data === null) {
    if (!loading) return null;
    return (
      <div aria-busy="true">
        {waiting}
        <p class="soon small soft">Working it out. The first time takes a while; then it's kept.</p>
      </div>
    );
  }
  return (
    <div class={loading ? "stale" : undefined} aria-busy={loading}>
      {children(data)}
    </div>
  );
}
