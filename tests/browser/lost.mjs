// Saves whose answer does not come: the server is killed, and started again on the same port with another token.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { clean, open, serve, sql } from "./harness.mjs";

// What the browser says about a server that is gone or has another token.
const LOST = ["Failed to load resource", "ERR_"];

export default function tests({ folder, fresh, chromium }) {
  let copies = 0;
  const desktop = () => chromium.newContext({ viewport: { width: 1280, height: 800 } });

  /** A store of its own, served on a port that stays. */
  async function served() {
    const own = path.join(folder, `lost${copies += 1}`);
    fs.cpSync(fresh, own, { recursive: true });
    return { own, server: await serve(own) };
  }

  const name = (own) => sql(own, "SELECT video FROM videos WHERE segments = 10 ORDER BY video LIMIT 1")[0].video;
  const versions = (own) => sql(own, "SELECT max(version) AS v FROM versions")[0].v;
  const user = (own) => sql(own, "SELECT segment FROM user_labels ORDER BY segment").map((row) => row.segment);

  async function click(page, segment) {
    const ground = await page.locator(".row").first().locator(".ground").boundingBox();
    await page.mouse.click(ground.x + ground.width * (segment + 0.5) / 10, ground.y + ground.height / 2);
  }

  const bar = (page, text) => page.waitForFunction((own) => { const box = document.getElementById("unsaved"); return !box.hidden && box.textContent.includes(own); }, text);
  /** Waits until nothing is left to save: all of it was saved (state `saved`) or discarded (no state). */
  const gone = (page, state = "saved") => page.waitForFunction((own) => document.getElementById("unsaved").hidden && document.getElementById("saved").dataset.state === own &&
    document.querySelectorAll(".row .unsaved").length === 0, state);

  return {
    async "a server is killed in the middle of a save: the label is shown as not saved, and is saved once when the server is back"() {
      const { own, server } = await served();
      const context = await desktop();
      const start = versions(own);
      const page = await open(context, server, `#/video/${name(own)}`);
      await page.waitForSelector(".row .ground");
      server.stop();
      await click(page, 3);
      await page.waitForFunction(() => document.getElementById("saved").textContent === "Saving");
      assert.equal(await page.locator(".row .unsaved").count(), 1, "the label is marked before the server answers");
      await server.kill();
      await bar(page, "1 change is not saved");
      assert.match(await page.textContent("#unsaved"), new RegExp(`still running\\? Start it again with --port ${server.port}`));
      assert.equal(await page.textContent("#saved"), "Not saved");
      assert.match(await page.textContent("#detail"), /not saved yet/);
      // A later correction waits behind the first one, and an undo waits for both.
      await click(page, 6);
      await bar(page, "2 changes are not saved");
      await page.keyboard.press("z");
      await page.waitForSelector(".toast");
      assert.equal(await page.locator(".row .unsaved").count(), 2);
      await page.click("#try-again");
      await bar(page, "2 changes are not saved");
      assert.deepEqual([versions(own), user(own)], [start, []], "nothing is in the store");
      const again = await serve(own, "--port", server.port);
      await bar(page, "new token");
      // The URL of the new server, opened in another tab, signs this tab in, too.
      await open(context, again, "#/videos");
      await gone(page);
      assert.deepEqual([versions(own), user(own)], [start + 2, [3, 6]]);
      const changes = sql(own, `SELECT segment, count(*) AS n FROM label_changes WHERE rule = 'user' GROUP BY segment ORDER BY segment`);
      assert.deepEqual(changes, [{ segment: 3, n: 1 }, { segment: 6, n: 1 }], "each label changed once");
      assert.equal(await page.evaluate(() => sessionStorage.getItem("vaplan.unsaved")), null);
      await page.click("#undo");
      await page.waitForFunction((version) => document.getElementById("shown-version").textContent.includes(`version ${version}`), start + 3);
      assert.deepEqual(user(own), [3]);
      clean(page, ...LOST);
      assert.equal(await again.end(), 0);
    },

    async "an answer is lost after the commit: the page asks again, and the store has one version and one undo"() {
      const { own, server } = await served();
      const context = await desktop();
      const start = versions(own);
      const page = await open(context, server, `#/video/${name(own)}`);
      await page.waitForSelector(".row .ground");
      await page.route("**/api/save", async (route) => {
        const answer = await route.fetch();
        assert.equal(answer.status(), 200);
        await server.kill();
        await route.abort();
      }, { times: 1 });
      await click(page, 4);
      await bar(page, "1 change is not saved");
      assert.equal(versions(own), start + 1, "the server had committed the version");
      const again = await serve(own, "--port", server.port);
      await open(context, again, "#/videos");
      await gone(page);
      assert.equal(await page.textContent("#saved"), "Saved before");
      assert.deepEqual([versions(own), user(own)], [start + 1, [4]]);
      await page.click("#undo");
      await page.waitForFunction((version) => document.getElementById("shown-version").textContent.includes(`version ${version}`), start + 2);
      assert.deepEqual(user(own), []);
      clean(page, ...LOST);
      assert.equal(await again.end(), 0);
    },

    async "a page that is opened again has what it did not save, and sends it to the same store only"() {
      const { own, server } = await served();
      const context = await desktop();
      const start = versions(own);
      const hash = `#/video/${name(own)}`;
      const page = await open(context, server, hash);
      page.on("dialog", (dialog) => dialog.accept());
      await page.waitForSelector(".row .ground");
      await server.kill();
      await click(page, 2);
      await bar(page, "1 change is not saved");
      const other = await served();
      await other.server.kill();
      const wrong = await serve(other.own, "--port", server.port);
      await page.goto(wrong.url + hash);
      await bar(page, "now serves");
      assert.equal(await page.locator(".row .unsaved").count(), 1);
      await page.click("#try-again");
      assert.equal(versions(other.own), start, "another store does not get the label");
      await wrong.kill();
      const again = await serve(own, "--port", server.port);
      await page.goto(again.url + hash);
      await gone(page);
      assert.deepEqual([versions(own), user(own)], [start + 1, [2]]);
      await again.kill();
      // What is discarded is gone from the page, and is not sent later.
      await click(page, 7);
      await bar(page, "1 change is not saved");
      await page.click("#discard");
      await gone(page, "");
      const last = await serve(own, "--port", server.port);
      await page.goto(last.url + hash);
      await page.waitForSelector(".row .user");
      assert.deepEqual([versions(own), user(own)], [start + 1, [2]]);
      clean(page, ...LOST);
      assert.equal(await last.end(), 0);
    },

    async "a verdict without an answer is shown as not saved, and is saved once"() {
      const { own, server } = await served();
      const context = await desktop();
      const start = versions(own);
      const page = await open(context, server, `#/audit?version=${start}&count=5&by=class&seed=1`);
      await page.waitForSelector("#question");
      const progress = (text) => page.waitForFunction((wanted) => document.getElementById("progress").textContent === wanted, text);
      server.stop();
      await page.keyboard.press("y");
      await server.kill();
      await progress("1 of 5 segments judged, 1 not saved");
      await page.keyboard.press("ArrowLeft");
      assert.match(await page.textContent("#place"), /your verdict: Yes, not saved yet/);
      assert.equal(versions(own), start);
      const again = await serve(own, "--port", server.port);
      await open(context, again, "#/videos");
      await gone(page);
      await progress("1 of 5 segments judged");
      assert.deepEqual(sql(own, "SELECT present FROM verdicts"), [{ present: true }]);
      assert.equal(versions(own), start + 1);
      clean(page, ...LOST);
      assert.equal(await again.end(), 0);
    },
  };
}
