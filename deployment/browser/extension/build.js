// `npm run extension` writes dist/extension: one folder that Chromium and Firefox both load, with the model in it.

import { cp, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { build, defaultClientConditions } from "vite";
import { copyModel, copyRuntime, readModel } from "../bundle.js";

const HERE = import.meta.dirname;
const OUT = resolve(process.argv[2] ?? join(HERE, "../dist/extension"));
const PACKED = ["int8", "q4"]; // the first that there is: int8 is the quicker and the more exact one, and fp32 four times as large

async function main() {
  const { manifest, sizes } = await readModel();
  const format = PACKED.find((name) => name in sizes);
  if (!format) throw new Error(`the model folder has neither int8 nor q4; \`tagwright quantize ${manifest.task}\` makes them`);
  const hubModel = process.env.TAGWRIGHT_HUB_MODEL ?? "";
  const entries = ["chromium.js", "firefox.js", "offscreen.html", "popup.html", "history.html"];
  await build({
    configFile: false,
    root: HERE,
    base: "./",
    logLevel: "warn",
    define: { __FORMAT__: JSON.stringify(format), __HUB_MODEL__: JSON.stringify(hubModel) },
    resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
    build: {
      outDir: OUT,
      emptyOutDir: true,
      target: "es2022",
      modulePreload: { polyfill: false }, // it wants a document, which a service worker has not
      rolldownOptions: {
        input: entries.map((name) => join(HERE, name)),
        output: { entryFileNames: "[name].js" },
      },
    },
  });
  await copyModel(join(OUT, "model"), [format]);
  await copyRuntime(join(OUT, "ort"), [""]);
  await cp(join(HERE, "icons"), join(OUT, "icons"), { recursive: true });
  const description = JSON.parse(await readFile(join(HERE, "manifest.json"), "utf8"));
  if (hubModel) description.optional_permissions = ["trialML"];
  await writeFile(join(OUT, "manifest.json"), JSON.stringify(description, null, 2));
  console.log(`${OUT}: ${manifest.title}, ${format}`);
}

await main().catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
