// Bundles src/ into the static files that ship with the library. The same sources give the same bytes; a digest of
// them stands in each file, so that a test without node sees when the files are older than their sources.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "src", "residual", "explore", "static");

/** Every file that decides about what is built, as paths with "/", in order of their bytes. */
function sources() {
  const inside = readdirSync(join(here, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(here, join(entry.parentPath, entry.name)).split(sep).join("/"));
  const around = ["build.mjs", "index.html", "package-lock.json", "package.json", "tsconfig.json"];
  return [...inside, ...around].sort((a, b) => (a < b ? -1 : 1));
}

function digest() {
  const hash = createHash("sha256");
  for (const name of sources()) {
    const bytes = readFileSync(join(here, name));
    hash.update(`${name}\0${bytes.length}\0`).update(bytes);
  }
  return hash.digest("hex");
}

/** The licence of every package of which code stands in the bundle, by name and version. */
function licences(outputs) {
  const folders = new Set();
  const inside = Object.values(outputs).flatMap(({ inputs }) => Object.entries(inputs));
  for (const [input, { bytesInOutput }] of inside) {
    if (!bytesInOutput) continue;
    const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found) folders.add(found[1]);
  }
  const parts = ["explore.js contains code of these packages, under these licences."];
  for (const name of [...folders].sort()) {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e(\.|$)/i.test(entry));
    if (!file) throw new Error(`${name} has no licence file`);
    const text = readFileSync(join(folder, file), "utf8").replace(/\r\n/g, "\n").trim();
    parts.push(`${"-".repeat(80)}\n${name} ${version} (${license})\n\n${text}`);
  }
  return `${parts.join("\n\n")}\n`;
}

const mark = `sources sha256 ${digest()}`;
const { outputFiles, metafile } = await build({
  absWorkingDir: here,
  entryPoints: { explore: "src/main.tsx" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  charset: "utf8",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  define: { "process.env.NODE_ENV": '"production"' },
  banner: { js: `/* ${mark} */`, css: `/* ${mark} */` },
  metafile: true,
  write: false,
});

mkdirSync(out, { recursive: true });
for (const file of outputFiles) writeFileSync(file.path, file.contents);
const page = readFileSync(join(here, "index.html"), "utf8").replace("<!-- sources -->", `<!-- ${mark} -->`);
writeFileSync(join(out, "index.html"), page);
writeFileSync(join(out, "LICENSES.txt"), licences(metafile.outputs));
for (const file of outputFiles) console.log(`${relative(here, file.path)} ${(file.contents.length / 1024).toFixed(0)} KB`);
