// A standby Actor on the Apify SDK: greets whoever calls, keeps each greeting, and shows its own CPU live.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { setImmediate as giveWay } from 'node:timers/promises';

import { Actor } from 'apify';

const PROBE = 'x-apify-container-server-readiness-probe';

await Actor.init();
const input = (await Actor.getInput()) ?? {};
const greeting = input.greeting ?? 'Hello';

const env = Actor.getEnv();
const page = await readFile(new URL('page.html', import.meta.url));
const listeners = new Set();
let greeted = 0;
let latest = [];
let history = [];
let load = {};

// Says it, and keeps it: an item of the dataset, a record of the key-value store, the run's status message.
async function greet(name) {
    const item = { text: `${greeting}, ${name}!`, name, at: new Date().toISOString() };
    await Actor.pushData(item);
    greeted += 1;
    latest = [item, ...latest].slice(0, 5);
    await Actor.setValue('OUTPUT', { greeted, latest: item });
    await Actor.setStatusMessage(`Greeted ${greeted}, at last ${name}`);
    tell();
    return item;
}

function figures() {
    return { sdk: 'JavaScript', runId: env.actorRunId, greeted, latest, history, ...load };
}

// Whoever has the page open hears what is new, as a server-sent event.
function tell() {
    for (const response of listeners) response.write(`data: ${JSON.stringify(figures())}\n\n`);
}

function answer(response, status, thing) {
    response.writeHead(status, { 'Content-Type': 'application/json; charset=utf-8' });
    response.end(JSON.stringify(thing));
}

// Keeps the CPU busy, but gives way to requests now and then.
async function beBusy(ms) {
    const until = Date.now() + ms;
    while (Date.now() < until) {
        const pause = Date.now() + 20;
        while (Date.now() < pause);
        await giveWay();
    }
}

const routes = {
    '/': (request, response) => {
        // Greenroom asks until the server answers; the answer itself is not looked at.
        if (PROBE in request.headers) return answer(response, 200, 'ready');
        response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' });
        return response.end(page);
    },
    '/greet': async (request, response, query) => {
        const name = (query.get('name') ?? '').trim();
        if (!name || name.length > 100) {
            return answer(response, 400, { error: 'a name of 1 to 100 characters is expected: /greet?name=Ann' });
        }
        return answer(response, 200, await greet(name));
    },
    '/figures': (request, response) => answer(response, 200, figures()),
    '/live': (request, response) => {
        response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
        listeners.add(response);
        request.on('close', () => listeners.delete(response));
        tell();
    },
    // Three seconds of work, so that the curve on the page has something to show.
    '/work': async (request, response) => {
        await beBusy(3000);
        answer(response, 200, 'done');
    },
};

function serve() {
    // Once a second the platform tells what this run uses; 100 stands for one whole core.
    Actor.on('systemInfo', ({ cpuCurrentUsage, memCurrentBytes }) => {
        load = {
            cpuRatio: Math.round((cpuCurrentUsage * 10) / Number(process.env.APIFY_DEDICATED_CPUS || 1)) / 1000,
            memoryBytes: memCurrentBytes,
        };
        history = [...history, load.cpuRatio].slice(-60);
        tell();
    });
    // Somebody aborts the run, or nobody has called for long. After this the SDK itself ends the process.
    Actor.on('aborting', async () => {
        await Actor.setStatusMessage(`Greeted ${greeted} and left politely`, { isStatusMessageTerminal: true });
    });
    const server = createServer(async (request, response) => {
        const { pathname, searchParams } = new URL(request.url, 'http://actor');
        const handle = routes[pathname];
        try {
            if (handle) await handle(request, response, searchParams);
            else answer(response, 404, { error: 'nothing is here; try /, /greet?name=Ann or /figures' });
        } catch (error) {
            console.error(error);
            if (!response.headersSent) answer(response, 500, { error: error.message });
        }
    });
    server.listen(Number(process.env.ACTOR_WEB_SERVER_PORT), '0.0.0.0');
}

if (process.env.APIFY_META_ORIGIN === 'STANDBY') {
    serve();
} else {
    await greet(input.name ?? 'World');
    await Actor.exit();
}
