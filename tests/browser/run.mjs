// Tests of the page in a real browser. `run.mjs [--screenshots] [NAME..]`; without names, all tests run.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { browser, clean, labelled, makeVideo, open, run, scratch, serve, sql } from "./harness.mjs";
import large from "./large.mjs";
import lost from "./lost.mjs";
import parts from "./parts.mjs";
import screenshots from "./screenshots.mjs";
import stages from "./stages.mjs";

const names = process.argv.slice(2).filter((word) => !word.startsWith("--"));
const pictures = process.argv.includes("--screenshots");
const folder = scratch();
const store = labelled(folder);
const video = "demo0000065_20_30";
const media = path.join(folder, "media");
fs.mkdirSync(media);
makeVideo(path.join(media, `${video}.webm`));
const server = await serve(store, "--media", media);
const chromium = await browser();
const desktop = () => chromium.newContext({ viewport: { width: 1280, height: 800 } });

const saved = async (page) => {
  await page.waitForFunction(() => document.getElementById("saved").dataset.state === "saved");
  return Number(/Version (\d+)/.exec(await page.textContent("#saved"))?.[1]);
};
const shownVersion = (page, version) => page.waitForFunction((own) => document.getElementById("shown-version")?.textContent.includes(`version ${own}`), version);
const focused = (page) => page.focus("#timeline");

