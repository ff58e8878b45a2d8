/** The pictures in view: their order, class, and page as the state has them. */
import { useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ask, AskError, path, tries, type Asked } from "./ask";
import type { State } from "./state";
import { answer, askPredicted, recordedPage, turning } from "./turned";
import type { Pictures } from "./types";

export const PAGE = 24;

/** An order taken apart: "near:12" is ["near", "12"]. */
export const partsOf = (order: string): string[] => order.split(":");

type Wanted = Pick<State, "order" | "class" | "text" | "unit" | "page">;

/** The question for pictures in an order that doesn't depend on predictions. */
export function addressOf({ order, class: ofClass, text, unit, page }: Wanted, limit = PAGE): string {
  const [kind = "store", ...rest] = partsOf(order);
  const shared = { limit, offset: page * limit };
  if (kind === "component") {
    const [of, component, end] = rest;
    return path("api/pictures", { order: kind, ...shared, class: ofClass, unit: of, component, end: end ?? "largest" });
  }
  if (kind === "near") return path("api/pictures", { order: kind, ...shared, class: ofClass, unit, position: rest.join(":") });
  if (kind === "text" && text) return path("api/pictures", { order: kind, ...shared, class: ofClass, text, unit });
  return path("api/pictures", { order: "store", ...shared, class: ofClass });
}

/** Whether an order is by what is predicted. */
export const isPredicted = (order: string): boolean => ["wrong", "cell"].includes(partsOf(order)[0]!);

const SETTLED = 150; // milliseconds after the last move of a drag

/** The pictures that the state asks for. `turned` is anything that differs as the encoder is turned. */
export function usePictures(wanted: Wanted, turned: string, limit = PAGE): Signal<Asked<Pictures>> {
  const found = useSignal<Asked<Pictures>>({ data: null, error: null, loading: true });
  const kind = partsOf(wanted.order)[0];
  const predicted = isPredicted(wanted.order);
  const changed = kind === "changed" ? (answer.value?.changed_pictures ?? []) : null;
  const key = JSON.stringify([addressOf(wanted, limit), wanted.order, predicted ? turned : "", changed]);
  useEffect(() => {
    const controller = new AbortController();
    const { signal } = controller;
    const [, row, column] = partsOf(wanted.order);
    const offset = wanted.page * limit;
    async function fetched(): Promise<Pictures> {
      if (changed) {
        return recordedPage(changed, limit, offset, "Pictures whose prediction has changed: at most the first 48.");
      }
      if (kind === "cell") return askPredicted(Number(row), Number(column), limit, offset, signal);
      if (turning && kind === "store") return recordedPage(turning.ofClass(wanted.class), limit, offset);
      if (kind === "wrong") return askPredicted(wanted.class, null, limit, offset, signal);
      return ask<Pictures>(addressOf(wanted, limit), signal);
    }
    found.value = { ...found.peek(), error: null, loading: true };
    const start = () =>
      void fetched().then(
        (data) => {
          if (!signal.aborted) found.value = { data, error: null, loading: false };
        },
        (error: unknown) => {
          if (signal.aborted) return;
          found.value = { data: null, error: error instanceof AskError ? error : new AskError(String(error)), loading: false };
        },
      );
    if (!predicted || turning) {
      start();
      return () => controller.abort();
    }
    const timer = setTimeout(start, SETTLED);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [key, tries.value]);
  return found;
}
