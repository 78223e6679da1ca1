//! One video as a timeline: its labels, the truth beside them, and the scores that made them.
//!
//! | module | what |
//! |---|---|
//! | [`timeline`] | what is shown of a video, from rows of a store |
//! | [`mod@render`] | a timeline as text: coloured, or plain ASCII |
//! | [`mod@find`] | the video that is meant by a name or an id |
//! | [`mod@read`] | a video of a store version |

pub mod find;
pub mod read;
pub mod render;
pub mod timeline;

pub use find::{FindError, find};
pub use read::{ShowError, read};
pub use render::{TimelineStyle, render};
pub use timeline::{Lane, Timeline, TimelineRows, TimelineTrack};
