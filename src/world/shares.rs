//! Shares of events, as a prior for thresholds.

use serde::{Deserialize, Serialize};

use super::Both;

/// Shares of the segments of a class's videos that have the event, by modality. `None` means that the mixture estimates the share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventShares(pub Both<Option<f64>>);

impl EventShares {
    /// Returns the share if it can be one.
    ///
    /// # Errors
    /// Returns a message for a share outside 0 to 1.
    pub fn check(share: f64) -> Result<f64, String> {
        match share > 0.0 && share < 1.0 {
            true => Ok(share),
            false => Err(format!(
                "the share of events is {share}, expected a number above 0 and below 1"
            )),
        }
    }
}
