// Calls each public method of the JavaScript SDK's `Actor` and checks what it answers; modes as in compat-python.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

import { Actor, log } from 'apify';

const CHECKS = [];
const check = (names, run) => CHECKS.push([names.split(' '), run]);
const own = () => process.env.ACTOR_RUN_ID.toLowerCase();

async function refused(action) {
    try {
        await action();
    } catch (error) {
        if (error.type) return `not yet: ${error.type}`;
        throw error;
    }
    throw new Error('it was not refused');
}

async function within(secs, what, promise) {
    const late = sleep(secs * 1000, 'late', { ref: false });
    assert.notEqual(await Promise.race([promise, late]), 'late', `${what} within ${secs} s`);
}

check('init config isAtHome getEnv', async () => {
    assert.equal(Actor.isAtHome(), true);
    const env = Actor.getEnv();
    assert.equal(env.actorId, process.env.ACTOR_ID);
    assert.equal(env.actorRunId, process.env.ACTOR_RUN_ID);
    assert.equal(env.memoryMbytes, 256);
    assert.ok(env.startedAt instanceof Date);
    assert.equal(Actor.config.get('defaultDatasetId'), process.env.ACTOR_DEFAULT_DATASET_ID);
});

check('apifyClient newClient getDefaultInstance', async () => {
    for (const client of [Actor.apifyClient, Actor.newClient(), Actor.getDefaultInstance().apifyClient]) {
        assert.equal((await client.run(process.env.ACTOR_RUN_ID).get()).status, 'RUNNING');
        assert.equal((await client.user().get()).username, 'local');
    }
});

check('on off', async () => {
    let count = 0;
    let heard;
    const first = new Promise((resolve) => { heard = resolve; });
    const listener = (data) => { count += 1; heard(data); };
    Actor.on('systemInfo', listener);
    await within(10, 'systemInfo', first);
    const data = await first;
    assert.ok(data.memCurrentBytes > 1_000_000, JSON.stringify(data));
    assert.equal(typeof data.isCpuOverloaded, 'boolean');
    Actor.off('systemInfo', listener);
    const before = count;
    let left = 2;
    await within(10, 'two more of them', new Promise((resolve) => {
        Actor.on('systemInfo', () => { left -= 1; if (left === 0) resolve(); });
    }));
    assert.equal(count, before, 'a listener that was taken off was called');
});

check('getInput getInputOrThrow', async () => {
    const expected = { mode: 'check', text: 'grüß', list: [1, 2.5, null] };
    assert.deepEqual(await Actor.getInput(), expected);
    assert.deepEqual(await Actor.getInputOrThrow(), expected);
});

check('setValue getValue openKeyValueStore', async () => {
    const values = { 'an-object': { a: [1, { b: 'ü' }] }, a_text: 'hé' };
    for (const [key, value] of Object.entries(values)) {
        await Actor.setValue(key, value, typeof value === 'string' ? { contentType: 'text/plain; charset=utf-8' } : {});
        assert.deepEqual(await Actor.getValue(key), value);
    }
    const bytes = Buffer.from([0, 255, 1].concat(Array(6000).fill(7)));
    await Actor.setValue('bytes.bin', bytes, { contentType: 'application/octet-stream' });
    assert.deepEqual(Buffer.from(await Actor.getValue('bytes.bin')), bytes);
    await Actor.setValue('a_text', null);
    assert.equal(await Actor.getValue('a_text'), null);
    for (const store of [await Actor.openKeyValueStore(), await Actor.openKeyValueStore(`named-${own()}`)]) {
        await store.setValue('k', { in: store.id });
        const again = await Actor.openKeyValueStore(store.id);
        assert.deepEqual(await again.getValue('k'), { in: store.id });
        assert.equal(await again.recordExists('k'), true);
        const keys = [];
        await again.forEachKey((key) => { keys.push(key); });
        assert.ok(keys.includes('k'));
        const answer = await fetch(await again.getPublicUrl('k'));
        assert.deepEqual(await answer.json(), { in: store.id });
    }
});

check('pushData openDataset', async () => {
    const before = (await (await Actor.openDataset()).getData()).total;
    await Actor.pushData({ n: 1 });
    await Actor.pushData([{ n: 2, long: 'x'.repeat(5000) }, { n: 3 }]);
    const { items } = await (await Actor.openDataset()).getData({ offset: before });
    assert.deepEqual(items.map((item) => item.n), [1, 2, 3]);
    for (const other of [await Actor.openDataset(`named-${own()}`), await Actor.openDataset({ alias: 'declared' })]) {
        await other.pushData([{ in: other.id }, { in: other.id }]);
        const again = await Actor.openDataset(other.id);
        assert.equal((await again.getInfo()).itemCount, 2);
        assert.deepEqual(await again.map((item) => item.in), [other.id, other.id]);
    }
});

