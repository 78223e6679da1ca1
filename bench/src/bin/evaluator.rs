//! Times the evaluator alone, with the matrices in memory, for `bench/compare/eval.py`. Prints one JSON object to
//! standard output.

use std::time::Instant;

use vaplan::eval::Evaluator;
use vaplan_bench::eval_data::EvalData;

fn main() {
    let data = EvalData::load();
    let mut best = f64::INFINITY;
    let mut scores = None;
    for _ in 0..20 {
        let start = Instant::now();
        let mut evaluator = Evaluator::new(data.classes);
        for (prediction, truth) in &data.videos {
            evaluator.add(prediction, truth);
        }
        scores = evaluator.scores();
        best = best.min(start.elapsed().as_secs_f64());
    }
    let report = serde_json::json!({
        "data": data.name,
        "videos": data.videos.len(),
        "seconds": best,
        "scores": scores,
    });
    println!("{report}");
}
