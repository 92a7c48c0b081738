// A small application on BullMQ: an order desk. Orders are queued, some of them later, some as flows of
// steps, a report repeats, and the mailer is rate limited. It checks what came of each.
//
// Usage: bullmq_app.js PORT. Exits with 1 and says where, when something is not as BullMQ promises it.
'use strict';

const assert = require('node:assert/strict');
const { Queue, Worker, QueueEvents, FlowProducer } = require('bullmq');

const connection = { host: '127.0.0.1', port: Number(process.argv[2]), maxRetriesPerRequest: null };
const open = [];
// Each queue of a process listens for the end of its connection.
require('node:events').defaultMaxListeners = 50;

function keep(thing) {
    thing.on('error', (error) => fail(error));
    open.push(thing);
    return thing;
}

function fail(error) {
    console.error(error);
    process.exit(1);
}

const queue = (name) => keep(new Queue(name, { connection }));
const worker = (name, work, options = {}) => keep(new Worker(name, work, { connection, ...options }));
const events = async (name) => {
    const heard = keep(new QueueEvents(name, { connection }));
    await heard.waitUntilReady();
    return heard;
};

/** Many jobs by several workers: each is done once, in order of priority where there is one worker. */
async function orders() {
    const orders = queue('orders');
    const heard = await events('orders');
    const done = new Map();
    const work = async (job) => {
        done.set(job.data.n, (done.get(job.data.n) ?? 0) + 1);
        await job.updateProgress(50);
        return job.data.n * 2;
    };
    worker('orders', work, { concurrency: 5 });
    worker('orders', work, { concurrency: 5 });
    const added = await orders.addBulk(Array.from({ length: 200 }, (_, n) => ({ name: 'order', data: { n } })));
    const results = await Promise.all(added.map((job) => job.waitUntilFinished(heard, 60000)));
    assert.deepEqual(results, added.map((job) => job.data.n * 2));
    assert.equal(done.size, 200);
    assert.ok([...done.values()].every((times) => times === 1), 'a job was done twice');
    const counts = await orders.getJobCounts('completed', 'waiting', 'active', 'failed');
    assert.deepEqual(counts, { completed: 200, waiting: 0, active: 0, failed: 0 });

    const ranked = queue('ranked');
    for (const priority of [5, 1, 3, 2, 4]) await ranked.add('job', {}, { priority });
    const order = [];
    const last = new Promise((resolve) => {
        worker('ranked', async (job) => {
            if (order.push(job.opts.priority) === 5) resolve();
        });
    });
    await last;
    assert.deepEqual(order, [1, 2, 3, 4, 5]);
}

/** Failures: tried again after a while, then given up; retried by hand. */
async function failures() {
    const fragile = queue('fragile');
    const heard = await events('fragile');
    let healed = false;
    worker('fragile', async (job) => {
        if (job.attemptsMade < job.data.failures && !healed) throw new Error(`attempt ${job.attemptsMade}`);
        return job.attemptsMade;
    });
    const options = { attempts: 3, backoff: { type: 'exponential', delay: 20 } };
    const lucky = await fragile.add('lucky', { failures: 2 }, options);
    assert.equal(await lucky.waitUntilFinished(heard, 60000), 2);
    const hopeless = await fragile.add('hopeless', { failures: 9 }, options);
    await assert.rejects(hopeless.waitUntilFinished(heard, 60000), /attempt 2/);
    const failed = await fragile.getFailed();
    assert.deepEqual(failed.map((job) => [job.id, job.attemptsMade, job.failedReason]), [[hopeless.id, 3, 'attempt 2']]);
    assert.equal(failed[0].stacktrace.length, 3);
    healed = true;
    await failed[0].retry();
    assert.equal(await failed[0].waitUntilFinished(heard, 60000), 3);
}

/** Delayed jobs come when their time has come, also one that is promoted or postponed. */
async function delays() {
    const later = queue('later');
    const heard = await events('later');
    worker('later', async () => Date.now());
    const began = Date.now();
    const soon = await later.add('soon', {}, { delay: 300 });
    const never = await later.add('never', {}, { delay: 3600000 });
    const moved = await later.add('moved', {}, { delay: 3600000 });
    assert.equal(await later.getDelayedCount(), 3);
    await never.promote();
    await moved.changeDelay(200);
    assert.ok(await never.waitUntilFinished(heard, 60000) - began < 3000000);
    assert.ok(await soon.waitUntilFinished(heard, 60000) - began >= 299);
    assert.ok(await moved.waitUntilFinished(heard, 60000) - began >= 199);
}

