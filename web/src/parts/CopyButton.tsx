/** To the clipboard, and told that it is there. */
import { useSignal } from "@preact/signals";

/** Where the page may not (no https), out of a field that is selected. */
export async function copy(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("The browser doesn't let this page copy.");
}

export function CopyButton({ what, text }: { what: string; text: () => string }) {
  const said = useSignal("");
  return (
    <p class="row small">
      <button type="button" class="button" onClick={() => copy(text()).then(() => (said.value = `Copied the ${what}.`), (error) => (said.value = String(error)))}>
        Copy the {what}
      </button>
      <span role="status">{said.value}</span>
    </p>
  );
}
