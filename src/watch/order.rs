//! Decides which deliveries make one batch: as many as one change can hold with the same result as one change after the
//! other.
//!
//! A change can hold one file of thresholds and one epoch. It reads weak labels before user labels and predictions,
//! which are matched with the videos that the weak labels leave. It goes from the first state of a video directly to
//! its last state. A video that is removed and added again in one change would therefore keep its user labels and
//! predictions, which the removal should have deleted.

use super::delivery::DeliveryKind;
use crate::world::changes::WeakEdit;

/// Deliveries that a batch has taken so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    thresholds: bool,
    epoch: bool,
    removed: bool,
    /// The batch has user labels or predictions, which are matched with the videos.
    of_videos: bool,
}

impl Order {
    /// Takes the next delivery, in order of name. Returns false if the delivery must begin the next batch.
    pub fn takes(&mut self, kind: DeliveryKind) -> bool {
        match kind {
            DeliveryKind::Features(_) => true,
            #[cfg(feature = "encode")]
            DeliveryKind::Media => true,
            DeliveryKind::Thresholds => !std::mem::replace(&mut self.thresholds, true),
            DeliveryKind::Epoch(_) => {
                self.of_videos = true;
                !std::mem::replace(&mut self.epoch, true)
            }
            DeliveryKind::User => {
                self.of_videos = true;
                true
            }
            DeliveryKind::Weak(edit) => {
                let removes = edit == WeakEdit::Remove;
                let fits = !self.of_videos && (removes || !self.removed);
                self.removed |= removes;
                fits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many of these deliveries make the first batch.
    fn first(names: &[&str]) -> usize {
        let mut order = Order::default();
        let takes = |name: &&&str| order.takes(DeliveryKind::of(name, name.starts_with("epoch")).unwrap());
        names.iter().take_while(takes).count()
    }

    #[test]
    fn a_batch_ends_where_one_change_would_not_be_one_after_the_other() {
        assert_eq!(
            first(&["a.thresholds.toml", "b.user.csv", "c.thresholds.toml"]),
            2
        );
        assert_eq!(first(&["a.user.csv", "epoch-0001", "epoch-0002"]), 2);
        // User labels of a video that only the later file adds are rejected, as if each file were a batch of its own.
        assert_eq!(first(&["a.weak.csv", "b.user.csv", "c.weak.csv"]), 2);
        assert_eq!(first(&["epoch-0001", "x.weak-add.csv"]), 1);
        // A video that is removed and added again has lost its user labels.
        assert_eq!(
            first(&["a.weak-remove.csv", "b.weak-remove.csv", "c.weak.csv"]),
            2
        );
        assert_eq!(first(&["a.weak-remove.csv", "b.weak-add.csv"]), 1);
        assert_eq!(
            first(&[
                "a.weak.csv",
                "b.weak-add.csv",
                "c.weak-remove.csv",
                "d.user.csv",
                "e.user.csv"
            ]),
            5
        );
    }
}
