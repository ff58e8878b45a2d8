/**
 * Questions to the server, by paths relative to the page. A question that nobody waits for any more is aborted;
 * what was answered is remembered. An exported page has its answers inside ("recorded") and asks nobody.
 */
import { signal, useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { About } from "./types";

export interface Recorded {
  about: About;
  answers: Record<string, unknown>;
  turn?: unknown;
  pictures?: Record<string, string>; // data URIs, by position
}

/** The status of what nobody answered. */
export const UNREACHED = 0;

/** What the server said no to, or why it couldn't be asked: a sentence, and the way out. */
export class AskError extends Error {
  constructor(
    message: string,
    readonly hint: string | null = null,
    readonly status: number = UNREACHED,
  ) {
    super(message);
  }
}

/** How often someone has said "try again": what failed is asked once more. */
export const tries = signal(0);

/** The status of what an exported page doesn't hold: no fault, so it is told calmly. */
export const NOT_HELD = -1;

const token = new URLSearchParams(location.search).get("token");

function readRecorded(): Recorded | null {
  const element = document.getElementById("recorded");
  return element?.textContent ? (JSON.parse(element.textContent) as Recorded) : null;
}
export const recorded = readRecorded();

type Parameters = Record<string, string | number | null | undefined>;

/** A path with its parameters in the order given; those that are null, undefined or "" are left out. */
export function path(base: string, parameters: Parameters = {}): string {
  const values = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") values.set(key, String(value));
  }
  const query = values.toString();
  return query ? `${base}?${query}` : base;
}

/** The address of a picture or a download: the path, with the token where the page has one. */
export function withToken(address: string): string {
  if (!token || /^(data|blob):/.test(address)) return address;
  return `${address}${address.includes("?") ? "&" : "?"}token=${encodeURIComponent(token)}`;
}

// The same question may be written with its parameters in another order.
function canonical(address: string): string {
  const [base = "", query = ""] = address.split("?");
  const values = new URLSearchParams(query);
  values.sort();
  return `${base}?${values}`;
}

const answers = new Map<string, unknown>(); // by path; the oldest go first
const underway = new Map<string, Promise<unknown>>(); // asked ahead: whoever asks the same shares the answer
const KEPT = 200;
if (recorded) {
  answers.set(canonical("api/about"), recorded.about);
  for (const [key, value] of Object.entries(recorded.answers)) answers.set(canonical(key), value);
}

/** What an exported page computes itself instead of asking: by the path without its query, from the body of the POST. */
export const computedHere = new Map<string, (body: unknown, query: URLSearchParams) => unknown>();

async function reach(address: string, options: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(withToken(address), options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new AskError("The explorer doesn't answer.", "Is `residual explore` still running? Start it again on the same port.");
  }
  if (response.ok) return response;
  const said = ((await response.json().catch(() => null)) ?? {}) as { error?: string; hint?: string | null };
  throw new AskError(said.error ?? `The explorer answered with status ${response.status}.`, said.hint ?? null, response.status);
}

const fetchJson = async (address: string, options: RequestInit): Promise<unknown> => (await reach(address, options)).json();

/** What is already known of a question, without asking. */
export function known<T>(address: string): T | undefined {
  return answers.get(canonical(address)) as T | undefined;
}

/** Whether an answer can be had at all: of an exported page only what it holds. */
export const answerable = (address: string): boolean => !recorded || known(address) !== undefined;

/** GET: what was answered before is given again at once. */
export async function ask<T>(address: string, signal?: AbortSignal): Promise<T> {
  const key = canonical(address);
  const found = answers.get(key);
  if (found !== undefined) return found as T;
  if (recorded) {
    throw new AskError("This exported page doesn't hold that.", "Open the store with `residual explore` to see it.", NOT_HELD);
  }
  const body = await (underway.get(key) ?? fetchJson(address, { signal }));
  answers.set(key, body);
  if (answers.size > KEPT) answers.delete(answers.keys().next().value as string);
  return body as T;
}

/** Ask before anybody shows it, so that the first view waits for one round and not for two. */
export function askAhead(address: string): void {
  const key = canonical(address);
  if (recorded || answers.has(key)) return;
  const promise = fetchJson(address, {});
  underway.set(key, promise);
  promise.then((body) => answers.set(key, body)).catch(() => null).finally(() => underway.delete(key));
}

/** POST: JSON, or the bytes of a file. Never remembered. */
export async function post<T>(address: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const [base = "", query = ""] = address.split("?");
  const here = computedHere.get(base);
  if (here) return here(body, new URLSearchParams(query)) as T;
  if (recorded) {
    throw new AskError("This exported page can't do that.", "Open the store with `residual explore` for it.", NOT_HELD);
  }
  const bytes = body instanceof Blob;
  const options: RequestInit = {
    method: "POST",
    body: bytes ? body : JSON.stringify(body),
    headers: { "Content-Type": bytes ? "application/octet-stream" : "application/json" },
    signal,
  };
  return (await fetchJson(address, options)) as T;
}

/** POST whose answer is a file: its bytes and its name. */
export async function download(address: string, body: unknown): Promise<{ blob: Blob; name: string }> {
  if (recorded) throw new AskError("This exported page can't save.", "Open the store with `residual explore` for it.", NOT_HELD);
  const response = await reach(address, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
  });
  const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1];
  return { blob: await response.blob(), name: name ?? "residual" };
}

export interface Asked<T> {
  data: T | null; // the newest answer; while the next one is on its way, still the one before
  error: AskError | null;
  loading: boolean;
}

/** The answer to a question, for a component. Another `address` aborts the one before; null asks nothing. */
export function useAsk<T>(address: string | null, wait = 0): Signal<Asked<T>> {
  const first = address === null ? undefined : known<T>(address);
  const asked = useSignal<Asked<T>>({ data: first ?? null, error: null, loading: address !== null && first === undefined });
  useEffect(() => {
    if (address === null) {
      asked.value = { data: null, error: null, loading: false };
      return;
    }
    const found = known<T>(address);
    if (found !== undefined) {
      if (asked.peek().data !== found) asked.value = { data: found, error: null, loading: false };
      return;
    }
    const controller = new AbortController();
    asked.value = { ...asked.peek(), error: null, loading: true };
    const start = () =>
      ask<T>(address, controller.signal).then(
        (data) => {
          if (!controller.signal.aborted) asked.value = { data, error: null, loading: false };
        },
        (error: unknown) => {
          if (controller.signal.aborted) return;
          const told = error instanceof AskError ? error : new AskError(String(error));
          asked.value = { data: null, error: told, loading: false };
        },
      );
    const timer = wait ? setTimeout(start, wait) : (void start(), undefined);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [address, tries.value]);
  return asked;
}
