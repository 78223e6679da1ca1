// F-scores by stage and class, and flips by class and epoch, on a store with predictions of two epochs.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { clean, open, run, serve, sql, writeNpy } from "./harness.mjs";

export default function tests({ folder, fresh, chromium }) {
  const desktop = () => chromium.newContext({ viewport: { width: 1280, height: 800 } });

  /** Predictions that agree with the labels, but for some segments of each third video: each epoch contradicts others. */
  function predictions(store, epoch) {
    const out = path.join(folder, `epoch${epoch}`);
    const classes = sql(store, "SELECT DISTINCT class, position FROM classes ORDER BY position").map((row) => row.class);
    const labels = new Set(sql(store, "SELECT video, modality, class, segment FROM labels WHERE score > threshold").map((row) => [row.video, row.modality, row.class, row.segment].join()));
    for (const modality of ["audio", "visual"]) {
      fs.mkdirSync(path.join(out, modality), { recursive: true });
      sql(store, "SELECT video, segments FROM videos WHERE segments > 0 ORDER BY video").forEach(({ video, segments }, nth) => {
        const rows = Array.from({ length: segments }, (_, segment) => classes.map((name) => {
          const wrong = nth % 3 === 0 && (segment === 3 * epoch || segment === 5);
          return labels.has([video, modality, name, segment].join()) !== wrong ? 0.97 : 0.03;
        }));
        writeNpy(path.join(out, modality, `${video}.npy`), rows);
      });
    }
    return out;
  }

  let made = null;
  /** The store, which the first test makes. */
  function store() {
    if (made) return made;
    made = path.join(folder, "stages");
    fs.cpSync(fresh, made, { recursive: true });
    for (const epoch of [1, 2]) run("relabel", "--store", made, "--predictions", predictions(made, epoch), "--epoch", String(epoch), "--denoise", "both", "--quiet");
    return made;
  }

  const plot = (page, title) => page.locator(`.plot[aria-label="${title}"]`);

  /** The table behind a plot: for each row, the cells by the name of their column. */
  const tableOf = (page, title) => plot(page, title).evaluate((node) => {
    const head = [...node.querySelectorAll("thead th")].map((own) => own.textContent);
    return Object.fromEntries([...node.querySelectorAll("tbody tr")].map((row) => {
      const [name, ...values] = [...row.children].map((own) => own.textContent);
      return [name, Object.fromEntries(values.map((value, at) => [head[at + 1], value === "–" ? null : Number(value.replaceAll(",", ""))]))];
    }));
  });

  return {
    async "the overview has the F-scores of every stage and class that eval gives, for each split"() {
      const own = await serve(store(), "--read-only");
      const page = await open(await desktop(), own);
      await page.waitForSelector("#stage-scores .plot svg");
      const evaluated = (split, ...more) => {
        const { per_class: classes } = JSON.parse(run("eval", "--store", store(), "--split", split, "--per-class", "--format", "json", ...more));
        return new Map(classes.map((row) => [row.class, row]));
      };
      for (const split of ["val", "test"]) {
        await page.click(`#stage-scores button[data-split=${split}]`);
        const stages = { "labels of this version": evaluated(split) };
        for (const epoch of [1, 2]) stages[`epoch ${epoch}`] = evaluated(split, "--epoch", String(epoch), "--protocol", "segment");
        for (const modality of ["audio", "visual"]) {
          const shown = await tableOf(page, `F by class and stage: ${modality}, ${split}`);
          for (const [stage, classes] of Object.entries(stages)) {
            let compared = 0;
            for (const [name, scores] of classes) {
              const expected = scores[modality];
              const found = shown[name]?.[stage] ?? null;
              if (expected === null) assert.equal(found, null, `${split} ${modality} ${stage} ${name}`);
              else assert.ok(Math.abs(found - expected) <= 0.05, `${split} ${modality} ${stage} ${name}: ${found} on the page, ${expected} by eval`);
              compared += expected === null ? 0 : 1;
            }
            assert.ok(compared > 8, `${compared} classes`);
          }
          // Before denoising, the labels of another stage.
          assert.notDeepEqual(...["PLG, before denoising", "labels of this version"].map((stage) => Object.values(shown).map((row) => row[stage])));
          // The plot of marks has the same numbers, and the parser that the labels are compared with.
          const marks = await tableOf(page, `F by class: ${modality}, ${split}`);
          for (const [name, row] of Object.entries(marks)) assert.deepEqual([row["labels of this version"], row["parser, epoch 2"]], [shown[name]["labels of this version"], shown[name]["epoch 2"]]);
        }
      }
      clean(page);
      assert.equal(await own.end(), 0);
    },

    async "the overview has the flips of every class and epoch that label_changes has"() {
      const own = await serve(store(), "--read-only");
      const page = await open(await desktop(), own);
      await page.waitForSelector("#flips .plot svg");
      let total = 0;
      for (const modality of ["audio", "visual"]) {
        const expected = {};
        for (const { class: name, epoch, to, n } of sql(store(), `SELECT class, why['epoch'] AS epoch, "to", count(*) AS n FROM label_changes WHERE rule = 'pld' AND modality = '${modality}' GROUP BY class, epoch, "to"`)) {
          expected[name] ??= Object.fromEntries([1, 2].flatMap((own) => [[`epoch ${own}: set by PLD`, 0], [`epoch ${own}: cleared by PLD`, 0]]));
          expected[name][`epoch ${epoch}: ${to ? "set" : "cleared"} by PLD`] = n;
          total += n;
        }
        assert.ok(Object.keys(expected).length > 3, `${modality}: ${JSON.stringify(expected)}`);
        assert.deepEqual(await tableOf(page, `Labels that PLD changed, by class and epoch: ${modality}`), expected);
      }
      assert.ok(total > 20, `${total} flips`);
      clean(page);
      assert.equal(await own.end(), 0);
    },

    async "rows of classes can be read, and each cell has a tooltip, on every screen and in the report"() {
      const own = await serve(store(), "--read-only");
      const file = path.join(folder, "stages.html");
      run("report", "--store", store(), "--out", file);
      const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
      for (const [look, address] of [[{ viewport: { width: 1280, height: 800 } }, null], [{ ...phone, colorScheme: "dark" }, null], [phone, pathToFileURL(file).href]]) {
        const context = await chromium.newContext(look);
        const page = address ? await context.newPage() : await open(context, own);
        if (address) await page.goto(address);
        await page.waitForSelector("#stage-scores .plot svg");
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), "nothing is wider than the screen");
        const plots = page.locator(".of-classes .plot");
        assert.equal(await plots.count(), 6, "marks and cells of the scores, and cells of the flips, of both modalities");
        for (const own of await plots.all()) {
          const title = await own.getAttribute("aria-label");
          const names = await own.locator(".row-name").evaluateAll((nodes) => nodes.map((node) => node.getBoundingClientRect()).map(({ x, y, height }) => ({ x, y, height })));
          assert.ok(names.length > 3 && names.every(({ x, y, height }, nth) => x >= 0 && (nth === 0 || y - names[nth - 1].y >= height)), `${title}: the names are inside the page and apart`);
          const target = own.locator(".cell, .symbol").last();
          await target.scrollIntoViewIfNeeded();
          const box = await target.boundingBox();
          if (look.hasTouch) await page.touchscreen.tap(box.x + box.width / 2, box.y + box.height / 2);
          else await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
          const tip = own.locator(".tip:not([hidden])");
          await tip.waitFor();
          assert.match(await tip.textContent(), /\d/, title);
          const [inner, outer] = [await tip.boundingBox(), await own.boundingBox()];
          assert.ok(inner.x >= outer.x - 1 && inner.x + inner.width <= outer.x + outer.width + 1, `${title}: the tooltip is inside the plot`);
        }
        if (!address) clean(page);
        await context.close();
      }
      assert.equal(await own.end(), 0);
    },

    async "a new version does not close the table or the split that a person chose"() {
      const copy = path.join(folder, "stages-saved");
      fs.cpSync(store(), copy, { recursive: true });
      const own = await serve(copy);
      const page = await open(await desktop(), own);
      await page.click("#stage-scores button[data-split=test]");
      const title = "F by class and stage: audio, test";
      await plot(page, title).locator("summary").click();
      const [{ video, modality, class: name }] = sql(copy, "SELECT video, modality, class FROM labels ORDER BY video LIMIT 1");
      const version = await page.evaluate(async (edit) => {
        const { version } = await (await fetch("/api/info")).json();
        const answer = await fetch("/api/save", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ version, edits: [edit] }) });
        return (await answer.json()).version;
      }, { video, modality, class: name, start: 0, end: 1, label: true });
      await page.waitForFunction((own) => document.querySelector(".of-version").dataset.version === String(own), version);
      assert.ok(await plot(page, title).locator("details").evaluate((node) => node.open));
      clean(page);
      assert.equal(await own.end(), 0);
    },
  };
}
