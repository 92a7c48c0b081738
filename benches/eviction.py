#!/usr/bin/env python3
"""How well a server chooses what to evict: hit ratios of a cache in front of nothing.

    eviction.py NAME=PORT [NAME=PORT ...] [--keys N] [--fits N] [--accesses N] [--samples N]

The servers run already, on loopback, and are flushed. Each access is a GET, and a SET where that found nothing. Two
traces, the same for every server: `zipf`, keys by a Zipf distribution; and `scan`, the same with as many keys between
that are asked for once and never again, of which hits are not counted. Every server has as much memory as `--fits` keys
take in it, so that no one gains by needing less for a key; with `--same-memory` all have what the first one needs.
"""
import argparse, itertools, random, socket, time

VALUE = b"v" * 100
BATCH = 50


class Conn:
    def __init__(self, port):
        self.s = socket.create_connection(("127.0.0.1", port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.f = self.s.makefile("rb")

    def send(self, commands):
        out = []
        for words in commands:
            out.append(b"*%d\r\n" % len(words))
            out.extend(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
        self.s.sendall(b"".join(out))

    def reply(self):
        line = self.f.readline()
        if line[:1] == b"$":
            n = int(line[1:])
            return None if n < 0 else self.f.read(n + 2)[:-2]
        if line[:1] == b"*":
            return [self.reply() for _ in range(int(line[1:]))]
        if line[:1] == b"-":
            raise RuntimeError(line.decode())
        return line[1:-2]

    def run(self, *words):
        self.send([[w if isinstance(w, bytes) else str(w).encode() for w in words]])
        return self.reply()

    def all(self, commands):
        self.send(commands)
        return [self.reply() for _ in commands]

    def info(self, field):
        for line in self.run("INFO", "all").split(b"\r\n"):
            if line.startswith(field.encode() + b":"):
                return int(line.split(b":")[1])


def memory_for(c, fits):
    c.run("CONFIG", "SET", "maxmemory", "0")
    c.run("FLUSHALL")
    for first in range(0, fits, 500):
        c.all([[b"SET", b"fill:%012d" % n, VALUE] for n in range(first, min(first + 500, fits))])
    used = c.info("used_memory")
    c.run("FLUSHALL")
    return used


def run(port, policy, memory, trace, samples):
    c = Conn(port)
    c.run("FLUSHALL")
    c.run("CONFIG", "SET", "maxmemory-policy", policy, "maxmemory-samples", samples)
    c.run("CONFIG", "SET", "maxmemory", memory)
    hits = asked = 0
    evicted, begun = c.info("evicted_keys"), time.time()
    # The first half fills the cache and is not counted.
    for at in range(0, len(trace), BATCH):
        batch = trace[at:at + BATCH]
        replies = c.all([[b"GET", key] for key, _ in batch])
        missing = [key for (key, _), reply in zip(batch, replies) if reply is None]
        if missing:
            c.all([[b"SET", key, VALUE] for key in missing])
        if at > len(trace) // 2:
            asked += sum(counts for _, counts in batch)
            hits += sum(counts for (_, counts), reply in zip(batch, replies) if reply is not None)
    took = time.time() - begun
    held = c.run("DBSIZE")
    evicted = c.info("evicted_keys") - evicted
    c.run("CONFIG", "SET", "maxmemory", "0")
    return hits / asked, int(held), evicted, took


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("server", nargs="+", metavar="NAME=PORT")
    p.add_argument("--keys", type=int, default=100_000)
    p.add_argument("--fits", type=int, default=10_000)
    p.add_argument("--accesses", type=int, default=400_000)
    p.add_argument("--samples", type=int, default=5)
    p.add_argument("--exponent", type=float, default=0.9)
    p.add_argument("--same-memory", action="store_true")
    a = p.parse_args()
    rng = random.Random(7)
    weights = list(itertools.accumulate(1 / (n + 1) ** a.exponent for n in range(a.keys)))
    picked = rng.choices(range(a.keys), cum_weights=weights, k=a.accesses)
    names = list(range(a.keys))
    rng.shuffle(names)
    zipf = [(b"key:%012d" % names[n], 1) for n in picked]
    scan = [item for n, one in enumerate(zipf[:a.accesses // 2]) for item in (one, (b"scan:%012d" % n, 0))]
    servers = [(name, int(port)) for name, port in (s.split("=") for s in a.server)]
    memory = {name: memory_for(Conn(port), a.fits) for name, port in servers}
    if a.same_memory:
        memory = dict.fromkeys(memory, memory[servers[0][0]])
    print(f"{a.keys} keys, room for {a.fits}, {a.samples} samples; memory {memory}")
    for trace_name, trace in (("zipf", zipf), ("scan", scan)):
        for policy in ("allkeys-lru", "allkeys-lfu", "allkeys-random"):
            for name, port in servers:
                ratio, held, evicted, took = run(port, policy, memory[name], trace, a.samples)
                print(f"{trace_name:5} {policy:14} {name:8} hit ratio {ratio:.4f}  keys {held:6}  evicted {evicted:7}  {took:.1f} s", flush=True)


main()
