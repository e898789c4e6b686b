// Says its words into the dataset; called on standby, it tells by HTTP who and where it is.
import { readdirSync } from 'node:fs';
import { createServer } from 'node:http';
import { userInfo } from 'node:os';

import { Actor, log } from 'apify';

const surroundings = () => ({
    user: userInfo().username,
    files: readdirSync('.').sort(),
    memory: Number(process.env.ACTOR_MEMORY_MBYTES),
    cpus: process.env.APIFY_DEDICATED_CPUS,
    run: process.env.ACTOR_RUN_ID,
});

await Actor.init();
if (process.env.APIFY_META_ORIGIN === 'STANDBY') {
    createServer((request, response) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        response.end(JSON.stringify(surroundings()));
    }).listen(process.env.ACTOR_WEB_SERVER_PORT);
} else {
    const { words } = await Actor.getInput();
    log.info(`Saying ${words.length} words`);
    await Actor.pushData(words.map((word) => ({ word })));
    await Actor.setValue('OUTPUT', surroundings());
    await Actor.exit(`Said ${words.length} words`);
}
