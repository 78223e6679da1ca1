// Parts of the pages: the player with each kind of media, zoom, jumps, plots, names with markup, and the report.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { clean, labelled, makeSound, open, renamed, run, serve, sql } from "./harness.mjs";

export default function tests({ folder, store, fresh, video, server, chromium }) {
  const desktop = () => chromium.newContext({ viewport: { width: 1280, height: 800 } });
  const focused = (page) => page.focus("#timeline");
  const ready = (page, tag) => page.waitForFunction((own) => document.querySelector(own)?.readyState >= 2, tag);
  const rate = (page) => page.evaluate(() => document.querySelector("video, audio").playbackRate);

  return {
    async "the real video of the sample plays"() {
      const file = path.join(process.env.VAPLAN_SHARED || "../shared", "llp/sample/BjCEufrlXm4.mp4");
      if (!fs.existsSync(file)) return console.log("SKIPPED: the real video of the sample plays needs ../shared");
      const media = path.join(folder, "real");
      fs.mkdirSync(media);
      fs.copyFileSync(file, path.join(media, `${video}.mp4`));
      const own = await serve(store, "--media", media, "--read-only");
      const page = await open(await desktop(), own, `#/video/${video}`);
      await ready(page, "video");
      assert.ok(await page.evaluate(() => document.querySelector("video").videoWidth > 0 && document.querySelector("video").duration > 9));
      await focused(page);
      await page.keyboard.press(" ");
      await page.waitForFunction(() => document.querySelector("video").currentTime > 0.5);
      await page.keyboard.press(" ");
      await page.waitForFunction(() => document.querySelector("video").paused);
      clean(page);
      assert.equal(await own.end(), 0);
    },

    async "a sound file plays alone, and a video without media has its timeline"() {
      const media = path.join(folder, "sounds");
      fs.mkdirSync(media);
      makeSound(path.join(media, `${video}.wav`));
      const own = await serve(store, "--media", media, "--read-only");
      const context = await desktop();
      const page = await open(context, own, `#/video/${video}`);
      await ready(page, "audio");
      assert.equal(await page.locator("video").count(), 0);
      await focused(page);
      await page.keyboard.press(" ");
      await page.waitForFunction(() => document.querySelector("audio").currentTime > 0.3);
      await page.keyboard.press(" ");
      await page.waitForFunction(() => document.querySelector("audio").paused);
      assert.ok(await page.evaluate(() => new DOMMatrix(getComputedStyle(document.querySelector(".playhead")).transform).m41 > 0));
      const [other] = sql(store, `SELECT video FROM videos WHERE video <> '${video}' AND segments = 10 ORDER BY video LIMIT 1`);
      const silent = await open(context, own, `#/video/${other.video}`);
      await silent.waitForSelector(".row .ground");
      assert.match(await silent.textContent(".stage"), /There is no media file of this video/);
      assert.ok(await silent.locator("#player-tools").isHidden());
      await focused(silent);
      await silent.keyboard.press(" ");
      await silent.keyboard.press("ArrowRight");
      assert.match(await silent.textContent("#detail"), /segment 1 /);
      clean(page);
      clean(silent);
      assert.equal(await own.end(), 0);
    },

    async "speeds go from 0.25 to 4, and the jump keys go from event to event"() {
      const page = await open(await desktop(), server, `#/video/${video}`);
      await ready(page, "video");
      await focused(page);
      for (let nth = 0; nth < 9; nth += 1) await page.keyboard.press("d");
      assert.equal(await rate(page), 4);
      for (let nth = 0; nth < 12; nth += 1) await page.keyboard.press("s");
      assert.equal(await rate(page), 0.25);
      // A row with two events, whatever the labels are: the server's answer is replaced.
      await page.route("**/api/video?*", async (route) => {
        const response = await route.fetch();
        const json = await response.json();
        json.tracks[0].labels = "0110011000";
        return route.fulfill({ response, json });
      });
      await page.reload();
      await ready(page, "video");
      await focused(page);
      const at = async () => [/segments? (\d+)/.exec(await page.textContent("#detail"))[1], await page.evaluate(() => document.querySelector("video").currentTime)].map(Number);
      await page.keyboard.press(".");
      assert.deepEqual(await at(), [1, 1]);
      await page.keyboard.press(".");
      assert.deepEqual(await at(), [5, 5]);
      await page.keyboard.press(".");
      assert.deepEqual(await at(), [5, 5], "there is no later event");
      await page.keyboard.press(",");
      assert.deepEqual(await at(), [1, 1]);
      clean(page);
    },

    async "the timeline zooms, and shows curve, threshold, truth and parser"() {
      const [own] = sql(store, "SELECT video FROM videos WHERE split = 'test' AND segments = 10 ORDER BY video LIMIT 1");
      const page = await open(await desktop(), server);
      await page.route("**/api/video?*", async (route) => {
        const response = await route.fetch();
        const json = await response.json();
        for (const track of json.tracks) track.probabilities = track.scores.map((_, at) => (at < 3 ? 0.9 : 0.1));
        return route.fulfill({ response, json });
      });
      await page.evaluate((name) => { location.hash = `#/video/${name}`; }, own.video);
      await page.waitForSelector(".row .ground");
      const count = (selector) => page.locator(selector).count();
      const rows = await count(".row");
      assert.ok(rows > 0);
      for (const part of [".curve .score", ".curve .threshold", ".curve .probability", "g.truth", "g.parser"]) assert.equal(await count(`.row ${part}`), rows, part);
      assert.equal(await page.locator(".row g.parser rect:not(.rail)").first().evaluate((node) => Math.round(node.getAttribute("width") / node.ownerSVGElement.getAttribute("width") * 10)), 3);
      const width = () => page.locator(".row").first().evaluate((node) => Number(node.getAttribute("width")));
      const before = await width();
      await focused(page);
      await page.keyboard.press("+");
      assert.equal(await width(), 2 * before);
      await page.click("[aria-label='Zoom in']");
      assert.equal(await width(), 4 * before);
      for (let nth = 0; nth < 9; nth += 1) await page.keyboard.press("+");
      assert.equal(await width(), 64 * before, "64 times is the most");
      // The view follows the cursor.
      await focused(page);
      for (let nth = 0; nth < 9; nth += 1) await page.keyboard.press("ArrowRight");
      assert.ok(await page.evaluate(() => document.getElementById("timeline").scrollLeft > 0));
      await page.keyboard.press("-");
      assert.equal(await width(), 32 * before);
      await page.keyboard.press("0");
      assert.equal(await width(), before);
      clean(page);
    },

    async "each plot has a tooltip, and a table with its numbers"() {
      const page = await open(await desktop(), server);
      await page.waitForSelector(".plot svg");
      for (const plot of await page.locator(".plot").all()) {
        const title = await plot.locator("h3").textContent();
        await plot.locator("details").evaluate((node) => { node.open = true; });
        const [head, rows] = [await plot.locator("thead th").count(), await plot.locator("tbody tr").count()];
        assert.ok(head >= 2 && rows >= 1, `${title}: a table of ${rows} rows and ${head} columns`);
        assert.equal(await plot.locator("tbody td, tbody th").count(), head * rows, title);
        await plot.locator("svg").hover();
        await plot.locator(".tip:not([hidden])").waitFor();
        const tip = await plot.locator(".tip").textContent();
        assert.match(tip, /\d/, title);
      }
      clean(page);
    },

    async "a class of the overview opens the queue of what gains most from review"() {
      const page = await open(await desktop(), server);
      await page.waitForSelector(".classes-table tbody tr");
      const row = page.locator(".classes-table tbody tr").first();
      const name = await row.locator("a").textContent();
      await row.locator("a").click();
      await page.waitForSelector("table.list tbody tr");
      assert.equal(await page.inputValue("select[name=order]"), "gain");
      for (const line of await page.locator("table.list tbody tr").all()) assert.match(await line.textContent(), new RegExp(name));
      // Without predictions there is nothing to compare with, which is not 0.
      assert.equal(await page.locator("[data-name='≠ parser']").first().textContent(), "–");
      assert.equal(await page.locator("[data-name=loss]").first().textContent(), "–");
      await page.selectOption("select[name=class]", "");
      await page.selectOption("select[name=modality]", "");
      await page.waitForFunction(() => location.hash.includes("order=gain") && !location.hash.includes("class="));
      clean(page);
    },

    async "two browsers with their own authors: both saves are kept, and the time of a save is shown"() {
      const own = path.join(folder, "two");
      fs.cpSync(fresh, own, { recursive: true });
      const shared = await serve(own);
      const start = sql(own, "SELECT max(version) AS v FROM versions")[0].v;
      const pages = [];
      for (const author of ["Ana", "Ben"]) {
        const page = await open(await desktop(), shared, `#/video/${video}`);
        await page.waitForSelector(".row .ground");
        await page.click("#author");
        await page.fill("input[aria-label=Author]", author);
        await page.keyboard.press("Enter");
        await page.waitForFunction((name) => document.getElementById("author").textContent === name, author);
        pages.push(page);
      }
      const click = async (page, segment) => {
        const ground = await page.locator(".row").first().locator(".ground").boundingBox();
        await page.mouse.click(ground.x + ground.width * (segment + 0.5) / 10, ground.y + ground.height / 2);
      };
      const shown = (page, version) => page.waitForFunction((wanted) => document.getElementById("shown-version").textContent.includes(`version ${wanted}`), version);
      await click(pages[0], 1);
      await shown(pages[0], start + 1);
      await click(pages[1], 8);
      for (const page of pages) await shown(page, start + 2);
      assert.deepEqual(sql(own, `SELECT version, author FROM versions WHERE version > ${start} ORDER BY version`), [{ version: start + 1, author: "Ana" }, { version: start + 2, author: "Ben" }]);
      for (const page of pages) {
        assert.equal(await page.locator(".row .user").count(), 2, "each sees the label of the other");
        assert.match(await page.getAttribute("#saved", "title"), /Click to durable commit: [\d.]+ ms, of which the server took/);
        clean(page);
      }
      assert.equal(await shared.end(), 0);
    },

    async "markup in names and notes is text on every page and in the report"() {
      const [script, image] = ["<script>ale", "<img src=x onerror=alert(1)>"];
      const inside = path.join(folder, "markup");
      fs.mkdirSync(inside);
      const classes = [...new Set(sql(store, "SELECT class FROM classes").map((row) => row.class))];
      const annotations = renamed(path.join(inside, "annotations"), classes, [[video.slice(0, 11), script], ["Banjo", image]]);
      const own = labelled(inside, annotations);
      const name = video.replace(video.slice(0, 11), script);
      const shown = await serve(own);
      const context = await desktop();
      const dialogs = [];
      const text = async (page, wanted) => {
        await page.waitForFunction((word) => document.body.textContent.includes(word), wanted);
        assert.equal(await page.evaluate(() => document.querySelectorAll("main img, main script, [onerror]").length), 0);
      };
      const watched = async (hash) => {
        const page = await open(context, shown, hash);
        page.on("dialog", (dialog) => { dialogs.push(dialog.message()); dialog.dismiss(); });
        return page;
      };
      const page = await watched(`#/video/${encodeURIComponent(name)}`);
      await page.waitForSelector(".row .ground");
      await text(page, name);
      await page.fill("#note", "</script><script>alert(1)</script>");
      await focused(page);
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => document.getElementById("saved").dataset.state === "saved");
      await page.keyboard.press("h");
      await page.waitForSelector("#history li");
      await text(page, "<script>alert(1)</script>");
      clean(page);
      for (const [hash, word] of [["#/", image], [`#/videos?class=${encodeURIComponent(image)}`, image], ["#/audit?version=1&count=200&by=class&seed=1", "segments judged"]]) {
        const other = await watched(hash);
        await text(other, word);
        clean(other);
      }
      const file = path.join(inside, "report.html");
      run("report", "--store", own, "--out", file, "--video", name);
      const report = await context.newPage();
      report.on("dialog", (dialog) => { dialogs.push(dialog.message()); dialog.dismiss(); });
      await report.goto(pathToFileURL(file).href);
      await report.waitForSelector(".row .ground");
      await text(report, name);
      await text(report, image);
      assert.deepEqual(dialogs, []);
      assert.equal(await shown.end(), 0);
    },

    async "a report opens without a server and without a network"() {
      const file = path.join(folder, "report.html");
      run("report", "--store", store, "--out", file, "--video", video);
      const context = await desktop();
      await context.setOffline(true);
      const page = await context.newPage();
      const faults = [];
      page.on("console", (message) => { if (["error", "warning"].includes(message.type())) faults.push(message.text()); });
      page.on("pageerror", (error) => faults.push(error.message));
      page.on("request", (request) => { if (request.url() !== pathToFileURL(file).href) faults.push(request.url()); });
      await page.goto(pathToFileURL(file).href);
      await page.waitForSelector(".plot svg");
      assert.match(await page.textContent(".figures"), /Videos\s*80/);
      for (const plot of await page.locator(".plot").all()) assert.ok(await plot.locator("details tbody tr").count() > 0);
      assert.ok(await page.locator(".classes-table tbody tr").count() > 0);
      assert.ok(await page.locator(".row .ground").count() > 0, "the timeline of the video");
      assert.deepEqual(faults, []);
    },
  };
}
