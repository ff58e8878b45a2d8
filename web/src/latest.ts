/** One request at a time, the latest wish wins: for what is dragged. */

/**
 * Calls `ask` for the latest of the wishes given, never twice at once; `done` gets each
 * answer with its wish, `failed` what went wrong. Wishes that newer ones overtook are left out.
 */
export function latest<Wish, Answer>(
  ask: (wish: Wish) => Promise<Answer>,
  done: (answer: Answer, wish: Wish) => void,
  failed: (error: unknown, wish: Wish) => void,
): (wish: Wish) => void {
  let waiting: { wish: Wish } | null = null;
  let busy = false;
  const next = () => {
    if (busy || !waiting) return;
    const { wish } = waiting;
    waiting = null;
    busy = true;
    ask(wish)
      .then(
        (answer) => done(answer, wish),
        (error) => failed(error, wish),
      )
      .finally(() => {
        busy = false;
        next(); // what waits is asked for while this answer is drawn
      });
  };
  return (wish) => {
    const planned = waiting !== null;
    waiting = { wish };
    if (!planned && !busy) queueMicrotask(next); // browsers give moves of the mouse once a frame
  };
}
