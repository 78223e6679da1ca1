// Writes the pictures of docs/images: of the simulated store of the tests, or of a copy of the store of `vaplan demo` that STORE names.

import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { open, serve } from "./harness.mjs";

const images = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../docs/images");
const DESK = { viewport: { width: 1280, height: 800 }, deviceScaleFactor: 1.5 };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 1.5 };

/** The video whose timeline the demo shows. */
const DEMO_VIDEO = "demo0001510_0_10";

export default async function screenshots({ folder, store, media, video: ofTests, chromium }) {
  fs.mkdirSync(images, { recursive: true });
  const own = path.join(folder, "pictures");
  const video = process.env.STORE ? DEMO_VIDEO : ofTests;
  if (video !== ofTests) fs.copyFileSync(path.join(media, `${ofTests}.webm`), path.join(media, `${video}.webm`));
  fs.cpSync(process.env.STORE || store, own, { recursive: true });
  const server = await serve(own, "--media", media);
  const picture = (page, name) => page.screenshot({ path: path.join(images, `serve-${name}.png`) });
  const playable = (page) => page.waitForFunction(() => document.querySelector("video").readyState >= 2);

  const pages = {
    overview: ["#/", ".plot svg"],
    classes: ["#/", "#stage-scores .plot svg", (page) => page.evaluate(() => scrollTo(0, document.getElementById("stage-scores").getBoundingClientRect().top + scrollY - 70))],
    videos: ["#/videos?order=near&unreviewed_first=true", "table.list tbody tr"],
    video: [`#/video/${video}`, ".row .ground", playable],
    audit: ["#/audit?version=1&count=60&seed=3", "#verdicts"],
  };
  for (const [name, page, look] of [["overview", "overview", DESK], ["classes", "classes", DESK], ["videos", "videos", DESK], ["video", "video", DESK], ["audit", "audit", DESK],
    ["overview-dark", "overview", { ...DESK, colorScheme: "dark" }], ["video-phone", "video", PHONE]]) {
    const context = await chromium.newContext(look);
    const [hash, wait, then] = pages[page];
    const shown = await open(context, server, hash);
    await shown.waitForSelector(wait);
    await then?.(shown);
    await picture(shown, name);
    await context.close();
  }

  // A save whose answer does not come: the server is stopped, and then killed.
  const page = await open(await chromium.newContext(DESK), server, `#/video/${video}`);
  await page.waitForSelector(".row .ground");
  await playable(page);
  const ground = await page.locator(".row .ground").first().boundingBox();
  server.stop();
  const at = (segment) => [ground.x + ground.width * (segment + 0.5) / 10, ground.y + ground.height / 2];
  await page.mouse.move(...at(6));
  await page.mouse.down();
  await page.mouse.move(...at(8), { steps: 4 });
  await page.mouse.up();
  await page.waitForFunction(() => document.getElementById("saved").textContent === "Saving");
  await server.kill();
  await page.waitForFunction(() => !document.getElementById("unsaved").hidden);
  await picture(page, "unsaved");
}
