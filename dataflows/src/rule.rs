//! From the cosines of a segment to what is compared with a cutoff.

use serde::{Deserialize, Serialize};

/// How a segment's cosines become scores. A label is set where score > cutoff, strict.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rule {
    /// Probability: softmax over all C classes of scale · cosine (METHOD.md, PLG 3, grade D).
    Softmax {
        /// κ.
        scale: f64,
    },
    /// scale · cosine itself (grade C: VALOR, `get_segment_pseudo_labels`).
    Logit {
        /// κ.
        scale: f64,
    },
}

impl Rule {
    /// As settings and the `classes` table name it.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Softmax { .. } => "softmax",
            Rule::Logit { .. } => "logit",
        }
    }

    /// κ.
    pub const fn scale(self) -> f64 {
        match self {
            Rule::Softmax { scale } | Rule::Logit { scale } => scale,
        }
    }

    /// What a threshold as a user gives it means for C classes.
    ///
    /// `softmax`: relative to uniform, τ = r / C, so that it carries over to other C. `logit`: θ as it is.
    ///
    /// ```
    /// use vaplan_dataflows::rule::Rule;
    /// assert_eq!(Rule::Softmax { scale: 1.0 }.cutoff(1.0, 25), 0.04);
    /// assert_eq!(Rule::Logit { scale: 100.0 }.cutoff(21.5, 25), 21.5);
    /// ```
    pub fn cutoff(self, threshold: f64, classes: usize) -> f64 {
        match self {
            Rule::Softmax { .. } => threshold / classes as f64,
            Rule::Logit { .. } => threshold,
        }
    }

    /// Scores of one segment, in f64 and in the order of the classes.
    ///
    /// # Shapes
    /// `cosines`: `[C]`; `scores`: `[C]`, overwritten.
    ///
    /// ```
    /// use vaplan_dataflows::rule::Rule;
    /// let mut scores = [0.0; 4];
    /// Rule::Softmax { scale: 1.0 }.score(&[0.5; 4], &mut scores);
    /// assert_eq!(scores, [0.25; 4]);
    /// ```
    pub fn score(self, cosines: &[f32], scores: &mut [f64]) {
        let scale = self.scale();
        for (score, &cosine) in scores.iter_mut().zip(cosines) {
            *score = scale * f64::from(cosine);
        }
        if let Rule::Softmax { .. } = self {
            // The largest first, or a large κ overflows.
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut sum = 0.0;
            for score in scores.iter_mut() {
                *score = (*score - largest).exp();
                sum += *score;
            }
            for score in scores.iter_mut() {
                *score /= sum;
            }
        }
    }
}
