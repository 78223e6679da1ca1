//! A pair of values, one for each modality.

use vaplan_schemas::Modality;

/// One value for each modality, in the order of [`Modality::ALL`]: audio first, then visual.
pub type Both<T> = [T; 2];

/// The index of a modality's value in a [`Both`].
pub(crate) fn at(modality: Modality) -> usize {
    match modality {
        Modality::Audio => 0,
        Modality::Visual => 1,
    }
}
