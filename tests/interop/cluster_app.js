// Counters that ioredis counts up in a cluster, for as long as standard input is open, while somebody changes the cluster:
// cluster_app.py, which starts it. A counter must never be anything but what the replies so far say.
//
// Usage: cluster_app.js PORT... Exits with 1 and says where, when something is not as a cluster promises it.

'use strict';

const { Cluster } = require('ioredis');

const LOOPS = 16;
const COUNTERS = 40;

const ports = process.argv.slice(2).map(Number);
const client = new Cluster(ports.slice(1, 2).map((port) => ({ host: '127.0.0.1', port })), {
    redisOptions: { maxRetriesPerRequest: null },
});
client.on('error', (error) => fail(`the cluster: ${error}`));

let stopped = false;
let replies = 0;
let slowest = 0;

function fail(why) {
    console.log(why);
    process.exit(1);
}

async function count(loop) {
    const known = new Map();
    while (!stopped) {
        for (let i = 0; i < COUNTERS; i++) {
            // Slots of all parts of the cluster, and of those that move.
            const key = `{${['06S', 'Qi', i][i % 3]}}:js:${loop}:${i}`;
            const began = performance.now();
            const told = await client.incr(key);
            slowest = Math.max(slowest, performance.now() - began);
            known.set(key, (known.get(key) ?? 0) + 1);
            if (told !== known.get(key)) fail(`${key}: got ${told}, wanted ${known.get(key)}`);
            replies++;
        }
    }
    for (const [key, value] of known) {
        const told = Number(await client.get(key));
        if (told !== value) fail(`${key} is ${told} in the end, wanted ${value}`);
    }
}

process.stdin.on('end', () => (stopped = true)).resume();
const loops = Array.from({ length: LOOPS }, (_, loop) => count(loop));
Promise.all(loops).then(
    () => {
        console.log(`ioredis: ${replies} replies as expected, the longest wait ${slowest.toFixed(0)} ms`);
        process.exit(0);
    },
    (error) => fail(`${error}`),
);
