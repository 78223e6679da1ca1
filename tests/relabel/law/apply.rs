//! One run of a script: writes its files, and computes its flags and the inputs after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use vaplan::ingest::npy;
use vaplan::world::changes::{Changes, WeakEdit};
use vaplan::world::settings::{ClassThreshold, RuleName};
use vaplan_schemas::Modality;

use super::files::{FeatureRows, WIDE, WIDTH, write_npy, write_parquet};
use super::inputs::{ActiveEpochs, EpochPredictionInput, NAMES, StoreInputs, Weak, key, name, prompt_of};
use super::script::Step;

/// Thresholds: relative to uniform, and of the logit.
fn level(rule: RuleName, level: u8) -> f64 {
    match rule {
        RuleName::Softmax => 0.7 + 0.12 * f64::from(level),
        RuleName::Logit => 8.0 * (f64::from(level) - 2.0),
    }
}

impl StoreInputs {
    /// What to ask for, with the files it names in `changes` (a folder) and among the features.
    pub(crate) fn change(&mut self, steps: &[Step], changes: &Path) -> Changes {
        std::fs::create_dir_all(changes).unwrap();
        let mut asked = Changes {
            allow_missing: true,
            ..Changes::default()
        };
        for step in steps {
            self.back(step, &mut asked);
        }
        let before = self.now.clone();
        // Of two lists, the last counts.
        let list = |step: &&Step| matches!(step, Step::Classes(..));
        if let Some(step) = steps.iter().rev().find(list) {
            self.classes(step, changes, &mut asked);
        }
        for step in steps {
            self.prompts(step, changes, &mut asked);
        }
        self.settings(&before, steps, &mut asked);
        for step in steps {
            self.features(step, &mut asked);
        }
        let names: BTreeSet<String> = self.videos.keys().cloned().collect();
        for (nth, step) in steps.iter().enumerate() {
            self.weak(step, &changes.join(format!("weak{nth}.csv")), &mut asked);
        }
        self.truth.retain(|(video, ..)| self.videos.contains_key(video));
        self.truth
            .retain(|(_, _, class, ..)| self.now.classes.contains(class));
        let gone: Vec<&String> = names
            .iter()
            .filter(|name| !self.videos.contains_key(*name))
            .collect();
        for (nth, step) in steps.iter().enumerate() {
            self.mark(step, &changes.join(format!("user{nth}.csv")), &mut asked);
        }
        self.marks.retain(|(video, ..), _| !gone.contains(&video));
        for own in self.predictions.values_mut() {
            own.tracks.retain(|(video, _), _| !gone.contains(&video));
        }
        let first = self.active.is_none();
        self.epoch(steps, changes, &mut asked);
        self.denoise(steps, first, &mut asked);
        asked
    }

    fn back(&mut self, step: &Step, asked: &mut Changes) {
        let Step::Back(nth) = step else { return };
        let (&version, then) = self.history.iter().nth(nth % self.history.len()).unwrap();
        if then.classes == self.now.classes {
            self.now = then.clone();
            asked.to_version = Some(version);
        }
    }

    fn classes(&mut self, step: &Step, changes: &Path, asked: &mut Changes) {
        let &Step::Classes(ref order, seed) = step else {
            return;
        };
        let old = self.now.classes.clone();
        self.now.classes = order.iter().map(|&class| NAMES[class].to_owned()).collect();
        for modality in Modality::ALL {
            let prompts = &mut self.now.prompts[modality.index()];
            let width = prompts[&old[0]].len();
            for class in self.now.classes.iter().filter(|class| !old.contains(class)) {
                let own = prompt_of(modality, class, seed, width);
                let path = changes.join(format!("new_{modality}_{class}.npy"));
                npy::write_f32(&path, &[1, width], &own).unwrap();
                asked.rows.read_prompt(modality, class, &path).unwrap();
                prompts.insert(class.clone(), own);
            }
            prompts.retain(|class, _| self.now.classes.contains(class));
        }
        for weak in self.videos.values_mut() {
            weak.classes.retain(|class| self.now.classes.contains(class));
        }
        let path = changes.join("classes.txt");
        std::fs::write(&path, self.now.classes.join("\n") + "\n").unwrap();
        asked.rows.read_classes(&path).unwrap();
    }

