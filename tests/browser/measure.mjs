// Measures the page on a large store: `scripts/browser.sh --measure STORE [SAVES]`. Prints one JSON object.
// The store is changed: each save sets or clears a label.

import fs from "node:fs";
import os from "node:os";
import { browser, clockFirstRows, firstRows, open, serve } from "./harness.mjs";

const [store, saves = "200"] = process.argv.slice(2).filter((word) => word !== "--measure");
const server = await serve(store);
const chromium = await browser();
const context = await chromium.newContext({ viewport: { width: 1280, height: 800 } });
await clockFirstRows(context);

const quantile = (values, share) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(share * values.length))];
const rounded = (value) => Math.round(value * 10) / 10;

const started = performance.now();
const first = await firstRows(context, server, "#/videos");
const indexed = performance.now() - started;
const lists = {};
for (const order of ["name", "near", "av"]) {
  const times = [];
  for (let turn = 0; turn < 5; turn += 1) times.push(await firstRows(context, server, `#/videos?order=${order}`));
  lists[order] = { median_ms: rounded(quantile(times, 0.5)), max_ms: rounded(Math.max(...times)) };
}

const page = await open(context, server, "#/videos");
let largest = 0;
page.on("response", async (response) => { largest = Math.max(largest, Number(response.headers()["content-length"] || 0)); });
await page.waitForSelector("table.list tbody tr");
const info = await page.evaluate(async () => (await fetch("/api/info")).json());
const timed = async (path) => page.evaluate(async (own) => {
  const start = performance.now();
  const body = await (await fetch(own)).text();
  return [performance.now() - start, body.length];
}, path);
const overview = await timed("/api/overview");
const longest = await timed("/api/videos?rows=200&order=near");

const clicks = [];
const servers = [];
for (let turn = 0; clicks.length < Number(saves); turn += 1) {
  const pages = Math.floor(info.index.videos / 50);
  const list = await page.evaluate(async (at) => (await fetch(`/api/videos?rows=50&page=${at}`)).json(), (turn * 7919) % pages);
  for (const row of list.list.slice(0, 10)) {
    await page.evaluate((name) => { location.hash = `#/video/${encodeURIComponent(name)}`; }, row.video);
    await page.waitForFunction((name) => document.getElementById("video-name")?.textContent === name && document.querySelector(".row .ground"), row.video);
    const ground = await page.locator(".row .ground").first().boundingBox();
    await page.evaluate(() => { document.getElementById("saved").dataset.state = ""; });
    await page.mouse.click(ground.x + ground.width * (0.05 + 0.1 * (clicks.length % 10)), ground.y + ground.height / 2);
    await page.waitForFunction(() => document.getElementById("saved").dataset.state === "saved");
    const [took, title] = await page.evaluate(() => [Number(document.getElementById("saved").dataset.milliseconds), document.getElementById("saved").title]);
    clicks.push(took);
    servers.push(Number(/server took ([\d.]+)/.exec(title)[1]));
    if (clicks.length >= Number(saves)) break;
  }
}
const memory = /VmRSS:\s*(\d+)/.exec(fs.readFileSync(`/proc/${server.child.pid}/status`, "utf8"))?.[1];
const metrics = await page.evaluate(async () => (await fetch("/metrics")).text());
console.log(JSON.stringify({
  videos: info.index.videos, first_list_of_a_new_server_ms: rounded(first), until_indexed_ms: rounded(indexed), list_to_first_rows: lists,
  overview_ms: rounded(overview[0]), overview_bytes: overview[1], page_of_200_rows_ms: rounded(longest[0]), page_of_200_rows_bytes: longest[1], largest_answer_bytes: largest,
  click_to_commit_ms: { saves: clicks.length, p50: rounded(quantile(clicks, 0.5)), p90: rounded(quantile(clicks, 0.9)), p99: rounded(quantile(clicks, 0.99)), max: rounded(Math.max(...clicks)) },
  of_it_server_ms: { p50: rounded(quantile(servers, 0.5)), p99: rounded(quantile(servers, 0.99)) },
  index_bytes: Number(/vaplan_index_bytes (\d+)/.exec(metrics)[1]), server_resident_mb: rounded(Number(memory) / 1024),
  cores: os.cpus().length, load: os.loadavg().map(rounded), date: new Date().toISOString(),
}, null, 1));
await chromium.close();
await server.end();
process.exit(0);
