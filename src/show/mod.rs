//! One video as a timeline: its labels, the dense truth next to them, and the scores that the labels come from.
//!
//! | module | contents |
//! |---|---|
//! | [`timeline`] | the contents of a timeline, made from rows of a store |
//! | [`mod@render`] | a timeline as text: coloured, or plain ASCII |
//! | [`mod@html`] | a timeline as one HTML page |
//! | [`mod@find`] | the video that a name or an id means |
//! | [`predicted`] | the timeline of a video that is in no store, made from probabilities |
//! | [`mod@read`] | reads a video of a store version |

pub mod find;
pub mod html;
pub mod predicted;
pub mod read;
pub mod render;
pub mod timeline;

pub use find::{FindError, find};
pub use html::html;
pub use read::{ShowError, missing, read};
pub use render::{TimelineStyle, render};
pub use timeline::{Lane, Timeline, TimelineRows, TimelineTrack};
