// On the SDK 3.x: init, exit and fail are commands, and the SDK ends the process itself when it hears 'aborting'.

import { Actor } from 'apify';

import { run } from './work.mjs';

await Actor.init({ gracefulShutdownDelayMillis: 1500 });
const message = await run(
    {
        events: Actor.config.getEventManager(),
        getInput: () => Actor.getInput(),
        setValue: (key, value, options) => Actor.setValue(key, value, options),
        pushData: (item) => Actor.pushData(item),
        setStatusMessage: (text, options) => Actor.setStatusMessage(text, options),
        fail: (text) => Actor.fail(text),
    },
    { endsByItself: true },
);
await Actor.exit(message);
