//! A pair of values, one for each modality.

/// One value for each modality, at the place [`Modality::index`](vaplan_schemas::Modality::index): audio first, then visual.
pub type Both<T> = [T; 2];
