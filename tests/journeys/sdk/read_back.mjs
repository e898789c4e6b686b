// Reads a run back with the official client and tells, as one line of JSON, what it found.

import { ApifyClient } from 'apify-client';

const [, , baseUrl, token, runId] = process.argv;
const run = new ApifyClient({ baseUrl, publicBaseUrl: baseUrl, token }).run(runId);
const store = run.keyValueStore();

const { status, exitCode, statusMessage, isStatusMessageTerminal, startedAt, finishedAt } = await run.get();
const { items, total } = await run.dataset().listItems();
const { items: keys } = await store.listKeys();
const picture = await store.getRecord('PICTURE');
const note = await store.getRecord('NOTE');
console.log(JSON.stringify({
    status,
    exitCode,
    statusMessage,
    isStatusMessageTerminal,
    hasTimes: startedAt instanceof Date && finishedAt instanceof Date,
    items,
    total,
    keys: keys.map(({ key }) => key),
    output: (await store.getRecord('OUTPUT')).value,
    picture: picture.value.toString('base64'),
    pictureType: picture.contentType,
    note: note.value,
    log: await run.log().get(),
}));
