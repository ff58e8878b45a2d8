/** What was found, to take away: a mask, an adapter, the command line, the address. */
import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { AskError, download } from "../ask";
import { state } from "../state";
import { turnOf } from "../turned";
import type { About } from "../types";
import { copy } from "./CopyButton";

export function SaveMenu({ about, command }: { about: About; command: string }) {
  const menu = useRef<HTMLDetailsElement>(null);
  const said = useSignal("");
  const why = about.can.save === true ? null : about.can.save;

  async function save(as: "mask" | "adapter") {
    said.value = "…";
    try {
      const { blob, name } = await download("api/save", { ...turnOf(state.peek(), []), as });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
      said.value = `Saved ${name}.`;
    } catch (error) {
      said.value = error instanceof AskError ? [error.message, error.hint].filter(Boolean).join(" ") : String(error);
    }
  }
  async function copied(text: string, what: string) {
    try {
      await copy(text);
      said.value = `Copied the ${what}.`;
    } catch (error) {
      said.value = String(error);
    }
  }

  return (
    <details class="menu" ref={menu} onKeyDown={(event) => {
      if (event.key !== "Escape" || !menu.current?.open) return;
      menu.current.open = false;
      menu.current.querySelector("summary")?.focus();
    }}>
      <summary class="button">Save</summary>
      <div class="menu-items card">
        {why ? (
          <p class="cannot small">{why}</p>
        ) : (
          <>
            <button type="button" class="button" onClick={() => save("mask")}>
              Mask of units (JSON)
            </button>
            <button type="button" class="button" onClick={() => save("adapter")}>
              Adapter (zipped folder)
            </button>
          </>
        )}
        {command && (
          <>
            <button type="button" class="button" onClick={() => copied(command, "command")}>
              Copy the command
            </button>
            <code class="command">{command}</code>
          </>
        )}
        <button type="button" class="button" onClick={() => copied(location.href, "address")}>
          Copy the address
        </button>
        <p class="small" role="status">{said.value}</p>
      </div>
    </details>
  );
}
