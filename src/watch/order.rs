//! Which deliveries make one batch: as many as one change takes in and leaves the store as one after the other would.
//!
//! A change takes one file of thresholds and one epoch. It takes weak labels before a person's labels and predictions,
//! which are of the videos there are then; and it goes from a video before to the video after, so one that is removed
//! and comes back in one change keeps what the removal should have ended.

use super::delivery::DeliveryKind;
use crate::world::changes::WeakEdit;

/// What a batch has taken so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    thresholds: bool,
    epoch: bool,
    removed: bool,
    /// Labels of a person, or predictions.
    of_videos: bool,
}

impl Order {
    /// Takes the next delivery by name; false: it begins the next batch.
    pub fn takes(&mut self, kind: DeliveryKind) -> bool {
        match kind {
            DeliveryKind::Features(_) => true,
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

    /// How many of these make the first batch.
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
        // Rows of a video that the next file brings are rejected, as they are a batch apart.
        assert_eq!(first(&["a.weak.csv", "b.user.csv", "c.weak.csv"]), 2);
        assert_eq!(first(&["epoch-0001", "x.weak-add.csv"]), 1);
        // What comes back comes without its marks.
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