const tests = {
  async "the overview shows counts and plots, each with a table"() {
    const page = await open(await desktop(), server);
    await page.waitForSelector(".plot svg");
    assert.match(await page.textContent(".figures"), /Videos\s*80/);
    assert.ok(await page.locator(".plot").count() >= 4);
    for (const details of await page.locator(".plot details").all()) await details.evaluate((node) => { node.open = true; });
    assert.ok(await page.locator(".plot details td").count() > 40);
    const box = await page.locator(".plot svg").first().boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.waitForSelector(".tip:not([hidden])");
    assert.equal(new URL(page.url()).search, "", "the token is not in the address bar");
    clean(page);
  },

  async "filters and pages of the list"() {
    const page = await open(await desktop(), server, "#/videos");
    await page.waitForSelector("table.list tbody tr");
    assert.equal(await page.locator("table.list tbody tr").count(), 50);
    await page.click("text=Next ›");
    await page.waitForFunction(() => document.querySelector(".count").textContent.startsWith("51"));
    assert.equal(await page.locator("table.list tbody tr").count(), 30);
    await page.selectOption("select[name=class]", "Banjo");
    await page.waitForFunction(() => !document.querySelector(".count").textContent.includes("of 80 videos"));
    for (const row of await page.locator("table.list tbody tr").all()) assert.match(await row.textContent(), /Banjo/);
    await page.selectOption("select[name=order]", "near");
    await page.waitForFunction(() => location.hash.includes("order=near"));
    await page.fill("input[name=q]", "no such video");
    await page.waitForFunction(() => document.querySelector(".count").textContent.startsWith("No video"));
    clean(page);
  },

  async "a click corrects a label in the store, and undo takes it back"() {
    const page = await open(await desktop(), server, `#/video/${video}`);
    await page.waitForSelector(".row.audio .label, .row.visual .label");
    const track = await page.evaluate(() => document.querySelector(".track-name .class").textContent);
    const modality = await page.evaluate(() => document.querySelector(".row").classList.contains("audio") ? "audio" : "visual");
    const where = `video = '${video}' AND class = '${track}' AND modality = '${modality}'`;
    const labels = () => sql(store, `SELECT segment, label, rule FROM labels WHERE ${where} ORDER BY segment`);
    const before = labels();
    const row = page.locator(".row").first();
    const ground = await row.locator(".ground").boundingBox();
    await page.mouse.click(ground.x + ground.width * 0.45, ground.y + ground.height / 2);
    const version = await saved(page);
    const after = labels();
    assert.equal(after[4].label, !before[4].label);
    assert.equal(after[4].rule, "user");
    const changes = sql(store, `SELECT segment, "to", rule FROM label_changes WHERE version = ${version} AND ${where}`);
    assert.deepEqual(changes, [{ segment: 4, to: !before[4].label, rule: "user" }]);
    assert.deepEqual(sql(store, `SELECT author FROM versions WHERE version = ${version}`), [{ author: "Browser" }]);
    await shownVersion(page, version);
    assert.match(await page.textContent("#detail"), /by a person/);
    await page.click("#undo");
    await shownVersion(page, version + 1);
    assert.deepEqual(labels(), before);
    await page.click("#redo");
    await shownVersion(page, version + 2);
    assert.deepEqual(labels(), after);
    await focused(page);
    await page.keyboard.press("z");
    await shownVersion(page, version + 3);
    assert.deepEqual(labels(), before);
    clean(page);
  },

  async "a drag sets several labels, and an edge moves"() {
    const page = await open(await desktop(), server, `#/video/${video}`);
    await page.waitForSelector(".row .ground");
    const rows = page.locator(".row");
    const at = await rows.count() - 1;
    await rows.nth(at).scrollIntoViewIfNeeded();
    const ground = await rows.nth(at).locator(".ground").boundingBox();
    const x = (segment) => ground.x + ground.width * segment / 10;
    const y = ground.y + ground.height / 2;
    const label = () => page.evaluate((nth) => {
      const width = Number(document.querySelectorAll(".row")[nth].getAttribute("width"));
      return [...document.querySelectorAll(".row")[nth].querySelectorAll(".label")].map((rect) => [Math.round(rect.getAttribute("x") / width * 10), Math.round((Number(rect.getAttribute("x")) + Number(rect.getAttribute("width"))) / width * 10)]);
    }, at);
    const drag = async (from, to) => {
      const before = await page.textContent("#saved");
      await page.mouse.move(from, y);
      await page.mouse.down();
      await page.mouse.move((from + to) / 2, y, { steps: 3 });
      await page.mouse.move(to, y, { steps: 3 });
      await page.mouse.up();
      await page.waitForFunction((text) => document.getElementById("saved").dataset.state === "saved" && document.getElementById("saved").textContent !== text, before);
    };
    // Clear all by two drags, whatever the first segment was.
    await focused(page);
    for (let nth = 0; nth < at; nth += 1) await page.keyboard.press("ArrowDown");
    for (let nth = 0; nth < 10; nth += 1) await page.keyboard.press("ArrowLeft");
    for (let nth = 0; nth < 9; nth += 1) await page.keyboard.press("Shift+ArrowRight");
    await page.keyboard.press("Enter");
    await saved(page);
    if ((await label()).length === 1) {
      await page.keyboard.press("Enter");
      await page.waitForFunction((nth) => document.querySelectorAll(".row")[nth].querySelectorAll(".label").length === 0, at);
    }
    await drag(x(2.5), x(5.5));
    assert.deepEqual(await label(), [[2, 6]]);
    await drag(x(6), x(8));
    assert.deepEqual(await label(), [[2, 8]], "the end moved outwards");
    await drag(x(2), x(4));
    assert.deepEqual(await label(), [[4, 8]], "the start moved inwards");
    await page.keyboard.press("Backspace");
    clean(page);
  },

  async "the keyboard alone is enough"() {
    const page = await open(await desktop(), server);
    await page.waitForSelector(".figures");
    await page.keyboard.press("2");
    await page.waitForSelector("table.list tbody tr");
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#timeline");
    const name = await page.textContent("#video-name");
    await page.keyboard.press("?");
    await page.waitForSelector("#help-dialog");
    await page.keyboard.press("Escape");
    await page.waitForSelector("#help-dialog", { state: "detached" });
    await focused(page);
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    assert.match(await page.textContent("#detail"), /segment 2 /);
    await page.keyboard.press("Enter");
    const version = await saved(page);
    await shownVersion(page, version);
    await page.keyboard.press("c");
    await shownVersion(page, version + 1);
    assert.equal(sql(store, `SELECT count(*) AS n FROM user_labels WHERE video = '${name}'`)[0].n, 10);
    await page.keyboard.press("z");
    await shownVersion(page, version + 2);
    await page.keyboard.press("z");
    await shownVersion(page, version + 3);
    assert.equal(sql(store, `SELECT count(*) AS n FROM user_labels WHERE video = '${name}'`)[0].n, 0);
    await page.keyboard.press("h");
    await page.waitForSelector("#history li");
    await page.keyboard.press("n");
    await page.waitForFunction((own) => document.getElementById("video-name")?.textContent !== own, name);
    await page.keyboard.press("l");
    await page.waitForSelector("table.list");
    clean(page);
  },

  async "two pages: the second sees a conflict with both states and loses nothing"() {
    const context = await desktop();
    const name = sql(store, `SELECT video FROM videos WHERE segments = 10 ORDER BY video LIMIT 1`)[0].video;
    const [first, second] = [await open(context, server, `#/video/${name}`), await open(context, server, `#/video/${name}`)];
    for (const page of [first, second]) await page.waitForSelector(".row .ground");
    // The second page does not hear of versions, as if its network were slow.
    await second.route("**/api/info", (route) => route.abort());
    const click = async (page) => {
      const ground = await page.locator(".row").first().locator(".ground").boundingBox();
      await page.mouse.click(ground.x + ground.width * 0.75, ground.y + ground.height / 2);
    };
    await click(first);
    const version = await saved(first);
    await shownVersion(first, version);
    await click(second);
    await second.waitForSelector("#conflict");
    assert.match(await second.textContent("dialog"), /Nothing was saved/);
    assert.equal(sql(store, "SELECT max(version) AS v FROM versions")[0].v, version);
    await second.click("text=Keep what is there now");
    await shownVersion(second, version);
    await click(second);
    await shownVersion(second, version + 1);
    await second.unroute("**/api/info");
    clean(first);
    clean(second, "api/info", "ERR_FAILED", "409");
  },

  async "a class outside the weak label is added and labelled as one version, and undo takes both back"() {
    const page = await open(await desktop(), server, `#/video/${video}`);
    await page.waitForSelector(".row .ground");
    const weak = () => sql(store, `SELECT class FROM labels WHERE video = '${video}' GROUP BY class ORDER BY class`).map((row) => row.class);
    const before = weak();
    await focused(page);
    for (let nth = 0; nth < 3; nth += 1) await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Shift+ArrowRight");
    await page.keyboard.press("a");
    await page.waitForSelector("#add-class-form");
    const options = await page.locator("#add-class-form option").allTextContents();
    assert.ok(!options.some((name) => before.includes(name)), "classes of the weak label are not offered");
    await page.selectOption("#add-class-form select", "Violin_fiddle");
    await page.uncheck("#add-class-form input[name=visual]");
    await page.check("#add-class-form input[name=audio]");
    assert.deepEqual(await page.locator("#add-class-form input[type=number]").evaluateAll((nodes) => nodes.map((node) => node.value)), ["3", "4"]);
    await page.click("#add-class-save");
    const version = await saved(page);
    await shownVersion(page, version);
    assert.deepEqual(weak(), [...before, "Violin_fiddle"].sort());
    const labels = sql(store, `SELECT modality, segment, label FROM labels WHERE video = '${video}' AND class = 'Violin_fiddle' AND rule = 'user' ORDER BY segment`);
    assert.deepEqual(labels, [3, 4].map((segment) => ({ modality: "audio", segment, label: true })));
    assert.match(await page.textContent("#detail"), /audio Violin_fiddle, segments 3 to 4/);
    await page.click("#undo");
    await shownVersion(page, version + 1);
    assert.deepEqual(weak(), before);
    assert.equal(sql(store, `SELECT count(*) AS n FROM user_labels WHERE video = '${video}' AND class = 'Violin_fiddle'`)[0].n, 0);
    clean(page);
  },

  async "a person judges a sample by keys, sees the estimates, and goes on after a reload"() {
    const context = await desktop();
    const page = await open(context, server, "#/audit");
    await page.waitForSelector("#sample-form");
    await page.fill("#sample-form input[name=count]", "12");
    await page.click("#draw");
    await page.waitForSelector("#question");
    const verdicts = () => sql(store, "SELECT present, count(*) AS n FROM verdicts GROUP BY present ORDER BY present");
    const judged = (text) => page.waitForFunction((own) => document.getElementById("progress")?.textContent.startsWith(own), text);
    await judged("0 of 12");
    assert.match(await page.textContent("#question"), /^Is .* (heard|seen) in this segment\?$/);
    const first = await page.textContent("#place");
    const start = sql(store, "SELECT max(version) AS v FROM versions")[0].v;
    // Saves follow each other, and the page does not wait for them.
    const versions = (count) => page.waitForFunction((own) => document.getElementById("saved").textContent.startsWith(`Version ${own} `), start + count);
    for (const [nth, key] of ["y", "n", "u", "y", "n"].entries()) {
      await page.keyboard.press(key);
      await judged(`${nth + 1} of 12`);
    }
    await versions(5);
    const version = start + 5;
    await page.waitForFunction((own) => document.getElementById("estimates").dataset.version === String(own), version);
    assert.match(await page.textContent("#verdicts"), /^4$/);
    assert.deepEqual(verdicts().map((row) => row.n).sort(), [1, 2, 2]);
    assert.deepEqual(sql(store, `SELECT author, changed_labels FROM versions WHERE version = ${version}`), [{ author: "Browser", changed_labels: 0 }]);
    await page.keyboard.press("z");
    await judged("4 of 12");
    await versions(6);
    await page.click("#unsure");
    await judged("5 of 12 segments judged, 2 unsure");
    await versions(7);
    await page.reload();
    await judged("5 of 12 segments judged, 2 unsure");
    for (let nth = 0; nth < 5; nth += 1) await page.keyboard.press("ArrowLeft");
    assert.equal((await page.textContent("#place")).split(" · ")[0], first.split(" · ")[0]);
    assert.equal(await page.getAttribute("#yes", "aria-pressed"), "true");
    clean(page);
  },

  async "a segment of the audit is played alone"() {
    const context = await desktop();
    const page = await open(context, server, `#/audit?version=1&count=1500&by=class&seed=1`);
    await page.waitForSelector("#question");
    // The sample is in order of name, and only one video has media.
    for (let nth = 0; nth < 1500 && !(await page.textContent("#place")).includes(video); nth += 1) await page.keyboard.press("ArrowRight");
    await page.waitForFunction(() => document.querySelector(".stage video")?.readyState >= 2);
    const [onset, offset] = await page.evaluate(() => { const { dataset } = document.querySelector(".stage video"); return [Number(dataset.onset), Number(dataset.offset)]; });
    assert.equal(offset - onset, 1);
    await page.keyboard.press(" ");
    await page.waitForFunction(() => !document.querySelector(".stage video").paused);
    await page.waitForFunction(() => document.querySelector(".stage video").paused);
    const stopped = await page.evaluate(() => document.querySelector(".stage video").currentTime);
    assert.ok(Math.abs(stopped - offset) < 0.4, `stopped at ${stopped} s, the segment ends at ${offset} s`);
    clean(page);
  },

  async "a video plays in step with the timeline"() {
    const page = await open(await desktop(), server, `#/video/${video}`);
    await page.waitForFunction(() => document.querySelector("video")?.readyState >= 2);
    await focused(page);
    await page.keyboard.press("d");
    await page.keyboard.press("d");
    assert.equal(await page.evaluate(() => document.querySelector("video").playbackRate), 1.5);
    await page.keyboard.press(" ");
    await page.waitForFunction(() => document.querySelector("video").currentTime > 0.5);
    const place = () => page.evaluate(() => new DOMMatrix(getComputedStyle(document.querySelector(".playhead")).transform).m41);
    assert.ok(await place() > 0);
    await page.keyboard.press(" ");
    await page.waitForFunction(() => document.querySelector("video").paused);
    // Only the event at the cursor is played: the player stops where the event ends.
    const end = await page.evaluate(() => { const row = document.querySelector(".row"); const box = row.querySelector(".label"); return Math.round((Number(box.getAttribute("x")) + Number(box.getAttribute("width"))) / Number(row.getAttribute("width")) * 10); });
    assert.ok(end < 9, `the first event ends at ${end} s`);
    await page.keyboard.press("e");
    await page.waitForFunction((own) => { const player = document.querySelector("video"); player.playbackRate = 4; return !player.paused && player.currentTime < own; }, end);
    await page.waitForFunction(() => document.querySelector("video").paused);
    const stopped = await page.evaluate(() => document.querySelector("video").currentTime);
    assert.ok(Math.abs(stopped - end) < 0.8, `stopped at ${stopped} s, the event ends at ${end} s`);
    clean(page);
  },

  async "a phone has room for every page in both themes"() {
    for (const colorScheme of ["dark", "light"]) {
      const context = await chromium.newContext({ viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2, colorScheme });
      for (const [hash, wait] of [["", ".figures"], ["#/videos", "table.list tbody tr"], [`#/video/${video}`, ".row .ground"], ["#/audit", "#sample-form"], ["#/audit?version=1&count=20", "#question"]]) {
        const page = await open(context, server, hash);
        await page.waitForSelector(wait);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - screen.width);
        assert.ok(wide <= 0, `${hash} is ${wide} pixels too wide`);
        clean(page);
        await page.close();
      }
    }
  },

  async "every control has a name"() {
    const page = await open(await desktop(), server, `#/video/${video}`);
    await page.waitForSelector(".row .ground");
    for (const hash of [`#/video/${video}`, "#/videos", "#/audit", "#/"]) {
      await page.evaluate((own) => { location.hash = own; }, hash);
      await page.waitForFunction((own) => document.querySelector("main").dataset.page === own, hash.includes("video/") ? "video" : hash === "#/" ? "overview" : hash.slice(2));
      const bare = await page.evaluate(() => [...document.querySelectorAll("button, a, input, select, video, audio, [tabindex='0']")]
        .filter((node) => !(node.textContent.trim() || node.getAttribute("aria-label") || node.closest("label")?.textContent.trim()))
        .map((node) => node.outerHTML));
      assert.deepEqual(bare, [], hash);
    }
    clean(page);
  },
};

let failed = 0;
// The tests of other files begin with the store as it is now, whatever the tests before them do.
const fresh = path.join(folder, "fresh");
fs.cpSync(store, fresh, { recursive: true });
const shared = { folder, store, fresh, video, server, chromium };
for (const [name, test] of Object.entries({ ...tests, ...parts(shared), ...stages(shared), ...lost(shared), ...large(shared) })) {
  if (names.length > 0 && !names.some((own) => name.includes(own))) continue;
  try {
    await test();
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n${error.stack}`);
  }
}
if (pictures) await screenshots({ ...shared, media });
await chromium.close();
assert.equal(await server.end(), 0, "the server ends when it is asked to");
run("check", "--store", store);
process.exit(failed > 0 ? 1 : 0);
