// Crawls the site at `start` with Crawlee and stores each page; with `overload` it keeps the run's CPU busy meanwhile,
// by children of its own, until the pool has slowed down.

import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';

import { BasicCrawler } from '@crawlee/basic';
import { Actor } from 'apify';

const CONCURRENCY = 20;
const FREE_PAGES = 40;

await Actor.init();
const { start, overload } = await Actor.getInput();
const base = start.slice(0, start.lastIndexOf('/'));
const loads = [];
Actor.on('systemInfo', ({ isCpuOverloaded }) => loads.push(isCpuOverloaded));

let seen = 0;
let letGo;
const slowed = new Promise((resolve) => { letGo = resolve; });

const crawler = new BasicCrawler({
    minConcurrency: 1,
    maxConcurrency: CONCURRENCY,
    requestHandlerTimeoutSecs: 120,
    autoscaledPoolOptions: { desiredConcurrency: CONCURRENCY, autoscaleIntervalSecs: 1 },
    async requestHandler({ request, addRequests }) {
        seen += 1;
        const answer = await fetch(request.url);
        if (!answer.ok) throw new Error(`${request.url}: ${answer.status}`);
        const names = [...(await answer.text()).matchAll(/href="\/(\d+)"/g)].map(([, name]) => name);
        await addRequests(names.map((name) => `${base}/${name}`));
        if (overload && seen > FREE_PAGES) await slowed;
        await Actor.pushData({ url: request.url, push: randomUUID() });
    },
});

const busy = overload ? [1, 2].map(() => spawn(process.execPath, ['-e', 'while (true);'])) : [];
const watcher = overload && setInterval(async () => {
    const pool = crawler.autoscaledPool;
    if (!pool || pool.desiredConcurrency >= CONCURRENCY) return;
    if (!pool.systemStatus.getHistoricalStatus().cpuInfo.isOverloaded) return;
    clearInterval(watcher);
    await Actor.setValue('SLOWED', { first: CONCURRENCY, lowest: pool.desiredConcurrency, loads });
    letGo();
}, 100);
const { requestsFinished, requestsFailed } = await crawler.run([start]);
for (const child of busy) child.kill('SIGKILL');
await Actor.setValue('OUTPUT', { finished: requestsFinished, failed: requestsFailed });
await Actor.exit();
