//! Rules that turn the cosines of a segment into the scores that are compared with thresholds.

use serde::{Deserialize, Serialize};

/// How the cosines of a segment become scores. PLG sets a label if score > threshold (strictly).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rule {
    /// The score is a probability: the softmax of scale · cosine over all C classes (docs/method.md, PLG 3, grade D).
    Softmax {
        /// The scale κ.
        scale: f64,
    },
    /// The score is scale · cosine (docs/method.md, PLG 3, grade C: VALOR, `get_segment_pseudo_labels`).
    Logit {
        /// The scale κ.
        scale: f64,
    },
}

impl Rule {
    /// The name of the rule in the settings and in the table `classes`.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Softmax { .. } => "softmax",
            Rule::Logit { .. } => "logit",
        }
    }

    /// The scale κ.
    pub const fn scale(self) -> f64 {
        match self {
            Rule::Softmax { scale } | Rule::Logit { scale } => scale,
        }
    }

    /// Converts the threshold that a user gives into the threshold for scores over `classes` (C) classes.
    ///
    /// For `softmax`, the user gives the threshold r relative to the uniform probability: τ = r / C. The same r then
    /// suits stores with different C. For `logit`, the user gives the threshold for scores directly.
    ///
    /// ```
    /// use vaplan_dataflows::rule::Rule;
    /// assert_eq!(Rule::Softmax { scale: 1.0 }.score_threshold(1.0, 25), 0.04);
    /// assert_eq!(Rule::Logit { scale: 100.0 }.score_threshold(21.5, 25), 21.5);
    /// ```
    pub fn score_threshold(self, threshold: f64, classes: usize) -> f64 {
        match self {
            Rule::Softmax { .. } => threshold / classes as f64,
            Rule::Logit { .. } => threshold,
        }
    }

    /// Computes the scores of one segment in f64, in order of class. The cosines are of any type that f64 holds exactly.
    ///
    /// # Shapes
    /// `cosines`: `[C]`; `scores`: `[C]`, overwritten.
    ///
    /// ```
    /// use vaplan_dataflows::rule::Rule;
    /// let mut scores = [0.0; 4];
    /// Rule::Softmax { scale: 1.0 }.score(&[0.5_f32; 4], &mut scores);
    /// assert_eq!(scores, [0.25; 4]);
    /// ```
    pub fn score<F: Copy + Into<f64>>(self, cosines: &[F], scores: &mut [f64]) {
        let scale = self.scale();
        for (score, &cosine) in scores.iter_mut().zip(cosines) {
            *score = scale * cosine.into();
        }
        if let Rule::Softmax { .. } = self {
            // Subtract the largest value first. Otherwise `exp` overflows if κ is large.
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
