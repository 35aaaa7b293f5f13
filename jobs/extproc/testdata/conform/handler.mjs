// The handler of the conformance suite: it does what the item's "do" says.
// stdout carries frames alone: console.log goes to stderr.
import { createInterface } from "node:readline";
import { writeSync } from "node:fs";

console.log = console.error;
const waiting = new Map(); // "t id" -> resolve

function send(f) {
  const b = Buffer.from(JSON.stringify(f) + "\n");
  for (let at = 0; at < b.length; ) {
    try {
      at += writeSync(1, b, at);
    } catch (e) {
      if (e.code !== "EAGAIN") throw e;
    }
  }
}

function waitFor(t, id) {
  return new Promise((resolve) => waiting.set(t + " " + id, resolve));
}

async function run(f) {
  const id = f.id;
  for (const cmd of f.item.do.split(";")) {
    let w = cmd.split(" ");
    if (w[0] === "try") {
      if (f.attempt !== Number(w[1])) continue;
      w = w.slice(2);
    }
    switch (w[0]) {
      case "row":
        send({ t: "row", id, row: { key: f.key, n: Number(w[1]) } });
        break;
      case "cursor":
        send({ t: "row", id, row: { key: f.key, n: Number(f.cursor ?? 0) } });
        break;
      case "ok":
        send({ t: "ok", id });
        break;
      case "err": {
        const e = { t: "err", id, class: w[1], msg: "as told" };
        if (w.length > 2 && w[2] !== "-") e.retry = w[2] === "retry";
        if (w.length > 3) e.after_ms = Number(w[3]);
        if (w.length > 4) e.status = Number(w[4]);
        send(e);
        return;
      }
      case "need": {
        const granted = waitFor("grant", id);
        send({ t: "need", id, rate: w[1], key: w[2], n: Number(w[3]) });
        send({ t: "row", id, row: { key: f.key, n: (await granted).n } });
        break;
      }
      case "back":
        send({ t: "back", id, remaining: 0, reset_ms: 2000 });
        break;
      case "beat":
        send({ t: "beat", id, done: Number(w[1]), of: Number(w[2]) });
        break;
      case "mark":
        send({ t: "mark", id, cursor: w[1] });
        break;
      case "metric":
        send({ t: "metric", id, name: w[2], [w[1]]: Number(w[3]) });
        break;
      case "log":
        console.log("log of", f.key, w[1]);
        break;
      case "crash":
        writeSync(2, "about to die\n");
        process.kill(process.pid, "SIGKILL");
        await new Promise(() => {}); // until it arrives
        break;
      case "hang":
        await waitFor("cancel", id);
        send({ t: "err", id, class: "cancelled", msg: "as asked" });
        return;
      case "stuck":
        process.on("SIGTERM", () => {});
        send({ t: "beat", id, done: Number(w[1]), of: Number(w[2]) });
        for (;;); // not even the loop of events runs
    }
  }
}

let last = Promise.resolve(); // one item after the other
for await (const line of createInterface({ input: process.stdin })) {
  const f = JSON.parse(line);
  if (f.t === "hello") send({ t: "ready", proto: 1, name: "conform.mjs" });
  else if (f.t === "list") {
    for (let n = 0; n < 3; n++) send({ t: "record", id: f.id, item: { word: "l" + n, params: 1 } });
    send({ t: "ok", id: f.id });
  } else if (f.t === "item") last = last.then(() => run(f));
  else if (f.t === "stop") break;
  else waiting.get(f.t + " " + f.id)?.(f);
}
await last;
send({ t: "bye" });
process.exit(0);
