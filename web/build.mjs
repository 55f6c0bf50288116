// Builds the page into the folder that is given as the only argument.
import { build } from "esbuild";
import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";

const [out] = process.argv.slice(2);
if (!out) {
  console.error("usage: node build.mjs FOLDER");
  process.exit(2);
}
await mkdir(out, { recursive: true });
await build({
  entryPoints: ["talk", "capture_worklet", "player_worklet"].map((name) => `src/${name}.ts`),
  bundle: true,
  format: "esm",
  target: "es2022",
  // Readable output: who audits a server reads what it serves. It is small all the same.
  minify: false,
  charset: "utf8",
  legalComments: "none",
  outdir: out,
});
for (const name of ["index.html", "style.css", "icon.svg"]) await copyFile(join("src", name), join(out, name));
