// Load a trace with Perfetto's trace processor and print the rows of SQL queries as JSON.
//
// usage: node query.mjs FOLDER TRACE QUERY...
// FOLDER has engine_bundle.node.js, engine.mjs and trace_processor.wasm, which are built for a
// worker of a browser. The few globals that they expect are set here.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { runInThisContext } from "node:vm";

const [folder, trace, ...queries] = process.argv.slice(2);
const wasm = readFileSync(join(folder, "trace_processor.wasm"));

// The package has only the build for 32-bit memory: hide that this Node.js could run the other.
const Module = WebAssembly.Module;
WebAssembly.Module = function (bytes) {
  if (bytes.length < 64) throw new Error("not this one");
  return new Module(bytes);
};
globalThis.WorkerGlobalScope = function () {};
globalThis.self = { location: { href: pathToFileURL(resolve(folder)).href + "/" } };
globalThis.XMLHttpRequest = class {
  open() {}
  send() {
    this.response = wasm;
  }
};
console.log = console.warn; // stdout is for the answers
runInThisContext(readFileSync(join(folder, "engine_bundle.node.js"), "utf8"));
WebAssembly.Module = Module;
const { EngineBase } = await import(pathToFileURL(resolve(folder, "engine.mjs")).href);

class Engine extends EngineBase {
  id = "test";
  mode = "WASM";
  constructor() {
    super();
    this.port = { postMessage: (bytes) => super.onRpcResponseBytes(bytes) };
    self.onmessage({ data: this.port });
  }
  rpcSendRequestBytes(bytes) {
    this.port.onmessage({ data: bytes });
  }
  [Symbol.dispose]() {}
}

const engine = new Engine();
await new Promise((done) => setTimeout(done)); // the engine initialises itself in microtasks
await engine.parse(new Uint8Array(readFileSync(trace)));
await engine.notifyEof();
const answers = [];
for (const sql of queries) {
  const result = await engine.query(sql);
  const rows = [];
  for (const row = result.iter({}); row.valid(); row.next()) {
    rows.push(Object.fromEntries(result.columns().map((name) => [name, row.get(name)])));
  }
  answers.push(rows);
}
process.stdout.write(JSON.stringify(answers, (_, value) => (typeof value === "bigint" ? Number(value) : value)));
