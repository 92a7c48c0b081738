// A tour of ioredis: strings, keys, pipelines, many connections. It speaks RESP2 only; the tour of
// redis-py covers RESP3.
//
// Usage: node ioredis_tour.js PORT. Exits with 1 and says where, when an answer is not what ioredis'
// users get from Redis.
"use strict";

const assert = require("node:assert/strict");
const Redis = require("ioredis");

const port = Number(process.argv[2]);
const CONNECTIONS = 50;
const connect = (options = {}) => new Redis({ port, host: "127.0.0.1", retryStrategy: () => null, ...options });

async function strings(r) {
  assert.equal(await r.set("k", "v"), "OK");
  assert.equal(await r.get("k"), "v");
  assert.equal(await r.get("none"), null);
  assert.equal(await r.set("k", "w", "NX"), null);
  assert.equal(await r.set("k", "w", "GET"), "v");
  assert.equal(await r.set("k", "x", "EX", 100), "OK");
  assert.ok((await r.ttl("k")) > 0);
  assert.equal(await r.getex("k", "PERSIST"), "x");
  assert.equal(await r.ttl("k"), -1);
  assert.equal(await r.getdel("k"), "x");
  assert.equal(await r.mset({ a: 1, b: 2 }), "OK");
  assert.deepEqual(await r.mget("a", "none", "b"), ["1", null, "2"]);
  assert.equal(await r.incr("n"), 1);
  assert.equal(await r.incrby("n", 41), 42);
  assert.equal(await r.incrbyfloat("n", 0.5), "42.5");
  await assert.rejects(r.incr("n"), /value is not an integer or out of range/);
  assert.equal(await r.append("s", "Hello"), 5);
  assert.equal(await r.setrange("s", 7, "World"), 12);
  assert.equal(await r.getrange("s", 0, 6), "Hello\0\0");
  const value = Buffer.alloc(1 << 20, Uint8Array.from({ length: 256 }, (_, n) => n));
  assert.equal(await r.set(Buffer.from("\0\r\n"), value), "OK");
  assert.ok((await r.getBuffer(Buffer.from("\0\r\n"))).equals(value));
}

async function keys(r) {
  await r.flushdb();
  await r.mset(Object.fromEntries(Array.from({ length: 1000 }, (_, n) => [`key:${n}`, n])));
  assert.equal(await r.dbsize(), 1000);
  const seen = new Set();
  for await (const batch of r.scanStream({ match: "key:*", count: 17 })) batch.forEach((k) => seen.add(k));
  assert.equal(seen.size, 1000);
  assert.equal((await r.keys("key:99?")).length, 10);
  assert.equal(await r.exists("key:1", "none"), 1);
  assert.equal(await r.type("key:1"), "string");
  assert.equal(await r.rename("key:1", "renamed"), "OK");
  await assert.rejects(r.rename("none", "x"), /no such key/);
  assert.equal(await r.expire("renamed", 100), 1);
  assert.equal(await r.persist("renamed"), 1);
  assert.equal(await r.object("ENCODING", "renamed"), "int");
  assert.equal(await r.unlink("renamed", "none"), 1);
}

async function pipelines(r) {
  const pipe = r.pipeline();
  for (let n = 0; n < 5000; n++) pipe.set(`p:${n}`, n).get(`p:${n}`);
  const replies = await pipe.exec();
  replies.forEach(([error, reply], n) => {
    assert.equal(error, null);
    assert.equal(reply, n % 2 ? String((n - 1) / 2) : "OK");
  });
  const [, [error], [, text]] = await r.pipeline().set("s", "text").incr("s").get("s").exec();
  assert.match(error.message, /not an integer/);
  assert.equal(text, "text");
  const auto = connect({ enableAutoPipelining: true });
  const all = await Promise.all(Array.from({ length: 1000 }, (_, n) => auto.get(`p:${n}`)));
  assert.deepEqual(all, Array.from({ length: 1000 }, (_, n) => String(n)));
  await auto.quit();
}

async function server(r) {
  assert.equal(await r.ping(), "PONG");
  assert.equal(await r.echo("hi"), "hi");
  assert.equal(await r.client("SETNAME", "tour"), "OK");
  assert.equal(await r.client("GETNAME"), "tour");
  assert.match(await r.client("LIST"), /name=tour/);
  assert.deepEqual(await r.config("GET", "maxmemory-policy"), ["maxmemory-policy", "noeviction"]);
  assert.match(await r.info("server"), /redis_mode:standalone/);
  await assert.rejects(r.call("NONSENSE"), /unknown command/);
}

async function many() {
  const clients = Array.from({ length: CONNECTIONS }, () => connect());
  await clients[0].del("hits");
  await Promise.all(
    clients.map(async (c, n) => {
      for (let i = 0; i < 100; i++) {
        await c.set(`t:${n}`, i);
        assert.equal(await c.get(`t:${n}`), String(i));
        await c.incr("hits");
      }
    }),
  );
  assert.equal(await clients[0].get("hits"), String(CONNECTIONS * 100));
  await Promise.all(clients.map((c) => c.quit()));
}

// Commands by name, as users of newer servers send them: the connection stays in step.
async function byName() {
  const r = connect({ enableReadyCheck: false });
  assert.ok(Array.isArray(await r.call("HELLO", "2")));
  await assert.rejects(r.call("HELLO", "4"), /NOPROTO/);
  assert.equal(await r.call("RESET"), "RESET");
  assert.equal(await r.set("k", "v"), "OK");
  assert.equal(await r.get("k"), "v");
  await r.quit();
}

async function main() {
  const r = connect();
  r.on("error", () => {});
  await r.flushall();
  await strings(r);
  await keys(r);
  await pipelines(r);
  await server(r);
  await many();
  await byName();
  await r.quit();
  console.log(`ioredis ${require("ioredis/package.json").version}: everything as expected`);
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
