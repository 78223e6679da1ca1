//! The final table: how good labels and parsers are, against dense truth.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::ledger::{BOTH, Ledger, Line, PLD, PLE, PLG, RunStage};
use crate::calibrate::gate::DenoisingGain;
use crate::parser::settings::METRICS;
use crate::parser::train::MODEL;
use crate::parser::training::BEST;

/// The final table.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreTable {
    /// Names and scores of the rows: labels first, then parsers.
    pub rows: Vec<(String, Line)>,
    /// Name, best epoch, and folder of the trained model of each parser in `rows`. The folder of the checkpoint is the one
    /// above.
    pub parsers: Vec<(String, u64, PathBuf)>,
    /// The gain of the denoising rule that was chosen on split val. `None` if none was chosen.
    pub denoising: Option<DenoisingGain>,
}

impl ScoreTable {
    /// Makes the table of the stages that are done. `folder` holds the checkpoints of the run.
    pub fn of(stages: &[RunStage], ledger: &Ledger, folder: &Path) -> ScoreTable {
        let mut of_labels: Vec<&RunStage> = Vec::new();
        let mut of_parsers: Vec<&RunStage> = Vec::new();
        for stage in stages {
            match stage.name == PLG || stage.name == PLD {
                true => of_labels.push(stage),
                false => of_parsers.push(stage),
            }
        }
        let parser = |stage: &&RunStage| {
            let epoch = ledger.done(stage)?.epoch?;
            Some((title(&stage.name), epoch, folder.join(&stage.name).join(MODEL)))
        };
        let parsers = of_parsers.iter().filter_map(parser).collect();
        let rows = of_labels.into_iter().chain(of_parsers).flat_map(|stage| {
            let lines = ledger.done(stage).map(|done| done.lines.clone());
            let title = title(&stage.name);
            lines
                .unwrap_or_default()
                .into_iter()
                .map(move |line| (title.clone(), line))
        });
        ScoreTable {
            denoising: stages.iter().rev().find_map(|stage| ledger.done(stage)?.gain),
            rows: rows.collect(),
            parsers,
        }
    }
}

impl ScoreTable {
    /// The rows as JSON: name, split, protocol, and the F-scores in percent by metric.
    pub fn named_rows(&self) -> Vec<Value> {
        let row = |(name, line): &(String, Line)| {
            let scores: Map<String, Value> = METRICS
                .iter()
                .zip(&line.scores)
                .map(|(metric, score)| ((*metric).to_owned(), (*score).into()))
                .collect();
            json!({
                "name": name,
                "split": line.split.as_str(),
                "protocol": line.protocol,
                "scores": scores,
                "accuracy": line.accuracy,
            })
        };
        self.rows.iter().map(row).collect()
    }

    /// The parsers as JSON: name, best epoch in the store, checkpoint and folder of the trained model.
    pub fn named_parsers(&self) -> Vec<Value> {
        let parser = |(name, epoch, model): &(String, u64, PathBuf)| json!({ "name": name, "epoch": epoch, "checkpoint": model.with_file_name(BEST), "model": model });
        self.parsers.iter().map(parser).collect()
    }
}

fn title(stage: &str) -> String {
    match stage {
        PLG => "labels, PLG".to_owned(),
        PLD => "labels, PLG + PLD".to_owned(),
        PLE => "parser, PLE".to_owned(),
        BOTH => "parser, PLE + PLD".to_owned(),
        baseline => format!("parser, {baseline}"),
    }
}

impl fmt::Display for ScoreTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return writeln!(f, "no split has dense truth: nothing to score");
        }
        let accuracy = self.rows.iter().any(|(_, line)| line.accuracy.is_some());
        write!(
            f,
            "{:<20} {:<5} {:<8} {:>6} {:>6} {:>6} {:>7} {:>8} | {:>6} {:>6} {:>6} {:>7} {:>8}",
            "F-scores, percent",
            "split",
            "protocol",
            "seg A",
            "V",
            "AV",
            "Type@AV",
            "Event@AV",
            "event A",
            "V",
            "AV",
            "Type@AV",
            "Event@AV"
        )?;
        writeln!(f, "{}", if accuracy { " | accuracy" } else { "" })?;
        for (title, line) in &self.rows {
            write!(f, "{title:<20} {:<5} {:<8}", line.split.as_str(), line.protocol)?;
            let widths = [6, 6, 6, 7, 8];
            for (at, level) in line.scores.chunks(widths.len()).enumerate() {
                write!(f, "{}", if at == 0 { "" } else { " |" })?;
                for (score, width) in level.iter().zip(widths) {
                    write!(f, " {score:>width$.1}")?;
                }
            }
            if let Some(accuracy) = line.accuracy {
                write!(f, " | {accuracy:>8.1}")?;
            }
            writeln!(f)?;
        }
        for (title, epoch, model) in &self.parsers {
            let checkpoint = model.with_file_name(BEST);
            writeln!(
                f,
                "checkpoint of {title}: epoch {epoch} of the store, {}; model {}",
                checkpoint.display(),
                model.display()
            )?;
        }
        if let Some(gain) = &self.denoising {
            writeln!(f, "denoising: {gain}")?;
        }
        Ok(())
    }
}