    fn prompts(&mut self, step: &Step, changes: &Path, asked: &mut Changes) {
        match *step {
            Step::Texts(modality, seed, wide) => {
                let width = if wide { WIDE } else { WIDTH };
                for class in self.now.classes.clone() {
                    let own = prompt_of(modality, &class, seed, width);
                    self.now.prompts[modality.index()].insert(class, own);
                }
                let path = changes.join(format!("texts_{modality}.npy"));
                self.write_texts(&path, modality);
                asked.rows.read_text(modality, &path).unwrap();
                asked.rows.prompts.retain(|prompt| prompt.modality != modality);
            }
            Step::Prompt(modality, class, seed) if self.has(NAMES[class]) => {
                let own = self.now.prompts[modality.index()].get_mut(NAMES[class]).unwrap();
                if own.len() != WIDTH {
                    return;
                }
                *own = prompt_of(modality, NAMES[class], seed, WIDTH);
                let path = changes.join(format!("prompt_{modality}_{class}.npy"));
                npy::write_f32(&path, &[WIDTH], own).unwrap();
                asked.rows.read_prompt(modality, NAMES[class], &path).unwrap();
            }
            _ => {}
        }
    }

    /// As METHOD and the help say: what is not named stays, a new class or rule takes the defaults.
    fn settings(&mut self, before: &super::inputs::Settled, steps: &[Step], asked: &mut Changes) {
        let flags = &mut asked.settings;
        let mut rule = before.rule;
        for step in steps {
            if let Step::Rule { logit, .. } = step {
                rule = if *logit {
                    RuleName::Logit
                } else {
                    RuleName::Softmax
                };
                flags.rule = Some(rule);
            }
        }
        let mut all: [Option<f64>; 2] = [None; 2];
        let mut scale: [Option<f64>; 2] = [None; 2];
        let new = |class: &String| !before.classes.contains(class);
        if rule == RuleName::Logit && self.now.classes.iter().any(new) {
            all = [Some(0.0); 2];
        }
        for step in steps {
            match *step {
                Step::Rule { level: own, .. } => all = [Some(level(rule, own)); 2],
                Step::Candidates(rule) => {
                    self.now.candidates = rule;
                    flags.candidates = Some(rule);
                }
                Step::AllThresholds(modality, own) => all[modality.index()] = Some(level(rule, own)),
                Step::Scale(modality, own) => {
                    scale[modality.index()] = Some(match rule {
                        RuleName::Softmax => 0.5 + f64::from(own),
                        RuleName::Logit => 20.0 * f64::from(own + 1),
                    });
                }
                _ => {}
            }
        }
        [flags.audio_threshold, flags.visual_threshold] = all;
        [flags.audio_scale, flags.visual_scale] = scale;
        for modality in Modality::ALL {
            let own = modality.index();
            self.now.scale[own] = scale[own].unwrap_or(match (rule == before.rule, rule, modality) {
                (true, ..) => before.scale[own],
                (false, RuleName::Softmax, _) => 1.0,
                (false, RuleName::Logit, Modality::Visual) => 100.0,
                (false, RuleName::Logit, Modality::Audio) => 18.66,
            });
            let kept = |class: &String| before.thresholds[own].get(class).copied();
            let default = if modality == Modality::Audio { 0.95 } else { 1.025 };
            let threshold = |class: &String| all[own].or(kept(class)).unwrap_or(default);
            let classes = self.now.classes.iter();
            self.now.thresholds[own] = classes.map(|class| (class.clone(), threshold(class))).collect();
        }
        self.now.rule = rule;
        for step in steps {
            if let &Step::Threshold(modality, class, own) = step
                && self.has(NAMES[class])
            {
                let threshold = level(rule, own);
                self.now.thresholds[modality.index()].insert(NAMES[class].to_owned(), threshold);
                asked.thresholds.push(ClassThreshold {
                    modality,
                    class: NAMES[class].into(),
                    threshold,
                });
            }
        }
    }