/** A flow: a parent runs when its children have, and has their results. */
async function flows() {
    const steps = [];
    worker('parts', async (job) => {
        steps.push(job.name);
        return job.data.price;
    });
    worker('assembly', async (job) => {
        steps.push(job.name);
        const parts = Object.values(await job.getChildrenValues());
        return parts.reduce((sum, price) => sum + price, job.data.work ?? 0);
    });
    queue('assembly');
    const heard = await events('assembly');
    const producer = keep(new FlowProducer({ connection }));
    const part = (name, price) => ({ name, queueName: 'parts', data: { price } });
    const flow = await producer.add({
        name: 'bicycle',
        queueName: 'assembly',
        data: { work: 100 },
        children: [
            part('saddle', 20),
            { name: 'wheels', queueName: 'assembly', children: [part('rim', 30), part('spokes', 12)] },
        ],
    });
    assert.equal(await flow.job.waitUntilFinished(heard, 60000), 162);
    assert.equal(steps.length, 5);
    assert.equal(steps.at(-1), 'bicycle');
    assert.ok(steps.indexOf('wheels') > steps.indexOf('rim') && steps.indexOf('wheels') > steps.indexOf('spokes'));
    const tree = await producer.getFlow({ id: flow.job.id, queueName: 'assembly' });
    assert.deepEqual(tree.children.map((child) => child.job.name).sort(), ['saddle', 'wheels']);
}

/** A report that repeats, until it is called off. */
async function repetitions() {
    const reports = queue('reports');
    let written = 0;
    const enough = new Promise((resolve) => {
        worker('reports', async (job) => {
            assert.equal(job.data.kind, 'daily');
            if (++written === 4) resolve();
        });
    });
    await reports.upsertJobScheduler('daily', { every: 100 }, { name: 'report', data: { kind: 'daily' } });
    assert.equal((await reports.getJobSchedulers()).length, 1);
    await enough;
    assert.equal(await reports.removeJobScheduler('daily'), true);
    assert.equal((await reports.getJobSchedulers()).length, 0);
    const after = written;
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.ok(written <= after + 1, 'it goes on after it was called off');
}

/** A limit of five mails in 300 ms holds for both workers together. */
async function limits() {
    const mails = queue('mails');
    const heard = await events('mails');
    const sent = [];
    const work = async () => sent.push(Date.now());
    const limiter = { max: 5, duration: 300 };
    const jobs = await mails.addBulk(Array.from({ length: 15 }, () => ({ name: 'mail', data: {} })));
    worker('mails', work, { limiter, concurrency: 4 });
    worker('mails', work, { limiter, concurrency: 4 });
    await Promise.all(jobs.map((job) => job.waitUntilFinished(heard, 60000)));
    sent.sort((a, b) => a - b);
    assert.equal(sent.length, 15);
    // The window begins with its first mail, as the server's clock has it, and ours may be a little off.
    for (let n = 5; n < 15; n++) assert.ok(sent[n] - sent[n - 5] >= 200, `${n}: ${sent[n] - sent[n - 5]} ms`);
}

/** Paused, drained, cleaned and obliterated. */
async function housekeeping() {
    const desk = queue('desk');
    await desk.pause();
    let ran = 0;
    worker('desk', async () => ++ran);
    const heard = await events('desk');
    const first = await desk.add('first', {});
    await desk.add('twin', {}, { jobId: 'one' });
    await desk.add('twin', {}, { jobId: 'one' });
    assert.equal(await desk.isPaused(), true);
    assert.equal(await desk.count(), 2);
    assert.equal(ran, 0);
    await desk.resume();
    await first.waitUntilFinished(heard, 60000);
    const twin = await desk.getJob('one');
    await twin.waitUntilFinished(heard, 60000);
    assert.equal(ran, 2);
    assert.equal((await desk.clean(0, 100, 'completed')).length, 2);
    await desk.obliterate({ force: true });
    assert.deepEqual(await desk.getJobs(), []);
}

(async () => {
    for (const part of [orders, failures, delays, flows, repetitions, limits, housekeeping]) {
        await part();
        console.log(`${part.name} done`);
    }
    await Promise.all(open.map((thing) => thing.close()));
    console.log('everything as expected');
    process.exit(0);
})().catch(fail);
setTimeout(() => fail(new Error('it takes too long')), 100000).unref();
