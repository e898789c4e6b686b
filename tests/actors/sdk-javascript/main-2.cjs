// On the SDK 2.x: Apify.main calls the function and ends the process; it has no status messages of its own.

const Apify = require('apify');

Apify.main(async () => {
    const { run } = await import('./work.mjs');
    const client = Apify.newClient().run(process.env.APIFY_ACTOR_RUN_ID);
    const setStatusMessage = (statusMessage, options) => client.update({ statusMessage, ...options });
    const message = await run(
        {
            events: Apify.events,
            getInput: () => Apify.getInput(),
            setValue: (key, value, options) => Apify.setValue(key, value, options),
            pushData: (item) => Apify.pushData(item),
            setStatusMessage,
            fail: async (text) => {
                await setStatusMessage(text, { isStatusMessageTerminal: true });
                process.exit(1);
            },
        },
        { endsByItself: false },
    );
    await setStatusMessage(message, { isStatusMessageTerminal: true });
});