    fn features(&mut self, step: &Step, asked: &mut Changes) {
        match step {
            Step::Npy {
                video,
                full,
                file,
                folder,
            } => {
                let key = key(*video, *full);
                let path = self.npy(&key);
                match file {
                    Some(Some(content)) => write_npy(&path, &content.rows(key, Modality::Audio)),
                    Some(None) => std::fs::write(&path, "no npy").unwrap(),
                    None => drop(std::fs::remove_file(&path)),
                }
                let named = if *folder {
                    self.features[0][0].clone()
                } else {
                    path
                };
                asked.features[0].push(named);
            }
            Step::Shard { shard, rows, folder } => {
                let path = self.shard(*shard);
                match rows {
                    Some(rows) => {
                        let rows: Vec<FeatureRows> = rows
                            .iter()
                            .map(|(video, full, content)| content.rows(key(*video, *full), Modality::Visual))
                            .collect();
                        write_parquet(&path, "feature", &rows);
                    }
                    None => drop(std::fs::remove_file(&path)),
                }
                let named = if *folder {
                    self.features[1][0].clone()
                } else {
                    path
                };
                asked.features[1].push(named);
            }
            Step::Both { rows, of } => {
                let path = self.both();
                let there = |inputs: &StoreInputs, modality: Modality| {
                    inputs.features[modality.index()].contains(&path)
                };
                let removed = asked.removed.iter().flatten().any(|gone| *gone == path);
                match rows {
                    Some(_) if removed => {}
                    Some(rows) => {
                        let rows: Vec<FeatureRows> = rows
                            .iter()
                            .map(|(video, modality, content)| content.rows(key(*video, true), *modality))
                            .collect();
                        write_parquet(&path, "feature", &rows);
                        for &modality in of {
                            asked.features[modality.index()].push(path.clone());
                            if !there(self, modality) {
                                self.features[modality.index()].push(path.clone());
                            }
                        }
                        // A file that changed is named wherever it counts.
                        for modality in Modality::ALL {
                            if there(self, modality) && !asked.features[modality.index()].contains(&path) {
                                asked.features[modality.index()].push(path.clone());
                            }
                        }
                    }
                    None => self.unname(asked, true),
                }
            }
            Step::Unname => self.unname(asked, false),
            _ => {}
        }
    }

    fn unname(&mut self, asked: &mut Changes, delete: bool) {
        let path = self.both();
        let named = asked.features.iter().flatten().any(|named| *named == path);
        let there = self.features.iter().flatten().any(|input| *input == path);
        let removed = asked.removed.iter().flatten().any(|gone| *gone == path);
        if named || removed || !there {
            return;
        }
        if delete {
            std::fs::remove_file(&path).unwrap();
        }
        for modality in Modality::ALL {
            if self.features[modality.index()].contains(&path) {
                // A file that went may be named either way.
                let list = if delete {
                    &mut asked.features
                } else {
                    &mut asked.removed
                };
                list[modality.index()].push(path.clone());
                self.features[modality.index()].retain(|input| *input != path);
            }
        }
    }

    fn weak(&mut self, step: &Step, path: &Path, asked: &mut Changes) {
        let Step::Weak(edit, rows) = step else { return };
        let mut text = "filename,event_labels,split\n".to_owned();
        let mut seen = BTreeSet::new();
        for (video, classes, split) in rows {
            if !seen.insert(video) {
                continue;
            }
            let name = name(*video);
            let named: Vec<&str> = classes.iter().map(|&class| NAMES[class]).collect();
            let written = split.map_or("", |split| split.as_str());
            writeln!(text, "{name},\"{}\",{written}", named.join(",")).unwrap();
            // Half a label would be another label.
            if !named.iter().all(|class| self.has(class)) {
                continue;
            }
            let named: BTreeSet<String> = named.into_iter().map(str::to_owned).collect();
            let now = self.videos.get(&name).cloned();
            if now.is_none() && *edit == WeakEdit::Remove {
                continue;
            }
            let before = now.unwrap_or(Weak {
                classes: BTreeSet::new(),
                split: vaplan_schemas::rows::Split::Train,
            });
            let classes = match edit {
                WeakEdit::Set => named,
                WeakEdit::Add => before.classes.union(&named).cloned().collect(),
                WeakEdit::Remove if named.is_empty() => {
                    self.videos.remove(&name);
                    continue;
                }
                WeakEdit::Remove => before.classes.difference(&named).cloned().collect(),
            };
            let split = split.unwrap_or(before.split);
            self.videos.insert(name, Weak { classes, split });
        }
        std::fs::write(path, text).unwrap();
        asked.rows.read_weak(*edit, path).unwrap();
    }

