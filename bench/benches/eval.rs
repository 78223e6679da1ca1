//! Times the evaluator on the 1,200 LLP test videos (or 1,200 simulated ones), with the matrices in memory.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vaplan::eval::Evaluator;
use vaplan_bench::eval_data::EvalData;

fn evaluator(criterion: &mut Criterion) {
    let data = EvalData::load();
    let mut group = criterion.benchmark_group("eval");
    group.throughput(Throughput::Elements(data.videos.len() as u64));
    group.bench_function(data.name, |bencher| {
        bencher.iter(|| {
            let mut evaluator = Evaluator::new(data.classes);
            for (prediction, truth) in black_box(&data.videos) {
                evaluator.add(prediction, truth);
            }
            evaluator.scores()
        });
    });
    group.finish();
}

criterion_group!(benches, evaluator);
criterion_main!(benches);
