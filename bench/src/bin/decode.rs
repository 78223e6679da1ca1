//! Decodes feature shards with the arrow reader of the crate `parquet`, and does nothing else. No labelling can be
//! faster, so labelling is compared with this time.
//!
//! Usage: `decode THREADS FOLDER...`. The program reads every `*.parquet` of the folders and prints one JSON object.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().ok_or("decode THREADS FOLDER...")?.parse()?;
    let mut files = Vec::new();
    for folder in arguments {
        let entries = std::fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
        let paths = entries.into_iter().map(|entry| entry.path());
        files.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")));
    }
    let start = Instant::now();
    let queue = Mutex::new(files);
    let rows = std::thread::scope(|scope| {
        let work = || -> Result<usize, String> {
            let mut rows = 0;
            loop {
                let next = queue.lock().map_err(|error| error.to_string())?.pop();
                let Some(path) = next else { return Ok(rows) };
                rows += decode(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| "a reader panicked".to_owned())?)
            .sum::<Result<usize, String>>()
    })?;
    println!(
        "{}",
        serde_json::json!({"seconds": start.elapsed().as_secs_f64(), "rows": rows})
    );
    Ok(())
}

fn decode(path: &PathBuf) -> Result<usize, Box<dyn std::error::Error>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?
        .with_batch_size(1024)
        .build()?;
    let mut rows = 0;
    for batch in reader {
        let batch = batch?;
        rows += batch.num_rows();
        // Use the decoded batch, so that the compiler cannot remove the decoding.
        std::hint::black_box(&batch);
    }
    Ok(rows)
}
