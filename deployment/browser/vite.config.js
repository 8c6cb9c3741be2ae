// The page: `npm run dev` serves it, `npm run build` writes dist/page, all of it files for any static server.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { defaultClientConditions, defineConfig } from "vite";
import { copyModel, copyRuntime, MODEL, readModel, RUNTIME } from "./bundle.js";

const TYPES = { json: "application/json", mjs: "text/javascript", wasm: "application/wasm", onnx: "application/octet-stream" };

export default defineConfig(async () => {
  const { manifest, sizes } = await readModel();
  return {
    root: "page",
    base: "./",
    define: { __SIZES__: JSON.stringify(sizes) },
    // Or onnxruntime's WASM file with WebGPU would be put into the bundle, whether it is used or not.
    resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
    worker: { format: "es" },
    build: {
      outDir: "../dist/page",
      emptyOutDir: true,
      target: "es2022",
      assetsInlineLimit: 0,
      rolldownOptions: {
        input: { index: join(import.meta.dirname, "page/index.html"), tagger: join(import.meta.dirname, "src/tagger.js") },
        preserveEntrySignatures: "exports-only", // tagger.js is there for other pages to import
        output: { entryFileNames: ({ name }) => (name === "tagger" ? "tagger.js" : "assets/[name]-[hash].js") },
      },
    },
    plugins: [modelFolder(manifest, sizes)],
  };
});

/** Serves /model and /ort while developing; copies both and adds the service worker at the build. */
function modelFolder(manifest, sizes) {
  return {
    name: "tagwright-model",
    configureServer(server) {
      server.middlewares.use("/model", serve(MODEL));
      server.middlewares.use("/ort", serve(RUNTIME));
    },
    generateBundle: {
      order: "post", // when the page itself is there too
      async handler(_, bundle) {
        const hash = createHash("sha256").update(manifest.checksum);
        for (const name of Object.keys(bundle).sort()) hash.update(name).update(bundle[name].code ?? bundle[name].source);
        const shell = ["./", ...Object.keys(bundle).filter((name) => name !== "tagger.js")];
        const source = (await readFile(join(import.meta.dirname, "page/service-worker.js"), "utf8"))
          .replace("__VERSION__", hash.digest("hex").slice(0, 16))
          .replace('["__SHELL__"]', JSON.stringify(shell));
        this.emitFile({ type: "asset", fileName: "service-worker.js", source });
      },
    },
    async writeBundle({ dir }) {
      await copyModel(join(dir, "model"), Object.keys(sizes));
      await copyRuntime(join(dir, "ort"), ["", ".asyncify"]);
    },
  };
}

function serve(folder) {
  return async (request, response, next) => {
    const file = join(folder, new URL(request.url, "http://localhost").pathname); // which URL keeps inside the folder
    const found = await stat(file).catch(() => null);
    if (!found?.isFile()) return next();
    response.setHeader("Content-Type", TYPES[file.split(".").at(-1)] ?? "text/plain");
    response.setHeader("Content-Length", found.size);
    createReadStream(file).pipe(response);
  };
}
