//! A JSON file in ActivityNet's form.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

use super::{Exported, LeftOutVideos, write_text};
use crate::ingest::IngestError;

#[derive(Serialize)]
struct Document<'a> {
    version: String,
    taxonomy: Vec<Node<'a>>,
    database: BTreeMap<&'a str, Entry<'a>>,
}

/// A class. ActivityNet has a tree of classes; these classes have no parents.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Node<'a> {
    node_id: usize,
    node_name: &'a str,
}

#[derive(Serialize)]
struct Entry<'a> {
    subset: &'static str,
    /// Seconds.
    duration: f64,
    /// Classes of the weak label; an addition to ActivityNet's form.
    weak_labels: Vec<&'a str>,
    annotations: Vec<Annotation<'a>>,
}

#[derive(Serialize)]
struct Annotation<'a> {
    label: &'a str,
    /// Begin and end in seconds.
    segment: [f64; 2],
    /// An addition to ActivityNet's form: `audio` or `visual`.
    modality: &'static str,
}

/// Writes `labels.json`.
pub(super) fn write(exported: &Exported, folder: &Path) -> Result<LeftOutVideos, IngestError> {
    let classes = &exported.classes;
    let database = exported.videos.iter().map(|video| {
        let of = |modality: Modality| {
            let events = video.events(modality, classes).into_iter();
            events.map(move |event| Annotation {
                label: event.class,
                segment: [event.onset, event.offset].map(|segment| segment as f64 * video.seconds),
                modality: modality.as_str(),
            })
        };
        let entry = Entry {
            subset: match video.split {
                Split::Train => "training",
                Split::Val => "validation",
                Split::Test => "testing",
            },
            duration: video.segments as f64 * video.seconds,
            weak_labels: video.weak.iter().map(|class| &*classes[*class]).collect(),
            annotations: Modality::ALL.into_iter().flat_map(of).collect(),
        };
        (&*video.name, entry)
    });
    let document = Document {
        version: format!(
            "vaplan {}, store version {}",
            env!("CARGO_PKG_VERSION"),
            exported.version
        ),
        taxonomy: classes
            .iter()
            .enumerate()
            .map(|(node_id, class)| Node {
                node_id,
                node_name: class,
            })
            .collect(),
        database: database.collect(),
    };
    let text = serde_json::to_string_pretty(&document).expect("names and finite numbers are JSON");
    write_text(&folder.join("labels.json"), &format!("{text}\n"))?;
    Ok(LeftOutVideos::new())
}