check('openRequestQueue', async () => {
    for (const queue of [await Actor.openRequestQueue(), await Actor.openRequestQueue(`named-${own()}`)]) {
        await queue.addRequest({ url: 'http://a.test/1' });
        await queue.addRequests([2, 3, 1].map((n) => ({ url: `http://a.test/${n}` })));
        await queue.addRequest({ url: 'http://a.test/first' }, { forefront: true });
        const first = await queue.fetchNextRequest();
        assert.equal(first.url, 'http://a.test/first');
        await queue.reclaimRequest(first, { forefront: true });
        const urls = [];
        const until = Date.now() + 30_000;
        while (!(await queue.isFinished()) && Date.now() < until) {
            const request = await queue.fetchNextRequest();
            if (!request) {
                await sleep(100);
                continue;
            }
            urls.push(request.url);
            await queue.markRequestHandled(request);
        }
        assert.deepEqual([...urls].sort(), ['1', '2', '3', 'first'].map((part) => `http://a.test/${part}`));
        assert.equal((await queue.getInfo()).handledRequestCount, 4);
    }
});

check('useState', async () => {
    const state = await Actor.useState('STATE', { counted: 0 });
    state.counted += 41;
    assert.equal((await Actor.useState('STATE')).counted, 41);
});

check('setStatusMessage', async () => {
    const run = await Actor.setStatusMessage('half way');
    assert.equal(run.statusMessage, 'half way');
});

check('start abort', async () => {
    const run = await Actor.start(process.env.ACTOR_ID, { mode: 'sleep' }, { memory: 256 });
    assert.ok(['READY', 'RUNNING'].includes(run.status));
    assert.equal(run.meta.origin, 'ACTOR');
    const aborted = await Actor.abort(run.id);
    assert.ok(['ABORTING', 'ABORTED'].includes(aborted.status));
    assert.equal((await Actor.apifyClient.run(run.id).waitForFinish({ waitSecs: 30 })).status, 'ABORTED');
});

check('call', async () => {
    const run = await Actor.call(process.env.ACTOR_ID, { mode: 'child', say: 'hello' }, { memory: 256 });
    assert.equal(run.status, 'SUCCEEDED');
    const { items } = await Actor.apifyClient.dataset(run.defaultDatasetId).listItems();
    assert.deepEqual(items, [{ said: 'hello' }]);
    const record = await Actor.apifyClient.keyValueStore(run.defaultKeyValueStoreId).getRecord('OUTPUT');
    assert.deepEqual(record.value, { said: 'hello' });
});

check('callTask', () => refused(() => Actor.callTask('local/none')));
check('addWebhook', () => refused(() => Actor.addWebhook({
    eventTypes: ['ACTOR.RUN.SUCCEEDED'], requestUrl: 'http://127.0.0.1:9/',
})));
check('metamorph', () => refused(() => Actor.apifyClient.run(process.env.ACTOR_RUN_ID)
    .metamorph(process.env.ACTOR_ID, {})));

check('charge getChargingManager', async () => {
    const result = await Actor.charge({ eventName: 'some-event' });
    assert.equal(result.eventChargeLimitReached, false);
    assert.ok(!Actor.getChargingManager().getPricingInfo().isPayPerEvent);
    return 'differs: no Actor has prices yet, so nothing is charged and the SDK says so in the log';
});

check('createProxyConfiguration', async () => {
    const proxy = await Actor.createProxyConfiguration({ proxyUrls: ['http://127.0.0.1:9999'] });
    assert.equal(await proxy.newUrl(), 'http://127.0.0.1:9999');
    return 'differs: with proxy URLs of one\'s own; there is no proxy service in Greenroom';
});

async function runChecks() {
    const found = {};
    for (const [names, run] of CHECKS) {
        let result;
        try {
            const late = sleep(90_000, 'late', { ref: false });
            result = (await Promise.race([run(), late])) ?? 'works';
            if (result === 'late') result = 'fails: it took over 90 s';
        } catch (error) {
            result = `fails: ${error.stack}`;
        }
        for (const name of names) found[name] = result;
    }
    const known = new Set(['length', 'name', 'prototype']);
    const names = Object.getOwnPropertyNames(Actor).filter((name) => !known.has(name) && !name.startsWith('_'));
    await Actor.setValue('CHECKS', { found, public: names.sort() });
}

const MODES = {
    check: runChecks,
    async child({ say }) {
        await Actor.pushData({ said: say });
        await Actor.setValue('OUTPUT', { said: say });
    },
    sleep: () => sleep(300_000),
    exit: () => Actor.exit('left with three', { exitCode: 3 }),
    fail: () => Actor.fail('it could not be done'),
    async reboot() {
        const starts = ((await Actor.getValue('STARTS')) ?? 0) + 1;
        await Actor.setValue('STARTS', starts);
        if (starts === 1) await Actor.reboot();
        await Actor.setStatusMessage('started twice', { isStatusMessageTerminal: true });
    },
    async abort() {
        Actor.on('aborting', () => Actor.setValue('HEARD', 'aborting'));
        await Actor.abort(process.env.ACTOR_RUN_ID, { gracefully: true, statusMessage: 'I give up' });
        await sleep(60_000);
    },
};

async function main() {
    const input = (await Actor.getInput()) ?? {};
    if (!MODES[input.mode]) throw new Error(`unknown mode ${input.mode}`);
    log.info(`mode ${input.mode}`);
    await MODES[input.mode](input);
}

if (process.env.ACTOR_MEMORY_MBYTES === '128') {
    // The other way to begin and end a run; which one has to be known before there is an input.
    await Actor.main(main);
} else {
    await Actor.init({ gracefulShutdown: true });
    await main();
    await Actor.exit();
}