    fn mark(&mut self, step: &Step, path: &Path, asked: &mut Changes) {
        let &Step::Mark {
            video,
            modality,
            class,
            from,
            count,
            label,
        } = step
        else {
            return;
        };
        let (name, class) = (name(video), NAMES[class]);
        let (first, end) = (u32::from(from), u32::from(from + count));
        let said = label.map_or("withdraw", |label| if label { "1" } else { "0" });
        let text = if count == 1 {
            format!("video,modality,class,label,segment\n{name},{modality},{class},{said},{first}\n")
        } else {
            format!(
                "video,modality,class,label,onset,offset\n{name},{modality},{class},{said},{first},{end}\n"
            )
        };
        std::fs::write(path, text).unwrap();
        asked.rows.read_user(path).unwrap();
        if !self.has(class) || !self.videos.contains_key(&name) {
            return;
        }
        for segment in first..end {
            let cell = (name.clone(), modality, class.to_owned(), segment);
            match label {
                Some(label) => drop(self.marks.insert(cell, label)),
                None => drop(self.marks.remove(&cell)),
            }
        }
    }

    fn epoch(&mut self, steps: &[Step], changes: &Path, asked: &mut Changes) {
        let own = steps.iter().rev().find_map(|step| match step {
            Step::Epoch {
                later,
                tracks,
                parquet,
            } => Some((*later, tracks.clone(), *parquet)),
            _ => None,
        });
        if own.is_none() && self.choose(steps, asked) {
            return;
        }
        let classes = self.now.classes.clone();
        // A class that no epoch knew yet comes with one.
        let lacks = |active: &ActiveEpochs| classes.iter().any(|class| !active.classes.contains(class));
        let lacks = self.active.as_ref().is_some_and(lacks);
        let Some((later, mut tracks, parquet)) = own.or(lacks.then(|| (1, Vec::new(), false))) else {
            return;
        };
        tracks.push((0, true, Modality::Visual, 4, 3));
        let last = self.active.as_ref().and_then(|active| active.epochs.last());
        let epoch = match last {
            None => 1 + u64::from(later),
            Some(last) => (last + u64::from(later)).saturating_sub(1).max(1),
        };
        // An epoch has one list of classes.
        let other = |own: &EpochPredictionInput| !own.tracks.is_empty() && own.classes != classes;
        let epoch = match self.predictions.get(&epoch) {
            Some(own) if other(own) => 1 + self.predictions.keys().max().unwrap(),
            _ => epoch,
        };
        let mut active = match &self.active {
            Some(active) if active.classes == classes => active.clone(),
            _ => ActiveEpochs {
                epochs: BTreeSet::new(),
                classes: classes.clone(),
            },
        };
        active.epochs.insert(epoch);
        self.take(epoch, &tracks, parquet, changes, asked);
        self.active = Some(active);
    }

    /// An epoch of the store that has all classes; false: there is none, or none is asked for.
    fn choose(&mut self, steps: &[Step], asked: &mut Changes) -> bool {
        let nth = steps.iter().rev().find_map(|step| match step {
            Step::Choose(nth) => Some(*nth),
            _ => None,
        });
        let knows =
            |own: &EpochPredictionInput| self.now.classes.iter().all(|class| own.classes.contains(class));
        let own = self
            .predictions
            .iter()
            .filter(|(_, own)| !own.tracks.is_empty() && knows(own));
        let own: Vec<(u64, Vec<String>)> = own.map(|(epoch, own)| (*epoch, own.classes.clone())).collect();
        let Some(nth) = nth.filter(|_| !own.is_empty()) else {
            return false;
        };
        let (epoch, classes) = own[nth % own.len()].clone();
        asked.epoch = Some(epoch);
        self.active = Some(ActiveEpochs {
            epochs: BTreeSet::from([epoch]),
            classes,
        });
        true
    }

