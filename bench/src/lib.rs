//! Data for the benchmarks. The programs in `src/bin` are timed by the scripts in `bench/compare`.

pub mod eval_data;
