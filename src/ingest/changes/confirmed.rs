//! Tracks that a person confirmed in another program, as edits of user labels.

use std::ops::Range;
use std::sync::Arc;

use vaplan_schemas::Modality;

use super::{ChangeRows, Origin, UserEditRow, UserSpan};

/// A modality and class of a video whose labels a person confirmed, for all segments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ConfirmedTrack {
    pub(super) modality: Modality,
    pub(super) class: Arc<str>,
    /// The events, in seconds from the start of the video.
    pub(super) spans: Vec<Range<f64>>,
}

impl ConfirmedTrack {
    /// Adds the edits of the track. The first edit unsets every segment, and the next ones set the segments of the events:
    /// edits are applied in order.
    pub(super) fn add(self, video: &Arc<str>, origin: &Origin, rows: &mut ChangeRows) {
        let mut push = |span: UserSpan, label: bool| {
            rows.user.push(UserEditRow {
                video: video.clone(),
                modality: self.modality,
                class: self.class.clone(),
                span,
                label: Some(label),
                origin: origin.clone(),
            });
        };
        push(UserSpan::Whole, false);
        for span in self.spans {
            push(UserSpan::Seconds(span), true);
        }
    }
}
