// Writes the pictures of docs/images: of the simulated store of the tests, or of a copy of the store of `vaplan demo` that STORE names.

import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { open, serve } from "./harness.mjs";

const images = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../docs/images");
const DESK = { viewport: { width: 1280, height: 800 }, deviceScaleFactor: 1.5 };
/** High enough for the timeline of three classes with its legend. */
const HIGH = { viewport: { width: 1280, height: 1150 }, deviceScaleFactor: 1.5 };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 1.5 };
/** The video whose timeline the demo shows. */
const DEMO_VIDEO = "demo0001510_0_10";
const SAMPLE = "#/audit?version=1&count=60&by=class&seed=3";

export default async function screenshots({ folder, store, media, video: ofTests, chromium }) {
  fs.mkdirSync(images, { recursive: true });
  const own = path.join(folder, "pictures", "store");
  fs.cpSync(process.env.STORE || store, own, { recursive: true });
  const video = process.env.STORE ? DEMO_VIDEO : ofTests;
  const addMedia = (name) => { if (name !== ofTests) fs.copyFileSync(path.join(media, `${ofTests}.webm`), path.join(media, `${name}.webm`)); };
  const picture = (page, name) => page.screenshot({ path: path.join(images, `serve-${name}.png`) });
  const playable = (page) => page.waitForFunction(() => document.querySelector("video").readyState >= 2);

  addMedia(video);
  addMedia(await judged(own, chromium));
  const server = await serve(own, "--media", media);
  const overview = ["#/", ".plot svg"];
  const classes = ["#/", "#stage-scores .plot svg", (page) => page.evaluate(() => scrollTo(0, document.getElementById("stage-scores").getBoundingClientRect().top + scrollY - 70))];
  const one = [`#/video/${video}`, ".row .ground", playable];
  for (const [name, look, [hash, wait, then]] of [
    ["overview-dark", { ...DESK, colorScheme: "dark" }, overview], ["classes", DESK, classes],
    ["videos", DESK, ["#/videos?order=near&unreviewed_first=true", "table.list tbody tr"]],
    ["video", HIGH, one], ["video-phone", PHONE, one], ["audit", DESK, [SAMPLE, "#verdicts", playable]],
  ]) {
    const context = await chromium.newContext(look);
    const page = await open(context, server, hash);
    await page.waitForSelector(wait);
    await then?.(page);
    await picture(page, name);
    await context.close();
  }

  // A save whose answer does not come: the server is stopped, and then killed.
  const page = await open(await chromium.newContext(HIGH), server, one[0]);
  await page.waitForSelector(".row .ground");
  await playable(page);
  const ground = await page.locator(".row .ground").first().boundingBox();
  const at = (segment) => [ground.x + ground.width * (segment + 0.5) / 10, ground.y + ground.height / 2];
  server.stop();
  await page.mouse.move(...at(1));
  await page.mouse.down();
  await page.mouse.move(...at(2), { steps: 4 });
  await page.mouse.up();
  await page.waitForFunction(() => document.getElementById("saved").textContent === "Saving");
  await server.kill();
  await page.waitForFunction(() => !document.getElementById("unsaved").hidden);
  await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight));
  await picture(page, "unsaved");
}

/** Judges some segments of the sample of the picture. Returns the name of the video that comes next. */
async function judged(store, chromium) {
  const server = await serve(store);
  const page = await open(await chromium.newContext(DESK), server, SAMPLE);
  await page.waitForSelector("#question");
  for (const [nth, key] of [..."yynyynyyynynyyny"].entries()) {
    await page.keyboard.press(key);
    await page.waitForFunction((own) => document.getElementById("progress").textContent.startsWith(own), `${nth + 1} of 60`);
  }
  await page.waitForFunction(() => document.getElementById("saved").dataset.state === "saved");
  const place = await page.textContent("#place");
  await page.close();
  await server.end();
  return / of (\S+) · /.exec(place)[1];
}
