//! Decides whether an error of a batch comes from a delivery, or from the store or the machine.

use std::ops::Range;
use std::path::Path;

use vaplan_schemas::store::Store;

use super::delivery::Delivery;
use super::place;
use crate::error::LabelError;
use crate::ingest::absolute;

/// Returns the deliveries that may have caused an error. `None` if the error comes from the store or the machine.
///
/// A file that cannot be read is found by its path. Every other error about the requested changes may come from any
/// delivery of the batch.
pub fn blamed(error: &LabelError, batch: &[Delivery], store: &Store) -> Option<Range<usize>> {
    match error {
        LabelError::Ingest(error) => {
            // Errors name absolute paths, and the inbox or the store may be named by a relative one.
            let named = |path: &Path| {
                error.path().starts_with(path)
                    || absolute(path).is_ok_and(|path| error.path().starts_with(path))
            };
            let is_of = |delivery: &Delivery| {
                #[cfg(feature = "encode")]
                let encoded = vaplan_schemas::Modality::ALL
                    .into_iter()
                    .any(|modality| named(&store.kept_input(&place::encoded(store, delivery, modality))));
                #[cfg(not(feature = "encode"))]
                let encoded = false;
                encoded || named(&delivery.entry.path) || named(&place::of(store, delivery))
            };
            batch.iter().position(is_of).map(|nth| nth..nth + 1)
        }
        LabelError::Settings(_)
        | LabelError::Change(_)
        | LabelError::Lost { .. }
        | LabelError::Prompts { .. }
        | LabelError::Collision { .. } => Some(0..batch.len()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::IngestError;
    use crate::watch::inbox::Inbox;

    #[test]
    fn a_file_that_cannot_be_read_is_told_by_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        let inbox = Inbox::open(&folder.path().join("inbox")).unwrap();
        for name in ["a.user.csv", "b.visual.parquet"] {
            std::fs::write(folder.path().join("inbox").join(name), name).unwrap();
        }
        let entries = inbox.list().unwrap().into_iter();
        let batch: Vec<Delivery> = entries
            .map(|entry| {
                let kind = entry.kind().unwrap().unwrap();
                Delivery::read(entry, kind).unwrap().unwrap()
            })
            .collect();
        let missing = |path: &Path| {
            let error = std::io::Error::from(std::io::ErrorKind::NotFound);
            LabelError::Ingest(IngestError::io("read", path)(error))
        };
        let of = |error: LabelError| blamed(&error, &batch, &store);
        assert_eq!(of(missing(&batch[0].entry.path)), Some(0..1));
        assert_eq!(of(missing(&place::of(&store, &batch[1]))), Some(1..2));
        assert_eq!(of(missing(&folder.path().join("features/visual"))), None);
        assert_eq!(of(LabelError::Settings("rule".to_owned())), Some(0..2));
        assert_eq!(of(LabelError::Stopped("early".to_owned())), None);
    }
}