    fn take(
        &mut self,
        epoch: u64,
        tracks: &[(usize, bool, Modality, u8, u8)],
        parquet: bool,
        changes: &Path,
        asked: &mut Changes,
    ) {
        let classes = self.now.classes.len();
        let mut rows: BTreeMap<(Modality, String), FeatureRows> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for &(video, full, modality, segments, pattern) in tracks {
            let key = key(video, full);
            let values: Vec<f32> = (0..usize::from(segments) * classes)
                .map(|cell| probability(cell, pattern))
                .collect();
            let meaning = self.meaning(&key);
            // Each video once, by whatever key: which of two counts is told elsewhere.
            if rows.contains_key(&(modality, key.clone()))
                || meaning.is_some() && !known.insert((modality, meaning.clone()))
            {
                continue;
            }
            let own = FeatureRows {
                key: key.clone(),
                modality,
                width: classes,
                values: values.clone(),
            };
            rows.insert((modality, key), own);
            if let Some(video) = meaning {
                let own = self.predictions.entry(epoch).or_default();
                own.classes.clone_from(&self.now.classes);
                own.tracks.insert((video, modality), values);
            }
        }
        let rows: Vec<FeatureRows> = rows.into_values().collect();
        let path = write_predictions(&changes.join("epoch"), parquet, &rows);
        asked.rows.read_predictions(&path, epoch).unwrap();
    }

    fn denoise(&mut self, steps: &[Step], first: bool, asked: &mut Changes) {
        let asks = steps.iter().rev().find_map(|step| match step {
            Step::Denoise { modalities, rule } => Some((modalities.clone(), *rule)),
            _ => None,
        });
        let named = asks.as_ref().map(|(_, rule)| *rule);
        if let Some((modalities, rule)) = asks {
            let asked = &mut asked.denoising;
            asked.rule = Some(rule.name().to_owned());
            asked.parameters = rule.parameters();
            asked.modalities = modalities;
        }
        let comes = asked.rows.predictions.is_some() && asked.to_version.is_none();
        let first = asked.epoch.is_some() || first && comes;
        let asked = &mut asked.denoising;
        let off = self.now.denoising == [None; 2];
        for modality in Modality::ALL {
            let own = &mut self.now.denoising[modality.index()];
            let on = match &asked.modalities {
                Some(modalities) => modalities.contains(&modality),
                None => own.is_some() || (off && first && modality == Modality::Visual),
            };
            *own = on.then(|| named.or(*own).unwrap_or_default());
        }
        // A rule without a modality that it applies to is refused.
        if self.now.denoising == [None; 2] {
            asked.rule = None;
            asked.parameters.clear();
        }
    }
}

/// Sure and unsure, right and wrong, and what is no probability.
fn probability(cell: usize, pattern: u8) -> f32 {
    const SOME: [f32; 8] = [0.001, 0.999, 0.02, 0.8, 0.999, 0.3, 0.001, 0.5];
    let nth = (cell * (3 + usize::from(pattern)) + usize::from(pattern)) % 11;
    match pattern {
        7 if nth == 5 => f32::NAN,
        6 if nth == 5 => 1.5,
        _ => SOME[nth % 8],
    }
}

/// In one of the two forms.
pub(crate) fn write_predictions(path: &Path, parquet: bool, rows: &[FeatureRows]) -> PathBuf {
    if parquet {
        let path = path.with_extension("parquet");
        write_parquet(&path, "probability", rows);
        return path;
    }
    for rows in rows {
        let folder = path.join(rows.modality.as_str());
        std::fs::create_dir_all(&folder).unwrap();
        write_npy(&folder.join(format!("{}.npy", rows.key)), rows);
    }
    path.to_owned()
}
