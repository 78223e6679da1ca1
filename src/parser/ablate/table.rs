//! The table of means and deviations.

use std::fmt;

use super::{Ablation, AblationLine, AblationRun};
use crate::eval::Level;
use crate::parser::settings::Gate;

/// The mean and the sample standard deviation. The deviation of one value is 0.
pub fn spread(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// Writes the table of means and deviations, with one decimal.
impl fmt::Display for Ablation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = self
            .runs
            .iter()
            .map(|run| run.seed)
            .collect::<std::collections::BTreeSet<_>>();
        writeln!(
            f,
            "split {}, {} videos learnt from, {} epochs, mean and deviation over {} seeds, percent",
            self.split,
            self.videos,
            self.epochs,
            seeds.len()
        )?;
        for gate in Gate::ALL {
            writeln!(f, "\nprotocol {}", gate.as_str())?;
            writeln!(
                f,
                "{:<26}{:>11}{:>11}{:>11}{:>11}{:>11} |{:>12}{:>13}",
                "segment level", "A", "V", "AV", "Type@AV", "Event@AV", "event Type", "event Event"
            )?;
            for (title, runs) in self.rows() {
                let cell = |column: usize| {
                    let of = |run: &&AblationRun| {
                        let own = run.scores.iter().find(|(own, _)| *own == gate);
                        own.map_or(f64::NAN, |(_, scores)| scores[column])
                    };
                    let (mean, deviation) = spread(&runs.iter().map(of).collect::<Vec<_>>());
                    format!("{mean:.1} ±{deviation:.1}")
                };
                write!(f, "{title:<26}")?;
                for column in 0..5 {
                    write!(f, "{:>11}", cell(column))?;
                }
                writeln!(f, " |{:>12}{:>13}", cell(8), cell(9))?;
            }
        }
        self.chosen(f)?;
        self.labels(f)
    }
}

impl Ablation {
    /// The titles and networks of the rows: by line, then by network in the order of the request. With several networks,
    /// the title names the network.
    fn rows(&self) -> Vec<(String, Vec<&AblationRun>)> {
        let mut networks: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !networks.contains(&run.network.as_str()) {
                networks.push(&run.network);
            }
        }
        let pairs = AblationLine::ALL
            .into_iter()
            .flat_map(|line| networks.iter().map(move |network| (line, *network)));
        let rows = pairs.map(|(line, network)| {
            let of = |run: &&AblationRun| run.line == line && run.network == network;
            let title = match networks.len() {
                1 => line.as_str().to_owned(),
                _ => format!("{} {network}", line.as_str()),
            };
            (title, self.runs.iter().filter(of).collect::<Vec<_>>())
        });
        rows.filter(|(_, runs)| !runs.is_empty()).collect()
    }

    /// Writes the scores that chose the best epochs. Settings are chosen by these scores, because the scores on test must not
    /// choose anything.
    fn chosen(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nscore that chose the epoch, {}", self.chosen_by)?;
        for (title, runs) in self.rows() {
            let own: Vec<f64> = runs.iter().map(|run| run.score).collect();
            let (mean, deviation) = spread(&own);
            writeln!(f, "{title:<26}{:>11}", format!("{mean:.1} ±{deviation:.1}"))?;
        }
        Ok(())
    }

    /// Writes the scores of the labels before and after denoising.
    fn labels(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let denoised = |run: &&AblationRun| run.labels.is_some();
        if self.runs.iter().any(|run| denoised(&run)) {
            writeln!(f, "\nlabels of {}, segment level", self.split)?;
        }
        for (title, runs) in self.rows() {
            let runs: Vec<[Level; 2]> = runs.into_iter().filter_map(|run| run.labels).collect();
            for (at, when) in ["before", "after"]
                .into_iter()
                .enumerate()
                .filter(|_| !runs.is_empty())
            {
                write!(f, "{:<26}", format!("{title} {when}"))?;
                let values = [
                    |level: &Level| level.audio,
                    |level: &Level| level.visual,
                    |level: &Level| level.audio_visual,
                    |level: &Level| level.type_av,
                    |level: &Level| level.event_av,
                ];
                for value in values {
                    let own: Vec<f64> = runs.iter().map(|levels| value(&levels[at])).collect();
                    let (mean, deviation) = spread(&own);
                    write!(f, "{:>11}", format!("{mean:.1} ±{deviation:.1}"))?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vaplan_schemas::rows::Split;

    use super::*;

    #[test]
    fn the_table_has_mean_and_sample_deviation() {
        assert_eq!(spread(&[1.0, 2.0, 3.0]), (2.0, 1.0));
        assert_eq!(spread(&[5.0]), (5.0, 0.0));
        let run = |line, seed, score: f64| AblationRun {
            line,
            network: "han".to_owned(),
            seed,
            epoch: 3,
            loss: 1.0,
            score: score + 1.0,
            scores: Gate::ALL.map(|gate| (gate, vec![score; 10])).to_vec(),
            labels: None,
        };
        let ablation = Ablation {
            split: Split::Test,
            epochs: 40,
            videos: 100,
            chosen_by: "val.fused.segment.type_av".to_owned(),
            runs: vec![
                run(AblationLine::Weak, 1, 50.0),
                run(AblationLine::Weak, 2, 52.0),
                run(AblationLine::Richness, 1, 60.0),
            ],
        };
        let table = ablation.to_string();
        assert!(table.contains("mean and deviation over 2 seeds"), "{table}");
        let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("weak")).collect();
        assert_eq!(lines.len(), 3, "one a protocol, and one of the score on val");
        assert!(lines[0].contains("51.0 ±1.4"), "{table}");
        assert!(lines[2].contains("52.0 ±1.4"), "{table}");
        assert!(
            table.contains("chose the epoch, val.fused.segment.type_av"),
            "{table}"
        );
        assert!(table.contains("event Type  event Event"), "{table}");
        assert!(table.contains("pseudo+richness             60.0 ±0.0"), "{table}");

        // With several networks, each row names its network.
        let mut runs = ablation.runs.clone();
        runs.extend(ablation.runs.into_iter().map(|run| AblationRun {
            network: "transformer".to_owned(),
            scores: Gate::ALL.map(|gate| (gate, vec![70.0; 10])).to_vec(),
            ..run
        }));
        let table = Ablation { runs, ..ablation }.to_string();
        let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("weak ")).collect();
        assert_eq!(
            lines.len(),
            6,
            "one a protocol and network, and one of the score on val: {table}"
        );
        assert!(
            lines[0].starts_with("weak han") && lines[0].contains("51.0 ±1.4"),
            "{table}"
        );
        assert!(
            lines[1].starts_with("weak transformer") && lines[1].contains("70.0 ±0.0"),
            "{table}"
        );
    }
}
