// A served store and a browser: what the tests of the page share.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

// Each server that a test starts is ended with the tests.
process.setMaxListeners(100);
const { chromium } = await import(process.env.PLAYWRIGHT);
export const vaplan = path.resolve(process.env.VAPLAN);

/** Runs the program, and returns what it printed. */
export const run = (...words) => execFileSync(vaplan, words, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], maxBuffer: 1 << 28 });

/** A scratch folder that goes at the end. */
export function scratch() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "vaplan-browser-"));
  process.on("exit", () => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const sample = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../assets/sample");

/** Labels a simulated data set with the built-in annotations into `folder/store`. */
export function labelled(folder, annotations = sample) {
  const at = (name) => path.join(folder, name);
  run("synth", "--annotations", annotations, "--out", at("features"), "--preset", "easy", "--dim", "64", "--quiet");
  run("label", "--store", at("store"), "--annotations", annotations, "--visual", at("features/visual"), "--audio", at("features/audio"),
    "--visual-text", at("features/visual_text.npy"), "--audio-text", at("features/audio_text.npy"), "--quiet");
  return at("store");
}

/** The built-in annotations with other names: `names` has pairs of a name and its replacement, `classes` are those before. */
export function renamed(folder, classes, names) {
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "classes.txt"), classes.map((name) => `${names.find(([from]) => from === name)?.[1] ?? name}\n`).join(""));
  for (const file of fs.readdirSync(sample)) {
    const text = names.reduce((own, [from, to]) => own.replaceAll(from, to), fs.readFileSync(path.join(sample, file), "utf8"));
    fs.writeFileSync(path.join(folder, file), text);
  }
  return folder;
}

/** Starts the server, and resolves to its URL. */
export async function serve(store, ...more) {
  const child = spawn(vaplan, ["serve", "--store", store, "--author", "Browser", ...more], { stdio: ["ignore", "pipe", "inherit"] });
  process.on("exit", () => child.kill("SIGKILL"));
  const lines = createInterface({ input: child.stdout });
  const url = await new Promise((resolve, reject) => {
    lines.once("line", resolve);
    child.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
  });
  const ended = new Promise((resolve) => { child.once("exit", resolve); });
  return { url, base: url.split("/?")[0], port: new URL(url).port, child,
    /** Stops the server as if the machine were busy: it takes a request and does not answer. */
    stop: () => child.kill("SIGSTOP"),
    /** Kills the server as a crash would. */
    kill: () => { child.kill("SIGKILL"); return ended; },
    end: () => { child.kill("SIGTERM"); return ended; } };
}

export async function browser() {
  return chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required"] });
}

/** A page that records what must not happen: console errors, failed or foreign requests, answers above 1 MB. */
export async function open(context, server, hash = "") {
  const page = await context.newPage();
  const faults = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()}`); });
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("request", (request) => { if (!request.url().startsWith(`${server.base}/`) && !request.url().startsWith("data:")) faults.push(`request to ${request.url()}`); });
  page.on("response", async (response) => {
    if (new URL(response.url()).pathname === "/media") return;
    const length = Number(response.headers()["content-length"] || 0);
    if (length > 1 << 20) faults.push(`${response.url()} has ${length} bytes`);
  });
  page.faults = faults;
  if (process.env.WEB) await fromFolder(page, server, process.env.WEB);
  await page.goto(server.url + hash);
  return page;
}

/** While the page is being written: its files come from a folder and not from the program. */
async function fromFolder(page, server, folder) {
  const types = { ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
  await page.route(`${server.base}/web/*`, (route) => {
    const file = path.join(folder, path.basename(new URL(route.request().url()).pathname));
    return route.fulfill({ body: fs.readFileSync(file), contentType: types[path.extname(file)] });
  });
  // The answer of the program has the cookie.
  await page.route((url) => url.origin === server.base && url.pathname === "/", async (route) => {
    const response = await route.fetch();
    return route.fulfill({ response, body: response.ok() ? fs.readFileSync(path.join(folder, "index.html")) : undefined });
  });
}

/** Fails if anything happened that must not. `but` are texts that a test provokes. */
export function clean(page, ...but) {
  const found = page.faults.filter((fault) => !but.some((own) => fault.includes(own)));
  assert.deepEqual(found, [], "no console error, no request to another host, no long answer");
}

/** Makes a sound file with a tone. */
export const makeSound = (file, seconds = 10) => execFileSync("ffmpeg", ["-v", "error", "-y", "-f", "lavfi", "-i", `sine=frequency=330:duration=${seconds}`, file]);

/** Measures the pages of a context: `window.firstRows` is the time from the navigation to the frame that shows the first rows of the list. */
export const clockFirstRows = (context) => context.addInitScript(() => {
  new MutationObserver((_, observer) => {
    if (!document.querySelector("table.list tbody tr")) return;
    observer.disconnect();
    // The frame after the next one has the rows on the screen.
    requestAnimationFrame(() => requestAnimationFrame(() => { window.firstRows = performance.now(); }));
  }).observe(document, { childList: true, subtree: true });
});

/** Opens a list anew, and gives the milliseconds until its first rows were on the screen. */
export async function firstRows(context, server, hash) {
  const page = await open(context, server, hash);
  await page.waitForFunction(() => window.firstRows, null, { timeout: 300_000 });
  const took = await page.evaluate(() => window.firstRows);
  clean(page);
  await page.close();
  return took;
}

/** Writes a matrix of 32-bit floats as npy. */
export function writeNpy(file, rows) {
  const shape = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows.length}, ${rows[0].length}), }`;
  const head = Buffer.from(`\x93NUMPY\x01\x00\x00\x00${shape}`.padEnd(127) + "\n", "latin1");
  head.writeUInt16LE(118, 8);
  fs.writeFileSync(file, Buffer.concat([head, Buffer.from(Float32Array.from(rows.flat()).buffer)]));
}

/** Rows of a table by SQL. */
export const sql = (store, text) => JSON.parse(run("query", "--store", store, "--format", "json", text));

/** Makes a short video with a tone and moving colours. */
export function makeVideo(file, seconds = 10) {
  execFileSync("ffmpeg", ["-v", "error", "-y", "-f", "lavfi", "-i", `gradients=size=640x272:rate=12:duration=${seconds}:n=3:c0=0x1f2a3d:c1=0x5b9cf0:c2=0xf0a04b:speed=0.03`, "-f", "lavfi", "-i", `sine=frequency=330:duration=${seconds}`,
    "-pix_fmt", "yuv420p", "-c:v", "libvpx", "-b:v", "300k", "-c:a", "libvorbis", "-shortest", file]);
}
