// What the Actor does, whatever the SDK's version: `sdk` has the few commands that differ.

import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const PICTURE = Buffer.from(Array.from({ length: 2048 }, (_, i) => i % 256));

const heard = [];
const load = {};
let loads = 0;

export async function run(sdk, { endsByItself }) {
    const { events } = sdk;
    const firstLoad = new Promise((resolve) => { events.on('systemInfo', resolve); });
    events.on('systemInfo', (data) => {
        loads += 1;
        Object.assign(load, data);
    });
    let heardAll;
    const persistFollows = new Promise((resolve) => { heardAll = resolve; });
    events.on('persistState', ({ isMigrating }) => {
        heard.push(isMigrating ? 'persistState while migrating' : 'persistState');
        if (heard.includes('aborting')) heardAll();
    });
    const abort = new Promise((resolve) => {
        events.on('aborting', async () => {
            heard.push('aborting');
            await persistFollows;
            await sdk.setValue('LAST-WORD', heard);
            await sdk.setStatusMessage('left politely', { isStatusMessageTerminal: true });
            resolve();
        });
    });

    async function keep(number) {
        await sdk.pushData({ number, text: `grüß ${number}` });
        console.log(`acknowledged ${number}`);
    }

    const given = await sdk.getInput();
    await sdk.setValue('SEEN-INPUT', { input: given });
    if (process.env.APIFY_META_ORIGIN === 'STANDBY') {
        serve(keep);
        await abort;
        return 'left politely';
    }
    const { numbers = 3, pauseMs, ending = 'exit', code } = given ?? {};
    for (let number = 0; number < numbers; number += 1) {
        await keep(number);
        if (pauseMs) await sleep(pauseMs);
    }
    await sdk.setValue('PICTURE', PICTURE, { contentType: 'image/png' });
    await sdk.setValue('NOTE', 'a text: äöü', { contentType: 'text/plain; charset=utf-8' });
    await firstLoad;
    await sdk.setValue('OUTPUT', { numbers, load });
    await sdk.setStatusMessage('nearly done');
    if (ending === 'abort') {
        console.log('waiting to be aborted');
        if (endsByItself) await new Promise(() => { setInterval(() => {}, 1000); });
        await abort;
        return 'left politely';
    }
    if (ending === 'fail') return sdk.fail('it could not be done');
    if (ending === 'crash') throw new Error('nobody catches this');
    if (ending === 'code') process.exit(code);
    return 'all done';
}

function serve(keep) {
    createServer(async (request, response) => {
        const { pathname, searchParams } = new URL(request.url, 'http://actor');
        if (pathname === '/keep') await keep(Number(searchParams.get('number')));
        response.writeHead(200, { 'Content-Type': 'application/json' });
        response.end(JSON.stringify({ runId: process.env.ACTOR_RUN_ID, load, loads, heard }));
    }).listen(Number(process.env.ACTOR_WEB_SERVER_PORT), '0.0.0.0');
}
