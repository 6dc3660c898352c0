// The package launchdarkly-eventsource on /events: named events, ids, and going on by itself after the hub was away.
// usage: events_client.mjs URL NODE_FOLDER
import { createRequire } from "node:module";

const [url, folder] = process.argv.slice(2);
const module = createRequire(`${folder}/`)("launchdarkly-eventsource");
const EventSource = module.EventSource ?? module.default ?? module;
const ok = (what) => console.log(`ok ${what}`);

const source = new EventSource(url, { initialRetryDelayMillis: 50, errorFilter: () => true });
const ids = [];
let opened = 0;
source.onopen = () => {
  opened += 1;
  ok(opened === 1 ? "open" : "open again");
};
source.addEventListener("member", (event) => {
  ids.push(event.lastEventId);
  const { name } = JSON.parse(JSON.parse(event.data).record.text);
  if (name === "gpubox") ok("joined");
  if (name === "study") {
    if (opened < 2) throw new Error("it never lost the hub");
    const offsets = ids.map((id) => Number(id.split(":")[1]));
    if (!offsets.every((offset, at) => at === 0 || offset === offsets[at - 1] + 1)) {
      throw new Error(`a gap or a repeat in ${offsets}`);
    }
    ok("renamed");
    source.close();
  }
});
