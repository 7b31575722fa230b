# Node: code that is written to memory and executed, and everything around it.
set -euo pipefail
mkdir world
cat >program.mjs <<'J'
import { execFileSync, fork } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import { Worker, isMainThread, parentPort } from "node:worker_threads";
import { fileURLToPath } from "node:url";
const self = fileURLToPath(import.meta.url);
const hot = (n) => { let s = 0; for (let i = 0; i < n; i++) s = (s * 31 + i) | 0; return s; };
if (process.argv[2] === "child") {
  process.send(hot(1e5));
  process.disconnect();
} else if (!isMainThread) {
  parentPort.postMessage(hot(1e5));
} else {
  console.log("hot", hot(2e6));
  const wasm = new Uint8Array([0,97,115,109,1,0,0,0,1,7,1,96,2,127,127,1,127,3,2,1,0,7,7,1,3,97,100,100,0,0,10,9,1,7,0,32,0,32,1,106,11]);
  console.log("wasm", (await WebAssembly.instantiate(wasm)).instance.exports.add(40, 2));
  console.log("regexp", /(a+)+b/.test("aaaaab"), "bigint", (2n ** 70n).toString());
  console.log("worker", await new Promise((done) => new Worker(self).once("message", done)));
  console.log("fork", await new Promise((done) => fork(self, ["child"]).once("message", done)));
  console.log(execFileSync("sh", ["-c", "echo spawned; exit 0"]).toString().trim());
  await fs.promises.writeFile("world/written", "text");
  await fs.promises.rename("world/written", "world/renamed");
  await fs.promises.cp("world", "copied", { recursive: true });
  const server = http.createServer((_, answer) => answer.end("served"));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const response = await fetch(`http://127.0.0.1:${server.address().port}/`);
  console.log(response.status, await response.text());
  server.closeAllConnections?.();
  await new Promise((done) => server.close(done));
}
J
node program.mjs
